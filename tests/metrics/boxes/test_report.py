import csv
import math
from dataclasses import replace

import numpy as np
import pytest
from support.tables import case, table

from sightline.errors import CohortError, GeometryError, LayoutError, RunError, UnreadableFile
from sightline.metrics.boxes.baselines import box_centre_prior, box_whole_image, compute_mean_box
from sightline.metrics.boxes.geometry import iou
from sightline.metrics.boxes.report import (
    BEST_BOX,
    BOX_MEASURES,
    compare_boxes,
    compute_box_chance,
    compute_box_estimates,
    compute_box_seed_chance,
    compute_box_value,
    estimate_boxes_over_seeds,
)
from sightline.metrics.boxes.table import BoxCase, BoxScores, align_boxes
from sightline.metrics.estimate import Estimate


def test_a_written_table_reads_back_bit_for_bit(tmp_path):
    t = table()
    odd = BoxCase('a,"b\n', "s", "p", "nor|mal", [], [], [], (7, 9), (1 / 3, 0.1))
    only_truth = case("truth", [[1 / 3, 0, 2, 2 / 7]])
    t = BoxScores((*t.cases, odd, only_truth), "band {60, 180}")
    assert any(not len(c.truth) and not len(c.found) for c in t.cases)
    t.write(tmp_path / "deep" / "boxes.csv")
    assert BoxScores.read(tmp_path / "deep" / "boxes.csv") == t
    with (tmp_path / "deep" / "boxes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    boxes = sum(len(c.truth) + len(c.found) or 1 for c in t.cases)
    assert len(rows) == boxes and {row["kind"] for row in rows} == {"truth", "found", "none"}
    assert t.counts()["images"] == 42 and t.counts()["findings"] == sum(len(c.truth) for c in t.cases)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda rows: rows[2].__setitem__(-1, "x"), "row 3: could not convert"),
        (lambda rows: rows[2].__setitem__(-1, "nan"), "finite"),
        (lambda rows: rows[2].__setitem__(-1, ""), "row 3: could not convert"),
        (lambda rows: rows[2].__setitem__(9, "guess"), "row 3: kind 'guess'"),
        (lambda rows: rows[2].__setitem__(10, ""), "row 3: kind 'found' with score ''"),
        (lambda rows: rows[2].__setitem__(3, "p9"), "row 3: the rows of case 'i1' disagree"),
        (lambda rows: rows[1].__setitem__(9, "none"), "row 2: kind 'none'"),
        (lambda rows: rows[2].__setitem__(0, "other"), "row 3: 15 fields, method"),
        (lambda rows: rows[2].pop(), "row 3: 14 fields"),
        (lambda rows: rows.append(rows[1]), "repeat 1 case ids"),
        (lambda rows: rows[3].__setitem__(5, "x"), "row 4: invalid literal"),
        (lambda rows: rows[3].__setitem__(7, "0.2"), "row 4: could not convert"),
        (lambda rows: rows[0].pop(), "expected rows under"),
        (lambda rows: rows.__setitem__(slice(1, None), []), "expected rows under"),
        (lambda rows: rows.clear(), "no table of boxes"),
    ],
)
def test_broken_tables_say_where(tmp_path, edit, message):
    path = tmp_path / "boxes.csv"
    BoxScores((case(1, [[1, 2, 30, 40]], [[2, 2, 30, 40]]), case(2)), "m").write(path)
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    edit(rows)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(LayoutError, match=message):
        BoxScores.read(path)
    with pytest.raises(UnreadableFile):
        BoxScores.read(tmp_path / "none.csv")


def test_bad_cases_are_refused_by_name():
    with pytest.raises(GeometryError, match="'i1' has a true box without area"):
        case(1, [[5, 5, 5, 9]])
    with pytest.raises(GeometryError, match="without area inside the image"):
        case(1, [[200, 5, 210, 9]])
    with pytest.raises(GeometryError, match="found boxes of case 'i1'"):
        case(1, found=[[0, 0, math.nan, 1]])
    with pytest.raises(RunError, match="'i1' has 1 found box and scores"):
        case(1, found=[[0, 0, 1, 1]], scores=[math.nan])
    with pytest.raises(RunError, match="'i1'"):
        case(1, found=[[0, 0, 1, 1]], scores=[1, 2])
    with pytest.raises(GeometryError, match="an image of shape"):
        case(1, shape=(0, 4))
    with pytest.raises(GeometryError, match="a spacing of"):
        case(1, spacing=(0.1, 0.0))
    with pytest.raises(CohortError, match="repeat 1 case ids"):
        BoxScores((case(1), case(1)), "m")
    with pytest.raises(CohortError, match="needs images"):
        BoxScores((), "m")


def test_boxes_are_cut_to_the_image():
    c = case(1, [[0, 0, 10, 10]], [[-10, -10, 10, 10], [500, 500, 600, 600]])
    assert c.overlap.tolist() == [[1.0], [0.0]] and c.found[1].tolist() == [100, 120, 100, 120]


def test_the_surest_box_counts_and_of_equal_ones_the_first():
    c = case(1, [[0, 0, 10, 10]], [[50, 50, 60, 60], [0, 0, 10, 10], [0, 0, 10, 5]], scores=[0.1, 0.7, 0.7])
    assert c.score.iou == 1.0
    assert replace(c, scores=[0.7, 0.7, 0.7]).score.iou == 0.0


def test_means_are_over_images_with_findings_and_missing_boxes_score_zero():
    hit, miss = case(1, [[0, 0, 20, 20]], [[0, 0, 20, 10]]), case(2, [[0, 0, 20, 20]])
    t = BoxScores((hit, miss, case(3, found=[[0, 0, 9, 9]])), "m")
    assert (
        compute_box_value(t, "iou") == 0.25
        and compute_box_value(t, "covered") == 0.25
        and compute_box_value(t, "iobb") == 0.5
    )
    assert compute_box_value(t, "centre_inside") == 0.5
    assert [compute_box_value(t, f"above_{x}") for x in ("0.1", "0.25", "0.5", "0.75", "0.9")] == [0.5, 0.5, 0, 0, 0]
    assert compute_box_value(t, "printed_map") == pytest.approx(0.2)
    assert compute_box_value(t, "distance_px") == 5.0 and compute_box_value(t, "distance_mm") is None
    found = {e.name: e for e in compute_box_estimates(t)}
    assert found["IoU of the best box"].n == {"images": 2, "studies": 2, "patients": 2, "findings": 2, "boxes": 1}
    assert "1 without a box score 0, 1 other images left out" in found["IoU of the best box"].method
    assert "known spacing" in found["centre distance in mm"].why
    assert "2 other images left out" in found["centre distance in px"].method


def test_a_table_without_findings_is_reported_not_raised():
    t = BoxScores((case(1, found=[[0, 0, 9, 9]]), case(2)), "m")
    found = compute_box_estimates(t)
    assert all(e.value is None and e.why == "not defined: no image has a true box" for e in found)
    assert compare_boxes([t], [t], "ap", replicates=20).difference is None
    assert estimate_boxes_over_seeds([t, t], "iou").why == "not defined: no image has a true box"
    empty = BoxScores((case(1, [[0, 0, 9, 9]]), case(2)), "m")
    assert (
        compute_box_value(empty, "ap") == compute_box_value(empty, "froc_50") == compute_box_value(empty, "iou") == 0.0
    )
    assert compute_box_value(empty, "distance_px") is None


def test_estimates_stand_beside_chance_and_carry_intervals():
    t = table(slip=2.0)
    found = {e.name: e for e in compute_box_estimates(t)}
    assert len(found) == 3 * len(BEST_BOX) + 14 and all(isinstance(e, Estimate) for e in found.values())
    with_truth = [c for c in t.cases if len(c.truth)]
    slow = [iou(c.found[[c.scores.argmax()]], c.truth).max() for c in with_truth]
    own, chance, gain = (found["IoU of the best box" + s] for s in ("", ", chance", ", above chance"))
    assert own.value == pytest.approx(np.mean(slow))
    assert chance.value == pytest.approx(np.mean([c.chance.iou for c in with_truth])) == compute_box_chance(t, "iou")
    assert gain.value == pytest.approx(own.value - chance.value) and gain.low > 0
    assert own.low < own.value < own.high and own.n["images"] == len(with_truth)
    assert found["centre distance in mm, minus chance"].high < 0
    assert found["AP at IoU 0.5"].n["images"] == 40 and "all boxes ranked by score" in found["AP at IoU 0.5"].method
    assert compute_box_chance(t, "ap") is None


def test_random_boxes_get_chance():
    random = np.random.default_rng(0)
    cases = []
    for i in range(400):
        corner = random.uniform(0, (70, 80), (1, 2))
        cases.append(case(i, [[30, 40, 60, 90]], np.concatenate([corner, corner + np.array([30, 40])], axis=1)))
    t = BoxScores(tuple(cases), "random")
    for word, measure in BEST_BOX.items():
        if word != "distance_mm":
            each = measure.each(t.cases)
            assert compute_box_value(t, word) == pytest.approx(
                compute_box_chance(t, word), abs=4 * each.std() / 20 + 1e-3
            ), word


def test_reference_rows():
    t = table()
    whole = box_whole_image(t)
    first = next(c for c in whole.cases if len(c.truth))
    assert first.found.tolist() == [[0, 0, 100, 120]] and whole.method == "whole image"
    assert compute_box_value(whole, "covered") == 1.0 and compute_box_value(whole, "iou") == pytest.approx(
        compute_box_chance(whole, "iou")
    )
    shapes = [c.image_shape for c in t.cases]
    mean = compute_mean_box([c.truth for c in t.cases], shapes)
    every = np.concatenate([c.truth for c in t.cases]) / [100, 120, 100, 120]
    np.testing.assert_allclose(mean, every.mean(axis=0))
    prior = box_centre_prior(t, mean)
    np.testing.assert_allclose(prior.cases[5].found, [mean * [100, 120, 100, 120]])
    assert align_boxes([t, whole, prior])[2].method == "centre prior"
    assert compare_boxes([t], [prior], "iou", replicates=50).difference is not None
    with pytest.raises(CohortError, match="no training box"):
        compute_mean_box([np.zeros((0, 4))], [(3, 3)])
    with pytest.raises(GeometryError, match="fractions"):
        box_centre_prior(t, [0, 0, 2, 1])


def test_better_boxes_win_and_equal_ones_do_not():
    good, bad = [table(s, slip=1.0) for s in range(3)], [table(s + 5, slip=15.0) for s in range(2)]
    for measure in ("iou", "ap_50", "froc_10"):
        found = compare_boxes(good, bad, measure, replicates=300)
        means = [np.mean([compute_box_value(t, measure) for t in runs]) for runs in (good, bad)]
        assert found.difference == pytest.approx(means[0] - means[1])
        assert found.low > 0 and found.p_value < 0.02 and found.n["seeds_a"] == 3 and found.n["patients"] > 5
    same = compare_boxes(bad[:1], bad[:1], "ap", replicates=50)
    assert same.p_value == 1.0 and same.difference == 0.0
    # what is the same of every patient tells nothing of other patients
    assert same.low is None and same.high is None and "the same" in same.why


def test_the_mean_over_seeds_holds_patients_and_trainings():
    runs = [table(s) for s in range(3)]
    for measure in ("iou", "froc_centre_at_1", "distance_px"):
        found = estimate_boxes_over_seeds(runs, measure)
        assert found.value == pytest.approx(np.mean([compute_box_value(r, measure) for r in runs]))
        assert found.n["seeds"] == 3 and 0 <= found.low < found.value < found.high
        one = estimate_boxes_over_seeds(runs[:1], measure)
        alone = next(e for e in compute_box_estimates(runs[0]) if e.name == one.name)
        assert (one.value, one.low, one.high) == pytest.approx((alone.value, alone.low, alone.high))
    assert estimate_boxes_over_seeds(runs, "distance_px").high > 1.0


def test_distances_are_compared_where_every_run_has_a_box():
    a, b = table(0), table(1)
    with_box = next(i for i, c in enumerate(a.cases) if len(c.truth) and len(c.found))
    lacking = replace(a.cases[with_box], found=[], scores=[])
    a = BoxScores((*a.cases[:with_box], lacking, *a.cases[with_box + 1 :]), "m")
    found = compare_boxes([a], [b], "distance_px", replicates=50)
    assert "1 images left out" in found.why and found.n["images"] == 25
    assert "left out" not in compare_boxes([a], [b], "iou", replicates=50).why


def test_chance_is_of_the_images_that_have_the_number_in_every_training():
    runs = [table(seed) for seed in (1, 2)]
    at = next(i for i, c in enumerate(runs[1].cases) if len(c.truth) and len(c.found))
    lacking = replace(runs[1].cases[at], found=[], scores=[])
    runs[1] = BoxScores((*runs[1].cases[:at], lacking, *runs[1].cases[at + 1 :]), "m")
    kept = [BoxScores((*run.cases[:at], *run.cases[at + 1 :]), "m") for run in runs]
    expected = np.mean([compute_box_chance(run, "distance_px") for run in kept])
    assert compute_box_seed_chance(runs, "distance_px") == pytest.approx(expected)
    assert np.mean([compute_box_chance(run, "distance_px") for run in runs]) != pytest.approx(expected)


def test_other_images_measures_and_truths_are_refused():
    t = table()
    with pytest.raises(RunError, match="1 stand in one only"):
        compare_boxes([t], [BoxScores(t.cases[1:], "m")], "iou")
    with pytest.raises(RunError, match="disagree on case"):
        compare_boxes([t], [table(truth_seed=1)], "iou")
    with pytest.raises(RunError, match="no box measure 'dice'"):
        compute_box_value(t, "dice")
    with pytest.raises(RunError, match="both methods"):
        compare_boxes([t], [], "iou")
    with pytest.raises(RunError, match="at least one run"):
        estimate_boxes_over_seeds([], "iou")
    turned = BoxScores(t.cases[::-1], "m")
    assert align_boxes([t, turned])[1].cases == t.cases
    assert set(BOX_MEASURES) >= {"iou", "printed_map", "ap", "ap_50", "ap_10", "froc_50", "froc_centre_at_0.125"}
