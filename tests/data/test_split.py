"""Splits: grouped, stratified, repeatable, and leakage refused (golden check 21)."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import DATA as DATA_ROOT

from sightline.data.datasets import fracatlas
from sightline.data.split import (
    draw_fresh_test,
    find_leaking_patients,
    refuse_leakage,
    split_by_counts,
    split_cohort,
)
from sightline.data.task import Task
from sightline.errors import CohortError
from sightline.structures.case import SPLITS, Case, Cohort

DATA = DATA_ROOT / "fracatlas"


def cohort_of(*patients: str) -> Cohort:
    """One image a letter: `cohort_of("aab", "b")` is a patient with labels a, a, b and a patient with label b."""
    cases = [
        Case(f"{p}-{i}", f"{p}-{i}", f"p{p}", Path(f"{p}-{i}.png"), label)
        for p, labels in enumerate(patients)
        for i, label in enumerate(labels)
    ]
    return Cohort("made", tuple(sorted({c.label for c in cases})), tuple(cases))


def parts(cohort: Cohort) -> dict[str, str]:
    return {case.case_id: case.split for case in cohort}


@given(
    st.lists(st.text("abc", min_size=1, max_size=6), min_size=3, max_size=40),
    st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_no_patient_is_ever_divided_and_no_part_is_empty(patients, seed):
    cohort = cohort_of(*patients)
    split = split_cohort(cohort, seed=seed)
    where = {}
    for case in split:
        assert where.setdefault(case.patient_id, case.split) == case.split
    assert {case.split for case in split} == set(SPLITS)
    assert [replace(c, split=None) for c in split] == list(cohort)


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    cohort = cohort_of(*["ab", "a", "bb", "aab"] * 10)
    assert parts(split_cohort(cohort, seed=3)) == parts(split_cohort(cohort, seed=3))
    assert parts(split_cohort(cohort, seed=3)) != parts(split_cohort(cohort, seed=4))


def test_labels_are_stratified():
    split = split_cohort(cohort_of(*["a"] * 80, *["b"] * 20), (0.5, 0.25, 0.25))
    assert [split.split(s).counts() for s in SPLITS] == [{"a": 40, "b": 10}, {"a": 20, "b": 5}, {"a": 20, "b": 5}]


def test_a_class_of_three_patients_reaches_every_part_when_parts_are_equal():
    split = split_cohort(cohort_of(*["a"] * 30, "b", "b", "b"), (1 / 3, 1 / 3, 1 / 3))
    assert [split.split(s).counts()["b"] for s in SPLITS] == [1, 1, 1]


def test_a_patient_with_studies_of_both_labels_stays_whole():
    split = split_cohort(cohort_of("ab", *["a", "b"] * 10))
    assert len({case.split for case in split if case.patient_id == "p0"}) == 1
    refuse_leakage(split)


def test_a_part_of_no_share_stays_empty():
    split = split_cohort(cohort_of(*"aabb" * 5), (0.8, 0.0, 0.2))
    assert Counter(parts(split).values()) == {"train": 16, "test": 4}


@pytest.mark.parametrize(
    "fractions", [(0.7, 0.1, 0.1), (1.2, -0.4, 0.2), (0.5, 0.5), (float("nan"), 0.5, 0.5), 0.5, "0.7", (0.6, "a", 0.3)]
)
def test_fractions_that_are_no_shares_are_refused(fractions):
    with pytest.raises(CohortError, match="three shares"):
        split_cohort(cohort_of("a", "b", "a"), fractions)
    with pytest.raises(CohortError, match="seed is a whole number"):
        split_cohort(cohort_of("a", "b", "a"), seed="x")


def test_too_few_groups_are_refused():
    with pytest.raises(CohortError, match=r"2 patients .* for 3 parts"):
        split_cohort(cohort_of("aaaa", "bbbb"))
    with pytest.raises(CohortError, match="no cases"):
        split_cohort(Cohort("empty", ("a",), ()))


def test_leakage_is_refused_by_name():
    cohort = split_cohort(cohort_of(*["ab"] * 10))
    refuse_leakage(cohort)
    assert find_leaking_patients(cohort) == {}
    moved = next(i for i, case in enumerate(cohort) if case.split == "test")
    cases = list(cohort.cases)
    cases[moved] = replace(cases[moved], split="train")
    with pytest.raises(CohortError, match=rf"1 patient .*'{cases[moved].patient_id}' \(train and test\)"):
        refuse_leakage(replace(cohort, cases=tuple(cases)))


def test_a_study_shared_by_two_patients_is_leakage():
    a, b = cohort_of("a", "a").cases
    cases = (replace(a, study_id="s", split="train"), replace(b, study_id="s", split="test"))
    with pytest.raises(CohortError, match="1 study"):
        refuse_leakage(Cohort("made", ("a",), cases))


def test_groups_finer_than_patients_are_refused():
    with pytest.raises(CohortError, match="more than one split"):
        split_cohort(cohort_of(*["abab"] * 20), group=lambda case: case.case_id)


@pytest.mark.skipif(not DATA.is_dir(), reason="FracAtlas is not here")
def test_fracatlas_is_split_close_to_what_was_asked():
    cohort = fracatlas.read(DATA, fracatlas.Options(seed=1))
    refuse_leakage(cohort)
    for name, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
        part = cohort.split(name).counts()
        for label, n in cohort.counts().items():
            assert abs(part[label] - share * n) <= 0.02 * n


def femurs(rng):
    """60 patients of two femurs: one broken (A or B), the other not, or none broken."""
    cases = []
    for p in range(60):
        labels = ("normal", "normal") if p % 5 == 0 else ("normal", f"{'AB'[p % 2]}{rng.integers(1, 4)}")
        for side, label in enumerate(labels):
            cases.append(Case(f"c{p}-{side}", f"s{p}", f"p{p}", Path(f"{p}-{side}.png"), label))
    return Cohort("femurs", ("normal", "A1", "A2", "A3", "B1", "B2", "B3"), tuple(cases))


@pytest.mark.parametrize("seed", range(4))
def test_a_test_part_may_be_counted_class_by_class(seed):
    cohort = femurs(np.random.default_rng(seed))
    wanted = {"normal": 14, "A": 6, "B": 4}
    split = split_by_counts(cohort, wanted, task=Task("type"), seed=seed)
    assert Task("type").apply(split).split("test").counts() == wanted
    patients = {part: {case.patient_id for case in split.split(part)} for part in ("train", "val", "test")}
    assert not patients["train"] & patients["test"] and not patients["val"] & patients["test"]
    assert len(split) == len(cohort) and all(case.split for case in split)
    assert split == split_by_counts(cohort, wanted, task=Task("type"), seed=seed)
    with pytest.raises(CohortError, match="nearest"):
        # each broken femur comes with a whole one
        split_by_counts(cohort, {"normal": 1, "A": 6}, task=Task("type"), seed=seed)
    with pytest.raises(CohortError, match="numbers of images by class"):
        split_by_counts(cohort, {"C": 3})


@pytest.mark.parametrize("seed", [0, 7])
def test_a_fresh_test_holds_nobody_that_a_test_has_seen(seed):
    first = split_cohort(cohort_of(*["ab", "a", "bb", "aab"] * 20), (0.6, 0.1, 0.3))
    again = draw_fresh_test(first, (0.6, 0.1, 0.3), seed)
    seen = {case.case_id for case in first.split("test")}
    assert {case.split for case in again if case.case_id in seen} == {"train"}
    assert find_leaking_patients(again) == {} and [replace(c, split=None) for c in again] == [
        replace(c, split=None) for c in first
    ]
    # shares are of all images
    assert [len(again.split(s)) / len(again) for s in SPLITS] == pytest.approx([0.6, 0.1, 0.3], abs=0.03)
    assert again.about["split"].endswith(f"seed {seed}")


def test_a_fresh_test_that_cannot_be_drawn_is_refused():
    cohort = cohort_of(*["ab", "a", "bb", "aab"] * 10)
    with pytest.raises(CohortError, match="to retire"):
        draw_fresh_test(cohort)
    with pytest.raises(CohortError, match="more than the"):
        draw_fresh_test(split_cohort(cohort, (0.2, 0.1, 0.7)), (0.2, 0.1, 0.7))
    with pytest.raises(CohortError, match="three shares"):
        draw_fresh_test(split_cohort(cohort), (0.5, 0.5))
