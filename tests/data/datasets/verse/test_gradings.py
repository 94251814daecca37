"""Grading tables: names, levels and shapes people use, and cells that are refused with their place."""

import pytest

from sightline.data.datasets.verse.gradings import normalise_subject_name, parse_vertebra_number, read_gradings
from sightline.errors import LayoutError, RecipeError


def csv(tmp_path, *lines):
    (tmp_path / "g.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "g.csv"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("20", 20), ("20.0", 20), ("L1", 20), ("l 1", 20), ("LWK1", 20), ("T12", 19), ("Th12", 19), ("BWK12", 19),
        ("BWK 1", 8), ("t01", 8), ("T13", 28), ("28", 28), ("C7", 7), ("HWK 2", 2), ("L6", 25),
        ("T14", None), ("L7", None), ("26", None), ("0", None), ("S1", None), ("", None), ("twelve", None),
    ],
)  # fmt: skip
def test_names_of_levels(text, label):
    assert parse_vertebra_number(text) == label


@pytest.mark.parametrize("text", ["4", "004", "4.0", "verse004", "sub-verse004", " Verse004 "])
def test_names_of_subjects(text):
    assert normalise_subject_name(text) == "verse004"
    assert normalise_subject_name("GL003") == "gl003"


def test_a_table_with_names_of_its_own(tmp_path):
    path = csv(tmp_path, "Patient,Wirbel,Genant,Form,Metall", "4,BWK12,2.0,Wedge,ja", "5,LWK1,,,")
    columns = {"subject": "Patient", "label": "Wirbel", "grade": "Genant", "deformity": "Form", "foreign": "Metall"}
    first, second = read_gradings(path, columns)
    assert (first.subject, first.label, first.verdict) == ("verse004", 19, (2, "wedge", True, False))
    assert (second.subject, second.label, second.verdict) == ("verse005", 20, (None, "", False, False))
    assert first.place == "row 2 (4, T12)"


def test_one_row_a_subject(tmp_path):
    path = csv(tmp_path, "verse_ID,T12_fx-g,T13_fx-g,L1_fx-g,L1_metal", "4,2,,0,1", "12,NA,1,3,")
    rows = read_gradings(path, {"subject": "verse_ID", "grade": "{level}_fx-g", "foreign": "{level}_metal"})
    assert [(r.subject, r.label, r.grade, r.foreign) for r in rows] == [
        ("verse004", 19, 2, False),
        ("verse004", 20, 0, True),
        ("verse012", 28, 1, False),
        ("verse012", 20, 3, False),
    ]
    with pytest.raises(LayoutError, match="for any level"):
        read_gradings(path, {"subject": "verse_ID", "grade": "{level}_grade"})


def test_an_excel_workbook_says_the_same(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["subject", "label", "grade", None], [4, "T12", 2, None], [None] * 4, ["verse005", 20, None, "note"]):
        book.active.append(row)
    book.save(tmp_path / "g.xlsx")
    rows = read_gradings(tmp_path / "g.xlsx")
    same = read_gradings(csv(tmp_path, "subject,label,grade", "4,T12,2", "", "verse005,20,"))
    assert [(r.subject, r.label, r.grade) for r in rows] == [(r.subject, r.label, r.grade) for r in same]
    assert rows[1].place.startswith("row 4 ")
    (tmp_path / "broken.xlsx").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(LayoutError, match="cannot be read as an Excel workbook"):
        read_gradings(tmp_path / "broken.xlsx")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (",20,1,", "column 'subject' is empty"),
        ("4,,1,", "column 'label' is empty"),
        ("4,T14,1,", "column 'label' is 'T14'"),
        ("4,20,4,", "row 2, column 'grade' is '4'"),
        ("4,20,1.5,", "column 'grade' is '1.5'"),
        ("4,20,mild,", "column 'grade' is 'mild'"),
        ("4,20,-1,", "column 'grade' is '-1'"),
        ("4,20,1,maybe", "column 'excluded' is 'maybe'"),
    ],
)
def test_cells_that_are_refused(tmp_path, row, words):
    with pytest.raises(LayoutError, match=words):
        read_gradings(csv(tmp_path, "subject,label,grade,excluded", row))


def test_columns_that_are_not_there(tmp_path):
    path = csv(tmp_path, "subject,label,genant", "4,20,1")
    with pytest.raises(LayoutError, match=r"lacks the columns \['grade'\]; it has"):
        read_gradings(path)
    with pytest.raises(LayoutError, match=r"lacks the columns \['metal'\]"):
        read_gradings(path, {"grade": "genant", "foreign": "metal"})
    with pytest.raises(RecipeError, match=r"names \['degree'\]"):
        read_gradings(path, {"degree": "genant"})
    with pytest.raises(LayoutError, match="is missing"):
        read_gradings(tmp_path / "no.csv")
    with pytest.raises(LayoutError, match="no rows"):
        read_gradings(csv(tmp_path, "subject,label,grade"))
