"""REFLACX: a tiny tree in the published layout; readers apart, ellipses, labels by certainty, gaze on the image."""

import csv
import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.data.datasets.gaze import reflacx
from sightline.data.datasets.gaze.reflacx import ReadingRecord, build_ellipse, label_image
from sightline.errors import LayoutError, SightlineError
from sightline.structures.frame import Frame
from sightline.structures.gaze import Gaze
from sightline.structures.regions import Box, Polygon

SHAPE = (120, 90)
MIRROR = "physionet.org/files/mimic-cxr/2.0.0/"
EARLY = ("Pneumothorax", "Pleural effusion", "Atelectasis")
LATE = ("Pneumothorax", "Pleural abnormality", "Atelectasis")


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, tuple(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def meta(reading, dicom, split, certainties, names=LATE, discarded=False):
    return {
        "id": reading, "split": split, "eye_tracking_data_discarded": discarded,
        "image": f"{MIRROR}files/p1{dicom[0]}/p1000{dicom}/s5{ord(dicom[0]):03d}/{dicom}.dcm",
        "dicom_id": dicom, "subject_id": f"1000{dicom}", "image_size_x": SHAPE[1], "image_size_y": SHAPE[0],
        **dict(zip(names, certainties, strict=True)), "Support devices": True, "Other": "a|b",
    }  # fmt: skip


def fixation(start, stop, row, column, degree=30):
    return {
        "timestamp_start_fixation": start, "timestamp_end_fixation": stop, "x_position": column, "y_position": row,
        "pupil_area_normalized": 1.0, "window_level": 0.5, "angular_resolution_x_pixels_per_degree": degree,
        "angular_resolution_y_pixels_per_degree": degree, "xmin_shown_from_image": 0,
    }  # fmt: skip


def write_tree(root):
    """Image a: read by three in phase 1; b and c: once each in phase 3; d: its gaze was discarded."""
    phase1 = [
        meta("P102R1", "aa", "train", (5, 0, 1), EARLY),
        meta("P102R2", "aa", "train", (3, 0, 4), EARLY),
        meta("P102R3", "aa", "train", (1, 5, 0), EARLY),
        meta("P102R4", "dd", "train", (0, 0, 0), EARLY, discarded=True),
    ]
    phase3 = [meta("P300R5", "bb", "validate", (0, 3, 0)), meta("P300R6", "cc", "test", (4, 0, 5))]
    write_rows(root / "main_data" / "metadata_phase_1.csv", phase1)
    write_rows(root / "main_data" / "metadata_phase_3.csv", phase3)
    for n, row in enumerate((*phase1, *phase3)):
        place = root / "main_data" / row["id"]
        names = EARLY if row["id"].startswith("P1") else LATE
        marks = [
            {"xmin": 20, "ymin": 30, "xmax": 60, "ymax": 90, "certainty": 4, **{k: k == "Pneumothorax" for k in names}},
            {"xmin": 5, "ymin": 5, "xmax": 9, "ymax": 9, "certainty": 1, **dict.fromkeys(names, True)},
        ]
        write_rows(place / "anomaly_location_ellipses.csv", marks)
        write_rows(place / "chest_bounding_box.csv", [{"xmin": 4, "ymin": 6, "xmax": 80, "ymax": 110}])
        image = root / row["image"].removeprefix(MIRROR).replace(".dcm", ".png")
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros(SHAPE, np.uint8)).save(image)
        if row["eye_tracking_data_discarded"]:
            continue
        seen = [fixation(1.5, 1.75, 40 + n, 50), fixation(2.0, 3.0, 60, 70, degree=60), fixation(3.0, 3.5, 60, 95)]
        write_rows(place / "fixations.csv", seen)
        write_gaze(root / "gaze_data" / row["id"] / "gaze.csv")
    return root


def write_gaze(path):
    """100 ms at (10, 20), 50 ms of a blink, 50 ms at (30, 40), at 1000 Hz."""
    rows = []
    for i in range(200):
        row, column = (10, 20) if i < 100 else (30, 40)
        cells = fixation(0, 0, row, column)
        del cells["timestamp_start_fixation"], cells["timestamp_end_fixation"]
        if 100 <= i < 150:
            cells |= {name: "" for name in cells if name.startswith(("x_pos", "y_pos", "pupil", "angular"))}
        rows.append({"timestamp_sample": round(7.0 + i / 1000, 3), **cells})
    write_rows(path, rows)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("reflacx") / "tree")


def of_kind(case, kind):
    return [region for region in case.regions if isinstance(region, kind)]


def test_one_case_an_image_and_one_gaze_a_reading(tree):
    cohort = reflacx.read(tree)
    assert [case.case_id for case in cohort] == ["aa", "dd", "bb", "cc"]
    assert [len(of_kind(case, Gaze)) for case in cohort] == [3, 0, 1, 1]
    assert [gaze.tag.reader for gaze in of_kind(cohort[0], Gaze)] == ["P102R1", "P102R2", "P102R3"]
    assert [case.split for case in cohort] == ["train", "train", "val", "test"]
    first = cohort[0]
    assert (first.patient_id, first.study_id, first.shape) == ("1000aa", "5097", SHAPE)
    assert first.facts == {"phase": "1", "readings": "3"}
    counts = cohort.about["counts"]
    for what in ("readings 6", "images 4", "gaze discarded by the publishers 1", "off image 5", "fixations kept 10"):
        assert what in counts


def test_fixations_stand_where_and_as_long_as_they_say(tree):
    gaze = of_kind(reflacx.read(tree)[0], Gaze)[1]
    assert gaze.places.tolist() == [[41.0, 50.0], [60.0, 70.0]]
    assert gaze.start_s.tolist() == [0.0, 0.5]
    assert gaze.dwell_s.tolist() == [0.25, 1.0]
    # a degree is 30 px for a quarter of a second and 60 px for one
    assert gaze.px_per_deg == pytest.approx((0.25 * 30 + 60) / 1.25)
    assert gaze.spread_px == gaze.px_per_deg


def test_samples_are_thinned_and_a_blink_counts_for_nobody(tree):
    gaze = of_kind(reflacx.read(tree, reflacx.Options(gaze="samples", rate_hz=50.0))[2], Gaze)[0]
    assert gaze.kind == "samples"
    assert gaze.places.tolist() == [[10.0, 20.0]] * 5 + [[30.0, 40.0]] * 3
    assert np.allclose(gaze.start_s, [0, 0.02, 0.04, 0.06, 0.08, 0.14, 0.16, 0.18])
    assert np.allclose(gaze.dwell_s, [0.02] * 5 + [0.01, 0.02, 0.02])


@pytest.mark.parametrize(
    ("findings", "certainty", "labels"),
    [
        ((), 3, ["finding", "no finding", "finding", "finding"]),
        (("Pneumothorax",), 3, ["Pneumothorax", "none of these", "none of these", "Pneumothorax"]),
        (("Atelectasis", "Pneumothorax"), 3, ["Pneumothorax", "none of these", "none of these", "Atelectasis"]),
        (("Pneumothorax",), 5, ["none of these", "none of these", "none of these", "none of these"]),
        # phase 1 was not asked about it
        (("Pleural abnormality",), 3, ["Pleural abnormality", "none of these"]),
    ],
)
def test_labels_follow_certainty_in_half_of_the_readings(tree, findings, certainty, labels):
    cohort = reflacx.read(tree, reflacx.Options(findings=findings, certainty=certainty))
    assert [case.label for case in cohort] == labels
    assert cohort.classes == (("none of these", *findings) if findings else ("no finding", "finding"))
    assert ("not asked about these findings 2" in cohort.about["counts"]) == (len(labels) == 2)


def test_half_is_enough():
    readings = [
        ReadingRecord(str(n), "d", "p", "s", "i", SHAPE, "train", 2, False, {"X": 5 * (n < 2)}) for n in range(4)
    ]
    assert label_image(readings, ("X",), 3, Counter()) == "X"
    assert label_image(readings[1:], ("X",), 3, Counter()) == "none of these"


def test_ellipses_are_findings_of_their_class_and_reader(tree):
    case = reflacx.read(tree, reflacx.Options(findings=("Pneumothorax",)))[0]
    marks = of_kind(case, Polygon)
    assert [(m.tag.role, m.tag.label, m.tag.reader) for m in marks] == [
        ("finding", "Pneumothorax", f"P102R{n}") for n in (1, 2, 3)
    ]
    assert of_kind(reflacx.read(tree, reflacx.Options(findings=("Atelectasis",)))[0], Polygon) == []
    assert len(of_kind(reflacx.read(tree, reflacx.Options(certainty=1))[0], Polygon)) == 6
    boxes = of_kind(case, Box)
    assert [(b.start, b.stop, b.tag.role) for b in boxes] == [((6.0, 4.0), (110.0, 80.0), "organ")] * 3


def test_an_ellipse_covers_what_its_formula_says():
    ring = np.array(build_ellipse((30.0, 20.0, 90.0, 60.0)))
    after = np.roll(ring, -1, axis=0)
    area = abs((ring[:, 0] * after[:, 1] - ring[:, 1] * after[:, 0]).sum()) / 2
    assert area == pytest.approx(math.pi * 30 * 20)
    rows, columns = np.mgrid[:120, :90] + 0.5
    slowly = ((rows - 60) / 30) ** 2 + ((columns - 40) / 20) ** 2 < 1
    drawn = Polygon((tuple(map(tuple, ring)),)).draw(Frame.of_image(SHAPE)) > 0
    # drawn by any hit: the rim is part of it
    assert (drawn | ~slowly).all() and (drawn ^ slowly).sum() < 170


def test_written_and_read_back(tree, tmp_path):
    cohort = reflacx.read(tree)
    write_cohort(cohort, tmp_path / "out")
    assert [case.regions for case in read_cohort(tmp_path / "out")] == [case.regions for case in cohort]


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("main_data/P102R2/fixations.csv", None, "fixations.csv is missing"),
        ("main_data/P102R2/fixations.csv", ("y_position", "y"), "does not parse"),
        ("main_data/P102R2/fixations.csv", ("1.5,1.75", "1.5,0.75"), "ends before it starts"),
        ("main_data/P102R2/fixations.csv", ("1.5,1.75", ",1.75"), "a time is missing"),
        ("main_data/P102R2/fixations.csv", ("1.5,1.75", "1.5,1e300"), "lasts more than 3600 s"),
        ("main_data/P102R2/anomaly_location_ellipses.csv", None, "is missing"),
        ("main_data/P102R2/anomaly_location_ellipses.csv", ("20,30", "20,"), "row 2"),
        ("main_data/P102R2/anomaly_location_ellipses.csv", (",4,", ",9,"), "row 2, column 'certainty' is '9'"),
        (
            "main_data/P102R2/anomaly_location_ellipses.csv",
            (",True", ",Wahr"),
            "row 2, column 'Pneumothorax' is 'Wahr'",
        ),
        ("main_data/metadata_phase_1.csv", ("P102R2,", "../P102R2,"), "no name of a folder"),
        ("main_data/metadata_phase_1.csv", (",5,0,1,", ",7,0,1,"), "row 2, column 'Pneumothorax'"),
        ("main_data/metadata_phase_1.csv", ("train,True", "train,perhaps"), "eye_tracking_data_discarded"),
        ("main_data/metadata_phase_1.csv", (",90,", ",90.5,"), "image_size_x"),
        ("main_data/metadata_phase_1.csv", (",90,", ",1e300,"), "image_size_x"),
        ("main_data/metadata_phase_1.csv", (",90,", ",91,"), "120 x 91"),
        ("main_data/metadata_phase_1.csv", ("P102R2,train", "P102R2,test"), "disagree"),
        ("main_data/metadata_phase_1.csv", ("P102R2,", "P102R1,"), "repeats"),
        ("main_data/metadata_phase_3.csv", ("P300R5,", "P102R1,"), "in two phases"),
        ("main_data/metadata_phase_3.csv", ("validate", "dev"), "split 'dev'"),
    ],
)
def test_what_is_broken_is_refused(tmp_path, name, change, match):
    tree = write_tree(tmp_path / "tree")
    path = tree / name
    text = path.read_text(encoding="utf-8")
    if change is None:
        path.unlink()
    else:
        assert change[0] in text
        path.write_text(text.replace(*change) if change[0] == ",90," else text.replace(*change, 1), encoding="utf-8")
    with pytest.raises(SightlineError, match=match):
        reflacx.read(tree)


def count(tree, **options):
    counts = reflacx.read(tree, reflacx.Options(**options)).about["counts"]
    return {name: int(number) for name, _, number in (part.rpartition(" ") for part in counts.split(", "))}


def test_everything_that_is_left_out_is_counted(tmp_path):
    """By hand: six readings of four images; in each one ellipse of certainty 4 (Pneumothorax alone) and one of 1."""
    tree = write_tree(tmp_path / "tree")
    plain = {
        "readings": 6, "images": 4, "ellipse not certain enough": 6, "gaze discarded by the publishers": 1,
        "off image": 5, "fixations kept": 10,
    }  # fmt: skip
    assert count(tree) == plain
    # the second ellipse of each reading speaks for everything, the first one not for atelectasis
    others = {key: n for key, n in plain.items() if key != "ellipse not certain enough"}
    assert count(tree, findings=("Atelectasis",), certainty=1) == {**others, "ellipse of other findings": 6}
    # phase 1 was not asked about it: two images, four readings and their gaze are left out
    assert count(tree, findings=("Pleural abnormality",)) == {
        "readings": 6, "images": 4, "not asked about these findings": 2, "ellipse of other findings": 2,
        "ellipse not certain enough": 2, "off image": 2, "fixations kept": 4,
    }  # fmt: skip
    # five readings of ten pieces of 20 ms, in two of which the eyes were never found
    seen = {key: n for key, n in plain.items() if key not in ("off image", "fixations kept")}
    seen |= {"eyes not found": 5 * 2, "samples kept": 5 * 8}
    assert count(tree, gaze="samples", rate_hz=50.0) == seen
    samples = tree / "gaze_data" / "P300R6" / "gaze.csv"
    head, first, second, *rest = samples.read_text(encoding="utf-8").splitlines()
    samples.write_text("\n".join([head, second, first, *rest]), encoding="utf-8")
    assert count(tree, gaze="samples", rate_hz=50.0) == {**seen, "samples earlier than the row before": 1}

    def edit(name, old, new):
        path = tree / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    edit("main_data/P300R5/anomaly_location_ellipses.csv", "20,30,60,90", "60,30,20,90")
    edit("main_data/P300R6/chest_bounding_box.csv", "4,6,80,110", "4,6,4,110")
    lines = (tree / "main_data/P300R6/fixations.csv").read_text(encoding="utf-8").splitlines()
    (tree / "main_data/P300R6/fixations.csv").write_text("\n".join([lines[0], lines[3]]), encoding="utf-8")
    next(tree.rglob("bb.png")).unlink()
    edit("main_data/P300R6/anomaly_location_ellipses.csv", "20,30,60,90", "60,30,20,90")
    edit("main_data/metadata_phase_1.csv", ",5,0,1,", ",5,0,5,")
    assert count(tree, findings=("Pneumothorax", "Atelectasis")) == {
        "readings": 6, "images": 4, "several findings": 2, "image missing": 1, "ellipse without an area": 1,
        "chest box without an area": 1, "ellipse not certain enough": 5, "gaze discarded by the publishers": 1,
        "off image": 4, "fixations kept": 6, "reading without gaze": 1,
    }  # fmt: skip


def test_semicolons_in_a_table_of_gaze_and_a_folder_in_place_of_metadata(tree, tmp_path):
    other = write_tree(tmp_path / "tree")
    for path in other.rglob("fixations.csv"):
        path.write_text(path.read_text().replace(",", ";"))
    assert [case.regions for case in reflacx.read(other)] == [case.regions for case in reflacx.read(tree)]
    (other / "main_data" / "metadata_phase_1.csv").unlink()
    (other / "main_data" / "metadata_phase_1.csv").mkdir()
    with pytest.raises(LayoutError, match=r"metadata_phase_1\.csv cannot be opened"):
        reflacx.read(other)


def test_one_image_whose_id_is_written_two_ways_is_one_case(tmp_path):
    tree = write_tree(tmp_path / "tree")
    path = tree / "main_data" / "metadata_phase_1.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(",aa,", ",a\u200ba,", 1), encoding="utf-8")
    assert [case.case_id for case in reflacx.read(tree)] == ["aa", "dd", "bb", "cc"]


def test_options_that_cannot_be(tree, tmp_path):
    with pytest.raises(LayoutError, match="no finding 'Cold'"):
        reflacx.read(tree, reflacx.Options(findings=("Cold",)))
    with pytest.raises(LayoutError, match="certainty is 9"):
        reflacx.read(tree, reflacx.Options(certainty=9))
    with pytest.raises(LayoutError, match="has no reading"):
        reflacx.read(tmp_path)


def test_findings_are_known_in_any_case(tmp_path):
    """A finding whose column is passed over counts as not asked about, and its ellipses as those of no finding."""
    plain, lower = (reflacx.read(write_tree(tmp_path / "plain")), write_tree(tmp_path / "lower"))
    for path in [*lower.glob("main_data/metadata*.csv"), *lower.glob("main_data/*/anomaly*.csv")]:
        head, rest = path.read_text().split("\n", 1)
        path.write_text(f"{head.lower()}\n{rest}")
    found = reflacx.read(lower)
    assert [case.label for case in found] == [case.label for case in plain]
    options = reflacx.Options(findings=("Pneumothorax",))
    assert [len(case.regions) for case in reflacx.read(lower, options)] == [
        len(case.regions) for case in reflacx.read(tmp_path / "plain", options)
    ]


@pytest.mark.parametrize("kind", ["samples", "fixations"])
def test_times_in_milliseconds_are_refused(tmp_path, kind):
    tree = write_tree(tmp_path / "tree")
    looks = [fixation(1000.0 * i, 1000.0 * i + 250, 40, 50) for i in range(12)]
    write_rows(tree / "main_data" / "P300R6" / "fixations.csv", looks)
    samples = tree / "gaze_data" / "P300R6" / "gaze.csv"
    rows = list(csv.DictReader(samples.open()))
    write_rows(samples, [row | {"timestamp_sample": 1000 * float(row["timestamp_sample"])} for row in rows])
    with pytest.raises(LayoutError, match=rf"P300R6.*: {kind} last \d+ s \(the median\).*expected"):
        reflacx.read(tree, reflacx.Options(gaze=kind))
