"""A dissection as it lies in its folder: what each unit of a layer is worth, and what experts call it.

`units.json units.csv agreement.csv calls.csv readings/ galleries/ examples/ nifti/ or overlays/ concepts.yaml
report.html`
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sightline.dissection.concepts import Concept, read_concepts
from sightline.errors import RunError
from sightline.io.files import write_text
from sightline.plots.overlay import Pixels


@dataclass(frozen=True)
class UnitAgreementRow:
    """How well one unit's area lies on one mask.

    Attributes:
        unit: its number.
        mask: name of the mask.
        cases: that have the mask.
        iou: intersection over union on the image grid, over all cases (Bau 2017).
        iou_cells: the same on the layer's cells, over the cases that have the mask: what chance is held against.
        inside: share of what is above threshold that lies in the mask.
        chance: share of the image that the mask takes up.
        shuffled_95: what masks shuffled between cases stay below 95 times in 100.
        p_shuffled: corrected over units and masks; small where the unit follows the case, not a usual place alone.
        moved_95: what masks moved to other places stay below.
        p_moved: corrected likewise; small where the unit follows the place.
    """

    unit: int
    mask: str
    cases: int
    iou: float
    iou_cells: float
    inside: float
    chance: float
    shuffled_95: float
    p_shuffled: float
    moved_95: float
    p_moved: float


@dataclass(frozen=True)
class CallRow:
    """One unit in true calls and in false alarms.

    Attributes:
        unit: its number.
        true_calls: share of true calls in which it is enabled.
        false_alarms: share of false alarms in which it is.
        p: permutation p of the difference, corrected; None where there are too few.
    """

    unit: int
    true_calls: float
    false_alarms: float
    p: float | None

    @property
    def difference(self) -> float:
        """True calls less false alarms."""
        return self.true_calls - self.false_alarms


EXAMPLES = 4
By = Literal["c", "contrast", "auc"]
REMEDY = "Run the same dissect command again."


@dataclass(frozen=True)
class UnitRow:
    """One unit of a dissected layer.

    Attributes:
        unit: its number.
        threshold: T_k; the unit is enabled where its activation is above it.
        dead: T_k is the unit's least value (0 after ReLU): any response enables it.
        c: c_k, share of the cases `over` which the dissection went in which the unit is enabled.
        contrast: c less the same share of negative cases; None without negatives.
        p: permutation p that c is so far from negatives' by chance, corrected over units; None without negatives.
        rank: by c, 1 for the first.
        n_pos: number of cases that c is a share of.
        ties: how many units have the same c, this one included.
        auc: how well r_k alone tells positives from negatives; None without negatives.
        contrast_low, contrast_high: 95% bootstrap interval of the contrast, over patients.
    """

    unit: int
    threshold: float
    dead: bool
    c: float
    contrast: float | None
    p: float | None
    rank: int
    n_pos: int
    ties: int
    auc: float | None = None
    contrast_low: float | None = None
    contrast_high: float | None = None

    @property
    def standing(self) -> str:
        """Rank and scores in one line."""
        parts = [f"rank {self.rank}" + (f" (tied with {self.ties - 1} more)" if self.ties > 1 else "")]
        parts.append(f"c {self.c:.3f}")
        if self.contrast is not None:
            parts.append(f"contrast {self.contrast:+.3f}".replace("-", "\u2212"))
        if self.p is not None:
            parts.append(f"p {self.p:.3f}" if self.p >= 0.001 else "p < 0.001")
        if self.auc is not None:
            parts.append(f"AUC of r {self.auc:.3f}")
        return ", ".join([*parts, "dead"] if self.dead else parts)


@dataclass(frozen=True, eq=False)
class Dissection:
    """A finished dissection.

    Attributes:
        folder: its folder.
        layer: the dissected layer.
        positive: the positive class.
        over: `positives`, `true_positives` or `false_positives`: the cases over which c is computed.
        units: one row per unit, by number.
        about: its origin: run, weights, cohort, fingerprint, split, top, versions, date.
        concepts: experts' names by unit; unnamed units are left out.
    """

    folder: Path
    layer: str
    positive: str
    over: str
    units: tuple[UnitRow, ...]
    about: Mapping[str, str]
    concepts: Mapping[int, Concept] = field(default_factory=dict)

    @property
    def thresholds(self) -> NDArray[np.float64]:
        """T_k of every unit, float64 [u]."""
        return np.array([row.threshold for row in self.units], dtype=np.float64)

    @property
    def ranked(self) -> tuple[UnitRow, ...]:
        """The units, first rank first."""
        return tuple(sorted(self.units, key=lambda row: row.rank))

    def gallery(self, unit: int) -> Path | None:
        """The collage of a unit, where there is one."""
        path = self.folder / "galleries" / f"unit_{unit:03d}.png"
        return path if path.is_file() else None

    def examples(self, unit: int, most: int = EXAMPLES) -> tuple[Pixels, ...]:
        """Small pictures [h, w, 3] in 0..1 of what a unit responds to most, strongest first; none without gallery."""
        pictures = []
        for path in sorted((self.folder / "examples").glob(f"unit_{unit:03d}_*.png"))[:most]:
            try:
                with Image.open(path) as image:
                    pictures.append(np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0)
            except (OSError, SyntaxError):
                raise RunError(f"{path} is damaged.", REMEDY) from None
        return tuple(pictures)


def write_units(folder: Path, dissection: Dissection) -> None:
    """Write units.csv and units.json; the latter last, as the sign that the numbers are complete."""
    columns = ["unit", "layer", *(f.name for f in fields(UnitRow) if f.name != "unit"), "concept", "author", "date"]
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    for row in dissection.ranked:
        concept = dissection.concepts.get(row.unit, Concept(row.unit))
        words = {"concept": concept.text, "author": concept.author, "date": concept.date}
        numbers = {name: "" if value is None else value for name, value in asdict(row).items()}
        writer.writerow({**numbers, "layer": dissection.layer, **words})
    write_text(folder / "units.csv", table.getvalue())
    data = {
        "layer": dissection.layer,
        "positive": dissection.positive,
        "over": dissection.over,
        "about": dict(dissection.about),
        "units": [{**asdict(row), "layer": dissection.layer} for row in dissection.units],
    }
    write_text(folder / "units.json", json.dumps(data, indent=1, allow_nan=False) + "\n")


def open_dissection(path: Path) -> Dissection:
    """Open what `sightline dissect` wrote; nothing in it is executed.

    Args:
        path: the folder.

    Raises:
        RunError: no dissection, not finished, or damaged.
        LayoutError: a `concepts.yaml` that is malformed; with the number of the line.
    """
    file = path / "units.json"
    if not file.is_file():
        raise RunError(
            f"{path} is no finished dissection: units.json is missing.",
            "Point at the --out folder of `sightline dissect`, or run that command again: it goes on.",
        )
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        units = tuple(_build_row(entry) for entry in data["units"])
        about = {str(name): str(value) for name, value in data["about"].items()}
        found = Dissection(path, str(data["layer"]), str(data["positive"]), str(data["over"]), units, about)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise RunError(f"{file} is damaged ({type(error).__name__}: {error}).", REMEDY) from None
    if [row.unit for row in units] != list(range(len(units))) or not units:
        raise RunError(f"{file} is damaged: its units are not numbered from 0 on.", REMEDY)
    return _add_names(found)


def _add_names(found: Dissection) -> Dissection:
    file = found.folder / "concepts.yaml"
    if not file.is_file():
        return found
    concepts = read_concepts(file)
    if (concepts.weights, concepts.layer) != (found.about.get("weights"), found.layer):
        raise RunError(
            f"{file} names units of layer {concepts.layer} of the weights {concepts.weights}; the dissection is of "
            f"layer {found.layer} of {found.about.get('weights')}.",
            "The same numbers mean other units there. Put the right file there, or move this one away.",
        )
    return Dissection(
        found.folder,
        found.layer,
        found.positive,
        found.over,
        found.units,
        found.about,
        select_named_concepts(concepts.units),
    )


def select_named_concepts(concepts: Mapping[int, Concept]) -> dict[int, Concept]:
    """Those that somebody has named."""
    return {unit: concept for unit, concept in concepts.items() if concept.text}


def _build_row(entry: Mapping[str, Any]) -> UnitRow:
    values = {f.name: entry[f.name] for f in fields(UnitRow)}
    for name, kinds in _KINDS.items():
        if not isinstance(values[name], kinds) or (isinstance(values[name], bool) and bool not in kinds):
            raise ValueError(f"{name} of unit {entry.get('unit')} is {values[name]!r}")
        if isinstance(values[name], float) and not math.isfinite(values[name]):
            raise ValueError(f"{name} of unit {entry.get('unit')} is not finite")
    return UnitRow(**values)


_NUMBER = (int, float)
_KINDS: dict[str, tuple[type, ...]] = {
    "unit": (int,),
    "threshold": _NUMBER,
    "dead": (bool,),
    "c": _NUMBER,
    "contrast": (*_NUMBER, type(None)),
    "p": (*_NUMBER, type(None)),
    "rank": (int,),
    "n_pos": (int,),
    "ties": (int,),
    "auc": (*_NUMBER, type(None)),
    "contrast_low": (*_NUMBER, type(None)),
    "contrast_high": (*_NUMBER, type(None)),
}


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV in one atomic step; None is an empty cell."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([["" if value is None else value for value in row] for row in rows])
    write_text(path, table.getvalue())
