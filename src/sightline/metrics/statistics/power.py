"""How many patients and trainings does a difference need? By simulation from pilot predictions.

Patients of the pilot are drawn with replacement, both methods' probabilities together, so that what makes a case hard
for both stays shared. The log odds of method a's positive cases are then moved until its AUC on the pilot exceeds
that of b by the stated difference. With several trainings, each simulated one is moved by a normal amount with the
spread seen over the pilot's trainings. The test is the one to quote (`compare_scores`), at .05 two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import expit, logit
from scipy.stats import rankdata

from sightline.errors import RunError
from sightline.metrics.classification.estimates import compare_scores
from sightline.metrics.classification.scores import AUC
from sightline.metrics.estimate import FloatArray
from sightline.metrics.predictions import Predictions, align

_EDGE = 1e-9
# swaps of the test in each simulated study
SWAPS = 399


@dataclass(frozen=True)
class SimulatedPower:
    """Share of simulated studies in which the test finds the difference.

    Attributes:
        patients: of each study.
        trainings: of each method.
        difference: true difference of the AUCs.
        power: share of studies with p < .05.
        low: lower end of the 95% interval of that share (Wilson), the chance of the simulation alone.
        high: upper end.
        studies: number simulated.
        test: the test, in words.
    """

    patients: int
    trainings: int
    difference: float
    power: float
    low: float
    high: float
    studies: int
    test: str


@dataclass(frozen=True, eq=False)
class Pilot:
    """What studies are simulated from: log odds of both methods on the pilot's cases.

    Attributes:
        table: cases, patients and labels.
        positive: class index.
        a: float64 [s, n], log odds of each training of method a, all at the same AUC.
        b: the same of method b.
        spread: standard deviation of a training's shift, in log odds of positive cases, of a and of b.
    """

    table: Predictions
    positive: int
    a: FloatArray
    b: FloatArray
    spread: tuple[float, float]

    @classmethod
    def from_runs(
        cls, runs_a: Sequence[Predictions], runs_b: Sequence[Predictions], *, positive: str | None = None
    ) -> Pilot:
        """A pilot from the predictions of two methods on the same cases, one table a training.

        Raises:
            RunError: no predictions, or tables over other cases, or one class only; or a training that is there twice.
        """
        if not runs_a or not runs_b:
            raise RunError(f"A pilot needs predictions of both methods; got {len(runs_a)} and {len(runs_b)} runs.")
        aligned = align([*runs_a, *runs_b])
        index = aligned[0].class_index(positive)
        truth = aligned[0].labels == index
        if truth.all() or not truth.any():
            raise RunError("A pilot needs cases of both classes.", "Give predictions that hold both.")
        odds = np.stack([logit(run.probabilities[:, index].clip(_EDGE, 1 - _EDGE)) for run in aligned])
        for part in (odds[: len(runs_a)], odds[len(runs_a) :]):
            if len(np.unique(part, axis=0)) < len(part):
                words = f"Two of the {len(part)} trainings of a method have the same predictions."
                raise RunError(words, "Name each training once.")
        methods, spreads = [], []
        for part in (odds[: len(runs_a)], odds[len(runs_a) :]):
            goal = float(np.mean([_compute_auc(row, truth) for row in part]))
            shifts = np.array([_solve_shift(row, truth, goal) for row in part])
            methods.append(part + shifts[:, None] * truth)
            spreads.append(float(shifts.std(ddof=1)) if len(shifts) > 1 else 0.0)
        return cls(aligned[0], index, methods[0], methods[1], (spreads[0], spreads[1]))

    def with_difference(self, difference: float) -> Pilot:
        """The same, with the AUC of a larger than that of b by `difference`.

        Raises:
            RunError: b's AUC and the difference leave 0 to 1, or a says too few probabilities to be moved there.
        """
        truth = self.table.labels == self.positive
        goal = float(np.mean([_compute_auc(row, truth) for row in self.b])) + difference
        if not 0.02 < goal < 0.999:
            raise RunError(
                f"The other method's AUC and a difference of {difference:g} make {goal:.3f}; expected between 0.02 and "
                "0.999.",
                "State a smaller difference.",
            )
        moved = np.stack([row + _solve_shift(row, truth, goal) * truth for row in self.a])
        reached = float(np.mean([_compute_auc(row, truth) for row in moved]))
        if abs(reached - goal) > 0.02:
            raise RunError(
                f"The first method says {np.unique(self.a[0]).size} different probabilities of {truth.size} cases: "
                f"moved towards an AUC of {goal:.3f} it jumps to {reached:.3f}.",
                "Give a pilot with the probabilities that the network says, not with calls or a constant.",
            )
        return replace(self, a=moved)

    @cached_property
    def _rows_of_patients(self) -> list[np.ndarray]:
        """Rows of each patient, patients in the order of their names: found once for all studies."""
        _, patient, counts = np.unique(
            np.asarray(self.table.patient_ids, dtype=str), return_inverse=True, return_counts=True
        )
        return np.split(np.argsort(patient, kind="stable"), np.cumsum(counts)[:-1])

    def draw(
        self, random: np.random.Generator, *, patients: int, trainings: int, prevalence: float | None = None
    ) -> tuple[list[Predictions], list[Predictions]]:
        """Predictions of a simulated study: a table a training, of a and of b.

        Args:
            random: source of chance.
            patients: number of patients.
            trainings: of each method.
            prevalence: share of patients with a positive case; None: as in the pilot.
        """
        truth = self.table.labels == self.positive
        rows_of = self._rows_of_patients
        if prevalence is None:
            chosen = random.integers(0, len(rows_of), patients)
        else:
            some = random.binomial(patients, prevalence)
            has = np.array([truth[rows].any() for rows in rows_of])
            pools = np.flatnonzero(has), np.flatnonzero(~has)
            if not (pools[0].size and pools[1].size):
                raise RunError(
                    f"Of {len(rows_of)} patients of the pilot {pools[0].size} have a positive case: no other "
                    "prevalence can be drawn from them.",
                    "Leave the prevalence as in the pilot, or give a pilot with both kinds of patients.",
                )
            chosen = np.concatenate([random.choice(pools[0], some), random.choice(pools[1], patients - some)])
        rows = np.concatenate([rows_of[p] for p in chosen])
        ids = np.repeat(np.arange(patients), [len(rows_of[p]) for p in chosen])
        methods = []
        for odds, spread in ((self.a, self.spread[0]), (self.b, self.spread[1])):
            runs = []
            for _ in range(trainings):
                own = odds[random.integers(0, len(odds))][rows] + random.normal(0.0, spread) * truth[rows]
                p = expit(own)
                runs.append(
                    Predictions(
                        ("negative", "positive"),
                        tuple(str(i) for i in range(len(rows))),
                        tuple(str(i) for i in range(len(rows))),
                        tuple(str(i) for i in ids),
                        truth[rows].astype(np.int64),
                        np.stack([1.0 - p, p], axis=1),
                    )
                )
            methods.append(runs)
        return methods[0], methods[1]


def simulate_power(
    pilot: Pilot,
    difference: float,
    *,
    patients: int,
    trainings: int = 1,
    prevalence: float | None = None,
    studies: int = 500,
    seed: int = 0,
) -> SimulatedPower:
    """Power of a study of so many patients and trainings.

    Args:
        pilot: what is simulated from.
        difference: true difference of the AUCs, a less b; 0 gives the share of false alarms.
        patients: number of patients.
        trainings: of each method; the test is over patients, with several trainings over both.
        prevalence: share of patients with a positive case; None: as in the pilot.
        studies: number simulated.
        seed: of the simulation.

    Raises:
        RunError: fewer than ten patients, or no training or study.
    """
    if patients < 10 or trainings < 1 or studies < 1 or (prevalence is not None and not 0.0 < prevalence < 1.0):
        raise RunError(
            f"A planned study has at least ten patients, one training, a prevalence between 0 and 1 and one "
            f"simulation; got {patients}, {trainings}, {prevalence}, {studies}."
        )
    random = np.random.default_rng([seed, patients, trainings])
    moved = pilot.with_difference(difference)
    found, test = 0, ""
    for _ in range(studies):
        a, b = moved.draw(random, patients=patients, trainings=trainings, prevalence=prevalence)
        result = compare_scores(a, b, AUC(1), swaps=SWAPS, seed=int(random.integers(2**31)))
        found += result.p_value is not None and result.p_value < 0.05
        test = result.method.split(",")[0] if result.p_value is not None else test
    low, high = _compute_wilson(found, studies)
    return SimulatedPower(patients, trainings, difference, found / studies, low, high, studies, test)


def find_patients_needed(
    pilot: Pilot,
    difference: float,
    *,
    power: float = 0.8,
    trainings: int = 1,
    prevalence: float | None = None,
    studies: int = 500,
    seed: int = 0,
    most: int = 20_000,
) -> list[SimulatedPower]:
    """Powers of growing studies, the last of which reaches the power asked for, or `most` patients.

    Sizes double until the power is reached, then close in to a step of some 10%.

    Raises:
        RunError: a power that is no share between 0 and 1.
    """
    if not 0.0 < power < 1.0:
        raise RunError(f"A power lies between 0 and 1; got {power}.", "Try 0.8.")
    tried: list[SimulatedPower] = []

    def simulate_at(n: int) -> SimulatedPower:
        tried.append(
            simulate_power(
                pilot, difference, patients=n, trainings=trainings, prevalence=prevalence, studies=studies, seed=seed
            )
        )
        return tried[-1]

    low, high = 25, 50
    while simulate_at(high).power < power and high < most:
        low, high = high, min(2 * high, most)
    if tried[-1].power >= power:
        while high - low > max(5, high // 10):
            middle = (low + high) // 2
            low, high = (low, middle) if simulate_at(middle).power >= power else (middle, high)
    return sorted(tried, key=lambda one: one.patients)


def _compute_auc(odds: FloatArray, truth: np.ndarray) -> float:
    m, n = int(truth.sum()), int((~truth).sum())
    ranks = np.asarray(rankdata(odds))
    return float((ranks[truth].sum() - m * (m + 1) / 2) / (m * n))


def _solve_shift(odds: FloatArray, truth: np.ndarray, goal: float) -> float:
    """What to add to the log odds of positive cases for an AUC, by bisection."""
    low, high = -60.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        if _compute_auc(odds + middle * truth, truth) < goal:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _compute_wilson(k: int, n: int) -> tuple[float, float]:
    z, p = 1.959963984540054, k / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
