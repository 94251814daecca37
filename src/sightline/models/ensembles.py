"""One network at several input sizes, its maps averaged: for findings of many sizes (scale pyramids, Adelson 1984)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, logsigmoid, pad

from sightline.errors import RecipeError, count_noun
from sightline.models.backbones import Trunk
from sightline.models.box_regression import resize_images
from sightline.models.cam_classifiers import ClassMapModel, ClassMapNetwork, GlobalPooling
from sightline.models.volume_networks import VolumeBackbone, VolumeUNet
from sightline.structures.evidence import Evidence


@dataclass(frozen=True)
class MultiScale:
    """Trained as it is; at test time its maps and logits are means over scaled inputs.

    Attributes:
        model: the network.
        scales: factors on the input's sides; maps are brought to the grid of the first.
    """

    model: ClassMapModel | GlobalPooling = field(default_factory=ClassMapModel)
    scales: tuple[float, ...] = (1.0, 0.75, 1.25)

    def __post_init__(self) -> None:
        """Refuse factors that are none."""
        if not self.scales or not all(0.1 <= scale <= 4.0 for scale in self.scales):
            raise RecipeError(f"Scales are factors from 0.1 to 4; got {self.scales}.", "Try (1.0, 0.75, 1.25).")

    def without_weights(self) -> MultiScale:
        """The same architecture with nothing to load."""
        return replace(self, model=self.model.without_weights())

    def build(self, n_classes: int) -> MultiScaleNetwork:
        """The network."""
        return MultiScaleNetwork(self.model.build(n_classes), self.scales)


class MultiScaleNetwork(nn.Module):
    """`forward(images [b, c, h, w] in [0, 1])`: Evidence of the network, in evaluation averaged over scales."""

    def __init__(self, network: nn.Module, scales: tuple[float, ...]) -> None:
        """Wrap a network whose Evidence has maps of the whole image."""
        super().__init__()
        self.network = network
        self.scales = scales

    def forward(self, images: Tensor) -> Evidence:
        """In training the network as it is; else logits, maps and attention as means over scales."""
        if self.training:
            plain: Evidence = self.network(images)
            return plain
        seen = [self.network(self._run_at(images, scale)) for scale in self.scales]
        assert all(evidence.maps is not None for evidence in seen)
        grid = seen[0].maps.shape[2:]
        maps = torch.stack([_to(evidence.maps, grid) for evidence in seen]).mean(dim=0)
        # shares sum to the logit, so growing a grid must not grow their sum
        shares = [_to(e.extras["attention"], grid) for e in seen]
        totals = [e.extras["attention"].flatten(2).sum(-1) for e in seen]
        attention = torch.stack(
            [
                s + ((t - s.flatten(2).sum(-1)) / grid.numel())[..., None, None]
                for s, t in zip(shares, totals, strict=True)
            ]
        ).mean(dim=0)
        logits = torch.stack([evidence.logits for evidence in seen]).mean(dim=0)
        return Evidence(logits=logits, maps=maps, extras={"attention": attention})

    def _run_at(self, images: Tensor, scale: float) -> Tensor:
        if scale == 1.0:
            return images
        rows, columns = (max(32, round(n * scale)) for n in images.shape[2:])
        return resize_images(images, (rows, columns))


def _to(maps: Tensor, grid: torch.Size) -> Tensor:
    return interpolate(maps, size=tuple(grid), mode="bilinear", align_corners=False)


Member = ClassMapModel | GlobalPooling | MultiScale | VolumeUNet | VolumeBackbone
# a Gaussian holds 99.7% of its mass within three standard deviations
REACH = 3.0
INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Ensemble:
    """The mean of what several trained networks say (deep ensembles, Lakshminarayanan 2017).

    Its weights are those of finished runs (`sightline.training.assemble`): `members.0.`, `members.1.` ... hold exactly
    what the members' configs build; nothing is trained. Probabilities are averaged; the logits are their logarithms, or
    their log odds where the members judge each class by itself. Maps are averaged in like units: each is brought to the
    members' mean spread over the image, so that none speaks louder because its loss left it wider.

    Attributes:
        members: the networks; one alone may sit here for its mirror image or for smoothing.
        mirrored: let every member also judge the image with left and right exchanged.
        smooth: standard deviation, in cells of the map, of a Gaussian that the mean map is smoothed with; 0 leaves it.
            One cell that stands out by chance then loses against a place where several agree.
        maps_of: members whose maps are averaged, by their place from 0; empty: of all. A guided network that judges
            together with an unguided one can show its map alone.
        independent: whether the members judge each class by itself (sigmoid) instead of against the others (softmax).
    """

    members: tuple[Member, ...]
    mirrored: bool = False
    smooth: float = 0.0
    maps_of: tuple[int, ...] = field(default=(), metadata={"since": "0.2"})
    independent: bool = field(default=False, metadata={"since": "0.2"})

    def __post_init__(self) -> None:
        """Refuse an empty ensemble and widths that mean nothing."""
        if not self.members:
            raise RecipeError("An ensemble needs at least one member.", "Name one or more trained runs.")
        if not 0.0 <= self.smooth < math.inf:
            raise RecipeError(f"Maps are smoothed by 0 cells or more; got {self.smooth}.", "Try 1.")
        wrong = [place for place in self.maps_of if not 0 <= place < len(self.members)]
        if wrong or len(set(self.maps_of)) < len(self.maps_of):
            raise RecipeError(
                f"maps_of names members by their place, each once; got {self.maps_of} of "
                f"{count_noun(len(self.members), 'member')}.",
                "Count from 0 in the order of the members.",
            )

    def without_weights(self) -> Ensemble:
        """The same architecture with nothing to load."""
        return replace(self, members=tuple(member.without_weights() for member in self.members))

    def build(self, n_classes: int) -> EnsembleNetwork:
        """The network."""
        return EnsembleNetwork(self, n_classes)


class NoFrozenStages:
    """A trunk of which nothing is kept."""

    frozen_stages: None = None

    def frozen_features(self, images: Tensor) -> Tensor:
        """The images themselves."""
        return images


class EnsembleNetwork(nn.Module):
    """`forward(images [b, c, *s] in [0, 1])` gives the mean Evidence; maps and attention where all members asked for
    theirs (`maps_of`) have them.

    Submodules are `members.0`, `members.1` ...
    """

    def __init__(self, config: Ensemble, n_classes: int) -> None:
        """Every member as its config builds it."""
        super().__init__()
        self.mirrored = config.mirrored
        self.smooth = config.smooth
        self.independent = config.independent
        self.maps_of = config.maps_of or tuple(range(len(config.members)))
        self.members = nn.ModuleList(member.build(n_classes) for member in config.members)
        # keeps features of the frozen stages that all members have in common (`training/feature_cache.py`)
        self.encoder: Any = None

    @property
    def trunk(self) -> Trunk | NoFrozenStages:
        """The first member's trunk where its frozen stages are those of every member: all take its features."""
        trunks = [member.trunk for member in self.members if isinstance(member, ClassMapNetwork)]
        digests = {None if trunk.frozen_stages is None else trunk.frozen_stages.digest() for trunk in trunks}
        shared = not self.mirrored and len(trunks) == len(self.members) and len(digests) == 1
        return trunks[0] if shared else NoFrozenStages()

    def forward(self, images: Tensor) -> Evidence:
        """Ask every member, and for mirror images turn its maps back."""
        answers: list[Evidence] = [member(images) for member in self.members]
        if self.mirrored:
            answers += [_flip_back(member(images.flip(-1))) for member in self.members]
        with torch.autocast(images.device.type, enabled=False):
            logits = torch.stack([one.logits.float() for one in answers])
            # mirror images follow all members, in the same order
            shown = [one for place, one in enumerate(answers) if place % len(self.members) in self.maps_of]
            maps = [one.maps.float() for one in shown if one.maps is not None]
            shares = [one.extras["attention"].float() for one in shown if "attention" in one.extras]
            extras = {}
            if len(shares) == len(shown):
                extras["attention"] = smooth_maps(torch.stack(_resize_to_finest(shares)).mean(dim=0), self.smooth)
            whole = len(maps) == len(shown)
            return Evidence(
                logits=average_answers(logits, independent=self.independent),
                maps=smooth_maps(average_maps(_resize_to_finest(maps)), self.smooth) if whole else None,
                extras=extras,
            )


def average_answers(logits: Tensor, *, independent: bool) -> Tensor:
    """Logits [b, k] whose softmax (sigmoid where classes are independent) is the mean of that of logits [n, b, k]."""
    if independent:
        # log odds of two sums in logarithms, so that they stay numbers where every member is certain
        return logsigmoid(logits).logsumexp(dim=0) - logsigmoid(-logits).logsumexp(dim=0)
    return logits.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(logits))


def average_maps(maps: Sequence[Tensor]) -> Tensor:
    """The mean of maps [b, k, *m], each first given the mean spread (standard deviation over cells) of all of them.

    Equal maps come out as they are. A map without any spread (the first class of `one_map`) stays flat.
    """
    cells = torch.stack([one.flatten(2) for one in maps])
    centre = cells.mean(dim=3, keepdim=True)
    spread = (cells - centre).square().mean(dim=3, keepdim=True).sqrt()
    units = torch.where(spread > 0, (cells - centre) / spread.clamp_min(torch.finfo(cells.dtype).tiny), 0.0)
    mean = units.mean(dim=0) * spread.mean(dim=0) + centre.mean(dim=0)
    return mean.view(maps[0].shape)


def smooth_maps(maps: Tensor, cells: float) -> Tensor:
    """Maps [b, k, *m] under a Gaussian of a standard deviation in cells, axis by axis; edges are continued flat."""
    if cells == 0.0:
        return maps
    reach = math.ceil(REACH * cells)
    offsets = torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype)
    weights = torch.exp(-0.5 * (offsets / cells).square())
    weights = weights / weights.sum()
    for axis in range(2, maps.ndim):
        lines = maps.movedim(axis, -1)
        # replicate padding by one axis at a time needs exactly one batch and one channel axis before it
        flat = pad(lines.reshape(1, -1, lines.shape[-1]), (reach, reach), mode="replicate")
        maps = (flat.unfold(-1, len(weights), 1) @ weights).view(lines.shape).movedim(-1, axis)
    return maps


def _flip_back(evidence: Evidence) -> Evidence:
    maps = None if evidence.maps is None else evidence.maps.flip(-1)
    extras = {"attention": evidence.extras["attention"].flip(-1)} if "attention" in evidence.extras else {}
    return Evidence(evidence.logits, maps, extras)


def _resize_to_finest(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps on the finest member's grid, so that no member loses places."""
    if not maps:
        return []
    finest = max((one.shape[2:] for one in maps), key=math.prod)
    mode = INTERPOLATION[len(finest)]
    return [
        one if one.shape[2:] == finest else interpolate(one, size=finest, mode=mode, align_corners=False)
        for one in maps
    ]
