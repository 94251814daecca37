"""Dissecting a layer: its time over that of the bare forward passes it makes, and its memory as the cohort grows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d

from benchmarks.memory import MIB, resident
from benchmarks.timing import Result, Row, Unequal, alternate
from sightline.explainers.units.layer import UnitLayer
from sightline.explainers.units.readings import Readings, read_units
from sightline.explainers.units.thresholds import (
    BUDGET_BYTES,
    TOP,
    Thresholds,
    TopValues,
    compute_quantile_rank,
    compute_unit_thresholds,
)
from sightline.models.volume_networks import VolumeUNet
from sightline.structures.evidence import Batch

TIME_GOAL = 1.3
# what a process takes differs from start to start by a few percent
MEMORY_GOAL = 1.05
PASSES = 2
MASKS = 12


@dataclass(frozen=True)
class Settings:
    """What is measured: cubes of `size` voxels, `few` and `many` of them.

    Attributes:
        width: of the 3D U-Net; its last stage has 16 times as many units.
        size, many_size: side of the cubes where there are few, and where there are many.
        batch: cases at a time.
        pairs, many_pairs: counted pairs a row.
        repeats: processes a cohort size whose memory is measured.
        device: where the network runs.
    """

    width: int = 8
    size: int = 64
    many_size: int = 32
    few: int = 100
    many: int = 1000
    batch: int = 10
    pairs: int = 3
    many_pairs: int = 2
    repeats: int = 2
    device: str = "cpu"


def settings(device: str, toy: bool) -> Settings:
    """The settings for a device, or tiny ones."""
    if toy:
        return Settings(4, 16, 16, 4, 8, batch=2, pairs=1, many_pairs=1, repeats=1, device=device)
    return Settings(width=32, many_size=64, device=device) if device == "cuda" else Settings(device=device)


def measure(chosen: Settings) -> Result:
    """Ratios of time, each side shown to see the same activations first, and ratios of peaks."""
    rows = []
    for cases, size, pairs in (
        (chosen.few, chosen.size, chosen.pairs),
        (chosen.many, chosen.many_size, chosen.many_pairs),
    ):
        for masked in (False, True):
            patches = Patches(chosen, size, cases)
            # both sides run once on a little before they are timed
            check(Patches(chosen, size, 2 * chosen.batch))
            ours = lambda patches=patches, masked=masked: dissected(patches, masked)  # noqa: E731
            a, b = alternate(ours, patches.bare, pairs=pairs, warm_up=0, device=chosen.device)
            what = f"with {MASKS} masks" if masked else "no masks"
            label = f"time: {cases} cubes of {size} voxels, {16 * chosen.width} units, {what}"
            rows.append(Row(label, a, b, "s", "ours / theirs", TIME_GOAL, "low"))
    pairs_of = [(in_process(chosen, chosen.many), in_process(chosen, chosen.few)) for _ in range(chosen.repeats)]
    a, b = (tuple(pair[side] / MIB for pair in pairs_of) for side in (0, 1))
    label = f"peak memory: {chosen.many} over {chosen.few} cubes of {chosen.many_size} voxels, with masks"
    rows.append(Row(label, a, b, "MiB", "ours / theirs", MEMORY_GOAL, "low"))
    return Result(
        "dissect",
        asdict(chosen),
        tuple(rows),
        notes=(
            "Time: that of a whole dissection (exact thresholds, then r_k and every unit's activation on every case) "
            f"divided by that of its {PASSES} bare forward passes on the same batches. With masks, every unit's map is "
            "also enlarged to the image grid and counted against each mask (NetDissect), and kept for the permutation "
            "null. Each mask takes up about a fortieth of the cube.",
            "Peak memory: the highest resident set size of a fresh process that dissects with masks, its readings "
            "going to files, once for many cubes (left) and once for few (right). It holds torch, the network and one "
            "batch; the buffer of largest activations grows with the cohort up to its budget "
            f"({BUDGET_BYTES / MIB:.0f} MiB), here from {_buffer(chosen, chosen.few):.2f} to "
            f"{_buffer(chosen, chosen.many):.2f} MiB.",
        ),
    )


class Patches:
    """A network with random weights and a stream of cubes that are made as they are asked for."""

    def __init__(self, chosen: Settings, size: int, cases: int) -> None:
        torch.manual_seed(0)
        self.network: nn.Module = VolumeUNet(width=chosen.width, size=size).build(2)
        self.cases, self.batch, self.device = cases, chosen.batch, chosen.device
        noise = torch.rand(chosen.batch, 1, size, size, size, generator=torch.Generator().manual_seed(1))
        self.cubes = _laid_out(avg_pool3d(noise, 5, 1, 2)).to(chosen.device)
        self.network = self.network.to(chosen.device, memory_format=torch.channels_last_3d)
        # norms take in the statistics of the cubes, as in training: otherwise most units are dead
        self.network.train()
        with torch.no_grad():
            for _ in range(8):
                self.network(self.cubes)
        self.network.eval()
        box = torch.zeros(chosen.batch, size, size, size, dtype=torch.bool)
        side = round(0.3 * size)
        box[:, :side, :side, :side] = True
        self.masks: Mapping[str, Tensor] = {
            f"mask {k}": box.roll((k * size // MASKS, k * size // (2 * MASKS), 0), (1, 2, 3)) for k in range(MASKS)
        }

    def batches(self) -> Iterator[Batch]:
        """The cubes, each a little different."""
        for i in range(0, self.cases, self.batch):
            b = min(self.batch, self.cases - i)
            cubes = self.cubes[:b] + 1e-4 * i
            ids = tuple(f"case{i + j}" for j in range(b))
            yield Batch(cubes, torch.arange(b) % 2, None, torch.zeros(b, 2, dtype=torch.bool), (None,) * b, ids)  # type: ignore[arg-type]

    def masks_of(self, batch: Batch) -> Mapping[str, Tensor]:
        """The same masks for every batch."""
        return {name: mask[: len(batch)] for name, mask in self.masks.items()}

    @torch.no_grad()
    def bare(self) -> None:
        """As many forward passes as a dissection makes, and nothing else."""
        for _ in range(PASSES):
            for batch in self.batches():
                self.network(batch.images)


def dissected(patches: Patches, masked: bool) -> tuple[Thresholds, Readings]:
    """Thresholds and readings of all units on all cubes; the readings go to files."""
    layer = UnitLayer(patches.network)
    thresholds = compute_unit_thresholds(layer, patches.batches, cases=patches.cases)
    if thresholds.passes + 1 != PASSES:
        raise Unequal(f"The dissection took {thresholds.passes + 1} passes, the other side {PASSES}.")
    with tempfile.TemporaryDirectory() as folder:
        masks = patches.masks_of if masked else None
        return thresholds, read_units(layer, patches.batches(), thresholds, masks=masks, folder=Path(folder))


def check(patches: Patches) -> None:
    """Both sides see the same activations, and the thresholds are numpy's.

    Raises:
        Unequal: they are not.
    """
    with torch.no_grad():
        maps = torch.cat([patches.network.features(batch.images).cpu() for batch in patches.batches()])
    thresholds, readings = dissected(patches, masked=False)
    flat = maps.transpose(0, 1).flatten(1).double().numpy()
    if not np.array_equal(thresholds.values, np.quantile(flat, 1 - thresholds.top, axis=1)):
        raise Unequal("Thresholds are not numpy's quantiles of the network's own features.")
    if not np.array_equal(readings.peak, maps.flatten(2).amax(2).numpy()):
        raise Unequal("Peaks are not those of the network's own features.")
    if thresholds.dead.mean() > 0.5:
        raise Unequal(f"{thresholds.dead.mean():.0%} of the units are dead: there is nothing to select from.")


def in_process(chosen: Settings, cases: int) -> float:
    """Peak bytes of dissecting so many cubes in a fresh process."""
    root = Path(__file__).parents[1]
    paths = os.pathsep.join(dict.fromkeys([str(root), *(str(Path(p).resolve()) for p in sys.path if p)]))
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.dissect", json.dumps(asdict(chosen)), str(cases)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        raise RuntimeError(f"The process of {cases} cubes ended with {run.returncode}:\n{run.stderr[-2000:]}")
    return float(run.stdout.splitlines()[-1])


def _buffer(chosen: Settings, cases: int) -> float:
    """MiB that the largest activations of all units take."""
    voxels = cases * (chosen.many_size // 8) ** 3
    return 16 * chosen.width * TopValues.bytes_of(voxels - int(compute_quantile_rank(voxels, TOP))) / MIB


def _laid_out(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last_3d)


def peak_of(chosen: Settings, cases: int) -> float:
    """Peak bytes of this process once it has dissected so many cubes."""
    dissected(Patches(chosen, chosen.many_size, cases), masked=True)
    return float(torch.cuda.max_memory_allocated() if chosen.device == "cuda" else resident("VmHWM"))


if __name__ == "__main__":
    print(peak_of(Settings(**json.loads(sys.argv[1])), int(sys.argv[2])))
