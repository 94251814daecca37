"""What a run says of a cohort, and how well that lies on what experts marked."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sightline.lab.predict import Maps, Said, Shown
from sightline.measure.box_scores import BoxScores
from sightline.measure.gaze_scores import GazeScores
from sightline.measure.localisation import MapScores
from sightline.measure.predictions import Predictions
from sightline.region import Role


@dataclass(frozen=True)
class Evaluation:
    """What a run says of a cohort.

    Attributes:
        predictions: one row an image.
        maps: class maps, or None where the network has none.
        map_scores: how well the maps lie on what experts marked, or None where nothing was marked.
        box_scores: the network's boxes beside the experts', as chosen on validation; None where nothing was marked.
        printed_box_scores: the same as the recipe says, where that is another way to read them off the maps.
        boxes: float64 [n, 4], the boxes the network itself says (`Said.boxes`), or None.
        shown: maps that a decoder paints or an explainer says (`Said.shown`).
        gaze_scores: how well maps lie where readers looked, or None where no gaze is known.
    """

    predictions: Predictions
    maps: Maps | None = None
    map_scores: MapScores | None = None
    box_scores: BoxScores | None = None
    printed_box_scores: BoxScores | None = None
    boxes: NDArray[np.float64] | None = None
    shown: Shown = field(default_factory=dict)
    gaze_scores: GazeScores | None = None

    @property
    def said(self) -> Said:
        """What the network said."""
        return Said(self.predictions, self.maps, self.boxes, self.shown)

    def scores_for(self, role: Role, *, around: bool = False) -> MapScores | None:
        """The map scores against regions of a role, or (organs) one cell `around` it; None where there are none."""
        if self.map_scores is None:
            return None
        rows = tuple(r for r in self.map_scores.rows if r.role == role and ("around" in r.style) is around)
        return MapScores(rows) if rows else None
