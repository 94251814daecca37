"""A tracker's csv as places on the screen; what cannot be a recording of eyes is refused with the reason."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sightline.errors import LayoutError, count_noun
from sightline.io.tables import find_dialect, require_even_rows
from sightline.structures.frame import FloatArray

RATES_HZ = (20.0, 2000.0)
FIXATION_S = (0.03, 5.0)
LEAST_ON_SCREEN = 0.5
# this much more of the gaze in place once x and y are exchanged: they are exchanged
CLEARLY_MORE = 0.2


@dataclass(frozen=True, eq=False)
class Recording:
    """Rows of one recording in order of time.

    Attributes:
        path: the file.
        time_s: [n] seconds on the recording's own clock.
        places: [n, 2] (row, column) in screen pixels; NaN where the eyes were not found.
        exchanged: the same with x and y exchanged.
        dwell_s: [n] seconds each row counts for.
        kind: what the rows are.
    """

    path: Path
    time_s: FloatArray
    places: FloatArray
    exchanged: FloatArray
    dwell_s: FloatArray
    kind: Literal["samples", "fixations"]

    @property
    def found(self) -> NDArray[np.bool_]:
        """[n] where the eyes were found."""
        return np.asarray(np.isfinite(self.places).all(axis=1))


def read_recording(path: Path, columns: TrackerColumns, screen_px: tuple[int, int]) -> Recording:
    """Read and judge a recording.

    Args:
        path: csv of the tracker.
        columns: what its columns mean.
        screen_px: (rows, columns) of the screen.

    Raises:
        LayoutError: no such file or column, numbers that are none, a clock that runs backwards, a rate no tracker has,
            places in another unit, off the screen, or with x and y exchanged.
    """
    table = _read_table(path, columns)
    time_s = _parse_numbers(path, table, columns.time, columns) * SECONDS[columns.time_unit]
    x, y = (_parse_numbers(path, table, name, columns) for name in (columns.x, columns.y))
    if not len(time_s) or not np.isfinite(time_s).all():
        raise LayoutError(
            f"{path}: {'no row' if not len(time_s) else f'a cell of {columns.time!r} is empty'}.",
            "Export the recording again, or name other rows in `only`.",
        )
    lost = ~(np.isfinite(x) & np.isfinite(y)) | ~_read_valid(path, table, columns)
    if lost.all():
        raise LayoutError(
            f"{path}: the eyes were found in none of {count_noun(len(lost), 'row')}.", "Check `validity` and `valid`."
        )
    _require_clock(path, time_s, columns)
    duration = None if columns.duration is None else _parse_numbers(path, table, columns.duration, columns)
    order = np.argsort(time_s, kind="stable")
    time_s, x, y, lost = time_s[order], x[order], y[order], lost[order]
    if duration is None:
        _require_rate(path, time_s, columns)
        dwell = compute_time_until_next(time_s)
    else:
        dwell = duration[order] * SECONDS[columns.time_unit]
        _require_durations(path, dwell, columns)
    _require_unit(path, np.concatenate([x[~lost], y[~lost]]), columns)
    places, exchanged = (
        _convert_to_screen(x, y, lost, columns, screen_px),
        _convert_to_screen(y, x, lost, columns, screen_px),
    )
    recording = Recording(path, time_s, places, exchanged, dwell, "samples" if duration is None else "fixations")
    require_place(recording, (0.0, 0.0, float(screen_px[0]), float(screen_px[1])), None, LEAST_ON_SCREEN, "the screen")
    return recording


def require_place(
    recording: Recording,
    corners: tuple[float, float, float, float],
    when: NDArray[np.bool_] | None,
    least: float,
    what: str,
) -> None:
    """Refuse gaze that is elsewhere, or that would be there with x and y exchanged.

    Args:
        recording: whose gaze.
        corners: on the screen: row start, column start, row stop, column stop.
        when: [n] rows that count.
        least: share of them that must lie within.
        what: name of the place.
    """
    found = recording.found if when is None else recording.found & when
    if not found.any():
        return

    def compute_share(places: FloatArray) -> float:
        low, high = np.array(corners[:2]), np.array(corners[2:])
        return float(((places[found] >= low) & (places[found] <= high)).all(axis=1).mean())

    straight, exchanged = compute_share(recording.places), compute_share(recording.exchanged)
    if exchanged > straight + CLEARLY_MORE:
        raise LayoutError(
            f"{recording.path}: {straight:.0%} of the gaze lies on {what}, {exchanged:.0%} with x and y exchanged.",
            "Exchange the columns x and y, or fix the place where the picture stood.",
        )
    if straight < least:
        raise LayoutError(
            f"{recording.path}: only {straight:.0%} of the gaze lies on {what}, expected {least:.0%} or more.",
            "Check the size of the screen, the unit of places, y_up, and where the picture stood and when.",
        )


def compute_time_until_next(start_s: FloatArray) -> FloatArray:
    """Seconds each sample counts for: until the next, but a gap of three periods or more counts for nobody."""
    gaps = np.diff(start_s, append=np.nan)
    period = float(np.median(gaps[:-1])) if len(start_s) > 1 else 1.0 / 60.0
    dwell: FloatArray = np.where(np.isfinite(gaps) & (gaps < 3.0 * period), gaps, period)
    return dwell


def _read_table(path: Path, columns: TrackerColumns) -> pd.DataFrame:
    dialect = find_dialect(path, columns.used)
    if dialect["sep"] == ",":  # also where none fits, as names of columns may go on in brackets
        dialect["sep"] = columns.separator
    require_even_rows(path, dialect["sep"], short=True, columns=columns.used)
    try:
        header = list(pd.read_csv(path, nrows=0, index_col=False, **dialect).columns)
        found = {name: _find_column(path, name, header) for name in columns.used}
        if len(set(found.values())) < len(found):
            raise LayoutError(f"{path}: two fields name one column ({', '.join(columns.used)}).", "Fix the map.")
        table = pd.read_csv(
            path, usecols=list(found.values()), dtype=str, keep_default_na=False, index_col=False, **dialect
        )
    except FileNotFoundError:
        raise LayoutError(f"{path} is missing.", "Put the recording there.") from None
    except (OSError, ValueError) as error:
        raise LayoutError(f"{path} does not parse as a table ({error}).", "Check `separator`; export again.") from None
    table = table.rename(columns={there: name for name, there in found.items()})
    for name, text in columns.only.items():
        table = table[table[name].str.strip() == text]
    return table


def _find_column(path: Path, name: str, header: list[str]) -> str:
    if name in header:
        return name
    longer = [column for column in header if column.removeprefix(name).lstrip()[:1] in ("(", "[") and name in column]
    if len(longer) != 1:
        what = f"several columns {longer}" if longer else "no column"
        remedy = "Name it in `columns`." if len(header) > 1 else "Name what stands between cells: `separator`."
        raise LayoutError(f"{path} has {what} {name!r}; it has {', '.join(header)[:300]}.", remedy)
    return longer[0]


def _parse_numbers(path: Path, table: pd.DataFrame, name: str, columns: TrackerColumns) -> FloatArray:
    text = table[name].str.strip()
    if columns.decimal == ",":
        text = text.str.replace(",", ".")
    numbers = pd.to_numeric(text, errors="coerce")
    strange = numbers.isna() & ~text.str.lower().isin(("", "nan", "na", "-"))
    if strange.any():
        row = int(np.flatnonzero(strange)[0])
        raise LayoutError(
            f"{path}: row {int(table.index[row]) + 2}, column {name!r} is {text.iloc[row]!r}, expected a number.",
            "Fix the cell, or check `decimal` and `separator`.",
        )
    return np.array(numbers, dtype=np.float64)


def _read_valid(path: Path, table: pd.DataFrame, columns: TrackerColumns) -> NDArray[np.bool_]:
    if columns.validity is None:
        return np.ones(len(table), dtype=bool)
    if columns.least_confidence is not None:
        return np.asarray(_parse_numbers(path, table, columns.validity, columns) >= columns.least_confidence)
    return np.asarray(table[columns.validity].str.strip().isin(columns.valid), dtype=bool)


def _require_clock(path: Path, time_s: FloatArray, columns: TrackerColumns) -> None:
    backwards = float((np.diff(time_s) < 0.0).mean()) if len(time_s) > 1 else 0.0
    if backwards > 0.05:
        raise LayoutError(
            f"{path}: {columns.time!r} runs backwards in {backwards:.0%} of the rows.",
            "Name the column of time, and give each recording a file of its own.",
        )


def _require_rate(path: Path, time_s: FloatArray, columns: TrackerColumns) -> None:
    steps = np.diff(time_s)
    steps = steps[steps > 0.0]
    if not len(steps):
        raise LayoutError(f"{path}: time stands still in {columns.time!r}.", "Name the column of time.")
    rate = 1.0 / float(np.median(steps))
    if RATES_HZ[0] <= rate <= RATES_HZ[1]:
        return
    others = {unit: rate * SECONDS[columns.time_unit] / seconds for unit, seconds in SECONDS.items()}
    fits = [f"{unit} would be {hz:.4g} Hz" for unit, hz in others.items() if RATES_HZ[0] <= hz <= RATES_HZ[1]]
    raise LayoutError(
        f"{path}: {columns.time!r} in {columns.time_unit} makes {rate:.4g} Hz; trackers have {RATES_HZ[0]:g} to "
        f"{RATES_HZ[1]:g}{'; ' + ', '.join(fits) if fits else ''}.",
        "Fix `time_unit`." if fits else "Name the column of time; fixations need their `duration`.",
    )


def _require_durations(path: Path, dwell_s: FloatArray, columns: TrackerColumns) -> None:
    if not np.isfinite(dwell_s).all() or (dwell_s < 0.0).any():
        raise LayoutError(f"{path}: a cell of {columns.duration!r} is empty or negative.", "Restore the export.")
    middle = float(np.median(dwell_s))
    if not FIXATION_S[0] <= middle <= FIXATION_S[1]:
        raise LayoutError(
            f"{path}: half of the fixations last {middle:.4g} s or less; expected {FIXATION_S[0]:g} to "
            f"{FIXATION_S[1]:g}.",
            "Fix `time_unit`, or name the column of duration.",
        )


def require_seconds(path: Path, lasting: ArrayLike, kind: Literal["samples", "fixations"]) -> None:
    """Refuse times of a published layout that are in another unit: no tracker samples, and no eye rests, like that.

    Args:
        path: the table.
        lasting: what each row lasts if times are in seconds; fewer than ten say nothing.
        kind: what the rows are.
    """
    known = np.asarray(lasting, dtype=np.float64)
    known = known[np.isfinite(known) & (known > 0.0)]
    low, high = (1.0 / RATES_HZ[1], 1.0 / RATES_HZ[0]) if kind == "samples" else FIXATION_S
    middle = float(np.median(known)) if len(known) >= 10 else low
    if not low <= middle <= high:
        raise LayoutError(
            f"{path}: {kind} last {middle:.4g} s (the median); {low:g} to {high:g} s were expected.",
            "Times are in seconds there: divide milliseconds by 1000.",
        )


def _require_unit(path: Path, values: FloatArray, columns: TrackerColumns) -> None:
    high = float(np.percentile(np.abs(values), 90))
    if columns.place_unit == "share" and high > 3.0:
        raise LayoutError(f"{path}: places reach {high:.4g}, which are no shares of a screen.", "place_unit is px.")
    if columns.place_unit == "px" and high < 3.0:
        raise LayoutError(f"{path}: places reach {high:.4g}, which are no pixels.", "place_unit is share.")


def _convert_to_screen(
    x: FloatArray, y: FloatArray, lost: NDArray[np.bool_], columns: TrackerColumns, screen_px: tuple[int, int]
) -> FloatArray:
    size = np.array(screen_px, dtype=np.float64) if columns.place_unit == "share" else np.ones(2)
    places: FloatArray = np.stack([y, x], axis=1) * size
    if columns.y_up:
        places[:, 0] = screen_px[0] - places[:, 0]
    places[lost] = np.nan
    return places


def format_counts(counts: Mapping[str, int]) -> str:
    """Counts as a text: `read 5, kept 3`."""
    return ", ".join(f"{name} {n}" for name, n in counts.items())


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


def read_column_map(document: Mapping[str, Any], where: Path) -> TrackerColumns:
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
    return replace(TRACKERS[word], **check_fields(TrackerColumns, changes, where))


def check_fields(owner: type[Any], values: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Values of a JSON document for a dataclass: names and types are checked, lists become tuples.

    Raises:
        LayoutError: naming the field.
    """
    hints, known = get_type_hints(owner), [f.name for f in fields(owner)]
    made = {}
    for name, value in values.items():
        if name not in known:
            raise LayoutError(f"{where}: unknown field {name!r}, expected some of {', '.join(known)}.", "Fix its name.")
        value = tuple(value) if isinstance(value, list) else value
        if not _has_type(value, hints[name]):
            raise LayoutError(
                f"{where}: {name!r} is {value!r}, expected {_describe_type(hints[name])}.", "Fix the value."
            )
        made[name] = float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return made


def _has_type(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in args
    if origin in (Union, types.UnionType):
        return any(_has_type(value, arg) for arg in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(_has_type(item, args[0]) for item in value)
    if origin is not None:
        return isinstance(value, dict) and all(_has_type(item, str) for pair in value.items() for item in pair)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint)


def _describe_type(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(repr(word) for word in get_args(hint))
    return getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint)
