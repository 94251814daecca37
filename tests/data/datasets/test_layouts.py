"""Every layout has options, a reader and a first line, under one word in code, command line and docs."""

import dataclasses
import re
import shutil
import typing

import numpy as np
import pytest
from PIL import Image
from support.paths import ROOT

from sightline.data.audit.audit import audit
from sightline.data.datasets.layouts import LAYOUTS, find_layout, import_layout, read_layout
from sightline.data.datasets.pictures import Options
from sightline.errors import CohortError, LayoutError

# every flag of the one list of options that layouts shared before each had its own
FORMER = {
    "labels": "dicom", "groups": "coco", "per_class": "cub200", "gaze": "egd_cxr", "images": "reflacx",
    "id_list": "egd_cxr", "heart": "egd_cxr", "correct_drift": "egd_cxr", "screen_width_mm": "egd_cxr",
    "distance_mm": "egd_cxr", "findings": "reflacx", "certainty": "reflacx", "gradings": "verse", "columns": "verse",
    "positive_if": "verse", "mode": "verse", "anti_alias": "verse", "workers": "verse", "label_from": "grazpedwri",
    "fractions": "fracatlas", "seed": "coco",
}  # fmt: skip


@pytest.mark.parametrize("word", LAYOUTS)
def test_a_layout_is_whole(word):
    layout = find_layout(word)
    assert (layout.read is None) != (layout.cut is None)
    assert layout.about.endswith(".")
    assert dataclasses.is_dataclass(layout.options) and layout.options() == layout.options()
    with pytest.raises(dataclasses.FrozenInstanceError):
        layout.options().seed = 1
    assert typing.get_type_hints(layout.options).keys() == {field.name for field in dataclasses.fields(layout.options)}


def test_every_former_flag_is_an_option_of_its_layout():
    for flag, word in FORMER.items():
        assert flag in {field.name for field in dataclasses.fields(find_layout(word).options)}, (flag, word)


def test_the_page_on_cohorts_names_every_layout():
    page = (ROOT / "docs" / "cohorts.md").read_text(encoding="utf-8")
    assert [word for word in LAYOUTS if not re.search(rf"`{word}`|import {word}\\b", page)] == []


def test_a_word_without_a_layout_is_refused():
    with pytest.raises(LayoutError, match="No layout is called 'other'"):
        find_layout("other")


@pytest.fixture
def pictures(tmp_path):
    for n in range(12):
        Image.fromarray(np.full((20, 30), 10 * n, dtype=np.uint8) + np.eye(20, 30, dtype=np.uint8)).save(
            tmp_path / f"p{n}.png"
        )
    rows = [f"p{n}.png,{'fracture' if n % 2 else 'none'},P{n // 2},{'m' if n % 3 else 'f'}" for n in range(10)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,patient_id,sex", *rows, "gone.png,none,P9,m"]))
    return tmp_path


def test_a_plain_folder_of_pictures_is_a_cohort(pictures):
    cohort, rejects = read_layout("pictures", pictures, Options(fractions=(0.5, 0.25, 0.25)))
    assert len(cohort) == 10 and cohort.classes == ("none", "fracture")
    assert cohort[0].facts["sex"] == "f" and cohort[1].shape == (20, 30)
    assert {case.split for case in cohort} == {"train", "val", "test"}
    by_patient = {}
    for case in cohort:
        by_patient.setdefault(case.patient_id, set()).add(case.split)
    assert all(len(splits) == 1 for splits in by_patient.values())
    reasons = {reject.file.name: reject.reason for reject in rejects}
    assert "is no file" in reasons["gone.png"] and "no row" in reasons["p11.png"] and len(rejects) == 3


def test_an_import_is_repeated_with_other_labels_splits_and_files(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    import_layout("pictures", pictures, out, Options(fractions=(0.5, 0.25, 0.25)))
    (pictures / "p9.png").unlink()
    table = pictures / "labels.csv"
    table.write_text(table.read_text().replace("p0.png,none", "p0.png,fracture"))
    cohort, _ = import_layout("pictures", pictures, out, Options(fractions=None))
    assert cohort[0].label == "fracture" and {case.split for case in cohort} == {None}
    assert sorted(path.name for path in (out / "images").iterdir()) == [f"p{n}.png" for n in range(9)]


@pytest.mark.parametrize("file", ["studies.csv", "regions.json", "images/p3.png"])
def test_an_import_over_a_cohort_that_was_changed_is_refused(pictures, tmp_path_factory, file):
    out = tmp_path_factory.mktemp("out")
    import_layout("pictures", pictures, out)
    (out / file).write_bytes((out / file).read_bytes() + b"\n")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(
        LayoutError, match=rf"10 images\), of which {file} changed since it was written.*Choose another"
    ):
        import_layout("pictures", pictures, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_an_import_over_another_cohort_of_the_same_name_is_refused(pictures, tmp_path_factory):
    """Every folder .../scans gives a cohort `scans`."""
    other, out = (tmp_path_factory.mktemp(name) for name in ("other", "out"))
    shutil.copytree(pictures, other / pictures.name)
    import_layout("pictures", pictures, out)
    with pytest.raises(LayoutError, match=r"already holds another cohort .* \(10 images\)"):
        import_layout("pictures", other / pictures.name, out)


def test_an_import_over_its_own_source_is_refused_before_removing_it_is_advised(pictures, tmp_path):
    import_layout("pictures", pictures, tmp_path / "one")
    (tmp_path / "one" / "written.json").unlink()  # as phantoms and earlier versions have it
    (tmp_path / "link").symlink_to(tmp_path / "one")
    with pytest.raises(LayoutError, match="would be written over") as refused:
        import_layout("folder", tmp_path / "one", tmp_path / "link")
    assert "remove" not in refused.value.remedy


def test_pictures_without_a_table_are_refused(tmp_path):
    with pytest.raises(LayoutError, match="no such table"):
        read_layout("pictures", tmp_path)
    (tmp_path / "labels.csv").write_text("file,label\nx.png,a\n")
    with pytest.raises(LayoutError, match="none of its 1 row "):
        read_layout("pictures", tmp_path)


def test_a_split_that_cannot_be_says_what_was_left_out(pictures):
    (pictures / "labels.csv").write_text("file,label,patient_id\np0.png,a,1\np1.png,b,2\n../p2.png,a,3\n")
    with pytest.raises(CohortError, match=r"has 2 patients .* left out: \(1\) .*p2\.png") as caught:
        read_layout("pictures", pictures, Options(labels=pictures / "labels.csv"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 2000


def test_splits_of_the_table_are_kept(pictures):
    table = pictures / "labels.csv"
    first, *rows = table.read_text().splitlines()
    table.write_text(
        "\n".join([f"{first},split", *(f"{row},{('train', 'test')[n % 2]}" for n, row in enumerate(rows))])
    )
    cohort, _ = read_layout("pictures", pictures)
    assert {case.split for case in cohort} == {"train", "test"} and "split" not in cohort[0].facts
    table.write_text(table.read_text().replace("train", "training"))
    with pytest.raises(LayoutError, match="'training', expected one of"):
        read_layout("pictures", pictures)


def test_a_label_outside_the_classes_is_refused(pictures):
    with pytest.raises(LayoutError, match="'none' is not among"):
        read_layout("pictures", pictures, Options(classes=("fracture",)))


def test_columns_are_known_in_any_case(pictures):
    """`Patient ID` was a fact of the case, and two pictures of a patient were in train and in test."""
    (pictures / "labels.csv").write_text("File;LABEL;Patient ID;Age\np0.png;b;P1;7\np1.png;a;P1;8\np2.png;a;;9\n")
    cohort, _ = read_layout("pictures", pictures, Options(fractions=None))
    assert [case.patient_id for case in cohort] == ["P1", "P1", "p2"]
    assert set(cohort[0].facts) == {"Age"}


def test_unknown_patients_are_told_and_found_by_the_audit(pictures):
    table = pictures / "labels.csv"
    table.write_text("file,label,patient_id\np0.png,b,P1\np1.png,a,\np2.png,a,\n")
    cohort, _ = read_layout("pictures", pictures, Options(fractions=None))
    assert cohort.about["patients"].startswith("WARNING: 2 of 3 images do not name a patient")
    assert "patients-unknown" in {finding.kind for finding in audit(cohort)}


def test_the_normal_class_comes_first(pictures):
    """The last of two classes is the positive one: `fracture` beside `normal` made normal the finding."""
    (pictures / "labels.csv").write_text("file,label\np0.png,fracture\np1.png,normal\np2.png,fracture\n")
    assert read_layout("pictures", pictures, Options(fractions=None))[0].classes == ("normal", "fracture")
