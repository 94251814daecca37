"""A cohort as batches: every image of every epoch is a function of (seed, epoch, position) alone.

So an epoch can be repeated, or entered in the middle, and gives the same bytes: the loader has no state to save.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sightline.case import Case, Cohort
from sightline.cohorts.regions import RegionChoice, draw_targets
from sightline.cohorts.transforms import View, Working, reduce_picture, sample
from sightline.errors import CohortError, SightlineError
from sightline.evidence import Batch
from sightline.frame import Frame
from sightline.io.image import read_image
from sightline.region import Region

CACHE_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Item:
    """One image ready for a batch: pixels [c, s, s], target [k or 1, s, s] or None, guided [k]."""

    image: NDArray[np.float32]
    label: int
    target: NDArray[np.uint8] | None
    guided: NDArray[np.bool_]
    frame: Frame
    case_id: str


@dataclass(frozen=True)
class Key:
    """Which image, and which draw of its augmentation; epoch -1 means the test-time view."""

    index: int
    epoch: int


class Pictures:
    """The cohort's pictures, read once, reduced and kept within a memory budget (least recently used leaves)."""

    def __init__(self, cohort: Cohort, view: View, cache_bytes: int = CACHE_BYTES) -> None:
        self.cohort = cohort
        self.view = view
        self.cache_bytes = cache_bytes
        self.held_bytes = 0
        self._kept: OrderedDict[tuple[int, int], tuple[Working, Frame]] = OrderedDict()

    def working(self, index: int, longest: int) -> tuple[Working, Frame]:
        """The reduced picture and the frame of the source picture itself."""
        key = (index, longest)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        picture = read_image(self.cohort[index].image)
        entry = (reduce_picture(picture.pixels, picture.frame, longest), picture.frame)
        self._kept[key] = entry
        self.held_bytes += entry[0].bytes
        while self.held_bytes > self.cache_bytes and len(self._kept) > 1:
            _, (dropped, _) = self._kept.popitem(last=False)
            self.held_bytes -= dropped.bytes
        return entry


class CohortItems(Dataset[Item]):
    """The items of a cohort by Key.

    Args:
        cohort: cases to serve.
        view: framing and augmentation.
        regions: which regions guide; None serves no targets.
        channels: channels the network takes (1 or 3).
        seed: seed of the augmentation.
        cache_bytes: memory for reduced pictures.
    """

    def __init__(
        self,
        cohort: Cohort,
        view: View,
        regions: RegionChoice | None = None,
        *,
        channels: int = 3,
        seed: int = 0,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.cohort = cohort
        self.view = view
        self.regions = regions
        self.channels = channels
        self.seed = seed
        self.pictures = Pictures(cohort, view, cache_bytes)
        self.shared = regions is not None and regions.classes != "own" and not _names_classes(cohort, regions)
        self._picked: dict[int, tuple[Region, ...]] = {}

    def __len__(self) -> int:
        """Number of cases."""
        return len(self.cohort)

    def __getitem__(self, key: Key) -> Item:
        """The item of a key."""
        case = self.cohort[key.index]
        training = key.epoch >= 0
        longest = self.view.working_longest() if training else self.view.size
        working, source = self.pictures.working(key.index, longest)
        rng = np.random.default_rng([self.seed, max(key.epoch, 0), key.index])
        frame = self.view.training_frame(source, rng) if training else self.view.test_frame(source)
        image = sample(working, frame)
        if training:
            image = self.view.tone(image, rng)
        target, guided = self._target(key.index, case, source, frame)
        return Item(
            _channels(image, self.channels), self.cohort.class_index(case.label), target, guided, frame, case.case_id
        )

    def _target(
        self, index: int, case: Case, source: Frame, frame: Frame
    ) -> tuple[NDArray[np.uint8] | None, NDArray[np.bool_]]:
        classes = self.cohort.classes
        if self.regions is None:
            return None, np.zeros(len(classes), dtype=bool)
        if index not in self._picked:
            self._picked[index] = self.regions.pick(case, (source.shape[0], source.shape[1]))
        return draw_targets(self._picked[index], self.regions, case, classes, frame, shared=self.shared)


def _names_classes(cohort: Cohort, regions: RegionChoice) -> bool:
    if regions.classes != "tagged":
        return False
    return any(r.tag.label is not None for case in cohort for r in case.regions if r.tag.role == regions.role)


def _channels(image: NDArray[np.float32], wanted: int) -> NDArray[np.float32]:
    """Grey as one plane is left to the network to repeat; colour is averaged where one channel is wanted."""
    if image.shape[0] == wanted or image.shape[0] == 1:
        return image
    return image.mean(axis=0, keepdims=True, dtype=np.float32)


def collate(items: Sequence[Item]) -> Batch:
    """Items to a Batch."""
    depth = max(item.image.shape[0] for item in items)
    images = np.stack([np.broadcast_to(item.image, (depth, *item.image.shape[1:])) for item in items])
    targets: Tensor | None = None
    if items[0].target is not None:
        targets = torch.from_numpy(np.stack([item.target for item in items if item.target is not None]))
    return Batch(
        images=torch.from_numpy(np.ascontiguousarray(images)),
        labels=torch.tensor([item.label for item in items], dtype=torch.int64),
        targets=targets,
        guided=torch.from_numpy(np.stack([item.guided for item in items])),
        frames=tuple(item.frame for item in items),
        case_ids=tuple(item.case_id for item in items),
    )


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The shuffled order of an epoch: a permutation of range(n) that depends on seed and epoch alone."""
    order: NDArray[np.int64] = np.random.default_rng([seed, epoch, n, 1]).permutation(n)
    return order


def training_batches(
    items: CohortItems,
    *,
    epoch: int,
    batch_size: int,
    first_batch: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
) -> Iterator[Batch]:
    """The batches of one epoch, from `first_batch` on; on several devices each rank takes its own share.

    A last batch of a single image is joined to none and left out: batch norm cannot train on it.
    """
    if len(items) == 0:
        raise CohortError("There is no case to train on.", "Check the cohort's splits and the recipe's train_on.")
    order = epoch_order(len(items), items.seed, epoch)
    step = batch_size * world
    blocks = [order[i : i + step] for i in range(0, len(order), step)]
    if len(blocks) > 1 and len(blocks[-1]) // world < 2:
        blocks.pop()
    keys = [[Key(int(i), epoch) for i in block[rank::world]] for block in blocks[first_batch:]]
    return _serve(items, keys, workers)


def batches_per_epoch(n: int, batch_size: int, world: int = 1) -> int:
    """How many batches `training_batches` gives for n cases."""
    full, rest = divmod(n, batch_size * world)
    return max(1, full + (1 if rest // world >= 2 else 0))


def test_batches(items: CohortItems, *, batch_size: int, workers: int = 0) -> Iterator[Batch]:
    """Every case once, in order, in its test-time view."""
    keys = [
        [Key(i, -1) for i in range(start, min(start + batch_size, len(items)))]
        for start in range(0, len(items), batch_size)
    ]
    return _serve(items, keys, workers)


class _Told(Dataset[Item | SightlineError]):
    """Items, or the error as a value: one raised in a worker process would arrive as the text of a traceback."""

    def __init__(self, items: CohortItems) -> None:
        self.items = items

    def __getitem__(self, key: Key) -> Item | SightlineError:
        try:
            return self.items[key]
        except SightlineError as error:
            return error


def _collate_told(items: Sequence[Item | SightlineError]) -> Batch | SightlineError:
    errors = [item for item in items if isinstance(item, SightlineError)]
    return errors[0] if errors else collate([item for item in items if isinstance(item, Item)])


def _serve(items: CohortItems, keys: list[list[Key]], workers: int) -> Iterator[Batch]:
    loader: DataLoader[Item | SightlineError] = DataLoader(
        _Told(items),
        batch_sampler=keys,
        collate_fn=_collate_told,
        num_workers=workers,
        # the loader's own seed draw must not move torch's generator: runs are repeatable without it
        generator=torch.Generator().manual_seed(0),
    )
    for batch in loader:
        if isinstance(batch, SightlineError):
            raise batch
        yield batch
