"""What every unit does on every case: r_k, peaks, and what it shares with masks, in memory or as files of a folder."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sightline.errors import CohortError, GeometryError, RunError
from sightline.explainers.units.array_file import GrowingArray, read_array
from sightline.explainers.units.layer import UnitLayer
from sightline.explainers.units.thresholds import Thresholds, require_finite_activations
from sightline.explainers.units.upsampling import Cover, EnlargedMaps, Marks, count_voxels
from sightline.structures.evidence import Batch, Evidence

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
        return count_voxels(self.shape)

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
        for name, array in self._list_arrays().items():
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
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
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

    def _list_arrays(self) -> dict[str, NDArray[Any]]:
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


Masks = Callable[[Batch], Mapping[str, Tensor]]


def read_units(
    layer: UnitLayer,
    batches: Iterable[Batch],
    thresholds: Thresholds,
    *,
    masks: Masks | None = None,
    folder: Path | None = None,
    advance: Callable[[int], None] | None = None,
) -> Readings:
    """Read every unit on every case.

    Args:
        layer: the layer whose thresholds these are.
        batches: the cases, each once.
        thresholds: of `compute_unit_thresholds`; of the same cases, or others.
        masks: gives the masks of a batch, bool [b, *s] by name; a name may be missing where no case has it.
        folder: where arrays are written as they come; None keeps them in memory.
        advance: told the number of cases after each batch.

    Raises:
        CohortError: no case.
        GeometryError: units, maps, images or masks of other sizes than before; masks, where the layer sees a window
            of the image only.
        RunError: an activation that is not finite.
    """
    reading: _Reading | None = None
    try:
        for batch in batches:
            evidence, activations = layer(batch.images)
            if tuple(activations.shape[1:]) != (thresholds.units, *thresholds.cells):
                raise GeometryError(
                    f"Layer {layer.name!r} gives {list(activations.shape[1:])} for case {batch.case_ids[0]!r}; the "
                    f"thresholds are for {[thresholds.units, *thresholds.cells]}.",
                    "Take thresholds of this layer and this view.",
                )
            require_finite_activations(activations, batch, layer.name)
            if reading is None:
                reading = _Reading(batch, evidence, thresholds, activations.device, masks, folder)
            reading.add(batch, evidence, activations)
            if advance is not None:
                advance(len(batch))
        if reading is None:
            raise CohortError("There is no case to read units of.", "Choose another split.")
        return reading.close(layer.name)
    except BaseException:
        if reading is not None:
            reading.abandon()
        raise


class _Reading:
    """Readings in the making."""

    def __init__(
        self,
        batch: Batch,
        evidence: Evidence,
        thresholds: Thresholds,
        device: torch.device,
        masks: Masks | None,
        folder: Path | None,
    ) -> None:
        self.cells, self.shape = thresholds.cells, tuple(int(n) for n in batch.images.shape[2:])
        self.masks, self.folder, self.device = masks, folder, device
        # a float32 is above T_k if and only if it is above the next float32 below it
        self.thresholds = torch.from_numpy(thresholds.in_single).to(device)
        self.case_ids: list[str] = []
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / HEAD).unlink(missing_ok=True)
        u = thresholds.units
        self.arrays = {name: self._open_array(name, (u,), dtype) for name, dtype in PER_UNIT.items()}
        self.arrays["labels"] = self._open_array("labels", (), np.int64)
        self.arrays["logits"] = self._open_array("logits", (int(evidence.logits.shape[1]),), np.float32)
        self.by_mask: dict[str, dict[str, GrowingArray]] = {"mask_voxels": {}, "cover": {}, "shared": {}}
        if masks is not None:
            self.enlarged = EnlargedMaps(self.cells, self.shape, device)
            self.cover = Cover(self.cells, self.shape, device)
            self.arrays["maps"] = self._open_array("maps", (u, -(-math.prod(self.cells) // 8)), np.uint8)
            self.arrays["map_voxels"] = self._open_array("map_voxels", (u,), np.int32)

    def _open_array(self, name: str, row: tuple[int, ...], dtype: Any) -> GrowingArray:
        return GrowingArray(row, dtype, None if self.folder is None else self.folder / f"{name}.npy")

    def add(self, batch: Batch, evidence: Evidence, activations: Tensor) -> None:
        if tuple(batch.images.shape[2:]) != self.shape:
            raise GeometryError(
                f"Case {batch.case_ids[0]!r} is {list(batch.images.shape[2:])}, those before {list(self.shape)}.",
                "Use a view of fixed size.",
            )
        flat = activations.flatten(2)
        above = flat > self.thresholds[:, None]
        values = {
            "labels": batch.labels,
            "logits": evidence.logits.float(),
            "peak": flat.amax(dim=2),
            "mean": flat.mean(dim=2),
            "above": above.sum(dim=2),
            "strength": torch.where(above, flat, 0.0).sum(dim=2, dtype=torch.float64),
        }
        for name, tensor in values.items():
            self.arrays[name].append(tensor.cpu().numpy())
        if self.masks is not None:
            if evidence.window is not None:
                raise GeometryError(
                    "This network looks at a window of the image, and masks lie on the whole of it.",
                    "Dissect it without masks.",
                )
            self._add_overlap(batch, activations, above)
        self.case_ids += batch.case_ids

    def _add_overlap(self, batch: Batch, activations: Tensor, above: Tensor) -> None:
        assert self.masks is not None
        given = self.masks(batch)
        for name, mask in given.items():
            if tuple(mask.shape) != (len(batch), *self.shape) or mask.dtype != torch.bool:
                raise GeometryError(
                    f"Mask {name!r} is {mask.dtype} {list(mask.shape)}; expected bool {[len(batch), *self.shape]}.",
                    "Draw masks on the frames of the batch.",
                )
        self.arrays["maps"].append(np.packbits(above.cpu().numpy(), axis=-1))
        names = list(given)
        empty = torch.zeros(len(batch), 0, *self.shape, dtype=torch.bool)
        masks = torch.stack(list(given.values()), dim=1) if names else empty
        marks = Marks.from_masks(masks.to(self.device))
        whole, shared = self.enlarged.counts(activations, self.thresholds, marks)
        self.arrays["map_voxels"].append(whole.cpu().numpy())
        rows = {
            "mask_voxels": marks.voxels.cpu().numpy(),
            "cover": self.cover(marks).flatten(2).cpu().numpy(),
            "shared": shared.movedim(2, 1).cpu().numpy(),
        }
        for kind, of in rows.items():
            for k, name in enumerate(names):
                self._open_mask_array(kind, name, of.shape[2:]).fill(len(self.case_ids))
                self.by_mask[kind][name].append(of[:, k])

    def _open_mask_array(self, kind: str, name: str, row: tuple[int, ...]) -> GrowingArray:
        known = self.by_mask[kind]
        if name not in known:
            dtype = np.float16 if kind == "cover" else np.int32
            known[name] = self._open_array(f"{kind}_{len(known):02d}", row, dtype)
        return known[name]

    def close(self, layer: str) -> Readings:
        n = len(self.case_ids)
        for known in self.by_mask.values():
            for array in known.values():
                array.fill(n)
        by_mask: dict[str, Any] = {
            kind: {name: a.close() for name, a in known.items()} for kind, known in self.by_mask.items()
        }
        arrays: dict[str, Any] = {name: array.close() for name, array in self.arrays.items()}
        found = Readings(
            layer=layer, case_ids=tuple(self.case_ids), cells=self.cells, shape=self.shape, **arrays, **by_mask
        )
        if self.folder is not None:
            found.write_head(self.folder)
        return found

    def abandon(self) -> None:
        for array in (*self.arrays.values(), *(a for known in self.by_mask.values() for a in known.values())):
            array.abandon()
