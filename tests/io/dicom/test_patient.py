"""Whom a header names: what makes two patients, and what is only another spelling of one."""

import pytest
from pydicom.dataset import Dataset

from sightline.io.dicom.patient import NamedPatient, count_patients, read_named_patient


def header(**words):
    data = Dataset()
    data.PatientID = ""
    for keyword, value in words.items():
        setattr(data, keyword, value)
    return data


def count(*headers):
    return count_patients(map(read_named_patient, headers))


NAMED = {"PatientName": "Doe^Jane", "PatientBirthDate": "19400101"}


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({}, "PatientName"),
        (NAMED | {"PatientName": "Roe^Jane"}, "PatientName"),
        (NAMED | {"PatientBirthDate": "19500101"}, "PatientName"),
        (NAMED | {"PatientID": "1"}, "PatientID"),
    ],
)
def test_without_an_id_two_names_or_days_of_birth_are_two_patients(second, words):
    number, found = count(header(**NAMED), header(**second))
    assert number == 2 and found.startswith(words)


@pytest.mark.parametrize("name", ["DOE^JANE", "Doe ^ Jane^^^", " doe^jane=\u738b^\u5c0f", "\uff24oe^Jane"])
def test_another_spelling_of_a_name_is_the_same_patient(name):
    assert count(header(**NAMED), header(**NAMED | {"PatientName": name})) == (1, "")


def test_an_id_is_its_issuers_and_its_name_may_be_corrected():
    first = header(PatientID="1", IssuerOfPatientID="East Hospital", PatientName="Doe^Jane")
    married = header(PatientID="1", IssuerOfPatientID="EAST  HOSPITAL ", PatientName="Roe^Jane")
    unsaid, other = header(PatientID="1"), header(PatientID="1", IssuerOfPatientID="West")
    assert count(first, married, unsaid) == (1, "")
    assert count(first, unsaid, other) == (2, "IssuerOfPatientID")


def test_digests_say_the_same_and_name_nobody():
    patients = [read_named_patient(header(**NAMED)), read_named_patient(header(PatientName="Roe^Jane"))]
    digests = [one.pseudonymise("1.2") for one in patients]
    assert count_patients(digests) == count_patients(patients)
    assert "doe" not in str(digests) and digests[0] != patients[0].pseudonymise("1.3")
    # what an older database does not hold contradicts nobody
    assert count_patients([digests[0], NamedPatient("")]) == (1, "")
