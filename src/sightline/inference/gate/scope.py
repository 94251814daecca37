"""What `predict` and `evaluate` ask of a run's gate: whether a picture is like those of the training.

Two checks of the gate look at what a picture shows: what the network sees in it (features), and what lies where
(layout). Each has a score that is above 1 outside; a picture is outside where one of them says so. Headers and limits
of grey are asked by the node alone: a PNG has no header.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.inference.gate.features import FeatureLimits, read_feature_limits, score_features
from sightline.inference.gate.gate_file import GATE, read_gate
from sightline.inference.gate.layout import LayoutLimits, read_layout_limits
from sightline.io.picture import Picture


@dataclass(frozen=True, eq=False)
class ScopeChecks:
    """The checks of a gate that look at what a picture shows; None where one was not made.

    Example:
        >>> ScopeChecks().score(None, None, 0.0) is None
        True
    """

    features: FeatureLimits | None = None
    layout: LayoutLimits | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The checks that there are."""
        return tuple(name for name in ("features", "layout") if getattr(self, name) is not None)

    def score(self, picture: Picture | None, features: NDArray[Any] | None, energy: float) -> float | None:
        """The greater of the scores of one picture with features [c]; None where there is no check.

        Raises:
            RunError: the gate has features, but what computes gives none.
        """
        found = [score_features(self.features, features, energy)]
        if self.layout is not None and picture is not None:
            found.append(self.layout.score(picture))
        return max((score for score in found if score is not None), default=None)

    def score_each(
        self, pictures: Iterable[Picture], features: NDArray[Any] | None, energies: NDArray[Any] | None
    ) -> dict[str, NDArray[np.float64]]:
        """Scores [n] of pictures by check; a check without its numbers is left out."""
        found: dict[str, NDArray[np.float64]] = {}
        if self.features is not None and features is not None and energies is not None:
            found["features"] = self.features.score(features, energies)
        if self.layout is not None:
            found["layout"] = np.array([self.layout.score(picture) for picture in pictures], dtype=np.float64)
        return found


def read_scope(folder: Path) -> ScopeChecks:
    """The checks of a run or of what was exported; none where nobody made a gate.

    Raises:
        RunError: its gate is damaged, or of other weights.
    """
    if not (folder / GATE).is_file():
        return ScopeChecks()
    gate = read_gate(folder)
    return ScopeChecks(read_feature_limits(gate.features), read_layout_limits(gate.layout))
