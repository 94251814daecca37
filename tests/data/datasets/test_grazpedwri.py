"""GRAZPEDWRI-DX's layout: labels from either column, studies whose projections differ, boxes, and what is left out."""

import csv

import numpy as np
import pytest
from PIL import Image
from support.paths import DATA as DATA_ROOT

from sightline.cli.main import main
from sightline.data.datasets import grazpedwri
from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.grazpedwri import read_yolo_boxes
from sightline.data.task import Task
from sightline.errors import LayoutError

DATA = DATA_ROOT / "grazpedwri"
real = pytest.mark.skipif(not (DATA / "images").is_dir(), reason="GRAZPEDWRI-DX is not here")

# filestem, patient, study, projection, code, visible
ROWS = (
    ("a_front", "1", "1", "1", "23r-M/2.1", "1"),
    ("a_side", "1", "1", "2", "23r-M/2.1", ""),  # the fracture does not show in this projection
    ("b_front", "2", "1", "1", "", ""),
    ("b_side", "2", "1", "2", "", ""),
    ("c_front", "3", "1", "1", "23r-M/3.1; 23u-M/2.1", "1"),
    ("c_side", "3", "1", "2", "23r-M/3.1; 23u-M/2.1", "1"),
    ("d_front", "4", "2", "1", "", "1"),  # visible, never classified
    ("not_here", "5", "1", "3", "", ""),
)
BOXES = {
    "a_front": "3 0.5 0.25 0.2 0.1\n8 0.1 0.9 0.1 0.1\n",
    "b_front": "",
    "c_front": "3 0.5 0.5 0.5 0.5\n3 0.25 0.25 0.1 0.1\n",
    "d_front": "3 0.0999995 0.5 0.2 0.2\n",
}


def tree(place, *, rows=ROWS, boxes=BOXES, bom="\ufeff", **cells):
    (place / "images_part1").mkdir(parents=True)
    (place / "yolov5" / "labels").mkdir(parents=True)
    with (place / "dataset.csv").open("w", encoding="utf-8", newline="") as file:
        file.write(bom)
        table = csv.DictWriter(file, grazpedwri.COLUMNS)
        table.writeheader()
        for stem, patient, study, projection, code, visible in rows:
            row = dict.fromkeys(grazpedwri.COLUMNS, "") | {
                "filestem": stem, "patient_id": patient, "study_number": study, "projection": projection,
                "ao_classification": code, "fracture_visible": visible, "gender": "F", "age": "12", "laterality": "L",
                "pixel_spacing": "0.144", "device_manufacturer": "Siemens", "cast": "1",
            } | cells  # fmt: skip
            table.writerow(row)
            if stem != "not_here":
                pixels = np.arange(40 * 60, dtype=np.uint16).reshape(60, 40)
                Image.fromarray(pixels).save(place / "images_part1" / f"{stem}.png")
    for stem, text in boxes.items():
        (place / "yolov5" / "labels" / f"{stem}.txt").write_text(text)
    return place


def by_id(cohort):
    return {case.case_id: case for case in cohort}


def test_what_is_visible_is_the_label(tmp_path):
    cohort, rejects = grazpedwri.read(tree(tmp_path / "src"), grazpedwri.Options(fractions=None))
    assert rejects == () and cohort.classes == ("no fracture", "fracture")
    cases = by_id(cohort)
    assert {stem: case.label for stem, case in cases.items()} == {
        "a_front": "fracture", "a_side": "no fracture", "b_front": "no fracture", "b_side": "no fracture",
        "c_front": "fracture", "c_side": "fracture", "d_front": "fracture",
    }  # fmt: skip
    case = cases["a_front"]
    assert (case.view, case.shape, case.spacing_mm) == ("frontal", (60, 40), (0.144, 0.144))
    (box,) = case.regions
    # centre (0.5, 0.25) of width 40 and height 60, sides 0.2 and 0.1
    assert np.allclose((*box.start, *box.stop), (15 - 3, 20 - 4, 15 + 3, 20 + 4))
    assert (box.tag.role, box.tag.label) == ("finding", "fracture")
    # six digits lead a hair out of the picture
    assert cases["d_front"].regions[0].start[1] == 0.0
    assert case.facts["cast"] == "1" and case.facts["metal"] == "0" and case.facts["truth_ao"] == "23r-M/2.1"
    assert cohort.about["fractures without a mark"] == "2 of 5 images with a fracture"


def test_projections_that_differ_are_studies_of_their_own(tmp_path):
    cohort, _ = grazpedwri.read(tree(tmp_path / "src"), grazpedwri.Options(fractions=None))
    cases = by_id(cohort)
    assert cases["a_front"].study_id == "a_front" != cases["a_side"].study_id
    assert cases["b_front"].study_id == cases["b_side"].study_id == "2-1-L"
    assert cases["a_front"].patient_id == cases["a_side"].patient_id
    assert "images alone because their study's labels differ 2" in cohort.about["counts"]


def test_codes_are_labels_that_tasks_refine(tmp_path):
    cohort, _ = grazpedwri.read(
        tree(tmp_path / "src"), grazpedwri.Options(label_from="ao_classification", fractions=None)
    )
    cases = by_id(cohort)
    assert "d_front" not in cases and "left out, a visible fracture without an AO code 1" in cohort.about["counts"]
    assert cases["a_side"].label == "23r-M/2.1" and cases["a_side"].study_id == cases["a_front"].study_id
    assert cohort.classes == ("normal", "23r-M/2.1", "23r-M/3.1; 23u-M/2.1")
    assert Task("present").apply(cohort).counts() == {"normal": 2, "fracture": 4}
    assert cases["c_front"].regions[0].tag.label == "23r-M/3.1; 23u-M/2.1"


def test_what_cannot_be_used_is_left_out_with_a_reason(tmp_path):
    boxes = BOXES | {"b_side": "3 0.5 0.5 0.1 0.1\n", "c_side": "3 0.5 0.5\n", "a_side": "8 0.5 0.5 0.9 2.1\n"}
    source = tree(tmp_path / "src", boxes=boxes)
    (source / "images_part1" / "b_front.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (source / "images_part1" / "stranger.png").write_bytes(b"")
    cut = source / "images_part1" / "d_front.png"  # its header is whole, its pixels are not
    cut.write_bytes(cut.read_bytes()[:-20])
    cohort, rejects = grazpedwri.read(source, grazpedwri.Options(fractions=None))
    assert set(by_id(cohort)) == {"a_front", "c_front"}
    reasons = {reject.file.stem: reject.reason for reject in rejects}
    assert set(reasons) == {"stranger", "b_front", "b_side", "c_side", "a_side", "d_front"}
    assert "truncated" in reasons["d_front"]
    assert "none is visible" in reasons["b_side"] and "line 1" in reasons["c_side"]
    assert "no box inside" in reasons["a_side"] and "no row" in reasons["stranger"]


def test_whole_numbers_written_by_pandas_are_whole_numbers(tmp_path):
    plain = by_id(grazpedwri.read(tree(tmp_path / "a"), grazpedwri.Options(fractions=None))[0])
    rows = [(s, f"{p}.0", f"{n}.0", f"{v}.0", code, seen and f"{seen}.0") for s, p, n, v, code, seen in ROWS]
    floats = by_id(grazpedwri.read(tree(tmp_path / "b", rows=rows, cast="1.0"), grazpedwri.Options(fractions=None))[0])
    what = [(c.study_id, c.patient_id, c.label, c.view, c.facts) for c in plain.values()]
    assert [(c.study_id, c.patient_id, c.label, c.view, c.facts) for c in floats.values()] == what


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"projection": "4"}, "'projection' is '4'"),
        ({"fracture_visible": "yes"}, "'fracture_visible' is 'yes'"),
        ({"ao_classification": "broken"}, "no AO code"),
        ({"patient_id": ""}, "'patient_id' is empty"),
        ({"pixel_spacing": "0,144"}, "finite number"),
        ({"pixel_spacing": "-0.1"}, "size of a pixel"),
        ({"pixel_spacing": "1e300"}, "size of a pixel"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path, cells, words):
    with pytest.raises(LayoutError, match=words) as error:
        grazpedwri.read(tree(tmp_path / "src", **cells), grazpedwri.Options(fractions=None))
    assert "row 2" in str(error.value)


def test_suffixes_in_capitals_are_found(tmp_path):
    image = tree(tmp_path / "src") / "images_part1" / "a_front.png"
    image.rename(image.with_suffix(".PNG"))
    assert "a_front" in by_id(grazpedwri.read(tmp_path / "src", grazpedwri.Options(fractions=None))[0])


def test_no_images_and_doubled_names_are_refused(tmp_path):
    source = tree(tmp_path / "src")
    (source / "images_part2").mkdir()
    (source / "images_part2" / "a_front.png").write_bytes((source / "images_part1" / "a_front.png").read_bytes())
    with pytest.raises(LayoutError, match="same name"):
        grazpedwri.read(source)
    for image in source.rglob("*.png"):
        image.unlink()
    with pytest.raises(LayoutError, match="none of the 8 images"):
        grazpedwri.read(source)


@pytest.mark.parametrize(
    "line", ["9 .5 .5 .1 .1", "-1 .5 .5 .1 .1", "x .5 .5 .1 .1", "3 nan .5 .1 .1", "3 .5 .5 0 .1", "3 .5 .5 .1 0_1.1"]
)
def test_lines_that_are_no_boxes(tmp_path, line):
    (tmp_path / "a.txt").write_text("3 0.5 0.5 0.1 0.1\n\n" + line)
    with pytest.raises(LayoutError, match="line 3"):
        read_yolo_boxes(tmp_path / "a.txt", (10, 10), grazpedwri.OBJECTS)


@real
def test_three_real_wrists_from_the_command_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["cohort", "import", "grazpedwri", str(DATA), str(tmp_path / "wrists"), "--fractions", "1", "0", "0"])
    assert not end.value.code
    cohort = read_cohort(tmp_path / "wrists")
    assert len(cohort) == 3 and all(case.spacing_mm == (0.144, 0.144) for case in cohort)
    assert all(Image.open(case.image).mode.startswith("I;16") for case in cohort)
    said = capsys.readouterr().err
    assert "rows 20327, images 3" in said


def test_where_every_image_is_rejected_the_reason_is_told(tmp_path):
    """Images that were there were to be unpacked."""
    tree(tmp_path, boxes=dict.fromkeys([row[0] for row in ROWS[:-1]], "3 0.5 0.5 0 0.2\n"))
    with pytest.raises(LayoutError, match="which is no box inside the picture") as refused:
        grazpedwri.read(tmp_path)
    assert "fractions of the picture" in refused.value.remedy
