"""Epochs an hour of one recipe, pictures from disk to saved step, against the same written plainly in torchvision.

    python -m benchmarks.end_to_end [--images 64] [--epochs 3] [--size 224] [--backbone mobilenetv2_100] [--toy]

Ours: `CohortItems`, `iterate_training_batches` and the loop's own step (class maps, mean pooling, guidance off).
Theirs:
Pillow, torchvision v2 transforms, `DataLoader`, timm's classifier, cross-entropy, SGD, channels-last. Same pictures,
augmentation of the same kinds, batch, optimiser and number of steps; epochs alternate, each side in a process of its
own, because ours keeps freed memory as its trainings do. Pictures are phantom radiographs that lie in the operating
system's cache after the first epoch, which is printed apart: ours reduces each picture once.
With `--guided` ours also draws the regions and guides by them, which theirs does not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from timm import create_model
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.loader import CohortItems, iterate_training_batches
from sightline.data.phantoms.radiographs.cohort import write_radiographs
from sightline.data.targets.region_choice import RegionChoice
from sightline.data.views.image_view import View
from sightline.losses.spatial_nll import PROFILES
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.pooling import MeanPool
from sightline.structures.case import Cohort
from sightline.structures.evidence import to_channels_last
from sightline.training.engine import Engine, keep_freed_memory
from sightline.training.optimization import Sgd, set_rate
from sightline.training.recipe import Recipe
from sightline.training.step import DictOutput, Progress, TrainingObjective, run_training_step

RATE, BATCH = 1e-3, 8
OURS = "sightline"


def ours(cohort: Cohort, size: int, backbone: str, *, guided: bool) -> Callable[[int], None]:
    """An epoch of ours."""
    torch.manual_seed(0)
    view = View(size=size, crop_area=(0.8, 1.0), rotation_deg=10.0, contrast=0.2, brightness=0.1)
    regions = RegionChoice("mask", "focus", "all")
    model = ClassMapModel(Backbone(backbone), pool=MeanPool())
    recipe = Recipe(
        "ours", model, view, guidance=PROFILES["recommended"], weight=0.1 if guided else 0.0, regions=regions
    )
    network = to_channels_last(model.build(len(cohort.classes)))
    fabric = Engine("cpu").fabric("32-true")
    plain, optimizer = fabric.setup(DictOutput(network), Sgd().build(recipe.rates.groups(network)))
    aim, at = TrainingObjective(recipe, network, torch.ones(len(cohort.classes))), Progress()
    items = CohortItems(cohort, view, regions if guided else None)

    def epoch(n: int) -> None:
        network.train()
        for batch in iterate_training_batches(items, epoch=n, batch_size=BATCH):
            set_rate(optimizer, RATE)
            run_training_step(fabric, plain, optimizer, batch, aim, at)

    return epoch


class _Pictures(Dataset[tuple[Tensor, int]]):
    """Plain files and labels."""

    def __init__(self, cohort: Cohort, size: int) -> None:
        self.files = [(case.image, cohort.class_index(case.label)) for case in cohort]
        self.transform = v2.Compose([
            v2.PILToTensor(),
            v2.RandomRotation(10),
            v2.RandomResizedCrop(size, scale=(0.8, 1.0), ratio=(1.0, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.1, contrast=0.2),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        with Image.open(path) as image:
            # 16-bit greys become 8-bit ones, as most tutorials have them
            grey = image.point(lambda v: v / 257).convert("L") if image.mode.startswith("I") else image.convert("L")
            return self.transform(grey.convert("RGB")), label


def theirs(cohort: Cohort, size: int, backbone: str) -> Callable[[int], None]:
    """An epoch as anybody would write it."""
    torch.manual_seed(0)
    network = to_channels_last(create_model(backbone, num_classes=len(cohort.classes)))
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4)
    loader = DataLoader(_Pictures(cohort, size), BATCH, shuffle=True, drop_last=len(cohort) % BATCH == 1)

    def epoch(n: int) -> None:
        network.train()
        for images, labels in loader:
            loss = F.cross_entropy(network(to_channels_last(images)), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return epoch


def serve(asked: argparse.Namespace, folder: Path, side: str, pipe: Connection) -> None:
    """One side in a process of its own: for each number of an epoch, the CPU seconds that it took."""
    torch.set_num_threads(1)
    whole = read_cohort(folder)
    cohort = Cohort(whole.name, whole.classes, whole.cases[: asked.images], whole.root)
    if side == OURS:
        keep_freed_memory()
        epoch = ours(cohort, asked.size, asked.backbone, guided=asked.guided)
    else:
        epoch = theirs(cohort, asked.size, asked.backbone)
    while (n := pipe.recv()) is not None:
        # CPU seconds: what else the machine does takes none of them
        begun = time.process_time()
        epoch(n)
        pipe.send(time.process_time() - begun)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--guided", action="store_true")
    parser.add_argument("--toy", action="store_true")
    asked = parser.parse_args()
    if asked.toy:
        asked.images, asked.epochs, asked.size, asked.backbone = 8, 1, 64, "test_resnet"
    seconds: dict[str, list[float]] = {OURS: [], "torchvision and torch": []}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "cohort"
        write_radiographs(folder, studies=-(-asked.images // 2))
        processes = multiprocessing.get_context("spawn")
        pipes = {name: processes.Pipe() for name in seconds}
        workers = [processes.Process(target=serve, args=(asked, folder, name, pipes[name][1])) for name in seconds]
        for worker in workers:
            worker.start()
        for n in range(asked.epochs + 1):
            for name, found in seconds.items():
                pipes[name][0].send(n)
                found.append(pipes[name][0].recv())
        for pipe, _ in pipes.values():
            pipe.send(None)
        for worker in workers:
            worker.join()
    what = f"{asked.images} pictures, {asked.backbone}, {asked.size} px, batch {BATCH}" + (", guided" * asked.guided)
    print(f"| {what} | first epoch, CPU s | later epochs, CPU s (median of {asked.epochs}) | epochs an hour |")
    print("|---|---|---|---|")
    for name, found in seconds.items():
        later = statistics.median(found[1:])
        print(f"| {name} | {found[0]:.1f} | {later:.2f} | {3600 / later:.0f} |")
    mine, other = (statistics.median(found[1:]) for found in seconds.values())
    pairs = [b / a for a, b in zip(*(found[1:] for found in seconds.values()), strict=True)]
    print(f"\nratio (other / sightline) {other / mine:.2f}, pairs {min(pairs):.2f} to {max(pairs):.2f}")


if __name__ == "__main__":
    main()
