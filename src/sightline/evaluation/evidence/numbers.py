"""Numbers a reviewer asks for beside the scores: calibration, operating points, abstention, net benefit, subgroups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sightline.data.audit.shortcuts import list_fact_names
from sightline.errors import RunError, SightlineError, count_noun
from sightline.metrics.calibration.record import CalibrationRecord
from sightline.metrics.calibration.report import CurvePoint, compute_calibration_curve, compute_calibration_estimates
from sightline.metrics.classification.report import to_markdown
from sightline.metrics.classification.selective_prediction import compute_rejection_report
from sightline.metrics.decision.abstention import average_study_energies, compute_abstention_estimates
from sightline.metrics.decision.conformal import estimate_misses
from sightline.metrics.decision.net_benefit import DecisionPoint, compute_decision_curve
from sightline.metrics.decision.operating_points import OperatingPoint, compute_point_estimates
from sightline.metrics.decision.subgroups import Subgroup, compute_subgroup_report, describe_unknown
from sightline.metrics.estimate import Estimate, format_p_text
from sightline.metrics.predictions import Predictions
from sightline.structures.case import Cohort

FACTS = 8


@dataclass(frozen=True)
class RunEvidence:
    """What was computed, in the order in which it is read.

    Attributes:
        calibration: slope, intercept and mean gap, study-wise.
        curve: of the last class, study-wise.
        points: sensitivity to NPV at each operating point fixed on validation, study-wise.
        selection: risk-coverage numbers, and those of the abstention that validation fixed.
        benefit: the decision curve, study-wise; empty with more than two classes.
        subgroups: AUC by every fact, image-wise.
        notes: what was left out, and why.
    """

    calibration: tuple[Estimate, ...]
    curve: tuple[CurvePoint, ...]
    points: tuple[Estimate, ...]
    selection: tuple[Estimate, ...]
    benefit: tuple[DecisionPoint, ...]
    subgroups: tuple[Subgroup, ...]
    notes: tuple[str, ...]

    def estimates(self) -> list[Estimate]:
        """Every number, for `metrics.json`."""
        found = [*self.calibration, *self.points, *self.selection, *(point.model for point in self.benefit)]
        for group in self.subgroups:
            found += [replace(group.here, name=f"{group.here.name}, {group.fact} {group.value}"), _estimate_gap(group)]
        return found

    def markdown(self) -> str:
        """Sections for `metrics.md`."""
        parts = ["## Calibration, study-wise", "", to_markdown(self.calibration)]
        if self.points:
            parts += ["", "## Operating points fixed on validation, study-wise", "", to_markdown(self.points)]
        parts += ["", "## Handing unsure studies to a reader", "", to_markdown(self.selection)]
        if self.benefit:
            parts += ["", "## Net benefit, study-wise", "", format_benefit(self.benefit)]
        if self.subgroups:
            parts += ["", "## Subgroups, image-wise", "", format_subgroups(self.subgroups)]
        return "\n".join([*parts, *(f"\n{note}" for note in self.notes)]) + "\n"


def compute_evidence(
    predictions: Predictions,
    cohort: Cohort,
    record: CalibrationRecord | None,
    *,
    energies: NDArray[np.float64] | None = None,
    prevalences: tuple[float, ...] = (),
    positive: str | None = None,
    replicates: int = 2000,
) -> RunEvidence:
    """Everything that saved predictions, the cohort's facts and what validation fixed can say.

    Args:
        predictions: image-wise, calibrated where validation fitted a calibration.
        cohort: the same cases, for their facts.
        record: what validation fixed, or None.
        energies: [n], of the images.
        prevalences: shares of positive studies that PPV and NPV are stated for.
        positive: the positive class; None: the last one.
        replicates: bootstrap samples of the net benefit.

    Raises:
        RunError: a prevalence that is none.
    """
    if not all(0.0 < share < 1.0 for share in prevalences):
        raise RunError(f"A prevalence lies between 0 and 1; got {prevalences}.", "Try --prevalence 0.05.")
    studies = predictions if predictions.unit == "study" else predictions.study_wise()
    two = len(studies.classes) == 2
    notes = []
    if record is None:
        notes.append(
            "No operating point: `sightline calibrate RUN` fixes thresholds on validation, never on these cases."
        )
    points: list[Estimate] = []
    for point in () if record is None else record.points:
        points += compute_point_estimates(studies, point, prevalences=prevalences)
        if point.rule == "miss rate":
            points.append(_estimate_promised(studies, point))
    selection = compute_rejection_report(studies)
    if record is not None and record.abstention is not None:
        of_studies = None if energies is None else average_study_energies(predictions, energies)
        try:
            selection += compute_abstention_estimates(studies, record.abstention, energies=of_studies)
        except SightlineError as error:
            notes.append(str(error))
    if record is not None and record.sets is not None:
        selection += record.sets.estimates(studies)
    facts, left_out = collect_facts(predictions, cohort)
    if left_out:
        notes.append(f"Facts without subgroups (more than {FACTS} in all): {', '.join(left_out)}.")
    return RunEvidence(
        tuple(compute_calibration_estimates(studies, positive=positive)),
        tuple(compute_calibration_curve(studies, positive=positive)),
        tuple(points),
        tuple(selection),
        tuple(compute_decision_curve(studies, positive=positive, replicates=replicates)) if two else (),
        tuple(compute_subgroup_report(predictions, facts, positive=positive)),
        tuple(notes),
    )


def collect_facts(predictions: Predictions, cohort: Cohort) -> tuple[dict[str, list[str]], list[str]]:
    """Facts of the cases of a table by name, in its order, and the names that were left out."""
    cases = {case.case_id: case for case in cohort}
    if any(case not in cases for case in predictions.case_ids):
        return {}, []
    rows = [cases[case] for case in predictions.case_ids]
    names = [name for name in list_fact_names(rows) if len({row.facts.get(name, "") for row in rows}) > 1]
    facts = {name: [row.facts.get(name, "") for row in rows] for name in names[:FACTS]}
    if len({row.view for row in rows} - {""}) > 1:
        facts["view"] = [row.view for row in rows]
    return facts, names[FACTS:]


def _estimate_promised(studies: Predictions, point: OperatingPoint) -> Estimate:
    return estimate_misses(studies, point, "all" if point.chosen_on.get("of") == "all" else "positives")


def _estimate_gap(group: Subgroup) -> Estimate:
    """A gap as one number; what its test says stands in the method's words."""
    gap = group.gap
    words = f"{gap.method}; {format_p_text(gap.p_value)}, corrected {format_p_text(group.p_corrected)}"
    if gap.difference is None:
        return Estimate(gap.name, None, n=gap.n, method=words, why=gap.why)
    return Estimate(gap.name, gap.difference, gap.low, gap.high, gap.n, words, gap.why)


def format_benefit(points: Sequence[DecisionPoint]) -> str:
    """A decision curve as a table."""
    head = "| threshold | net benefit of the model (95% interval) | acting on everybody | useful |\n|---|---|---|---|\n"
    words: Mapping[bool | None, str] = {True: "yes", False: "not shown", None: "no interval"}
    rows = [f"| {p.threshold:g} | {p.model.text()} | {p.act_on_all:.3f} | {words[p.helps]} |\n" for p in points]
    return head + "".join(rows)


def format_subgroups(groups: Sequence[Subgroup]) -> str:
    """Subgroups as a table, with what could have been seen."""
    head = "| fact | group | patients | score (95% interval) | difference from the rest | p | p (max-T) |"
    lines = [f"{head} detectable at 80% power |", "|---|---|---|---|---|---|---|---|"]
    for g in groups:
        gap = g.gap.text().rpartition(", ")[0] or g.gap.why
        seen = "–" if g.detectable is None else f"{g.detectable:.3f}"
        claimed = "**" if g.claimed else ""
        patients = g.here.n.get("patients", 0)
        value = str(g.value).replace("|", "\\|")
        lines.append(f"| {g.fact} | {value} | {patients} | {g.here.text()} | {claimed}{gap}{claimed} | "
                     f"{format_p_text(g.gap.p_value)} | {format_p_text(g.p_corrected)} | {seen} |")  # fmt: skip
    # both groups of a fact with two are one gap
    rows_of = Counter(g.fact for g in groups)
    tested = {(g.fact, "" if rows_of[g.fact] == 2 else g.value): g.claimed for g in groups if g.p_corrected is not None}
    claims = f"{sum(tested.values())} of {count_noun(len(tested), 'gap')} tested"
    words = f"Claimed (corrected p below .05, bold): {claims}; both groups of a fact with two are one gap. The "
    words += "last column is the difference that a study of this size detects with 80% power; smaller ones are not "
    lines.append(f"\n{words}ruled out.")
    if unknown := describe_unknown(groups):
        lines[-1] += f" {unknown}"
    return "\n".join(lines)
