"""Pictures that were read before an eye tracker: its csv files, and a table of what was shown where and when.

    tracker.json      what the tracker's columns mean, the screen, and who sat before it
    pictures.csv      image_id, path, label [, study_id, patient_id, split, view]
    shown.csv         recording, image_id, x0, y0, x1, y1
                      [, reader, start, stop, image_x0, image_y0, image_x1, image_y1]

`docs/gaze.md` is the reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sightline.data.datasets.gaze.fixations import ByDispersion, ByVelocity, Detector, Viewing, build_viewing
from sightline.data.datasets.gaze.recordings import (
    SECONDS,
    Recording,
    TrackerColumns,
    check_fields,
    format_counts,
    read_column_map,
    read_recording,
    require_place,
)
from sightline.data.split import refuse_leakage, split_cohort
from sightline.errors import CohortError, GeometryError, LayoutError
from sightline.io.image import read_size
from sightline.io.tables import CsvRow, find_path_inside, read_json, read_table
from sightline.structures.case import SPLITS, Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.gaze import Gaze
from sightline.structures.identifiers import normalise_form
from sightline.structures.tag import Tag

LEAST_ON_PICTURE = 0.2
_DETECTORS: Mapping[str, type[ByVelocity] | type[ByDispersion]] = {"velocity": ByVelocity, "dispersion": ByDispersion}
_HEAD = ("tracker", "columns", "screen_px", "screen_width_mm", "distance_mm", "fixations", "spread_px")
_SCREEN = ("x0", "y0", "x1", "y1")
_PART = ("image_x0", "image_y0", "image_x1", "image_y1")


@dataclass(frozen=True)
class Showing:
    """A picture, or a part of it, on the screen for some time: zooming and panning make several.

    Attributes:
        row: of shown.csv.
        recording: file of the tracker.
        reader: who looked; the recording's name where the table does not say.
        image_id: which picture.
        start_s: from when on the recording's clock; minus infinity: from its beginning.
        stop_s: until when.
        screen: corners on the screen: row start, column start, row stop, column stop.
        part: the part of the picture shown there, in source pixels; None: all of it.
    """

    row: CsvRow
    recording: str
    reader: str
    image_id: str
    start_s: float
    stop_s: float
    screen: tuple[float, float, float, float]
    part: tuple[float, float, float, float] | None

    def frame(self, screen_px: tuple[int, int], shape: tuple[int, int]) -> Frame:
        """From screen pixels to source pixels."""
        part = self.part or (0.0, 0.0, float(shape[0]), float(shape[1]))
        scale = [(part[a + 2] - part[a]) / (self.screen[a + 2] - self.screen[a]) for a in (0, 1)]
        affine = np.diag([*scale, 1.0])
        affine[:2, 2] = [part[a] - scale[a] * self.screen[a] for a in (0, 1)]
        return Frame(screen_px, affine)


@dataclass(frozen=True)
class _Setup:
    """What tracker.json says."""

    columns: TrackerColumns
    screen_px: tuple[int, int]
    viewing: Viewing | None
    detector: Detector
    spread_px: float | None


@dataclass(frozen=True)
class Options:
    """How the layout is read."""

    gaze: Literal["samples", "fixations"] = "samples"
    """The tracker's samples, or fixations found in them as tracker.json's `fixations` says."""
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of patients in train, val and test, grouped and stratified, where pictures.csv has no split."""
    seed: int = 0
    """Seed of the split."""


def read(source: str | Path, options: Options | None = None) -> Cohort:
    """The cohort of a folder of recordings: one case a picture, one gaze a reader.

    Args:
        source: folder with tracker.json, pictures.csv and shown.csv.
        options: see `Options`; its defaults when left out.

    Raises:
        LayoutError: tables that contradict each other, or recordings that cannot be gaze on what was shown.
    """
    source, options = Path(source), options or Options()
    setup = _read_setup(source / "tracker.json")
    rows = read_table(
        source / "pictures.csv",
        ("image_id", "path", "label"),
        key="image_id",
        known=("study_id", "patient_id", "split", "view"),
    )
    if not rows:
        raise LayoutError(f"{source / 'pictures.csv'} names no picture.", "One row a picture.")
    images = {row["image_id"]: _find_image(source, row) for row in rows}
    shapes = {image_id: read_size(path) for image_id, path in images.items()}
    showings = _read_showings(source / "shown.csv", setup, shapes)
    counts: Counter[str] = Counter({"recordings": len({s.recording for s in showings}), "showings": len(showings)})
    found: dict[str, list[Gaze]] = {}
    for name in dict.fromkeys(showing.recording for showing in showings):
        path = find_path_inside(source, name)
        own = [showing for showing in showings if showing.recording == name]
        if path is None:
            raise own[0].row.error("recording", f"is {name!r}, which leads out of the folder")
        recording = read_recording(path, setup.columns, setup.screen_px)
        for image_id, reader in dict.fromkeys((s.image_id, s.reader) for s in own):
            mine = [s for s in own if (s.image_id, s.reader) == (image_id, reader)]
            looked = collect_gaze(recording, mine, shapes[image_id], setup, options.gaze, counts)
            if looked is not None:
                found.setdefault(image_id, []).append(looked)
    classes = tuple(dict.fromkeys(normalise_form(row.need("label")) for row in rows))
    cases = tuple(_build_case(row, images[row["image_id"]], shapes[row["image_id"]], found) for row in rows)
    counts["pictures without gaze"] = sum(not case.regions for case in cases)
    about = {"layout": "tracker", "counts": format_counts(counts)}
    try:
        cohort = Cohort(source.resolve().name, classes, cases, source, about)
        if any(case.split for case in cases):
            refuse_leakage(cohort)
            return cohort
        return split_cohort(cohort, options.fractions, options.seed) if len(classes) > 1 else cohort
    except CohortError as error:
        raise LayoutError(f"{source}: {error.message}", error.remedy) from None


def collect_gaze(
    recording: Recording,
    showings: Sequence[Showing],
    shape: tuple[int, int],
    setup: _Setup,
    kind: Literal["samples", "fixations"],
    counts: Counter[str],
) -> Gaze | None:
    """One reader's gaze on one picture, in source pixels; None without a place on it.

    Fixations are found showing by showing, because a change of zoom moves the picture under the eyes.

    Args:
        recording: places on the screen.
        showings: where and when the picture stood.
        shape: (rows, columns) of the picture.
        setup: of the folder.
        kind: of gaze asked for.
        counts: what is left out is counted here.
    """
    if kind == "samples" and recording.kind == "fixations":
        raise LayoutError(f"{recording.path} holds fixations; samples were asked for.", "Import with --gaze fixations.")
    pieces: list[Gaze] = []
    begin = min((s.start_s for s in showings), default=0.0)
    begin = begin if np.isfinite(begin) else float(recording.time_s[0])
    for showing in showings:
        when = (recording.time_s >= showing.start_s) & (recording.time_s < showing.stop_s)
        if not when.any():
            run = f"{recording.time_s[0]:g} to {recording.time_s[-1]:g} s"
            reason = (
                f"and stop ({showing.start_s:g} to {showing.stop_s:g} s) meet no row of {recording.path.name} ({run})"
            )
            raise showing.row.error("start", reason, "Both are read in the time unit that tracker.json names.")
        what = f"the place of {showing.image_id!r} (row {showing.row.number} of shown.csv)"
        require_place(recording, showing.screen, when, LEAST_ON_PICTURE, what)
        frame = showing.frame((setup.screen_px[0], setup.screen_px[1]), shape)
        screen, places = recording.places, frame.map_points(recording.places)
        low, high = np.array(showing.screen[:2]), np.array(showing.screen[2:])
        seen = when & recording.found
        on = seen & ((screen > low) & (screen < high) & (places > 0.0) & (places < np.array(shape))).all(axis=1)
        counts["eyes not found"] += int((when & ~recording.found).sum())
        counts["off picture"] += int((seen & ~on).sum())
        counts["kept"] += int(on.sum())
        degree = None if setup.viewing is None else setup.viewing.screen_px_per_deg * frame.scale
        piece = Gaze(
            places[on], recording.time_s[on] - begin, recording.dwell_s[on], recording.kind, degree,
            _choose_spread(setup, shape), Tag("gaze", None, showing.reader),
        )  # fmt: skip
        if kind == "fixations" and recording.kind == "samples":
            try:
                piece = setup.detector(piece)
            except GeometryError as error:
                raise LayoutError(f"{recording.path}: {error.message}", error.remedy) from None
            counts["fixations"] += len(piece)
        pieces.append(piece)
    return _join_pieces(pieces)


def _join_pieces(pieces: Sequence[Gaze]) -> Gaze | None:
    """Pieces of one reader as one gaze; a degree is their mean, weighted by how long each was looked at."""
    having = [piece for piece in pieces if len(piece)]
    if not having:
        return None
    places, start, dwell = (np.concatenate([piece.numbers[i] for piece in having]) for i in range(3))
    order = np.argsort(start, kind="stable")
    degree = None
    if all(piece.px_per_deg is not None for piece in having):
        weights = [float(piece.dwell_s.sum()) + 1e-12 for piece in having]
        degree = float(np.average([piece.px_per_deg or 0.0 for piece in having], weights=weights))
    first = having[0]
    return Gaze(places[order], start[order], dwell[order], first.kind, degree, first.spread_px, first.tag)


def _choose_spread(setup: _Setup, shape: tuple[int, int]) -> float:
    return 75.0 * max(shape) / 3056.0 if setup.spread_px is None else setup.spread_px


def _read_setup(path: Path) -> _Setup:
    head = read_json(path)
    if not isinstance(head, dict) or any(name not in _HEAD for name in head):
        raise LayoutError(f"{path} must hold some of the fields {', '.join(_HEAD)}.", "See docs/gaze.md.")
    screen = head.get("screen_px")
    if not (isinstance(screen, list) and len(screen) == 2 and all(isinstance(n, int) and n > 0 for n in screen)):
        raise LayoutError(f"{path}: `screen_px` is {screen!r}, expected [rows, columns].", "Write [1080, 1920].")
    lengths = {
        name: _parse_length(head.get(name), name, path) for name in ("screen_width_mm", "distance_mm", "spread_px")
    }
    by = head.get("fixations") or {"by": "velocity"}
    by = dict(by) if isinstance(by, dict) else {"by": by}
    owner = _DETECTORS.get(str(by.pop("by", "velocity")))
    if owner is None:
        raise LayoutError(
            f"{path}: `fixations` is found by one of {', '.join(_DETECTORS)}.", 'Write {"by": "velocity"}.'
        )
    return _Setup(
        read_column_map(head, path),
        (screen[0], screen[1]),
        build_viewing((screen[0], screen[1]), lengths["screen_width_mm"], lengths["distance_mm"]),
        owner(**check_fields(owner, by, path)),
        lengths["spread_px"],
    )


def _parse_length(value: Any, name: str, path: Path) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e6:
        raise LayoutError(f"{path}: `{name}` is {value!r}, expected a positive length.", "Fix the value.")
    return float(value)


def _read_showings(path: Path, setup: _Setup, shapes: Mapping[str, tuple[int, int]]) -> list[Showing]:
    unit = SECONDS[setup.columns.time_unit]
    showings = []
    known = {normalise_form(image_id): image_id for image_id in shapes}
    known_columns = ("reader", "start", "stop", *_PART)
    for row in read_table(path, ("recording", "image_id", *_SCREEN), known=known_columns):
        image_id = row["image_id"] if row["image_id"] in shapes else known.get(normalise_form(row["image_id"]))
        if image_id is None:
            raise row.error("image_id", f"is {row['image_id']!r}, which pictures.csv does not have")
        screen = _parse_corners(row, _SCREEN)
        if screen is None:
            raise row.error("x0", "to y1 are empty, expected where the picture stood on the screen")
        part = _parse_corners(row, _PART)
        rows, columns = shapes[image_id]
        if part is not None and not (part[0] >= 0 and part[1] >= 0 and part[2] <= rows and part[3] <= columns):
            raise row.error("image_x0", f"to image_y1 reach outside the picture of {rows} x {columns}")
        start, stop = row.number_of("start"), row.number_of("stop")
        start_s, stop_s = -np.inf if start is None else start * unit, np.inf if stop is None else stop * unit
        if stop_s <= start_s:
            raise row.error("stop", f"is {row['stop']!r}, not after start")
        name = row.need("recording")
        showings.append(Showing(row, name, row["reader"] or Path(name).stem, image_id, start_s, stop_s, screen, part))
    for a, b in combinations(showings, 2):
        at_once = a.recording == b.recording and a.start_s < b.stop_s and b.start_s < a.stop_s
        if at_once and all(a.screen[i] < b.screen[i + 2] and b.screen[i] < a.screen[i + 2] for i in (0, 1)):
            raise b.row.error("start", f"to stop overlaps row {a.row.number}: two pictures in one place at one time")
    return showings


def _parse_corners(row: CsvRow, names: Sequence[str]) -> tuple[float, float, float, float] | None:
    values = [row.number_of(name) for name in names]
    if all(value is None for value in values):
        return None
    x0, y0, x1, y1 = (float("nan") if value is None else value for value in values)
    if not (x1 > x0 and y1 > y0):
        raise row.error(names[0], f"to {names[3]} is no rectangle: {[row[name] for name in names]}")
    return y0, x0, y1, x1


def _find_image(source: Path, row: CsvRow) -> Path:
    path = find_path_inside(source, row.need("path"))
    if path is None or not path.is_file():
        raise row.error("path", f"is {row['path']!r}, which is no file inside the folder", "Put the picture there.")
    return path


def _build_case(row: CsvRow, image: Path, shape: tuple[int, int], found: Mapping[str, Sequence[Gaze]]) -> Case:
    split = next((name for name in SPLITS if name == row["split"]), None)
    if row["split"] and split is None:
        raise row.error("split", f"is {row['split']!r}, expected one of {list(SPLITS)} or nothing")
    image_id = row["image_id"]
    study = row["study_id"] or image_id
    return Case(
        case_id=image_id, study_id=study, patient_id=row["patient_id"] or study, image=image, label=row["label"],
        regions=tuple(found.get(image_id, ())), split=split, view=row["view"], shape=shape,
    )  # fmt: skip
