"""The phantom chest: what is drawn is true, the reader looks at it, every trap of EGD-CXR is planted and counted."""

import csv
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from sightline import cli
from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.data.datasets.gaze import egd_cxr
from sightline.data.phantoms.chest.draw import CHEST_CLASSES, draw_chest
from sightline.data.phantoms.chest.egd_cxr_layout import MASKS, write_chests
from sightline.data.phantoms.chest.reader import HEIGHT_DEG, RATE_HZ, ReaderStyle, read_chest
from sightline.data.phantoms.chest.table_writer import (
    GAZE_COLUMNS,
    SCREEN,
    compute_pads,
    project_to_image,
    project_to_screen,
)
from sightline.errors import CohortError, LayoutError
from sightline.io.image import read_image
from sightline.structures.gaze import Gaze

SHAPE = (128, 106)
IMAGES = 62  # three sessions of 28, 28 and 6; calibration pictures after 20, 40 and 60


def draw(label, n=0, **options):
    options = {"shape": SHAPE, "contrast": 0.8, **options}
    return draw_chest(label, np.random.default_rng([1, n]), person=np.random.default_rng([2, n]), **options)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    place = tmp_path_factory.mktemp("chests") / "egd"
    return place, write_chests(place, images=IMAGES, seed=4, shape=SHAPE)


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_chest_is_what_it_says():
    for label in CHEST_CLASSES:
        chest = draw(label)
        assert chest.picture.shape == SHAPE and 0.0 <= chest.picture.min() < 0.1 < 0.8 < chest.picture.max() <= 1.0
        lungs, shadow = chest.organs["left_lung"] | chest.organs["right_lung"], chest.organs["mediastinum"]
        assert 0.2 < lungs.mean() < 0.5 and not (lungs & shadow).any()
        # the patient's right is on the left of the picture; air is dark
        assert np.nonzero(chest.organs["right_lung"])[1].mean() < 0.4 * SHAPE[1] < np.nonzero(shadow)[1].mean()
        assert chest.picture[lungs].mean() < chest.picture[shadow].mean() - 0.15
        assert chest.organs["aortic_knob"].any() and shadow[chest.organs["aortic_knob"]].all()
        for name in MASKS:
            assert ndimage.label(chest.organs[name])[1] == 1, name
        if label == "Normal":
            assert chest.finding is None
        elif label == "pneumonia":
            assert chest.finding.any() and lungs[chest.finding].all()
        else:
            rows, columns = np.nonzero(chest.finding)
            assert chest.heart == (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)


def test_a_hearts_width_is_the_ratio_asked_for():
    ratios = {label: np.array([draw(label, n).cardiothoracic_ratio for n in range(6)]) for label in CHEST_CLASSES}
    assert ratios["Normal"].min() > 0.36 and np.median(ratios["Normal"]) < 0.47 < np.median(ratios["CHF"])
    # the same persons: 0.02 + 0.11 * 0.8 of the chest's width
    assert np.allclose(ratios["CHF"] - ratios["Normal"], 0.108, atol=0.02)
    assert np.array_equal(ratios["pneumonia"], ratios["Normal"])


def test_contrast_makes_an_opacity_plain_and_the_rest_stays():
    plain, faint = (draw("pneumonia", 3, contrast=c) for c in (1.0, 0.0))
    assert np.array_equal(plain.finding, faint.finding)
    gain = plain.picture - faint.picture
    around = ndimage.binary_dilation(plain.finding, iterations=12)
    assert gain[plain.finding].mean() > 0.08 and np.abs(gain[~around]).mean() < 0.02


def test_what_is_no_finding_does_not_know_the_label():
    lain = 0.0
    for n in range(4):
        # the same draws with an opacity and without: nipples, leads, scars, letters and exposure are the same
        normal, ill = draw("Normal", n), draw("pneumonia", n)
        away = ~ndimage.binary_dilation(ill.finding, iterations=20)
        assert np.abs(normal.picture - ill.picture)[away].mean() < 0.01
        bare = draw("Normal", n, clutter=0.0)
        lain = max(lain, float(np.abs(normal.picture - bare.picture).max()))
    assert lain > 0.08


@pytest.mark.slow
def test_gaze_dwells_on_the_finding_and_wanders():
    shares, beside, closed = [], 0, []
    for n in range(12):
        chest = draw(("CHF", "pneumonia")[n % 2], n)
        reading = read_chest(chest, np.random.default_rng([3, n]))
        shares.append(reading.on_finding)
        beside += int(((reading.samples < 0) | (reading.samples >= SHAPE)).any())
        closed.append(1.0 - reading.valid.mean())
        # 60 Hz from the start to the end of the last fixation
        end = reading.fixations[-1, 2] + reading.fixations[-1, 3]
        assert len(reading.samples) == pytest.approx(end * RATE_HZ, abs=1.5)
        assert (np.diff(reading.fixations[:, 2]) > 0).all() and (reading.fixations[:, 3] >= 0.08).all()
    assert 0.4 < np.mean(shares) < 0.95
    assert beside > 1 and 0.005 < np.mean(closed) < 0.12
    still = ReaderStyle(skill=0.0, distraction=0.0, blinks_per_s=0.0)
    chests = [draw("pneumonia", n) for n in range(12)]
    looks = [read_chest(c, np.random.default_rng([3, n]), style=still) for n, c in enumerate(chests)]
    assert np.mean([r.on_finding for r in looks]) < 0.6 * np.mean(shares) and all(r.valid.all() for r in looks)


def test_a_normal_chest_is_swept_from_top_to_bottom():
    chest = draw("Normal")
    style = ReaderStyle(skill=1.0, distraction=0.0, drift_deg=0.0, aim_deg=0.0, search=(0, 0), looks=(20, 20))
    reading = read_chest(chest, np.random.default_rng(0), style=style)
    places = reading.fixations[:, :2].astype(int)
    assert np.isnan(reading.on_finding) and len(places) == 20
    assert all(chest.organs["right_lung" if k % 2 == 0 else "left_lung"][tuple(p)] for k, p in enumerate(places))
    assert (np.diff(places[::2, 0]) > 0).all()


def test_the_session_offset_moves_all_places():
    chest, style = draw("CHF"), ReaderStyle(drift_deg=0.0)
    straight, off = (
        read_chest(chest, np.random.default_rng(0), style=style, offset_deg=o) for o in ((0.0, 0.0), (0.5, -1.0))
    )
    assert np.allclose(off.samples - straight.samples, np.array([0.5, -1.0]) * SHAPE[0] / HEIGHT_DEG)
    assert off.on_finding == straight.on_finding


@pytest.mark.parametrize("shape", [SHAPE, (512, 420), (200, 260), (301, 217)])
def test_screen_and_back(shape):
    pads = compute_pads(shape)
    top, bottom, left, right = pads
    assert min(pads) >= 0 and (top + bottom == 0 or left + right == 0)
    places = np.array([[0.0, 0.0], [shape[0] / 3, shape[1] / 5], [-12.0, shape[1] + 4.0]])
    shares = project_to_screen(places, shape, pads)
    assert shares[0] == pytest.approx([top / SCREEN[0], left / SCREEN[1]], abs=1e-5)
    # five digits of a screen of 1920
    assert np.abs(project_to_image(shares, shape, pads) - places).max() < 0.03


def test_every_trap_is_in_the_files(planted):
    place, truth = planted
    ids, counts = set(truth["images"]), truth["planted"]
    text = (place / "master_sheet.csv").read_text(encoding="utf-8")
    master = rows_of(place / "master_sheet.csv")
    assert len(master) == IMAGES and text.count("\n") > IMAGES + 10
    assert {row["dicom_id"] for row in master} == ids and all(i == i.lower() for i in ids)
    for row in master:
        marked = [name for name in CHEST_CLASSES if row[name] == "1"]
        assert marked == [truth["images"][row["dicom_id"]]["label"]]
        assert (place / row["path"]).is_file()
        assert row["path"].split("/")[1] == f"p{row['patient_id'][:2]}"
    assert max(Counter(row["patient_id"] for row in master).values()) == 2
    samples = rows_of(place / "eye_gaze.csv")
    assert tuple(samples[0]) == GAZE_COLUMNS
    cut = [row for row in samples if row["DICOM_ID"].lower() not in ids]
    assert len(cut) == counts["calibration_rows"] > 100 and counts["calibration_pictures"] == 3
    assert {len(row["DICOM_ID"]) for row in cut} == {39} and {len(i) for i in ids} == {44}
    shown = list(dict.fromkeys(row["DICOM_ID"].lower() for row in samples))
    for n, name in enumerate(shown):
        if name not in ids:
            assert shown[n - 1][:-5] == name
    upper = {row["SESSION_ID"] for row in samples if row["DICOM_ID"] == row["DICOM_ID"].upper()}
    assert upper == {"session_1"} == set(truth["upper_case_sessions"])
    real = [row for row in samples if row["DICOM_ID"].lower() in ids]
    assert len(real) == counts["samples"] == sum(image["samples"] for image in truth["images"].values())
    assert sum(row["FPOGV"] == "0" for row in real) == counts["invalid"] > 50
    off = [row for row in real if row["FPOGV"] == "1" and min(int(row["X_ORIGINAL"]), int(row["Y_ORIGINAL"])) < 0]
    assert len(off) == counts["off_image"] > 50
    assert counts["kept"] == counts["samples"] - counts["invalid"] - counts["off_image"]
    last = {}
    for row in real:
        last[row["SESSION_ID"]] = row["DICOM_ID"].lower()
    assert list(last.values()) == truth["last_of_session"] and len(last) == truth["sessions"] == 3
    for row in rows_of(place / "bounding_boxes.csv"):
        assert int(row["x1"]) < int(row["x2"]) <= SHAPE[1] and int(row["y1"]) < int(row["y2"]) <= SHAPE[0]
    for i in ids:
        for name in MASKS:
            with Image.open(place / "audio_segmentation_transcripts" / i / f"{name}.png") as mask:
                assert mask.size == SHAPE[::-1]
    lists = place / "inclusion_exclusion_criteria_outputs"
    assert sum(len(rows_of(lists / f"{name}.csv")) for name in ("CHF", "normals", "pneumonia")) == IMAGES
    assert json.loads((place / "truth.json").read_text(encoding="utf-8"))["planted"] == counts


def test_the_reader_yields_what_was_planted(planted, tmp_path):
    place, truth = planted
    cohort = egd_cxr.read(place)
    assert {case.case_id: case.label for case in cohort} == {i: t["label"] for i, t in truth["images"].items()}
    counts = truth["planted"]
    for words in (f"calibration {counts['calibration_rows']}", f"invalid {counts['invalid']}",
                  f"off image {counts['off_image']}", f"kept {counts['kept']}", "unknown id 0"):  # fmt: skip
        assert words in cohort.about["samples"], (words, cohort.about["samples"])
    for case in cohort:
        (gaze,) = (region for region in case.regions if isinstance(region, Gaze))
        assert len(gaze) == truth["images"][case.case_id]["valid_inside"]
    assert set(truth["last_of_session"]) <= {case.case_id for case in cohort}
    listed = egd_cxr.read(place, egd_cxr.Options(id_list=place / "filenames.csv"))
    assert {case.case_id for case in listed} == set(truth["id_list"]) and 0 < len(listed) < IMAGES
    # what the sessions' trackers were off is what their calibration pictures say
    straight = egd_cxr.read(place, egd_cxr.Options(correct_drift=True))
    pairs = {case.case_id: next(r for r in case.regions if isinstance(r, Gaze)) for case in cohort}
    number = {i: n for n, i in enumerate(truth["images"])}
    checked = 0
    for case in straight:
        gaze, own = next(r for r in case.regions if isinstance(r, Gaze)), pairs[case.case_id]
        if len(gaze) == len(own):
            offset = truth["session_offset_px"][f"session_{number[case.case_id] // 28}"]
            # one sample of the dot: its tremor is 0.06 degrees
            assert np.abs((own.places - gaze.places).mean(axis=0) - offset).max() < 0.3 * SHAPE[0] / HEIGHT_DEG
            checked += 1
    assert checked > 5
    write_cohort(cohort, tmp_path / "ours")
    assert len(read_cohort(tmp_path / "ours")) == IMAGES


def test_images_are_twelve_bits_as_drawn(planted):
    place, _ = planted
    row = rows_of(place / "master_sheet.csv")[0]
    picture = read_image(place / row["path"])
    assert picture.pixels.shape == SHAPE and len(np.unique(picture.pixels)) > 500
    with Image.open(place / "audio_segmentation_transcripts" / row["dicom_id"] / "left_lung.png") as mask:
        lung = np.asarray(mask) > 0
    with Image.open(place / "audio_segmentation_transcripts" / row["dicom_id"] / "mediastinum.png") as mask:
        shadow = np.asarray(mask) > 0
    assert picture.pixels[lung].mean() < picture.pixels[shadow].mean()


def test_same_seed_same_bytes_and_a_longer_phantom_begins_alike(tmp_path):
    options = {"seed": 9, "shape": (120, 100), "pads": "image_left"}
    short = write_chests(tmp_path / "a", images=4, **options)
    long = write_chests(tmp_path / "b", images=6, **options)
    assert list(short["images"].items()) == list(long["images"].items())[:4]
    for path in sorted((tmp_path / "a").rglob("*.dcm")) + sorted((tmp_path / "a").rglob("*.png")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    gaze = [(tmp_path / name / "eye_gaze.csv").read_bytes() for name in "ab"]
    assert gaze[1].startswith(gaze[0])
    assert "image_left_pad" not in rows_of(tmp_path / "a" / "master_sheet.csv")[0]
    assert rows_of(tmp_path / "a" / "master_sheet.csv")[0]["image_left"] == str(compute_pads((120, 100))[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 2}, "three images or more"), ({"shape": (64, 60)}, "at least 96 pixels"),
        ({"shape": (100, 300)}, "0.7 to 1.3"), ({"contrast": (0.9, 0.1)}, "Contrast is a range"),
        ({"skill": 1.5}, "skill lies in"), ({"clutter": -1.0}, "clutter"),
    ],
)  # fmt: skip
def test_wrong_options_write_nothing(tmp_path, options, message):
    with pytest.raises(CohortError, match=message):
        write_chests(tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(LayoutError, match="not an empty folder"):
        write_chests(tmp_path)
    with pytest.raises(LayoutError, match="is a file, not a folder"):
        write_chests(tmp_path / "mine.txt")


def test_from_the_command_line(tmp_path, capsys):
    line = ["cohort", "phantom", "chest", str(tmp_path / "egd"), "--images", "4", "--seed", "2", "--size", "120", "100"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*line, "--contrast", "0.5", "0.9", "--pads", "image_left"])
    assert ended.value.code == 0 and "4 chests in 1 session;" in capsys.readouterr().out
    truth = json.loads((tmp_path / "egd" / "truth.json").read_text(encoding="utf-8"))
    assert all(0.5 <= image["contrast"] <= 0.9 for image in truth["images"].values())
    cohort = egd_cxr.read(tmp_path / "egd", egd_cxr.Options(fractions=(1.0, 0.0, 0.0)))
    assert len(cohort) == 4 and cohort.cases[0].shape == (120, 100)


def test_options_of_the_other_phantom_are_refused(tmp_path, capsys):
    for kind, option in (("radiographs", ["--skill", "0.5"]), ("chest", ["--anatomy", "femur"])):
        with pytest.raises(SystemExit) as ended:
            cli.main(["cohort", "phantom", kind, str(tmp_path / "x"), *option])
        assert ended.value.code == 2 and f"A phantom of {kind} has no {option[0]}." in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
