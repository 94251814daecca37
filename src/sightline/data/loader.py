"""A cohort as batches: every image of every epoch is a function of (seed, epoch, position) alone.

So an epoch can be repeated, or entered in the middle, and gives the same bytes: the loader has no state to save.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sightline.data.targets.gaze_choice import GazeChoice
from sightline.data.targets.region_choice import RegionChoice
from sightline.data.targets.region_targets import RegionTargets, build_targets
from sightline.data.views.cache import CACHE_BYTES, Encoder, LoadedView, Pictures, Volumes, refuse_other_images
from sightline.data.views.crops import Corners, find_largest_box
from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.errors import CohortError, SightlineError
from sightline.io.progress import hold_back_interrupt
from sightline.structures.case import Case, Cohort
from sightline.structures.evidence import Batch
from sightline.structures.frame import Frame


@dataclass(frozen=True)
class Item:
    """One image ready for a batch.

    Pixels [c, *s] or what is kept in their place [n], target [k or 1, *s] or None, guided [k], box [4] or None, and a
    number that the views of one draw of a study share.
    """

    image: NDArray[np.float32] | NDArray[np.int16]
    label: int
    target: NDArray[np.uint8 | np.float32] | None
    guided: NDArray[np.bool_]
    frame: Frame
    case_id: str
    box: NDArray[np.float32] | None = None
    study: int = 0


@dataclass(frozen=True)
class Key:
    """Which image, and which draw of its augmentation; epoch -1 means the test-time view.

    Attributes:
        index: position in the cohort.
        epoch: of the training.
        draw: how often the image came before in this epoch, where images are repeated.
    """

    index: int
    epoch: int
    draw: int = 0


class CohortItems(Dataset[Item]):
    """The items of a cohort by Key.

    Args:
        cohort: cases to serve.
        view: framing and augmentation.
        regions: which regions or gaze guide; None serves no targets.
        boxes: serve the largest finding box of each case; a RegionChoice serves only those within its `share`.
        channels: channels the network takes (1 or 3).
        seed: seed of the augmentation.
        cache_bytes: memory for reduced pictures.
        encoder: keeps something of each image that the network takes in its place, or None.
        whole_studies: training batches hold whole studies, `batch_size` of them.
    """

    def __init__(
        self,
        cohort: Cohort,
        view: View | VolumeView,
        regions: RegionChoice | GazeChoice | None = None,
        *,
        boxes: bool | RegionChoice | GazeChoice = False,
        channels: int = 3,
        seed: int = 0,
        cache_bytes: int = CACHE_BYTES,
        encoder: Encoder | None = None,
        whole_studies: bool = False,
    ) -> None:
        self.cohort = cohort
        self.view = view
        self.regions = regions
        self.boxes = boxes is not False
        self.whole_studies = whole_studies
        self._views: dict[str, list[int]] = {}
        for index, case in enumerate(cohort):
            self._views.setdefault(case.study_id, []).append(index)
        self._study_numbers = {study: number for number, study in enumerate(self._views)}
        self.channels = channels
        self.seed = seed
        self.encoder = encoder if isinstance(view, View) else None
        refuse_other_images(cohort, isinstance(view, VolumeView))
        self.pictures: Pictures | Volumes = (
            Volumes(cohort, view, cache_bytes) if isinstance(view, VolumeView) else Pictures(cohort, view, cache_bytes)
        )
        self._targets = build_targets(cohort, regions, cache_bytes // 8) if regions is not None else None
        # boxes are of findings, whatever role the choice names
        self._boxed = replace(boxes, role="finding").patients(cohort) if isinstance(boxes, RegionChoice) else None
        self._finding: dict[int, Corners | None] = {}

    def __len__(self) -> int:
        """Number of cases."""
        return len(self.cohort)

    @property
    def repeats(self) -> int:
        """How often each picture comes in an epoch."""
        patches = None if isinstance(self.view, VolumeView) else self.view.patches
        return 1 if patches is None else patches.per_picture

    def images_per_epoch(self, *, balance: Balance = "none") -> int:
        """How many images, or whole studies, `iterate_training_batches` serves an epoch; a last one may be left out."""
        return self.repeats * compute_balanced_epoch_length(self.drawn_labels, balance)

    @property
    def drawn_labels(self) -> NDArray[np.int64]:
        """Class index of everything that an epoch draws: every case, or every study (that of its first view)."""
        return self.labels[[views[0] for views in self._views.values()]] if self.whole_studies else self.labels

    @property
    def drawn_cases(self) -> list[list[int]]:
        """Positions of the cases of everything that an epoch draws: a case, or the views of a study."""
        return list(self._views.values()) if self.whole_studies else [[i] for i in range(len(self.cohort))]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class index of every case, [n]."""
        return np.array([self.cohort.class_index(case.label) for case in self.cohort], dtype=np.int64)

    def __getitem__(self, key: Key) -> Item:
        """The item of a key."""
        case = self.cohort[key.index]
        shown = self._load_view(key, case)
        target, guided = None, np.zeros(len(self.cohort.classes), dtype=bool)
        if self._targets is not None:
            if isinstance(self._targets, RegionTargets):
                hidden = self._is_hidden(key)
                target, guided = self._targets.draw(key.index, shown.source, shown.frame, hidden=hidden)
            else:
                target, guided = self._targets.draw(key.index, shown.source, shown.frame)
        return Item(
            shown.image,
            shown.label,
            target,
            guided,
            shown.frame,
            case.case_id,
            self._place_box(key.index, case, shown.frame) if self.boxes else None,
            key.draw * len(self._views) + self._study_numbers[case.study_id],
        )

    def _is_hidden(self, key: Key) -> bool:
        """Whether the marks of a key's image are hidden from this epoch of the training."""
        choice = self.regions
        if not isinstance(choice, RegionChoice) or choice.dropout == 0.0 or key.epoch < 0:
            return False
        # a stream of its own: pictures are augmented as they are without
        random = np.random.default_rng([self.seed, key.epoch, key.index, key.draw, 3])
        return bool(random.random() < choice.dropout)

    def _load_view(self, key: Key, case: Case) -> LoadedView:
        """What a key shows: pixels with as many channels as are wanted, or what the encoder keeps in their place."""
        draws = 0 if isinstance(self.view, VolumeView) else self.view.draws
        drawn = "test"
        rng = None
        if key.epoch >= 0 and draws:
            # of the case alone, whatever cohort and training it is in: what is kept of the draw serves them all
            n = (key.epoch * self.repeats + key.draw) % draws
            drawn = f"draw {n}"
            rng = np.random.default_rng([n, *hashlib.sha256(case.case_id.encode()).digest()[:8]])
        elif key.epoch >= 0:
            words = [self.seed, key.epoch, key.index]
            rng = np.random.default_rng([*words, key.draw] if key.draw else words)
        if self.encoder is None or not isinstance(self.pictures, Pictures) or (rng is not None and not draws):
            shown = self.pictures.show(key.index, rng)
            return replace(shown, image=_match_channels(shown.image, self.channels))
        name = self.encoder.name(case, drawn)
        known = self.encoder.find(name)
        shown = self.pictures.show(key.index, rng, known)
        if known is None:
            shown = replace(shown, image=self.encoder.encode(name, _match_channels(shown.image, self.channels)))
        return shown

    def _place_box(self, index: int, case: Case, frame: Frame) -> NDArray[np.float32]:
        if index not in self._finding:
            hidden = self._boxed is not None and case.patient_id not in self._boxed
            self._finding[index] = None if hidden else find_largest_box(case)
        return place_box_on_grid(self._finding[index], frame)


def place_box_on_grid(corners: Corners | None, frame: Frame) -> NDArray[np.float32]:
    """A box of the source picture as centre row, centre column, height and width, in fractions of a grid: float32 [4].

    The centre is carried to the grid, the sides are scaled: on a turned grid the box stays upright and keeps its size.
    NaN without a box, or where its centre has left the grid.
    """
    box = np.full(4, np.nan, dtype=np.float32)
    if corners is not None:
        shape = np.array(frame.shape, dtype=np.float64)
        low, high = np.array(corners[:2]), np.array(corners[2:])
        centre = frame.unmap_points((low + high) / 2.0) / shape
        if (centre >= 0.0).all() and (centre <= 1.0).all():
            box[:2], box[2:] = centre, (high - low) / frame.scale / shape
    return box


def _match_channels(image: NDArray[Any], wanted: int) -> NDArray[Any]:
    """Grey as one plane is left to the network to repeat; colour is averaged where one channel is wanted."""
    if image.shape[0] == wanted or image.shape[0] == 1:
        return image
    return image.mean(axis=0, keepdims=True, dtype=np.float32)


def collate(items: Sequence[Item]) -> Batch:
    """Items to a Batch."""
    depth = max(item.image.shape[0] for item in items)
    stacked = np.stack([np.broadcast_to(item.image, (depth, *item.image.shape[1:])) for item in items])
    images = torch.from_numpy(np.ascontiguousarray(stacked))
    if images.dtype == torch.int16:
        # numpy knows no bfloat16
        images = images.view(torch.bfloat16)
    targets: Tensor | None = None
    if items[0].target is not None:
        targets = torch.from_numpy(np.stack([item.target for item in items if item.target is not None]))
    return Batch(
        images=images,
        labels=torch.tensor([item.label for item in items], dtype=torch.int64),
        targets=targets,
        guided=torch.from_numpy(np.stack([item.guided for item in items])),
        frames=tuple(item.frame for item in items),
        case_ids=tuple(item.case_id for item in items),
        boxes=None if items[0].box is None else torch.from_numpy(np.stack([i.box for i in items if i.box is not None])),
        studies=torch.tensor([item.study for item in items], dtype=torch.int64),
    )


Balance = Literal["none", "most", "least"]


def draw_epoch_order(
    n: int, seed: int, epoch: int, labels: NDArray[np.int64] | None = None, balance: Balance = "most"
) -> NDArray[np.int64]:
    """The shuffled order of an epoch: a permutation of range(n) that depends on seed and epoch alone.

    With labels [n], every class comes as often as the one with the `most` images (each of its images equally often,
    and some of them, drawn anew each epoch, once more), or the `least`: as many of each, drawn anew each epoch.
    """
    random = np.random.default_rng([seed, epoch, n, 1])
    if labels is None:
        order: NDArray[np.int64] = random.permutation(n)
        return order
    counts = np.unique(labels, return_counts=True)[1]
    most = counts.min() if balance == "least" else counts.max()
    repeated = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        whole, rest = divmod(int(most), len(own))
        repeated += [np.tile(own, whole), random.permutation(own)[:rest]]
    order = random.permutation(np.concatenate(repeated))
    return order


def compute_balanced_epoch_length(labels: NDArray[np.int64], balance: Balance = "most") -> int:
    """How many images an epoch has where every class present comes as often as the largest, or the smallest, one."""
    counts = np.unique(labels, return_counts=True)[1]
    if balance == "none" or not len(counts):
        return len(labels)
    return int((counts.min() if balance == "least" else counts.max()) * len(counts))


Redraw = Callable[[NDArray[np.int64], int, int], NDArray[np.int64]]


def draw_epoch_blocks(
    items: CohortItems,
    *,
    epoch: int,
    batch_size: int,
    world: int = 1,
    balance: Balance = "none",
    repeats: int = 1,
    redraw: Redraw | None = None,
) -> list[list[Key]]:
    """The keys of an epoch's batches, over all devices; as `iterate_training_batches` serves them.

    A last batch of a single image is left out: batch norm cannot train on it; so is one of fewer images than devices.
    Where the items come as whole studies, `batch_size` and this rule count studies.
    """
    cases = items.drawn_cases
    order = draw_epoch_order(len(cases), items.seed, epoch, items.drawn_labels if balance != "none" else None, balance)
    if redraw is not None:
        order = redraw(order, items.seed, epoch)
    if repeats > 1:
        order = np.random.default_rng([items.seed, epoch, 2]).permutation(np.tile(order, repeats))
    times_seen: dict[int, int] = {}
    draws = []
    for index in order.tolist():
        draws.append(times_seen.get(index, 0))
        times_seen[index] = draws[-1] + 1
    every = list(zip(order.tolist(), draws, strict=True))
    blocks = [every[i : i + batch_size] for i in range(0, len(every), batch_size)]
    if len(blocks) > 1 and len(blocks[-1]) < max(2, world):
        blocks.pop()
    return [[Key(case, epoch, draw) for index, draw in block for case in cases[index]] for block in blocks]


def iterate_training_batches(
    items: CohortItems,
    *,
    epoch: int,
    batch_size: int,
    first_batch: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    balance: Balance = "none",
    repeats: int = 1,
    redraw: Redraw | None = None,
) -> Iterator[Batch]:
    """The batches of one epoch, from `first_batch` on; of several devices each takes its share of the same batches.

    With `balance` classes come equally often (`epoch_order`), with `repeats` all images do; one that comes again is
    augmented anew. `redraw` puts other images into some places of the order, given it, the seed and the epoch.
    """
    if len(items) == 0:
        raise CohortError("There is no case to train on.", "Check the cohort's splits and the recipe's train_on.")
    blocks = draw_epoch_blocks(
        items, epoch=epoch, batch_size=batch_size, world=world, balance=balance, repeats=repeats, redraw=redraw
    )
    return _serve(items, [block[rank::world] for block in blocks[first_batch:]], workers)


def count_batches_per_epoch(n: int, batch_size: int, world: int = 1) -> int:
    """How many batches `iterate_training_batches` gives for n images.

    Where it balances classes, n is their `compute_balanced_epoch_length`.
    """
    full, rest = divmod(n, batch_size)
    return max(1, full + (1 if rest >= max(2, world) else 0))


def iterate_test_batches(items: CohortItems, *, batch_size: int, workers: int = 0) -> Iterator[Batch]:
    """Every case once, in order, in its test-time view."""
    keys = [
        [Key(i, -1) for i in range(start, min(start + batch_size, len(items)))]
        for start in range(0, len(items), batch_size)
    ]
    return _serve(items, keys, workers)


class _ErrorsAsItems(Dataset[Item | SightlineError]):
    """Items, or the error as a value: one raised in a worker process would arrive as the text of a traceback."""

    def __init__(self, items: CohortItems) -> None:
        self.items = items

    def __getitem__(self, key: Key) -> Item | SightlineError:
        try:
            return self.items[key]
        except SightlineError as error:
            return error


def _collate_or_error(items: Sequence[Item | SightlineError]) -> Batch | SightlineError:
    errors = [item for item in items if isinstance(item, SightlineError)]
    return errors[0] if errors else collate([item for item in items if isinstance(item, Item)])


def _serve(items: CohortItems, keys: list[list[Key]], workers: int) -> Iterator[Batch]:
    loader: DataLoader[Item | SightlineError] = DataLoader(
        _ErrorsAsItems(items),
        batch_sampler=keys,
        collate_fn=_collate_or_error,
        num_workers=workers,
        # the loader's own seed draw must not move torch's generator: runs are repeatable without it
        generator=torch.Generator().manual_seed(0),
    )
    with hold_back_interrupt():  # processes that read pictures start here
        batches = iter(loader)
    for batch in batches:
        if isinstance(batch, SightlineError):
            raise batch
        yield batch
