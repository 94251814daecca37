"""Do the intervals hold the truth, and is the paired test right 95 times in 100 where two methods are alike?

Simulated readers' data: each patient has one label and 1 to 4 images; 40% of the noise is shared by a patient's images,
60% of the rest by the trainings of a method, and two methods share what is the patient's. With several trainings each
has its own skill (standard deviation 0.15 of d'), and the truth is the AUC expected of one more training.

Scores of maps, of 20 or 40 patients with 1 to 3 marked images: how far a map lies on its mark is 36% the patient's, 25%
the image's (both for all trainings of both methods alike) and 39% of one training on one image, and each training has
a level of its own besides. A map hits where that is above 0; its energy is a smooth share of it.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from scipy.special import expit, ndtr, ndtri

from sightline.metrics.statistics.auc_intervals import compute_auc_interval, compute_auc_spread
from sightline.metrics.statistics.comparison import average_resampled, compare_resampled, estimate_over_seeds
from sightline.metrics.statistics.paired_tests import Draws, build_auc_swap, run_swap_test
from sightline.metrics.statistics.score_intervals import compute_proportion_interval

SKILL_SPREAD = 0.15
PATIENTS, AUCS, PREVALENCES, TRAININGS = (40, 100, 400), (0.7, 0.9, 0.98), (0.1, 0.5), (1, 2, 3)
POSITIVES, SHARES = (5, 10, 20, 50, 200), (0.5, 0.8, 0.95)
WIDTHS = (0.5, 2.0)  # of the positive scores, the negatives' 1: what the interval's model does not know
ALIKE = 0.4  # of the noise, within a patient
MAP_PATIENTS, LEVEL_SPREADS = (20, 40), (0.1, 0.2, 0.4)  # of trainings, the noise of a map 1
MAP_LEVEL, OF_PATIENT, OF_IMAGE = 0.8, 0.36, 0.25  # how far on their marks maps lie on average; shares of the noise
MAP_SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "pointing game": lambda field: (field > 0).astype(np.float64),
    "energy": lambda field: expit(1.5 * field - 2.0),
}


@dataclass(frozen=True)
class Cell:
    """One cell of the table: what was simulated and what came out, in percent of the simulations.

    Attributes:
        kind: `AUC`, `AUC, positives W times as wide`, `sensitivity`, or `pointing game` or `energy`, followed by the
            standard deviation of trainings.
        patients: number of patients; of positive ones for a sensitivity.
        truth: the number that was simulated.
        prevalence: share of positive patients.
        trainings: of each method.
        simulations: how many.
        covered: intervals that hold the truth.
        above, below: intervals that lie above the truth, and below it.
        rejected: comparisons of two methods that are alike with p < 0.05.
    """

    kind: str
    patients: int
    truth: float
    prevalence: float
    trainings: int
    simulations: int
    covered: float
    above: float
    below: float
    rejected: float | None = None


def measure(
    *, simulations: int = 2000, small: bool = False, trainings: Sequence[int] = TRAININGS, parts: Sequence[str] = ()
) -> Iterator[Cell]:
    """Every cell, as soon as it is done.

    Args:
        simulations: of each cell.
        small: only the cells that are hardest and easiest.
        trainings: of each method, for AUCs.
        parts: beginnings of the kinds to simulate; all when none is named.
    """

    def asked(kind: str) -> bool:
        return not parts or kind.startswith(tuple(parts))

    for patients, auc, prevalence, t in itertools.product(PATIENTS, AUCS, PREVALENCES, trainings):
        if asked("AUC") and (not small or (patients, prevalence) in ((40, 0.1), (100, 0.5))):
            yield auc_cell(patients, auc, prevalence, t, simulations)
    for width, auc, prevalence in itertools.product(WIDTHS, AUCS, PREVALENCES):
        if asked("AUC") and not small:
            yield auc_cell(40, auc, prevalence, 1, simulations, width)
    for patients, share in itertools.product(POSITIVES, SHARES):
        if asked("sensitivity") and (not small or patients <= 20):
            yield sensitivity_cell(patients, share, simulations)
    for score, patients, spread in itertools.product(MAP_SCORES, MAP_PATIENTS, LEVEL_SPREADS):
        if asked(score) and (not small or (patients, spread) == (40, 0.4)):
            # these are quick: four times as many tell 5% from 6%
            yield map_cell(score, patients, spread, 4 * simulations)


def auc_cell(
    patients: int, auc: float, prevalence: float, trainings: int, simulations: int, width: float = 1.0
) -> Cell:
    """Coverage of the interval of method a's mean AUC, and how often a and b are told apart."""
    random = np.random.default_rng([patients, round(100 * auc), round(100 * prevalence), trainings])
    skill, spread = np.sqrt(1.0 + width**2) * ndtri(auc), SKILL_SPREAD if trainings > 1 else 0.0
    truth = float(ndtr(skill / np.sqrt(1.0 + width**2 + spread**2)))
    ends, rejected = np.zeros((simulations, 2)), 0
    for i in range(simulations):
        patient = np.repeat(np.arange(patients), random.integers(1, 5, patients))
        positive = (np.arange(patients) < round(patients * prevalence))[patient]
        of_patient = np.sqrt(ALIKE) * random.standard_normal(patients)[patient]
        methods = []
        for _ in range(2):
            of_method = random.standard_normal(patient.size)
            noise = np.sqrt(0.6) * of_method + np.sqrt(0.4) * random.standard_normal((trainings, patient.size))
            skills = skill + spread * random.standard_normal((trainings, 1))
            widths = np.where(positive, width, 1.0)
            methods.append(skills * positive + widths * (of_patient + np.sqrt(1 - ALIKE) * noise))
        a, b = methods
        ends[i] = compute_auc_interval(a, positive, patient)
        spreads = (compute_auc_spread(a, positive, patient), compute_auc_spread(b, positive, patient))
        found = run_swap_test("AUC", build_auc_swap(a, b, positive, patient), spreads, patients, {}, Draws(999, i))
        rejected += found.p_value is not None and found.p_value < 0.05
    shares = _covered(ends, truth)
    kind = "AUC" if width == 1.0 else f"AUC, positives {width:g} times as wide"
    return Cell(kind, patients, auc, prevalence, trainings, simulations, *shares, 100.0 * rejected / simulations)


def sensitivity_cell(patients: int, share: float, simulations: int) -> Cell:
    """Coverage of the interval of the share of positive images that are found."""
    random = np.random.default_rng([patients, round(100 * share)])
    ends = np.zeros((simulations, 2))
    for i in range(simulations):
        patient = np.repeat(np.arange(patients), random.integers(1, 5, patients))
        noise = np.sqrt(ALIKE) * random.standard_normal(patients)[patient]
        hits = noise + np.sqrt(1 - ALIKE) * random.standard_normal(patient.size) < ndtri(share)
        ends[i] = compute_proportion_interval(hits, patient)
    return Cell("sensitivity", patients, share, 1.0, 1, simulations, *_covered(ends, share))


def map_cell(score: str, patients: int, spread: float, simulations: int, trainings: int = 3) -> Cell:
    """Coverage of the interval of method a's mean score of maps, and how often a and b, alike, are told apart.

    Args:
        score: `pointing game` or `energy`.
        patients: how many, each with 1 to 3 marked images.
        spread: standard deviation of trainings.
        simulations: how many.
        trainings: of each method.
    """
    random = np.random.default_rng([patients, round(100 * spread), trainings])
    judge = MAP_SCORES[score]
    whole = np.sqrt(1.0 + spread**2) * ndtri((np.arange(100_000) + 0.5) / 100_000)
    truth = float(judge(MAP_LEVEL + whole).mean())
    ends, rejected = np.zeros((simulations, 2)), 0
    for i in range(simulations):
        patient = np.repeat(np.arange(patients), random.integers(1, 4, patients))
        common = np.sqrt(OF_PATIENT) * random.standard_normal(patients)[patient]
        common = MAP_LEVEL + common + np.sqrt(OF_IMAGE) * random.standard_normal(patient.size)
        own = np.sqrt(1 - OF_PATIENT - OF_IMAGE) * random.standard_normal((2, trainings, patient.size))
        fields = common + spread * random.standard_normal((2, trainings, 1)) + own
        a, b = ([average_resampled(judge(field)) for field in method] for method in fields)
        ids = [str(number) for number in patient]
        found = estimate_over_seeds(score, a, ids, {})
        # a number without an interval holds whatever is true
        ends[i] = (0.0, 1.0) if found.low is None else (found.low, found.high)
        told = compare_resampled(score, a, b, ids, {}, draws=Draws(999, i))
        rejected += told.p_value is not None and told.p_value < 0.05
    shares = _covered(ends, truth)
    kind = f"{score}, trainings {spread:g} apart"
    return Cell(kind, patients, truth, 1.0, trainings, simulations, *shares, 100.0 * rejected / simulations)


def _covered(ends: np.ndarray, truth: float) -> tuple[float, float, float]:
    above, below = (100.0 * float(np.mean(missed)) for missed in (ends[:, 0] > truth, ends[:, 1] < truth))
    return 100.0 - above - below, above, below


def write_cells(cells: Sequence[Cell], path: Path) -> None:
    """A csv of cells."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Cell)])
        writer.writeheader()
        writer.writerows(asdict(cell) for cell in cells)


def read_cells(path: Path) -> list[Cell]:
    """What `write_cells` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    whole, text = ("patients", "trainings", "simulations"), ("kind",)
    return [
        Cell(**{k: v if k in text else int(v) if k in whole else float(v) if v else None for k, v in row.items()})
        for row in rows
    ]


def tables(cells: Sequence[Cell]) -> str:
    """Tables in Markdown: AUC by cell, a column a number of trainings; other shapes; sensitivity by patients; maps."""
    found = {(c.kind, c.patients, c.truth, c.prevalence, c.trainings): c for c in cells}
    trainings = sorted({c.trainings for c in cells if c.kind == "AUC"})
    words = ["1 training" if t == 1 else f"{t} trainings" for t in trainings]
    head = ["patients", "AUC", "prevalence", *(f"holds the truth, {w}" for w in words)]
    lines = [[*head, *(f"p < 0.05, {w}" for w in words)]]
    for key in dict.fromkeys((c.patients, c.truth, c.prevalence) for c in cells if c.kind == "AUC"):
        row = [found["AUC", *key, t] for t in trainings]
        lines.append([*(f"{x:g}" for x in key), *map(_held, row), *(f"{c.rejected:.1f}" for c in row)])
    text = _markdown(lines)
    wide = [c for c in cells if c.kind.startswith("AUC, ")]
    lines = [["simulated", "patients", "AUC", "prevalence", "holds the truth", "p < 0.05"]]
    for c in wide:
        key = (f"{x:g}" for x in (c.patients, c.truth, c.prevalence))
        lines.append([c.kind.removeprefix("AUC, "), *key, _held(c), f"{c.rejected:.1f}"])
    text += f"\n{_markdown(lines)}" if wide else ""
    shares = sorted({c.truth for c in cells if c.kind == "sensitivity"})
    lines = [["positive patients", *(f"sensitivity {s:g}" for s in shares)]]
    for patients in dict.fromkeys(c.patients for c in cells if c.kind == "sensitivity"):
        lines.append([str(patients), *(_held(found["sensitivity", patients, s, 1.0, 1]) for s in shares)])
    text += f"\n{_markdown(lines)}"
    lines = [["score of maps", "patients", "standard deviation of trainings", "holds the truth", "p < 0.05"]]
    for c in (c for c in cells if c.kind.startswith(tuple(MAP_SCORES))):
        score, _, spread = c.kind.removesuffix(" apart").partition(", trainings ")
        share = (c.rejected or 0.0) / 100.0
        chance = float(np.sqrt(share * (1.0 - share) / c.simulations))
        lines.append([score, str(c.patients), spread, _held(c), f"{100 * share:.1f} ± {100 * chance:.1f}"])
    return f"{text}\n{_markdown(lines)}"


def _held(cell: Cell) -> str:
    return f"{cell.covered:.1f} ({cell.above:.1f} / {cell.below:.1f})"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    rows = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)
