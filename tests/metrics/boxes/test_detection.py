import contextlib
import io
import time

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.tables import case, table

from sightline.metrics.boxes.detection import (
    COCO_THRESHOLDS,
    FROC,
    RATES,
    BoxPrecision,
    compute_ranking_curve,
    match_boxes,
)
from sightline.metrics.boxes.geometry import iou, is_centre_inside
from sightline.metrics.boxes.report import compare_boxes, compute_box_value
from sightline.metrics.boxes.table import BoxCase, BoxScores
from sightline.metrics.statistics.bootstrap import Resample


def coco_stats(scores):
    """AP, AP50, AP75 and AP at 0.1 by pycocotools."""

    def corners(box):
        return [float(box[1]), float(box[0]), float(box[3] - box[1]), float(box[2] - box[0])]

    images, truths, found = [], [], []
    for i, c in enumerate(scores.cases):
        images.append({"id": i, "height": c.image_shape[0], "width": c.image_shape[1]})
        for box in c.truth:
            w, h = corners(box)[2:]
            truths.append({"id": len(truths) + 1, "image_id": i, "category_id": 1, "bbox": corners(box),
                           "area": w * h, "iscrowd": 0})  # fmt: skip
        for box, score in zip(c.found, c.scores, strict=True):
            found.append({"image_id": i, "category_id": 1, "bbox": corners(box), "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"images": images, "annotations": truths, "categories": [{"id": 1, "name": "finding"}]}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.params.iouThrs = np.array([0.1, *COCO_THRESHOLDS])
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, -1].mean(axis=1)
    return precision[1:].mean(), precision[1], precision[6], precision[0]


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_pycocotools(seed):
    t = table(seed, images=60, truth_seed=seed, slip=4.0)
    ours = (
        compute_box_value(t, "ap"),
        compute_box_value(t, "ap_50"),
        compute_box_value(t, BoxPrecision((0.75,), name="AP75")),
        compute_box_value(t, "ap_10"),
    )
    assert ours == pytest.approx(coco_stats(t), abs=1e-9)
    assert 0.05 < ours[0] < ours[1] < 1.0


def slow_match(c, fits):
    free, right = set(range(len(c.truth))), []
    for i in sorted(range(len(c.found)), key=lambda i: -c.scores[i]):
        best = max(
            (j for j in free if fits(c, i, j)), key=lambda j: iou(c.found[[i]], c.truth[[j]])[0, 0], default=None
        )
        free -= {best}
        right.append((c.scores[i], best is not None))
    return right


def slow_froc(cases, fits, rate):
    boxes = [box for c in cases for box in slow_match(c, fits)]
    findings, best = sum(len(c.truth) for c in cases), 0.0
    for threshold in {score for score, _ in boxes}:
        kept = [right for score, right in boxes if score >= threshold]
        if (len(kept) - sum(kept)) / len(cases) <= rate:
            best = max(best, sum(kept) / findings)
    return best


@pytest.mark.parametrize("seed", range(3))
def test_froc_is_that_of_a_slow_walk_over_thresholds(seed):
    t = table(seed, truth_seed=seed)
    # ties across images too
    rounded = BoxScores(
        tuple(case(i, c.truth, c.found, np.round(c.scores, 1)) for i, c in enumerate(t.cases)), "rounded"
    )
    rules = {
        0.1: lambda c, i, j: iou(c.found[[i]], c.truth[[j]])[0, 0] >= 0.1,
        "centre": lambda c, i, j: is_centre_inside(c.found[[i]], c.truth[[j]])[0, 0],
    }
    for scores in (t, rounded):
        for hit, fits in rules.items():
            slow = [slow_froc(scores.cases, fits, rate) for rate in RATES]
            assert [compute_box_value(scores, FROC(hit, (rate,))) for rate in RATES] == pytest.approx(slow)
            assert compute_box_value(scores, FROC(hit)) == pytest.approx(np.mean(slow))


def test_a_finding_is_found_once_and_boxes_on_negatives_are_false():
    truth = [[0, 0, 20, 20], [40, 40, 60, 60]]
    c = case(1, truth, [[0, 0, 20, 20], [0, 0, 20, 19], [40, 40, 60, 50], [80, 80, 90, 90]])
    assert match_boxes(c, 0.5).tolist() == [0, -1, 1, -1] and match_boxes(c, 0.51).tolist() == [0, -1, -1, -1]
    assert match_boxes(c, "centre").tolist() == [0, -1, 1, -1]
    assert match_boxes(case(2, found=[[0, 0, 9, 9]]), 0.1).tolist() == [-1]
    alone = BoxScores((c,), "m")
    with_negative = BoxScores((c, case(2, found=[[0, 0, 9, 9]], scores=[5.0])), "m")
    # 2 of 2 found, precision 1/1 then 2/3; with a false box before all of them 1/2 and 2/4
    assert compute_box_value(alone, "ap_50_all_points") == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert compute_box_value(with_negative, "ap_50_all_points") == pytest.approx(0.5)
    assert compute_box_value(alone, "ap_50") == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert [compute_box_value(with_negative, FROC(0.5, (r,))) for r in (0.25, 0.5, 1)] == [0.0, 0.5, 1.0]


def test_a_box_wholly_outside_the_image_finds_nothing():
    c = case(1, [[0, 0, 20, 20]], [[-20, 5, -10, 15]])
    assert match_boxes(c, "centre").tolist() == [-1]
    assert compute_box_value(BoxScores((c,), "m"), "centre_inside") == 0.0


def test_equal_scores_enter_together_whatever_the_order_of_images():
    cases = (case(1, [[0, 0, 9, 9]], [[0, 0, 9, 9]]), case(2, found=[[0, 0, 9, 9]]), case(3, found=[[0, 0, 9, 9]]))
    for order in (cases, cases[::-1]):
        assert compute_box_value(BoxScores(order, "m"), "ap_50") == pytest.approx(1 / 3)
        assert compute_box_value(BoxScores(order, "m"), FROC(0.5, (0.5,))) == 0.0


@pytest.mark.parametrize("measure", [BoxPrecision(), BoxPrecision((0.3,), "all"), FROC(0.3), FROC("centre", (0.5,))])
def test_a_weighted_replicate_is_the_score_of_the_copied_table(measure):
    t = table(images=24, patients=8)
    resample = Resample.draw([c.patient_id for c in t.cases], 6, 3)
    quick = measure.values(t.cases, resample)
    for counts, value in zip(resample.counts, quick, strict=True):
        copies = []
        for c, p in zip(t.cases, resample.patient, strict=True):
            for copy in range(counts[p]):
                copies.append(  # noqa: PERF401
                    BoxCase(f"{c.case_id}.{copy}", "s", "p", c.label, c.truth, c.found, c.scores, c.image_shape)
                )
        assert compute_box_value(BoxScores(tuple(copies), "copies"), measure) == pytest.approx(value)


def test_a_curve_for_figures():
    t = table()
    curve = compute_ranking_curve(t.cases, 0.1)
    assert (np.diff(curve.threshold) < 0).all() and (np.diff(curve.sensitivity) > 0).all()
    within = curve.false_per_image <= 0.5
    assert curve.sensitivity[within].max() == pytest.approx(compute_box_value(t, FROC(0.1, (0.5,))))
    assert curve.precision[0] <= 1.0 and len(compute_ranking_curve([case(1)], 0.1).threshold) == 0


@pytest.mark.slow
def test_two_thousand_replicates_of_five_hundred_images_take_seconds():
    a, b = table(0, images=500, patients=300), table(1, images=500, patients=300)
    start = time.process_time()
    compare_boxes([a], [b], "ap")
    assert time.process_time() - start < 15.0  # 0.8 s on an idle core
