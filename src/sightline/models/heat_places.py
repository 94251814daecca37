"""A place as the mean of a heat map: coordinates that move when the heat does."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class HeatPlaces(nn.Module):
    """Features [b, c, h, w] to (log scale, centre row, centre column) [b, 3], fractions of the image.

    The centre is the expectation of a softmax over cells (Levine et al. 2016, spatial softmax; Nibali et al. 2018,
    DSNT), so that it is always inside and every cell pulls at it; the scale is linear in the mean of the features.
    Starts at the whole image: all cells alike, log scale 0.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        """A hidden layer; the last ones zero."""
        super().__init__()
        self.hidden = nn.Conv2d(channels, hidden, 1)
        self.heat = nn.Conv2d(hidden, 1, 1)
        self.log_scale = nn.Linear(hidden, 1)
        for last in (self.heat, self.log_scale):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """Log scale and centre, [b, 3]."""
        seen = self.hidden(features).relu()
        rows, columns = seen.shape[2:]
        share = self.heat(seen).flatten(2).softmax(dim=2).view(-1, rows, columns)
        row = (share.sum(dim=2) * _middles(rows, share)).sum(dim=1)
        column = (share.sum(dim=1) * _middles(columns, share)).sum(dim=1)
        log_scale = self.log_scale(seen.mean(dim=(2, 3)))
        return torch.cat([log_scale, row[:, None], column[:, None]], dim=1)


def _middles(cells: int, like: Tensor) -> Tensor:
    return (torch.arange(cells, device=like.device, dtype=like.dtype) + 0.5) / cells
