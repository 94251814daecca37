"""EGD-CXR: a tiny tree in the published layout with every trap of the real one, and what must come of it."""

import csv

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from sightline import cli
from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.gaze import egd_cxr
from sightline.data.datasets.gaze.egd_cxr_tables import read_gaze, read_master
from sightline.errors import LayoutError, SightlineError
from sightline.structures.gaze import Gaze
from sightline.structures.regions import Box, Mask

SHAPE = (100, 80)
# fitted to 1920 x 1080: 864 columns of screen, 528 grey on either side
PADS = (0, 0, 528, 528)
COLUMNS = (
    "SESSION_ID", "MEDIA_ID", "DICOM_ID", "CNT", "Time (in secs)", "TIMETICK(f=10000000)", "FPOGX", "FPOGY", "FPOGS",
    "FPOGD", "FPOGID", "FPOGV", "X_ORIGINAL", "Y_ORIGINAL",
)  # fmt: skip


def id_of(n):
    return f"{n:08x}-0000000a-0000000b-0000000c-{n:08x}"


def write_dicom(path, shape=SHAPE):
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPInstanceUID = ExplicitVRLittleEndian, "9.9"
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    data = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = ComputedRadiographyImageStorage, "9.9", "CR"
    data.Rows, data.Columns = shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelData = np.arange(shape[0] * shape[1], dtype=np.uint16).tobytes()
    data.save_as(path, enforce_file_format=True)


def gaze_row(dicom_id, place, seconds, *, session="1", valid=1, fpogd=0.25, original=None, pads=PADS):
    """A row that looks at (row, column) of the image; X_ORIGINAL as the publishers computed it."""
    top, bottom, left, right = pads
    x = (left + place[1] / SHAPE[1] * (1920 - left - right)) / 1920
    y = (top + place[0] / SHAPE[0] * (1080 - top - bottom)) / 1080
    inside = 0 < place[0] < SHAPE[0] and 0 < place[1] < SHAPE[1]
    original = original or ((int(place[1]), int(place[0])) if inside else (-1, -1))
    return dict(
        zip(
            COLUMNS,
            (session, "0", dicom_id, 0, seconds, 0, x, y, seconds, fpogd, 1, valid, *original),
            strict=True,
        )
    )


def write_rows(path, columns, rows, encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def record(n, label, *, pad="_pad", marks=None, patient=None):
    marks = marks if marks is not None else (label,)
    patient = patient or f"1{n:07d}"
    sides = dict(zip((f"image_{s}{pad}" for s in ("top", "bottom", "left", "right")), PADS, strict=True))
    return {
        "dicom_id": id_of(n), "path": f"files/p{patient[:2]}/p{patient}/s5{n:07d}/{id_of(n)}.dcm",
        "study_id": f"5{n:07d}", "patient_id": patient, "gender": "F", "anchor_age": "60 - 70", **sides,
        **{name: int(name in marks) for name in ("Normal", "CHF", "pneumonia")},
        "cxr_exam_indication": 'EXAM:  CHEST\n\nINDICATION:\n "cough", fever',
    }  # fmt: skip


LABELS = ("Normal", "CHF", "pneumonia") * 4


def write_tree(root, *, pad="_pad", rows=None, records=None, images=True):
    """Twelve images of twelve patients, three looked-at places each; one calibration picture; every other trap."""
    root.mkdir(parents=True)
    records = records or [record(n, label, pad=pad) for n, label in enumerate(LABELS)]
    write_rows(root / "master_sheet.csv", tuple(records[0]), records)
    if rows is None:
        rows = []
        for n in range(len(records)):
            session = "1" if n < 6 else "2"
            shown = id_of(n).upper() if session == "2" else id_of(n)
            # the clock runs on from image to image
            rows += [gaze_row(shown, (10.0 + n + i, 40.0), 100.0 * n + i / 60, session=session) for i in range(3)]
            rows.append(gaze_row(shown, (50.0, -7.0), 100.0 * n + 3 / 60, session=session))
            rows.append(gaze_row(shown, (50.0, 40.0), 100.0 * n + 4 / 60, session=session, valid=0))
            if n == 4:
                for i, at in enumerate(((20.0, 20.0), (60.0, 48.0))):
                    rows.append(gaze_row(id_of(n)[:-5], at, 450.0 + i, session=session, original=(0, 0)))
    write_rows(root / "eye_gaze.csv", COLUMNS, rows)
    write_rows(root / "fixations.csv", COLUMNS, [r for r in rows if r["FPOGV"] == 1])
    boxes = [
        {"dicom_id": r["dicom_id"], "bbox_name": name, "x1": 20 + k, "x2": 60 + k, "y1": 45, "y2": 85}
        for r in records
        for k, name in enumerate(("cardiac silhouette", "left lung"))
    ]
    write_rows(root / "bounding_boxes.csv", ("dicom_id", "bbox_name", "x1", "x2", "y1", "y2"), boxes)
    for r in records:
        place = root / "audio_segmentation_transcripts" / r["dicom_id"]
        place.mkdir(parents=True)
        for k, name in enumerate(("left_lung", "right_lung", "mediastanum", "aortic_knob")):
            mask = np.zeros(SHAPE, np.uint8)
            mask[10 * k : 10 * k + 20, 10:30] = 255
            Image.fromarray(mask).save(place / f"{name}.png")
        if images:
            write_dicom(root / r["path"])
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("egd") / "egd")


@pytest.fixture(scope="module")
def cohort(tree):
    return egd_cxr.read(tree)


def gaze_in(case):
    (only,) = [r for r in case.regions if isinstance(r, Gaze)]
    return only


def test_newlines_in_quoted_cells_are_no_records(tree):
    records, lines = read_master(tree / "master_sheet.csv", egd_cxr.CLASSES)
    assert len(records) == 12
    assert lines == 12 * 4


def test_images_labels_patients_and_splits(cohort):
    assert cohort.classes == ("Normal", "CHF", "pneumonia")
    assert [case.label for case in cohort] == list(LABELS)
    assert cohort[3].patient_id == "10000003" and cohort[3].study_id == "50000003" and cohort[3].shape == SHAPE
    assert {case.split for case in cohort} == {"train", "val", "test"}
    assert cohort[0].facts == {"gender": "F", "anchor_age": "60 - 70"}


def test_every_place_is_where_it_was_looked_at(cohort):
    for n, case in enumerate(cohort):
        gaze = gaze_in(case)
        # off the image, closed lids and the calibration picture are gone; the last of a session is not
        assert np.allclose(gaze.places, [[10.0 + n + i, 40.0] for i in range(3)], atol=1e-9)
        assert np.allclose(gaze.start_s, np.arange(3) / 60)
        assert np.allclose(gaze.dwell_s, 1 / 60, atol=1e-6)
        assert gaze.tag.role == "gaze" and gaze.kind == "samples" and gaze.px_per_deg is None
        assert gaze.spread_px == pytest.approx(75 * 100 / 3056)


def test_what_was_dropped_is_counted(cohort):
    assert cohort.about["counts"] == "records 12, lines of the master sheet 48"
    assert cohort.about["samples"] == "read 62, calibration 2, unknown id 0, invalid 12, off image 12, kept 36"
    assert cohort.about["calibration pictures"].startswith("1 ids")


def test_organs_speak_for_their_class(cohort):
    masks = [r for r in cohort[0].regions if isinstance(r, Mask)]
    assert [(m.source.stem, m.tag.role, m.tag.label) for m in masks] == [
        ("left_lung", "organ", "pneumonia"),
        ("right_lung", "organ", "pneumonia"),
        ("aortic_knob", "organ", None),
        ("mediastanum", "organ", "CHF"),
    ]


def test_the_heart_may_be_the_silhouette_with_its_odd_order_of_columns(tree):
    case = egd_cxr.read(tree, egd_cxr.Options(heart="cardiac_silhouette"))[0]
    (box,) = [r for r in case.regions if isinstance(r, Box)]
    assert (box.start, box.stop, box.tag.label) == ((45.0, 20.0), (85.0, 60.0), "CHF")
    assert "mediastanum" not in [r.source.stem for r in case.regions if isinstance(r, Mask)]


def test_fixations_last_as_long_as_they_say(tree):
    gaze = gaze_in(egd_cxr.read(tree, egd_cxr.Options(gaze="fixations"))[2])
    assert gaze.kind == "fixations" and len(gaze) == 3
    assert np.allclose(gaze.dwell_s, 0.25)


def test_older_spelling_of_the_pads(tmp_path, cohort):
    older = egd_cxr.read(write_tree(tmp_path / "egd", pad=""))
    assert [gaze_in(a) == gaze_in(b) for a, b in zip(older, cohort, strict=True)] == [True] * 12


def test_chunks_do_not_matter(tree, cohort, monkeypatch):
    monkeypatch.setattr("sightline.data.datasets.gaze.egd_cxr_tables.CHUNK_ROWS", 7)
    again = egd_cxr.read(tree)
    assert [case.regions for case in again] == [case.regions for case in cohort]
    assert again.about == cohort.about


def test_a_prefix_is_never_matched(tree):
    records = {r.dicom_id: r for r in read_master(tree / "master_sheet.csv", egd_cxr.CLASSES)[0]}
    gazes = read_gaze(tree / "eye_gaze.csv", records, dict.fromkeys(records, SHAPE), "samples")
    assert gazes.calibration_ids == {id_of(4)[:-5]}
    assert len(gazes.places[id_of(4)]) == 3


def test_drift_is_what_the_last_look_at_the_dot_says(tree, cohort):
    corrected = egd_cxr.read(tree, egd_cxr.Options(correct_drift=True))
    # session 1 looked at (60, 48) when the dot was in the middle, (50, 40); session 2 has no calibration picture
    moved = gaze_in(corrected[3]).places - gaze_in(cohort[3]).places
    assert np.allclose(moved, [-10.0, -8.0])
    assert np.allclose(gaze_in(corrected[7]).places, gaze_in(cohort[7]).places)


def test_degrees_follow_from_the_screen_and_each_image(tree):
    case = egd_cxr.read(tree, egd_cxr.Options(screen_width_mm=531.0, distance_mm=650.0))[0]
    # a degree is 11.345 mm at 650 mm; 1920 pixels on 531 mm; 864 of them show 80 columns
    assert gaze_in(case).px_per_deg == pytest.approx(11.345 * 1920 / 531 * 80 / 864, rel=1e-4)
    with pytest.raises(SightlineError, match="both"):
        egd_cxr.read(tree, egd_cxr.Options(distance_mm=650.0))
    with pytest.raises(SightlineError, match="millimetres"):
        egd_cxr.read(tree, egd_cxr.Options(distance_mm=0.65, screen_width_mm=531.0))


def test_id_list_with_byte_order_mark(tree, tmp_path):
    ids = [id_of(n) for n in range(9)]
    listed = tmp_path / "filenames.csv"
    listed.write_text("\ufeff,filename\n" + "".join(f"{n},{i}\n" for n, i in enumerate(ids)), encoding="utf-8")
    kept = egd_cxr.read(tree, egd_cxr.Options(id_list=listed))
    assert [case.case_id for case in kept] == ids
    assert "not on the id list 3" in kept.about["counts"]
    # an image off the list does not turn its gaze into a calibration picture
    assert "unknown id 0" in kept.about["samples"]
    listed.write_text("filename\nnobody\n", encoding="utf-8")
    with pytest.raises(LayoutError, match="1 id that the master sheet has not"):
        egd_cxr.read(tree, egd_cxr.Options(id_list=listed))


def test_images_may_lie_flat_and_be_pictures(tree, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for n in range(11):
        if n % 2:
            Image.fromarray(np.zeros(SHAPE, np.uint8)).save(flat / f"{id_of(n).upper()}.png")
        else:
            write_dicom(flat / f"{id_of(n)}.dcm")
    found = egd_cxr.read(tree, egd_cxr.Options(images=flat))
    assert len(found) == 11 and "image missing 1" in found.about["counts"]
    exported = tmp_path / "jpg"
    for n in range(12):
        path = exported / f"files/p10/p1000{n:04d}/s5000{n:04d}" / f"{id_of(n)}.jpg"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.zeros(SHAPE, np.uint8)).save(path)
    assert [case.image.suffix for case in egd_cxr.read(tree, egd_cxr.Options(images=exported))] == [".jpg"] * 12
    with pytest.raises(LayoutError, match="None of 12 images"):
        egd_cxr.read(tree, egd_cxr.Options(images=tmp_path / "nowhere"))


def test_resized_images_are_refused(tree, tmp_path):
    for n in range(12):
        Image.fromarray(np.zeros((50, 40), np.uint8)).save(tmp_path / f"{id_of(n)}.png")
    with pytest.raises(LayoutError, match="X_ORIGINAL"):
        egd_cxr.read(tree, egd_cxr.Options(images=tmp_path))


def test_none_or_several_classes_are_left_out_and_counted(tmp_path):
    records = [record(n, label) for n, label in enumerate(LABELS)]
    records[0] |= {"Normal": 0}
    records[1] |= {"pneumonia": 1}
    cohort = egd_cxr.read(write_tree(tmp_path / "egd", records=records))
    assert len(cohort) == 10 and "no class, or several 2" in cohort.about["counts"]


def test_broken_masks_are_left_out_and_counted(tmp_path):
    tree = write_tree(tmp_path / "egd")
    place = tree / "audio_segmentation_transcripts"
    (place / id_of(0) / "left_lung.png").write_bytes(b"\x89PNG\r\n\x1a\nhalf")
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(place / id_of(1) / "left_lung.png")
    Image.fromarray(np.full((10, 8), 255, np.uint8)).save(place / id_of(2) / "left_lung.png")
    (place / id_of(3) / "left_lung.png").unlink()
    counts = egd_cxr.read(tree).about["counts"]
    for what in ("mask that does not decode 1", "empty mask 1", "mask of another size 1", "one lung alone 4"):
        assert what in counts


def edited(tree, tmp_path, name, change):
    """A copy of one table among links to the rest."""
    other = tmp_path / "edited"
    other.mkdir()
    for entry in tree.iterdir():
        if entry.name != name:
            (other / entry.name).symlink_to(entry)
    text = change((tree / name).read_text(encoding="utf-8"))
    if text is not None:
        (other / name).write_text(text, encoding="utf-8")
    return other


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("master_sheet.csv", lambda t: None, "master_sheet.csv does not exist"),
        ("eye_gaze.csv", lambda t: None, "eye_gaze.csv does not exist"),
        ("eye_gaze.csv", lambda t: "", "does not parse"),
        ("eye_gaze.csv", lambda t: t.replace("FPOGX", "GPX"), "no column FPOGX"),
        ("eye_gaze.csv", lambda t: t.replace(",0.0,0,", ",soon,0,", 1), "does not parse"),
        ("eye_gaze.csv", lambda t: t.replace(",0.0,0,", ",,0,", 1), "have no Time"),
        ("eye_gaze.csv", lambda t: t[: len(t) - 9], "breaks off"),
        ("eye_gaze.csv", lambda t: t.replace(",0.0,0,", ",inf,0,", 1), "have no Time"),
        ("master_sheet.csv", lambda t: t.replace(",1,0,0,", ",yes,0,0,", 1), "record 1: Normal is 'yes', expected 1"),
        ("master_sheet.csv", lambda t: t.replace("pneumonia", "pneumo"), "no column pneumonia"),
        ("master_sheet.csv", lambda t: t.replace("image_left_pad", "left"), "image_top_pad"),
        ("master_sheet.csv", lambda t: t.replace("528,528", "wide,528", 1), "record 1: the pads"),
        ("master_sheet.csv", lambda t: t.replace("528,528", "1528,528", 1), "leave no image"),
        ("master_sheet.csv", lambda t: t.replace(id_of(1), id_of(0)), "twice"),
        ("master_sheet.csv", lambda t: t[: len(t) - 8], "does not parse"),
        ("master_sheet.csv", lambda t: t.replace(",10000000,F", ",,F", 1), "record 1: patient_id is empty"),
    ],
)
def test_what_is_missing_or_half_there_is_refused(tree, tmp_path, name, change, match):
    with pytest.raises(SightlineError, match=match):
        egd_cxr.read(edited(tree, tmp_path, name, change))


@pytest.mark.parametrize("cell", ["top", "nan", "inf", '"4,5"'])
def test_a_box_table_that_is_no_table_is_refused(tree, tmp_path, cell):
    other = edited(tree, tmp_path, "bounding_boxes.csv", lambda t: t.replace(",45,", f",{cell},", 1))
    with pytest.raises(LayoutError, match="no number"):
        egd_cxr.read(other, egd_cxr.Options(heart="cardiac_silhouette"))


ID = f"{id_of(0)},"  # as a cell: in a path it has a suffix


def with_commas(text):
    head, *lines = text.split("\n")
    return "\n".join([head, *(f"{line}," if line.count(",") > 9 else line for line in lines)])


@pytest.mark.parametrize("name", ["master_sheet.csv", "eye_gaze.csv"])
@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.replace(ID, ID.replace("-", "\u2011")),  # as a word processor writes it
        lambda t: t.replace(ID, f"{ID[:4]}\u200b{ID[4:]}"),
        lambda t: t.replace(ID, ID.upper()),
        lambda t: with_commas(t) if t.startswith("SESSION") else t,
    ],
)
def test_ids_and_rows_as_other_programs_write_them(tree, cohort, tmp_path, name, change):
    again = egd_cxr.read(edited(tree, tmp_path, name, change))
    assert [case.case_id for case in again] == [case.case_id for case in cohort]
    assert gaze_in(again[0]) == gaze_in(cohort[0])


def test_a_table_of_gaze_in_utf16_and_semicolons_is_read(tree, cohort, tmp_path):
    other = edited(tree, tmp_path, "eye_gaze.csv", lambda t: None)
    (other / "eye_gaze.csv").write_bytes((tree / "eye_gaze.csv").read_text().replace(",", ";").encode("utf-16"))
    assert gaze_in(egd_cxr.read(other)[0]) == gaze_in(cohort[0])


def test_imported_from_the_command_line_and_read_back(tree, tmp_path, capsys):
    words = ["cohort", "import", "egd_cxr", str(tree), str(tmp_path / "out"), "--gaze", "fixations"]
    words += ["--screen-width-mm", "531", "--distance-mm", "650", "--heart", "cardiac_silhouette"]
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 0
    assert "kept 36" in capsys.readouterr().err
    back = read_cohort(tmp_path / "out")
    direct = egd_cxr.read(
        tree, egd_cxr.Options(gaze="fixations", screen_width_mm=531.0, distance_mm=650.0, heart="cardiac_silhouette")
    )
    assert [gaze_in(a) == gaze_in(b) for a, b in zip(back, direct, strict=True)] == [True] * 12


def test_the_phantom_says_the_same_as_its_truth(tmp_path, monkeypatch):
    from sightline.data.phantoms.chest import egd_cxr_layout as chest_layout

    monkeypatch.setattr(chest_layout, "CALIBRATION_EVERY", 4)
    monkeypatch.setattr(chest_layout, "SESSION_IMAGES", 3)
    truth = chest_layout.write_chests(tmp_path / "phantom", images=6, shape=(120, 100), seed=3)
    assert truth["calibration_rows"] > 0
    cohort = egd_cxr.read(tmp_path / "phantom", egd_cxr.Options(fractions=(1.0, 0.0, 0.0)))
    assert [case.case_id for case in cohort] == list(truth["images"])
    assert f"calibration {truth['calibration_rows']}," in cohort.about["samples"]
    for case in cohort:
        # the table has five digits of the screen: a place on the very edge may fall to either side
        assert abs(len(gaze_in(case)) - truth["images"][case.case_id]["valid_inside"]) <= 1


@pytest.mark.parametrize("kind", ["samples", "fixations"])
def test_times_in_milliseconds_are_refused(tree, tmp_path, kind):
    """Taken for seconds they would make a look of 16 s of every sample."""
    records = {r.dicom_id: r for r in read_master(tree / "master_sheet.csv", egd_cxr.CLASSES)[0]}
    for name, unit in (("ms", 1000.0), ("s", 1.0)):
        rows = [gaze_row(id_of(0), (10.0 + i, 40.0), unit * i / 60, fpogd=0.25 * unit) for i in range(12)]
        write_rows(tmp_path / f"{name}.csv", COLUMNS, rows)
    wanted = {id_of(0): SHAPE}
    with pytest.raises(LayoutError, match=rf"ms\.csv: {kind} last \d+(\.\d+)? s \(the median\)"):
        read_gaze(tmp_path / "ms.csv", records, wanted, kind)
    assert len(read_gaze(tmp_path / "s.csv", records, wanted, kind).places[id_of(0)]) == 12
