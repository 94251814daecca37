"""`predict --as dicom` on CTs: vertebrae where they are in the patient."""

import csv

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from support.dicom_sources import radiograph
from support.dicom_tools import dciodvfy
from support.volumes import WORDS, tiny_spines, tiny_volume_recipe

from sightline.data.datasets.verse.centroids import write_centroids
from sightline.data.spine.vertebrae import LABELS, Vertebra
from sightline.dissection.results import Dissection, UnitRow, write_units
from sightline.errors import UnreadableFile
from sightline.explainers.localisation.protocols import MapBoxes
from sightline.inference.ct.dicom_results import _read_sources, place_labels, write_ct_results
from sightline.inference.ct.inputs import CtInput, read_vertebrae
from sightline.inference.ct.predict import CtOptions, predict_cts
from sightline.inference.ct.report import ReadVertebra
from sightline.inference.ct.units import digest_weights
from sightline.inference.dicom_results import ResultWords
from sightline.inference.file_result import DicomWish
from sightline.io.dicom.series import list_series_files, read_series
from sightline.io.dicom_results.objects import ObjectOptions
from sightline.io.dicom_results.results import Maker
from sightline.io.nifti import write_volume
from sightline.io.volume import Volume
from sightline.training.engine import Engine
from sightline.training.train import train

QUIET = Engine(device="cpu", quiet=True)
LEVELS = ("T12", "L1", "L2")
SHAPE = (44, 50, 14)
# pixels of 2 mm in slices of 6 mm; indices grow to the left, the back and the head, as a scanner's columns, rows and
# slices do
AFFINE = np.array([[-2.0, 0, 0, 40], [0, -2.0, 0, 50], [0, 0, 6.0, -60], [0, 0, 0, 1]])


def vertebrae():
    return tuple(Vertebra(LABELS[level], (22.0 - 2 * n, 24.0 - 3 * n, 11.0 - 4 * n)) for n, level in enumerate(LEVELS))


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A DICOM series of three bodies, their mask (on axes of its own) and centroids."""
    place = tmp_path_factory.mktemp("scan")
    values = np.random.default_rng(0).normal(0, 20, SHAPE).astype(np.int16)
    values[:4] = -1000
    mask = np.zeros(SHAPE, dtype=np.uint8)
    for one in vertebrae():
        i, j, k = (round(c) for c in one.centre)
        body = (slice(i - 7, i + 7), slice(j - 6, j + 6), slice(k - 2, k + 2))
        arch = (slice(i - 1, i + 1), slice(j + 6, j + 18), slice(k - 1, k + 1))
        for part in (body, arch):
            values[part], mask[part] = 500, one.label
    (place / "ct").mkdir()
    for k in range(SHAPE[2]):
        data = radiograph(SHAPE[1], SHAPE[0], SOPClassUID=CTImageStorage, Modality="CT", BodyPartExamined="LSPINE")
        del data.ViewPosition, data.PatientOrientation, data.Laterality
        data.SOPInstanceUID = f"1.2.826.0.7.{k + 1}"
        data.file_meta.MediaStorageSOPInstanceUID, data.file_meta.MediaStorageSOPClassUID = (
            data.SOPInstanceUID,
            CTImageStorage,
        )
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.ImageType, data.FrameOfReferenceUID, data.InstanceNumber = (
            ["ORIGINAL", "PRIMARY", "AXIAL"],
            "1.2.7.7",
            k + 1,
        )
        data.PositionReferenceIndicator, data.AcquisitionNumber, data.KVP = "", 1, "120"
        data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-40.0, -50.0, -60.0 + 6 * k]
        data.PixelSpacing, data.SliceThickness = [2.0, 2.0], 6.0
        data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 15, 1
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = "1", "0", "HU"
        data.PixelData = np.ascontiguousarray(values[:, :, k].T).tobytes()
        # names in another order than the slices
        data.save_as(place / "ct" / f"{(37 * k) % 97:02d}.dcm", enforce_file_format=True)
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    flip[1, 3], flip[2, 3] = SHAPE[1] - 1, SHAPE[2] - 1
    write_volume(place / "mask.nii.gz", mask[:, ::-1, ::-1], AFFINE @ flip)
    write_centroids(place / "ctd.json", vertebrae(), Volume(values, AFFINE).orientation)
    return place, mask


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    spines = tiny_spines(tmp_path_factory.mktemp("spines"))
    return train(tiny_volume_recipe(), spines, tmp_path_factory.mktemp("run") / "run", WORDS, QUIET)


# objects of a CT with a mask are those of test_vertebrae_that_are_called_are_segments, read as in test_ct.py
@pytest.fixture(scope="module", params=[pytest.param("mask", marks=pytest.mark.slow), "centroids"])
def predicted(run, scan, tmp_path_factory, request):
    place, _ = scan
    out = tmp_path_factory.mktemp("out")
    given = {"vertebrae": (place / "mask.nii.gz",)} if request.param == "mask" else {"centroids": (place / "ctd.json",)}
    assert predict_cts(run, [place / "ct"], out, CtOptions(**given), QUIET, DicomWish()) == (1, 0)
    return out, request.param


def test_files_of_a_series_come_in_its_order(scan):
    place, _ = scan
    files = list_series_files(place / "ct")
    heights = [pydicom.dcmread(file).ImagePositionPatient[2] for file in files]
    assert heights == sorted(heights) and len(files) == SHAPE[2]


def test_slices_under_one_uid_have_no_results(scan, tmp_path):
    place, _ = scan
    for file in sorted((place / "ct").iterdir())[:2]:
        data = pydicom.dcmread(file)
        data.SOPInstanceUID = "1.2.3"
        number = 6 * (len(list(tmp_path.iterdir())) + 1)
        data.ImagePositionPatient = [-40.0, -50.0, float(number)]
        data.save_as(tmp_path / file.name)
    with pytest.raises(UnreadableFile, match="the same SOPInstanceUID"):
        _read_sources(CtInput(tmp_path, "ct"))


def test_labels_are_laid_on_the_voxels_of_the_ct(scan):
    from sightline.io.nifti import read_volume

    place, mask = scan
    ct = read_series(place / "ct")
    assert np.array_equal(place_labels(read_volume(place / "mask.nii.gz", labels=True), ct), mask)
    coarse = Volume(np.ones((2, 2, 2), np.uint8), np.diag([1.0, 1.0, 1.0, 1.0]))
    assert place_labels(coarse, ct).sum() == 1, "voxels outside the mask are none"
    strange = Volume(np.full((2, 2, 2), 276, np.uint16), np.eye(4))
    assert place_labels(strange, ct).max() == 276, "and none becomes 20, which is L1"


def test_vertebrae_are_where_they_are_in_the_patient(predicted):
    out, given = predicted
    rows = {row["vertebra"]: row for row in csv.DictReader((out / "predictions.csv").open())}
    made = [pydicom.dcmread(path) for path in sorted((out / "dicom").rglob("*.dcm"))]
    for path in (out / "dicom").rglob("*.dcm"):
        assert dciodvfy(path).errors == (), path.name
    kinds = [one.SeriesDescription.rpartition(", ")[2] for one in made]
    assert {"FINDINGS", "MARKS", "PICTURE"} <= set(kinds)
    (findings,) = [one for one, kind in zip(made, kinds, strict=True) if kind == "FINDINGS"]
    groups = hd.sr.Comprehensive3DSR.from_dataset(findings).content.get_image_measurement_groups()
    for group in groups:
        level = group.finding_sites[0].value.meaning.removesuffix(" vertebra")
        assert group.get_measurements()[0].value == pytest.approx(100 * float(rows[level]["probability"]), abs=1e-2)
    (marks,) = [one for one, kind in zip(made, kinds, strict=True) if kind == "MARKS"]
    content = hd.sr.Comprehensive3DSR.from_dataset(marks).content
    for group in content.get_planar_roi_measurement_groups():
        row = rows[group.finding_sites[0].value.meaning.removesuffix(" vertebra")]
        right, front, head = (float(row[name]) for name in ("x_mm", "y_mm", "z_mm"))
        assert np.allclose(group.roi.value[0], (-right, -front, head), atol=0.01)
    assert bool([kind for kind in kinds if kind == "REGIONS"]) == (given == "mask" and any_called(findings))


def any_called(findings):
    return any(e.value == "52101004" for e in findings.iterall() if e.keyword == "CodeValue")


def test_vertebrae_that_are_called_are_segments(scan, tmp_path):
    place, mask = scan
    given = CtInput(place / "ct", "ct", vertebrae=place / "mask.nii.gz")
    placed = read_vertebrae(given)
    levels = [one.level for one in placed.vertebrae]
    assert sorted(levels) == sorted(LEVELS)
    read = [
        ReadVertebra(one, 0.9, "fracture", n != 1, 0.0, finding="fracture") for n, one in enumerate(placed.vertebrae)
    ]
    words = ResultWords(("no fracture", "fracture"), Maker("m", "r", "w", "v"), MapBoxes())
    paths = write_ct_results(words, given, placed, read, tmp_path, ObjectOptions(("findings", "marks", "regions")))
    for path in paths:
        assert dciodvfy(path).errors == (), path.name
    segments = hd.seg.segread(next(path for path in paths if path.name.startswith("regions")))
    slices = [f"1.2.826.0.7.{k + 1}" for k in range(SHAPE[2])]
    drawn = segments.get_pixels_by_source_instance(slices, assert_missing_frames_are_empty=True)
    assert segments.number_of_segments == 2
    for n, level in enumerate((levels[0], levels[2])):
        assert segments.get_segment_description(n + 1).segment_label.startswith(level)
        assert np.array_equal(drawn[..., n].astype(bool), (mask == LABELS[level]).transpose(2, 1, 0))


def test_a_nifti_file_is_rejected_with_a_remedy(run, scan, tmp_path):
    place, _ = scan
    write_volume(tmp_path / "a_ct.nii.gz", np.zeros(SHAPE, np.int16), AFFINE)
    options = CtOptions(vertebrae=(place / "mask.nii.gz",))
    assert predict_cts(run, [tmp_path / "a_ct.nii.gz"], tmp_path / "out", options, QUIET, DicomWish()) == (0, 1)
    (row,) = csv.DictReader((tmp_path / "out" / "rejects.csv").open())
    assert "not a DICOM file" in row["reason"] and "--as" in row["remedy"]


def test_a_ct_without_results_has_no_rows(run, scan, tmp_path):
    place, _ = scan
    options, out = CtOptions((place / "ctd.json",), panels="none"), tmp_path / "out"
    assert predict_cts(run, [place / "ct"], out, options, QUIET, DicomWish(("findings",))) == (1, 0)
    assert len(list((out / "dicom").rglob("*.dcm"))) == 1
    for file in (place / "ct").iterdir():
        data = pydicom.dcmread(file)
        del data.FrameOfReferenceUID
        (tmp_path / "ct").mkdir(exist_ok=True)
        data.save_as(tmp_path / "ct" / file.name)
    assert predict_cts(run, [tmp_path / "ct"], out, options, QUIET, DicomWish(("findings",))) == (0, 1)
    assert "FrameOfReferenceUID" in (out / "rejects.csv").read_text()
    assert len((out / "predictions.csv").read_text().splitlines()) == 1
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["dicom"]
    assert not list((out / "dicom").rglob("*.dcm"))


def test_maps_are_written_with_a_dissection_too(run, scan, tmp_path):
    place, _ = scan
    rows = tuple(UnitRow(n, 0.0, False, 0.9 - n / 10, 0.5, 0.01, n + 1, 10, 1) for n in range(6))
    about = {"weights": digest_weights(run)}
    write_units(tmp_path, Dissection(tmp_path, "features", "fractured", "positives", rows, about))
    made = []
    for dissection in (None, tmp_path):
        options = CtOptions((place / "ctd.json",), dissection=dissection, panels="none")
        out = tmp_path / f"out{len(made)}"
        predict_cts(run, [place / "ct"], out, options, QUIET, DicomWish(("findings", "map")))
        made.append(sorted(path.name for path in (out / "dicom").rglob("*.dcm")))
    assert made[0] == made[1] and len(made[0]) == 1 + len(LEVELS)
