"""Fine classes merged into coarse ones, and F1 per class as Jimenez-Sanchez 2018 prints it."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from sightline.errors import CohortError, RunError
from sightline.evaluation.report import compute_report
from sightline.evaluation.result import Evaluation
from sightline.metrics.classification.hierarchy import merge_classes
from sightline.metrics.classification.report import compute_classification_report
from sightline.metrics.classification.scores import F1, weigh_by_support
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.bootstrap import bootstrap

FINE = ("A1", "A2", "A3", "B1", "B2", "B3", "normal")
THREE = {"A": ("A1", "A2", "A3"), "B": ("B1", "B2", "B3"), "normal": ("normal",)}
TWO = {"normal": ("normal",), "fracture": FINE[:6]}


def table(n=70, seed=0, classes=FINE, absent=()):
    random = np.random.default_rng(seed)
    present = [i for i, name in enumerate(classes) if name not in absent]
    labels = np.array([present[i % len(present)] for i in range(n)])
    raw = random.dirichlet(np.ones(len(classes)), n) + 0.3 * (labels[:, None] == np.arange(len(classes)))
    ids = tuple(f"i{i}" for i in range(n))
    patients = tuple(f"p{i // 2}" for i in range(n))
    return Predictions(classes, ids, ids, patients, labels, raw / raw.sum(axis=1, keepdims=True))


def test_probabilities_and_labels_are_summed_into_groups():
    t = table()
    three = merge_classes(t, THREE)
    assert three.classes == ("A", "B", "normal") and three.case_ids == t.case_ids
    for i in range(len(t)):
        p = t.probabilities[i]
        np.testing.assert_allclose(three.probabilities[i], [p[:3].sum(), p[3:6].sum(), p[6]])
        assert three.classes[three.labels[i]] == {"n": "normal"}.get(FINE[t.labels[i]][0], FINE[t.labels[i]][0])
    # in two steps or in one
    twice = merge_classes(three, {"normal": ("normal",), "fracture": ("A", "B")})
    np.testing.assert_allclose(twice.probabilities, merge_classes(t, TWO).probabilities)
    assert twice.labels.tolist() == merge_classes(t, TWO).labels.tolist()
    assert merge_classes(t, {name: (name,) for name in FINE}) == t


def test_what_each_view_says_alone_is_merged_too():
    t = table()
    joined = replace(t, alone=table(seed=1).probabilities)
    np.testing.assert_array_equal(merge_classes(joined, THREE).alone, merge_classes(table(seed=1), THREE).probabilities)
    turned = merge_classes(joined, {name: (name,) for name in FINE[::-1]})
    np.testing.assert_array_equal(turned.alone, joined.alone[:, ::-1])
    types = {name: (name,) for name in FINE[:6]}
    np.testing.assert_allclose(merge_classes(joined, types, left_out="drop").alone.sum(axis=1), 1.0)
    independent = replace(joined, independent=True)
    left = (1.0 - joined.alone[:, :3]).prod(axis=1)
    np.testing.assert_allclose(merge_classes(independent, THREE).alone[:, 0], 1.0 - left)
    # a report names coarser levels of joined views as well
    names = [e.name for e in compute_report(Evaluation(joined), replicates=20)]
    assert any(name.startswith("F1 at the level type") for name in names)


def test_the_most_probable_group_need_not_hold_the_most_probable_class():
    p = np.array([[0.3, 0.3, 0.0, 0.0, 0.0, 0.0, 0.4]])
    one = Predictions(FINE, ("i",), ("i",), ("p",), [0], p)
    assert one.probabilities.argmax() == 6 and merge_classes(one, TWO).probabilities.argmax() == 1


def test_classes_left_out_are_refused_or_dropped_with_what_is_left_as_the_whole():
    t = table()
    types = {name: (name,) for name in FINE[:6]}
    with pytest.raises(CohortError, match=r"\['normal'\] belong to no group"):
        merge_classes(t, types)
    dropped = merge_classes(t, types, left_out="drop")
    kept = t.labels != 6
    assert len(dropped) == kept.sum() and dropped.classes == FINE[:6]
    np.testing.assert_allclose(
        dropped.probabilities, t.probabilities[kept, :6] / t.probabilities[kept, :6].sum(axis=1, keepdims=True)
    )
    sure = Predictions(FINE, ("i",), ("i",), ("p",), [0], np.eye(7)[[6]])
    with pytest.raises(RunError, match="'i' has no probability in any of the groups"):
        merge_classes(sure, types, left_out="drop")
    with pytest.raises(CohortError, match="no case"):
        merge_classes(t.select(t.labels == 6), types, left_out="drop")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({**THREE, "C": ("C1",)}, r"unknown \['C1'\]"),
        ({**THREE, "C": ("A1",)}, r"in two groups \['A1'\]"),
        ({**THREE, "C": ()}, r"groups without a class \['C'\]"),
        ({"normal": ("normal",), "fracture": "A1"}, "do not merge"),
        ({"all": FINE}, "two or more different class names"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, message):
    with pytest.raises(CohortError, match=message):
        merge_classes(table(), groups)


def test_every_class_has_its_f1_in_a_report():
    t = table()
    report = {e.name: e.value for e in compute_classification_report(t, replicates=20)}
    ours = [report[f"F1 of {name}, image-wise"] for name in FINE]
    np.testing.assert_allclose(ours, f1_score(t.labels, t.probabilities.argmax(axis=1), average=None))


def test_a_class_missing_from_a_split_has_no_f1_and_the_weighted_one_does_not_ask_for_it():
    t = table(absent=("A3",))
    report = {e.name: e for e in compute_classification_report(t, replicates=50)}
    missing = report["F1 of A3, image-wise"]
    assert missing.value is None and missing.why == "not defined: no case of A3"
    assert report["F1 macro, image-wise"].value is None
    weighted = report["F1 weighted by support, image-wise"]
    called = t.probabilities.argmax(axis=1)
    assert (called == 2).any()  # some are called A3 all the same, at the cost of their own classes
    assert weighted.value == pytest.approx(f1_score(t.labels, called, average="weighted", zero_division=0))
    assert weighted.low < weighted.value < weighted.high


# Jimenez-Sanchez 2018, table II: F1 per class, then the printed average; supports from section IV
SUPPORT_3, SUPPORT_6 = (55, 60, 60), (25, 25, 5, 20, 20, 20)
TABLE_II = {
    "LBM, 3 classes": ((0.76, 0.81, 0.89), 0.82),
    "a-STN, 3 classes": ((0.74, 0.82, 0.88), 0.82),
    "aff-STN, 3 classes": ((0.80, 0.87, 0.86), 0.84),
    "Sup+UBM, 3 classes": ((0.81, 0.83, 0.91), 0.85),
    "UBM, 3 classes": ((0.85, 0.88, 0.88), 0.87),
    "LBM CE": ((0.26, 0.73, 0.00, 0.40, 0.35, 0.34), 0.41),
    "LBM WCE": ((0.22, 0.76, 0.00, 0.56, 0.54, 0.53), 0.49),
    "a-STN": ((0.07, 0.71, 0.00, 0.32, 0.36, 0.16), 0.32),
    "aff-STN": ((0.33, 0.75, 0.00, 0.50, 0.47, 0.43), 0.48),
    "Sup+UBM CE": ((0.50, 0.71, 0.00, 0.63, 0.40, 0.63), 0.55),
    "Sup+UBM WCE": ((0.47, 0.76, 0.00, 0.55, 0.49, 0.38), 0.51),
    "UBM CE": ((0.19, 0.76, 0.33, 0.55, 0.47, 0.47), 0.48),
    "UBM WCE": ((0.18, 0.71, 0.00, 0.52, 0.45, 0.24), 0.40),
}


@pytest.mark.parametrize("row", TABLE_II)
def test_golden_check_8_the_printed_averages_are_weighted_by_support(row):
    each, printed = TABLE_II[row]
    support = SUPPORT_3 if len(each) == 3 else SUPPORT_6
    ours = weigh_by_support(np.array([each]), np.array([support]))
    # both sides are printed with two digits
    assert ours == pytest.approx([printed], abs=0.01)


def test_golden_check_8_the_printed_averages_are_not_plain_means():
    away = [abs(np.mean(each) - printed) for each, printed in TABLE_II.values()]
    assert max(away) > 0.02


def test_golden_check_8_known_values():
    for row, value in (("LBM, 3 classes", 0.8217), ("LBM CE", 0.4048)):
        each = TABLE_II[row][0]
        found = weigh_by_support(np.array([each]), np.array([SUPPORT_3 if len(each) == 3 else SUPPORT_6]))
        assert found == pytest.approx([value], abs=1e-4)


def test_weighted_f1_is_the_support_weighted_mean_of_the_classes():
    t = table(n=64)
    each = [bootstrap(F1("positive", i), t, replicates=2).value for i in range(7)]
    weighted = bootstrap(F1("weighted"), t, replicates=2).value
    assert weighted == pytest.approx(np.average(each, weights=np.bincount(t.labels, minlength=7)))
