"""Losses that guide a network's maps, added to the cross-entropy or in its place; for the maps of any network.

Example:
    >>> import torch
    >>> maps, targets = torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 4, 4)
    >>> float(SpatialNLL(resolution="map")(maps, targets, torch.ones(1, 2, dtype=torch.bool)).value) > 2.7
    True
"""

from sightline.losses.attribution_priors import AttributionPrior, MapEnergy
from sightline.losses.cell_focal import CellFocal
from sightline.losses.gg_cam import GazeGuided
from sightline.losses.heatmap_matching import HeatmapMatch
from sightline.losses.map_norm import MapNorm
from sightline.losses.spatial_nll import SpatialNLL

__all__ = ["AttributionPrior", "CellFocal", "GazeGuided", "HeatmapMatch", "MapEnergy", "MapNorm", "SpatialNLL"]
