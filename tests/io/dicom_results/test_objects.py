"""Every kind of object from every kind of source: no error for dciodvfy, and the same values when read back."""

import re
import subprocess
import sys
import time
from dataclasses import replace

import highdicom as hd
import numpy as np
import pydicom
import pytest
from support.dicom_sources import BROKEN, CHARACTER_SETS, radiograph, whole_result
from support.dicom_tools import dciodvfy, dcmpschk

from sightline.errors import LayoutError, UnreadableFile
from sightline.io.dicom_results.codes import PRESENCE
from sightline.io.dicom_results.header import build_source_image
from sightline.io.dicom_results.identity import RESEARCH, encode_dicom, is_own_result
from sightline.io.dicom_results.objects import ObjectOptions, make_objects, write_objects
from sightline.io.dicom_results.results import KINDS, ImageResult, StudyResult

# what dciodvfy of 2022 remarks on although it is right: the source's empty laterality, the private scheme of classes
# that no table names, and a term of the standard that it does not know yet
KNOWN_WARNINGS = (
    r"</Laterality\(0020,0060\)> - is only permitted to be empty when actually unknown",
    r"Unrecognized defined term = <99SIGHTLINE>",
    r"CodingSchemeUID\(0008,010c\)\[1\]> - Unrecognized defined term = <2\.25\.",
    r"(ImageType|FrameType)\([0-9,]+\)\[4\]> - Unrecognized defined term = <QUANTITY>",
)


def judged(objects, folder):
    """Files of objects, each without an error and with no warning but the known ones."""
    paths = write_objects(objects, folder)
    for path in paths:
        verdict = dciodvfy(path)
        assert verdict.errors == (), (path.name, verdict.errors)
        strange = [w for w in verdict.warnings if not any(re.search(known, w) for known in KNOWN_WARNINGS)]
        assert strange == [], (path.name, strange)
    return {path.name.split("_")[0]: path for path in paths}


def objects_of(dataset, **options):
    return make_objects(whole_result(build_source_image(dataset), **options))


def test_every_kind_of_a_radiograph(tmp_path):
    paths = judged(objects_of(radiograph(), labels=("fracture", "cyst")), tmp_path)
    assert set(paths) == set(KINDS)
    assert dcmpschk(paths["states"])
    for path in paths.values():
        made = pydicom.dcmread(path)
        assert made.SeriesDescription.startswith(RESEARCH) and is_own_result(made)
        assert made.StudyInstanceUID == "1.2.826.0.1.1.1" and made.PatientID == "P1"
        assert "not for diagnosis" in str(made).lower()


INVERTED = {"PhotometricInterpretation": "MONOCHROME1", "PixelSpacing": None}


# each size and each change once in `make test`, 15 million pixels once at all
@pytest.mark.parametrize(
    ("size", "changes"),
    [
        ((1, 1), {}),
        ((3, 2), INVERTED),
        ((3000, 5000), {}),
        *(pytest.param(size, {}, marks=pytest.mark.slow) for size in ((1, 7), (3, 2), (513, 40))),
        *(pytest.param(size, INVERTED, marks=pytest.mark.slow) for size in ((1, 1), (1, 7), (513, 40))),
    ],
)
def test_sizes(size, changes, tmp_path):
    objects = objects_of(radiograph(*size, **changes), picture=size[0] < 1000)
    paths = judged(objects, tmp_path)
    assert dcmpschk(paths["states"])
    if changes:
        words = " ".join(e.value for e in pydicom.dcmread(paths["findings"]).iterall() if e.keyword == "TextValue")
        assert "1 mm was assumed" in words
        assert pydicom.dcmread(paths["states"]).PresentationLUTShape == "INVERSE"


ALONE = [pytest.param((keyword,), marks=pytest.mark.slow, id=keyword) for keyword in sorted(BROKEN)]


@pytest.mark.parametrize("how", ["absent", "empty", "broken"])
@pytest.mark.parametrize("keywords", [pytest.param(tuple(sorted(BROKEN)), id="all"), *ALONE])
def test_headers_that_lack_or_break_attributes(keywords, how, tmp_path):
    with pydicom.config.disable_value_validation():
        dataset = radiograph(**{k: {"absent": None, "empty": "", "broken": BROKEN[k]}[how] for k in keywords})
        source = build_source_image(dataset)
        objects = make_objects(whole_result(source))
        paths = write_objects(objects, tmp_path)
    # what names a patient and an order is kept, or the result could not be filed
    kept = {k: BROKEN[k] for k in keywords if k in ("PatientID", "AccessionNumber") and how == "broken"}
    assert paths
    for path in paths:
        wrong = [e for e in dciodvfy(path).errors if not any(keyword in e for keyword in kept)]
        assert wrong == [], path.name
        with pydicom.config.disable_value_validation():
            made = pydicom.dcmread(path)
            assert {k: str(made.get(k) or "") for k in keywords} == {k: kept.get(k, "") for k in keywords}, path.name
    for keyword in keywords:
        assert any(keyword in note for note in source.notes) == (how == "broken"), keyword
        assert not any(BROKEN[keyword] in note for note in source.notes)


@pytest.mark.parametrize("name", sorted(CHARACTER_SETS))
def test_character_sets(name, tmp_path):
    charset, patient = CHARACTER_SETS[name]
    dataset = radiograph(PatientName=patient, StudyDescription=patient.split("=")[-1].replace("^", " "))
    if charset is None:
        del dataset.SpecificCharacterSet
    else:
        dataset.SpecificCharacterSet = charset
    dataset.save_as(tmp_path / "source.dcm", enforce_file_format=True)
    read = pydicom.dcmread(tmp_path / "source.dcm")
    paths = judged(objects_of(read), tmp_path / "out")
    for path in paths.values():
        made = pydicom.dcmread(path)
        assert str(made.PatientName) == patient and made.SpecificCharacterSet == "ISO_IR 192"


def test_read_back_by_value(tmp_path):
    source = build_source_image(radiograph(211, 173, PixelSpacing=[0.143, 0.2]))
    result = whole_result(source, labels=("fracture", "cyst"))
    image = result.images[0]
    paths = judged(make_objects(result), tmp_path)
    groups = hd.sr.srread(paths["findings"]).content.get_image_measurement_groups()
    shares = {group.finding_type.meaning: group.get_measurements()[0].value for group in groups}
    assert shares == pytest.approx({s.label: 100 * s.probability for s in image.said}, abs=1e-2)
    presence = hd.sr.CodedConcept(*PRESENCE)
    states = [group.get_qualitative_evaluations(presence)[0].value.meaning for group in groups]
    assert states == ["Present", "Absent"]
    marks = hd.sr.srread(paths["marks"]).content.get_planar_roi_measurement_groups()
    for mark, box in zip(marks, image.boxes, strict=True):
        corners = mark.roi.value
        top, left, bottom, right = box.corners
        assert np.allclose(corners.min(axis=0), (left, top), atol=1e-3)
        assert np.allclose(corners.max(axis=0), (right, bottom), atol=1e-3)
        assert mark.get_measurements()[0].value == pytest.approx(100 * box.score, abs=1e-2)
    segments = hd.seg.segread(paths["regions"])
    drawn = segments.get_pixels_by_source_instance([source.uid], ignore_spatial_locations=True)[0]
    for n, region in enumerate(image.regions):
        assert np.array_equal(drawn[..., n].astype(bool), region.mask)
    found = pydicom.dcmread(paths["map"])
    assert np.array_equal(found.pixel_array, image.map.values)
    assert found.FrameOfReferenceUID == segments.FrameOfReferenceUID
    assert np.array_equal(pydicom.dcmread(paths["picture"]).pixel_array, image.picture)
    state = pydicom.dcmread(paths["states"])
    line = np.array(state.GraphicAnnotationSequence[0].GraphicObjectSequence[0].GraphicData).reshape(-1, 2)
    top, left, bottom, right = image.boxes[0].corners
    assert np.allclose(line.min(axis=0), (left, top), atol=1e-3)
    assert np.allclose(line.max(axis=0), (right, bottom), atol=1e-3)


def test_the_same_findings_have_the_same_tracking_uids(tmp_path):
    paths = judged(objects_of(radiograph(), labels=("fracture", "cyst")), tmp_path)
    found = {
        kind: {
            str(e.value)
            for e in pydicom.dcmread(paths[kind]).iterall()
            if e.keyword in ("TrackingUID",) or (e.keyword == "UID" and e.VR == "UI")
        }
        for kind in ("findings", "marks", "regions")
    }
    assert len(found["regions"]) == 2
    assert found["regions"] <= found["findings"] and found["regions"] <= found["marks"]


def test_the_two_reports_name_each_other_and_what_was_drawn(tmp_path):
    objects = objects_of(radiograph())
    for report in objects[:2]:
        evidence = {
            str(item.ReferencedSOPInstanceUID)
            for study in report.CurrentRequestedProcedureEvidenceSequence
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }
        others = {str(o.SOPInstanceUID) for o in objects if o is not report}
        assert evidence == others | {"1.2.826.0.1.1.3"}


PROGRAM = """
import sys
from pathlib import Path
from support.dicom_sources import radiograph, whole_result
from sightline.io.dicom_results.codes import PRESENCE
from sightline.io.dicom_results.header import build_source_image
from sightline.io.dicom_results.objects import make_objects, write_objects
write_objects(make_objects(whole_result(build_source_image(radiograph()))), Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(tmp_path):
    # this one and another
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "b")], check=True, env=environment())
    first = {path.name: path.read_bytes() for path in write_objects(objects_of(radiograph()), tmp_path / "a")}
    again = {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert len(first) == 6 and first == again


def environment():
    import os
    from pathlib import Path

    here = Path(__file__).parents[3]
    return {**os.environ, "PYTHONPATH": f"{here / 'src'}:{here / 'tests'}", "PYTHONHASHSEED": "random"}


def test_what_differs_has_other_uids():
    dataset = radiograph()
    base = whole_result(build_source_image(dataset))
    uids = {str(made.SOPInstanceUID) for made in make_objects(base)}
    maker = base.maker
    for change in ({"run": "x"}, {"weights": "0" * 64}, {"version": "0.2"}, {"parameters": ("operating point=0.4",)}):
        other = whole_result(build_source_image(dataset), maker=type(maker)(**{**vars(maker), **change}))
        assert not uids & {str(made.SOPInstanceUID) for made in make_objects(other)}
    pixels = radiograph()
    pixels.PixelData = bytes(len(pixels.PixelData))
    assert not uids & {str(made.SOPInstanceUID) for made in objects_of(pixels)}


def test_a_report_names_its_predecessor():
    base = whole_result(build_source_image(radiograph()))
    before = ("1.2.840.10008.5.1.4.1.1.88.34", "2.25.7", "1.2.826.0.1.1.1", "2.25.8")
    follows = StudyResult(base.images, base.maker, base.made, base.codes, (before,))
    report = make_objects(follows, ObjectOptions(("findings",)))[0]
    series = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.7"


def test_another_note_makes_another_report_and_nothing_else():
    base = whole_result(build_source_image(radiograph()))

    def uids(*notes):
        image = replace(base.images[0], notes=notes)
        objects = make_objects(replace(base, images=(image,)), ObjectOptions(("findings", "marks")))
        return [str(made.SOPInstanceUID) for made in objects]

    plain, noted = uids(), uids("not analysed: too dark")
    assert noted == uids("not analysed: too dark")
    assert plain[0] != noted[0] and plain[1:] == noted[1:]


def test_a_map_on_the_pixels_of_its_image(tmp_path):
    source = build_source_image(radiograph(50, 35))
    paths = judged(make_objects(whole_result(source), ObjectOptions(("map",), map_on_image=True)), tmp_path)
    assert pydicom.dcmread(paths["map"]).pixel_array.shape == (50, 35)


@pytest.mark.parametrize("syntax", ["rle", "jpegls"])
def test_pictures_are_packed_without_loss(syntax, tmp_path):
    result = whole_result(build_source_image(radiograph()))
    paths = judged(make_objects(result, ObjectOptions(("picture",), picture_syntax=syntax)), tmp_path)
    assert np.array_equal(pydicom.dcmread(paths["picture"]).pixel_array, result.images[0].picture)


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID"])
@pytest.mark.parametrize("how", [None, ""])
def test_sources_without_uids_are_refused(keyword, how):
    with pytest.raises(UnreadableFile, match=keyword) as caught:
        build_source_image(radiograph(**{keyword: how}))
    assert caught.value.remedy
    # a document with pixels beside it
    with pytest.raises(UnreadableFile, match="not an image class"):
        build_source_image(radiograph(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1"))


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "PatientID"])
def test_two_studies_or_patients_are_refused(keyword):
    one = whole_result(build_source_image(radiograph()))
    other = whole_result(build_source_image(radiograph(**{keyword: "1.2.3"})))
    with pytest.raises(UnreadableFile, match=keyword):
        make_objects(StudyResult((*one.images, *other.images), one.maker, one.made))


def test_the_source_is_not_changed():
    dataset = radiograph()
    source = build_source_image(dataset)
    before, header = encode_dicom(dataset), dicom_bytes_of_header(source)
    make_objects(whole_result(source))
    assert encode_dicom(dataset) == before and dicom_bytes_of_header(source) == header


def dicom_bytes_of_header(source):
    return source.header.to_json()


def test_nothing_to_draw_is_left_out():
    source = build_source_image(radiograph())
    full = whole_result(source)
    bare = StudyResult((ImageResult(source, full.images[0].said),), full.maker, full.made)
    assert [made.Modality for made in make_objects(bare)] == ["SR", "PR"]
    with pytest.raises(LayoutError, match="sketch"):
        ObjectOptions(("sketch",))


@pytest.mark.slow
def test_all_objects_of_a_radiograph_take_at_most_a_second_and_a_half():
    source = build_source_image(radiograph(2140, 1760))
    result = whole_result(source)
    make_objects(result)
    seconds = []
    for _ in range(3):
        # of the processor: other work on the machine is none of theirs
        start = time.process_time()
        for made in make_objects(result):
            encode_dicom(made)
        seconds.append(time.process_time() - start)
    assert min(seconds) <= 1.5, seconds
