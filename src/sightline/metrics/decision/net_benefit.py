"""Is it worth acting on the probability? Decision curves (Vickers & Elkin 2006).

A threshold t says how many false alarms one found case is worth: t / (1 - t) of it each. Net benefit is the share of
true positives less that price of the false ones: `TP / n - FP / n * t / (1 - t)`. A model helps at t where it beats
both acting on everybody and on nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline.errors import RunError
from sightline.metrics.estimate import Estimate, FloatArray, IntArray
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.bootstrap import bootstrap


@dataclass(frozen=True)
class NetBenefit:
    """Net benefit of acting where the probability reaches a threshold, as a `Score`.

    Attributes:
        positive: class index.
        threshold: chance of disease from which on one would act, between 0 and 1.
        act: on whom: the `model`'s positives, or `all`.
        prevalence: share of positive cases to weigh by; None: that of the cases.
        name: what the score is called in tables.
    """

    positive: int
    threshold: float
    act: str = "model"
    prevalence: float | None = None
    name: str = "net benefit"

    def __call__(self, labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
        """Net benefit per weighting; NaN without a case (or, at a stated prevalence, without both classes)."""
        truth = labels == self.positive
        called = probabilities[:, self.positive] >= self.threshold
        if self.act == "all":
            called = np.ones_like(called)
        price = self.threshold / (1.0 - self.threshold)
        hits, alarms = weights @ (truth & called), weights @ (~truth & called)
        positive, negative = weights @ truth, weights @ ~truth
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.prevalence is None:
                return np.asarray((hits - price * alarms) / (positive + negative))
            sensitivity, false_alarm = hits / positive, alarms / negative
            return np.asarray(sensitivity * self.prevalence - price * false_alarm * (1.0 - self.prevalence))


@dataclass(frozen=True)
class DecisionPoint:
    """One threshold of a decision curve.

    Attributes:
        threshold: chance of disease from which on one would act.
        model: net benefit of the model.
        act_on_all: net benefit of acting on everybody; that of acting on nobody is 0.
        avoided: interventions that the model avoids among 100 cases at the same number of found cases, against acting
            on everybody (Vickers 2008).
    """

    threshold: float
    model: Estimate
    act_on_all: float
    avoided: float

    @property
    def helps(self) -> bool | None:
        """Whether the interval of the model's net benefit lies above both others; None without an interval."""
        return None if self.model.low is None else self.model.low > max(0.0, self.act_on_all)


def compute_decision_curve(
    predictions: Predictions,
    thresholds: Sequence[float] = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
    *,
    positive: str | None = None,
    prevalence: float | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> list[DecisionPoint]:
    """Net benefit over thresholds, with intervals over patients.

    Args:
        predictions: probabilities that mean what they say (calibrate first).
        thresholds: chances of disease from which on one would act.
        positive: the class to act on; None: the last one.
        prevalence: share of positive cases at the site in question; None: that of the cases.
        replicates: bootstrap samples.
        seed: of those.

    Raises:
        RunError: a threshold or prevalence that does not lie between 0 and 1.

    Example:
        >>> import numpy as np
        >>> ids = tuple("abcd")
        >>> p = Predictions(("no", "yes"), ids, ids, ids, np.array([0, 0, 1, 1]),
        ...     np.array([[.9, .1], [.4, .6], [.3, .7], [.8, .2]]))
        >>> round(compute_decision_curve(p, (0.5,))[0].model.value, 3)
        0.0
    """
    given = [*thresholds, *([] if prevalence is None else [prevalence])]
    if not thresholds or any(not 0.0 < number < 1.0 for number in given):
        raise RunError(f"Thresholds and prevalences of a decision curve lie between 0 and 1; got {given}.")
    index = predictions.class_index(positive)
    found = []
    for t in thresholds:
        name = f"net benefit at threshold {t:g}"
        model = bootstrap(
            NetBenefit(index, t, "model", prevalence, name), predictions, replicates=replicates, seed=seed
        )
        everybody = NetBenefit(index, t, "all", prevalence)
        act = float(everybody(predictions.labels, predictions.probabilities, np.ones((1, len(predictions))))[0])
        avoided = 0.0 if model.value is None else (model.value - act) / (t / (1.0 - t)) * 100.0
        found.append(DecisionPoint(t, model, act, avoided))
    return found
