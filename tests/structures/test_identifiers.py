"""Ids in one form: what looks alike is alike, what differs stays apart, and names of files keep their dots."""

from pathlib import Path

import numpy as np
import pytest

from sightline.data.split import find_leaking_patients, split_cohort
from sightline.errors import CohortError
from sightline.structures.case import Case, Cohort
from sightline.structures.identifiers import (
    clean_text,
    find_placeholders,
    format_apart,
    group_alike_names,
    name_files,
    normalise_form,
    separate_names,
)

ALIKE = [
    "M\u00fcller-7",
    "Mu\u0308ller-7",  # as a Mac writes it
    "M\u00fcller\u20107",  # a hyphen
    "M\u00fcller\u20117",  # one that does not break
    "M\u00fcller\u20137",  # a dash
    "M\u00fcller\u22127",  # a minus
    "M\u00fcl\u200bler-7",  # a blank without width
    "M\u00fcl\u00adler-7",  # a hyphen that is not shown
    "\ufeffM\u00fcller-7 ",
    "M\u00fcller-\uff17",  # a wide digit
    "Mu\u200d\u0308ller-7",
    "\u200eM\u00fcller-7\u2060\ufe0f",
]


def test_ids_that_look_alike_are_alike():
    assert {normalise_form(text) for text in ALIKE} == {ALIKE[0]}
    assert normalise_form("P\u00a0 1") == "P 1"
    assert len({normalise_form(text) for text in ("P1", "p1", "P-1", "P 1", "P_1", "P01")}) == 6
    assert all(normalise_form(normalise_form(text)) == normalise_form(text) for text in ALIKE)


@pytest.mark.parametrize("other", ALIKE[1:])
def test_a_patient_written_two_ways_is_one_patient_in_two_splits(other):
    cases = tuple(
        Case(f"i{n}", f"s{n}", patient, "x.png", ("a", "b")[n % 2], split=split)
        for n, (patient, split) in enumerate([(ALIKE[0], "train"), (other, "test"), ("P2", "train"), ("P3", "test")])
    )
    cohort = Cohort("c", ("a", "b"), cases)
    assert find_leaking_patients(cohort) == {ALIKE[0]: ("train", "test")}
    again = split_cohort(cohort, (0.5, 0.0, 0.5))
    assert again[0].split == again[1].split


def test_what_no_table_gives_back_is_taken_out():
    assert clean_text(" a\0b\x07 ") == "ab"
    assert clean_text("a\nb") == "a b"
    assert clean_text("\udcff.dcm") == "\\xff.dcm"
    case = Case(" i1 ", "s\0", "p", "x.png", "fracture ")
    assert (case.case_id, case.study_id, case.label) == ("i1", "s", "fracture")
    with pytest.raises(CohortError, match="repeated"):
        Cohort("c", ("fracture",), (case, Case("i1", "s2", "p2", "y.png", "fracture")))


def test_class_names_that_differ_in_case_alone_are_named():
    assert group_alike_names(["Normal", "no-finding", "normal", "No Finding", "fracture"]) == [
        ("Normal", "normal"),
        ("no-finding", "No Finding"),
    ]
    assert group_alike_names(["normal", "abnormal", "+", "-", "HER2+", "HER2-"]) == []


def test_names_that_stand_for_an_empty_cell_are_found():
    assert find_placeholders(["nan", "N/A", "Anonymous", "#REF!", "-"]) == ["nan", "N/A", "Anonymous", "#REF!", "-"]
    assert find_placeholders(["+", "-", "none", "normal", "Naomi"]) == []


def test_ids_that_a_spreadsheet_changed_are_named():
    assert group_alike_names(["0012", "12", "12.0", "120", "1.2", "P-07", "P/7", "P7", "1.02"]) == [
        ("0012", "12", "12.0"),
        ("P-07", "P/7"),
    ]


def test_ids_of_files_keep_what_is_no_suffix():
    names = ["1.2.840.1", "1.2.840.2", "1.2.840.1.png", "a/x.dcm", "x.nii.gz", "y.PNG", "y.jpg", ".png"]
    ids = name_files(names)
    assert ids["a/x.dcm"] == "a/x"
    assert ids["x.nii.gz"] == "x"
    assert ids["1.2.840.1"] == "1.2.840.1"
    assert ids["1.2.840.1.png"] == "1.2.840.1.png"
    assert len(set(ids.values())) == len(names)


def test_equal_titles_are_told_apart_by_as_much_of_their_paths_as_it_takes():
    names = ["guided", "guided", "plain", "guided"]
    assert separate_names(names, [Path("a/x"), Path("a/y"), Path("a/z"), Path("b/z")]) == [
        "guided (x)", "guided (y)", "plain", "guided (z)",
    ]  # fmt: skip
    assert separate_names(["guided", "guided"], [Path("a/run"), Path("b/run")]) == [
        "guided (a/run)", "guided (b/run)",
    ]  # fmt: skip
    same = separate_names(["guided", "guided"], [Path("a/run"), Path("a/run")])
    assert len(set(same)) == 2


@pytest.mark.parametrize("spacing", [(0.0, 0.1), (-0.1, -0.1), (1e300, 1e300), (float("nan"), 0.1)])
def test_pixels_of_no_size_are_refused_before_they_are_written(spacing):
    with pytest.raises(CohortError, match="states pixels of"):
        Case("i", "s", "p", Path("i.png"), "normal", spacing_mm=spacing)


def test_numbers_are_written_with_as_many_digits_as_tell_them_apart():
    assert format_apart([0.25, 0.49963, 0.49961]) == ["0.25", "0.49963", "0.49961"]
    assert format_apart([0.12345, 0.12345, 0.5]) == ["0.1235", "0.1235", "0.5"] and format_apart([]) == []
    near = [0.5, float(np.nextafter(0.5, 1.0))]
    assert [float(text) for text in format_apart(near)] == near
    assert format_apart([0.5, 0.4], 3, "f") == ["0.500", "0.400"]
