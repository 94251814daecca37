"""The phantom cohort: what is promised about it, measured on what it writes."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.phantoms.radiographs.anatomy import Bone, LimbPose
from sightline.data.phantoms.radiographs.cohort import STROKE_PX, FemurOptions, draw_image, write_radiographs
from sightline.data.phantoms.radiographs.femur import FEMUR_CLASSES
from sightline.data.phantoms.radiographs.fracture import Break, break_bone
from sightline.data.phantoms.radiographs.plan import PUBLISHED_COUNTS, WRIST_CLASSES, Study, plan_studies
from sightline.data.phantoms.radiographs.wrist import grow_wrist
from sightline.data.phantoms.radiographs.xray import (
    CORTEX_PER_MM,
    SPONGY_PER_MM,
    Technique,
    cast_shadow,
    draw_clouds,
    draw_trabeculae,
    expose,
)
from sightline.errors import CohortError, LayoutError
from sightline.structures.frame import Frame
from sightline.structures.regions import Box, Mask, Scribble

FRACTIONS = (0.6, 0.1, 0.3)


def plan(studies, anatomy="wrist", shortcut=0.0, seed=0, classes=None):
    names = classes or (WRIST_CLASSES if anatomy == "wrist" else FEMUR_CLASSES)
    return plan_studies(anatomy, studies, classes=names, shortcut=shortcut, fractions=FRACTIONS, seed=seed)


def files_of(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def wrists(tmp_path_factory):
    return write_radiographs(tmp_path_factory.mktemp("phantom") / "wrist", studies=6, shortcut=0.9, seed=4, size_px=256)


@pytest.fixture(scope="module")
def femurs(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom") / "femur"
    return write_radiographs(root, anatomy="femur", studies=12, seed=4, size_px=256)


# -- the plan -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anatomy", ["wrist", "femur"])
def test_a_shorter_phantom_is_the_beginning_of_a_longer_one(anatomy):
    long = plan(90, anatomy, shortcut=0.9)
    assert all(plan(n, anatomy, shortcut=0.9) == long[:n] for n in (1, 2, 17, 60))


def test_splits_are_grouped_by_patient_balanced_and_of_the_size_asked_for():
    studies = plan(200)
    of_patient = {}
    for study in studies:
        of_patient.setdefault(study.patient, set()).add(study.split)
    assert all(len(splits) == 1 for splits in of_patient.values())
    assert Counter(Counter(s.patient for s in studies).values()).keys() >= {1, 2}
    count = Counter(s.split for s in studies)
    assert abs(count["train"] - 120) <= 3 and abs(count["val"] - 20) <= 3 and abs(count["test"] - 60) <= 3
    for split in ("train", "val", "test"):
        fractured = sum(s.label == "fracture" for s in studies if s.split == split)
        assert abs(fractured - count[split] / 2) <= 2


def test_grades_come_in_the_stated_shares():
    grades = Counter(s.grade for s in plan(160) if s.label == "fracture")
    assert grades == {"plain": 52, "subtle": 20, "occult": 8}
    assert {s.grade for s in plan(160) if s.label == "no fracture"} == {"none"}


def test_views_are_two_to_four_and_start_with_pa():
    views = [s.views for s in plan(120)]
    assert {len(v) for v in views} == {2, 3, 4}
    assert all(v[0] == "PA" and len(set(v)) == len(v) for v in views)
    assert {x for v in views for x in v} == {"PA", "oblique", "PA ulnar deviation", "supinated oblique"}


@pytest.mark.parametrize("probability", [0.9, *(pytest.param(p, marks=pytest.mark.slow) for p in (0.5, 1.0))])
def test_the_marker_agrees_with_the_label_as_often_as_asked_and_never_lies_on_test_images(probability):
    studies = plan(1500, shortcut=probability)
    seen = [s for s in studies if s.split != "test"]
    agrees = np.mean([s.marker == (s.label == "fracture") for s in seen])
    assert abs(agrees - probability) <= 3.5 * math.sqrt(probability * (1 - probability) / len(seen)) + 1e-12
    assert not any(s.marker for s in studies if s.split == "test")
    assert not any(s.marker for s in plan(100, shortcut=0.0))


def test_the_marker_changes_neither_the_studies_nor_the_splits():
    plain, marked = plan(60), plan(60, shortcut=0.9)
    assert [(s.label, s.split, s.views, s.grade, s.side) for s in plain] == [
        (s.label, s.split, s.views, s.grade, s.side) for s in marked
    ]


def test_femurs_come_in_pairs_of_one_patient_with_every_class():
    studies = plan(60, "femur")
    assert {s.label for s in studies} == set(FEMUR_CLASSES)
    for broken_hip, sound_hip in zip(studies[::2], studies[1::2], strict=True):
        assert broken_hip.patient == sound_hip.patient and {broken_hip.side, sound_hip.side} == {"L", "R"}
        assert sound_hip.label == "normal" and broken_hip.label != "normal"
    counts = Counter(s.label for s in studies)
    assert all(counts[name] == 5 for name in FEMUR_CLASSES[1:])


def test_published_shares_are_kept_by_every_beginning_of_a_cohort():
    studies = plan_studies(
        "femur", 1560, classes=FEMUR_CLASSES, shortcut=0.0, fractions=FRACTIONS, seed=2, ao_shares="published"
    )
    assert Counter(s.label for s in studies) == {**PUBLISHED_COUNTS, "normal": 780}
    assert (PUBLISHED_COUNTS["A3"], PUBLISHED_COUNTS["B2"]) == (15, 241)
    assert sum(n for name, n in PUBLISHED_COUNTS.items() if name[0] == "A") == 327
    short = plan_studies(
        "femur", 240, classes=FEMUR_CLASSES, shortcut=0.0, fractions=FRACTIONS, seed=2, ao_shares="published"
    )
    assert short == studies[:240]
    counts = Counter(s.label for s in short)
    assert all(abs(counts[name] - 120 * n / 780) < 1.5 for name, n in PUBLISHED_COUNTS.items())
    # both hips of a patient stay together, and rare ones are divided too
    assert len({(s.patient, s.split) for s in studies}) == 780
    assert {s.split for s in studies if s.label == "A3"} == {"train", "val", "test"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"femurs": FemurOptions(ao_shares="published")},
        {"anatomy": "femur", "femurs": FemurOptions(ao_shares="rare")},
        {"femurs": FemurOptions(field="wide")},
        {"anatomy": "femur", "femurs": FemurOptions(field="narrow")},
        {"studies": 0},
        {"shortcut": 0.3},
        {"shortcut": 1.2},
        {"shortcut": math.nan},
        {"anatomy": "skull"},
        {"save_as": "bmp"},
        {"size_px": 20},
        {"seed": -1},
    ],
)
def test_impossible_phantoms_are_refused_with_a_remedy(wrong, tmp_path):
    with pytest.raises((CohortError, LayoutError)) as caught:
        write_radiographs(tmp_path / "x", **wrong)
    assert caught.value.remedy
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("anatomy", "classes", "fractions"),
    [
        ("wrist", ("a", "b", "c"), FRACTIONS),
        ("wrist", ("a", "a"), FRACTIONS),
        ("femur", ("normal", "C1"), FRACTIONS),
        ("wrist", ("a", "b"), (0.5, 0.5, 0.5)),
    ],
)
def test_impossible_plans_are_refused_with_a_remedy(anatomy, classes, fractions):
    with pytest.raises((CohortError, LayoutError)) as caught:
        plan_studies(anatomy, 12, classes=classes, shortcut=0.0, fractions=fractions, seed=0)
    assert caught.value.remedy


# -- what is written ----------------------------------------------------------------------------------------------


def test_the_cohort_reads_back_equal_and_fits_its_images(wrists):
    again = read_cohort(wrists.root)
    assert again.cases == wrists.cases and again.classes == wrists.classes and dict(again.about) == dict(wrists.about)
    shapes = set()
    for case in again:
        with Image.open(case.image) as image:
            assert (image.height, image.width) == case.shape and image.mode == "L"
        shapes.add(case.shape[0] > case.shape[1])
        assert case.shape[0] != case.shape[1] and max(case.shape) == 256
    assert shapes == {True, False}


def test_every_image_has_the_bone_in_three_styles_and_a_box_at_each_fracture(wrists):
    shares = []
    for case in wrists:
        mask, box, line = (r for r in case.regions if r.tag.role == "focus")
        assert isinstance(mask, Mask) and isinstance(box, Box) and isinstance(line, Scribble)
        assert line.stroke_px == STROKE_PX
        frame = Frame.of_image(case.shape)
        drawn = mask.draw(frame)
        rows, columns = np.nonzero(drawn)
        assert box.start == (rows.min(), columns.min()) and box.stop == (rows.max() + 1, columns.max() + 1)
        on_line = line.draw(frame) > 0
        assert on_line.sum() > 0 and drawn[on_line].mean() > 0.85
        shares.append(float(drawn.mean()))
        findings = [r for r in case.regions if r.tag.role == "finding"]
        if case.label == "fracture":
            (finding,) = findings
            assert finding.tag.label == "fracture"
            inside = finding.draw(frame) * drawn
            assert inside.sum() > 0 and finding.draw(frame).sum() < drawn.sum() * 2.5
        else:
            assert not findings
    assert 0.03 < np.mean(shares) < 0.08


def test_the_same_arguments_give_the_same_bytes(wrists, tmp_path):
    write_radiographs(tmp_path / "again", studies=6, shortcut=0.9, seed=4, size_px=256)
    assert files_of(tmp_path / "again") == files_of(wrists.root)


@pytest.mark.slow
def test_more_studies_and_more_workers_draw_the_same_pictures(wrists, tmp_path):
    write_radiographs(tmp_path / "short", studies=3, shortcut=0.9, seed=4, size_px=256, workers=2)
    long = files_of(wrists.root)
    short = {k: v for k, v in files_of(tmp_path / "short").items() if k.endswith(".png")}
    assert short and all(long[name] == data for name, data in short.items())


def test_another_seed_draws_others(wrists, tmp_path):
    other = write_radiographs(tmp_path / "other", studies=2, shortcut=0.9, seed=5, size_px=256)
    assert other[0].image.read_bytes() != wrists[0].image.read_bytes()


def test_asking_twice_reads_back_and_a_foreign_folder_is_left_alone(wrists, tmp_path):
    before = wrists[0].image.stat().st_mtime_ns
    again = write_radiographs(wrists.root, studies=6, shortcut=0.9, seed=4, size_px=256)
    assert again.cases == wrists.cases and wrists[0].image.stat().st_mtime_ns == before
    with pytest.raises(LayoutError):
        write_radiographs(wrists.root, studies=7, shortcut=0.9, seed=4, size_px=256)
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(LayoutError):
        write_radiographs(tmp_path, studies=1)
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.txt"]


def test_facts_that_no_hospital_knows_say_so(wrists):
    for case in wrists:
        assert case.facts["phantom_marker"] in ("yes", "no") and case.facts["side"] in ("L", "R")
        assert (case.facts["truth_grade"] == "none") == (case.label == "no fracture")
    truth = {name for case in wrists for name in case.facts} - {"side", "hardware", "collimated", "phantom_marker"}
    assert truth and all(name.startswith("truth_") for name in truth)


def test_nothing_but_the_bone_knows_of_the_fracture():
    """Drawn with and without its fracture, an image keeps its acquisition: collimation, size, pose, scale."""
    for index in range(5):
        sound, hurt = (
            draw_image(
                Study(index, index, "any", kind, grade, "R", ("PA",), "train"), 1, anatomy="wrist", seed=11, size_px=200
            )
            for kind, grade in (("normal", "none"), ("fracture", "plain"))
        )
        assert sound.facts["collimated"] == hurt.facts["collimated"]
        assert sound.picture.shape == hurt.picture.shape and sound.pixel_mm == hurt.pixel_mm
        assert abs(int(sound.bone.sum()) - int(hurt.bone.sum())) < 0.2 * sound.bone.sum()


@pytest.mark.parametrize("anatomy", ["wrist", "femur"])
def test_hardware_is_as_common_with_a_fracture_as_without(anatomy):
    metal = {True: [], False: []}
    for study in plan(1200, anatomy):
        metal[study.kind == "normal"].append(study.hardware != "none")
    with_metal = [float(np.mean(rows)) for rows in metal.values()]
    assert abs(with_metal[0] - with_metal[1]) < 0.05 and 0.04 < np.mean(with_metal) < 0.16


@pytest.mark.parametrize("kind", ["plate", "wires", "bracelet"])
def test_hardware_is_seen_on_the_image(kind):
    studies = [Study(0, 0, "x", "normal", "none", "L", ("PA",), "train", False, metal) for metal in ("none", kind)]
    bare, metal = (draw_image(s, 1, anatomy="wrist", seed=3, size_px=200).picture for s in studies)
    assert (metal - bare > 0.1).sum() > 20


def test_progress_is_told_study_by_study(tmp_path):
    told = []
    write_radiographs(tmp_path / "p", studies=2, size_px=160, progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 2), (2, 2)]


def test_femurs_have_one_square_inside_the_image(femurs):
    for case in femurs:
        (square,) = [r for r in case.regions if r.tag.role == "finding"]
        height, width = (b - a for a, b in zip(square.start, square.stop, strict=True))
        assert height == pytest.approx(width, abs=0.01)
        assert min(square.start) >= 0 and square.stop[0] <= case.shape[0] and square.stop[1] <= case.shape[1]
    assert read_cohort(femurs.root).cases == femurs.cases


def test_a_marked_femur_can_be_drawn_though_the_bone_fills_the_image(tmp_path):
    cohort = write_radiographs(tmp_path / "f", anatomy="femur", studies=6, shortcut=1.0, size_px=200)
    assert {c.facts["phantom_marker"] for c in cohort.split("train") if c.label != "normal"} == {"yes"}


# -- DICOM --------------------------------------------------------------------------------------------------------


def test_dicom_holds_twelve_bits_and_shows_the_same_picture(tmp_path):
    options = {"studies": 2, "seed": 4, "size_px": 160}
    pictures = write_radiographs(tmp_path / "png", **options)
    cohort = write_radiographs(tmp_path / "dicom", save_as="dicom", **options)
    kinds, uids = set(), set()
    for case, picture in zip(cohort, pictures, strict=True):
        data = pydicom.dcmread(case.image)
        kinds.add(data.PhotometricInterpretation)
        uids.add(data.SOPInstanceUID)
        stored = data.pixel_array
        assert stored.dtype == np.uint16 and stored.max() <= 4095 and stored.shape == case.shape
        low = float(data.WindowCenter) - 0.5 - (float(data.WindowWidth) - 1) / 2
        shown = np.clip((stored - low) / (float(data.WindowWidth) - 1), 0, 1)
        if data.PhotometricInterpretation == "MONOCHROME1":
            shown = 1 - shown
        with Image.open(picture.image) as image:
            assert np.abs(np.asarray(image) / 255.0 - shown).max() < 0.5 / 255 + 1 / 3000
        assert data.Modality == "DX" and data.ViewPosition and data.ImageLaterality == case.facts["side"]
        assert [float(x) for x in data.ImagerPixelSpacing] == pytest.approx(list(case.spacing_mm))
        assert data.PatientID == case.patient_id and data.StudyID == case.study_id
    assert kinds == {"MONOCHROME1", "MONOCHROME2"} and len(uids) == len(cohort)
    again = write_radiographs(tmp_path / "again", save_as="dicom", **options)
    assert again[0].image.read_bytes() == cohort[0].image.read_bytes()


# -- the drawing --------------------------------------------------------------------------------------------------


def test_a_pose_maps_there_and_back_and_keeps_lengths():
    pose = LimbPose((300, 200), 0.25, (3.0, -7.0), turn_deg=12.0, mirrored=True)
    points = np.random.default_rng(0).uniform(-30, 30, (20, 2))
    placed = pose.place(points)
    assert np.allclose(pose.unplace(placed), points)
    assert np.allclose(pose.place([3.0, -7.0]), [150, 100])
    assert np.allclose(np.linalg.norm(placed[0] - placed[1]) * 0.25, np.linalg.norm(points[0] - points[1]))
    upright = LimbPose((300, 200), 0.5, (0.0, 0.0))
    assert np.allclose(upright.place([10.0, 20.0]), [150 - 40, 100 + 20])


def test_the_beam_through_the_middle_of_a_bone_crosses_both_shells_and_the_spongy_core():
    turns = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    ring = 10.0 * np.column_stack([np.cos(turns), np.sin(turns)])
    bone = Bone("ball", ring, np.array([[0.0, -5.0], [0.0, 5.0]]), depth_mm=20.0, cortex_mm=(1.0, 1.0))
    pose = LimbPose((120, 120), 0.25, (0.0, 0.0))
    shadow = cast_shadow(bone, pose, np.random.default_rng(0))
    middle = np.array(shadow.attenuation.shape) // 2
    patch = shadow.attenuation[middle[0] - 6 : middle[0] + 6, middle[1] - 6 : middle[1] + 6]
    assert patch.mean() == pytest.approx(2.0 * CORTEX_PER_MM + 18.0 * SPONGY_PER_MM, rel=0.15)
    # the rim, seen along the shell, is brighter than the middle
    across = shadow.attenuation[middle[0]]
    assert across.max() > 1.25 * patch.mean()
    assert shadow.inside.sum() * 0.25**2 == pytest.approx(math.pi * 100.0, rel=0.03)


def test_a_break_moves_the_fragment_on_its_left_and_darkens_its_line():
    pose = LimbPose((80, 80), 1.0, (0.0, 0.0))
    bar = np.zeros((80, 80))
    bar[:, 35:45] = 1.0
    # from (20, 0) to (-20, 0): its left is below, towards negative y, so the lower half moves
    one = Break((20.0, 0.0), (-20.0, 0.0), lucency=0.6, width_mm=2.0, shift_mm=(4.0, 0.0))
    after, lines = break_bone(bar, (0, 0), [one], pose)
    assert np.allclose(after[:30], bar[:30], atol=1e-3)
    assert np.allclose(after[50:, 39:49], 1.0, atol=1e-3) and np.allclose(after[50:, 30:38], 0.0, atol=1e-3)
    assert lines[39:41, 36:44].min() > 0.8 and lines[:35].max() < 1e-3
    still, _ = break_bone(bar, (0, 0), [Break((20, 0), (-20, 0), 0.6, 2.0)], pose)
    assert still[39:41, 40].mean() == pytest.approx(1 - 0.6 * 2 ** (-4 * (0.5 / 2.0) ** 2), abs=0.02)


def test_more_attenuation_is_brighter_and_more_photons_are_quieter():
    ramp = np.tile(np.linspace(0.0, 1.5, 160), (120, 1))
    field, none = np.ones((120, 160)), np.zeros((120, 160))
    quiet, loud = (
        expose(ramp, none, field, Technique(photons=n, heel=(0, 0)), np.random.default_rng(0)) for n in (1e5, 500)
    )
    assert (np.diff(quiet.mean(axis=0)[10:-20]) > -0.01).all() and quiet.min() >= 0 and quiet.max() <= 1
    assert loud[:, 80].std() > 4 * quiet[:, 80].std()


def test_textures_are_standardised_and_run_as_asked():
    field = draw_trabeculae((200, 180), np.random.default_rng(1), angle_deg=0.0, width_px=1.0, length_px=6.0)
    assert field.shape == (200, 180) and abs(field.mean()) < 1e-9 and field.std() == pytest.approx(1.0)
    # struts along the rows' axis change slowly downwards and fast to the right
    assert np.diff(field, axis=0).std() < 0.4 * np.diff(field, axis=1).std()
    slow = draw_clouds((90, 70), np.random.default_rng(1), size_px=12.0)
    assert slow.shape == (90, 70) and np.diff(slow, axis=0).std() < 0.35


def test_one_person_has_one_wrist():
    one, same, other = (grow_wrist(np.random.default_rng(s)) for s in (3, 3, 4))
    assert all(np.array_equal(a.outline, b.outline) for a, b in zip(one.bones, same.bones, strict=True))
    assert not np.allclose(one.bones[0].outline, other.bones[0].outline)


def test_a_plain_fracture_darkens_its_place_and_an_occult_one_does_not():
    """The same image drawn with and without the fracture, compared inside the fracture's box."""
    changes = {}
    for grade in ("plain", "subtle", "occult"):
        change = []
        for index in range(4):
            views = ("PA",)
            broken_one = Study(index, index, "fracture", "fracture", grade, "L", views, "train", False)
            sound_one = Study(index, index, "no fracture", "normal", "none", "L", views, "train", False)
            a, b = (draw_image(s, 1, anatomy="wrist", seed=1, size_px=256) for s in (broken_one, sound_one))
            assert a.fracture is not None and b.fracture is None
            top, left, bottom, right = (int(x) for x in a.fracture)
            part = (slice(top, bottom), slice(left, right))
            difference = (b.picture - a.picture)[part][b.bone[part]]
            change.append(float(np.quantile(difference, 0.95) / b.picture[part][b.bone[part]].mean()))
        changes[grade] = float(np.median(change))
    assert 0.1 < changes["plain"] < 0.6
    assert changes["occult"] < changes["subtle"] < changes["plain"]
    assert changes["subtle"] > 1.3 * changes["occult"]


@pytest.mark.slow
def test_the_audit_finds_the_marker_and_not_the_truth(tmp_path):
    from sightline.data.audit.audit import audit

    cohort = write_radiographs(tmp_path / "c", studies=24, shortcut=1.0, seed=3, size_px=160)
    findings = audit(cohort)
    assert not [f for f in findings if f.severity == "error"]
    assert any("phantom_marker" in f.message for f in findings)
    assert not any("truth_" in f.message for f in findings)


@pytest.fixture(scope="module")
def wide_femurs(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom") / "wide"
    return write_radiographs(root, anatomy="femur", studies=14, seed=4, size_px=256, femurs=FemurOptions(field="wide"))


def test_every_hip_has_one_square_of_the_same_kind_sound_ones_too(femurs, wide_femurs):
    for cohort, shares in ((femurs, (0.5, 0.85)), (wide_femurs, (0.28, 0.5))):
        for case in cohort:
            (square,) = [r for r in case.regions if r.tag.role == "finding"]
            sides = np.array(square.stop) - square.start
            assert isinstance(square, Box) and square.tag.label is None
            assert sides[0] == pytest.approx(sides[1], abs=2e-3)
            assert shares[0] < sides[0] / max(case.shape) < shares[1]
            assert min(square.start) >= 0 and (np.array(square.stop) <= case.shape).all()
        sides_mm = {c.label == "normal": [] for c in cohort}
        for case in cohort:
            (square,) = [r for r in case.regions if r.tag.role == "finding"]
            sides_mm[case.label == "normal"].append((square.stop[0] - square.start[0]) * case.spacing_mm[0])
        # the square's size does not tell the fractured from the sound
        assert abs(np.mean(sides_mm[True]) - np.mean(sides_mm[False])) < 8.0


def test_a_wide_field_is_a_cohort_of_its_own_and_read_back(wide_femurs):
    assert wide_femurs.about["field"] == "wide" and "ao shares" not in wide_femurs.about
    again = write_radiographs(
        wide_femurs.root, anatomy="femur", studies=14, seed=4, size_px=256, femurs=FemurOptions(field="wide")
    )
    assert again == wide_femurs
    with pytest.raises(LayoutError, match="another cohort"):
        write_radiographs(wide_femurs.root, anatomy="femur", studies=14, seed=4, size_px=256)


def test_fracture_lines_lie_in_the_square():
    """A crop that lost the fracture could not be told apart."""
    for name in FEMUR_CLASSES[1:]:
        for index in range(3):
            study = Study(index, index, name, name, "plain", "L", ("AP",), "train")
            drawn = draw_image(study, 1, anatomy="femur", seed=9, size_px=256, field="wide")
            top, left, bottom, right = drawn.region
            a, b, c, d = drawn.fracture
            shared = max(0.0, min(bottom, c) - max(top, a)) * max(0.0, min(right, d) - max(left, b))
            assert shared > 0.9 * (c - a) * (d - b), (name, index)


def test_a_line_that_ends_at_another_parts_one_fragment_only():
    pose = LimbPose((80, 80), 1.0, (0.0, 0.0))
    plate = np.ones((80, 80))
    # down the middle, but only above the horizontal line through the centre (to its right)
    one = Break((0, 40), (0, -40), 0.8, 3.0, beyond=((-40.0, 0.0), (40.0, 0.0)))
    after, lines = break_bone(plate, (0, 0), [one], pose)
    above, below = (after[10:36, 40], after[44:70, 40])
    halves = sorted([float(above.mean()), float(below.mean())])
    assert halves[0] < 0.4 and halves[1] == pytest.approx(1.0, abs=1e-3)
    assert lines.max() > 0.8 and min(lines[:36].max(), lines[44:].max()) < 1e-3
