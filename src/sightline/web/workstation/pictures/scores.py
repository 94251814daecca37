"""How well a map lies on marks, beside chance, and the results that runs have written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import count_words
from sightline.metrics.maps.score import score_map

SIDE = 512
_MEASURES = ("pointing", "energy", "iou")
_REPORTS_AT_MOST = 20


def score_class_map(cells: NDArray[np.float32], affine: Sequence[float], inside: NDArray[np.bool_]) -> dict[str, Any]:
    """Pointing, energy and intersection over union of a class map with marks, each beside chance.

    The map is scored as its softmax over cells (Liao 2022, equation 4), laid over the picture by bilinear interpolation
    on a grid of at most 512 cells a side; what the network did not see counts as nothing seen.

    Args:
        cells: [h, w], one class's map.
        affine: the six numbers that lead from its grid to the picture.
        inside: bool [H, W], the marks on the picture's own grid.
    """
    from scipy.ndimage import map_coordinates

    powers = np.exp(cells.astype(np.float64) - float(cells.max()))
    matrix = np.array([*affine, 0.0, 0.0, 1.0], dtype=np.float64).reshape(3, 3)
    back = np.linalg.inv(matrix)
    shape = [min(SIDE, n) for n in inside.shape]
    rows, columns = (
        (np.arange(n) + 0.5) * (whole / n) for n, whole in zip(shape, inside.shape, strict=True)
    )  # fmt: skip
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
    place = grid @ back[:2, :2].T + back[:2, 2]
    seen = ((place >= 0.0) & (place <= np.array(cells.shape))).all(axis=-1)
    values = map_coordinates(powers, np.moveaxis(place - 0.5, -1, 0), order=1, mode="nearest")
    marked = inside[np.ix_(rows.astype(int), columns.astype(int))]
    if not marked.any():
        return {"why": "the marks are smaller than what can be scored"}
    score = score_map(np.where(seen, values, 0.0), marked)
    found: dict[str, Any] = {}
    for name in _MEASURES:
        found[name], found[f"{name}_chance"] = (
            _convert_number(x) for x in (_get_number(score, name), _get_number(score, f"{name}_chance"))
        )
    return found | ({"why": score.why} if score.why else {})


def _get_number(score: Any, name: str) -> Any:
    return vars(score)[name]


def _convert_number(value: Any) -> float | None:
    return None if value is None else float(value)


def read_results(folder: Path, key: str, title: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Tables and reports that lie in a run's folder, the numbers as its files say.

    Args:
        folder: of the run.
        key: of the run, for addresses.
        title: of the run.
    """
    tables, reports = [], []
    for path in sorted(folder.rglob("metrics.json"))[:_REPORTS_AT_MOST]:
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            shown = [[r["name"], r["value"], r["low"], r["high"], _format_counts(r["n"]), r["why"]] for r in rows]
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue  # a file of another kind
        columns = ["measure", "value", "low", "high", "n", "why"]
        split = path.parent.relative_to(folder).as_posix()
        tables.append({"run": key, "title": title, "split": split, "columns": columns, "rows": shown})
    if find_report(folder) is not None:
        reports.append({"run": key, "title": title, "url": f"/api/v1/results/{key}/report"})
    return tables, reports


def _format_counts(n: dict[str, int]) -> str:
    return count_words(n)


def find_report(folder: Path) -> Path | None:
    """The first report.html of a run's folder, or None."""
    return next(iter(sorted(folder.rglob("report.html"))), None)
