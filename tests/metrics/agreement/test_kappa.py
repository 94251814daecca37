"""Labels: against sklearn, Fleiss' own table, Krippendorff's own example, and by chance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from sightline.errors import GeometryError
from sightline.metrics.agreement.kappa import cohen_kappa, fleiss_kappa, krippendorff_alpha

# Fleiss 1971, Table 1: 30 patients, 6 psychiatrists, 5 diagnoses
FLEISS = """0 0 0 6 0|0 3 0 0 3|0 1 4 0 1|0 0 0 0 6|0 3 0 3 0|2 0 4 0 0|0 0 4 0 2|2 0 3 1 0|2 0 0 4 0|0 0 0 0 6
1 0 0 5 0|1 1 0 4 0|0 3 3 0 0|1 0 0 5 0
0 2 0 3 1|0 0 5 0 1|3 0 0 1 2|5 1 0 0 0|0 2 0 4 0|1 0 2 0 3|0 0 0 0 6|0 1 0 5 0|0 2 0 1 3
2 0 0 4 0|1 0 0 4 1|0 5 0 1 0|4 0 0 0 2|0 2 0 4 0|1 0 5 0 0|0 0 0 0 6"""
NAN = np.nan
# Krippendorff 2011, the reliability data of 4 observers and 12 units
KRIPPENDORFF = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
]


def test_fleiss_own_table():
    table = [[int(n) for n in row.split()] for line in FLEISS.splitlines() for row in line.split("|")]
    assert len(table) == 30
    assert fleiss_kappa(table) == pytest.approx(0.430, abs=5e-4)


@pytest.mark.parametrize(
    ("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)]
)
def test_krippendorffs_own_example(level, alpha):
    assert krippendorff_alpha(KRIPPENDORFF, level=level) == pytest.approx(alpha, abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=3, max_size=60),
    st.sampled_from(["none", "linear", "quadratic"]),
)
def test_cohen_equals_sklearn(pairs, weighting):
    a, b = np.array(pairs).T
    weights = np.arange(1, len(a) + 1)
    ours = cohen_kappa(a, b, 4, weighting=weighting, weights=weights)
    if len(set(a) | set(b)) == 1:
        assert np.isnan(ours)
        return
    theirs = cohen_kappa_score(
        a, b, labels=range(4), weights=None if weighting == "none" else weighting, sample_weight=weights
    )
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_weights_count_rows_more_than_once():
    rng = np.random.default_rng(0)
    a, b, w = rng.integers(0, 3, 40), rng.integers(0, 3, 40), rng.integers(0, 4, 40)
    repeated = cohen_kappa(np.repeat(a, w), np.repeat(b, w), 3)
    assert cohen_kappa(a, b, 3, weights=w) == pytest.approx(repeated, abs=1e-12)
    counts = np.stack([(np.stack([a, b, a]) == k).sum(axis=0) for k in range(3)], axis=1)
    assert fleiss_kappa(counts, weights=w) == pytest.approx(fleiss_kappa(np.repeat(counts, w, axis=0)), abs=1e-12)
    values = np.stack([a, b]).astype(float)
    ours = krippendorff_alpha(values, weights=w)
    assert ours == pytest.approx(krippendorff_alpha(np.repeat(values, w, axis=1)), abs=1e-12)


def test_chance_is_zero():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 3, 20_000), rng.integers(0, 3, 20_000)
    assert abs(cohen_kappa(a, b, 3)) < 0.02
    assert abs(krippendorff_alpha(np.stack([a, b]))) < 0.02


def test_what_cannot_be_told_apart_is_not_defined():
    assert np.isnan(cohen_kappa([1, 1], [1, 1], 2))
    assert np.isnan(fleiss_kappa([[3, 0], [3, 0]]))
    assert np.isnan(krippendorff_alpha([[1, NAN], [NAN, 1]]))


def test_bad_input_is_refused():
    with pytest.raises(GeometryError, match="same number of readers"):
        fleiss_kappa([[2, 0], [1, 0]])
    with pytest.raises(GeometryError, match="from 0 to 1"):
        cohen_kappa([0, 2], [0, 1], 2)
    with pytest.raises(GeometryError, match="pair up"):
        cohen_kappa([0], [0, 1], 2)
