"""What advice does to readers: answers with a network's advice beside answers without, where the advice was wrong too.

Automation bias is the share of answers that were right without advice and follow the wrong advice with it (Goddard,
Roudsari and Wyatt 2012: errors of commission); beside it the share that wrong advice could not have caused, the change
of right answers under right advice, and the change of accuracy of each. Intervals are over patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline.metrics.agreement.report import estimate_over_patients
from sightline.metrics.estimate import Estimate, FloatArray


@dataclass(frozen=True)
class AdvisedAnswer:
    """One reader's two answers to one study.

    Attributes:
        reader: who.
        patient: whose study it is.
        truth: its class.
        advice: class that the network said, or was made to say.
        alone: the reader's answer without advice.
        advised: the reader's answer with it.
        condition: how the advice was shown, e.g. `answer and map`.
        alone_s: active seconds without advice, or None.
        advised_s: active seconds with it, or None.
    """

    reader: str
    patient: str
    truth: str
    advice: str
    alone: str
    advised: str
    condition: str
    alone_s: float | None = None
    advised_s: float | None = None


def measure_automation_bias(
    answers: Sequence[AdvisedAnswer], *, replicates: int = 2000, seed: int = 0
) -> list[Estimate]:
    """Numbers of one condition, or of all together.

    Args:
        answers: pairs of answers.
        replicates: of the bootstrap.
        seed: of the draws.

    Returns:
        In this order: share of right answers that turned to the wrong advice; the same towards right advice among
        wrong answers; change of accuracy under wrong and under right advice; change of active seconds.
    """
    wrong = [a for a in answers if a.advice != a.truth]
    right = [a for a in answers if a.advice == a.truth]
    led_astray = [(a.patient, float(a.advised == a.advice)) for a in wrong if a.alone == a.truth]
    helped = [(a.patient, float(a.advised == a.advice)) for a in right if a.alone != a.truth]
    timed = [(a.patient, a.advised_s - a.alone_s) for a in answers if a.alone_s is not None and a.advised_s is not None]
    return [
        _estimate_mean("turned to wrong advice (automation bias)", led_astray, replicates, seed),
        _estimate_mean("turned to right advice", helped, replicates, seed),
        _estimate_mean("change of accuracy, wrong advice", [_change(a) for a in wrong], replicates, seed),
        _estimate_mean("change of accuracy, right advice", [_change(a) for a in right], replicates, seed),
        _estimate_mean("change of active seconds", timed, replicates, seed),
    ]


def _change(answer: AdvisedAnswer) -> tuple[str, float]:
    return answer.patient, float(answer.advised == answer.truth) - float(answer.alone == answer.truth)


def _estimate_mean(name: str, rows: Sequence[tuple[str, float]], replicates: int, seed: int) -> Estimate:
    if not rows:
        return Estimate(name, None, n={"answers": 0}, why="not defined: there is no such answer")
    patients, numbers = [row[0] for row in rows], np.array([row[1] for row in rows])

    def average(w: FloatArray) -> float:
        return float(w @ numbers / w.sum()) if w.sum() > 0 else float("nan")

    return estimate_over_patients(name, patients, average, {"answers": len(rows)}, replicates=replicates, seed=seed)
