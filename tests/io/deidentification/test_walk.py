"""What stays in a header: no codes of staff, no births, no addresses; what names nobody as it is."""

from io import BytesIO

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from support.dicom_sources import radiograph

from sightline.data.datasets.dicom_folder import read
from sightline.errors import UnreadableFile
from sightline.io.deidentification.folder import Wishes, deidentify_folder
from sightline.io.deidentification.keys import SiteKey
from sightline.io.deidentification.table import Rules
from sightline.io.deidentification.walk import deidentify

KEY = SiteKey(bytes(range(32)))


def item(**elements):
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def code(value, scheme, meaning):
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def about(concept, **elements):
    return item(ConceptNameCodeSequence=[code(concept, "DCM", "x")], **elements)


def texts(data):
    return str(data).split("PixelData")[0]


def staffed():
    data = radiograph()
    data.InstitutionCodeSequence = [code("STM-7", "99STM", "St Mary Smalltown")]
    person = item(PersonIdentificationCodeSequence=[
        item(LongCodeValue="emp4711", CodingSchemeDesignator="99STAFF", CodeMeaning="Poe, Robert"),
        item(URNCodeValue="urn:emp4712", CodeMeaning="Roe, Rita"),
    ])  # fmt: skip
    data.OperatorIdentificationSequence = [person]
    data.VerifyingObserverSequence = [item(
        VerifyingObserverIdentificationCodeSequence=[code("GMC765", "99GMC", "Dr Brownlee")])]  # fmt: skip
    data.RetrieveURL = "http://pacs.stmary.org/1"
    data.PatientBirthTime, data.PatientBirthDateInAlternativeCalendar = "030405", "S25"
    return data


@pytest.mark.parametrize("keep", [(), ("dates",), ("moved-dates",), ("patient", "uids")])
def test_codes_of_staff_addresses_and_births_go(keep):
    made = texts(deidentify(staffed(), Rules(keep), KEY).dataset)
    for word in ("STM", "Mary", "4711", "4712", "STAFF", "Poe", "Roe", "GMC", "Brownlee", "http", "030405", "S25"):
        assert word not in made, word
    assert "Person Identification Code Sequence  1 item" in made


def test_the_code_of_an_institution_that_is_kept_stays():
    assert "STM-7" in texts(deidentify(staffed(), Rules(("institution",)), KEY).dataset)


def subject():
    number = item(NumericValue="97", MeasurementUnitsCodeSequence=[code("a", "UCUM", "year")])
    return [
        about("121029", PersonName="Jane^Doe"),
        about("121030", TextValue="ID97531"),
        about("121031", Date="19270405"),
        about("121032", ConceptCodeSequence=[code("F", "DCM", "Female")]),
        about("121033", MeasuredValueSequence=[number]),
        about("121033", NumericValue="97"),
        about("121071", ConceptCodeSequence=[code("1", "SCT", "Fracture")]),
    ]


@pytest.mark.parametrize(("keep", "stay"), [((), False), (("dates",), False), (("dates", "patient"), True)])
def test_items_of_reports_that_tell_who_the_patient_is(keep, stay):
    data = radiograph()
    data.ContentSequence = subject()
    made = texts(deidentify(data, Rules(keep), KEY).dataset)
    assert not any(word in made for word in ("Jane", "97531", "19270405")) and "Fracture" in made
    assert ("'97'" in made) == ("Female" in made) == stay


@pytest.mark.parametrize(
    ("hospital", "kept"),
    [("St. Olaf Medical Center", True), ("Hand and Wrist Clinic", True), ("GE Medical Systems", False)],
)
def test_words_of_an_institution_are_no_identifiers_but_its_name_is(hospital, kept):
    data = radiograph(InstitutionName=hospital, Manufacturer="GE MEDICAL SYSTEMS", BodyPartExamined="HAND")
    data.PatientName = "Hand^Jane"
    data.AcquisitionDeviceProcessingDescription = f"as {hospital.upper()}, does"
    data.FilterMaterial, data.DetectorDescription = "MEDICALLY", "Handheld of Wrists"
    made = deidentify(data, Rules(), KEY).dataset
    assert (made.Manufacturer == "GE MEDICAL SYSTEMS") == kept and made.BodyPartExamined == "HAND"
    assert made.AcquisitionDeviceProcessingDescription == "REMOVED" and made.FilterMaterial == "MEDICALLY"
    # a patient's name is looked for within words too
    assert made.DetectorDescription == "REMOVED"


def test_kinds_of_objects_are_nobodys_also_those_of_a_manufacturer():
    private = "1.3.46.670589.11.0.0.12.1"
    data = radiograph(SOPClassUID=private, RelatedGeneralSOPClassUID="1.3.46.1")
    data.ReferencedImageSequence = [item(ReferencedSOPClassUID=private, ReferencedSOPInstanceUID="1.2.9")]
    data.AvailableTransferSyntaxUID = "1.3.46.2"
    made = deidentify(data, Rules(), KEY).dataset
    assert made.SOPClassUID == made.file_meta.MediaStorageSOPClassUID == private
    assert (made.RelatedGeneralSOPClassUID, made.AvailableTransferSyntaxUID) == ("1.3.46.1", "1.3.46.2")
    (image,) = made.ReferencedImageSequence
    assert image.ReferencedSOPClassUID == private and image.ReferencedSOPInstanceUID == KEY.uid("1.2.9")
    assert made.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_files_without_a_patient_stay_of_unknown_patients(tmp_path):
    (tmp_path / "in").mkdir()
    for n, name in enumerate(("Doe^Jane", "Roe^Richard")):
        data = radiograph(seed=n, PatientID=" ", PatientName=name)
        data.save_as(tmp_path / "in" / f"{n}.dcm", enforce_file_format=True)
    wishes = Wishes(Rules(("moved-dates",)), search=False)
    deidentify_folder(tmp_path / "in", tmp_path / "out", tmp_path / "home", KEY, wishes)
    before, after = read(tmp_path / "in")[0], read(tmp_path / "out")[0]
    assert len({case.patient_id for case in after}) == 2 and after.about["patients"] == before.about["patients"]
    assert all(path.parts[-3] == "unknown" for path in (tmp_path / "out").rglob("*.dcm"))


def test_a_name_among_several_values_goes_alone_and_schemes_keep_their_words():
    data = radiograph(PatientName="Mustermann^Erika", ImageType=["ORIGINAL", "PRIMARY", "MUSTERMANN"])
    site = code("1", "DCM", "Mustermann's fracture")
    site.MappingResourceName = "Mustermann"
    data.AnatomicRegionSequence = [site]
    data.KVP, data.SeriesNumber, data.PatientID = "80", "7001234", "7001234"
    made = deidentify(data, Rules(), KEY).dataset
    assert list(made.ImageType) == ["ORIGINAL", "PRIMARY", "REMOVED"]
    (site,) = made.AnatomicRegionSequence
    assert site.CodeMeaning == "Mustermann's fracture" and site.MappingResourceName == "REMOVED"
    assert made.KVP == 80 and made.SeriesNumber is None


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize(
    ("keyword", "vr", "value", "keep"),
    [
        ("DetectorDescription", "OB", b"Mustermann^Erika", ()),
        ("DetectorDescription", "UI", "Mustermann^Erika", ("uids",)),
        ("DetectorDescription", "DA", "19500101", ("dates",)),
        ("ContentTime", "TM", "Mustermann^Erika", ("dates",)),
        ("ContentTime", "TM", "Mustermann^Erika", ("moved-dates",)),
        ("PatientAge", "AS", "ERIK", ("patient",)),
    ],
)
def test_what_is_not_of_its_type_does_not_pass_by_it(keyword, vr, value, keep):
    data = radiograph()
    data.add_new(keyword, vr, value)
    done = deidentify(data, Rules(keep), KEY)
    assert not done.dataset.get(keyword) and any(note.startswith(keyword) for note in done.notes)


def test_bytes_that_are_no_pixels_are_searched():
    data = radiograph(PatientName="Mustermann^Erika", ICCProfile=bytes(99) + b"for " + "MUSTERMANN".encode("utf-16-be"))
    with pytest.raises(UnreadableFile, match="ICCProfile holds an identifier"):
        deidentify(data, Rules(), KEY)
    data.ICCProfile, data["PixelData"].value = bytes(99) + b"sRGB ", b"mustermann".ljust(3840)
    deidentify(data, Rules(), KEY)


@pytest.mark.parametrize("kind", ["1.2.840.10008.5.1.4.1.1.9.4.1", "1.2.840.10008.5.1.4.1.1.9.4.2", None])
def test_voices_and_documents_within_sequences_are_refused(kind):
    data = radiograph(SOPClassUID=kind or "1.2.3", Modality="AU")
    data.WaveformSequence = [item(WaveformData=b"Mustermann")]
    with pytest.raises(UnreadableFile, match="recorded voice"):
        deidentify(data, Rules(), KEY)
    data = radiograph()
    data.AnatomicRegionSequence = [item(EncapsulatedDocument=b"%PDF")]
    with pytest.raises(UnreadableFile, match="encapsulated document"):
        deidentify(data, Rules(), KEY)


def test_nothing_before_or_behind_the_data_set_is_copied():
    data = radiograph()
    data.preamble = b"Mustermann^Erika".ljust(128)
    data.file_meta.SourceApplicationEntityTitle = "MUSTERMANN"
    data.file_meta.PrivateInformationCreatorUID, data.file_meta.PrivateInformation = "1.2", b"Mustermann"
    data.DataSetTrailingPadding = b"Mustermann"
    stream = BytesIO()
    deidentify(data, Rules(), KEY).dataset.save_as(stream, enforce_file_format=True)
    assert b"mustermann" not in stream.getvalue().lower()
