import csv
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.errors import CohortError, LayoutError, RunError, UnreadableFile
from sightline.metrics.estimate import Comparison, Estimate, format_p_text
from sightline.metrics.predictions import Predictions, align


def table(n=12, k=3, seed=0, views=2):
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(k), n)
    labels = (np.arange(n) // views) % k
    return Predictions(
        tuple(f"class {c}" for c in range(k)),
        tuple(f"i{i}" for i in range(n)),
        tuple(f"s{i // views}" for i in range(n)),
        tuple(f"p{i // (2 * views)}" for i in range(n)),
        labels,
        probabilities,
    )


def changed(predictions, **columns):
    names = ("classes", "case_ids", "study_ids", "patient_ids", "labels", "probabilities")
    return Predictions(**{**{name: getattr(predictions, name) for name in names}, **columns})


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.text(st.characters(exclude_categories=["Cs"]), max_size=6))
def test_a_written_table_reads_back_bit_for_bit(tmp_path_factory, positives, odd):
    p = np.array(positives)
    n = len(p)
    ids = tuple(f"{odd},{i}" for i in range(n))
    written = Predictions(("none", 'frac"ture' + odd), ids, ids, ids, np.arange(n) % 2, np.stack([1 - p, p], 1))
    path = tmp_path_factory.mktemp("t") / "deep" / "predictions.csv"
    written.write(path)
    assert Predictions.read(path) == written


def test_study_wise_is_the_mean_vector_in_order_of_appearance():
    t = table()
    shuffled = t.select(np.random.default_rng(1).permutation(len(t)))
    by_study = shuffled.study_wise()
    assert by_study.unit == "study"
    assert list(by_study.case_ids) == list(dict.fromkeys(shuffled.study_ids))
    for i, study in enumerate(by_study.case_ids):
        rows = [j for j, s in enumerate(t.study_ids) if s == study]
        np.testing.assert_allclose(by_study.probabilities[i], sum(t.probabilities[j] for j in rows) / len(rows))
        assert by_study.labels[i] == t.labels[rows[0]]
        assert by_study.patient_ids[i] == t.patient_ids[rows[0]]
    assert by_study.counts() == {"studies": 6, "patients": 3}
    assert t.counts() == {"images": 12, "studies": 6, "patients": 3}


def test_the_mean_of_probabilities_may_change_the_answer():
    # two views say "fracture" by a hair, one says "none" with certainty
    p = np.array([[0.45, 0.55], [0.45, 0.55], [1.0, 0.0]])
    t = Predictions(("none", "fracture"), ("a", "b", "c"), ("s",) * 3, ("p",) * 3, np.zeros(3, int), p)
    assert t.study_wise().probabilities.argmax() == 0


@pytest.mark.parametrize(
    ("column", "value"),
    [("labels", np.array([0, 1] + [0] * 10)), ("patient_ids", ("p0", "p9", *["p1"] * 10))],
)
def test_a_study_that_disagrees_is_refused(column, value):
    with pytest.raises(CohortError, match="Study 's0'"):
        changed(table(), **{column: value}).study_wise()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1, 1.1])
def test_probabilities_must_be_probabilities(bad):
    p = table().probabilities.copy()
    p[4, 1] = bad
    with pytest.raises(RunError, match="'i4'"):
        changed(table(), probabilities=p)


def test_rows_must_sum_to_one():
    p = table().probabilities.copy()
    p[3] *= 0.999
    with pytest.raises(RunError, match=r"'i3' has probabilities that sum to 0\.999"):
        changed(table(), probabilities=p)
    p[3] *= (1 + 5e-5) / 0.999
    changed(table(), probabilities=p)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"labels": np.array([3] + [0] * 11)}, "expected a class index from 0 to 2"),
        ({"labels": np.array([-1] + [0] * 11)}, "'i0' has label -1"),
        ({"labels": np.array([0.5] + [0.0] * 11)}, "label 0.5"),
        ({"case_ids": ("i1", *(f"i{i}" for i in range(1, 12)))}, "repeated case ids"),
        ({"study_ids": ("s",)}, "1 study ids"),
        ({"classes": ("a", "a", "b")}, "different class names"),
    ],
)
def test_bad_columns_are_named(columns, message):
    with pytest.raises(CohortError, match=message):
        changed(table(), **columns)


def test_no_rows_are_refused():
    with pytest.raises(CohortError, match="no case"):
        table().select([])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda rows: rows[2].__setitem__(4, "class 9"), "row 3: label 'class 9'"),
        (lambda rows: rows[2].__setitem__(5, "zero"), "row 3: could not convert"),
        (lambda rows: rows[2].__setitem__(5, "0.9"), "sum to"),
        (lambda rows: rows[2].pop(), "row 3: 7 fields"),
        (lambda rows: rows[2].__setitem__(3, "study"), "row 3: unit"),
        (lambda rows: rows[0].__setitem__(0, "case"), "expected columns"),
        (lambda rows: rows.__setitem__(slice(1, None), []), "no row"),
        (lambda rows: rows.clear(), "no table"),
    ],
)
def test_broken_files_say_where(tmp_path, edit, message):
    path = tmp_path / "p.csv"
    table().write(path)
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    edit(rows)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(LayoutError, match=message) as caught:
        Predictions.read(path)
    assert "p.csv" in caught.value.message


def test_a_missing_or_binary_file_is_unreadable(tmp_path):
    with pytest.raises(UnreadableFile):
        Predictions.read(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UnreadableFile):
        Predictions.read(tmp_path / "b.csv")


def test_align_puts_rows_in_one_order_and_refuses_other_cases():
    t = table()
    assert align([t, t.select(np.arange(12)[::-1])])[1] == t
    with pytest.raises(RunError, match="1 case stands in one only"):
        align([t, t.select(np.arange(11))])
    with pytest.raises(RunError, match="disagree on labels"):
        align([t, changed(t, labels=(t.labels + 1) % 3)])


def test_class_index_defaults_to_the_last():
    assert table().class_index(None) == 2
    assert table().class_index("class 1") == 1
    with pytest.raises(CohortError, match="no class 'x'"):
        table().class_index("x")


def test_estimates_print_and_survive_json():
    e = Estimate("AUC", 0.8123, 0.7412, 0.8734, {"images": 450}, "patient bootstrap")
    assert e.text() == "0.812 (0.741–0.873)"
    assert Estimate.from_dict(json.loads(json.dumps(e.to_dict()))) == e
    assert Estimate("AUC", None, why="no case of fracture").text() == "undefined"
    c = Comparison("AUC", 0.8, 0.75, 0.05, 0.01, 0.09, 0.0004, {"seeds_a": 3}, "paired")
    assert c.text() == "+0.050 (+0.010–+0.090), p < 0.001"
    assert Comparison.from_dict(json.loads(json.dumps(c.to_dict()))) == c
    assert format_p_text(0.0213) == "p = 0.021"


@pytest.mark.parametrize(
    "fields",
    [{"value": math.nan}, {"value": None}, {"value": 1.0, "low": 0.5}, {"value": 1.0, "low": 2.0, "high": 1.0}],
)
def test_an_estimate_is_never_silently_nothing(fields):
    with pytest.raises(RunError):
        Estimate("AUC", **fields)


def test_unknown_fields_are_refused():
    with pytest.raises(RunError, match="unknown fields"):
        Estimate.from_dict({**Estimate("a", 1.0).to_dict(), "code": "x"})
