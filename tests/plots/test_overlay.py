"""What a network marks: boxes and windows fall where they are said to be, in pictures, csv and COCO JSON."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support.cohorts import tiny_recipe
from torch import nn

from sightline.data.views.crops import Crop
from sightline.data.views.image_view import View
from sightline.errors import GeometryError, RunError
from sightline.evaluation.evaluate import evaluate
from sightline.evaluation.gallery import (
    build_overlay,
    build_panel_case,
    draw_contact_sheets,
    list_boxes_of_row,
    rank_by_boxes,
)
from sightline.evaluation.result import Evaluation
from sightline.evaluation.scoring.boxes import score_boxes
from sightline.explainers.localisation.protocols import MapBoxes
from sightline.inference.network_output import Maps
from sightline.inference.radiographs import predict_files
from sightline.inference.results.coco_json import CocoPicture, build_coco_data, write_coco
from sightline.metrics.predictions import Predictions
from sightline.papers.catalogue import CATALOGUE
from sightline.plots.contact_sheet import Overlay, draw_contact_sheet, draw_overlay
from sightline.plots.overlay import DIMMED, blend_heat, blend_layers, blend_signed
from sightline.plots.panels import draw_comparison, draw_panel
from sightline.structures.evidence import Evidence, build_window
from sightline.structures.frame import Frame
from sightline.structures.regions import ScoredBox, build_scored_boxes
from sightline.training.engine import Engine
from sightline.training.train import train

QUIET = Engine(device="cpu", quiet=True)
TURNED = np.array([[0.5 * 0.8, -0.5 * 0.6, 0.35], [0.5 * 0.6, 0.5 * 0.8, 0.15]])


def decode(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(float)


def rows_of(path):
    return list(csv.DictReader(path.open(newline="", encoding="utf-8")))


# -- maps of a part of the picture -------------------------------------------------------------------------------------


def in_window(window, shape):
    """Map fractions [h, w, 2] of every pixel centre, by solving one pixel at a time."""
    found = np.empty((*shape, 2))
    for i, j in np.ndindex(shape):
        at = np.array([(i + 0.5) / shape[0], (j + 0.5) / shape[1]])
        found[i, j] = np.linalg.solve(window[:, :2], at - window[:, 2])
    return found


@pytest.mark.parametrize("window", [TURNED, build_window(torch.tensor([[0.3, 0.6, 0.4, 0.5]]))[0].double().numpy()])
def test_a_map_lies_where_its_window_does(window):
    shape = (60, 80)
    cells = np.zeros((5, 5))
    cells[3, 1] = 1.0
    values, covered = blend_layers(cells, shape, window)
    fractions = in_window(window, shape)
    # a pixel centre on the very edge may fall on either side
    assert covered[((fractions > 1e-9) & (fractions < 1 - 1e-9)).all(axis=2)].all()
    assert not covered[((fractions < -1e-9) | (fractions > 1 + 1e-9)).any(axis=2)].any()
    hottest = np.unravel_index(values.argmax(), shape)
    assert tuple((fractions[hottest] * 5).astype(int)) == (3, 1)
    # its centre is the hottest place
    np.testing.assert_allclose(fractions[hottest], [3.5 / 5, 1.5 / 5], atol=0.05)


def test_outside_the_window_nothing_is_coloured():
    grey = np.full((40, 40), 0.6, dtype=np.float32)
    cells = np.random.default_rng(0).normal(size=(4, 4))
    _, covered = blend_layers(cells, (40, 40), TURNED)
    assert 0.15 < covered.mean() < 0.35
    for blended in (blend_heat(grey, cells, TURNED), blend_signed(grey, cells, 1.0, TURNED)):
        np.testing.assert_allclose(blended[~covered], DIMMED * 0.6, atol=1e-6)
        assert np.abs(blended[covered] - DIMMED * 0.6).max() > 0.2
    # a window that lies beside the picture, and one that covers all of it
    beside = build_window(torch.tensor([[2.0, 2.0, 0.5, 0.5]]))[0].numpy()
    np.testing.assert_allclose(blend_heat(grey, cells, beside), DIMMED * 0.6, atol=1e-6)
    whole = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(blend_heat(grey, cells, whole), blend_heat(grey, cells), atol=1e-5)


# -- boxes in pictures -------------------------------------------------------------------------------------------------


def pink(image):
    return (image[..., 0] > 200) & (image[..., 1] < 150) & (image[..., 2] > 170)


@pytest.mark.parametrize("grey", [0.0, 1.0])
def test_a_box_is_drawn_where_it_lies(grey):
    # the network saw the file at half size, padded by four rows
    frame = Frame.of_image((60, 100)).pad((8, 0), (12, 0)).resize((40, 50))
    box = ScoredBox("fracture", 0.87, (20.0, 30.0, 44.0, 80.0))
    image = decode(draw_overlay(np.full((40, 50), grey), None, (), frame, "x", found=(box,)))
    left, scale = 0.15 * 110, min(6.4 / 50, 7.0 / 40) * 110
    (top, west), (bottom, east) = frame.unmap_points([box.corners[:2], box.corners[2:]]) * scale + left
    rows, columns = np.nonzero(pink(image[: int(left + 40 * scale)]))
    # the score stands above the upper edge
    below = rows > top - 4
    assert rows[below].min() == pytest.approx(top, abs=2.5) and rows.max() == pytest.approx(bottom, abs=2.5)
    assert columns.min() == pytest.approx(west, abs=2.5) and columns.max() == pytest.approx(east, abs=2.5)
    assert (~below).sum() > 20
    # on white and on black its rim is dark
    edge = image[int((top + bottom) / 2), int(west) - 3 : int(west) + 4]
    assert edge.sum(axis=1).min() < 255


def test_a_score_at_the_upper_rim_stays_in_the_picture():
    box = ScoredBox("fracture", 0.5, (0.0, 10.0, 30.0, 30.0))
    frame = Frame.of_image((40, 50))
    with_score = decode(draw_overlay(np.zeros((40, 50)), None, (), frame, "x", found=(box,)))
    assert pink(with_score[:16]).sum() == 0


def test_panels_and_sheets_carry_boxes_and_windows(coarse_pictures, tiny_cohort):
    cohort = replace(tiny_cohort.split("test"), cases=tiny_cohort.split("test").cases[:12])
    n = len(cohort)
    rng = np.random.default_rng(0)
    ids = [tuple(getattr(c, f"{kind}_id") for c in cohort) for kind in ("case", "study", "patient")]
    labels = np.array([cohort.class_index(c.label) for c in cohort])
    predictions = Predictions(cohort.classes, *ids, labels, np.tile([0.4, 0.6], (n, 1)))
    maps = rng.normal(size=(n, 2, 4, 4)).astype(np.float32)
    kept = Maps(ids[0], np.tile([0, 1], (n, 1)), maps, maps / 16, np.tile(TURNED, (n, 1, 1)))
    plain = Evaluation(predictions, replace(kept, windows=None))
    view = View(size=48)
    scores = score_boxes(plain.said, cohort, view, MapBoxes(low=150.0))
    windowed = Evaluation(predictions, kept, box_scores=scores)
    assert (
        list_boxes_of_row(plain, 0) == ()
        and rank_by_boxes(plain) == []
        and draw_contact_sheets(plain, cohort, view) == {}
    )
    (box,) = list_boxes_of_row(windowed, 0)
    assert box.label == "fracture" and box.score == pytest.approx(0.6)
    np.testing.assert_array_equal(box.corners, scores.cases[0].found[0])

    case = build_panel_case(windowed, 0, cohort[0], view)
    bare = replace(case, found=(), window=None)
    pictures = [decode(draw_panel(c)) for c in (case, replace(case, found=()), replace(case, window=None), bare)]
    assert len({picture.tobytes() for picture in pictures}) == 4
    assert pink(pictures[0]).sum() > pink(pictures[1]).sum() == pink(pictures[3]).sum() == 0
    pair = decode(draw_comparison([case, bare], ["one", "other"]))
    assert pink(pair).any()

    order = rank_by_boxes(windowed)
    overlaps = [scores.cases[row].score.iou for row in order]
    assert len(order) == sum(len(c.truth) > 0 for c in scores.cases) and overlaps == sorted(overlaps, reverse=True)
    sheets = draw_contact_sheets(windowed, cohort, view, most=2)
    assert set(sheets) == {"best", "worst"} and sheets["best"] != sheets["worst"]
    assert pink(decode(sheets["best"])).any()
    # a network without maps still shows its boxes
    mute = Evaluation(predictions, None, box_scores=scores)
    item = build_overlay(mute, 0, cohort[0], view, "fracture", "x")
    assert item.map is None and pink(decode(draw_contact_sheet([item]))).any()
    assert isinstance(item, Overlay)


def test_boxes_stand_surest_first():
    found = build_scored_boxes("A", [[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]], [0.1, 0.9, 0.9])
    assert [box.corners[2] for box in found] == [2.0, 3.0, 1.0]
    assert build_scored_boxes("A", np.zeros((0, 4)), []) == ()


# -- COCO --------------------------------------------------------------------------------------------------------------


def test_coco_json_opens_in_pycocotools(tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found = (ScoredBox("B", 0.9, (10.0, 20.0, 30.0, 60.0)), ScoredBox("A", 0.2, (0.0, 0.0, 5.0, 5.0)))
    pictures = [CocoPicture("a/1.png", (100, 200), found), CocoPicture("a/2.png", (50, 60))]
    write_coco(tmp_path / "boxes.coco.json", pictures, ("A", "B"), "a run")
    data = COCO(tmp_path / "boxes.coco.json")
    assert [data.imgs[i]["file_name"] for i in (1, 2)] == ["a/1.png", "a/2.png"]
    assert (data.imgs[1]["height"], data.imgs[1]["width"]) == (100, 200)
    (first, _) = data.loadAnns(data.getAnnIds(imgIds=[1]))
    # x, y, width, height: columns before rows
    assert first["bbox"] == [20.0, 10.0, 40.0, 20.0] and first["area"] == 800.0 and first["score"] == 0.9
    assert data.loadCats(first["category_id"])[0]["name"] == "B" and data.getAnnIds(imgIds=[2]) == []
    # as results against itself: everything is found
    plain = json.loads((tmp_path / "boxes.coco.json").read_text())
    results = data.loadRes(plain["annotations"])
    scored = COCOeval(data, results, "bbox")
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    assert scored.stats[0] == pytest.approx(1.0)
    with pytest.raises(GeometryError, match="'C'"):
        build_coco_data([CocoPicture("a", (5, 5), (ScoredBox("C", 1.0, (0, 0, 1, 1)),))], ("A",))


# -- predicting files --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tiny_cohort, tmp_path_factory):
    return train(tiny_recipe(steps=2), tiny_cohort, tmp_path_factory.mktemp("runs") / "run", CATALOGUE, QUIET)


def test_predicted_boxes_are_those_of_evaluate(run, tiny_cohort, tmp_path, no_overlays):
    test = tiny_cohort.split("test")
    wanted = evaluate(run, test, "test", out=tmp_path / "e", engine=QUIET).box_scores
    predict_files(run, [c.image for c in test], tmp_path, QUIET)
    boxes = rows_of(tmp_path / "boxes.csv")
    by_file = {str(c.image): case for c, case in zip(test, wanted.cases, strict=True)}
    assert len(boxes) == sum(len(case.found) for case in wanted.cases) > 0
    for row in boxes:
        case = by_file[row["file"]]
        corners = [float(row[name]) for name in ("row_start", "column_start", "row_stop", "column_stop")]
        np.testing.assert_allclose(corners, case.found[0], atol=0.006)
        assert float(row["score"]) == pytest.approx(case.scores[0], abs=1e-5) and row["label"] == "fracture"
        # cut to the picture, not to the padded square
        assert 0 <= corners[0] < corners[2] <= 40 and 0 <= corners[1] < corners[3] <= 48
    predictions = {r["file"]: r for r in rows_of(tmp_path / "predictions.csv")}
    for row in boxes:
        best = predictions[row["file"]]
        assert best["box_score"] == row["score"] and best["box_column_stop"] == row["column_stop"]
    data = json.loads((tmp_path / "boxes.coco.json").read_text())
    assert len(data["images"]) == len(test) and len(data["annotations"]) == len(boxes)
    assert [c["name"] for c in data["categories"]] == ["fracture"]
    assert data["images"][0]["file_name"] == test[0].image.name


class Fixed(nn.Module):
    """Says the same of every picture."""

    def __init__(self, **says):
        super().__init__()
        self.says = says

    def forward(self, images):
        return Evidence(**self.says)


def fixed_run(network, classes=("normal", "A", "B"), boxes=MapBoxes(), classifies=True):  # noqa: B008
    recipe = SimpleNamespace(
        view=View(size=32), classifies=classifies, title="fixed", independent=False, join_views="none"
    )
    return SimpleNamespace(
        network=lambda: network, classes=classes, boxes=boxes, recipe=recipe, done=True, calibration=None,
        folder=Path("no folder"), identity="fixed", cohort={},
    )  # fmt: skip


@pytest.fixture
def picture(tmp_path):
    # 40 x 64 in a padded square of 64: fractions of the view are (row + 12) / 64 and column / 64
    path = tmp_path / "in" / "a.png"
    path.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 64)).astype(np.uint8)).save(path)
    return path


def corners_of(row):
    return [float(row[name]) for name in ("row_start", "column_start", "row_stop", "column_stop")]


def test_the_networks_own_box(picture, tmp_path):
    says = {"logits": torch.tensor([[0.0, 1.0, 3.0]]), "extras": {"box": torch.tensor([[0.5, 0.5, 0.25, 0.5]])}}
    predict_files(fixed_run(Fixed(**says)), [picture], tmp_path / "out", QUIET)
    (row,) = rows_of(tmp_path / "out" / "boxes.csv")
    assert corners_of(row) == [12.0, 16.0, 28.0, 48.0] and row["label"] == "B"
    assert float(row["score"]) == pytest.approx(float(torch.tensor([0.0, 1.0, 3.0]).softmax(0)[2]))
    (said,) = rows_of(tmp_path / "out" / "predictions.csv")
    # no map: nowhere to look, but the box is drawn
    assert said["look_row"] == "" and pink(decode((tmp_path / "out" / said["overlay"]).read_bytes())).any()


def test_boxes_reach_beyond_the_picture_and_are_cut(picture, tmp_path):
    for box, rows in (([0.1, 0.5, 0.5, 2.0], [[0.0, 0.0, 10.4, 64.0]]), ([0.05, 0.5, 0.1, 0.1], [])):
        says = {"logits": torch.tensor([[0.0, 1.0, 3.0]]), "extras": {"box": torch.tensor([box])}}
        predict_files(fixed_run(Fixed(**says)), [picture], tmp_path / "out", QUIET)
        assert [corners_of(row) for row in rows_of(tmp_path / "out" / "boxes.csv")] == rows
        (said,) = rows_of(tmp_path / "out" / "predictions.csv")
        assert bool(said["box_score"]) == bool(rows)


def test_a_turned_window_places_look_and_boxes(picture, tmp_path):
    maps = torch.zeros(1, 3, 5, 5)
    maps[0, :, 1, 3] = 1.0
    says = {"logits": torch.tensor([[0.0, 3.0, 1.0]]), "maps": maps, "window": torch.tensor(TURNED)[None]}
    protocol = MapBoxes(low=200.0)
    predict_files(fixed_run(Fixed(**says), boxes=protocol), [picture], tmp_path / "out", QUIET)
    (said,) = rows_of(tmp_path / "out" / "predictions.csv")
    hot = TURNED[:, :2] @ np.array([1.5 / 5, 3.5 / 5]) + TURNED[:, 2]
    expected = hot * 64 - np.array([12.0, 0.0])
    assert [float(said["look_row"]), float(said["look_column"])] == pytest.approx(expected.tolist(), abs=0.06)
    (row,) = rows_of(tmp_path / "out" / "boxes.csv")
    top, left, bottom, right = corners_of(row)
    assert [(top + bottom) / 2, (left + right) / 2] == pytest.approx(expected.tolist(), abs=1.0)
    # the upright box around a turned one: as wide as both its sides seen from the axes
    side = 64 * 0.5 / 5 * (0.8 + 0.6)
    assert 0.3 * side < bottom - top < 1.2 * side


def test_several_boxes_and_a_normal_picture(picture, tmp_path):
    maps = torch.zeros(1, 3, 8, 8)
    maps[0, 1, 3, 1], maps[0, 1, 4, 6] = 1.0, 0.7
    says = {"logits": torch.tensor([[4.0, 3.0, 1.0]]), "maps": maps}
    protocol = MapBoxes(low=120.0, regions="each")
    predict_files(fixed_run(Fixed(**says), boxes=protocol), [picture], tmp_path / "out", QUIET)
    rows = rows_of(tmp_path / "out" / "boxes.csv")
    p = float(torch.tensor([4.0, 3.0, 1.0]).softmax(0)[1])
    # of the most probable finding, although normal is more probable; the score says so
    assert [row["label"] for row in rows] == ["A", "A"]
    assert [float(row["score"]) for row in rows] == pytest.approx([p, 0.7 * p], rel=0.02)
    (said,) = rows_of(tmp_path / "out" / "predictions.csv")
    assert said["predicted"] == "normal"
    assert not pink(decode((tmp_path / "out" / said["overlay"]).read_bytes())).any()


def test_flat_maps_find_nothing(picture, tmp_path):
    says = {"logits": torch.tensor([[0.0, 3.0, 1.0]]), "maps": torch.full((1, 3, 4, 4), 2.0)}
    predict_files(fixed_run(Fixed(**says)), [picture], tmp_path / "out", QUIET)
    assert rows_of(tmp_path / "out" / "boxes.csv") == []
    data = json.loads((tmp_path / "out" / "boxes.coco.json").read_text())
    assert len(data["images"]) == 1 and data["annotations"] == []


def test_a_network_that_only_locates_claims_no_class(picture, tmp_path):
    says = {"logits": torch.zeros(1, 3), "extras": {"box": torch.tensor([[0.5, 0.5, 0.25, 0.5]])}}
    predict_files(fixed_run(Fixed(**says), classifies=False), [picture], tmp_path / "out", QUIET)
    (said,) = rows_of(tmp_path / "out" / "predictions.csv")
    assert said["predicted"] == said["p(normal)"] == "" and float(said["box_score"]) == 1.0
    (row,) = rows_of(tmp_path / "out" / "boxes.csv")
    assert row["label"] == "finding"
    assert [c["name"] for c in json.loads((tmp_path / "out" / "boxes.coco.json").read_text())["categories"]] == [
        "finding"
    ]


def test_a_network_of_expert_crops_is_refused(picture, tmp_path):
    crops = fixed_run(Fixed(logits=torch.zeros(1, 3)))
    crops.recipe.view = View(size=32, crop=Crop())
    with pytest.raises(RunError, match="squares around experts' boxes"):
        predict_files(crops, [picture], tmp_path / "out", QUIET)


def test_an_equalised_view_is_equalised(picture, tmp_path):
    shown = []

    class Spy(Fixed):
        def forward(self, images):
            shown.append(images[0, 0])
            return super().forward(images)

    spying = fixed_run(Spy(logits=torch.zeros(1, 3)))
    dark = picture.with_name("dark.png")
    Image.fromarray((np.asarray(Image.open(picture)) // 4).astype(np.uint8)).save(dark)
    for equalise in (False, True):
        spying.recipe.view = View(size=32, equalise=equalise)
        predict_files(spying, [dark], tmp_path / "out", QUIET)
    assert shown[0].max() < 0.3 and shown[1].max() > 0.6


def test_weights_that_give_no_number_are_refused(picture, tmp_path):
    says = {"logits": torch.full((1, 3), float("nan"))}
    with pytest.raises(RunError, match="not finite"):
        predict_files(fixed_run(Fixed(**says)), [picture], tmp_path / "out", QUIET)
