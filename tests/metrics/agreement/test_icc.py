"""Numbers: Shrout and Fleiss' own table, intervals by simulation."""

import numpy as np
import pytest

from sightline.errors import GeometryError
from sightline.metrics.agreement.icc import (
    FORMS,
    collect_patient_sums,
    compute_correlation_of_sums,
    intraclass_correlation,
)

# Shrout and Fleiss 1979, Table 2: 6 targets, 4 judges
TABLE = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


@pytest.mark.parametrize(
    ("form", "value", "low", "high"),
    # intervals as printed by R's psych::ICC for the same table
    [("ICC(1,1)", 0.17, -0.13, 0.72), ("ICC(2,1)", 0.29, 0.02, 0.76), ("ICC(3,1)", 0.71, 0.34, 0.95)],
)
def test_shrout_and_fleiss_own_table(form, value, low, high):
    found = intraclass_correlation(TABLE, form)
    assert found.value == pytest.approx(value, abs=0.006)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))


@pytest.mark.parametrize("form", ["ICC(1,1)", "ICC(2,1)", "ICC(3,1)"])
def test_the_interval_holds_the_truth_as_often_as_it_says(form):
    rng = np.random.default_rng(0)
    n, k, target, reader, noise = 20, 4, 1.0, 0.5, 0.8
    spread = {"ICC(1,1)": target**2 + reader**2 + noise**2, "ICC(2,1)": target**2 + reader**2 + noise**2}
    truth = target**2 / spread.get(form, target**2 + noise**2)
    hits = 0
    for _ in range(400):
        levels = rng.normal(0, reader, (n, k) if form == "ICC(1,1)" else (1, k))
        x = rng.normal(0, target, (n, 1)) + levels + rng.normal(0, noise, (n, k))
        found = intraclass_correlation(x, form)
        hits += found.low <= truth <= found.high
    assert 0.91 <= hits / 400 <= 0.985


def test_perfect_and_constant_ratings():
    assert intraclass_correlation([[1, 1], [2, 2], [5, 5]], "ICC(2,1)").value == 1.0
    assert intraclass_correlation([[1, 2], [2, 3], [5, 6]], "ICC(3,1)").value == pytest.approx(1.0)
    assert np.isnan(intraclass_correlation([[1, 1], [1, 1]], "ICC(2,1)").value)


@pytest.mark.parametrize("ratings", [[[1, 2]] * 3, np.tile([0.3, 0.6, 0.9], (11, 1)), np.tile([0.123, 0.456], (64, 1))])
def test_levels_of_readers_alone_are_no_agreement_and_no_disagreement(ratings):
    """Targets do not differ: what is left beside the readers' levels is 0, or the rounding of it."""
    sums = collect_patient_sums(ratings, [str(i) for i in range(len(ratings))]).sum(axis=0)
    found = intraclass_correlation(ratings, "ICC(3,1)")
    assert np.isnan([found.value, found.low, found.high, compute_correlation_of_sums(sums, "ICC(3,1)")]).all()
    assert "targets do not differ" in found.why
    # where levels count, they are all there is
    for form, value in (("ICC(2,1)", 0.0), ("ICC(1,1)", -1.0 / (len(ratings[0]) - 1))):
        assert intraclass_correlation(ratings, form).value == pytest.approx(value, abs=1e-12)
        assert compute_correlation_of_sums(sums, form) == pytest.approx(value, abs=1e-12)


def test_the_rounding_of_equal_numbers_is_no_difference():
    for ratings in ([[0.1] * 3] * 7, [[0.3, 0.1 + 0.2]] * 5):
        assert all(intraclass_correlation(ratings, form).why == "all numbers are one" for form in FORMS)
    # two targets, two readers, each as high as the other on average
    assert "targets do not differ" in intraclass_correlation([[1, 2], [2, 1]], "ICC(2,1)").why


def test_bad_input_is_refused():
    for bad in ([[1, 2]], [[1], [2]], [[1, np.nan], [2, 3]]):
        with pytest.raises(GeometryError):
            intraclass_correlation(bad)


def test_sums_of_patients_give_the_same_correlation_and_may_be_drawn():
    rng = np.random.default_rng(5)
    ratings = rng.normal(3.0, 1.0, (30, 1)) + rng.normal(0.0, 0.5, (30, 3)) + np.array([0.0, 0.2, -0.1])
    patients = [f"P{i % 7}" for i in range(30)]
    sums = collect_patient_sums(ratings, patients)
    twice = np.concatenate([ratings, ratings[[i for i, p in enumerate(patients) if p == "P0"]]])
    for form in FORMS:
        whole = compute_correlation_of_sums(sums.sum(axis=0), form)
        assert whole == pytest.approx(intraclass_correlation(ratings, form).value, abs=1e-12)
        drawn = compute_correlation_of_sums(np.array([2.0, 1, 1, 1, 1, 1, 1]) @ sums, form)
        assert drawn == pytest.approx(intraclass_correlation(twice, form).value, abs=1e-12)
    alike = collect_patient_sums(np.ones((4, 2)), list("abcd")).sum(axis=0)
    assert np.isnan(compute_correlation_of_sums(alike, "ICC(2,1)"))
