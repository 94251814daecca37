"""One study, one answer: views put together by a table or by their DICOM headers, called as validation fixed."""

import csv
from pathlib import Path

import numpy as np
import pytest

from sightline.errors import LayoutError
from sightline.inference.results.studies import (
    StudyCounts,
    StudyNames,
    StudyView,
    describe_unjoined_views,
    write_studies,
)
from sightline.metrics.calibration.record import CalibrationRecord
from sightline.metrics.decision.abstention import Abstention
from sightline.metrics.decision.conformal import PredictionSets
from sightline.metrics.decision.operating_points import OperatingPoint

CLASSES = ("normal", "fracture")
FILES = [Path("a/1.png"), Path("a/2.png"), Path("b/1.png")]


def table_of(tmp_path, text):
    path = tmp_path / "studies.csv"
    path.write_text(text, encoding="utf-8")
    return path


def view(file, study, p, energy=1.0):
    return StudyView(file, study, np.array([1 - p, p]), energy)


def rows_of(path):
    return list(csv.DictReader(path.open(newline="", encoding="utf-8")))


def test_views_are_averaged_and_called(tmp_path):
    names = StudyNames(table_of(tmp_path, "file,study\na/1.png,S\na/2.png,S\n"), FILES)
    record = CalibrationRecord(
        "run",
        CLASSES,
        points=(OperatingPoint("fracture", 0.45, "youden"), OperatingPoint("fracture", 0.9, "specificity", 0.9)),
        abstention=Abstention("doctor", 0.6, 0.8),
        sets=PredictionSets(CLASSES, (0.4, 0.4), 0.1, False),
    )
    views = [view(file, names.study_of(file, {}), p) for file, p in zip(FILES, (0.2, 0.8, 0.05), strict=True)]
    counts = write_studies(tmp_path / "out.csv", CLASSES, views, names, record)
    assert counts == StudyCounts(2, contradictory=0, abstained=1)
    assert counts.describe() == "1 of 2 studies have no answer: the network abstains in 1; see studies.csv"
    both, single = rows_of(tmp_path / "out.csv")
    assert (both["study"], both["images"], float(both["p(fracture)"])) == ("S", "2", 0.5)
    assert both["called at Youden"] == "fracture" and both["called at specificity 0.9"] == "not fracture"
    assert (both["answered"], both["set"]) == ("no", "normal; fracture")
    assert (single["study"], single["predicted"], single["answered"], single["set"]) == (
        "b/1.png", "normal", "yes", "normal",
    )  # fmt: skip


def test_a_run_that_joins_views_says_that_nothing_is_joined():
    alone = [view(file, str(file), 0.5) for file in FILES]
    assert "--studies" in describe_unjoined_views(alone, "maximum")
    assert describe_unjoined_views(alone, "none") == describe_unjoined_views([], "mean") == ""
    assert describe_unjoined_views([*alone[:2], view(FILES[2], "S", 0.5)], "maximum") == ""


def test_headers_name_studies_and_the_table_wins(tmp_path):
    names = StudyNames(table_of(tmp_path, "file,study\nb/1.png,T\n"), FILES)
    assert names.study_of(FILES[0], {"study_uid": "1.2.3"}) == "1.2.3"
    assert names.study_of(FILES[2], {"study_uid": "1.2.3"}) == "T"
    assert StudyNames(None, FILES).study_of(FILES[1], {}) == "a/2.png"


def test_a_view_of_the_table_that_was_not_given_is_counted(tmp_path):
    names = StudyNames(table_of(tmp_path, "file,study\na/1.png,S\nc/9.png,S\nc/8.png,U\n"), FILES)
    assert (names.missing("S", [FILES[0]]), names.missing("S", []), names.missing("V", [])) == (1, 2, 0)


def test_a_view_that_was_not_read_is_counted(tmp_path):
    names = StudyNames(table_of(tmp_path, "file,study\na/1.png,S\na/2.png,S\n"), FILES)
    write_studies(tmp_path / "out.csv", CLASSES, [view(FILES[0], "S", 0.7)], names, None)
    assert rows_of(tmp_path / "out.csv")[0]["not_read"] == "1"


def seen(file, study, p, header="", patient="", pixels=""):
    return StudyView(Path(file), study, np.array([1 - p, p]), 1.0, header, patient, pixels)


def test_a_picture_given_twice_counts_once(tmp_path):
    views = [seen("a.dcm", "S", 0.9, "S", "x", "1"), seen("b.dcm", "S", 0.3, "S", "x", "2"),
             seen("copy.dcm", "S", 0.9, "S", "x", "1")]  # fmt: skip
    write_studies(tmp_path / "out.csv", CLASSES, views, StudyNames(None, []), None)
    (row,) = rows_of(tmp_path / "out.csv")
    assert (row["images"], float(row["p(fracture)"])) == ("2", pytest.approx(0.6))
    assert row["remark"] == "copy.dcm shows the same pixels as a.dcm: counted once"
    assert row["files"] == "a.dcm; b.dcm; copy.dcm"


def test_a_study_of_two_patients_has_no_answer(tmp_path):
    record = CalibrationRecord("run", CLASSES, points=(OperatingPoint("fracture", 0.45, "youden"),),
                               abstention=Abstention("doctor", 0.6, 0.8))  # fmt: skip
    views = [seen("a.dcm", "S", 0.9, "S", "x", "1"), seen("b.dcm", "S", 0.3, "S", "y", "2"), seen("c.dcm", "T", 0.2)]
    counts = write_studies(tmp_path / "out.csv", CLASSES, views, StudyNames(None, []), record)
    assert counts.contradictory == 1 and "the headers of 1 name several patients" in counts.describe()
    both, other = rows_of(tmp_path / "out.csv")
    assert both["remark"] == "headers name 2 patients: no answer is given" and both["files"] == "a.dcm; b.dcm"
    assert [both[name] for name in ("predicted", "p(fracture)", "called at Youden", "answered")] == [""] * 4
    assert (other["predicted"], other["answered"], other["remark"]) == ("normal", "yes", "")


@pytest.mark.parametrize(
    ("patients", "remark"),
    [(("x a", "x b"), "headers name 2 patients: no answer is given"), (("x a", "x"), ""),
     (("x a", "y a"), "headers name 2 patients: no answer is given")],
)  # fmt: skip
def test_patients_of_a_study_are_told_apart_by_who_issued_their_ids(tmp_path, patients, remark):
    views = [seen(f"{n}.dcm", "S", 0.9, "S", patient, str(n)) for n, patient in enumerate(patients)]
    counts = write_studies(tmp_path / "out.csv", CLASSES, views, StudyNames(None, []), None)
    (row,) = rows_of(tmp_path / "out.csv")
    assert (row["remark"], counts.contradictory, row["predicted"] == "") == (remark, bool(remark), bool(remark))


def test_the_same_pixels_under_two_patients_have_no_answer_either(tmp_path):
    views = [seen("a.dcm", "S", 0.9, "S", "x", "1"), seen("b.dcm", "S", 0.9, "S", "y", "1")]
    assert write_studies(tmp_path / "out.csv", CLASSES, views, StudyNames(None, []), None).contradictory == 1
    (row,) = rows_of(tmp_path / "out.csv")
    assert "no answer is given" in row["remark"] and row["p(fracture)"] == ""


def test_a_table_against_the_headers_is_remarked(tmp_path):
    views = [seen("a.dcm", "S", 0.9, "1.2"), seen("b.dcm", "S", 0.3, "1.3"), seen("c.dcm", "1.2", 0.2, "1.2")]
    write_studies(tmp_path / "out.csv", CLASSES, views, StudyNames(None, []), None)
    both, rest = rows_of(tmp_path / "out.csv")
    split = "views of 1.2 stand in 2 studies of this table"
    assert both["remark"] == f"headers name 2 studies: the table puts them together; {split}"
    assert rest["remark"] == split and float(both["p(fracture)"]) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("text", "words"),
    [("file,study\n1.png,S\n", "names 2 of the files"), ("file,study\nx.png,S\n", "none of its files"),
     ("file,study\n2.png,S\na/2.png,T\n", "a second time"), ("file\n1.png\n", "lacks the columns")],
)  # fmt: skip
def test_tables_that_leave_doubt_are_refused(tmp_path, text, words):
    with pytest.raises(LayoutError, match=words):
        StudyNames(table_of(tmp_path, text), FILES)
