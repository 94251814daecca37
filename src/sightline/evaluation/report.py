"""Every number of an evaluation with its interval, as `metrics.json` and `metrics.md`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sightline.data.task import derive_coarser_tasks
from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.errors import RunError
from sightline.evaluation.result import Evaluation
from sightline.evaluation.scoring.gaze import group_by_map
from sightline.evaluation.scoring.maps import ROLES
from sightline.io.files import write_text
from sightline.metrics.boxes.report import compute_box_estimates
from sightline.metrics.classification.estimates import estimate_score
from sightline.metrics.classification.hierarchy import merge_classes
from sightline.metrics.classification.report import compute_classification_report, to_markdown
from sightline.metrics.classification.scores import F1
from sightline.metrics.estimate import Estimate
from sightline.metrics.maps.windows import measure_window_displacement
from sightline.metrics.predictions import Predictions


def compute_report(
    evaluation: Evaluation, *, positive: str | None = None, replicates: int = 2000, classifies: bool = True
) -> list[Estimate]:
    """Every number of an evaluation with its interval: image-wise, study-wise, at coarser levels of the labels, maps by
    role and boxes beside chance, and how far windows moved.

    Args:
        evaluation: a run's output on a cohort.
        positive: the positive class; default: the last one.
        replicates: bootstrap samples.
        classifies: whether the network classifies (`Recipe.classifies`); one that only localises gives all classes the
            same probability, so numbers about classes are left out.
    """
    if replicates < 1:
        raise RunError(f"Intervals need at least one bootstrap sample; got {replicates}.", "Try --replicates 2000.")
    predictions = evaluation.predictions
    found = compute_classification_report(predictions, positive=positive, replicates=replicates) if classifies else []
    for role in ROLES:
        scores = evaluation.scores_for(role)
        if scores is not None:
            for estimate in scores.estimates():
                fields = estimate.to_dict()
                found.append(Estimate.from_dict({**fields, "name": f"{estimate.name}, {role}"}))
    for task in derive_coarser_tasks(predictions.classes) if classifies else ():
        coarse = merge_classes(predictions, task.groups(predictions.classes))
        score = F1("positive", 1) if len(coarse.classes) == 2 else F1("weighted")
        name = f"F1 at the level {task.level} ({', '.join(coarse.classes)}), image-wise"
        found.append(replace(estimate_score([coarse], score), name=name))
    if evaluation.gaze_scores is not None:
        for name, table in group_by_map(evaluation.gaze_scores).items():
            for estimate in table.estimates():
                found.append(replace(estimate, name=f"{estimate.name}, {name}"))
    if evaluation.box_scores is not None:
        found += compute_box_estimates(evaluation.box_scores)
    if evaluation.maps is not None and evaluation.maps.windows is not None:
        moved = measure_window_displacement(evaluation.maps.windows)
        found += moved.estimates(predictions.patient_ids, counts=predictions.counts())
    return found


def describe_omissions(view: View | VolumeView, evaluation: Evaluation) -> tuple[str, ...]:
    """Notes on what a report leaves out: images without a mark, and for volumes what only pictures have."""
    if isinstance(view, View):
        return _describe_unmarked(evaluation)
    words = ["Boxes, gaze and windows are measured on pictures alone: volumes have none of these numbers."]
    if evaluation.maps is None:
        words.append("The network gives no class maps, so nothing says where it looked; `sightline dissect` says what "
                     "its units respond to.")  # fmt: skip
    elif evaluation.map_scores is None:
        words.append("No region is marked that a class map could be held against.")
    return tuple(words)


def describe_positive_class(predictions: Predictions) -> tuple[str, ...]:
    """Which of two classes AUC, sensitivity and the like are of; with more, each number names its class."""
    if len(predictions.classes) != 2:
        return ()
    negative, positive = predictions.classes
    return (
        f"The positive class is {positive}: AUC, average precision, sensitivity, precision and prevalence are of it; "
        f"specificity is of {negative}.",
    )


def _describe_unmarked(evaluation: Evaluation) -> tuple[str, ...]:
    """The number of images without a mark to compare map or box with; nothing if all or none are marked."""
    n, words = len(evaluation.predictions.case_ids), []
    for role in ROLES:
        scores = evaluation.scores_for(role)
        marked = n if scores is None else len({row.case_id for row in scores.rows})
        if marked < n:
            words.append(f"{n - marked} of {n} images have no {role} mark: no score of maps against one counts them.")
    return tuple(words)


def write_report_of(
    estimates: Sequence[Estimate],
    folder: Path,
    title: str,
    notes: Sequence[str] = (),
    *,
    apart: Sequence[Estimate] = (),
) -> None:
    """Write `metrics.json` and `metrics.md`, with notes below the numbers.

    The numbers of `apart` are in the JSON file only; a note shows them in a table of their own.
    """
    write_text(folder / "metrics.json", json.dumps([e.to_dict() for e in (*estimates, *apart)], indent=1) + "\n")
    below = "".join(f"\n{note}\n" for note in notes)
    write_text(folder / "metrics.md", f"# {title}\n\n{to_markdown(estimates)}\n{below}")
