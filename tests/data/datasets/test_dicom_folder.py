"""A tree of DICOM files as a cohort: grouping, labels, and what is left out."""

import os

import pydicom
import pytest
from support.layouts import radiograph
from support.paths import DATA as DATA_ROOT

from sightline import cli
from sightline.data.datasets.dicom_folder import Options, read
from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.layouts import read_layout
from sightline.errors import LayoutError, UnreadableFile
from sightline.io.image import read_image

DATA = DATA_ROOT / "dicom"


@pytest.fixture
def tree(tmp_path):
    """Two patients, three studies, four views; a copy, a slice, a broken file, a picture and a hidden file."""
    root = tmp_path / "archive"
    radiograph(root / "a" / "1", "1.1.1")
    radiograph(root / "a" / "2", "1.1.2", view="LATERAL")
    radiograph(root / "b" / "1.dcm", "1.2.1", study="1.2")
    radiograph(root / "c" / "1.dcm", "2.1.1", study="2.1", patient="")
    radiograph(root / "z" / "copy.dcm", "1.1.1")
    radiograph(root / "z" / "slice.dcm", "3.1.1", modality="CT")
    (root / "z" / "broken.dcm").write_bytes((root / "a" / "1").read_bytes()[:-7])
    (root / "z" / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (root / ".trash").mkdir()
    (root / ".trash" / "x.dcm").write_bytes(b"")
    (root / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (root / "notes.txt").write_text("not an image")
    return root


def test_files_are_grouped_into_studies_and_patients(tree):
    cohort, _ = read(tree)
    assert [case.case_id for case in cohort] == ["1.1.1", "1.1.2", "1.2.1", "2.1.1"]
    assert [case.study_id for case in cohort] == ["1.1", "1.1", "1.2", "2.1"]
    assert [case.patient_id for case in cohort] == ["P1", "P1", "P1", "2.1"]  # without an id the study is the group
    assert cohort.classes == ("unknown",)
    case = cohort[1]
    assert (case.view, case.shape, case.spacing_mm) == ("LATERAL", (6, 5), (0.2, 0.1))
    assert case.facts["device_model"] == "X-1"
    assert not {"study_uid", "series_uid", "sop_uid"} & set(case.facts)
    assert cohort.name == "archive"


def test_what_is_left_out_is_listed_with_its_reason(tree):
    _, rejects = read(tree)
    reasons = {reject.file.name: reject.reason for reject in rejects}
    assert set(reasons) == {"copy.dcm", "slice.dcm", "broken.dcm", "photo.png"}
    assert "same SOPInstanceUID as" in reasons["copy.dcm"]
    assert "the modality is CT" in reasons["slice.dcm"]
    assert "do not decode" in reasons["broken.dcm"]
    assert "not a DICOM file" in reasons["photo.png"]
    assert all(reject.remedy and str(reject.file) in reject.reason for reject in rejects)


def test_headers_alone_are_faster_and_do_not_find_damaged_pixels(tree):
    (tree / "z" / "copy.dcm").unlink()
    (tree / "a" / "1").unlink()
    cohort, rejects = read(tree, Options(check_pixels=False))
    assert "broken.dcm" in {case.image.name for case in cohort}
    assert {reject.file.name for reject in rejects} == {"slice.dcm", "photo.png"}


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("study_uid,label\n1.1,fracture\n1.2,none\n2.1,none\n", ["fracture", "fracture", "none", "none"]),
        ("sop_uid,label\n1.1.1,a\n1.1.2,b\n1.2.1,a\n2.1.1,b\n", ["a", "b", "a", "b"]),
        ("file,label\na\\1,x\n.\\a\\2,y\n./b/1.dcm,x\nc\\1.dcm,y\n", ["x", "y", "x", "y"]),  # as on Windows
        ("﻿label , file\nx,a/1\ny,a/2\nx,b/1.dcm\ny,c/1.dcm\n", ["x", "y", "x", "y"]),
    ],
)
def test_labels_come_from_a_table_by_study_image_or_file(tree, tmp_path, text, labels):
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    cohort, _ = read(tree, Options(labels=tmp_path / "labels.csv"))
    assert [case.label for case in cohort] == labels
    assert cohort.classes == tuple(sorted(set(labels), key=lambda name: (name != "none", name)))


def test_the_order_of_classes_can_be_given(tree, tmp_path):
    (tmp_path / "labels.csv").write_text("study_uid,label\n1.1,fracture\n1.2,none\n2.1,none\n")
    cohort, _ = read(tree, Options(labels=tmp_path / "labels.csv", classes=["none", "fracture", "other"], name="hips"))
    assert cohort.classes == ("none", "fracture", "other")
    assert cohort.name == "hips"


def test_missing_labels_and_labels_of_nothing_are_listed(tree, tmp_path):
    (tmp_path / "labels.csv").write_text("study_uid,label\n1.1,fracture\n7.7,none\n1.2,none\n")
    cohort, rejects = read(tree, Options(labels=tmp_path / "labels.csv"))
    assert [case.study_id for case in cohort] == ["1.1", "1.1", "1.2"]
    reasons = [reject.reason for reject in rejects]
    assert any("no row with study_uid '2.1'" in reason for reason in reasons)
    assert any("line 3: study_uid '7.7'" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("uid,label\n1.1,a\n", r"columns \['uid', 'label'\]"),
        ("study_uid\n1.1\n", "columns"),
        ("", "columns"),
        ("study_uid,label\n1.1,\n", "line 2 lacks"),
        ("study_uid,label\n1.1\n", "row 2 has 1 cell,"),
        ("study_uid,label\n1.1,a\n1.1,b\n", "lines 2 and 3 both"),
        ("study_uid,label\n1.1,c\n", "none of the classes"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(tree, tmp_path, text, reason):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(LayoutError, match=reason):
        read(tree, Options(labels=tmp_path / "labels.csv", classes=["a", "b"]))


def test_an_image_without_identities_is_known_by_its_place(tmp_path):
    radiograph(tmp_path / "x" / "1.dcm", "", study="", patient="")
    radiograph(tmp_path / "x" / "2.dcm", "", study="", patient="")
    cohort, rejects = read(tmp_path)
    assert rejects == ()
    assert [(case.case_id, case.study_id, case.patient_id) for case in cohort] == [
        ("x/1.dcm",) * 3,
        ("x/2.dcm",) * 3,
    ]


def test_a_folder_without_radiographs_gives_an_empty_cohort_and_a_missing_one_an_error(tmp_path):
    cohort, rejects = read(tmp_path)
    assert (len(cohort), rejects) == (0, ())
    with pytest.raises(UnreadableFile):
        read(tmp_path / "nowhere")


@pytest.mark.skipif(not DATA.is_dir(), reason="the sample DICOM files are not here")
def test_the_real_tree():
    cohort, rejects = read(DATA)
    assert len(cohort) == 7
    assert {case.patient_id for case in cohort} == {"10RG2", "11RG3"}
    assert len({case.study_id for case in cohort}) == 3
    assert len(rejects) == 14
    assert all(reject.reason and reject.remedy for reject in rejects)


@pytest.mark.parametrize(
    "text", ["study_uid;label\n1.1;a\n1.2;b\n2.1;b\n", "study_uid,label,\n1.1,a,\n1.2,b,\n2.1,b,\n"]
)
def test_labels_are_read_as_every_table_is(tree, tmp_path, text):
    (tmp_path / "labels.csv").write_text(text)
    cohort, _ = read(tree, Options(labels=tmp_path / "labels.csv"))
    assert [case.label for case in cohort] == ["a", "a", "b", "b"]
    (tmp_path / "labels.csv").write_text("study_uid,label\n1.1,fracture, none\n")
    with pytest.raises(LayoutError, match="row 2 has 3 cells"):
        read(tree, Options(labels=tmp_path / "labels.csv"))


def test_labels_of_files_whose_names_have_another_unicode_form(tmp_path):
    radiograph(tmp_path / "src" / "Mu\u0308ller.dcm", "1.1.1")
    (tmp_path / "labels.csv").write_text("file,label\nM\u00fcller.dcm,a\n", encoding="utf-8")
    cohort, rejects = read(tmp_path / "src", Options(labels=tmp_path / "labels.csv"))
    assert [case.label for case in cohort] == ["a"]
    assert not rejects


def test_where_no_row_meets_a_file_the_reasons_are_given_row_by_row(tree, tmp_path):
    (tmp_path / "labels.csv").write_text("study_uid,label\n9.1,a\n9.2,b\n")
    with pytest.raises(LayoutError) as error:
        read_layout("dicom", tree, Options(labels=tmp_path / "labels.csv"))
    assert "line 2: study_uid '9.1' is that of no radiograph" in error.value.message
    assert "no row with study_uid '1.1'" in error.value.message


def test_what_import_writes_check_reads(tmp_path, capsys):
    """Names with blanks and bytes that are no letters, facts with zero bytes."""
    src = tmp_path / "src"
    radiograph(src / "IM0001 ", "1.1.1")
    radiograph(src / "IM0002 ", "1.1.2")
    radiograph(src / os.fsdecode(b"a\xff.dcm"), "1.1.3")
    radiograph(src / ("x" * 240 + ".dcm"), "")
    data = pydicom.dcmread(src / "IM0001 ")
    data.ManufacturerModelName = "X\0 1"
    data.save_as(src / "IM0001 ")
    with pytest.raises(SystemExit) as done:
        cli.main(["cohort", "import", "dicom", str(src), str(tmp_path / "out")])
    assert done.value.code == 0
    assert "(no split 4 unknown)" in capsys.readouterr().out
    cohort = read_cohort(tmp_path / "out")
    assert len(cohort) == 4
    assert all(read_image(case.image).pixels.size for case in cohort)
    assert cohort[0].facts["device_model"] or cohort[1].facts["device_model"]


def test_shutters_and_sizes_that_are_none_are_said(tree):
    path = tree / "a" / "1"
    data = pydicom.dcmread(path)
    data.PixelSpacing, data.ShutterShape = [1000, 1000], "RECTANGULAR"
    data.save_as(path)
    cohort, _ = read(tree, Options(check_pixels=False))
    (case,) = [case for case in cohort if case.image == path]
    assert case.spacing_mm is None and case.facts["shutter"] == "RECTANGULAR"
    assert "of 1 picture not all is taken" in cohort.about["warning: pixel size"]
    assert "PixelSpacing 1000" in cohort.about["warning: pixel size"]
    assert cohort.about["warning: display shutters"].startswith("1 of 4 pictures states a display shutter")


def test_labels_that_differ_in_case_alone_are_said(tree, tmp_path, capsys):
    (tmp_path / "labels.csv").write_text("study_uid,label\n1.1,Normal\n1.2,normal\n2.1,fracture\n")
    with pytest.raises(SystemExit):
        cli.main(
            [
                *("cohort", "import", "dicom", str(tree), str(tmp_path / "o")),
                *("--labels", str(tmp_path / "labels.csv"), "--fractions", "0.5", "0", "0.5"),
            ]
        )
    assert "'Normal', 'normal' are different classes" in capsys.readouterr().err


def test_a_study_of_several_patients_is_left_out_and_a_file_without_one_is_of_its_studys(tmp_path):
    """One study with a slip in PatientID must not stop an import of thousands."""
    for n, patient in enumerate(("A", "B", "")):
        radiograph(tmp_path / "x" / f"{n}.dcm", f"1.1.{n}", study="1.1", patient=patient)
    radiograph(tmp_path / "y" / "1.dcm", "2.1.1", study="2.1", patient="C")
    radiograph(tmp_path / "y" / "2.dcm", "2.1.2", study="2.1", patient="")
    cohort, rejects = read_layout("dicom", tmp_path)
    assert [(case.case_id, case.patient_id) for case in cohort] == [("2.1.1", "C"), ("2.1.2", "C")]
    assert [reject.file.name for reject in rejects] == ["0.dcm", "1.dcm", "2.dcm"]
    assert all("its study 1.1 belongs to several patients: ['A', 'B']" in reject.reason for reject in rejects)
    assert "patients" not in cohort.about


def test_one_id_of_two_issuers_is_of_two_patients(tmp_path):
    """A merged archive: otherwise their studies share a split and a cluster, as if they were one person's."""
    for n, (study, issuer) in enumerate((("1", "Clinic"), ("2", "PRACTICE "), ("3", ""), ("1", ""))):
        path = radiograph(tmp_path / f"{n}.dcm", f"9.{n}", study=study, patient="7")
        data = pydicom.dcmread(path)
        data.IssuerOfPatientID = issuer
        data.save_as(path)
    cohort, _ = read(tmp_path, Options(check_pixels=False))
    assert [case.patient_id for case in cohort] == ["7^^^clinic", "7^^^practice", "7", "7^^^clinic"]
    assert cohort.about["warning: issuers"].startswith("1 picture with a PatientID that several issuers gave")
    (tmp_path / "1.dcm").unlink()
    cohort, _ = read(tmp_path, Options(check_pixels=False))
    assert {case.patient_id for case in cohort} == {"7"} and "warning: issuers" not in cohort.about


def test_rows_are_known_by_the_column_that_tells_them_apart(tree, tmp_path):
    """A table of images that names their studies, too, has the study several times."""
    rows = ["study_uid,file,label", "1.1,a/1,a", "1.1,a/2,b", ",b/1.dcm,a", "2.1,c/1.dcm,b"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    cohort, _ = read(tree, Options(labels=tmp_path / "labels.csv"))
    assert [case.label for case in cohort] == ["a", "b", "a", "b"]


def test_a_link_to_a_folder_elsewhere_is_rejected_aloud(tmp_path):
    radiograph(tmp_path / "src" / "a.dcm", "1.1.1")
    radiograph(tmp_path / "elsewhere" / "b.dcm", "1.1.2")
    (tmp_path / "src" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "src" / "round").symlink_to(tmp_path / "src")
    cohort, rejects = read_layout("dicom", tmp_path / "src")
    assert [case.case_id for case in cohort] == ["1.1.1"]
    assert [reject.reason for reject in rejects] == [
        f"{tmp_path / 'src' / 'linked'}: a link to a folder, which is not followed."
    ]
    (tmp_path / "src" / "a.dcm").unlink()
    with pytest.raises(LayoutError, match="a link to a folder, which is not followed"):
        read_layout("dicom", tmp_path / "src")


def test_a_cohort_in_its_own_source_is_no_second_copy(tmp_path):
    """Files without SOPInstanceUID would be there twice, in two splits."""
    for n in range(2):
        radiograph(tmp_path / f"{n}.dcm", "", study=f"1.{n}")
    for _ in range(2):
        with pytest.raises(SystemExit) as done:
            cli.main(["cohort", "import", "dicom", str(tmp_path), str(tmp_path / "ours")])
        assert done.value.code == 0
        assert len(read_cohort(tmp_path / "ours")) == 2
    rejects = (tmp_path / "ours" / "rejects.csv").read_text().splitlines()
    assert len(rejects) == 2 and "ours: a cohort in our layout, which is not searched." in rejects[1]
