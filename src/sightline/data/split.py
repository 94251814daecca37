"""Training, validation and test parts: no patient in two of them, every class in each as evenly as groups allow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.data.task import Task
from sightline.errors import CohortError, LayoutError, count_noun
from sightline.structures.case import SPLITS, Case, Cohort, Split
from sightline.structures.identifiers import find_placeholders, normalise_form

# what to do where cases are in no split
ASSIGN_SPLITS = "Fill `split` in studies.csv, or let `sightline cohort split SRC DEST` split by patient."
# columns that say which images belong together; others (sex, age, device) say how patients are alike
GROUPING = frozenset(
    ("patient_id", "patientid", "patient", "subject_id", "subject", "person_id", "person", "group_id", "group")
)
GROUPING |= frozenset(("study_id", "study", "accession", "dup_group", "id_block", "duplicate", "near_duplicate"))

TRIES = 16


def split_cohort(
    cohort: Cohort,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    group: Callable[[Case], str] | None = None,
) -> Cohort:
    """Assign every case to train, val or test; whole groups only, stratified by label.

    Groups are taken in random order and each goes where the class counts then lie closest to `fractions` (chi-square
    distance); the best of 16 orders is kept. The same cohort, fractions and seed give the same split.

    Args:
        cohort: cases; splits they have are replaced.
        fractions: share of images wanted in train, val and test; must add up to 1, zeros leave a part empty.
        seed: of the random orders.
        group: what may not be divided; default the patient. Groups must not divide a patient.

    Raises:
        CohortError: fractions that are no shares, fewer groups than parts, or groups that divide a patient.
    """
    shares = _require_shares(fractions)
    if not len(cohort):
        raise CohortError(f"Cohort {cohort.name!r} has no cases to split.", "Check the filter or the import.")
    name_of = group or (lambda case: case.patient_id)
    names: dict[str, int] = {}
    index = np.array([names.setdefault(name_of(case), len(names)) for case in cohort])
    if len(names) < np.count_nonzero(shares):
        what = count_noun(len(names), "patient" if group is None else "group")
        raise CohortError(
            f"Cohort {cohort.name!r} has {what} ({', '.join(map(repr, names))}) for {np.count_nonzero(shares)} parts.",
            "Check the ids, or leave parts empty: --fractions 0 0 1 tests on all.",
        )
    counts = np.zeros((len(names), len(cohort.classes)))
    for g, case in zip(index, cohort, strict=True):
        counts[g, cohort.class_index(case.label)] += 1.0
    counts = counts[:, counts.sum(axis=0) > 0]

    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise CohortError(f"A seed is a whole number, 0 or more; got {seed!r}.", "For example 0.")
    random = np.random.default_rng(seed)
    tries = [_assign(counts, shares, random.permutation(len(names))) for _ in range(TRIES)]
    _, assigned = min(tries, key=lambda attempt: attempt[0])
    splits = [SPLITS[assigned[i]] for i in index]
    return _put_into_splits(cohort, splits, shares, f"grouped by patient, by label, seed {seed}")


def _require_shares(fractions: Sequence[float]) -> NDArray[np.float64]:
    try:
        shares = np.array([float(f) for f in fractions])
    except (TypeError, ValueError):
        # no numbers, or not several
        shares = np.array([])
    if len(shares) != 3 or not np.isfinite(shares).all() or (shares < 0).any() or not math.isclose(shares.sum(), 1.0):
        raise CohortError(
            f"Split fractions must be three shares (train, val, test) that add up to 1; got {fractions}.",
            "For example 0.7 0.1 0.2.",
        )
    return shares


def _put_into_splits(cohort: Cohort, splits: Sequence[Split], shares: NDArray[np.float64], how: str) -> Cohort:
    cases = tuple(replace(case, split=split) for case, split in zip(cohort, splits, strict=True))
    about = f"train {shares[0]:g}, val {shares[1]:g}, test {shares[2]:g}; {how}"
    result = replace(cohort, cases=cases, about={**cohort.about, "split": about})
    refuse_leakage(result)
    return result


def draw_fresh_test(cohort: Cohort, fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0) -> Cohort:
    """Draw validation and test anew from patients that no test has seen; the present test patients join training.

    What was thought of while the old test results were looked at is tried on cases that had no part in the thought.

    Args:
        cohort: cases with splits.
        fractions: share of all images wanted in train, val and test; must add up to 1.
        seed: of the random orders (`split_cohort`).

    Raises:
        CohortError: no test cases to retire, shares that the other patients cannot give, or as `split_cohort`.
    """
    retired = {case.patient_id for case in cohort if case.split == "test"}
    rest = cohort.where(lambda case: case.patient_id not in retired)
    if not retired or not len(rest):
        raise CohortError(
            f"Cohort {cohort.name!r} has {count_noun(len(cohort) - len(rest), 'image')} of test patients among "
            f"{len(cohort)}: a fresh test needs some to retire, and others to draw from.",
            "Split it first: sightline cohort split.",
        )
    wanted = _require_shares(fractions)
    dealt = wanted[1:] * len(cohort) / len(rest)
    if dealt.sum() > 1.0 + 1e-9:
        raise CohortError(
            f"{wanted[1]:g} of {count_noun(len(cohort), 'image')} for validation and {wanted[2]:g} for testing "
            f"are more than the {len(rest)} images of patients that no test has seen.",
            "Ask for smaller shares.",
        )
    shares = (max(0.0, 1.0 - float(dealt.sum())), *dealt.tolist())
    parts: dict[str, Split | None] = {case.case_id: case.split for case in split_cohort(rest, shares, seed)}
    splits: list[Split] = [parts.get(case.case_id) or "train" for case in cohort]
    how = f"the patients of an earlier test train; grouped by patient, by label, seed {seed}"
    return _put_into_splits(cohort, splits, wanted, how)


def _assign(
    counts: NDArray[np.float64], shares: NDArray[np.float64], order: NDArray[np.int64]
) -> tuple[float, list[int]]:
    """Greedy assignment of groups [g, k] to parts in one order: distance reached, part per group."""
    parts = np.flatnonzero(shares)
    wanted = shares[parts, None] * counts.sum(axis=0)  # [part, class]
    have = np.zeros_like(wanted)
    part_of = [0] * len(counts)
    for position, g in enumerate(order):
        added = have + counts[g] - wanted
        growth = ((added**2 - (have - wanted) ** 2) / wanted).sum(axis=1)
        empty = have.sum(axis=1) == 0
        if len(order) - position <= empty.sum():
            growth[~empty] = np.inf  # the last groups fill parts that would stay empty
        best = int(np.argmin(growth))
        have[best] += counts[g]
        part_of[g] = int(parts[best])
    return float(((have - wanted) ** 2 / wanted).sum()), part_of


def find_mixed_studies(cohort: Cohort) -> dict[str, list[str]]:
    """Studies whose views differ in label, with the labels: evaluation judges studies, and refuses these."""
    labels: dict[str, set[str]] = {}
    for case in cohort:
        labels.setdefault(case.study_id, set()).add(case.label)
    return {study: sorted(found) for study, found in labels.items() if len(found) > 1}


def find_leaking_patients(cohort: Cohort) -> dict[str, tuple[Split, ...]]:
    """Patients whose images lie in more than one part, with those parts."""
    parts: dict[str, set[Split]] = {}
    for case in cohort:
        if case.split is not None:
            parts.setdefault(case.patient_id, set()).add(case.split)
    return {p: tuple(s for s in SPLITS if s in found) for p, found in sorted(parts.items()) if len(found) > 1}


def refuse_leakage(cohort: Cohort) -> None:
    """Refuse a cohort in which a patient, or a study, is in more than one part.

    Raises:
        CohortError: naming the patients or studies.
    """
    leaking = find_leaking_patients(cohort)
    if leaking:
        named = ", ".join(f"{patient!r} ({' and '.join(parts)})" for patient, parts in list(leaking.items())[:5])
        raise CohortError(
            f"{count_noun(len(leaking), 'patient')} of cohort {cohort.name!r} in more than one split: {named}.",
            "Split again by patient (sightline cohort split SRC DEST): results on these splits would be too good.",
        )
    # a study id shared by two patients would pass the check above
    by_study = replace(cohort, cases=tuple(replace(case, patient_id=case.study_id) for case in cohort))
    studies = find_leaking_patients(by_study)
    if studies:
        raise CohortError(
            f"{count_noun(len(studies), 'study', 'studies')} of cohort {cohort.name!r} in more than one split: "
            f"{list(studies)[:5]}.",
            "Give every study one patient and split again.",
        )


def select_sources(cohort: Cohort, sources: Sequence[str]) -> Cohort:
    """The cases from any of some sources; all of them where none is named.

    Args:
        cohort: whose cases state the fact `source`.
        sources: starts of sources, `verse` for verse19 and verse20; `not verse`: all others.

    Raises:
        CohortError: there is no case from one of them.
    """
    if not sources:
        return cohort
    kept: set[str] = set()
    for word in sources:
        start = word.removeprefix("not ")
        found = {c.case_id for c in cohort if c.facts.get("source", "").startswith(start) is (start == word)}
        if not found:
            have = sorted({case.facts.get("source", "") or "none stated" for case in cohort})
            raise CohortError(
                f"Cohort {cohort.name!r} has no case from {word!r}; its sources are {', '.join(have)}.",
                "Import that data set too, or leave this row out.",
            )
        kept |= found
    return cohort.where(lambda case: case.case_id in kept)


def limit_per_class(cohort: Cohort, n: int | None, splits: Sequence[str], seed: int) -> Cohort:
    """The cohort with at most n training images of each class, by a seeded permutation; other splits untouched."""
    if n is None:
        return cohort
    keep: set[str] = set()
    for index, label in enumerate(cohort.classes):
        ids = [case.case_id for case in cohort.split(*splits) if case.label == label]
        keep |= {ids[i] for i in np.random.default_rng([seed, index]).permutation(len(ids))[:n]}
    return cohort.where(lambda case: case.split not in splits or case.case_id in keep)


COUNT_TRIES = 64


def split_by_counts(
    cohort: Cohort,
    counts: Mapping[str, int],
    *,
    task: Task | None = None,
    validation: float = 0.125,
    seed: int = 0,
) -> Cohort:
    """Draw a test part with so many images of each class, whole patients only; the others are dealt as everywhere.

    As Jimenez-Sanchez 2018 tests: 115 and 115 of two classes, 55, 60 and 60 of three, 25, 25, 5, 20, 20 and 20 of six.

    Args:
        cohort: cases; splits they have are replaced.
        counts: test images by class; classes that are not named give none. Patients of whom the task has no image stay
            out of the test part.
        task: whose classes are counted; None: the cohort's own.
        validation: share of what is left.
        seed: of the random orders.

    Raises:
        CohortError: a class that is not there, or counts that no drawing of whole patients reached.
    """
    seen = cohort if task is None else task.apply(cohort)
    strange = [name for name in counts if name not in seen.classes]
    if strange or not counts or min(counts.values()) < 0 or not 0.0 <= validation < 1.0:
        raise CohortError(
            f"Test counts are numbers of images by class; got {dict(counts)} and validation {validation} for the "
            f"classes {', '.join(seen.classes)}.",
            "For example normal=60 A=55 B=60.",
        )
    wanted = np.array([counts.get(name, 0) for name in seen.classes])
    have: dict[str, NDArray[np.int64]] = {}
    for case in seen:
        have.setdefault(case.patient_id, np.zeros(len(seen.classes), dtype=np.int64))[seen.class_index(case.label)] += 1
    patients, random = sorted(have), np.random.default_rng(seed)
    best, short = set[str](), int(wanted.sum())
    for _ in range(COUNT_TRIES):
        left, chosen = wanted.copy(), set[str]()
        for n in random.permutation(len(patients)):
            if (have[patients[n]] <= left).all():
                left, chosen = left - have[patients[n]], chosen | {patients[n]}
        if int(left.sum()) < short:
            best, short = chosen, int(left.sum())
        if short == 0:
            break
    if short:
        reached = sum((have[patient] for patient in best), np.zeros_like(wanted))
        raise CohortError(
            f"No drawing of whole patients gives these test counts; nearest is "
            f"{', '.join(f'{name}={n}' for name, n in zip(seen.classes, reached, strict=True))}.",
            "Ask for counts that the patients can give.",
        )
    rest = split_cohort(
        cohort.where(lambda case: case.patient_id not in best), (1.0 - validation, validation, 0.0), seed
    )
    parts = {case.case_id: case.split for case in rest}
    cases = tuple(replace(case, split=parts.get(case.case_id, "test")) for case in cohort)
    words = ", ".join(f"{name} {n}" for name, n in counts.items())
    about = (
        f"test {words}; of the others train {1.0 - validation:g}, val {validation:g}; grouped by patient, seed {seed}"
    )
    result = replace(cohort, cases=cases, about={**cohort.about, "split": about})
    refuse_leakage(result)
    return result


def read_groups(path: Path, key: str, columns: Sequence[str] | None = None) -> dict[str, str]:
    """Group per image: images that share a value in any column, directly or through others, are one group.

    Args:
        path: CSV table with one row an image.
        key: the column that names the image.
        columns: grouping columns; default those of GROUPING that the table has. What stands for an
            empty cell (`nan`, `n/a`) joins nothing.

    Returns:
        Image -> the group, called after its first image in sorted order.

    Raises:
        LayoutError: a missing table or column, or no grouping column at all.
    """
    from sightline.io.tables import read_table, reduce_name  # trainings that split do without

    rows = read_table(path, [key, *(columns or [])], key=key)
    there = [column for column in (rows[0].cells if rows else {}) if column != key]
    forms = {reduce_name(name) for name in GROUPING}
    columns = columns or [column for column in there if reduce_name(column) in forms]
    if not columns:
        raise LayoutError(
            f"{path} has no column that is known to group images; beside {key!r} it has {there}.",
            "Name the columns whose values images of one patient share: --group-by; or call one patient_id.",
        )
    # what programs write for an empty cell would make strangers one patient
    cells = {row[column] for row in rows for column in columns}
    none = {"", "None", "none", *find_placeholders(cells)}
    return join_groups(
        {
            row[key]: [(column, normalise_form(row[column])) for column in columns if row[column] not in none]
            for row in rows
        }
    )


def join_groups(memberships: dict[str, list[tuple[str, str]]]) -> dict[str, str]:
    """Connected components of images that share a (column, value) pair; see `read_groups`."""
    parent: dict[object, object] = {}

    def find_root(node: object) -> object:
        while parent.setdefault(node, node) != node:
            parent[node] = node = parent[parent[node]]
        return node

    for image, marks in memberships.items():
        for mark in marks:
            parent[find_root(mark)] = find_root((image,))
    named: dict[object, str] = {}
    return {image: named.setdefault(find_root((image,)), image) for image in sorted(memberships)}


def assign_groups(groups: dict[str, str] | None, images: Sequence[str], path: Path) -> dict[str, str]:
    """The group of each image; without groups every image is its own.

    Raises:
        LayoutError: images that the table does not name.
    """
    if groups is None:
        return {image: image for image in images}
    from sightline.io.tables import unify_key

    known = {unify_key("file", image): group for image, group in groups.items()}
    found = {image: groups.get(image) or known.get(unify_key("file", image), "") for image in images}
    missing = [image for image, group in found.items() if not group]
    if missing:
        raise LayoutError(
            f"{path} does not name {count_noun(len(missing), 'image')}, e.g. {missing[:3]}.",
            "Give every image a row and a group.",
        )
    return found
