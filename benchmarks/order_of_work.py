"""`python -m benchmarks.order_of_work`: what the order of the least certain studies is worth, by simulation.

A reader labels 100 of 400 studies; after every 20 the model is fitted to what was labelled and says of each study that
is left how uncertain it is. The orders are those of `sightline reads plan`: at random, and the least certain first with
every fifth study at random. The model is a logistic regression on simulated features (two normal classes), not a
network on radiographs: it shows what the rule of the order does, not what it will do for a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sightline.web.workstation.reading.plans import order_studies
from sightline.web.workstation.reading.worth import compute_entropy

HEAD = """\
| second class | AUC, random order | AUC, least certain first | difference, 95 % interval \
| second class among 100, random | least certain first | n |
|---|---|---|---|---|---|---|"""
FEATURES, POOL, TEST, BATCH, READ = 30, 400, 2000, 20, 100


@dataclass(frozen=True)
class Outcome:
    """One reader's hundred studies.

    Attributes:
        auc: on studies that nobody labelled.
        found: studies of the second class among those that were labelled.
    """

    auc: float
    found: int


def draw(
    rng: np.random.Generator, n: int, prevalence: float, apart: float
) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """Features [n, FEATURES] of two classes whose means lie `apart` standard deviations from each other, and labels."""
    labels = (rng.random(n) < prevalence).astype(int)
    features = rng.normal(size=(n, FEATURES))
    features[:, 0] += apart * labels
    return features, labels


def read_hundred(order: Literal["random", "active"], prevalence: float, apart: float, seed: int) -> Outcome:
    """Label in an order, fit again after each batch; the last model on studies of its own."""
    rng = np.random.default_rng(seed)
    x, y = draw(rng, POOL, prevalence, apart)
    test_x, test_y = draw(rng, TEST, prevalence, apart)
    labelled: list[int] = []
    model: LogisticRegression | None = None
    while len(labelled) < READ:
        left = [n for n in range(POOL) if n not in set(labelled)]
        worth = {}
        if model is not None:
            each = model.predict_proba(x[left])
            worth = {str(n): compute_entropy([float(v) for v in p]) for n, p in zip(left, each, strict=True)}
        # the first batch is at random in both orders: there is no model to ask yet
        kind = order if model is not None else "random"
        dealt = order_studies([str(n) for n in left], kind, seed, "reader", len(labelled), worth)
        labelled += [int(key) for key, _ in dealt[:BATCH]]
        model = (
            LogisticRegression(C=1.0, max_iter=500).fit(x[labelled], y[labelled]) if len(set(y[labelled])) > 1 else None
        )
    assert model is not None
    return Outcome(float(roc_auc_score(test_y, model.predict_proba(test_x)[:, 1])), int(y[labelled].sum()))


@dataclass(frozen=True)
class Simulation:
    """Both orders, side by side on the same studies."""

    repeats: int = 200
    """Simulated readers a row."""

    def run(self) -> int:
        """Print the table."""
        print(HEAD)
        for prevalence, apart in ((0.5, 1.5), (0.2, 1.5), (0.1, 1.5), (0.1, 2.5)):
            pairs = [
                (read_hundred("random", prevalence, apart, seed), read_hundred("active", prevalence, apart, seed))
                for seed in range(self.repeats)
            ]
            auc = np.array([[one.auc for one in pair] for pair in pairs])
            found = np.array([[one.found for one in pair] for pair in pairs])
            gain = auc[:, 1] - auc[:, 0]
            half = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
            mean = auc.mean(axis=0)
            print(
                f"| {prevalence:.0%}, classes {apart:g} sd apart | {mean[0]:.3f} | {mean[1]:.3f} | {gain.mean():+.4f} "
                f"({gain.mean() - half:+.4f} to {gain.mean() + half:+.4f}) | {found[:, 0].mean():.1f} "
                f"| {found[:, 1].mean():.1f} | {len(gain)} |",
                flush=True,
            )
        return 0


if __name__ == "__main__":
    raise SystemExit(tyro.cli(Simulation).run())
