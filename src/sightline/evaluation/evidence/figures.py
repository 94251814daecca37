"""Whether an answer can be relied on, as pictures: risk against coverage, calibration, net benefit; all study-wise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sightline.evaluation.evidence.calibrate import build_reliability_curve
from sightline.metrics.classification.estimates import estimate_score
from sightline.metrics.classification.selective_prediction import AURC, compute_risk_coverage
from sightline.metrics.decision.net_benefit import compute_decision_curve
from sightline.metrics.predictions import Predictions
from sightline.plots.curves import RiskCurve, draw_risk_coverage
from sightline.plots.html_report import ReportPicture
from sightline.plots.reliability import BenefitCurve, draw_benefits, draw_reliability

ACT_ON_ALL = "act on everybody"


def build_risk_curve(name: str, predictions: Predictions, style: int | None = None) -> RiskCurve:
    """The risk-coverage curve of a table of predictions with its AURC (DOCTOR's confidence), ready to be drawn."""
    coverage, risk = compute_risk_coverage(predictions)
    area = estimate_score([predictions], AURC("doctor"))
    return RiskCurve(name, coverage.tolist(), risk.tolist(), area.value, area.low, area.high, style)


def draw_reliance_pictures(rows: Mapping[str, Predictions], styles: Mapping[str, int]) -> list[ReportPicture]:
    """Risk against coverage, and calibration, of several methods on the same cases.

    Args:
        rows: study-wise predictions by method.
        styles: which line of the palette each method has.
    """
    if not rows:
        return []
    risks = [build_risk_curve(name, table, styles[name]) for name, table in rows.items()]
    drawn = [build_reliability_curve(name, table, styles[name]) for name, table in rows.items() if _has_curve(table)]
    found = [
        ReportPicture(
            draw_risk_coverage(risks),
            "Error rate of the studies that are still answered when the least sure ones are handed to a reader; "
            "study-wise, first seed. AURC: the mean of the curve, less is better.",
            "Risk-coverage curves",
        )
    ]
    if drawn:
        found.append(
            ReportPicture(
                draw_reliability(drawn, title=_name_curves(next(iter(rows.values())))),
                "Probability said against share observed, in groups of equally many studies; first seed.",
                "Calibration curves",
            )
        )
    return found


def write_figures(predictions: Predictions, folder: Path, *, title: str) -> list[Path]:
    """`risk_coverage.png`, `calibration.png` and, of two classes, `net_benefit.png` of one evaluation.

    Args:
        predictions: image-wise or study-wise.
        folder: where they are written.
        title: run or cohort, in the legends.
    """
    studies = predictions if predictions.unit == "study" else predictions.study_wise()
    drawn = {"risk_coverage": draw_risk_coverage([build_risk_curve(title, studies)])}
    if _has_curve(studies):
        drawn["calibration"] = draw_reliability([build_reliability_curve(title, studies)], title=_name_curves(studies))
    if len(studies.classes) == 2:
        points = [point for point in compute_decision_curve(studies, replicates=200) if point.model.value is not None]
        at = [point.threshold for point in points]
        model = [float(point.model.value or 0.0) for point in points]
        low, high = [point.model.low for point in points], [point.model.high for point in points]
        everybody = BenefitCurve(ACT_ON_ALL, at, [point.act_on_all for point in points])
        if points:
            drawn["net_benefit"] = draw_benefits([BenefitCurve(title, at, model, low, high), everybody])
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, png in drawn.items():
        paths.append(folder / f"{name}.png")
        paths[-1].write_bytes(png)
    return paths


def _name_curves(table: Predictions) -> str:
    """What a calibration picture shows: of more than two classes, which one."""
    return f"What was said{f' of {table.classes[-1]}' if len(table.classes) > 2 else ''} and what was observed"


def _has_curve(table: Predictions) -> bool:
    """Whether there are probabilities to draw a calibration curve of."""
    return len(table) > 0 and bool(np.isfinite(table.probabilities).all())
