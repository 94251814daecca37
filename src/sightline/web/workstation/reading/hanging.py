"""Which view hangs where: frontal before lateral, left before right as seen from the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# projections as they are usually hung, first to last; others follow in the order of the cohort
_ORDER = ("PA", "AP", "FRONTAL", "OBL", "OBLIQUE", "LAO", "RAO", "LAT", "LATERAL", "LL", "RL")
_GRIDS = {1: (1, 1), 2: (1, 2), 3: (1, 3), 4: (2, 2), 5: (2, 3), 6: (2, 3)}
MOST_VIEWS = 6


def plan_hanging(images: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows, columns, and the order of the views; of more than six the first six hang.

    A patient facing the viewer has the right side on the left: of two sides in one projection R hangs first.

    Args:
        images: with key, view, side and ordinal.
    """

    def place(one: Mapping[str, Any]) -> tuple[int, int, int]:
        view = str(one["view"]).strip().upper()
        words = view.replace("-", " ").replace("_", " ").split()
        rank = next((i for i, name in enumerate(_ORDER) if name == view or name in words), len(_ORDER))
        return rank, {"R": 0, "L": 1}.get(str(one["side"]), 2), int(one["ordinal"])

    ordered = [one["key"] for one in sorted(images, key=place)]
    rows, columns = _GRIDS.get(min(len(ordered), MOST_VIEWS), (1, 1))
    return {"rows": rows, "columns": columns, "order": ordered}
