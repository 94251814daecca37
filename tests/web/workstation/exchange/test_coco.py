"""COCO: pycocotools decodes equal pixels; CVAT's and Label Studio's forms come in; what cannot be held is listed."""

import csv
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as judge
from support.workstation import box, scribble

from sightline.errors import LayoutError
from sightline.structures.frame import Frame
from sightline.web.workstation.exchange.coco import build_annotation, export_coco
from sightline.web.workstation.exchange.imports import import_marks
from sightline.web.workstation.marks.regions import build_region, decode_runs, encode_runs


def pixels_of(annotation, shape):
    packed = judge.frPyObjects(annotation["segmentation"], *shape)
    return judge.decode(packed).astype(bool)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.tuples(st.integers(1, 9), st.integers(1, 11)).flatmap(lambda s: arrays(bool, s)))
def test_masks_of_any_size_and_form_are_the_same_pixels_to_pycocotools(mask):
    size, counts = encode_runs(mask)
    assert (decode_runs(size, counts) == mask).all()
    if not mask.any():
        return
    annotation, why = build_annotation({"kind": "mask", "size": size, "counts": counts}, mask.shape)
    assert why == ""
    assert (pixels_of(annotation, mask.shape) == mask).all()
    assert annotation["area"] == mask.sum()
    rows, columns = np.nonzero(mask)
    wanted = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    assert annotation["bbox"] == wanted


def test_a_scribble_goes_out_as_the_mask_of_its_stroke_with_words():
    mark = scribble()
    annotation, why = build_annotation(mark, (40, 48))
    drawn = build_region(mark).draw(Frame.of_image((40, 48))) > 0
    assert (pixels_of(annotation, (40, 48)) == drawn).all()
    assert "no lines" in why


def test_a_polygon_and_a_box_keep_every_digit():
    part = [[1.25, 2.5], [9.75, 2.5], [9.75, 10.125]]
    annotation, _ = build_annotation({"kind": "polygon", "parts": [part]}, (40, 48))
    assert annotation["segmentation"] == [[2.5, 1.25, 2.5, 9.75, 10.125, 9.75]]
    assert annotation["area"] == pytest.approx(8.5 * 7.625 / 2)
    annotation, _ = build_annotation(box((0.1, 0.2), (0.7, 0.9)), (40, 48))
    x, y, width, height = annotation["bbox"]
    assert (x, y) == (0.2, 0.1)
    assert (width, height) == (0.9 - 0.2, 0.7 - 0.1)


def test_export_and_import_are_equal(studio, tmp_path):
    reads = studio.reads("ada")
    polygon = {**box(), "kind": "polygon", "parts": [[[1.0, 2.0], [9.0, 2.5], [9.0, 10.0]]], "label": "fracture"}
    del polygon["start"], polygon["stop"]
    studio.finish("ada", reads[0]["read"], [box(), polygon])
    studio.finish("ada", reads[1]["read"], [scribble()])
    count, left = export_coco(studio.desk, tmp_path / "coco")
    assert (count, left) == (3, 1)
    with (tmp_path / "coco" / "left_out.csv").open() as file:
        assert [row["image_id"] for row in csv.DictReader(file)] == ["S01-0"]
    came, rejects = import_marks(studio.desk, tmp_path / "coco", "coco", "back")
    assert (came, rejects) == (3, [])
    export_coco(studio.desk, tmp_path / "again", "back")
    first, second = (json.loads((tmp_path / n / "annotations.json").read_text()) for n in ("coco", "again"))
    for a, b in zip(first["annotations"], second["annotations"], strict=True):
        assert {k: a[k] for k in ("bbox", "area", "segmentation", "category_id", "image_id")} == {
            k: b[k] for k in ("bbox", "area", "segmentation", "category_id", "image_id")
        }


def test_a_rule_that_merges_readers_is_refused_by_name(studio, tmp_path):
    with pytest.raises(LayoutError, match="COCO holds the marks of each reader as drawn; got the rule 'consensus'"):
        export_coco(studio.desk, tmp_path / "coco", "consensus")
    assert not (tmp_path / "coco").exists()


CVAT = {
    "licenses": [{"name": "", "id": 0, "url": ""}],
    "info": {"contributor": "", "date_created": ""},
    "categories": [{"id": 1, "name": "fracture", "supercategory": ""}, {"id": 2, "name": "metal", "supercategory": ""}],
    "images": [{"id": 1, "width": 48, "height": 40, "file_name": "S00-0.png", "license": 0, "coco_url": ""}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[2.5, 1.5, 20.0, 1.5, 20.0, 9.0]], "area": 65.6,
         "bbox": [2.5, 1.5, 17.5, 7.5], "iscrowd": 0, "attributes": {"occluded": False}},
        {"id": 2, "image_id": 1, "category_id": 2, "iscrowd": 1, "area": 4, "bbox": [0, 0, 2, 2],
         "segmentation": {"size": [40, 48], "counts": [0, 2, 38, 2, 1878]}, "attributes": {"occluded": False}},
        {"id": 3, "image_id": 1, "category_id": 1, "segmentation": [], "bbox": [5, 6, 0, 3], "area": 0, "iscrowd": 0},
        {"id": 4, "image_id": 9, "category_id": 1, "segmentation": [], "bbox": [5, 6, 2, 3], "area": 6, "iscrowd": 0},
    ],
}  # fmt: skip
LABEL_STUDIO = {
    "images": [{"width": 48, "height": 40, "id": 0, "file_name": "images/1a2b3c4d-S01-0.png"}],
    "categories": [{"id": 0, "name": "fracture"}],
    "annotations": [
        {"id": 0, "image_id": 0, "category_id": 0, "segmentation": [], "bbox": [4.8, 4.0, 9.6, 8.0], "ignore": 0,
         "iscrowd": 0, "area": 76.8},
    ],
    "info": {"year": 2026, "version": "1.0", "description": "", "contributor": "Label Studio"},
}  # fmt: skip


def test_cvat_comes_in_and_what_cannot_be_used_is_a_line(studio, tmp_path):
    (tmp_path / "instances_default.json").write_text(json.dumps(CVAT))
    count, rejects = import_marks(studio.desk, tmp_path / "instances_default.json", "coco", "cvat", role="finding")
    assert count == 2
    assert [(what, why[:20]) for what, why in rejects] == [
        ("annotation 3", "A box has a size on "),
        ("annotation 4", "its image is not in "),
    ]
    export_coco(studio.desk, tmp_path / "out", "cvat")
    found = json.loads((tmp_path / "out" / "annotations.json").read_text())["annotations"]
    assert found[0]["segmentation"] == CVAT["annotations"][0]["segmentation"]
    assert pixels_of(found[1], (40, 48)).sum() == 4


def test_label_studio_comes_in(studio, tmp_path):
    (tmp_path / "result.json").write_text(json.dumps(LABEL_STUDIO))
    assert import_marks(studio.desk, tmp_path / "result.json", "coco", "studio") == (1, [])
    export_coco(studio.desk, tmp_path / "out", "studio")
    found = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert found["annotations"][0]["bbox"] == pytest.approx([4.8, 4.0, 9.6, 8.0], abs=1e-12)
    name = {i["id"]: i["image_id"] for i in found["images"]}
    assert name[found["annotations"][0]["image_id"]] == "S01-0"
