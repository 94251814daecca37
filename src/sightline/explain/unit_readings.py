"""What every unit does on every case: r_k, peaks, and what it shares with masks, in memory or as files of a folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import RunError
from sightline.explain.unit_grid import voxels_of
from sightline.explain.unit_store import read_array

HEAD = "readings.json"
PER_UNIT: dict[str, type] = {"peak": np.float32, "mean": np.float32, "above": np.int32, "strength": np.float32}


@dataclass(frozen=True, eq=False)
class Readings:
    """Units on cases: n cases, u units, masks by name. Large arrays are files mapped read-only.

    Attributes:
        layer: name of the layer.
        case_ids: n.
        labels: int64 [n], class index.
        logits: float32 [n, k], what the network says.
        cells: the layer's grid, *m.
        shape: the image grid, *s.
        peak: float32 [n, u], largest activation.
        mean: float32 [n, u], mean activation.
        above: int32 [n, u], cells with a_k > T_k; the unit is enabled where there is one (E_x of Engstler 2022).
        strength: float32 [n, u], r_k: the activation summed over the cells above T_k.
        maps: uint8 [n, u, bytes], the cells above T_k, eight to a byte (numpy.packbits), or None without masks.
        map_voxels: int32 [n, u], voxels of the image grid above T_k after enlargement, or None without masks.
        mask_voxels: int32 [n] by mask, voxels of the mask on the image grid.
        cover: float16 [n, cells] by mask, share of each cell that the mask covers; exact where a cell has a power of
            two voxels up to 2048.
        shared: int32 [n, u] by mask, voxels of the image grid in mask and enlarged map.
    """

    layer: str
    case_ids: tuple[str, ...]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    cells: tuple[int, ...]
    shape: tuple[int, ...]
    peak: NDArray[np.float32]
    mean: NDArray[np.float32]
    above: NDArray[np.int32]
    strength: NDArray[np.float32]
    maps: NDArray[np.uint8] | None = None
    map_voxels: NDArray[np.int32] | None = None
    mask_voxels: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)
    cover: Mapping[str, NDArray[np.float16]] = field(default_factory=dict)
    shared: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)

    @property
    def enabled(self) -> NDArray[np.bool_]:
        """Whether a unit is above its threshold anywhere: bool [n, u]."""
        return np.asarray(self.above > 0)

    @property
    def image_voxels(self) -> int:
        """Voxels of an image."""
        return voxels_of(self.shape)

    def map_of(self, case: int, unit: int) -> NDArray[np.bool_]:
        """M_k of a case at the layer's resolution, bool [*m].

        Raises:
            RunError: no maps were kept.
        """
        if self.maps is None:
            raise RunError("Maps of units were not kept.", "Read the units with masks.")
        bits = np.unpackbits(self.maps[case, unit], count=math.prod(self.cells))
        return bits.reshape(self.cells).astype(bool)

    def write(self, folder: Path) -> None:
        """Write into a folder; `read` gives it back."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / HEAD).unlink(missing_ok=True)
        for name, array in self._arrays().items():
            partial = folder / f"{name}.partial.npy"
            np.save(partial, array, allow_pickle=False)
            partial.replace(folder / f"{name}.npy")
        self.write_head(folder)

    @classmethod
    def read(cls, folder: Path) -> Readings:
        """Read what `write` or `read_units` wrote.

        Raises:
            RunError: incomplete or damaged.
        """
        try:
            head = json.loads((folder / HEAD).read_text(encoding="utf-8"))
            names, ids, layer = tuple(head["masks"]), tuple(head["case_ids"]), str(head["layer"])
            cells, shape, with_maps = tuple(head["cells"]), tuple(head["shape"]), bool(head["maps"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{folder} holds no complete readings of units ({error!r}).", "Dissect the run again."
            ) from None
        single: dict[str, Any] = {name: read_array(folder / f"{name}.npy") for name in ("labels", "logits", *PER_UNIT)}
        single |= {name: read_array(folder / f"{name}.npy") for name in ("maps", "map_voxels") if with_maps}
        by_mask: dict[str, Any] = {
            kind: {name: read_array(folder / f"{kind}_{k:02d}.npy") for k, name in enumerate(names)}
            for kind in ("mask_voxels", "cover", "shared")
        }
        lengths = {len(a) for a in (*single.values(), *(a for each in by_mask.values() for a in each.values()))}
        if lengths != {len(ids)}:
            raise RunError(f"{folder}: arrays of {sorted(lengths)} cases; expected {len(ids)}.", "Dissect again.")
        return cls(layer=layer, case_ids=ids, cells=cells, shape=shape, **single, **by_mask)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {"labels": self.labels, "logits": self.logits}
        arrays |= {name: getattr(self, name) for name in PER_UNIT}
        if self.maps is not None and self.map_voxels is not None:
            arrays |= {"maps": self.maps, "map_voxels": self.map_voxels}
        for kind in ("mask_voxels", "cover", "shared"):
            arrays |= {f"{kind}_{k:02d}": array for k, array in enumerate(getattr(self, kind).values())}
        return arrays

    def write_head(self, folder: Path) -> None:
        """Write the file whose presence says that the arrays are complete."""
        head = {
            "layer": self.layer,
            "cells": list(self.cells),
            "shape": list(self.shape),
            "maps": self.maps is not None,
            "masks": list(self.shared),
            "case_ids": list(self.case_ids),
        }
        partial = folder / f"{HEAD}.partial"
        partial.write_text(json.dumps(head, indent=1), encoding="utf-8")
        partial.replace(folder / HEAD)
