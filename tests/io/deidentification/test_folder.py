"""De-identified copies: nothing identifying left, references whole, the same bytes again, words held back."""

import csv
import subprocess
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from support.dicom_sources import radiograph, whole_result
from support.dicom_tools import dciodvfy

from sightline.errors import LayoutError, SightlineError, UnreadableFile
from sightline.io.deidentification.folder import Wishes, deidentify_folder
from sightline.io.deidentification.keys import SiteKey, read_site_key
from sightline.io.deidentification.table import Rules
from sightline.io.dicom_results.header import build_source_image
from sightline.io.dicom_results.identity import encode_dicom
from sightline.io.dicom_results.objects import make_objects, write_objects

KEY = SiteKey(bytes(range(32)))
QUIET = Wishes(search=False, pixels_seen=True)
PLANTED = [f"PLANTED{n:02d}" for n in range(15)]


def item(**elements):
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def planted(folder):
    """A study with fifteen identifying strings: an image, an SR that points at it, and a report of ours."""
    folder.mkdir(parents=True, exist_ok=True)
    words = iter(PLANTED)
    image = radiograph(64, 50)
    image.PatientName = f"{next(words)}^Jane"
    image.PatientID = next(words)
    image.OtherPatientIDs = next(words)
    image.ReferringPhysicianName = f"{next(words)}^Doctor"
    image.InstitutionName = next(words)
    image.StudyDescription = next(words)
    image.ImageComments = f"seen by {next(words)}"
    block = image.private_block(0x0009, "MAKER 1.0", create=True)
    block.add_new(0x01, "LO", next(words))
    image.add_new(0x00189999, "UN", next(words).encode() + b" ")
    deep = item(RequestedProcedureDescription="x", RequestedProcedureCodeSequence=Sequence(
        [item(CodeValue="1", CodingSchemeDesignator="99X", CodeMeaning="x", ReferencedImageSequence=Sequence(
            [item(ReferencedSOPInstanceUID=image.SOPInstanceUID, ReferencedSOPClassUID=image.SOPClassUID,
                  RetrieveURI=f"http://x/{next(words)}")]))]))  # fmt: skip
    image.RequestAttributesSequence = Sequence([deep])
    image.DeviceSerialNumber = next(words)
    image.file_meta.SourceApplicationEntityTitle = next(words)
    overlay = next(words)
    image.add_new(0x60004000, "LO", overlay)
    image.add_new(0x60000010, "US", 1)
    image.add_new(0x60003000, "OW", overlay.encode() + b" ")
    # an element that the table keeps repeats the name
    image.AcquisitionDeviceProcessingDescription = f"for {PLANTED[0]}"
    image.save_as(folder / "image.dcm", enforce_file_format=True)
    objects = make_objects(whole_result(build_source_image(image)))
    report = pydicom.dcmread(BytesIO(encode_dicom(objects[0])))
    text = item(RelationshipType="CONTAINS", ValueType="TEXT", TextValue=f"told by {next(words)}",
                ConceptNameCodeSequence=Sequence([item(CodeValue="121106", CodingSchemeDesignator="DCM",
                                                       CodeMeaning="Comment")]))  # fmt: skip
    person = item(RelationshipType="CONTAINS", ValueType="PNAME", PersonName=f"{next(words)}^Reader",
                  ConceptNameCodeSequence=Sequence([item(CodeValue="121008", CodingSchemeDesignator="DCM",
                                                         CodeMeaning="Person Observer Name")]))  # fmt: skip
    report.ContentSequence.append(text)
    report.ContentSequence.append(person)
    assert next(words, None) is None
    write_objects([report, *objects[1:]], folder)
    key_object = key_objects(image)
    key_object.save_as(folder / "key_object.dcm", enforce_file_format=True)
    return image


def key_objects(image):
    """A key object selection that points at the image."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    sound = build_source_image(image).copy()
    content = hd.ko.KeyObjectSelection(codes.DCM.Manifest, [sound])
    made = hd.ko.KeyObjectSelectionDocument(
        [sound], content, series_instance_uid="1.2.3.9", series_number=7, sop_instance_uid="1.2.3.10",
        instance_number=1, manufacturer="x",
    )  # fmt: skip
    return made


def copies(folder):
    return sorted(Path(folder).rglob("*.dcm"))


def uids_said(dataset):
    return {str(e.value) for e in dataset.iterall() if e.keyword == "ReferencedSOPInstanceUID" and str(e.value)}


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory):
    place = tmp_path_factory.mktemp("deid")
    image = planted(place / "in")
    outcome = deidentify_folder(place / "in", place / "out", place / "home", KEY, QUIET)
    return place, image, outcome


def test_nothing_planted_is_left(cleaned):
    place, image, outcome = cleaned
    assert outcome.written == 8 and outcome.refused == ()
    before = b"".join(path.read_bytes() for path in (place / "in").iterdir())
    assert all(word.encode() in before for word in PLANTED)
    for path in (path for path in (place / "out").rglob("*") if path.is_file()):
        data = path.read_bytes()
        left = [word for word in PLANTED if word.encode() in data or word in str(path)]
        assert left == [], path.name
        for old in (image.SOPInstanceUID, image.StudyInstanceUID, image.SeriesInstanceUID):
            assert old.encode() not in data, path.name


def test_references_are_whole(cleaned):
    place, image, _ = cleaned
    made = [pydicom.dcmread(path) for path in copies(place / "out")]
    (new,) = [one for one in made if one.Modality == "CR"]
    assert new.SOPInstanceUID == KEY.uid(image.SOPInstanceUID) == new.file_meta.MediaStorageSOPInstanceUID
    assert {one.StudyInstanceUID for one in made} == {KEY.uid(image.StudyInstanceUID)}
    known = {str(one.SOPInstanceUID) for one in made}
    pointing = {one.Modality: uids_said(one) for one in made if one is not new}
    assert set(pointing) == {"SR", "SEG", "PR", "OT", "KO"}
    for modality, said in pointing.items():
        assert str(new.SOPInstanceUID) in said and said <= known, modality
    assert new.PatientIdentityRemoved == "YES" and new.PatientID == KEY.patient(image.PatientID)
    assert [c.CodeValue for c in new.DeidentificationMethodCodeSequence] == ["113100", "113104", "113103"]


def test_no_new_error_and_the_same_pixels(cleaned):
    place, image, _ = cleaned
    by_modality = {}
    for path in (place / "in").iterdir():
        by_modality.setdefault(pydicom.dcmread(path).Modality, set()).update(reasons(path))
    for path in copies(place / "out"):
        made = pydicom.dcmread(path)
        assert reasons(path) <= by_modality[made.Modality], path.name
        if made.Modality == "CR":
            assert made.PixelData == image.PixelData


def reasons(path):
    return set(dciodvfy(path).errors)


def test_the_same_again_byte_for_byte(cleaned, tmp_path):
    place, _, _ = cleaned
    deidentify_folder(place / "in", tmp_path / "out", tmp_path / "home", KEY, QUIET)
    first = {path.relative_to(place / "out"): path.read_bytes() for path in copies(place / "out")}
    again = {path.relative_to(tmp_path / "out"): path.read_bytes() for path in copies(tmp_path / "out")}
    assert first == again
    other = SiteKey(bytes(32))
    deidentify_folder(place / "in", tmp_path / "other", tmp_path / "home2", other, QUIET)
    assert {path.name for path in copies(tmp_path / "other")}.isdisjoint(path.name for path in copies(tmp_path / "out"))


@pytest.mark.parametrize(
    ("keep", "kept", "gone"),
    [
        (("dates",), {"StudyDate": "20200101", "ContentDate": "20200101"}, ("PatientBirthDate", "InstitutionName")),
        (("institution",), {"InstitutionName": "Hospital"}, ("StudyDate", "DeviceSerialNumber")),
        (("device",), {"DeviceSerialNumber": "SN1234"}, ("InstitutionName",)),
        (("patient",), {"PatientSex": "M", "PatientAge": "070Y"}, ("PatientBirthDate",)),
        (("uids",), {"SOPInstanceUID": "1.2.826.0.1.1.3"}, ("InstitutionName",)),
    ],
)
def test_what_is_asked_for_is_kept(keep, kept, gone, tmp_path):
    image = radiograph(InstitutionName="Hospital", DeviceSerialNumber="SN1234", PatientAge="070Y")
    image.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    wishes = Wishes(Rules(keep), search=False)
    deidentify_folder(tmp_path / "a.dcm", tmp_path / "out", tmp_path / "home", KEY, wishes)
    (path,) = copies(tmp_path / "out")
    made = pydicom.dcmread(path)
    for keyword, value in kept.items():
        assert str(made.get(keyword)) == value
    for keyword in gone:
        assert made.get(keyword) in (None, "", "REMOVED"), keyword
    assert len(made.DeidentificationMethodCodeSequence) == 4


def test_dates_of_a_patient_move_together(tmp_path):
    for n, (day, patient) in enumerate((("20200101", "P1"), ("20200311", "P1"), ("20200311", "P2"))):
        radiograph(seed=n, StudyDate=day, PatientID=patient).save_as(tmp_path / f"{n}.dcm", enforce_file_format=True)
    wishes = Wishes(Rules(("moved-dates",)), search=False)
    (tmp_path / "in").mkdir()
    for n in range(3):
        (tmp_path / f"{n}.dcm").rename(tmp_path / "in" / f"{n}.dcm")
    deidentify_folder(tmp_path / "in", tmp_path / "out", tmp_path / "home", KEY, wishes)
    from datetime import datetime

    days = {}
    for path in copies(tmp_path / "out"):
        made = pydicom.dcmread(path)
        days.setdefault(made.PatientID, []).append(datetime.strptime(made.StudyDate, "%Y%m%d"))
    first = sorted(days[KEY.patient("P1")])
    assert (first[1] - first[0]).days == 70 and first[1] < datetime(2020, 3, 11)
    assert days[KEY.patient("P2")][0] != first[1]


def test_an_empty_date_of_a_program_moves_to_the_first_day_there_is(tmp_path):
    image = radiograph(AcquisitionDateTime="00010101000000", DateOfLastCalibration="00010101")
    image.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    wishes = Wishes(Rules(("moved-dates",)), search=False)
    deidentify_folder(tmp_path / "a.dcm", tmp_path / "out", tmp_path / "home", KEY, wishes)
    made = pydicom.dcmread(copies(tmp_path / "out")[0])
    assert made.AcquisitionDateTime == "00010102000000" and made.DateOfLastCalibration == "00010102"


@pytest.mark.parametrize(
    "changes",
    [
        {"BurnedInAnnotation": "YES"},
        {"Modality": "US"},
        {"Modality": "XC"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
        {"RecognizableVisualFeatures": "YES"},
    ],
)
def test_pictures_that_may_carry_words_are_held_back(changes, tmp_path):
    radiograph(**changes).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    wishes = Wishes(search=False)
    outcome = deidentify_folder(tmp_path / "a.dcm", tmp_path / "out", tmp_path / "home", KEY, wishes)
    assert outcome.written == 0 and "pixels seen" in outcome.refused[0][1]
    outcome = deidentify_folder(tmp_path / "a.dcm", tmp_path / "out", tmp_path / "home", KEY, QUIET)
    assert outcome.written == 1


def test_a_box_is_filled_and_said(tmp_path):
    image = radiograph(40, 48)
    image.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    wishes = Wishes(blanks=((2, 3, 10, 20),), search=False)
    deidentify_folder(tmp_path / "a.dcm", tmp_path / "out", tmp_path / "home", KEY, wishes)
    (path,) = copies(tmp_path / "out")
    made, before = pydicom.dcmread(path), image.pixel_array
    assert (made.pixel_array[2:10, 3:20] == before.min()).all()
    rest = np.ones((40, 48), bool)
    rest[2:10, 3:20] = False
    assert np.array_equal(made.pixel_array[rest], before[rest])
    assert "113101" in [c.CodeValue for c in made.DeidentificationMethodCodeSequence]
    with pytest.raises(LayoutError):
        Rules(("names",))


def test_broken_files_and_documents_are_refused_and_the_rest_goes_on(tmp_path):
    (tmp_path / "in").mkdir()
    radiograph().save_as(tmp_path / "in" / "good.dcm", enforce_file_format=True)
    document = radiograph(seed=3, SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")
    document.save_as(tmp_path / "in" / "Smith_John.dcm", enforce_file_format=True)
    whole = (tmp_path / "in" / "good.dcm").read_bytes()
    for name, data in {"torn.dcm": whole[:140], "cut.dcm": whole[:-10], "headless": whole[: whole.index(b"\xe0\x7f")],
                       "half_a_tag.dcm": whole + b"\xfc\xff", "empty.dcm": b"", "text.dcm": b"see Jane Smith",
                       "twin.dcm": whole, "notes.txt": b"of Jane Smith", "DICOMDIR": whole}.items():  # fmt: skip
        (tmp_path / "in" / name).write_bytes(data)
    outcome = deidentify_folder(tmp_path / "in", tmp_path / "out", tmp_path / "home", KEY, QUIET)
    assert (outcome.written, len(outcome.refused), outcome.others) == (1, 8, 2)
    assert len(list((tmp_path / "out").rglob("*.*"))) == 2
    report = (tmp_path / "out" / "report.csv").read_text()
    assert "Smith" not in report and len(report.splitlines()) == 12
    why = {row["name"]: row["refused"] for row in csv.DictReader((tmp_path / "home" / "names.csv").open())}
    assert "encapsulated" in why["Smith_John.dcm"].lower() and why["good.dcm"] == ""
    assert "the last 10 bytes of element (7FE0,0010) are missing" in why["cut.dcm"]
    assert "pixels, and none follow" in why["headless"] and "within the head" in why["half_a_tag.dcm"]
    assert "is empty" in why["empty.dcm"] and "not a DICOM file" in why["text.dcm"]
    assert "SOPInstanceUID of file" in why["twin.dcm"]
    assert why["notes.txt"] == why["DICOMDIR"] == "left out: not DICOM"


def test_a_link_to_a_folder_is_called_one(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "other").mkdir()
    radiograph().save_as(tmp_path / "in" / "a.dcm", enforce_file_format=True)
    (tmp_path / "in" / "link").symlink_to(tmp_path / "other")
    outcome = deidentify_folder(tmp_path / "in", tmp_path / "out", tmp_path / "home", KEY, QUIET)
    assert outcome.written == 1
    why = {row["name"]: row["refused"] for row in csv.DictReader((tmp_path / "home" / "names.csv").open())}
    assert "a link to a folder, which is not followed" in why["link"]


@pytest.mark.parametrize("inside", [True, False])
def test_copies_never_mix_with_originals(inside, tmp_path):
    radiograph().save_as(tmp_path / "a.dcm", enforce_file_format=True)
    (tmp_path / "in").mkdir()
    (tmp_path / "a.dcm").rename(tmp_path / "in" / "a.dcm")
    there = tmp_path / "in" / "out" if inside else tmp_path
    with pytest.raises(LayoutError):
        deidentify_folder(tmp_path / "in", there, tmp_path.parent / "home", KEY, QUIET)
    with pytest.raises(LayoutError):
        deidentify_folder(tmp_path / "in", tmp_path / "out", tmp_path / "out" / "home", KEY, QUIET)
    with pytest.raises(UnreadableFile):
        deidentify_folder(tmp_path / "nothing", tmp_path / "out", tmp_path / "home", KEY, QUIET)


def test_a_key_is_made_once_and_guarded(tmp_path):
    first = read_site_key(tmp_path / "site.key")
    assert read_site_key(tmp_path / "site.key") == first and (tmp_path / "site.key").stat().st_mode & 0o777 == 0o600
    assert first.secret.hex() not in repr(first)
    (tmp_path / "site.key").chmod(0o644)
    with pytest.raises(SightlineError, match="others may read"):
        read_site_key(tmp_path / "site.key")
    (tmp_path / "bad.key").write_text("123")
    (tmp_path / "bad.key").chmod(0o600)
    with pytest.raises(SightlineError, match="not a key"):
        read_site_key(tmp_path / "bad.key")


@pytest.mark.slow
def test_a_thousand_files_in_a_minute(tmp_path):
    (tmp_path / "in").mkdir()
    for n in range(60):
        radiograph(387, 387, seed=n).save_as(tmp_path / "in" / f"{n}.dcm", enforce_file_format=True)
    start = time.process_time()
    deidentify_folder(tmp_path / "in", tmp_path / "out", tmp_path / "home", KEY, QUIET)
    assert (time.process_time() - start) / 60 <= 0.06


def test_the_image_is_still_read_by_other_programs(cleaned):
    place, _, _ = cleaned
    from support.dicom_tools import require_program

    for path in copies(place / "out"):
        done = subprocess.run([require_program("dcmdump"), str(path)], capture_output=True, timeout=60)
        assert done.returncode == 0, path.name
