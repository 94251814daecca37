"""A capsule judged: whether its files are whole and belong together, and whether its numbers come out again.

What can be found: any changed byte (checksums); and of a forger who mends the checksums, any number, prediction, label,
patient, split, score or recipe that does not fit the rest. What cannot: a forgery that is consistent throughout. For
that, compare the capsule's digest with the one that was published beside the numbers.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sightline.errors import SightlineError, count_noun
from sightline.evaluation.evidence.capsule import (
    TABLE,
    Capsule,
    list_file_names,
    make_temporary_folder,
    require_capsule_file,
    unpack_capsule,
)
from sightline.evaluation.result import Evaluation
from sightline.evaluation.tables.lines import Line, read_lines
from sightline.evaluation.tables.provenance import CASES, format_cases, read_cases, read_result, read_sources
from sightline.evaluation.tables.summary import summarise
from sightline.evaluation.tables.table import Row, TableResult
from sightline.metrics.calibration.record import CalibrationRecord
from sightline.metrics.statistics.comparison import welch
from sightline.structures.case import Cohort
from sightline.training.run import compute_code_digest, digest_identity, hash_patient_id
from sightline.training.serialization import Catalogue

TOLERANCE = 1e-9
# more than anyone uses; a capsule that asks for more would keep a reviewer's machine busy for days
# a paper's numbers are not computed here
_NOT_COMPUTED = ("published",)


@dataclass(frozen=True)
class Verdict:
    """What verification found.

    Attributes:
        capsule: what was judged; None where it did not even unpack.
        problems: what is wrong, worst first; none: every number came out again.
        numbers: how many numbers were computed again.
        facts: which split chose what, and how the capsule was made.
    """

    capsule: Capsule | None
    problems: tuple[str, ...]
    numbers: int = 0
    facts: tuple[str, ...] = field(default_factory=tuple)

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_capsule(path: Path, catalogue: Catalogue, *, published: str | None = None) -> Verdict:
    """Unpack a capsule and compute every number of it again.

    Args:
        path: the capsule.
        catalogue: words of recipes.
        published: the digest that was printed beside the numbers, or its first twelve digits or more; None: not known.

    Raises:
        RunError: there is no such file: nothing was judged.
    """
    require_capsule_file(path)
    with make_temporary_folder(path) as place:
        folder = Path(place)
        try:
            capsule = unpack_capsule(path, folder)
        except SightlineError as error:
            return Verdict(None, (error.message,))
        problems: list[str] = []
        if published is not None and (len(published) < 12 or not capsule.digest.startswith(published.lower())):
            problems.append(f"the capsule's digest is {capsule.digest}; {published} was published")
        try:
            result = read_result(folder, catalogue)
            sources = read_sources(folder)
            problems += _check_belonging(folder, result, sources)
            problems += _check_teachers(folder, sources)
            problems += _list_strange_files(folder, sources)
            problems += _list_doubled_fields(folder)
            lines = read_lines(folder / TABLE)
            again = summarise(result, replicates=sources["replicates"])
            problems += _compare_lines(lines, again)
            numbers = sum(len(_list_numbers(line)) for line in again)
            return Verdict(capsule, tuple(problems), numbers, tuple(_describe_facts(folder, result, sources, lines)))
        except SightlineError as error:
            return Verdict(capsule, (*problems, error.message))
        except (
            KeyError,
            TypeError,
            ValueError,
            IndexError,
            AttributeError,
            StopIteration,
            ArithmeticError,
            RecursionError,
            MemoryError,
        ) as error:
            # files of a stranger that parse and mean nothing
            return Verdict(capsule, (*problems, f"its files do not fit together ({type(error).__name__}: {error})"))


def _check_belonging(folder: Path, result: TableResult, sources: Mapping[str, Any]) -> list[str]:
    """Runs are what their names say, cases and splits agree, patients are in one split, tests hold the test cases."""
    problems = []
    cohort = read_cases(folder / CASES, sources)
    if format_cases(cohort) != (folder / CASES).read_text(encoding="utf-8"):
        problems.append(f"{CASES} is not written as this program writes it")
    problems += _check_patients(cohort)
    for row in result.rows:
        if row.folders and len(row.folders) != len(sources["seeds"]):
            problems.append(f"row {row.row.name} has {len(row.folders)} runs for {len(sources['seeds'])} seeds")
        if len(set(row.folders)) != len(row.folders):
            problems.append(f"row {row.row.name} counts a run twice")
        for seed, run in zip(sources["seeds"], row.folders, strict=False):
            problems += _check_run(run, cohort, row.row, seed + row.row.seed_offset)
            title = json.loads((run / "recipe.json").read_text(encoding="utf-8")).get("title")
            if title != f"{row.row.name}, seed {seed}":
                problems.append(f"run {run.name} of row {row.row.name}, seed {seed}, was trained as {title!r}")
        for test, evaluations in row.evaluations.items():
            for run, evaluation in zip(row.folders, evaluations, strict=True):
                if test == "test":
                    problems += _check_test_cases(
                        f"{run.name} of {row.row.name}", evaluation.predictions, cohort, row.row
                    )
                strange = _list_scored(evaluation) - set(evaluation.predictions.case_ids)
                if strange:
                    problems.append(f"{run.name}: scores of {sorted(strange)[0]}, which was not predicted")
    return problems


def _list_scored(evaluation: Evaluation) -> set[str]:
    """Cases that maps, boxes or gaze are scored on."""
    maps, boxes, gaze = evaluation.map_scores, evaluation.box_scores, evaluation.gaze_scores
    found = set() if maps is None else {row.case_id for row in maps.rows}
    found |= set() if boxes is None else {case.case_id for case in boxes.cases}
    return found | (set() if gaze is None else {row.case_id for row in gaze.rows})


def _check_run(run: Path, cohort: Cohort, row: Row, seed: int) -> list[str]:
    facts = json.loads((run / "cohort.json").read_text(encoding="utf-8"))
    text = (run / "recipe.json").read_text(encoding="utf-8")
    parts = facts.get("parts")
    identity = digest_identity(text, facts["fingerprint"], parts)
    problems = []
    if identity != facts["run_identity"] or run.name != facts["run_identity"]:
        problems.append(f"run {run.name} is not made of its recipe and cohort (they make {identity})")
    if json.loads(text).get("seed", seed) != seed:
        problems.append(f"run {run.name} has another seed than {seed}, which the table names")
    cases = {case.case_id: case for case in cohort}
    moved = [case for case, split in facts["split"].items() if case not in cases or cases[case].split != split]
    if moved:
        problems.append(f"run {run.name} had case {moved[0]} in split {facts['split'][moved[0]]}; the table has not")
    counted = {name: sum(facts["counts"][name].values()) for name in facts["counts"]}
    if any(counted[name] != sum(split == name for split in facts["split"].values()) for name in counted):
        problems.append(f"run {run.name} counts other numbers of cases than its splits hold")
    if not moved:
        problems += _check_cases_of_run(run.name, facts, cohort, row)
    record = CalibrationRecord.read(run)
    if record is not None and record.run != facts["run_identity"]:
        problems.append(f"run {run.name} is calibrated by the record of run {record.run}")
    return problems


def _check_cases_of_run(run: str, facts: Mapping[str, Any], cohort: Cohort, row: Row) -> list[str]:
    """Patients and labels that a run says of its cases, those it was trained on too, are the table's."""
    problems = []
    patients = {case.case_id: case.patient_id for case in cohort}
    # runs of earlier versions do not say whose their cases are
    others = [i for i, mark in facts.get("patients", {}).items() if hash_patient_id(patients.get(i, "")) != mark]
    if others:
        problems.append(f"run {run} had case {others[0]} as another patient's")
    labels = {case.case_id: case.label for case in row.recipe.see(cohort)}
    for name, counts in facts["counts"].items():
        held = Counter(labels.get(case) for case, split in facts["split"].items() if split == name)
        if held != Counter(counts):
            problems.append(f"run {run} counts other labels of its {name} cases than the table's cases have")
    return problems


def _read_parts(folder: Path, run: str) -> dict[str, str]:
    """Runs that a run is made of, or taught by: submodule or `teacher` -> identity, and of a teacher how."""
    facts = json.loads((folder / "runs" / run / "cohort.json").read_text(encoding="utf-8"))
    return {str(name): str(words) for name, words in (facts.get("parts") or {}).items()}


def _check_teachers(folder: Path, sources: Mapping[str, Any]) -> list[str]:
    """A row that names a teacher was taught by that row's run of the same seed, in these words; the others by none."""
    problems = []
    runs_of = {row["name"]: row["runs"] for row in sources["rows"]}
    for row in sources["rows"]:
        teacher_row = row.get("teacher")
        if teacher_row is not None and teacher_row not in runs_of:
            problems.append(f"row {row['name']} names the teacher {teacher_row}, which is no row of the table")
            continue
        teachers = [None] * len(row["runs"]) if teacher_row is None else runs_of[teacher_row]
        if len(teachers) != len(row["runs"]):
            problems.append(f"row {row['name']} has {len(row['runs'])} runs, its teacher {teacher_row} {len(teachers)}")
        for run, teacher in zip(row["runs"], teachers, strict=False):
            wanted = None if teacher is None else f"{teacher} {row['teaching']}"
            if (noted := _read_parts(folder, run).get("teacher")) != wanted:
                in_table = wanted or "none"
                problems.append(
                    f"run {run} of row {row['name']} was taught by {noted or 'no run'}; the table says {in_table}"
                )
    return problems


def _describe_parts(folder: Path, sources: Mapping[str, Any]) -> list[str]:
    """Rows taught by or put together from other runs, and whether those lie here to be looked at."""
    facts = []
    row_of = {run: row["name"] for row in sources["rows"] for run in row["runs"]}
    for row in sources["rows"]:
        made_of: dict[str, dict[str, None]] = {}
        for run in row["runs"]:
            for name, words in _read_parts(folder, run).items():
                part, _, how = words.partition(" ")
                source = f"row {row_of[part]}" if part in row_of else f"run {part}, which is not in this capsule"
                made_of.setdefault(name, {})[f"{source} ({how})" if how else source] = None
        for name, found in made_of.items():
            what = "learnt from marks (which are not in a capsule) by" if name == "teacher" else f"has its {name} from"
            facts.append(f"row {row['name']} {what} {' and '.join(found)}")
    return facts


def _check_patients(cohort: Cohort) -> list[str]:
    where: dict[str, set[str | None]] = {}
    for case in cohort:
        where.setdefault(case.patient_id, set()).add(case.split)
    torn = [patient for patient, splits in where.items() if len(splits) > 1]
    return [f"{count_noun(len(torn), 'patient')} in more than one split, e.g. {torn[0]}"] if torn else []


def _check_test_cases(what: str, predictions: Any, cohort: Cohort, row: Any) -> list[str]:
    tests = {case.case_id: case for case in row.recipe.see(cohort).split("test")}
    strange = [case for case in predictions.case_ids if case not in tests]
    if strange:
        return [f"{what} is tested on {strange[0]}, which is no test case"]
    missing = len(tests) - len(predictions)
    problems = []
    place = {case: i for i, case in enumerate(tests)}
    if sorted(predictions.case_ids, key=place.__getitem__) != list(predictions.case_ids):
        problems.append(f"{what} has its cases in another order than {CASES}")
    # a row that is tested on one source of several has fewer, all of them
    if missing and not row.tested_on:
        problems.append(f"{what} leaves out {missing} test cases")
    for i, name in enumerate(predictions.case_ids):
        case = tests[name]
        label = predictions.classes[predictions.labels[i]]
        if (case.study_id, case.patient_id, case.label) != (
            predictions.study_ids[i],
            predictions.patient_ids[i],
            label,
        ):
            problems.append(f"{what}: case {name} has another study, patient or label than the table's cases")
            break
    return problems


def _list_strange_files(folder: Path, sources: Mapping[str, Any]) -> list[str]:
    """Files that no number rests on: nobody computes what they say."""
    known = set(list_file_names(folder, sources))
    strange = sorted({path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - known)
    return [f"{count_noun(len(strange), 'file')} that no number comes from, e.g. {strange[0]}"] if strange else []


def _list_doubled_fields(folder: Path) -> list[str]:
    """Fields that stand twice in one object: readers differ in which of the two they believe."""
    doubled: list[str] = []

    def note_doubled(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            doubled.append(f"{path.relative_to(folder).as_posix()} says {twice[:40]} twice in one place")
        return made

    for path in sorted(folder.rglob("*.json")):
        json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=note_doubled)
    return doubled[:1]


def _compare_lines(saved: Sequence[Line], again: Sequence[Line]) -> list[str]:
    keys = [[(x.row, x.test, x.metric) for x in lines] for lines in (saved, again)]
    if keys[0] != keys[1]:
        odd = sorted({*map(str, keys[0])} ^ {*map(str, keys[1])})
        return [f"the table's lines are not those of its predictions: {odd[0] if odd else 'another order'}"]
    problems = []
    for old, new in zip(saved, again, strict=True):
        for name, value in asdict(new).items():
            if name not in _NOT_COMPUTED and not _is_same(getattr(old, name), value):
                if _is_as_formerly(name, old, new, again):
                    continue
                problems.append(
                    f"{new.row}, {new.metric} ({new.test}): {name} is {getattr(old, name)}, computed {value}"
                )
                break
    return problems


def _is_as_formerly(name: str, old: Line, new: Line, lines: Sequence[Line]) -> bool:
    """Whether earlier versions wrote this: Welch's p of all that each row has, and no word of what both rows have."""
    if name == "why":
        return old.why == new.why.partition("; compared on ")[0]
    against = (new.reference, new.test, new.metric)
    theirs = next((other.values for other in lines if (other.row, other.test, other.metric) == against), None)
    return name == "p_welch" and theirs is not None and _is_same(old.p_welch, welch(new.values, theirs).p_value)


def _is_same(a: Any, b: Any) -> bool:
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(_is_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _list_numbers(line: Line) -> list[float]:
    fields = asdict(line)
    return [*line.values, *(v for k, v in fields.items() if k != "values" and isinstance(v, float))]


def _describe_facts(folder: Path, result: TableResult, sources: Mapping[str, Any], lines: Sequence[Line]) -> list[str]:
    """Which split chose what, in words, and what was not computed."""
    cohort = result.cohort
    counts = ", ".join(f"{name} {len(cohort.split(name))}" for name in ("train", "val", "test"))
    facts = [f"cohort {cohort.name}, fingerprint {sources['cohort']['fingerprint']}: {counts} images"]
    recipes = [row.row.recipe for row in result.rows if row.folders]
    trained = dict.fromkeys(", ".join(recipe.train_on) for recipe in recipes)
    kept = dict.fromkeys("last" if recipe.select == "last" else f"best {recipe.select} on val" for recipe in recipes)
    facts.append(f"weights were trained on {' or '.join(trained)}; the epoch kept: {' or '.join(kept)}")
    if any((run / "boxes.json").is_file() for row in result.rows for run in row.folders):
        facts.append("how boxes are cut from maps was chosen on val")
    records = [CalibrationRecord.read(run) for row in result.rows for run in row.folders]
    places = [(each.about or {}).get("local") or "val" for each in records if each is not None]
    facts.append(f"{count_noun(len(places), 'run')} calibrated, thresholds chosen on {', '.join(dict.fromkeys(places))}"
                 if places else "no run is calibrated")  # fmt: skip
    tests = dict.fromkeys(test for row in result.rows for test in row.evaluations)
    facts.append(f"numbers are of {', '.join(tests)}; seeds {', '.join(map(str, sources['seeds']))}")
    for row in result.rows:
        if row.row.trained_on or row.row.tested_on:
            counts = ", ".join(str(len(each[0].predictions)) for each in row.evaluations.values())
            facts.append(f"row {row.row.name} is trained or tested on parts of the cohort: {counts} cases tested")
        if row.row.tested_on:
            facts.append(
                f"row {row.row.name}: that these are all cases from {' and '.join(row.row.tested_on)} is not checked"
            )
    facts += _describe_parts(folder, sources)
    if printed := sum(bool(line.published) for line in lines):
        facts.append(f"{count_noun(printed, 'number')} of papers stand beside them as typed: they are not computed")
    facts.append(f"made by: {sources['command']}")
    ours = compute_code_digest()
    same = "the same as here" if sources["code"] == ours else f"here it is {ours}"
    facts.append(f"code {sources['code']}, {same}")
    return facts
