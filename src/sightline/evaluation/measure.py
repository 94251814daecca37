"""A run measured on cases: every number, note and section that `sightline evaluate` and `sl.evaluate` give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.errors import RunError, count_noun
from sightline.evaluation.evaluate import evaluate
from sightline.evaluation.evidence.faithfulness import FaithfulnessTable, measure_faithfulness
from sightline.evaluation.evidence.numbers import RunEvidence, compute_evidence
from sightline.evaluation.evidence.scope import write_report_scope
from sightline.evaluation.overlap import describe_changes, describe_known_cases
from sightline.evaluation.report import compute_report, describe_omissions, describe_positive_class, write_report_of
from sightline.evaluation.result import Evaluation
from sightline.inference.gate.scope import read_scope
from sightline.metrics.classification.report import to_markdown
from sightline.metrics.estimate import Estimate
from sightline.structures.case import Cohort
from sightline.training.engine import Engine
from sightline.training.model_card import write_model_card
from sightline.training.run import Run

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class EvaluationReport:
    """An evaluation and all its numbers.

    Attributes:
        evaluation: predictions, maps and scores.
        numbers: those of the run's answers, maps and boxes, with their intervals.
        title: run and cohort, in words.
        known: warnings, if the run has seen cases or patients of these.
        notes: what the numbers are of, what they leave out, and how many cases look unlike those of the training.
        changes: how each number differs from the run's own test, on cases of another cohort; a section in Markdown.
        evidence: calibration, operating points, subgroups and the like; None for a run that does not classify.
        faithfulness: whether maps explain the predictions; None if it was not asked.
    """

    evaluation: Evaluation
    numbers: tuple[Estimate, ...]
    title: str
    known: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    evidence: RunEvidence | None = None
    faithfulness: FaithfulnessTable | None = None

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """Every number, those of faithfulness last."""
        return (*self.numbers, *(() if self.faithfulness is None else self.faithfulness.all()))

    def __getitem__(self, name: str) -> Estimate:
        """The number with this name.

        Raises:
            RunError: there is none.
        """
        for estimate in self.estimates:
            if estimate.name == name:
                return estimate
        raise RunError(f"There is no number {name!r}.", f"Known: {', '.join(e.name for e in self.estimates)}.")

    def lines(self) -> tuple[object, ...]:
        """What a terminal shows: numbers, notes and, on another cohort, the changes."""
        remarks = () if self.evidence is None else self.evidence.notes
        return (*self.estimates, *self.notes, *remarks, *self.changes)

    def summary(self) -> str:
        """The page `metrics.md`: every number with its interval, notes, changes and evidence."""
        below = "".join(f"\n{part}\n" for part in (*self.notes, *self._list_sections()))
        return f"# {self.title}\n\n{to_markdown(self.numbers)}\n{below}"

    def to_frame(self) -> pd.DataFrame:
        """A pandas table: name, value, low, high, n, method, why."""
        import pandas as pd

        return pd.DataFrame([estimate.to_dict() for estimate in self.estimates])

    def write(self, folder: Path) -> None:
        """Write `metrics.json` and `metrics.md`."""
        apart = () if self.faithfulness is None else self.faithfulness.all()
        write_report_of(self.numbers, folder, self.title, (*self.notes, *self._list_sections()), apart=apart)

    def _list_sections(self) -> tuple[str, ...]:
        parts = (part.markdown() for part in (self.evidence, self.faithfulness) if part is not None)
        return (*self.changes, *parts)

    def _repr_markdown_(self) -> str:
        """The page, for a notebook."""
        return self.summary()

    def __repr__(self) -> str:
        """Title and count of numbers."""
        return f"EvaluationReport({self.title}, {count_noun(len(self.estimates), 'number')})"


def measure_run(
    run: Run,
    cohort: Cohort,
    split: str,
    out: Path,
    *,
    name: str,
    engine: Engine,
    replicates: int = 2000,
    prevalences: Sequence[float] = (),
    explainers: Sequence[str] | None = None,
    images: int = 24,
) -> EvaluationReport:
    """Predict cases, or read their saved predictions, and compute and write every number; the model card follows.

    Args:
        run: a finished run.
        cohort: the cases, as the run sees them (`Recipe.see`).
        split: what these cases are called.
        out: folder for `predictions`, `scope.csv`, `metrics.json` and `metrics.md`; whoever calls holds it.
        name: the cohort's name.
        engine: where the network runs.
        replicates: bootstrap samples over patients.
        prevalences: PPV and NPV are computed at these, if operating points were chosen.
        explainers: their maps are tested for faithfulness; None: not asked.
        images: in that test.

    Raises:
        CohortError: no cases, or classes that the run does not know.
        RecipeError: unknown explainer.
    """
    evaluation = evaluate(run, cohort, split, out=out, engine=engine)
    classifies = run.recipe.classifies
    numbers = compute_report(evaluation, replicates=replicates, classifies=classifies)
    known = describe_known_cases(run, cohort)
    scope = write_report_scope(evaluation, read_scope(run.folder), cohort, f"{name}, {split}", out)
    positive = describe_positive_class(evaluation.predictions) if classifies else ()
    evidence = None
    if classifies:
        evidence = compute_evidence(
            evaluation.predictions,
            cohort,
            run.calibration,
            energies=evaluation.energies,
            prevalences=tuple(prevalences),
            replicates=replicates,
        )
        numbers += evidence.estimates()
    faithful = None
    if explainers is not None:
        faithful = measure_faithfulness(run, cohort, explainers, images=images, engine=engine)
    report = EvaluationReport(
        evaluation,
        tuple(numbers),
        f"{run.recipe.title} on {name}, {split}",
        known,
        (*positive, *known, *describe_omissions(run.recipe.view, evaluation), scope),
        describe_changes(run, cohort, numbers),
        evidence,
        faithful,
    )
    report.write(out)
    if out.parent == run.folder / "evaluation":
        write_model_card(run)
    return report
