"""Whether a run knows the cases it is evaluated on, and how its numbers change where it knows none of them.

A result on what was trained on says nothing of what was not; one on another site says most beside the own test's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from sightline.errors import CohortError, SightlineError, count_noun
from sightline.evaluation.result import name_evaluation_folder, read_capsule_digest, read_evaluated_cohort
from sightline.io.files import fingerprint_file
from sightline.metrics.classification.scores import Brier
from sightline.metrics.estimate import Estimate
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.bootstrap import score_point
from sightline.structures.case import Cohort
from sightline.structures.identifiers import normalise_form
from sightline.training.run import Run, hash_patient_id


def describe_known_cases(run: Run, cohort: Cohort) -> tuple[str, ...]:
    """What a run has seen of a cohort, in sentences; none where it has seen nothing of it.

    Pictures are known by their bytes, whatever they are called; patients by their ids; of runs without marks of both,
    cases by their ids in a cohort of the same name.

    Args:
        run: a finished run.
        cohort: the cases that it is to be evaluated on.

    Example:
        >>> describe_known_cases(sl.load_run(run_folder), sl.read_cohort(cohort_folder).split("test"))
        ()
    """
    cases, (seen, selected, relatives) = count_noun(len(cohort), "case"), _count_cases(run, cohort)
    words = []
    if seen:
        words.append(f"{seen} of {cases} {'was' if seen == 1 else 'were'} trained on, so the numbers are too good.")
    if relatives:
        verb = "has" if relatives == 1 else "have"
        words.append(f"{relatives} of {cases} {verb} the id of a patient that was trained on, in other pictures.")
    if selected and run.recipe.select != "last":
        words.append(f"{selected} of {cases} chose the epoch whose weights were kept (select={run.recipe.select!r}).")
    return tuple(f"WARNING: {word}" for word in words)


def refuse_trained_on(run: Run, cohort: Cohort, what: str) -> None:
    """Refuse cases that a run was trained on where something is to be fixed on cases that it does not know.

    Raises:
        CohortError: some were; it says how many.
    """
    seen = _count_cases(run, cohort)[0]
    if seen:
        raise CohortError(
            f"{seen} of {len(cohort)} {what} of cohort {cohort.name!r} were trained on: nothing can be fixed on them.",
            "Name the cohort that the run was trained on, or studies that it has never seen.",
        )


def name_predictions(run: Run, cohort: Cohort, name: str) -> str:
    """What a run's `predictions/` call its answers on cases, so that those on its own are never replaced by others'.

    Args:
        run: a finished run, or one from a capsule, whose predictions have the one name.
        cohort: the cases, as the run sees them (`Recipe.see`).
        name: `train`, `val`, `test` or `all`.

    Returns:
        The name for the run's own cases of it, and where what is kept under it was made of these; else
        NAME_FINGERPRINT.
    """
    fingerprint = cohort.fingerprint()
    kept = read_evaluated_cohort(run.folder / "predictions", name)
    if kept == fingerprint or _is_own_split(run, cohort, name) or read_capsule_digest(run.folder) is not None:
        return name
    return f"{name}_{fingerprint}"


def _is_own_split(run: Run, cohort: Cohort, name: str) -> bool:
    """Whether cases are those of a split of the run's own cohort, by ids and pictures; without marks of these, by ids
    in a cohort of the same name."""
    splits: Mapping[str, str | None] = run.cohort.get("split", {})
    pictures: Mapping[str, str] = run.cohort.get("pictures", {})
    if {i for i, split in splits.items() if name in ("all", split)} != {case.case_id for case in cohort}:
        return False
    if not pictures:
        return run.cohort.get("name") == cohort.name
    return all(fingerprint_file(case.image) == pictures.get(case.case_id) for case in cohort)


def _count_cases(run: Run, cohort: Cohort) -> tuple[int, int, int]:
    """How many cases were trained on, chose the epoch, or are of patients that were trained on in other pictures."""
    splits: Mapping[str, str | None] = run.cohort.get("split", {})
    pictures: Mapping[str, str] = run.cohort.get("pictures", {})
    patients: Mapping[str, str] = run.cohort.get("patients", {})
    trained = {case_id for case_id, split in splits.items() if split in run.recipe.train_on}
    chosen = {case_id for case_id, split in splits.items() if split == "val"} - trained
    of_trained = {pictures[i] for i in trained if pictures.get(i)}
    of_chosen = {pictures[i] for i in chosen if pictures.get(i)} - of_trained
    known_patients = {patients[i] for i in trained if i in patients}
    same_name = run.cohort.get("name") == cohort.name
    ids = {normalise_form(i) for i in trained}
    ids_chosen = {normalise_form(i) for i in chosen}
    seen, selected, relatives = 0, 0, 0
    for case in cohort:
        mark = fingerprint_file(case.image) if pictures else ""
        by_id = not pictures and same_name
        if mark in of_trained or (by_id and normalise_form(case.case_id) in ids):
            seen += 1
        elif mark in of_chosen or (by_id and normalise_form(case.case_id) in ids_chosen):
            selected += 1
        elif hash_patient_id(case.patient_id) in known_patients:
            relatives += 1
    return seen, selected, relatives


def describe_changes(run: Run, cohort: Cohort, estimates: Sequence[Estimate]) -> tuple[str, ...]:
    """How each number changes from the run's own test split, as a section for the report; what is missing for it, else.

    Both intervals are put together as of two groups of patients that share none (MOVER: Newcombe 1998, method 10).

    Args:
        run: a finished run.
        cohort: the cases it was evaluated on.
        estimates: the numbers there.

    Returns:
        Nothing where the run has a part in these cases: any of them is a case of its own cohort.
    """
    own: Mapping[str, str | None] = run.cohort.get("split", {})
    if not own or _has_own_case(run, cohort):
        return ()
    folder = name_evaluation_folder(run.folder, str(run.cohort.get("name")), "test")
    found = _read_own_numbers(folder, {case_id for case_id, split in own.items() if split == "test"})
    again = "(`sightline evaluate RUN --cohort ITS_COHORT`), and this page will say how each number changes."
    if found is None:
        return (f"These are no cases of the run's own cohort. Evaluate its own test split as well {again}",)
    numbers, predictions = found
    if not _is_calibrated_alike(run, numbers, predictions):
        return (
            "The run's own test split was evaluated under another calibration than these cases, so that the two do "
            f"not compare. Evaluate it again {again}",
        )
    rows = [line for e in estimates if (before := numbers.get(e.name)) and (line := _describe_change(e, before))]
    head = ["| measure | own test | here | change (95%) |", "|---|---|---|---|"]
    about = f"Numbers of {folder.name}, and how they change here; intervals of two groups of patients put together."
    return ("\n".join(["## Beside the run's own test", "", about, "", *head, *rows]),) if rows else ()


def _has_own_case(run: Run, cohort: Cohort) -> bool:
    """Whether any case is one of the run's own cohort: of this name, with this id and, where its mark is kept, this
    picture. Another place's cohort may well be called `images`, and its cases `1`, `2`, `3`.
    """
    own, pictures = run.cohort.get("split", {}), run.cohort.get("pictures", {})
    if run.cohort.get("name") != cohort.name:
        return False
    alike = (case for case in cohort if case.case_id in own)
    return any(pictures.get(c.case_id) in (None, "", fingerprint_file(c.image)) for c in alike)


def _read_own_numbers(folder: Path, test: set[str]) -> tuple[dict[str, Estimate], Predictions] | None:
    """The numbers of an evaluation of just these cases, by name, and what was said; None where there is none."""
    try:
        predictions = Predictions.read(folder / "test.csv")
        found = [Estimate.from_dict(fields) for fields in json.loads((folder / "metrics.json").read_text("utf-8"))]
    except (SightlineError, OSError, ValueError, TypeError, KeyError):
        return None
    return ({estimate.name: estimate for estimate in found}, predictions) if set(predictions.case_ids) == test else None


def _is_calibrated_alike(run: Run, numbers: Mapping[str, Estimate], predictions: Predictions) -> bool:
    """Whether numbers come from what was said, as the run is calibrated now: other maps move the Brier score."""
    before, record = numbers.get("Brier score, image-wise"), run.calibration
    if before is None or before.value is None:
        return True
    now = score_point(Brier(), predictions if record is None else record.apply(predictions))
    return math.isclose(now, before.value, abs_tol=1e-9)


def _describe_change(here: Estimate, before: Estimate) -> str:
    if here.value is None or before.value is None:
        return ""
    change, interval = here.value - before.value, ""
    if here.low is not None and here.high is not None and before.low is not None and before.high is not None:
        low = change - math.hypot(here.value - here.low, before.high - before.value)
        high = change + math.hypot(here.high - here.value, before.value - before.low)
        interval = f" ({low:+.3f} to {high:+.3f})"
    return f"| {here.name} | {before.value:.3f} | {here.value:.3f} | {change:+.3f}{interval} |"
