"""From map to answer: how well other readings of a run's finished class maps would classify, with nothing trained.

A network learns its maps through one pooling; the same maps can be read by another. Which reading is chosen has to be
decided on validation, and is then looked at once on the test cases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import expit, log_expit, logsumexp, softmax
from sklearn.metrics import roc_auc_score

from sightline.errors import RunError
from sightline.inference.network_output import Maps
from sightline.metrics.estimate import Comparison, FloatArray
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.delong import delong

OWN = "as trained"


def _build_top_mean(share: float) -> Callable[[FloatArray], FloatArray]:
    def average_highest(cells: FloatArray) -> FloatArray:
        kept = max(1, round(share * cells.shape[1]))
        return np.asarray(np.partition(cells, -kept, axis=1)[:, -kept:].mean(axis=1))

    return average_highest


# of the evidence for the finding in every cell, [n, cells], one number a case, higher where it is more likely
READINGS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "mean": lambda cells: np.asarray(cells.mean(axis=1)),
    "maximum": lambda cells: np.asarray(cells.max(axis=1)),
    "top 0.1%": _build_top_mean(0.001),
    "top 0.5%": _build_top_mean(0.005),
    "top 2%": _build_top_mean(0.02),
    # Liao 2022, equation 5
    "softmax pooling": lambda cells: np.asarray((softmax(cells, axis=1) * cells).sum(axis=1)),
    # Pinheiro 2015, r = 4
    "log-sum-exp": lambda cells: np.asarray(logsumexp(4.0 * cells, axis=1) / 4.0),
    # no cell is marked, cells being independent: 1 - prod(1 - p); its logarithm keeps the order where it is near 1
    "noisy or": lambda cells: np.asarray(-log_expit(-cells).sum(axis=1)),
}


@dataclass(frozen=True)
class MapReading:
    """One way to read the maps.

    Attributes:
        name: of it.
        validation: its AUC on validation.
        test: its AUC on the test cases.
        compared: test AUC minus that of the network's own answer (DeLong, summed over patients).
    """

    name: str
    validation: float
    test: float
    compared: Comparison | None = None


def read_answers(predictions: Path, test: str = "test") -> list[MapReading]:
    """Every reading of the maps of a run of two classes, the network's own answer first.

    Two maps are read as their difference, which is what the network's own softmax sees, and as the second map alone.

    Args:
        predictions: a run's `predictions/`, with `val` and the cases to be looked at.
        test: which those are: `test`, or `external` of a table with a second hospital's cohort.

    Raises:
        RunError: no maps of both, or other than two classes.
    """
    val, looked = _read(predictions, "val"), _read(predictions, test)
    own = _select_second_class(val[0]), _select_second_class(looked[0])
    found = [MapReading(OWN, _compute_area(val[0], own[0]), _compute_area(looked[0], own[1]))]
    for of, cells_of in _compute_evidence(val[1]).items():
        test_cells = _compute_evidence(looked[1])[of]
        for name, reading in READINGS.items():
            answers = reading(cells_of), reading(test_cells)
            # ranks alone matter to an AUC, so any increasing function into 0..1 serves
            second = expit(_standardise(answers[1]))
            chosen = replace(looked[0], probabilities=np.stack([1.0 - second, second], axis=1))
            compared = delong(chosen, looked[0])
            found.append(
                MapReading(
                    f"{name}{of}", _compute_area(val[0], answers[0]), _compute_area(looked[0], answers[1]), compared
                )
            )
    return found


def choose_best_reading(readings: list[MapReading]) -> MapReading:
    """The reading best on validation; of equal ones, the first."""
    return max(readings, key=lambda r: r.validation)


def format_answers_table(readings: list[MapReading]) -> str:
    """Markdown, the one chosen on validation in bold."""
    best = choose_best_reading(readings)
    lines = ["| reading | AUC, validation | AUC, test | difference from its own answer (95%, DeLong over patients) |", "|---|---|---|---|"]  # fmt: skip  # noqa: E501
    for r in readings:
        name = f"**{r.name}**" if r is best else r.name
        cell = "–"
        if r.compared is not None and r.compared.low is not None and r.compared.high is not None:
            cell = f"{r.compared.difference:+.3f} ({r.compared.low:+.3f} to {r.compared.high:+.3f})"
        lines.append(f"| {name} | {r.validation:.3f} | {r.test:.3f} | {cell} |")
    return "\n".join(lines)


def _read(folder: Path, name: str) -> tuple[Predictions, Maps]:
    table, maps = folder / f"{name}.csv", folder / f"{name}_maps.npz"
    if not table.is_file() or not maps.is_file():
        raise RunError(
            f"{folder} has no class maps of {name}.",
            "`sightline table` leaves them where a finding is marked in both splits.",
        )
    predictions, maps_read = Predictions.read(table), Maps.read(maps)
    if len(predictions.classes) != 2:
        raise RunError(
            f"{folder} tells {len(predictions.classes)} classes apart; maps are read of two.", "Choose another run."
        )
    if len(np.unique(predictions.labels)) < 2:
        raise RunError(
            f"{table} holds cases of one class alone: no AUC is defined, so no reading can be chosen or judged by it.",
            "Evaluate the run on cases of both classes.",
        )
    if maps_read.case_ids != predictions.case_ids:
        raise RunError(f"{maps} and {table} are of other cases.", "Evaluate the run again.")
    return predictions, maps_read


def _compute_evidence(maps: Maps) -> dict[str, FloatArray]:
    """What speaks for the second class in each cell, [n, cells]."""
    order = np.argsort(maps.classes, axis=1)
    both = np.take_along_axis(maps.maps.reshape(*maps.maps.shape[:2], -1), order[:, :, None], axis=1).astype(float)
    if not both[:, 0].any():
        return {"": both[:, 1]}
    return {"": both[:, 1] - both[:, 0], ", second map alone": both[:, 1]}


def _select_second_class(predictions: Predictions) -> FloatArray:
    return np.asarray(predictions.probabilities[:, 1])


def _standardise(scores: FloatArray) -> FloatArray:
    return np.asarray((scores - scores.mean()) / (scores.std() or 1.0))


def _compute_area(predictions: Predictions, scores: FloatArray) -> float:
    return float(roc_auc_score(predictions.labels == 1, scores))
