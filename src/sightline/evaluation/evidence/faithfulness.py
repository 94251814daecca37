"""Does a run rest on what its maps mark? Deletion, insertion and ROAD of each explainer over test images.

Every number stands beside a random order of the map's cells, a Gaussian at the centre, and the same explainer's map of
an untrained network (same architecture, random weights). It is about the network, not about the disease.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sightline.data.loader import CohortItems, Key
from sightline.data.views.frames import find_source_frame
from sightline.data.views.image_view import View
from sightline.errors import CohortError, RecipeError, RunError, SightlineError
from sightline.inference.explanations import EXPLAINERS
from sightline.io.progress import show_progress
from sightline.metrics.classification.report import format_counts
from sightline.metrics.estimate import Estimate
from sightline.metrics.faithfulness.perturbation import PixelRemoval, Predict
from sightline.metrics.faithfulness.report import (
    Faithfulness,
    FaithfulnessRow,
    compute_faithfulness_report,
    deletion,
    insertion,
    road,
)
from sightline.structures.case import Cohort
from sightline.structures.evidence import compute_probabilities, forward_evidence
from sightline.structures.regions import Box
from sightline.structures.resampling import place_on_grid
from sightline.training.engine import Engine
from sightline.training.run import Run

STEPS = 16
# of the pixels: a system of equations is solved for each, so there are few (those of the grad-cam package)
ROAD_SHARES = (0.2, 0.4, 0.6, 0.8)
SEED = 0
# each measure, and which values a good map has
MEASURES = {"deletion": "lower", "insertion": "higher", "ROAD MoRF": "lower"}
BASELINES = ("", ", random order", ", centred Gaussian", ", untrained network")
GAINS = (", better than a random order by", ", better than a centred Gaussian by", ", better than an untrained network by")  # fmt: skip  # noqa: E501


@dataclass(frozen=True)
class FaithfulnessTable:
    """Faithfulness of several explainers on the same images.

    Attributes:
        estimates: by explainer's name, every estimate of `compute_faithfulness_report`.
        notes: explainers that could not be measured, and why.
    """

    estimates: Mapping[str, tuple[Estimate, ...]]
    notes: tuple[str, ...] = ()

    def all(self) -> list[Estimate]:
        """Every number, for `metrics.json`: `deletion, class map`, `deletion, class map, random order`, ..."""
        found = []
        for explainer, estimates in self.estimates.items():
            for estimate in estimates:
                measure, comma, rest = estimate.name.partition(", ")
                found.append(replace(estimate, name=f"{measure}, {explainer}{comma}{rest}"))
        return found

    def markdown(self) -> str:
        """A section for `metrics.md`."""
        head = ["map", "measure", "good is", "value", "random order", "centred Gaussian", "untrained network"]
        head += ["better than random by", "than the Gaussian by", "than the untrained by"]
        lines = ["## Faithfulness: does the answer rest on what the map marks?", ""]
        lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for explainer, estimates in self.estimates.items():
            by_name = {estimate.name: estimate for estimate in estimates}
            for measure, good in MEASURES.items():
                plain = [f"{by_name[measure + end].value:.3f}" for end in BASELINES]
                gains = [_format_signed(by_name[measure + end]) for end in GAINS]
                lines.append("| " + " | ".join([explainer, measure, good, *plain, *gains]) + " |")
        first = next((each[0] for each in self.estimates.values()), None)
        if first is not None:
            lines += [
                "",
                f"n: {format_counts(first.n)}. {first.method}. The probability of the predicted class is followed.",
            ]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)]) + "\n"


def measure_faithfulness(
    run: Run,
    cohort: Cohort,
    explainers: Sequence[str] = ("cam",),
    *,
    images: int = 24,
    taking: PixelRemoval | None = None,
    engine: Engine | None = None,
) -> FaithfulnessTable:
    """Deletion and insertion (Petsiuk 2018) and ROAD (Rong 2022) of each explainer's map of the predicted class.

    Args:
        run: a finished run that classifies pictures.
        cohort: cases as the run sees them, e.g. its test cases.
        explainers: keys of `EXPLAINERS`.
        images: at most so many cases (`choose_cases`).
        taking: random orders, batch and seed, from which each case draws its own; one random order an image when None.
        engine: device.

    Raises:
        RunError: a run of volumes, one that only localises, or no image.
        RecipeError: no such explainer.
        CohortError: no case.

    Example:
        `print(measure_faithfulness(run, cohort.split("test"), ("cam", "grad_cam")).markdown())`
    """
    view = run.recipe.view
    if not isinstance(view, View) or not run.recipe.classifies:
        raise RunError(
            f"{run.folder} is no classifier of pictures; faithfulness follows the probability of a class of a picture.",
            "Leave --faithfulness out.",
        )
    unknown = [name for name in explainers if name not in EXPLAINERS]
    if unknown or not explainers:
        raise RecipeError(f"There is no explainer {', '.join(unknown) or '(none given)'}.",
                          f"Known: {', '.join(EXPLAINERS)}.")  # fmt: skip
    if images < 1:
        raise RunError(f"Faithfulness is measured on one image or more; got {images}.", "Try 24.")
    if len(cohort) == 0:
        raise CohortError(f"Cohort {cohort.name!r} has no case to measure.", "Choose another split.")
    engine, taking = engine or Engine(), taking or PixelRemoval(orders=1, seed=SEED)
    device = engine.find_device()
    network, untrained = run.network().to(device).eval(), _build_untrained(run).to(device)
    rows: dict[str, list[FaithfulnessRow]] = {name: [] for name in explainers}
    notes: dict[str, str] = {}
    items = CohortItems(cohort, view)
    chosen = choose_cases(cohort, images)
    with show_progress("faithfulness", len(chosen), quiet=engine.quiet) as advance:
        for index in chosen:
            item, case = items[Key(index, -1)], cohort[index]
            own = taking.seed_case(case.case_id)
            planes = np.asarray(item.image, dtype=np.float32)
            inside = Box((0.0, 0.0), tuple(map(float, find_source_frame(case).shape))).draw(item.frame) > 0
            answers = _build_predictor(run, network, device)
            predicted = int(np.asarray(answers(planes[None]))[0].argmax())
            for name in (name for name in explainers if name not in notes):
                try:
                    ours, theirs = (_compute_map(n, name, planes, predicted, device) for n in (network, untrained))
                    found = _measure_cases(answers, planes, ours, theirs, predicted, inside, own)
                except SightlineError as error:
                    notes[name] = f"{EXPLAINERS[name][0]} was not measured: {error.message} {error.remedy}".rstrip()
                    continue
                rows[name] += [FaithfulnessRow(case.case_id, case.study_id, case.patient_id, each) for each in found]
            advance(1)
    measured = {
        EXPLAINERS[n][0]: tuple(compute_faithfulness_report(r)) for n, r in rows.items() if r and n not in notes
    }
    return FaithfulnessTable(measured, tuple(notes.values()))


def choose_cases(cohort: Cohort, most: int) -> list[int]:
    """Positions of at most so many cases: the classes by turns, of each as many patients as there are."""
    turns: dict[str, list[tuple[int, int]]] = {name: [] for name in cohort.classes}
    seen: Counter[tuple[str, str]] = Counter()
    for index, case in enumerate(cohort):
        # an image's number among its patient's of this class: first images come before second ones
        turns[case.label].append((seen[case.label, case.patient_id], index))
        seen[case.label, case.patient_id] += 1
    queues = [[index for _, index in sorted(each)] for each in turns.values()]
    longest = max(map(len, queues))
    return [queue[n] for n in range(longest) for queue in queues if n < len(queue)][:most]


def _measure_cases(
    answers: Predict,
    planes: NDArray[np.float32],
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    predicted: int,
    inside: NDArray[np.bool_],
    taking: PixelRemoval,
) -> list[Faithfulness]:
    words = {"valid": inside, "taking": taking, "untrained": theirs}
    return [
        deletion(answers, planes, ours, predicted, steps=STEPS, **words),  # type: ignore[arg-type]
        insertion(answers, planes, ours, predicted, steps=STEPS, **words),  # type: ignore[arg-type]
        road(answers, planes, ours, predicted, shares=ROAD_SHARES, **words),  # type: ignore[arg-type]
    ]


def _build_predictor(
    run: Run, network: nn.Module, device: torch.device
) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
    """Images [n, c, h, w] to class probabilities [n, k]."""

    def predict_planes(images: NDArray[np.float32]) -> NDArray[np.float64]:
        logits = forward_evidence(network, torch.from_numpy(np.ascontiguousarray(images)), device).logits
        return compute_probabilities(logits, independent=run.recipe.independent)

    return predict_planes


def _build_untrained(run: Run) -> nn.Module:
    """The same architecture with random weights; torch's own random state is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network: nn.Module = run.recipe.model.without_weights().build(len(run.classes))
    return network.eval()


def _compute_map(
    network: nn.Module, name: str, planes: NDArray[np.float32], predicted: int, device: torch.device
) -> NDArray[np.float64]:
    """An explainer's map of a class, over the whole of the view."""
    image = torch.from_numpy(planes)[None].to(device)
    cells = EXPLAINERS[name][1](network, image, [predicted])[0, 0].detach().double().cpu().numpy()
    window = forward_evidence(network, image, device).window
    if window is None or cells.shape == planes.shape[1:]:
        return np.asarray(cells)
    # what lies outside the window was not looked at
    placed = place_on_grid(cells, window[0].double().numpy(), (planes.shape[1], planes.shape[2]))
    return np.nan_to_num(placed, nan=float(cells.min()))


def _format_signed(estimate: Estimate) -> str:
    if estimate.value is None:
        return "undefined"
    ends = "" if estimate.low is None or estimate.high is None else f" ({estimate.low:+.3f} to {estimate.high:+.3f})"
    return f"{estimate.value:+.3f}{ends}"
