"""Which columns of a tracker's csv mean what: maps for Gazepoint, Tobii and Pupil exports, and your own."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from sightline.errors import LayoutError

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


@dataclass(frozen=True)
class TrackerColumns:
    """A map of columns. A name also matches the only column that continues it by a bracket: `TIME(2021/03/12 ...)`.

    Attributes:
        time: when a row was recorded, or a fixation began.
        x: place across the screen, from its left edge.
        y: place down the screen, from its top edge.
        time_unit: of `time` and `duration`.
        place_unit: screen pixels, or shares (0 to 1) of the screen.
        y_up: y runs from the bottom edge upwards.
        validity: column that says whether the eyes were found; empty places are lost in any case.
        valid: its texts that mean yes.
        least_confidence: instead of `valid`: its least number that means yes.
        only: rows that count, by column and text.
        duration: how long a fixation lasted; a table with it holds fixations, not samples.
        separator: between cells.
        decimal: sign before decimals.
    """

    time: str = "time"
    x: str = "x"
    y: str = "y"
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    place_unit: Literal["px", "share"] = "px"
    y_up: bool = False
    validity: str | None = None
    valid: tuple[str, ...] = ("1",)
    least_confidence: float | None = None
    only: Mapping[str, str] = field(default_factory=dict)
    duration: str | None = None
    separator: Literal[",", ";", "\t"] = ","
    decimal: Literal[".", ","] = "."

    @property
    def used(self) -> tuple[str, ...]:
        """Every column that is read."""
        named = (self.time, self.x, self.y, self.validity, self.duration, *self.only)
        return tuple(dict.fromkeys(name for name in named if name is not None))


TRACKERS: Mapping[str, TrackerColumns] = {
    "plain": TrackerColumns(),
    # best point of gaze, of both eyes where both are seen
    "gazepoint": TrackerColumns("TIME", "BPOGX", "BPOGY", "s", "share", validity="BPOGV"),
    "gazepoint_fixations": TrackerColumns("FPOGS", "FPOGX", "FPOGY", "s", "share", validity="FPOGV", duration="FPOGD"),
    # Pro Lab: display area coordinates, other sensors' rows between those of the eye tracker
    "tobii": TrackerColumns(
        "Recording timestamp",
        "Gaze point X",
        "Gaze point Y",
        "us",
        "px",
        only={"Sensor": "Eye Tracker"},
        separator="\t",
    ),
    # Pupil Player's gaze_positions_on_surface: the surface's origin is at its bottom left
    "pupil": TrackerColumns(
        "gaze_timestamp", "x_norm", "y_norm", "s", "share", y_up=True, validity="confidence", least_confidence=0.6
    ),
}


def columns_of(document: Mapping[str, Any], where: Path) -> TrackerColumns:
    """The map that `tracker` names, with the fields of `columns` in place of its own.

    Raises:
        LayoutError: an unknown tracker or field, or a value of another type.
    """
    word = document.get("tracker", "plain")
    if word not in TRACKERS:
        raise LayoutError(f"{where}: `tracker` is {word!r}, expected one of {', '.join(TRACKERS)}.", "Name your map.")
    changes = document.get("columns", {})
    if not isinstance(changes, dict):
        raise LayoutError(f"{where}: `columns` is {changes!r}, expected fields and values.", 'Write {"x": "GX"}.')
    return replace(TRACKERS[word], **checked(TrackerColumns, changes, where))


def checked(owner: type[Any], values: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Values of a JSON document for a dataclass: names and types are checked, lists become tuples.

    Raises:
        LayoutError: naming the field.
    """
    hints, known = get_type_hints(owner), [f.name for f in fields(owner)]
    made = {}
    for name, value in values.items():
        if name not in known:
            raise LayoutError(
                f"{where}: unknown field {name!r}, expected some of {', '.join(known)}.", "Mend its name."
            )
        value = tuple(value) if isinstance(value, list) else value
        if not _fits(value, hints[name]):
            raise LayoutError(f"{where}: {name!r} is {value!r}, expected {_words(hints[name])}.", "Mend the value.")
        made[name] = float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return made


def _fits(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in args
    if origin in (Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, args[0]) for item in value)
    if origin is not None:
        return isinstance(value, dict) and all(_fits(item, str) for pair in value.items() for item in pair)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(repr(word) for word in get_args(hint))
    return getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint)
