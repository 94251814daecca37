"""Pictures of an evaluation: one panel a case, drawn from saved predictions and maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.case import Case, Cohort
from sightline.cohorts.transforms import View, reduce_picture, sample
from sightline.frame import Frame
from sightline.io.image import read_image
from sightline.lab.evaluate import Evaluation
from sightline.lab.panels import Overlay, PanelCase, draw_panel


def network_view(path: Path, view: View) -> tuple[NDArray[np.float32], Frame]:
    """A picture as the network sees it, [h, w] or [h, w, 3] in 0..1, and its frame."""
    picture = read_image(path)
    frame = view.test_frame(picture.frame)
    planes = sample(reduce_picture(picture.pixels, picture.frame, view.size), frame)
    return (planes[0] if len(planes) == 1 else np.moveaxis(planes, 0, -1)), frame


def panel_case(evaluation: Evaluation, row: int, case: Case, view: View, title: str | None = None) -> PanelCase:
    """What one panel shows.

    Args:
        evaluation: with maps.
        row: position of the case in the evaluation.
        case: the case.
        view: the run's view.
        title: heading; the case's id when None.
    """
    assert evaluation.maps is not None
    pixels, frame = network_view(case.image, view)
    kept = list(dict.fromkeys(int(k) for k in evaluation.maps.classes[row]))
    where = [list(evaluation.maps.classes[row]).index(k) for k in kept]
    classes = evaluation.predictions.classes
    return PanelCase(
        title=case.case_id if title is None else title,
        pixels=pixels,
        frame=frame,
        regions=case.regions,
        classes=tuple(classes[k] for k in kept),
        maps=evaluation.maps.maps[row, where].astype(np.float64),
        attention=evaluation.maps.attention[row, where].astype(np.float64),
        probabilities=evaluation.predictions.probabilities[row, kept],
        label=case.label if case.label in [classes[k] for k in kept] else None,
    )


def telling_cases(evaluation: Evaluation, most: int) -> list[int]:
    """Rows worth looking at: for each class in turn the surest right and the surest wrong, without repeats."""
    predictions = evaluation.predictions
    sure = predictions.probabilities.max(axis=1)
    named = predictions.probabilities.argmax(axis=1)
    queues = []
    for k in range(len(predictions.classes)):
        for right in (True, False):
            rows = np.flatnonzero((predictions.labels == k) & ((named == k) == right))
            queues.append(list(rows[np.argsort(-sure[rows], kind="stable")]))
    chosen: list[int] = []
    while len(chosen) < most and any(queues):
        for queue in queues:
            if queue and len(chosen) < most:
                chosen.append(int(queue.pop(0)))
    return chosen


def write_panels(evaluation: Evaluation, cohort: Cohort, view: View, out: Path, *, most: int = 8) -> list[Path]:
    """Panels of telling cases as PNG files; none where the network has no maps."""
    if evaluation.maps is None or most < 1:
        return []
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for row in telling_cases(evaluation, most):
        case = cohort[row]
        path = out / f"{safe_name(case.case_id)}.png"
        path.write_bytes(draw_panel(panel_case(evaluation, row, case, view)))
        written.append(path)
    return written


def overlay_of(evaluation: Evaluation, row: int, case: Case, view: View, label: str, caption: str) -> Overlay:
    """One picture of a contact sheet: the map of a class over the case."""
    assert evaluation.maps is not None
    pixels, frame = network_view(case.image, view)
    place = evaluation.maps.of_class(row, evaluation.predictions.classes.index(label)) or 0
    return Overlay(pixels, evaluation.maps.attention[row, place].astype(np.float64), case.regions, frame, caption)


def safe_name(text: str) -> str:
    """A file name without separators or surprises."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text)[:120] or "case"


def pointing_order(evaluation: Evaluation, case_ids: Sequence[str]) -> list[int]:
    """Rows with a finding, best map first: by the energy inside the finding."""
    scores = evaluation.scores_for("finding")
    if scores is None:
        return []
    position = {case_id: i for i, case_id in enumerate(case_ids)}
    ranked = sorted(scores.rows, key=lambda r: (r.score.pointing or 0.0, r.score.energy or 0.0), reverse=True)
    return [position[r.case_id] for r in ranked]
