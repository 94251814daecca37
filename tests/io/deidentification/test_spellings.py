"""How names and numbers are spelt in texts: short ones, those of other scripts, days of birth; and false alarms."""

import pytest
from support.dicom_sources import radiograph

from sightline.io.deidentification.keys import SiteKey
from sightline.io.deidentification.spellings import Spellings, fold_letters
from sightline.io.deidentification.table import Rules
from sightline.io.deidentification.walk import deidentify

KEY = SiteKey(bytes(range(32)))


def clean(text, **changes):
    data = radiograph(SpecificCharacterSet="ISO_IR 192", **changes)
    data.DetectorDescription = text
    made = deidentify(data, Rules(), KEY)
    assert (made.dataset.DetectorDescription == "REMOVED") == any("DetectorDesc" in note for note in made.notes)
    return made.dataset.DetectorDescription


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Kim^Yu", "calibrated for Dr Kim Yu"),
        ("KIM^YU", "calibrated for kim, yu"),
        ("KIM^YU", "for Kim"),
        ("Kim^Yu", "KIM_2020"),
        ("kim^yu", "YuKim's"),
        ("Doe^Li", "as of Doe 1"),
        ("Doe^Li", "doe li"),
        ("Doe^Li", "Kniegelenk Doe検査"),
        ("May^Do", "set by May, Do"),
        ("Li^X", "by X. Li"),
        ("Wu^Li", "user LiWu"),
        ("Bùi^Ân", "pour Bui"),
        ("Nowak-Zając^Ewa", "u zajac"),
        ("Müller^Jörg", "MULLER arm"),
        ("王^小東", "王小東 2020"),
        ("王^小東", "检查王 小東完"),
        ("王^小東", "小東的手"),
        ("Wang^XiaoDong=王^小東", "小東 王"),
        ("王^东", "给王东检查"),
        ("홍^길동", "홍길동 님"),
        ("やまだ^ゆい", "やまだゆい"),
        ("ﾔﾏﾀﾞ^ﾕｲ", "ヤマダの手"),
        ("عمر^علي", "صورة علي"),
    ],
)
def test_short_names_and_those_of_other_scripts_are_found(name, text):
    assert clean(text, PatientName=name) == "REMOVED"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Kim^Yu", "KV of the kimberlite, yu"),
        ("Li^An", "An image of the knee, Li/re, li. an Wand"),
        ("Do^May", "Do not use before May 2020; DO NOT ROTATE"),
        ("Do^Se", "dose of the lens"),
        ("Ray^Max", "X-Ray at Max 80 kV"),
        ("Smith^J^K", "J K pattern of the grid"),
        ("Dyk^van^^Dr", "Van de Graaff's tube, Dr."),
        ("王^小東", "国王"),
        ("林^光", "林檎を光で"),
        ("さとう^まり", "つまり正面"),
        ("Phantom^12", "12 bit, C7 to L4"),
        ("Phantom^L4", "C7 to L4"),
    ],
)
def test_short_names_that_are_words_leave_descriptions_alone(name, text):
    assert clean(text, PatientName=name) == text


@pytest.mark.parametrize(
    ("changes", "text", "found"),
    [
        ({"PatientID": "A12"}, "grid for A12", True),
        ({"PatientID": "A12"}, "grid a12, A123", False),
        ({"PatientID": "12"}, "12 bit", False),
        ({"PatientID": "L4"}, "C7 to L4", False),
        ({"PatientID": "号7"}, "对号7", True),
        ({"AccessionNumber": "B7"}, "(B7)", True),
        ({"AccessionNumber": "ACC98765"}, "of acc98765_1", True),
        ({"StudyID": "S77777"}, "order s77777", True),
        ({"StudyID": "S77777"}, "orders777779", False),
        ({"StudyID": "2020"}, "(c) 2020", False),
        ({"StudyID": "KNEE"}, "knee of a phantom", False),
        ({"StudyID": "90210"}, "no. 90210", True),
        ({"StudyInstanceUID": "1.2.3.99"}, "see study 1.2.3.99.", True),
        ({"SeriesInstanceUID": "1.2.3.98"}, "object 1.2.3.98.7", True),
        ({"StudyInstanceUID": "1.2.3.99"}, "version 11.2.3.99, 1.2.3.991", False),
        ({"PatientBirthDate": "19700102"}, "born 02.01.1970", True),
        ({"PatientBirthDate": "19700102"}, "1970-01-02", True),
        ({"PatientBirthDate": "19700102"}, "2/1/1970", True),
        ({"PatientBirthDate": "19700102"}, "12.1.1970", False),
        ({"InstitutionName": "名大病院"}, "在名大病院拍", True),
    ],
)
def test_numbers_and_days(changes, text, found):
    assert clean(text, **changes) == ("REMOVED" if found else text)


def test_a_uid_that_is_kept_stays_in_texts():
    data = radiograph(StudyInstanceUID="1.2.3.99")
    data.DetectorDescription = "see study 1.2.3.99"
    assert deidentify(data, Rules(("uids",)), KEY).dataset.DetectorDescription == "see study 1.2.3.99"


def test_code_strings_are_one_word_or_two_parts_of_a_name():
    found = Spellings()
    found.add_name("Hand^Jo")
    assert found.are_all_of("HAND") and found.are_all_of("JO HAND") and not found.are_all_of("LEFT HAND")
    assert not found.are_all_of("JO") and not Spellings().are_in("anything") and fold_letters("Ｌê한") == "Le한"
