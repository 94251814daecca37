"""FracAtlas in its published layout, and every way its parts can disagree."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.paths import DATA as DATA_ROOT

from sightline.data.datasets import fracatlas
from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.errors import LayoutError
from sightline.io.image import read_size
from sightline.structures.regions import Box, Polygon
from sightline.structures.tag import Tag

DATA = DATA_ROOT / "fracatlas"
COLUMNS = ["hand", "leg", "hip", "shoulder", "mixed", "hardware", "multiscan", "fractured", "fracture_count"]
COLUMNS += ["frontal", "lateral", "oblique"]


def write_tiny(root: Path, n: int = 12) -> Path:
    """Images 1..n in the published layout; odd ones are fractured. Neighbours 1-2, 3-4, ... share a block."""
    lines, images, marks = [",".join(["image_id", *COLUMNS])], [], []
    for i in range(1, n + 1):
        name, fractured = f"IMG{i:07d}.jpg", i % 2
        path = root / "images" / fracatlas.FOLDERS[str(fractured)] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 20), i, np.uint8)).save(path)
        lines.append(f"{name},1,0,0,0,0,0,0,{fractured},{fractured},1,0,{int(i == 4)}")
        if fractured:
            images.append({"id": 100 + i, "width": 20, "height": 30, "file_name": name})
            ring = [1.5, 2.0, 5.0, 2.5, 3.0, 8.25]
            marks.append({"id": i, "image_id": 100 + i, "category_id": 0, "bbox": [1.5, 2, 3.5, 6.25]})
            marks[-1] |= {"segmentation": [ring], "iscrowd": 0}
    (root / "dataset.csv").write_text("\n".join(lines) + "\n")
    path = root / fracatlas.MASKS
    path.parent.mkdir(parents=True)
    path.write_text(
        json.dumps({"images": images, "annotations": marks, "categories": [{"id": 0, "name": "fractured"}]})
    )
    blocks = [f"IMG{i:07d}.jpg,IMG{i:07d}.jpg,{(i + 1) // 2}" for i in range(1, n + 1)]
    (root / "groups.csv").write_text("\n".join(["image_id,dup_group,id_block", *blocks]) + "\n")
    return root


def test_sizes_are_swapped_where_exif_turns_a_picture_and_not_where_xmp_alone_would(tmp_path):
    folder = write_tiny(tmp_path) / "images" / "Fractured"
    turned, xmp = folder / "IMG0000001.jpg", folder / "IMG0000003.jpg"
    exif = Image.Exif()
    exif[274] = 6
    pixels = Image.fromarray(np.zeros((30, 20), np.uint8))
    pixels.save(turned, exif=exif)
    pixels.save(xmp, xmp=b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>')
    cohort = fracatlas.read(tmp_path)
    assert (
        [case.shape for case in (cohort[0], cohort[2])] == [read_size(turned), read_size(xmp)] == [(20, 30), (30, 20)]
    )
    assert cohort.about["stored on their side"].startswith("IMG0000001:")


def test_a_tiny_copy_reads_as_published(tmp_path):
    cohort = fracatlas.read(write_tiny(tmp_path))
    assert cohort.classes == ("no fracture", "fracture") and cohort.counts() == {"no fracture": 6, "fracture": 6}
    one, two, four = cohort[0], cohort[1], cohort[3]
    tag = Tag("finding", "fracture")
    assert one.regions == (
        Box((2.0, 1.5), (8.25, 5.0), tag),
        Polygon((((2.0, 1.5), (2.5, 5.0), (8.25, 3.0)),), tag),
    )
    assert one.shape == (30, 20) and one.label == "fracture" and one.view == "frontal"
    assert two.regions == () and two.patient_id == one.patient_id != cohort[2].patient_id
    assert four.view == "frontal+oblique" and four.facts["oblique"] == "1"
    assert "fracture_count" not in one.facts and "fractured" not in one.facts
    assert {case.split for case in cohort} == {"train", "val", "test"}


def test_groups_join_over_both_columns(tmp_path):
    write_tiny(tmp_path)
    path = tmp_path / "groups.csv"
    # image 1 and image 12 are near-duplicates: blocks 1 and 6 become one patient
    path.write_text(path.read_text().replace("IMG0000012.jpg,IMG0000012.jpg", "IMG0000012.jpg,IMG0000001.jpg"))
    patients = {case.case_id[-2:]: case.patient_id for case in fracatlas.read(tmp_path)}
    assert len({patients[i] for i in ("01", "02", "11", "12")}) == 1
    assert len(set(patients.values())) == 5


def test_without_groups_every_image_is_a_patient_and_about_warns(tmp_path):
    (write_tiny(tmp_path) / "groups.csv").unlink()
    cohort = fracatlas.read(tmp_path)
    assert len({case.patient_id for case in cohort}) == 12
    assert cohort.about["patients"].startswith("WARNING")
    assert all(case.split is None for case in fracatlas.read(tmp_path, fracatlas.Options(fractions=None)))


def test_a_fracture_without_a_mark_is_kept_and_named(tmp_path):
    path = write_tiny(tmp_path) / fracatlas.MASKS
    document = json.loads(path.read_text())
    document["annotations"] = document["annotations"][1:]
    path.write_text(json.dumps(document))
    cohort = fracatlas.read(tmp_path)
    assert cohort[0].label == "fracture" and cohort[0].regions == ()
    assert cohort.about["fractures without a mark"] == "1: IMG0000001"


def edit(root: Path, what: str) -> None:
    images = root / "images"
    if what == "missing":
        (images / "Fractured" / "IMG0000001.jpg").unlink()
    elif what == "moved":
        (images / "Fractured" / "IMG0000001.jpg").rename(images / "Non_fractured" / "IMG0000001.jpg")
    elif what == "twice":
        (images / "Non_fractured" / "IMG0000001.jpg").write_bytes(b"x")
    elif what == "unlisted":
        (images / "Fractured" / "IMG0000099.jpg").write_bytes(b"x")
    elif what == "marked normal":
        path = root / fracatlas.MASKS
        path.write_text(path.read_text().replace("IMG0000001", "IMG0000002"))
    else:
        path = root / fracatlas.MASKS
        path.write_text(path.read_text().replace("IMG0000001", "IMG0000077"))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", r"about 1 image:\n  IMG0000001\.jpg: is in dataset\.csv, but not in images/Fractured"),
        ("moved", r"IMG0000001\.jpg: lies in images/Non_fractured, but dataset\.csv says fractured = 1"),
        ("twice", r"IMG0000001\.jpg: lies in images/Non_fractured and there as well"),
        ("unlisted", r"IMG0000099\.jpg: lies in images/Fractured, but has no row"),
        ("marked normal", r"IMG0000002\.jpg: has fracture annotations, but dataset\.csv says fractured = 0"),
        ("unknown mark", r"IMG0000077\.jpg: has annotations, but no row"),
    ],
)
def test_contradictions_are_refused_or_set_aside_by_name(tmp_path, what, message):
    edit(write_tiny(tmp_path), what)
    with pytest.raises(LayoutError, match=message):
        fracatlas.read(tmp_path)
    cohort = fracatlas.read(tmp_path, fracatlas.Options(contradictions="set aside"))
    assert cohort.about["set aside"].startswith("1: IMG")
    assert len(cohort) == (12 if what in ("unlisted", "unknown mark") else 11)


def test_what_a_system_leaves_in_a_folder_is_no_picture(tmp_path):
    for name in (".DS_Store", "Thumbs.db"):
        (write_tiny(tmp_path / name) / "images" / "Fractured" / name).write_bytes(b"x")
        assert len(fracatlas.read(tmp_path / name)) == 12


def test_categories_and_crowds_mean_what_they_mean_in_coco(tmp_path):
    path = write_tiny(tmp_path) / fracatlas.MASKS
    document = json.loads(path.read_text())
    document["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(document))
    assert {region.tag.role for region in fracatlas.read(tmp_path)[0].regions} == {"ignore"}
    document["annotations"][0]["category_id"] = 7
    path.write_text(json.dumps(document))
    with pytest.raises(LayoutError, match="annotation 1 has the category_id 7"):
        fracatlas.read(tmp_path)


@pytest.mark.parametrize("name", ["dataset.csv", fracatlas.MASKS])
def test_a_folder_in_place_of_a_file_is_said(tmp_path, name):
    path = write_tiny(tmp_path) / name
    path.unlink()
    path.mkdir()
    with pytest.raises(LayoutError, match=r"cannot be opened \(Is a directory\)") as caught:
        fracatlas.read(tmp_path)
    assert "check the path" in caught.value.remedy


def test_wrong_cells_are_refused(tmp_path):
    path = write_tiny(tmp_path) / "dataset.csv"
    path.write_text(path.read_text().replace("IMG0000003.jpg,1", "IMG0000003.jpg,yes"))
    with pytest.raises(LayoutError, match=r"dataset\.csv: row 4, column 'hand' is 'yes', expected 0 or 1"):
        fracatlas.read(tmp_path)
    (tmp_path / "groups.csv").write_text("image_id,id_block\nIMG0000001.jpg,1\n")
    path.write_text(path.read_text().replace("yes", "1"))
    with pytest.raises(LayoutError, match=r"groups\.csv does not name 11 images"):
        fracatlas.read(tmp_path)


@pytest.mark.skipif(not DATA.is_dir(), reason="FracAtlas is not here")
def test_the_real_folder(tmp_path):
    cohort = fracatlas.read(DATA)
    assert cohort.counts() == {"no fracture": 885, "fracture": 615}
    assert len({case.patient_id for case in cohort}) == 178
    regions = [region for case in cohort for region in case.regions]
    assert sum(isinstance(r, Box) for r in regions) == sum(isinstance(r, Polygon) for r in regions) == 796
    assert all(bool(case.regions) == (case.label == "fracture") for case in cohort)
    some = cohort.where(lambda case: case.case_id < "IMG0000400")
    write_cohort(some, tmp_path / "out")
    assert read_cohort(tmp_path / "out").fingerprint() == some.fingerprint()


def test_annotations_of_several_categories_are_no_fractures_all(tmp_path):
    path = write_tiny(tmp_path) / fracatlas.MASKS
    document = json.loads(path.read_text())
    document["categories"].append({"id": 1, "name": "implant"})
    path.write_text(json.dumps(document))
    assert len(fracatlas.read(tmp_path)) == 12  # nothing is annotated so
    document["annotations"][0]["category_id"] = 1
    path.write_text(json.dumps(document))
    with pytest.raises(LayoutError, match="of 2 categories \\('fractured', 'implant'\\)"):
        fracatlas.read(tmp_path)
