"""Which cases an expert should mark next: uncertain ones, ones whose map and answer disagree, diverse ones, or any."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from sightline.data.views.image_view import View
from sightline.errors import CohortError, RunError, count_noun
from sightline.evaluation.answers import READINGS
from sightline.inference.network_output import Maps
from sightline.inference.predict import predict, settle_output
from sightline.io.files import write_text
from sightline.io.image import read_image
from sightline.structures.case import Case, Cohort
from sightline.training.engine import Engine
from sightline.training.run import Run, require_same_classes

Strategy = Literal["mixed", "uncertainty", "disagreement", "diversity", "random"]
FloatArray = NDArray[np.float64]
# every fifth case at random, so that what the order is worth can be measured
RANDOM_SHARE = 0.2
# of how many times the wanted number the diverse ones are taken
POOL = 3
THUMBNAIL = 16


@dataclass(frozen=True)
class Suggestion:
    """A case to mark.

    Attributes:
        case_id: which.
        study_id: its study.
        chosen_by: the strategy, or `random`.
        probability: of the last class, calibrated if the run is.
        uncertainty: entropy of the probabilities over that of an even guess, 0 to 1.
        disagreement: how far apart the case stands in the orders of answer and of map, 0 to 1; None
            without a map of the last class.
    """

    case_id: str
    study_id: str
    chosen_by: str
    probability: float
    uncertainty: float
    disagreement: float | None


def suggest_cases(
    run: Run,
    cohort: Cohort,
    n: int,
    *,
    strategy: Strategy = "mixed",
    seed: int = 0,
    engine: Engine | None = None,
) -> list[Suggestion]:
    """The next cases to mark, most wanted first; every fifth one at random.

    `uncertainty` takes the highest entropy (Lewis & Gale 1994); `disagreement` the cases whose class map, read by
    log-sum-exp, ranks them farthest from where the network's own answer does; `diversity` covers the pictures (k-centre
    greedy, Sener & Savarese 2018, on thumbnails of the view); `mixed` takes the diverse ones among the three times as
    many that are most uncertain or disagree most.

    Args:
        run: a finished run of radiographs.
        cohort: cases to choose from, e.g. unmarked training cases.
        n: how many.
        strategy: as above.
        seed: of what is chosen at random.
        engine: device.

    Raises:
        CohortError: fewer cases than asked for, none asked for, or other classes than the run's.
        RunError: a run of volumes, or `disagreement` of a network without maps.

    Example:
        >>> suggest_cases(run, cohort.split("train"), 50)[0].chosen_by  # doctest: +SKIP
        'mixed'
    """
    cohort = run.recipe.see(cohort)
    if not 1 <= n <= len(cohort):
        raise CohortError(
            f"{count_noun(n, 'case was', 'cases were')} asked for, of {len(cohort)} to choose from.",
            "Ask for fewer, 1 or more.",
        )
    require_strategy(strategy)
    view = run.recipe.view
    if not isinstance(view, View):
        raise RunError(f"{run.folder} reads volumes.", "Cases are suggested for runs of radiographs.")
    require_same_classes(run.classes, cohort.classes, f"Cohort {cohort.name!r}")
    engine = engine or Engine()
    device = engine.find_device()
    output = predict(
        run.network(), cohort, view, device=device, quiet=engine.quiet,
        independent=run.recipe.independent,
    )  # fmt: skip
    probabilities = settle_output(run, output).predictions.probabilities
    uncertainty = compute_entropy(probabilities)
    disagreement = None if output.maps is None else measure_disagreement(probabilities, output.maps)
    if disagreement is not None and np.isnan(disagreement).all():
        disagreement = None
    # where a case has no map of the last class, nothing disagrees
    order_by = None if disagreement is None else np.nan_to_num(disagreement, nan=0.0)
    if order_by is None and strategy == "disagreement":
        raise RunError(f"{run.folder} has no maps of the last class.", "Choose another strategy.")
    random = np.random.default_rng([seed, len(cohort)])
    everyone = np.arange(len(cohort))
    if strategy == "random":
        order = random.permutation(everyone)
    elif strategy == "diversity":
        order = select_diverse(_compute_thumbnails(cohort, view), n)
    elif strategy == "mixed":
        wanted = rankdata(uncertainty) + (0.0 if order_by is None else rankdata(order_by))
        pool = np.argsort(-wanted, kind="stable")[: POOL * n]
        order = pool[select_diverse(_compute_thumbnails([cohort[i] for i in pool], view), n)]
    else:
        order = np.argsort(-(uncertainty if strategy == "uncertainty" else order_by), kind="stable")  # type: ignore[operator]
    found = []
    for case, by_chance in _interleave(order, random.permutation(everyone), n, strategy != "random"):
        found.append(
            Suggestion(
                cohort.cases[case].case_id, cohort.cases[case].study_id, "random" if by_chance else strategy,
                float(probabilities[case, -1]), float(uncertainty[case]),
                None if disagreement is None or np.isnan(disagreement[case]) else float(disagreement[case]),
            )
        )  # fmt: skip
    return found


def require_strategy(word: str) -> None:
    """Refuse a word that is no strategy.

    Raises:
        RunError: it is none.
    """
    if word not in get_args(Strategy):
        raise RunError(f"Unknown strategy {word!r}.", f"Known: {', '.join(get_args(Strategy))}.")


def compute_entropy(probabilities: FloatArray) -> FloatArray:
    """Entropy of probabilities [n, k] over its largest value: 0 is sure, 1 an even guess; sigmoids by their mean."""
    p = probabilities.clip(1e-12, 1.0)
    if np.allclose(p.sum(axis=1), 1.0, atol=1e-6):
        return np.asarray(-(p * np.log(p)).sum(axis=1) / np.log(p.shape[1]))
    q = (1 - p).clip(1e-12, 1.0)
    return np.asarray(-(p * np.log(p) + q * np.log(q)).mean(axis=1) / np.log(2))


def measure_disagreement(probabilities: FloatArray, maps: Maps) -> FloatArray:
    """How far apart cases stand in the order of the last class's probability and in that of its map, 0 to 1.

    Of many classes only some maps of a case are kept. Cases without the last class's map are NaN, and the others are
    ordered among themselves.

    Args:
        probabilities: [n, k].
        maps: of the same n cases.
    """
    last = probabilities.shape[1] - 1
    where = [maps.of_class(row, last) for row in range(len(maps.case_ids))]
    there = [row for row, place in enumerate(where) if place is not None]
    found = np.full(len(where), np.nan)
    if there:
        cells = np.stack([maps.maps[row, where[row]].ravel().astype(np.float64) for row in there])
        apart = np.abs(rankdata(READINGS["log-sum-exp"](cells)) - rankdata(probabilities[there, last]))
        found[there] = apart / max(1, len(there) - 1)
    return found


def select_diverse(features: FloatArray, n: int) -> NDArray[np.int64]:
    """Positions of rows [m, d] that cover all: the first, then each time the one farthest from those taken."""
    taken = [0]
    distance = np.linalg.norm(features - features[0], axis=1)
    while len(taken) < min(n, len(features)):
        # those taken may not come again, however alike all are
        distance[taken] = -1.0
        taken.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(features - features[taken[-1]], axis=1))
    return np.array(taken, dtype=np.int64)


def write_suggestions(found: Sequence[Suggestion], path: Path) -> None:
    """A csv: rank, case, study, why, and the numbers it was chosen by."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["rank", "case_id", "study_id", "chosen_by", "probability", "uncertainty", "disagreement"])
    for rank, s in enumerate(found, start=1):
        row = ["" if value is None else f"{value:.4f}" for value in (s.probability, s.uncertainty, s.disagreement)]
        writer.writerow([rank, s.case_id, s.study_id, s.chosen_by, *row])
    write_text(path, out.getvalue())


def _interleave(order: NDArray[np.int64], by_chance: NDArray[np.int64], n: int, mixed: bool) -> list[tuple[int, bool]]:
    """The first `n` of an order, every fifth one from the other instead."""
    every = round(1 / RANDOM_SHARE)
    chosen, chance = iter(order.tolist()), iter(by_chance.tolist())
    taken: dict[int, bool] = {}
    while len(taken) < n:
        turn = mixed and len(taken) % every == every - 1
        case = next(c for c in (chance if turn else chosen) if c not in taken)
        taken[case] = turn
    return list(taken.items())


def _compute_thumbnails(cases: Iterable[Case], view: View) -> FloatArray:
    """Small pictures [n, cells] of the view, each of mean 0 and standard deviation 1."""
    rows = []
    for case in cases:
        picture = read_image(case.image)
        planes, _ = view.show(picture.pixels, picture.frame, view.around(case))
        grey = planes.mean(axis=0).astype(np.float64)
        step = max(1, grey.shape[0] // THUMBNAIL)
        side = grey.shape[0] // step * step
        small = grey[:side, :side].reshape(side // step, step, side // step, step).mean(axis=(1, 3)).ravel()
        rows.append((small - small.mean()) / (small.std() or 1.0))
    return np.stack(rows)
