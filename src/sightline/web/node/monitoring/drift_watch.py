"""Whether what a rule's run sees and says has moved: windows of 200 images against the training and against this site.

Inputs (grey, contrast, size, edges, spacing, device, body part, view, checks that refused) and outputs (probabilities,
class that was called). The site's own reference is its first 1,000 images, so that a hospital that has always been
different from the training gives one alarm, not one for ever.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from sightline.inference.gate.gate_file import Gate
from sightline.metrics.drift import Drift, Values, find_alarms, measure_drift
from sightline.web.node.database import Store, readings

WINDOW = 200
SITE_REFERENCE = 1000
LEAST_REFERENCE = 200


@dataclass(frozen=True)
class DriftFinding:
    """What was found for one rule and reference.

    Attributes:
        against: `training` or `this site's first images`.
        windows: (seconds since 1970 of its last image, drift by measure) of each window, oldest first.
        alarms: (index of the window, measure).
    """

    against: str
    windows: tuple[tuple[float, tuple[Drift, ...]], ...]
    alarms: tuple[tuple[int, str], ...]

    @property
    def moved(self) -> tuple[str, ...]:
        """Measures whose alarm stands at the newest window."""
        newest = len(self.windows) - 1
        return tuple(measure for index, measure in self.alarms if index == newest)


def group_columns(rows: Sequence[Mapping[str, float | str]]) -> dict[str, Values]:
    """Readings as columns; a measure that is a number here and a word there is taken as words."""
    names = sorted({name for row in rows for name in row})
    columns: dict[str, Values] = {}
    for name in names:
        values = [row[name] for row in rows if name in row]
        if any(isinstance(value, str) for value in values):
            columns[name] = [str(value) for value in values]
        else:
            columns[name] = [float(value) for value in values]
    return columns


def count_readings(store: Store, rule: str) -> int:
    """How many images a rule has readings of."""
    query = select(func.count()).select_from(readings).where(readings.c.rule == rule)
    with store.look() as db:
        return int(db.execute(query).scalar_one())


def read_readings(store: Store, rule: str, start: int, most: int) -> list[tuple[float, dict[str, float | str]]]:
    """(time, measures) of a rule's images, oldest first, from the `start`th on: of a year's, only what is asked for."""
    query = select(readings.c.at, readings.c.measures).where(readings.c.rule == rule)
    with store.look() as db:
        rows = db.execute(query.order_by(readings.c.id).offset(start).limit(most)).all()
    return [(float(at), json.loads(measures)) for at, measures in rows]


def watch_rule(
    store: Store, rule: str, gate: Gate, *, most_windows: int = 2, permutations: int = 199
) -> list[DriftFinding]:
    """Drift of a rule's newest whole windows, against each reference that there is.

    Args:
        store: the node's database.
        rule: its name.
        gate: of its run, whose `reference` holds training pictures' measures.
        most_windows: how many of the newest windows are measured.
        permutations: for each limit.
    """
    total = count_readings(store, rule)
    found = []
    if min((len(values) for values in gate.reference.values()), default=0) >= LEAST_REFERENCE // 2:
        newest = _select_newest_windows(store, rule, 0, total, most_windows)
        found.append(_watch("training", gate.reference, newest, permutations))
    if total >= SITE_REFERENCE + WINDOW:
        first = group_columns([measures for _, measures in read_readings(store, rule, 0, SITE_REFERENCE)])
        newest = _select_newest_windows(store, rule, SITE_REFERENCE, total, most_windows)
        found.append(_watch("this site's first images", first, newest, permutations))
    return found


def _select_newest_windows(store: Store, rule: str, start: int, total: int, most: int) -> dict[int, list[Any]]:
    """Readings of the newest whole windows, by the number of the window, counted from the `start`th image on."""
    whole = (total - start) // WINDOW
    return {
        number: read_readings(store, rule, start + number * WINDOW, WINDOW)
        for number in range(max(0, whole - most), whole)
    }


def _watch(
    against: str, reference: Mapping[str, Values], newest: Mapping[int, Sequence[Any]], permutations: int
) -> DriftFinding:
    windows = []
    for number, part in newest.items():
        columns = group_columns([measures for _, measures in part])
        # the seed is the window's, so that looking again says the same
        drift = measure_drift(reference, columns, permutations=permutations, seed=number)
        windows.append((part[-1][0], tuple(drift)))
    return DriftFinding(against, tuple(windows), tuple(find_alarms([drift for _, drift in windows])))
