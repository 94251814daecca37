"""Whether a run knows the cases it is evaluated on: a result on what was trained on says nothing of what was not."""

from __future__ import annotations

from collections.abc import Mapping

from sightline.errors import CohortError, count_noun
from sightline.io.files import fingerprint_file
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
