"""Protocols that read boxes off a map, under names.

Class activation maps are turned into boxes by scaling a map to 0..255, keeping some grey levels and boxing what is
left. Papers differ in which levels and in what is boxed, which changes every number, so a protocol says both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from sightline.errors import RecipeError
from sightline.structures.notation import Notation, write_fields

LEVELS = 255.0


@dataclass(frozen=True)
class MapBoxes:
    """How boxes are read off a map.

    Attributes:
        scale: `range`, a map's least value is level 0 and its greatest 255; `maximum`, 0 is level 0 and the greatest
            value 255, so that a map without a positive value has no box.
        keep: `above`, levels above `low`; `band`, above `low` and at most `high`, as Jimenez-Sanchez 2018 is printed,
            which takes the peak away; `both`, levels above `low` and, apart from them, levels above `high`, as in
            ChestX-ray8 (Wang 2017), which Jimenez-Sanchez 2018 cites.
        low, high: levels from 0 to 255.
        regions: what is boxed: `largest`, the component with most cells; `peak`, the component with the greatest value;
            `hull`, everything kept together; `each`, every component. Cells that touch at a corner belong together.
            With `both`, one of each level.
        least_share: components that cover less than this share of the map are left out.
        most_boxes: boxes kept of a map, best first.
        overlap: of two boxes with a greater intersection over union only the better one is kept.
    """

    scale: Literal["range", "maximum"] = "range"
    keep: Literal["above", "band", "both"] = "above"
    low: float = 60.0
    high: float = 180.0
    regions: Literal["largest", "peak", "hull", "each"] = "largest"
    least_share: float = 0.0
    most_boxes: int = 8
    overlap: float = 0.5

    def __post_init__(self) -> None:
        """Refuse words, levels and bounds outside what they can be."""
        words = {
            "scale": ("range", "maximum"),
            "keep": ("above", "band", "both"),
            "regions": ("largest", "peak", "hull", "each"),
        }
        for name, known in words.items():
            if getattr(self, name) not in known:
                raise RecipeError(f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}.")
        if not 0 <= self.low < LEVELS:
            raise RecipeError(f"low must be a level from 0 to below 255; got {self.low}.")
        if self.keep != "above" and not self.low < self.high <= LEVELS:
            raise RecipeError(f"high must be a level above low ({self.low}) up to 255; got {self.high}.")
        if not (0 <= self.least_share <= 1 and 0 <= self.overlap <= 1):
            raise RecipeError(
                f"least_share and overlap must be from 0 to 1; got {self.least_share} and {self.overlap}."
            )
        if self.most_boxes < 1:
            raise RecipeError(f"most_boxes must be at least 1; got {self.most_boxes}.")

    def notation(self) -> Notation:
        """What evaluations that are reused depend on, written out."""
        return write_fields(
            "MapBoxes",
            scale=self.scale,
            keep=self.keep,
            low=self.low,
            high=self.high,
            regions=self.regions,
            least_share=self.least_share,
            most_boxes=self.most_boxes,
            overlap=self.overlap,
        )


PROTOCOLS: Mapping[str, MapBoxes] = MappingProxyType(
    {
        "printed band": MapBoxes(keep="band", regions="hull"),
        "60": MapBoxes(low=60.0, regions="hull"),
        "180": MapBoxes(low=180.0, regions="hull"),
        "two thresholds": MapBoxes(keep="both", regions="each"),
        "largest component": MapBoxes(),
        "peak": MapBoxes(regions="peak"),
        "several": MapBoxes(low=128.0, regions="each", least_share=0.001),
    }
)
"""Protocols by name. `several` is for pictures that may hold more than one finding; one that is chosen on validation
maps is made by `tune`."""
