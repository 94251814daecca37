"""What validation decides after a training: probabilities, thresholds, a promised miss rate, when to abstain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sightline.data.split import ASSIGN_SPLITS
from sightline.errors import CohortError, RunError, count_noun
from sightline.evaluation.evaluate import evaluate
from sightline.evaluation.overlap import name_predictions, refuse_trained_on
from sightline.evaluation.result import Evaluation
from sightline.io.files import write_text
from sightline.metrics.calibration.recalibration import FittedRecalibration, fit_recalibration
from sightline.metrics.calibration.record import CalibrationRecord
from sightline.metrics.calibration.report import compute_calibration_curve, compute_calibration_estimates
from sightline.metrics.calibration.scaling import Method
from sightline.metrics.classification.report import to_markdown
from sightline.metrics.decision.abstention import Abstention, Kind, average_study_energies, choose_abstention
from sightline.metrics.decision.conformal import Of, PredictionSets, choose_miss_rate_point, fit_prediction_sets
from sightline.metrics.decision.operating_points import OperatingPoint, choose_point
from sightline.metrics.estimate import Estimate
from sightline.metrics.predictions import Predictions
from sightline.plots.reliability import ReliabilityCurve, draw_reliability
from sightline.structures.case import Cohort
from sightline.structures.identifiers import format_apart
from sightline.training.engine import Engine
from sightline.training.run import Run, describe_environment


@dataclass(frozen=True)
class CalibrationChoice:
    """What is to be fitted on validation.

    Attributes:
        method: `temperature`, `platt`, `isotonic`, `auto` (the simplest that does as well as any on patients it has not
            seen; also `none`), or `none`.
        positive: the class that thresholds call; None: the last one.
        sensitivities: sensitivities to be reached on validation, a threshold each.
        specificities: specificities, likewise.
        miss_rate: promised rate of missed positive studies, or None.
        of: of positive studies, or of all.
        coverage: share of cases to be answered, or None: never abstain.
        confidence: by what it abstains.
        sets: promised rate of prediction sets without the true class, or None.
    """

    method: Method | Literal["auto"] = "temperature"
    positive: str | None = None
    sensitivities: tuple[float, ...] = (0.95,)
    specificities: tuple[float, ...] = (0.95,)
    miss_rate: float | None = None
    of: Of = "positives"
    coverage: float | None = None
    confidence: Kind = "doctor"
    sets: float | None = None

    def __post_init__(self) -> None:
        """Refuse shares that are none before anything is predicted."""
        aims = [("sensitivity", aim) for aim in self.sensitivities]
        aims += [("specificity", aim) for aim in self.specificities]
        aims += [] if self.coverage is None else [("coverage", self.coverage)]
        for name, share in aims:
            if not 0.0 < share <= 1.0:
                raise RunError(f"{name} is {share}; a share above 0, up to 1 was expected.", "Write for example 0.95.")
        for name, rate in (("miss rate", self.miss_rate), ("sets", self.sets)):
            if rate is not None and not 0.0 < rate < 1.0:
                raise RunError(f"{name} is {rate}; a rate between 0 and 1 was expected.", "Write for example 0.05.")


def calibrate(
    run: Run, cohort: Cohort, choice: CalibrationChoice, *, local: Cohort | None = None, engine: Engine | None = None
) -> CalibrationRecord:
    """Fit on the validation cases of a cohort and write `calibration.json`, `calibration.md` and `calibration.png`.

    Every command after applies it: evaluate, predict, compare. With `local` studies of another site the miss rate,
    the prediction sets and the thresholds are chosen on those; the map of probabilities stays that of validation. Of a
    run that was trained on its validation cases `local` studies choose all that is chosen, and no map is fitted.

    Args:
        run: a finished run.
        cohort: what it was trained on; its validation cases are used.
        choice: what is to be fitted.
        local: labelled studies of the site where the run is to be used, all of them.
        engine: device and workers.

    Raises:
        RunError: the run was trained on its validation cases and there are no `local` studies, or a map is to be
            fitted; it says no classes, or more than two where a threshold or a miss rate of one class is asked for.
        CohortError: too few validation cases for what is asked, or cases that the run was trained on.
    """
    if not run.recipe.classifies:
        raise RunError(f"{run.folder} only localises: it says no probability that could be calibrated.")
    require_two_classes(run.classes, choice)
    if "val" in run.recipe.train_on:
        _require_local_choice(run, choice, local)
    if local is not None:
        refuse_trained_on(run, local, "local studies")
    evaluation = None if "val" in run.recipe.train_on else _evaluate_validation(run, cohort, engine)
    fitted, where = None, f"{cohort.name}, val"
    if evaluation is not None and choice.method != "none":
        fitted = fit_recalibration(evaluation.predictions, choice.method, where=where)
    plain, source = CalibrationRecord(run.identity, run.classes, fitted), evaluation
    if local is not None:
        source = evaluate(run, run.recipe.see(local), f"local_{local.fingerprint()}", engine=engine, calibrated=False)
        where = f"{local.name}, {count_noun(len(set(source.predictions.study_ids)), 'local study', 'local studies')}"
    assert source is not None
    shown = (evaluation or source).predictions
    meant = plain.apply(shown).study_wise()
    basis = plain.apply(source.predictions).study_wise()
    energies = None if source.energies is None else average_study_energies(source.predictions, source.energies)
    record = CalibrationRecord(
        run.identity,
        run.classes,
        fitted,
        choose_points(basis, choice, where),
        _choose_abstention(basis, choice, where, energies),
        None if choice.sets is None else fit_prediction_sets(basis, choice.sets),
        {
            "cohort": cohort.name,
            "fingerprint": cohort.fingerprint(),
            "local": None if local is None else f"{local.name} {local.fingerprint()}",
            "command": describe_environment()["command"],
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    write_calibration(run, record, shown, meant)
    return record


def _require_local_choice(run: Run, choice: CalibrationChoice, local: Cohort | None) -> None:
    """Refuse to fit probabilities of a run that was trained on its validation cases, or to choose without studies."""
    seen = f"{run.folder} was trained on its validation cases"
    if local is None:
        raise RunError(
            f"{seen}: nothing is left to calibrate on.",
            "Train with a validation split, or choose thresholds on a site's studies: --local DIR --method none.",
        )
    if choice.method != "none":
        raise RunError(
            f"{seen}: no map of probabilities ({choice.method}) can be fitted.",
            "Add --method none: thresholds, abstention and sets are chosen on the local studies alone.",
        )


def _evaluate_validation(run: Run, cohort: Cohort, engine: Engine | None) -> Evaluation:
    """What the run says of its validation cases, not calibrated."""
    validation = run.recipe.see(cohort).split("val")
    if len(validation) == 0:
        raise CohortError(f"Cohort {cohort.name!r} has no validation case.", ASSIGN_SPLITS)
    refuse_trained_on(run, validation, "validation cases")
    return evaluate(run, validation, name_predictions(run, validation, "val"), engine=engine, calibrated=False)


def require_two_classes(classes: Sequence[str], choice: CalibrationChoice) -> None:
    """Refuse what only a run of two classes can promise, instead of leaving it out in silence.

    Raises:
        RunError: more classes, and a miss rate or a positive class.
    """
    asked = {"--miss-rate": choice.miss_rate, "--positive": choice.positive}
    if len(classes) != 2 and (named := [option for option, value in asked.items() if value is not None]):
        raise RunError(
            f"For {' and '.join(named)} a run of two classes is needed: this one tells {len(classes)} apart "
            f"({', '.join(classes)}).",
            "Leave it out (--sets and --coverage work with any number of classes), or train a recipe whose task "
            "groups the classes in two.",
        )


def choose_points(basis: Predictions, choice: CalibrationChoice, where: str) -> tuple[OperatingPoint, ...]:
    """Thresholds of two classes; with more there is none, each class would need its own costs."""
    if len(basis.classes) != 2:
        return ()
    points = [choose_point(basis, "youden", positive=choice.positive, where=where)]
    points += [
        choose_point(basis, "sensitivity", x, positive=choice.positive, where=where) for x in choice.sensitivities
    ]
    points += [
        choose_point(basis, "specificity", x, positive=choice.positive, where=where) for x in choice.specificities
    ]
    if choice.miss_rate is not None:
        points.append(
            choose_miss_rate_point(basis, choice.miss_rate, positive=choice.positive, of=choice.of, where=where)
        )
    return tuple(points)


def _choose_abstention(
    basis: Predictions, choice: CalibrationChoice, where: str, energies: NDArray[np.float64] | None
) -> Abstention | None:
    if choice.coverage is None:
        return None
    return choose_abstention(basis, choice.coverage, choice.confidence, energies=energies, where=where)


def write_calibration(run: Run, record: CalibrationRecord, uncalibrated: Predictions, meant: Predictions) -> None:
    """The record as JSON, as a page, and as a picture, in the run's folder."""
    record.write(run.folder)
    before, after = compute_calibration_estimates(uncalibrated), compute_calibration_estimates(meant)
    write_text(run.folder / "calibration.md", _format_page(run, record, before, after))
    (run.folder / "calibration.png").write_bytes(_draw_calibration(uncalibrated.study_wise(), meant))


def _draw_calibration(uncalibrated: Predictions, meant: Predictions) -> bytes:
    """Before and after for two classes; with more, after for each class."""
    if len(meant.classes) > 2:
        curves = [build_reliability_curve(name, meant, positive=name) for name in meant.classes]
        return draw_reliability(curves, title="Each class, calibrated (fitted on these cases)")
    curves = [
        build_reliability_curve("uncalibrated", uncalibrated),
        build_reliability_curve("calibrated (fitted on these cases)", meant),
    ]
    return draw_reliability(curves)


def build_reliability_curve(
    name: str, predictions: Predictions, style: int | None = None, *, positive: str | None = None
) -> ReliabilityCurve:
    """A calibration curve of a class (the last one where none is named), ready to be drawn."""
    points = compute_calibration_curve(predictions, positive=positive)
    points = [point for point in points if point.observed.value is not None]
    return ReliabilityCurve(
        name,
        [point.said for point in points],
        [float(point.observed.value or 0.0) for point in points],
        [point.observed.low for point in points],
        [point.observed.high for point in points],
        style,
    )


def _format_page(run: Run, record: CalibrationRecord, before: Sequence[Estimate], after: Sequence[Estimate]) -> str:
    lines = [f"# Calibration of {run.recipe.title}", ""]
    local = (record.about or {}).get("local")
    chosen = f" Thresholds, abstention and sets were chosen on {local}." if local else ""
    flatter = "numbers on the same cases flatter. Read the test set's in metrics.md."
    fitted = "Probabilities stay as said" if record.fitted is None else "Probabilities were fitted on validation"
    lines += [f"{fitted}; {flatter}{chosen}", ""]
    if record.fitted is not None:
        lines += [_describe_fitted(record.fitted), ""]
    lines += [
        "## As said, image-wise",
        "",
        to_markdown(before),
        "",
        "## Calibrated, study-wise",
        "",
        to_markdown(after),
        "",
    ]
    if record.points:
        lines += ["## Operating points", "", format_points(record.points), ""]
    if (a := record.abstention) is not None:
        answered, right = a.chosen_on["answered"], a.chosen_on["accuracy_of_the_answered"]
        words = f"{answered:.1%} of the studies of {a.chosen_on['split']} are answered, {right:.1%} of those right"
        lines += [f"Abstains where {a.kind} is below {a.threshold:.4g}: {words}.", ""]
    if record.sets is not None:
        lines += [_describe_sets(record.sets), ""]
    return "\n".join(lines)


def _describe_fitted(fitted: FittedRecalibration) -> str:
    fields = fitted.recalibration.to_dict()
    what: str = fitted.recalibration.method
    if what == "temperature":
        what = f"temperature {fields['temperature']:.3f}"
    elif what == "platt":
        slopes, shifts = (", ".join(f"{x:.3f}" for x in fields[key]) for key in ("slopes", "intercepts"))
        what = f"Platt scaling, log odds times {slopes}, plus {shifts}"
    elif what == "none":
        what = "uncalibrated, no map fitted"
    why = f" Note: {fitted.why}." if fitted.why else ""
    return f"Probabilities: {what}. Log loss on patients the map had not seen: {fitted.describe_losses(4)}.{why}"


def _describe_sets(sets: PredictionSets) -> str:
    each = ", ".join(f"{name} from {t:.4g} on" for name, t in zip(sets.classes, sets.thresholds, strict=True))
    return f"Prediction sets hold the true class of {1 - sets.alpha:.0%} of studies: {each}."


def format_points(points: Sequence[OperatingPoint]) -> str:
    """A table of operating points and what they reach where they were chosen."""
    head = "| point | called from | chosen on | sensitivity there | specificity there |\n|---|---|---|---|---|\n"
    rows = []
    for point, threshold in zip(points, format_apart([p.threshold for p in points]), strict=True):
        reached = [point.chosen_on.get(name) for name in ("sensitivity", "specificity")]
        cells = ["–" if value is None else f"{value:.3f}" for value in reached]
        rows.append(f"| {point.name} | {point.positive} ≥ {threshold} | {point.chosen_on.get('split', '')} | "
                    f"{cells[0]} | {cells[1]} |\n")  # fmt: skip
    return head + "".join(rows)
