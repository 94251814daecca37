"""Tasks derived from labels stored once: renaming, merging, leaving out, and AO codes of other bones."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from support.paths import DATA

from sightline.data.task import AoCode, Task, derive_coarser_tasks, read_ao
from sightline.errors import CohortError, RecipeError
from sightline.structures.case import Case, Cohort, is_normal
from sightline.structures.identifiers import normalise_form
from sightline.structures.regions import Box
from sightline.structures.tag import Tag

FEMUR = ("A1", "A2", "A3", "B1", "B2", "B3", "normal")


def cohort_of(*labels, classes=None, tags=None):
    cases = tuple(
        Case(
            f"c{i}", f"s{i}", f"p{i}", Path("none.png"), label,
            (Box((1, 1), (5, 5), Tag("finding", (tags or labels)[i])),), ("train", "test")[i % 2],
        )
        for i, label in enumerate(labels)
    )  # fmt: skip
    return Cohort("bones", classes or tuple(dict.fromkeys(labels)), cases)


@pytest.mark.parametrize(
    ("task", "classes", "labels"),
    [
        (Task("present"), ("normal", "fracture"), ["fracture"] * 6 + ["normal"]),
        (Task("type"), ("normal", "A", "B"), ["A"] * 3 + ["B"] * 3 + ["normal"]),
        (Task("group"), FEMUR[:6], list(FEMUR[:6])),
        (Task("group", normals=True), ("normal", *FEMUR[:6]), list(FEMUR)),
    ],
)
def test_the_three_tasks_of_the_paper(task, classes, labels):
    cohort = cohort_of(*FEMUR)
    seen = task.apply(cohort)
    assert seen.classes == task.classes_of(cohort.classes) == classes
    assert [case.label for case in seen] == labels
    # the mark of each case speaks for what the case became
    assert [case.regions[0].tag.label for case in seen] == labels
    assert [case.case_id for case in seen] == [f"c{i}" for i in range(len(labels))]
    # what has the classes stays as it is, and its fingerprint with it
    assert task.apply(seen) is seen
    assert seen.fingerprint() != cohort.fingerprint()


def test_classes_in_another_order_are_put_in_order():
    turned = cohort_of("fracture", "normal")
    seen = Task("present").apply(turned)
    assert turned.classes == ("fracture", "normal") and seen.classes == ("normal", "fracture")
    assert [case.label for case in seen] == ["fracture", "normal"]


def test_a_coarser_task_can_follow_a_finer_one_but_not_the_other_way():
    typed = Task("type").apply(cohort_of(*FEMUR))
    direct = Task("present").apply(cohort_of(*FEMUR))
    assert [case.label for case in Task("present").apply(typed)] == [case.label for case in direct]
    with pytest.raises(CohortError, match="'A' has no group"):
        Task("group").apply(typed)
    with pytest.raises(CohortError, match=r"\['fracture'\] are no AO codes"):
        Task("type").apply(direct)


def test_classes_come_from_the_list_of_classes_so_that_a_part_without_a_class_has_it_too():
    cohort = cohort_of(*FEMUR)
    part = cohort.where(lambda case: case.label in ("A1", "B2"))
    for task in (Task("present"), Task("type"), Task("group"), Task("group", normals=True)):
        assert task.apply(part).classes == task.apply(cohort).classes
    assert Task("present").apply(part).counts() == {"normal": 0, "fracture": 2}
    assert len(Task("group").apply(cohort.where(lambda case: case.label == "normal"))) == 0
    # a cohort without any normal case still asks whether a fracture is present
    assert Task("present").classes_of(("A1", "B1")) == ("normal", "fracture")
    assert Task("present").groups(("A1", "B1")) == {"normal": (), "fracture": ("A1", "B1")}


def test_any_label_but_the_normal_one_is_a_fracture_at_the_first_level():
    fracatlas = cohort_of("no fracture", "fracture", classes=("no fracture", "fracture"))
    seen = Task("present").apply(fracatlas)
    assert seen.classes == ("normal", "fracture") and [case.label for case in seen] == ["normal", "fracture"]
    assert seen[1].regions[0].tag.label == "fracture"
    assert Task("present").classes_of(("buckle", "normal", "greenstick")) == ("normal", "fracture")
    with pytest.raises(CohortError, match="no normal one"):
        Task("present").apply(cohort_of("Black_footed_Albatross", "Laysan_Albatross"))


@pytest.mark.parametrize("word", ["normal", "Normal ", "no fracture", "No_Finding", "N", "without fracture"])
def test_words_for_normal(word):
    assert is_normal(word)
    assert not is_normal("fracture") and not is_normal("A1") and not is_normal("abnormal")


def test_marks_of_unknown_classes_keep_their_tag_for_the_audit():
    cohort = cohort_of("A1", "normal", tags=["C9 of another table", None])
    seen = Task("type").apply(cohort)
    assert [case.regions[0].tag.label for case in seen] == ["C9 of another table", None]


def test_groups_add_up_one_prediction_at_every_level():
    classes = ("normal", *FEMUR[:6])
    assert Task("type").groups(classes) == {"normal": ("normal",), "A": FEMUR[:3], "B": FEMUR[3:6]}
    assert Task("present").groups(classes) == {"normal": ("normal",), "fracture": FEMUR[:6]}
    assert Task("group").groups(classes) == {name: (name,) for name in FEMUR[:6]}
    assert [task.level for task in derive_coarser_tasks(classes)] == ["type", "present"]
    assert [task.level for task in derive_coarser_tasks(FEMUR[:6])] == ["type"]
    assert [task.level for task in derive_coarser_tasks(("normal", "A", "B"))] == ["present"]
    assert derive_coarser_tasks(("normal", "fracture")) == () and derive_coarser_tasks(("cat", "dog")) == ()


@pytest.mark.parametrize(
    ("text", "place", "kind", "group"),
    [
        ("A1", "", "A", "A1"), ("31A1.2", "31", "31A", "31A1"), ("31-A1.2", "31", "31A", "31A1"),
        ("23-A2", "23", "23A", "23A2"), ("2R3C1", "2R3", "2R3C", "2R3C1"), ("44B3.2*", "44", "44B", "44B3"),
        ("61C1.1(a)", "61", "61C", "61C1"), ("23r-M/2.1", "23r", "23r-M", "23r-M/2"),
        ("23u-E7", "23u", "23u-E", "23u-E/7"), ("23u/E/7", "23u", "23u-E", "23u-E/7"),
        ("23u-M/2.", "23u", "23u-M", "23u-M/2"), ("22-D/4.1", "22", "22-D", "22-D/4"),
        ("77.1.1A2", "77.1.1", "77.1.1A", "77.1.1A2"),
    ],
)  # fmt: skip
def test_ao_codes(text, place, kind, group):
    (code,) = read_ao(text)
    assert code.place == place
    assert code.name("type", with_place=True) == kind and code.name("group", with_place=True) == group
    # a derived name reads back as the same code
    assert read_ao(group) == (code,)


def test_what_is_no_code():
    assert read_ao("72B.(b)") == (AoCode("72", "B", ""),) and read_ao("31A2; B1") == (
        AoCode("31", "A", "2"), AoCode("", "B", "1"),
    )  # fmt: skip
    for text in ("", "fracture", "a1", "G1", "Apple", "A12", "31", "A1; ?"):
        assert read_ao(text) is None


def test_several_bones_are_told_apart_and_one_bone_is_left_out():
    one = cohort_of("31A1.2", "31A1.3", "31B2", "normal")
    assert Task("group").apply(one).classes == ("A1", "B2")
    several = cohort_of("23r-M/2.1", "23u-E/7", "23r-M/3.1", "normal")
    assert Task("type").apply(several).classes == ("normal", "23r-M", "23u-E")
    assert Task("group").apply(several).classes == ("23r-M/2", "23r-M/3", "23u-E/7")
    assert Task("group").apply(Task("group").apply(several)) == Task("group").apply(several)
    with pytest.raises(CohortError, match="name their bone"):
        Task("type").apply(cohort_of("31A1", "23A1", "A2", "normal"))


def test_an_image_with_two_fractures_has_one_class_only_where_they_agree():
    cohort = cohort_of("23r-M/2.1; 23r-M/3.1", "23r-M/3.1; 23u-E/7", "23r-M/2.1", "normal")
    assert [c.label for c in Task("present").apply(cohort)] == ["fracture"] * 3 + ["normal"]
    with pytest.raises(CohortError, match=r"several types: \['23r-M', '23u-E'\]") as caught:
        Task("type").apply(cohort)
    assert "leave_out" in caught.value.remedy
    kept = Task("type", several="leave_out").apply(cohort)
    assert [c.label for c in kept] == ["23r-M", "23r-M", "normal"]
    assert kept.classes == ("normal", "23r-M")


def test_a_level_that_does_not_exist_is_refused():
    with pytest.raises(RecipeError, match="subgroup"):
        Task("subgroup")


@pytest.mark.skipif(not (DATA / "grazpedwri" / "dataset.csv").is_file(), reason="the table is not here")
def test_the_codes_of_twenty_thousand_wrists():
    with (DATA / "grazpedwri" / "dataset.csv").open(encoding="utf-8") as file:
        cells = Counter(row["ao_classification"].strip() for row in csv.DictReader(file))
    read = {cell: read_ao(cell) for cell in cells if cell}
    assert sum(n for cell, n in cells.items() if cell) == 14_158
    assert not [cell for cell, codes in read.items() if codes is None]
    # the table writes some codes in two forms, with spaces that differ
    labels = tuple(dict.fromkeys(normalise_form(cell) or "normal" for cell in cells))
    cohort = replace(cohort_of(*labels), name="wrists")
    assert Task("present").apply(cohort).counts() == {"normal": 1, "fracture": len(labels) - 1}
    types = Task("type", several="leave_out").apply(cohort).classes
    assert types[0] == "normal" and {"23r-M", "23r-E", "23u-E", "22-D"} <= set(types)
