"""What would spoil a result: leakage, duplicates, broken pictures, misplaced marks, missing classes, shortcuts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sightline.data.audit.image_checks import CohortLook, look_at_cohort
from sightline.data.audit.near_duplicates import AlikePair, find_duplicates
from sightline.data.audit.shortcuts import build_fact_columns, find_one_class_facts, rank_shortcuts
from sightline.data.split import find_leaking_patients, find_mixed_studies
from sightline.errors import count_noun
from sightline.structures.case import SPLITS, Case, Cohort
from sightline.structures.identifiers import find_placeholders, group_alike_names

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
SHORTCUT_AUC = 0.6


@dataclass(frozen=True)
class Finding:
    """One thing the audit found.

    Attributes:
        kind: short name, listed in docs/cohorts.md.
        severity: `error` would spoil a result (exit 1), `warning` may, `note` is to be known.
        cases: ids of the cases it concerns.
        message: what was found, with numbers.
        remedy: what to do about it.
    """

    kind: str
    severity: Severity
    cases: tuple[str, ...]
    message: str
    remedy: str

    def __str__(self) -> str:
        """The finding in one line."""
        line = f"{self.severity}: {self.kind}: {self.message} Remedy: {self.remedy}"
        return " ".join(line.split())


def audit(
    cohort: Cohort, processes: int = 1, progress: Callable[[int, int], None] | None = None
) -> tuple[Finding, ...]:
    """Everything the audit finds, errors first; every picture is read once.

    Args:
        cohort: what to check.
        processes: for reading and for the forests; 1 works in this process. The findings do not depend on it.
        progress: called with (done, all) after each picture.
    """
    if not len(cohort):
        return (Finding("empty", "error", (), f"Cohort {cohort.name!r} has no cases.", "Check the import."),)
    look = look_at_cohort(cohort, processes, progress)
    findings = [
        *_check_splits(cohort),
        *_report_unreadable(cohort, look),
        *_check_sizes(cohort, look),
        *_check_extents(cohort),
        *_check_duplicates(cohort, look),
        *_check_regions(cohort, look),
        *_check_shortcuts(cohort, look, processes),
    ]
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def _list_some(items: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return "; ".join(items[:limit]) + more


def _format_size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def describe_placeholders(cohort: Cohort) -> list[str]:
    """Classes, and patients of several studies, whose names stand for an empty cell, in words."""
    words = [f"The class {name!r} reads like an empty cell." for name in find_placeholders(cohort.classes)]
    if cohort.classes == ("unknown",):  # imported without labels
        words = []
    studies: dict[str, set[str]] = {}
    for case in cohort:
        studies.setdefault(case.patient_id, set()).add(case.study_id)
    for name in find_placeholders(studies):
        if len(studies[name]) > 1:
            words.append(
                f"The patient {name!r} reads like an empty cell: its {len(studies[name])} studies count as one patient."
            )
    return words


def describe_leakage(cohort: Cohort) -> list[tuple[str, tuple[str, ...]]]:
    """Patients, else studies, that lie in more than one split, in words, and their cases; nothing where none does."""
    by_study = replace(cohort, cases=tuple(replace(case, patient_id=case.study_id) for case in cohort))
    patients, studies = find_leaking_patients(cohort), find_leaking_patients(by_study)
    words = []
    for found, noun in ((patients, "patient"), ({} if patients else studies, "study")):
        if found:
            named = [f"{one} ({' and '.join(parts)})" for one, parts in found.items()]
            many = count_noun(len(found), noun, "studies" if noun == "study" else "")
            ids = tuple(case.case_id for case in cohort if {case.patient_id, case.study_id} & found.keys())
            words.append((f"{many} in more than one split: {_list_some(named)}.", ids))
    return words


# training and evaluation refuse what is not split again
SPLIT_AGAIN = "Split again by patient: `sightline cohort split SRC DEST`, or an import without splits of its own."


def _check_splits(cohort: Cohort) -> list[Finding]:
    findings = []
    for message, ids in describe_leakage(cohort):
        findings.append(Finding("leakage", "error", ids, message, SPLIT_AGAIN))
    if mixed := find_mixed_studies(cohort):
        named = [f"{study} ({' and '.join(labels)})" for study, labels in mixed.items()]
        ids = tuple(case.case_id for case in cohort if case.study_id in mixed)
        message = f"The views of {count_noun(len(mixed), 'study', 'studies')} differ in label: {_list_some(named)}."
        remedy = "Give a study one label, or every image a study of its own: evaluate judges studies and refuses these."
        findings.append(Finding("study-labels", "error", ids, message, remedy))
    raw = [c.case_id for c in cohort if c.facts.get("presentation_intent", "").upper() == "FOR PROCESSING"]
    if raw:
        message = f"{count_noun(len(raw), 'image is', 'images are')} FOR PROCESSING, raw values of a detector: "
        message += f"{_list_some(raw)}."
        remedy = "Take the images FOR PRESENTATION of the same exposures, or none but raw ones."
        findings.append(Finding("for-processing", "warning", tuple(raw), message, remedy))
    if alike := group_alike_names(sorted({case.patient_id for case in cohort})):
        named = [" and ".join(sorted(ids)) for ids in alike]
        message = f"{count_noun(len(alike), 'group')} of patients whose ids differ in case, marks, blanks or leading "
        message += "zeros alone: "
        remedy = "If they are one person, write the id one way and split again: the same person may be in two splits."
        findings.append(Finding("alike-patients", "warning", (), f"{message}{_list_some(sorted(named))}.", remedy))
    for names in group_alike_names(cohort.classes):
        message = f"The classes {' and '.join(map(repr, names))} differ in letters that look alike, or in case, alone."
        findings.append(Finding("alike-classes", "warning", (), message, "Write a label one way."))
    remedy = "Fill these cells, or leave the images out."
    findings += [Finding("placeholder", "warning", (), words, remedy) for words in describe_placeholders(cohort)]
    if cohort.about.get("patients", "").startswith("WARNING"):
        message = f"Patients are not known ({cohort.about['patients']})."
        findings.append(Finding("patients-unknown", "warning", (), message, "Add a table that groups the images."))
    unassigned = tuple(case.case_id for case in cohort if case.split is None)
    if len(unassigned) == len(cohort):
        message = "No case is assigned to a split."
        return [*findings, Finding("unsplit", "note", (), message, "Split the cohort before training on it.")]
    if unassigned:
        message = f"{count_noun(len(unassigned), 'case')} in no split: {_list_some(unassigned)}."
        findings.append(Finding("unsplit", "warning", unassigned, message, "Assign them or remove them."))
    alone = all(case.split == "test" for case in cohort)  # as another place's cases are brought: to be tested on
    if alone:
        message = "All cases are in the test split: they can be tested on, and nothing can be trained."
        remedy = "Split again if they are to be trained on, too."
        findings.append(Finding("class-missing", "note", (), message, remedy))
    for split in SPLITS if not alone else ("test",):
        part = cohort.split(split)
        missing = [name for name, n in part.counts().items() if n == 0]
        if not missing:
            continue
        severity: Severity = "error" if split == "train" else "warning"
        what = "is empty" if not len(part) else f"has no case of {_list_some([repr(name) for name in missing])}"
        remedy = "Split again with a larger share, or collect cases of this class."
        findings.append(Finding("class-missing", severity, (), f"The {split} split {what}.", remedy))
    return findings


def _report_unreadable(cohort: Cohort, look: CohortLook) -> list[Finding]:
    if not look.unreadable:
        return []
    message = f"{count_noun(len(look.unreadable), 'picture')} cannot be read: {_list_some([*look.unreadable.values()])}"
    remedy = "Export these pictures again or remove their rows."
    return [Finding("unreadable", "error", tuple(cohort[i].case_id for i in look.unreadable), message, remedy)]


def _check_sizes(cohort: Cohort, look: CohortLook) -> list[Finding]:
    wrong = [
        (case, case.shape, shape)
        for case, shape in zip(cohort, look.shapes, strict=True)
        if shape is not None and case.shape is not None and case.shape != shape
    ]
    if not wrong:
        return []
    named = [f"{case.case_id} stated {_format_size(stated)}, is {_format_size(shape)}" for case, stated, shape in wrong]
    message = f"{count_noun(len(wrong), 'image')} of another size than stated: {_list_some(named)}."
    remedy = "Regions were drawn on another picture: restore it, or correct the sizes and check the regions."
    return [Finding("size", "error", tuple(case.case_id for case, _, _ in wrong), message, remedy)]


# no detector or scanner images more than three metres at once, and no patient's picture shows less than a millimetre
EXTENT_MM = (1.0, 3000.0)


def _check_extents(cohort: Cohort) -> list[Finding]:
    """Pictures whose size in millimetres is that of none: a spacing in other units, or of another grid."""
    absurd: dict[str, str] = {}
    for case in cohort:
        if case.shape is None or case.spacing_mm is None:
            continue
        sides = [n * mm for n, mm in zip(case.shape, case.spacing_mm, strict=True)]
        if max(sides) > EXTENT_MM[1] or max(sides) < EXTENT_MM[0]:
            absurd[case.case_id] = f"{case.case_id} measures {' x '.join(f'{side:.4g}' for side in sides)} mm"
    if not absurd:
        return []
    message = f"{count_noun(len(absurd), 'image')} of a size that none has: {_list_some([*absurd.values()])}."
    remedy = "The spacing is wrong, or in other units: correct or remove it; lengths in mm would be wrong."
    return [Finding("spacing", "warning", tuple(absurd), message, remedy)]


_DUPLICATE_KINDS: dict[str, tuple[str, Severity, str, str]] = {
    "labels": ("duplicate-labels", "error", "with opposite labels", "Keep the right one of each pair."),
    "splits": ("duplicate-splits", "error", "in different splits", "Group them and split again."),
    "within": ("duplicate", "warning", "in the cohort twice", "Keep one of each; they count twice."),
}


def _check_duplicates(cohort: Cohort, look: CohortLook) -> list[Finding]:
    cases = [cohort[i] for i in look.read]
    splits = [-1 if case.split is None else SPLITS.index(case.split) for case in cases]
    number = {name: i for i, name in enumerate(cohort.classes)}
    pairs_of = find_duplicates(look.differences, look.thumbnails, [number[c.label] for c in cases], splits)
    findings = []
    for what, (kind, severity, text, remedy) in _DUPLICATE_KINDS.items():
        pairs = pairs_of[what]
        if pairs.count:
            named = [_describe_alike(pair, cases, what) for pair in pairs.examples]
            more = f" and {pairs.listed - len(named)} more" if pairs.listed > len(named) else ""
            message = f"{count_noun(pairs.count, 'pair')} of near-identical pictures {text}: {'; '.join(named)}{more}."
            ids = tuple(case.case_id for case, is_in in zip(cases, pairs.members, strict=True) if is_in)
            findings.append(Finding(kind, severity, ids, message, remedy))
    return findings


def _describe_alike(pair: AlikePair, cases: Sequence[Case], what: str) -> str:
    """`a (train) = b (test)`, with a count where equal pictures are told through one of them."""
    both = [cases[pair.first], cases[pair.second]]
    if what == "within":
        names = [case.case_id for case in both]
    else:
        names = [f"{case.case_id} ({case.label if what == 'labels' else case.split})" for case in both]
    return " = ".join(names) + (f" ({pair.alike} pictures that are alike)" if pair.alike > 2 else "")


_REGION_KINDS: dict[str, tuple[Severity, str]] = {
    "region-label": ("error", "Add the class to the cohort, or fix the label of the region."),
    "region-unreadable": ("error", "Export these masks again."),
    "region-empty": ("error", "Remove these regions, or draw them."),
    "region-size": ("error", "Draw masks on the picture itself, pixel for pixel."),
    "region-outside": ("error", "Check the order (row, column) and the size the regions were drawn at."),
    "region-partly-outside": ("warning", "Clip the regions, or check the size they were drawn at."),
    "region-other-class": ("warning", "Check the label of the image."),
    "region-everything": ("warning", "If it is a mask, check that it is black outside the mark, and opaque."),
    "region-tiny": ("warning", "Check that coordinates are pixels, not shares of the size."),
    "region-twice": ("warning", "Remove one of each: a finding that is marked twice counts twice."),
}


def _check_regions(cohort: Cohort, look: CohortLook) -> list[Finding]:
    faults: dict[str, list[tuple[str, str]]] = {}
    for position, kind, what in look.region_faults:
        faults.setdefault(kind, []).append((cohort[position].case_id, what))
    findings = []
    for kind, (severity, remedy) in _REGION_KINDS.items():
        if found := faults.get(kind):
            ids = tuple(dict.fromkeys(case_id for case_id, _ in found))
            message = f"{count_noun(len(found), 'region')} on {count_noun(len(ids), 'image')}: "
            message += f"{_list_some([f'{i}: {what}' for i, what in found])}."
            findings.append(Finding(kind, severity, ids, message, remedy))
    return findings


def _check_shortcuts(cohort: Cohort, look: CohortLook, processes: int) -> list[Finding]:
    # the test split may be free of a shortcut on purpose; what matters is what a network can learn
    seen = np.array([cohort[i].split != "test" for i in look.read], dtype=bool)
    if not seen.any():
        return []
    cases = [cohort[i] for i in look.read[seen]]
    where = f"among {count_noun(len(cases), 'image')} outside the test split"
    findings = []
    storages = [storage for storage, inside in zip(look.storages, seen, strict=True) if inside]
    findings += _describe_storages(cases, storages, where)
    for fact in find_one_class_facts(cases, storages=storages):
        message = (
            f"{fact.fact} = {fact.value} occurs only with {fact.label!r}: {count_noun(len(fact.case_ids), 'image')} of "
            f"{count_noun(fact.patients, 'patient')}, {where}."
        )
        remedy = "Leave these images out, or collect images of the other classes with it."
        findings.append(Finding("one-class-fact", "warning", fact.case_ids, message, remedy))
    names = {label: i for i, label in enumerate(dict.fromkeys(case.label for case in cases))}
    labels = np.array([names[case.label] for case in cases])
    columns = build_fact_columns(cases, {name: values[seen] for name, values in look.measures.items()}, storages)
    tested = rank_shortcuts(columns, labels, [case.patient_id for case in cases], processes=processes)
    strong = [s for s in tested if s.low > SHORTCUT_AUC]
    for shortcut in strong:
        message = (
            f"{shortcut.facts} alone predict the label with AUC {shortcut.auc:.2f} "
            f"({shortcut.low:.2f} to {shortcut.high:.2f}), {where}."
        )
        remedy = "Compare every result with this number, and test on a cohort without this tie."
        findings.append(Finding("shortcut", "warning", (), message, remedy))
    if tested and not strong:
        message = f"Acquisition facts alone predict the label with AUC {tested[0].auc:.2f} "
        message += f"({tested[0].low:.2f} to {tested[0].high:.2f}), {where}."
        findings.append(Finding("shortcut-none", "note", (), message, "Report it beside the results."))
    if not tested and len(Counter(case.label for case in cases)) > 1:
        message = f"Shortcuts were not tested: too few patients a class, or too few images, {where}."
        findings.append(Finding("shortcut-untested", "note", (), message, "At least 40 images, 5 patients a class."))
    return findings


# ways of storing pictures that are told: of this share of the images, and of as many
SOURCE_SHARE, SOURCE_IMAGES = 0.05, 20


def _describe_storages(cases: Sequence[Case], storages: Sequence[str], where: str) -> list[Finding]:
    """Pictures stored in several ways were perhaps made at several places, which no column may say."""
    held: dict[str, list[Case]] = {}
    for case, storage in zip(cases, storages, strict=True):
        held.setdefault(storage, []).append(case)
    many = sorted((w for w, of in held.items() if len(of) >= max(SOURCE_IMAGES, SOURCE_SHARE * len(cases))), key=str)
    if len(many) < 2:
        return []
    rarest = min(Counter(case.label for case in cases).items(), key=lambda item: item[1])[0]
    ways = (f"{w} ({len(held[w])} images, {np.mean([c.label == rarest for c in held[w]]):.0%} {rarest})" for w in many)
    message = f"Pictures are stored in {len(many)} ways, {where}: {'; '.join(ways)}."
    remedy = "They may come from several places: ask, and test on one that training has not seen."
    return [Finding("storages", "note", (), message, remedy)]
