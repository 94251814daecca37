"""Pictures of an evaluation: one panel a case, drawn from saved predictions and maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sightline.data.views.frames import find_case_frame, state_spacing
from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.evaluation.result import Evaluation
from sightline.inference.boxes import choose_top_finding
from sightline.io.files import make_unique_name
from sightline.io.image import read_image
from sightline.metrics.boxes.best_box import BoxScore
from sightline.plots.contact_sheet import Overlay, draw_contact_sheet
from sightline.plots.panels import PanelCase, draw_panel
from sightline.plots.planes import build_cube
from sightline.plots.volume_panels import VolumePanel, build_slice_overlay, draw_volume_panel
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.regions import ScoredBox, build_scored_boxes

SHEETS: tuple[Literal["boxes", "maps"], ...] = ("boxes", "maps")


def show_network_view(case: Case, view: View) -> tuple[NDArray[np.float32], Frame]:
    """A case as the network sees it, [h, w] or [h, w, 3] in 0..1, and the frame of that."""
    picture = read_image(case.image)
    planes, frame = view.show(picture.pixels, state_spacing(picture.frame, case), view.around(case))
    return (planes[0] if len(planes) == 1 else np.moveaxis(planes, 0, -1)), frame


def build_panel_case(
    evaluation: Evaluation, row: int, case: Case, view: View, title: str | None = None, *, on: View | None = None
) -> PanelCase:
    """What one panel shows.

    Args:
        evaluation: with maps.
        row: position of the case in the evaluation.
        case: the case.
        view: the run's view.
        title: heading; the case's id when None.
        on: draw on the picture of another view, so that methods that saw different parts stand side by side.
    """
    assert evaluation.maps is not None
    pixels, frame = show_network_view(case, on or view)
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
        found=list_boxes_of_row(evaluation, row),
        window=_get_window(evaluation, row)
        if on in (None, view)
        else _place_window(frame, evaluation, row, case, view),
    )


def build_volume_panel(
    evaluation: Evaluation, row: int, case: Case, view: VolumeView, title: str | None = None
) -> VolumePanel:
    """What the panel of a volume shows; without maps where the network gives none."""
    cube = build_cube(case, view)
    predictions = evaluation.predictions
    kept = list(range(len(predictions.classes)))
    maps = attention = None
    if evaluation.maps is not None:
        of_row = evaluation.maps.classes[row]
        kept = list(dict.fromkeys(int(k) for k in of_row))
        where = [list(of_row).index(k) for k in kept]
        maps, attention = (
            cube.facing.turn_array(of[row, where].astype(np.float64))
            for of in (evaluation.maps.maps, evaluation.maps.attention)
        )
    names = tuple(predictions.classes[k] for k in kept)
    return VolumePanel(
        title=case.case_id if title is None else title,
        cube=cube,
        regions=case.regions,
        classes=names,
        probabilities=predictions.probabilities[row, kept],
        label=case.label if case.label in names else None,
        maps=maps,
        attention=attention,
    )


def list_boxes_of_row(evaluation: Evaluation, row: int) -> tuple[ScoredBox, ...]:
    """The boxes an evaluation holds of a row, surest first: of its most probable finding."""
    if evaluation.box_scores is None:
        return ()
    case = evaluation.box_scores.cases[row]
    predictions = evaluation.predictions
    named = choose_top_finding(predictions.classes, predictions.probabilities[row])
    return build_scored_boxes(predictions.classes[named], case.found, case.scores)


def _get_window(evaluation: Evaluation, row: int) -> NDArray[np.float64] | None:
    windows = None if evaluation.maps is None else evaluation.maps.windows
    return None if windows is None else windows[row]


def _place_window(shown: Frame, evaluation: Evaluation, row: int, case: Case, view: View) -> NDArray[np.float64] | None:
    """Where the maps of a row lie on another view of the case, as a window [2, 3] of its frame; None: all over it."""
    window = _get_window(evaluation, row)
    maps = find_case_frame(case, view).within(np.eye(2, 3) if window is None else window, (1, 1))
    affine = np.linalg.inv(shown.to_source) @ maps.to_source
    found = np.asarray(affine[:2] / np.array(shown.shape)[:, None], dtype=np.float64)
    return None if np.allclose(found, np.eye(2, 3)) else found


def select_telling_cases(evaluation: Evaluation, most: int) -> list[int]:
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


def write_panels(
    evaluation: Evaluation, cohort: Cohort, view: View | VolumeView, out: Path, *, most: int = 8
) -> list[Path]:
    """PNG files: panels of telling cases, and sheets of what the network located best and worst.

    Pictures have panels where the network has maps; volumes have theirs in any case, in three planes.
    """
    if most < 1:
        return []
    pictures: dict[str, bytes] = {}
    taken = {f"{name}_{by}" for name in ("best", "worst") for by in SHEETS}
    shown = evaluation.maps is not None or isinstance(view, VolumeView)
    for row in select_telling_cases(evaluation, most) if shown else ():
        case = cohort[row]
        name = make_unique_name(case.case_id, taken)
        if isinstance(view, VolumeView):
            pictures[name] = draw_volume_panel(build_volume_panel(evaluation, row, case, view))
        else:
            pictures[name] = draw_panel(build_panel_case(evaluation, row, case, view))
    for by in SHEETS:
        for name, png in draw_contact_sheets(evaluation, cohort, view, by=by).items():
            pictures[f"{name}_{by}"] = png
    if pictures:
        out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, png in pictures.items():
        path = out / f"{name}.png"
        path.write_bytes(png)
        written.append(path)
    return written


def build_overlay(
    evaluation: Evaluation, row: int, case: Case, view: View | VolumeView, label: str, caption: str
) -> Overlay:
    """One picture of a contact sheet: the map of a class over the case, where the network has maps, and its boxes.

    Of a volume, the sagittal slice through the map's greatest cell.
    """
    if isinstance(view, VolumeView):
        panel = build_volume_panel(evaluation, row, case, view)
        return build_slice_overlay(panel, panel.classes.index(label) if label in panel.classes else 0, caption)
    pixels, frame = show_network_view(case, view)
    cells = None
    if evaluation.maps is not None:
        place = evaluation.maps.of_class(row, evaluation.predictions.classes.index(label)) or 0
        cells = evaluation.maps.maps[row, place].astype(np.float64)
    return Overlay(
        pixels, cells, case.regions, frame, caption, list_boxes_of_row(evaluation, row), _get_window(evaluation, row)
    )


def rank_by_pointing(evaluation: Evaluation, case_ids: Sequence[str]) -> list[int]:
    """Rows with a finding, best map first: by the energy inside the finding."""
    scores = evaluation.scores_for("finding")
    if scores is None:
        return []
    position = {case_id: i for i, case_id in enumerate(case_ids)}
    ranked = sorted(scores.rows, key=lambda r: (r.score.pointing or 0.0, r.score.energy or 0.0), reverse=True)
    return [position[r.case_id] for r in ranked]


def rank_by_boxes(evaluation: Evaluation) -> list[int]:
    """Rows with a finding, best box first: by its intersection over union, then by how near its centre is."""
    if evaluation.box_scores is None:
        return []
    scored = [(row, case.score) for row, case in enumerate(evaluation.box_scores.cases) if case.score is not None]

    def measure_worth(item: tuple[int, BoxScore]) -> tuple[float, float]:
        score = item[1]
        return score.iou, -(math.inf if score.distance_px is None else score.distance_px)

    return [row for row, _ in sorted(scored, key=measure_worth, reverse=True)]


def draw_contact_sheets(
    evaluation: Evaluation,
    cohort: Cohort,
    view: View | VolumeView,
    *,
    most: int = 20,
    by: Literal["boxes", "maps"] = "boxes",
) -> dict[str, bytes]:
    """`best` and `worst`: PNGs of the findings that a network located best and worst, worst first in the second.

    Args:
        evaluation: of the cohort.
        cohort: in the order of the evaluation.
        view: the run's.
        most: pictures on each; with fewer than twice as many findings each shows half of them.
        by: `boxes`, intersection over union of the best-scored box; `maps`, whether the map points into the finding,
            then its energy inside.

    Returns:
        Nothing where no finding is marked, or the network has no boxes or maps.
    """
    order = rank_by_boxes(evaluation) if by == "boxes" else rank_by_pointing(evaluation, [c.case_id for c in cohort])
    most = min(most, -(-len(order) // 2))
    sheets = {}
    for name, rows in (("best", order[:most]), ("worst", order[::-1][:most])):
        if rows:
            items = [_build_sheet_item(evaluation, row, cohort[row], view, by) for row in rows]
            sheets[name] = draw_contact_sheet(items, 5)
    return sheets


def _build_sheet_item(
    evaluation: Evaluation, row: int, case: Case, view: View | VolumeView, by: Literal["boxes", "maps"]
) -> Overlay:
    predictions = evaluation.predictions
    label = predictions.classes[choose_top_finding(predictions.classes, predictions.probabilities[row])]
    caption = f"{label} {predictions.probabilities[row, predictions.classes.index(label)]:.0%}"
    if by == "boxes":
        assert evaluation.box_scores is not None
        score = evaluation.box_scores.cases[row].score
        words = "no box" if score is None or not len(evaluation.box_scores.cases[row].found) else f"IoU {score.iou:.2f}"
    else:
        words = "points inside" if _is_pointing_inside(evaluation, case.case_id) else "points elsewhere"
    return build_overlay(evaluation, row, case, view, label, f"{case.case_id}\n{words}\n{caption}")


def _is_pointing_inside(evaluation: Evaluation, case_id: str) -> bool:
    scores = evaluation.scores_for("finding")
    rows = [] if scores is None else [row for row in scores.rows if row.case_id == case_id]
    return any((row.score.pointing or 0.0) >= 0.5 for row in rows)
