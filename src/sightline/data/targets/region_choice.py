"""Which of an image's regions guide which class maps, and in what style."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sightline.data.targets.drawing_styles import choose_descriptions, convert_style, dilate
from sightline.data.targets.reader_consensus import CONSENSUS, list_readers, merge_readers, parse_rule
from sightline.errors import RecipeError
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.regions import Region, Style, find_style
from sightline.structures.tag import Role

RICHEST: tuple[Style, ...] = ("mask", "box", "scribble")


@dataclass(frozen=True)
class RegionChoice:
    """The regions a recipe is guided by.

    Attributes:
        style: scribble, box or mask; what no region of this style by the same reader for the same class covers is
            converted from another.
        role: `focus`: where to look; `finding`: the finding itself.
        classes: which class maps a region guides: `all` of them (Liao 2022, section IV-C), the class in its tag
            (`tagged`; an untagged region guides all), or only the image's `own` class.
        margin_px: source pixels by which regions are widened before use.
        stroke_px: stroke width, in source pixels, of scribbles made from masks.
        share: share of the cohort's marked images whose marks are used: 0.05 for guidance from 5% of the boxes. Whole
            patients are drawn; those of a smaller share are among those of a larger one.
        share_seed: another number draws other patients.
        unmarked: cells of a picture with a finding but without a mark (not marked, or hidden by `share`): `unknown`:
            they are ignored, for losses that learn from normal pictures that no cell is marked (`CellFocal`); `empty`:
            they count as unmarked.
        readers: whose marks are used if several readers marked a picture: `union` of all, `intersection`, `majority`
            (more than half), `staple` (Warfield 2004, above one half), `soft`: the share of readers who marked a cell,
            0 to 1, for losses that use shares (`spatial_nll` with `weigh`), or one reader's name. Marks are converted
            to the style and widened first, then merged in source pixels; `soft` on the grid.
        dropout: probability that a training image's marks are hidden, drawn anew in each epoch; only the image's label
            is then used, whatever `unmarked` is.
    """

    style: Style = "mask"
    role: Role = "focus"
    classes: Literal["all", "tagged", "own"] = "all"
    margin_px: float = 0.0
    stroke_px: float = 3.0
    share: float = 1.0
    share_seed: int = 0
    unmarked: Literal["empty", "unknown"] = field(default="empty", metadata={"since": "0.2"})
    readers: str = field(default="union", metadata={"since": "0.2"})
    dropout: float = field(default=0.0, metadata={"since": "0.2"})

    def __post_init__(self) -> None:
        """Refuse lengths that are none, and gaze."""
        if self.margin_px < 0.0 or self.stroke_px <= 0.0:
            raise RecipeError(
                f"RegionChoice needs margin_px >= 0 and stroke_px > 0; got {self.margin_px} and {self.stroke_px}.",
                "Give lengths in source pixels.",
            )
        if self.role == "gaze":
            raise RecipeError("RegionChoice takes marks; gaze is no mark.", "Use the word `gaze_choice`.")
        if not 0.0 < self.share <= 1.0:
            raise RecipeError(
                f"RegionChoice.share lies above 0 and up to 1; got {self.share}.",
                "To use no mark at all, set the guidance weight to 0.",
            )
        if not 0.0 <= self.dropout < 1.0:
            raise RecipeError(f"RegionChoice.dropout lies in [0, 1); got {self.dropout}.", "Try 0.3.")
        if self.readers == "soft" and self.unmarked == "unknown":
            raise RecipeError(
                "RegionChoice.readers='soft' gives shares from 0 to 1, which know no cell that is unknown.",
                "Use unmarked='empty', or another word for readers.",
            )

    @property
    def soft(self) -> bool:
        """Whether targets are shares of readers, float32 from 0 to 1."""
        return self.readers == "soft"

    @property
    def reader(self) -> str | None:
        """The one reader whose marks count; None: everybody's."""
        return None if self.readers in CONSENSUS else self.readers

    def patients(self, cohort: Cohort) -> frozenset[str] | None:
        """The patients whose marks are used (`choose_patients`); None: everybody."""
        return choose_patients(cohort, self.role, self.share, self.share_seed, self.reader)

    def pick(self, case: Case, shape: tuple[int, ...]) -> tuple[Region, ...]:
        """The case's regions of this role, in this style, of the readers who count.

        Where readers are merged and more than one left a mark on the picture, a mask for each class they speak for.

        Args:
            case: the case.
            shape: (rows, columns) of its source picture, or the axes of its volume.

        Raises:
            RecipeError: marks on a volume would have to change their style or width.
        """
        having = [region for region in case.regions if region.tag.role == self.role]
        if self.reader is not None:
            return self._convert_styles([region for region in having if region.tag.reader == self.reader], shape)
        marks = {
            name: self._convert_styles([region for region in having if region.tag.reader == name], shape)
            for name in list_readers(case)
        }
        rule = parse_rule(self.readers)
        if rule in (None, "union") or len(marks) == 1 or not having:
            return tuple(region for own in marks.values() for region in own)
        return merge_readers(marks, rule, self.role, shape, by_label=self.classes == "tagged")

    def _convert_styles(self, having: Sequence[Region], shape: tuple[int, ...]) -> tuple[Region, ...]:
        native = [region for region in having if find_style(region) == self.style]
        if len(shape) != 2:
            if {region.tag.label for region in having} - {
                region.tag.label for region in native
            } or self.margin_px > 0.0:
                raise RecipeError(
                    f"Marks on volumes guide as they are; the recipe asks for the style {self.style!r} with a margin "
                    f"of {self.margin_px} px.",
                    "Set the style to the one that was drawn (mask), and margin_px to 0.",
                )
            return tuple(native)
        plane = (shape[0], shape[1])
        # of what was not drawn in this style the richest description is converted, not every description of it
        others: list[Style] = [style for style in RICHEST if style != self.style]
        chosen = [
            region
            if find_style(region) == self.style
            else convert_style(region, self.style, plane, stroke_px=self.stroke_px)
            for region in choose_descriptions(having, [self.style, *others])
        ]
        if self.margin_px > 0.0:
            chosen = [dilate(region, self.margin_px, plane) for region in chosen]
        return tuple(chosen)

    def find_guided_classes(self, region: Region, case: Case, classes: Sequence[str]) -> tuple[int, ...]:
        """Positions of the class maps that a region of a case guides."""
        if self.classes == "own":
            return (classes.index(case.label),)
        if self.classes == "tagged" and region.tag.label is not None:
            return (classes.index(region.tag.label),) if region.tag.label in classes else ()
        return tuple(range(len(classes)))


def choose_patients(
    cohort: Cohort, role: Role, share: float, seed: int, reader: str | None = None
) -> frozenset[str] | None:
    """The patients whose marks are used: at least one, and as near to `share` of the marked images as can be.

    Patients come in an order of their own that depends on `seed` and their ids alone. One that has more than
    1% of all marked images waits until it is at most a fifth of what is drawn, so that small shares can be met
    where groups are large (FracAtlas, whose groups of up to 20 marked images count as patients).

    Args:
        cohort: the training cases.
        role: of the marks.
        share: share of the marked images.
        seed: another number draws other patients.
        reader: whose marks count; None: everybody's.

    Returns:
        Patient ids, or None: everybody.
    """
    if share >= 1.0:
        return None
    marked = Counter(
        case.patient_id
        for case in cohort
        if any(region.tag.role == role and reader in (None, region.tag.reader) for region in case.regions)
    )
    if not marked:
        return frozenset()
    waiting = sorted(marked, key=lambda p: hashlib.sha256(f"guided {seed} {p}".encode()).digest())
    small = sum(marked.values()) / 100.0
    sizes = Counter(marked.values())
    order: list[str] = []
    sums: list[int] = []
    while waiting:
        have = sums[-1] if sums else 0
        allowed = max(min(+sizes), small, have / 4.0)
        after = next(p for p in waiting if marked[p] <= allowed)
        waiting.remove(after)
        sizes[marked[after]] -= 1
        order.append(after)
        sums.append(have + marked[after])
    nearest = min(range(len(order)), key=lambda i: abs(sums[i] - share * sums[-1]))
    return frozenset(order[: nearest + 1])


def draw_targets(
    picked: Sequence[Region], choice: RegionChoice, case: Case, classes: Sequence[str], frame: Frame, *, shared: bool
) -> tuple[NDArray[np.uint8 | np.float32], NDArray[np.bool_]]:
    """Targets [k or 1, h, w] on a grid, and which classes are guided [k].

    uint8, 0 or 1; where the choice is `soft` float32, the share of the picture's readers who marked a cell.

    Args:
        picked: regions from `RegionChoice.pick`.
        choice: decides which class a region guides.
        case: the case.
        classes: class names in order.
        frame: grid to draw on.
        shared: one channel for all classes.
    """
    # each reader by themself where shares are asked for
    readers = list_readers(case) if choice.soft else ("",)
    votes = np.zeros((len(readers), 1 if shared else len(classes), *frame.shape), dtype=np.uint8)
    for region in picked:
        drawing = region.draw(frame) > 0
        own = readers.index(region.tag.reader) if choice.soft else 0
        for index in (0,) if shared else choice.find_guided_classes(region, case, classes):
            votes[own, index] |= drawing
    targets: NDArray[np.uint8 | np.float32] = votes[0] if not choice.soft else _compute_shares(votes)
    # a region that the crop cut away guides nothing
    present: NDArray[np.bool_] = np.asarray(targets.reshape(len(targets), -1).any(axis=1))
    guided = np.broadcast_to(present, (len(classes),)).copy() if shared else present
    return targets, guided


def _compute_shares(votes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean over readers; a picture that nobody marked has none."""
    if not len(votes):
        return np.zeros(votes.shape[1:], dtype=np.float32)
    return np.asarray(votes.mean(axis=0), dtype=np.float32)
