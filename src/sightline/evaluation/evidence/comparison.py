"""Two methods on the same cases: every score's paired difference by every test that fits, and what a margin says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from sightline.errors import RunError, count_noun
from sightline.evaluation.evaluate import evaluate
from sightline.evaluation.overlap import describe_known_cases, name_predictions
from sightline.evaluation.result import Evaluation
from sightline.evaluation.scoring.maps import ROLES
from sightline.io.files import hold_folder, write_text
from sightline.metrics.classification.estimates import compare_scores, explain_too_few
from sightline.metrics.classification.report import format_comparisons, format_counts
from sightline.metrics.classification.scores import AUC, Accuracy, BalancedAccuracy, Brier, OneVsRestAUC
from sightline.metrics.estimate import Comparison, Score
from sightline.metrics.maps.localisation import compare_maps
from sightline.metrics.predictions import Predictions, align
from sightline.metrics.statistics.bootstrap import score_point
from sightline.metrics.statistics.comparison import holm, paired_bootstrap, paired_permutation, welch
from sightline.metrics.statistics.delong import delong
from sightline.metrics.statistics.mcnemar import mcnemar
from sightline.metrics.statistics.noninferiority import NonInferiority, assess_noninferiority, is_decided_by_few
from sightline.plots.charts import ForestRow, draw_forest
from sightline.structures.case import Cohort
from sightline.structures.identifiers import separate_names
from sightline.structures.protocols import tell_judging
from sightline.training.engine import Engine
from sightline.training.run import Run, require_each_once

MAP_MEASURES = ("pointing", "energy", "iou")


@dataclass(frozen=True)
class MethodComparison:
    """All comparisons of two methods.

    Attributes:
        names: of method a and of method b.
        leading: one comparison a score, by the test to quote (over patients and trainings).
        others: the same scores by other tests, and calls by McNemar's.
        margins: what a stated margin says of each score of `leading` where more is better.
        notes: what the reader must bear in mind.
        maps: how well maps agree with the marks of the cases, by role and measure, where both methods give maps of the
            same classes and the cases have marks.
    """

    names: tuple[str, str]
    leading: tuple[Comparison, ...]
    others: tuple[Comparison, ...]
    margins: tuple[NonInferiority, ...]
    notes: tuple[str, ...]
    maps: tuple[Comparison, ...] = ()

    def markdown(self) -> str:
        """A page."""
        lines = [f"# {self.names[0]} (a) against {self.names[1]} (b)", ""]
        lines += ["## Differences, by the test to quote", "", format_comparisons(self.leading), ""]
        if self.maps:
            lines += ["## Maps against the marks of the cases", "", format_comparisons(self.maps), ""]
        if self.margins:
            lines += ["## Non-inferiority", "", *(f"- {margin.text()}" for margin in self.margins), ""]
        lines += ["## The same by other tests", "", format_comparisons(self.others), "", *self.notes, ""]
        return "\n".join(lines)


def compare_methods(
    runs_a: Sequence[Predictions],
    runs_b: Sequence[Predictions],
    *,
    names: tuple[str, str] = ("a", "b"),
    thresholds: tuple[Sequence[float | None], Sequence[float | None]] = ((), ()),
    margin: float | None = None,
    positive: str | None = None,
    replicates: int = 2000,
) -> MethodComparison:
    """Compare the trainings of two methods on the same cases, study-wise.

    Args:
        runs_a: one table a training of method a.
        runs_b: the same cases by method b.
        names: what the methods are called.
        thresholds: from which probability each training of a, and of b, calls a study positive, for McNemar's test;
            None, or none given: the top class.
        margin: the largest loss that is accepted, or None.
        positive: the positive class; None: the last one.
        replicates: bootstrap samples and swaps.

    Raises:
        RunError: other cases, or no run.
    """
    tables = [run if run.unit == "study" else run.study_wise() for run in align([*runs_a, *runs_b])]
    a, b = tables[: len(runs_a)], tables[len(runs_a) :]
    leading, others = [], []
    for score in _choose_scores(a[0], positive):
        leading.append(compare_scores(a, b, score, swaps=replicates))
        if not explain_too_few(score, [*a, *b]):
            # in few patients of a class resamples say more than is known
            others.append(paired_bootstrap(a, b, score, replicates=replicates))
        if len(a) == len(b):
            others.append(paired_permutation(a, b, score, replicates=replicates))
        if min(len(a), len(b)) > 1:
            values = [[score_point(score, run) for run in runs] for runs in (a, b)]
            if np.isfinite([*values[0], *values[1]]).all():
                others.append(welch(*values, name=score.name))
    single = len(a) == len(b) == 1
    of_a, of_b = ([*given, *[None] * (len(runs) - len(given))] for given, runs in zip(thresholds, (a, b), strict=True))
    for k, (one, two) in enumerate(zip(a, b, strict=False), start=1):
        tag = "" if single else f", training {k} of each"
        called = of_a[k - 1], of_b[k - 1]
        each = [delong(one, two, positive=positive)] if len(one.classes) == 2 else []
        each.append(mcnemar(one, two, thresholds=called, positive=positive))
        if len(one.classes) == 2:
            each += [mcnemar(one, two, thresholds=called, positive=positive, among=name) for name in one.classes]
        others += [replace(c, name=f"{c.name}{tag}") for c in each]
    margins = (
        [] if margin is None else [assess_noninferiority(c, margin) for c in leading if not c.name.startswith("Brier")]
    )
    notes = [
        "Differences are a less b, of studies (mean probability over their views); intervals and p of the first table "
        "know of other patients and, with several trainings, of other trainings. Holm's p is corrected over its table."
    ]
    if single:
        notes.append("One training each: the chance of training is in no number here.")
    if all(threshold is None for threshold in (*of_a, *of_b)):
        notes.append(NO_THRESHOLD)
    notes += _describe_ends((*leading, *others))
    return MethodComparison(names, tuple(leading), tuple(others), tuple(margins), tuple(notes))


ENDS_AT_ZERO = (
    "An interval that ends at exactly 0 where p is 0.05 or more: the methods differ on so few patients (fewer than six "
    "in one direction) that no swap or draw of them gives less. Read it as `not told apart`."
)


NO_THRESHOLD = (
    "Calls (McNemar's test) are the most probable class: no threshold was fixed for them, as `sightline calibrate` "
    "does on validation."
)


def _describe_ends(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """A note where an interval ends at 0 because few patients differ, not because the difference just may be 0."""
    return (ENDS_AT_ZERO,) if any(is_decided_by_few(one) for one in comparisons) else ()


def compare_runs(
    runs_a: Sequence[Run],
    runs_b: Sequence[Run],
    cohort: Cohort,
    *,
    name: str = "test",
    margin: float | None = None,
    positive: str | None = None,
    replicates: int = 2000,
    engine: Engine | None = None,
    together: tuple[int, int] = (1, 1),
) -> MethodComparison:
    """Evaluate finished runs on a cohort, where that was not done before, and compare them.

    The evaluations are kept in the runs' `predictions/`: those of a run's own cases under `name`, those of others under
    `name` and the fingerprint of these cases.

    Thresholds are the operating points by Youden that `sightline calibrate` fixed for each run. Where several runs of a
    method judge `together`, those named one after the other are an ensemble: the mean of their probabilities, as
    `Ensemble` has it (Lakshminarayanan 2017), from saved predictions. Its maps are not compared.

    Args:
        runs_a: trainings of method a; of an ensemble, all members of the first one, then those of the next.
        runs_b: of method b.
        cohort: cases with the runs' classes.
        name: the split: `test`, `val`, `train` or `all`.
        margin: the largest loss that is accepted, or None.
        positive: the positive class; None: the last one.
        replicates: bootstrap samples and swaps.
        engine: device and workers.
        together: how many runs of a, and of b, make one ensemble.

    Raises:
        RunError: no run of a method, one that is not finished, one that is named twice, the same runs on both sides,
            or runs that make no whole number of ensembles.
        CohortError: a cohort of other classes.
        FolderHeld: another command writes predictions of one of the runs.
    """
    if not runs_a or not runs_b:
        raise RunError("A comparison needs runs of both methods.", "Name runs before and after --with.")
    require_each_once(runs_a)
    require_each_once(runs_b)
    if together[0] == together[1]:  # an ensemble may be compared with its members
        require_two_methods(runs_a, runs_b)
    names = name_methods((runs_a, runs_b), together)
    ours, theirs = (
        _average_members([_evaluate_alone(run, cohort, name, engine) for run in runs], members)
        for runs, members in zip((runs_a, runs_b), together, strict=True)
    )
    found = compare_methods(
        [one.predictions for one in ours],
        [one.predictions for one in theirs],
        names=(names[0], names[1]),
        thresholds=(
            [_read_youden_threshold(run, positive) for run in runs_a] if together[0] == 1 else [],
            [_read_youden_threshold(run, positive) for run in runs_b] if together[1] == 1 else [],
        ),
        margin=margin,
        positive=positive,
        replicates=replicates,
    )
    found = replace(found, maps=tuple(_compare_maps(ours, theirs, replicates)))
    found = replace(found, notes=tuple(dict.fromkeys((*found.notes, *_describe_ends(found.maps)))))
    known = dict.fromkeys(
        f"{_read_title(run)}. {word}" for run in (*runs_a, *runs_b) for word in describe_known_cases(run, cohort)
    )
    found = replace(found, notes=(*found.notes, *known))
    recorded = [run.calibration is not None for run in (*runs_a, *runs_b)]
    if any(recorded) and not all(recorded):
        words = "Some runs are calibrated and others are not: scores that use a threshold are not comparable."
        found = replace(found, notes=(*found.notes, words))
    return found


def require_two_methods(runs_a: Sequence[Run], runs_b: Sequence[Run]) -> None:
    """Refuse the same trainings as two methods: every difference would be 0, as if it had been measured.

    Raises:
        RunError: naming them.
    """
    if {run.identity for run in runs_a} == {run.identity for run in runs_b}:
        folders = ", ".join(str(run.folder) for run in runs_b)
        raise RunError(f"Both sides are the same: {folders}.", "Name the runs of another method after --with.")


def _evaluate_alone(run: Run, cohort: Cohort, name: str, engine: Engine | None) -> Evaluation:
    """The evaluation of a run, while no other command writes its predictions."""
    with hold_folder(run.folder / "predictions"):
        return evaluate(run, cohort, name_predictions(run, run.recipe.see(cohort), name), engine=engine)


def _average_members(evaluations: Sequence[Evaluation], members: int) -> list[Evaluation]:
    """Each `members` evaluations as one, whose probabilities are their mean; alone they stay as they are.

    Raises:
        RunError: they make no whole number of ensembles, or one mixes softmax and sigmoid answers.
    """
    if members == 1:
        return list(evaluations)
    if members < 1 or len(evaluations) % members:
        raise RunError(
            f"{count_noun(len(evaluations), 'run')} cannot judge together by {members}.",
            "Name all members of the first ensemble, then all of the next.",
        )
    tables = align([one.predictions for one in evaluations])
    groups = [tables[start : start + members] for start in range(0, len(tables), members)]
    if any(len({one.independent for one in group}) > 1 for group in groups):
        raise RunError(
            f"Runs that judge {' and runs that judge '.join(map(tell_judging, (True, False)))} cannot judge "
            "together: their probabilities have no common mean.",
            "Use runs that are all of one kind.",
        )
    return [
        Evaluation(replace(group[0], probabilities=np.mean([one.probabilities for one in group], axis=0), alone=None))
        for group in groups
    ]


def _compare_maps(ours: Sequence[Evaluation], theirs: Sequence[Evaluation], replicates: int) -> Iterator[Comparison]:
    """Paired differences of each map measure over patients and trainings, for each role of marks that there is."""
    for role in ROLES:
        a, b = ([one.scores_for(role) for one in runs] for runs in (ours, theirs))
        of_a, of_b = ([one for one in runs if one is not None] for runs in (a, b))
        if len(of_a) < len(a) or len(of_b) < len(b):
            continue
        if len({tuple(sorted(row.key for row in one.rows)) for one in (*of_a, *of_b)}) > 1:
            continue  # maps of other classes: nothing to pair
        for measure in MAP_MEASURES:
            found = compare_maps(of_a, of_b, measure, replicates=replicates)
            yield replace(found, name=f"{found.name} ({role})")


def name_methods(methods: Sequence[Sequence[Run]], together: Sequence[int] = ()) -> tuple[str, ...]:
    """What methods are called: the title of their runs without the seed, their number, and the folder if need be."""
    counted = []
    for place, runs in enumerate(methods):
        members = together[place] if together else 1
        title = " + ".join(dict.fromkeys(_read_title(run) for run in runs[:members]))
        title += f", {members} networks together" if members > 1 else ""
        number = len(runs) // max(1, members)
        counted.append(title + ("" if number == 1 else f" ({number} trainings{' of each' if members > 1 else ''})"))
    return tuple(separate_names(counted, [runs[0].folder for runs in methods]))


def _read_title(run: Run) -> str:
    return run.recipe.title.partition(", seed ")[0]


def write_comparison(found: MethodComparison, out: Path) -> None:
    """`comparison.md`, `comparison.json` and `forest.png`."""
    write_text(out / "comparison.md", found.markdown())
    fields = {
        "a": found.names[0],
        "b": found.names[1],
        "leading": [c.to_dict() for c in found.leading],
        "others": [c.to_dict() for c in found.others],
        "maps": [c.to_dict() for c in found.maps],
        "margins": [{**asdict(m), "comparison": m.comparison.name} for m in found.margins],
        "notes": list(found.notes),
    }
    write_text(out / "comparison.json", json.dumps(fields, indent=1) + "\n")
    rows = build_claim_rows([(c.name, c) for c in found.leading if not c.name.startswith("Brier")])
    if rows:
        counts = "; ".join(dict.fromkeys(format_counts(c.n) for c in found.leading))
        title = f"a less b\na: {found.names[0]}\nb: {found.names[1]}\nn: {counts}"
        (out / "forest.png").write_bytes(draw_forest(rows, title=title, better=("b is better", "a is better")))


def build_claim_rows(named: Sequence[tuple[str, Comparison]]) -> list[ForestRow]:
    """Rows of a forest plot: a filled point is a claim, and goes by the p that so many of them leave (Holm)."""
    defined = [(name, c.difference, c) for name, c in named if c.difference is not None]
    corrected = holm([c.p_value for _, _, c in defined])
    return [
        ForestRow(name, difference, c.low, c.high, clear=p is not None and p < 0.05)
        for (name, difference, c), p in zip(defined, corrected, strict=True)
    ]


def _choose_scores(table: Predictions, positive: str | None) -> list[Score]:
    if len(table.classes) == 2:
        index = table.class_index(positive)
        return [AUC(index, f"AUC of {table.classes[index]}"), Accuracy(), BalancedAccuracy(), Brier()]
    return [OneVsRestAUC(), Accuracy(), BalancedAccuracy(), Brier()]


def _read_youden_threshold(run: Run, positive: str | None) -> float | None:
    record, name = run.calibration, positive or run.classes[-1]
    points = () if record is None else record.points
    return next((p.threshold for p in points if p.rule == "youden" and p.positive == name), None)
