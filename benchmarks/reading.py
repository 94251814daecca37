"""Images a second from disk to batch: our loader against a plain torchvision one on the same files.

Both decode, turn by up to 30 degrees, crop 80 to 100% of the area, mirror and give grey float images with an 8-bit
target each, in this process (no loader workers). Their masks lie ready as PNG files; ours are drawn from the regions.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from benchmarks.timing import Result, Row, Unequal
from sightline.data.datasets import fracatlas
from sightline.data.loader import CohortItems, iterate_test_batches, iterate_training_batches
from sightline.data.phantoms.radiographs.cohort import write_radiographs
from sightline.data.targets.drawing_styles import rasterise_region
from sightline.data.targets.region_choice import RegionChoice
from sightline.data.views.image_view import View
from sightline.structures.case import Cohort

DATA = Path(os.environ.get("SIGHTLINE_DATA", Path(__file__).parents[2] / "shared" / "data"))


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        fracatlas_cases: real radiographs to read, where they are present; half of them with fractures.
        phantom_studies, phantom_px: drawn radiographs to read, and their long side.
        size: side of the network's input.
        batch: images a batch.
        repeats: fresh loaders a side; each reads two epochs.
        device: named for the page; reading is the processor's work.
    """

    fracatlas_cases: int = 256
    phantom_studies: int = 24
    phantom_px: int = 1536
    size: int = 512
    batch: int = 16
    repeats: int = 5
    device: str = "cpu"


def settings(device: str, toy: bool) -> Settings:
    """The settings for a device, or tiny ones."""
    if toy:
        return Settings(0, phantom_studies=3, phantom_px=192, size=64, batch=4, repeats=2, device=device)
    return Settings(device=device)


@dataclass(frozen=True)
class Files:
    """A cohort and, beside it, what a plain loader reads: the mask files (None where nothing is marked)."""

    name: str
    cohort: Cohort
    choice: RegionChoice
    masks: tuple[Path | None, ...]


class PlainItems(Dataset[tuple[Tensor, Tensor, int]]):
    """Pictures and masks as a torchvision user reads them; the picture is reduced before it is turned and cropped."""

    def __init__(self, files: Files, view: View, *, training: bool = True) -> None:
        self.files = files
        longest = view.working_longest() if training else view.size
        first: list[Any] = [v2.Resize(size=None, max_size=longest), v2.CenterCrop(longest)]
        moves: list[Any] = [
            v2.RandomRotation(view.rotation_deg, interpolation=v2.InterpolationMode.BILINEAR),
            v2.RandomResizedCrop(view.size, scale=view.crop_area, ratio=(1.0, 1.0)),
            v2.RandomHorizontalFlip(view.flip_chance),
        ]
        last = [v2.ToImage(), v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)]
        self.transform = v2.Compose([*first, *(moves if training else []), *last])

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.files.cohort)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        """Picture [1, s, s] in 0..1, mask [1, s, s] of 0 and 1, label."""
        case, path = self.files.cohort[index], self.files.masks[index]
        with Image.open(case.image) as opened:
            picture = ImageOps.exif_transpose(opened).convert("L")
        if path is None:
            marked = torch.zeros(1, picture.height, picture.width, dtype=torch.uint8)
        else:
            with Image.open(path) as opened:
                marked = torch.from_numpy(np.asarray(opened).astype(np.uint8))[None]
        image, mask = self.transform(picture, tv_tensors.Mask(marked))
        return image, mask.as_subclass(Tensor).ne(0).to(torch.uint8), self.files.cohort.class_index(case.label)


def measure(chosen: Settings) -> Result:
    """Images a second of both sides, an epoch at a time by turns."""
    view = View(size=chosen.size)
    rows: list[Row] = []
    gaps = []
    with tempfile.TemporaryDirectory() as folder:
        for files in prepare(chosen, Path(folder)):
            gaps.append(check(files, view))
            n = len(files.cohort)
            ours: dict[str, list[float]] = {"first epoch": [], "later epoch": []}
            theirs: dict[str, list[float]] = {"first epoch": [], "later epoch": []}
            for repeat in range(chosen.repeats + 1):
                items = CohortItems(files.cohort, view, files.choice, channels=1)
                plain = PlainItems(files, view)
                for epoch, what in enumerate(ours):
                    mine = n / _seconds(
                        lambda i=items, e=epoch: iterate_training_batches(i, epoch=e, batch_size=chosen.batch)
                    )
                    plain_one = n / _seconds(lambda p=plain, e=epoch: plain_batches(p, chosen.batch, seed=e))
                    # the first round brings the files into the system's cache and does not count
                    if repeat > 0:
                        ours[what].append(mine)
                        theirs[what].append(plain_one)
            for what in ours:
                label = f"{what}, {files.name}: {n} images to {chosen.size} px"
                rows.append(
                    Row(label, tuple(ours[what]), tuple(theirs[what]), "images/s", "ours / theirs", None, "high")
                )
    return Result(
        "reading",
        asdict(chosen),
        tuple(rows),
        notes=(
            "Ours: `CohortItems` and `iterate_training_batches`, regions drawn on the input grid at every draw. "
            "Theirs: Pillow "
            "to grey, torchvision v2 `Resize, CenterCrop, RandomRotation, RandomResizedCrop, RandomHorizontalFlip` on "
            "image and mask, with masks that were rasterised to PNG beforehand. No loader workers on either side.",
            "First epoch: our cache of reduced pictures is empty. Later epoch: it is full. The files are in the "
            "operating system's cache for both sides, so this measures work, not disks.",
            f"Checked first: without augmentation images differ by {max(g[0] for g in gaps):.3f} (of 1) on average at "
            f"most, and marked pixels overlap to {min(g[1] for g in gaps):.0%} (intersection over union) at least.",
        ),
    )


def prepare(chosen: Settings, folder: Path) -> Iterator[Files]:
    """The real radiographs where they are present, and drawn ones, each with masks for the plain side."""
    source = DATA / "fracatlas"
    if chosen.fracatlas_cases > 0 and source.is_dir():
        cohort = fracatlas.read(source, fracatlas.Options(fractions=None, contradictions="set aside"))
        half = chosen.fracatlas_cases // 2
        kept = {c.case_id for name in cohort.classes for c in [c for c in cohort if c.label == name][:half]}
        cohort = cohort.where(lambda case: case.case_id in kept)
        yield _with_masks("FracAtlas, fracture boxes", cohort, RegionChoice("box", "finding"), folder / "fracatlas")
    cohort = write_radiographs(folder / "phantom", studies=chosen.phantom_studies, size_px=chosen.phantom_px)
    yield _with_masks(
        f"phantom of {chosen.phantom_px} px, bone masks", cohort, RegionChoice("mask", "focus"), folder / "masks"
    )


def plain_batches(items: PlainItems, batch: int, *, seed: int, shuffle: bool = True) -> Iterator[list[Tensor]]:
    """torch's own loader: images, masks and labels."""
    torch.manual_seed(seed)
    return iter(DataLoader(items, batch_size=batch, shuffle=shuffle, num_workers=0))


def check(files: Files, view: View, tolerance: float = 0.03, overlap: float = 0.8) -> tuple[float, float]:
    """Both sides without augmentation: (mean absolute difference of the images, overlap of the marks).

    Ours sets every cell that a region touches and theirs samples cell centres, so the marks differ by a rim.

    Raises:
        Unequal: images or marks differ by more, or labels at all.
    """
    cases = files.cohort.where(lambda case: case in files.cohort.cases[:8])
    few = Files(files.name, cases, files.choice, files.masks[:8])
    ours = next(iterate_test_batches(CohortItems(cases, view, files.choice, channels=1), batch_size=8))
    images, masks, labels = next(plain_batches(PlainItems(few, view, training=False), 8, seed=0, shuffle=False))
    if ours.targets is None or ours.images.shape != images.shape or not torch.equal(ours.labels, labels):
        raise Unequal(f"{files.name}: our batch is {tuple(ours.images.shape)}, the plain one {tuple(images.shape)}.")
    gap = float((ours.images - images).abs().mean())
    both, either = (ours.targets & masks).sum(), (ours.targets | masks).sum()
    shared = float(both / either) if int(either) else 1.0
    if gap > tolerance or shared < overlap:
        raise Unequal(f"{files.name}: images differ by {gap:.3f} on average, marks overlap to {shared:.0%}.")
    return gap, shared


def _with_masks(name: str, cohort: Cohort, choice: RegionChoice, folder: Path) -> Files:
    """Write the union of each case's regions as a PNG of the picture's size."""
    folder.mkdir(exist_ok=True)
    paths: list[Path | None] = []
    for case in cohort:
        with Image.open(case.image) as opened:
            shown = ImageOps.exif_transpose(opened)
        shape = (shown.height, shown.width)
        picked = choice.pick(case, shape)
        if not picked:
            paths.append(None)
            continue
        union = np.any([rasterise_region(region, shape) for region in picked], axis=0)
        path = folder / f"{case.case_id}.png"
        Image.fromarray(union.astype(np.uint8) * 255).save(path, compress_level=3)
        paths.append(path)
    return Files(name, cohort, choice, tuple(paths))


def _seconds(make: Callable[[], Iterator[object]]) -> float:
    begun = time.perf_counter()
    for _ in make():
        pass
    return time.perf_counter() - begun
