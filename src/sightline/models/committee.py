"""Several trained networks that judge together, also of the mirrored image, with maps that are smoothed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from sightline.errors import RecipeError
from sightline.evidence import Evidence
from sightline.models.class_maps import ClassMapModel
from sightline.models.global_pooling import GlobalPooling
from sightline.models.multi_scale import MultiScale
from sightline.models.volume_backbone import VolumeBackbone
from sightline.models.volume_unet import VolumeUNet

Member = ClassMapModel | GlobalPooling | MultiScale | VolumeUNet | VolumeBackbone
# a Gaussian holds 99.7% of its mass within three standard deviations
REACH = 3.0
INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Committee:
    """The mean of what several trained networks say (deep ensembles, Lakshminarayanan 2017).

    Its weights are those of finished runs (`sightline.lab.assemble`): `members.0.`, `members.1.` ... hold exactly what
    the members' configs build; nothing is trained. Probabilities are averaged, and the logits are their logarithms.
    Maps are averaged in like units: each is brought to the members' mean spread over the image, so that none speaks
    louder because its loss left it wider.

    Attributes:
        members: the networks; one alone may sit here for its mirror image or for smoothing.
        mirrored: let every member also judge the image with left and right exchanged.
        smooth: standard deviation, in cells of the map, of a Gaussian that the mean map is smoothed with; 0 leaves it.
            One cell that stands out by chance then loses against a place where several agree.
    """

    members: tuple[Member, ...]
    mirrored: bool = False
    smooth: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an empty committee and widths that mean nothing."""
        if not self.members:
            raise RecipeError("A committee needs at least one member.", "Name one or more trained runs.")
        if not 0.0 <= self.smooth < math.inf:
            raise RecipeError(f"Maps are smoothed by 0 cells or more; got {self.smooth}.", "Try 1.")

    def without_weights(self) -> Committee:
        """The same architecture with nothing to load."""
        return replace(self, members=tuple(member.without_weights() for member in self.members))

    def build(self, n_classes: int) -> CommitteeNetwork:
        """The network."""
        return CommitteeNetwork(self, n_classes)


class CommitteeNetwork(nn.Module):
    """`forward(images [b, c, *s] in [0, 1])` gives the mean Evidence; maps and attention where all members have them.

    Submodules are `members.0`, `members.1` ...
    """

    def __init__(self, config: Committee, n_classes: int) -> None:
        """Every member as its config builds it."""
        super().__init__()
        self.mirrored = config.mirrored
        self.smooth = config.smooth
        self.members = nn.ModuleList(member.build(n_classes) for member in config.members)

    def forward(self, images: Tensor) -> Evidence:
        """Ask every member, and for mirror images turn its maps back."""
        said: list[Evidence] = [member(images) for member in self.members]
        if self.mirrored:
            said += [_turned_back(member(images.flip(-1))) for member in self.members]
        with torch.autocast(images.device.type, enabled=False):
            logits = torch.stack([one.logits.float().log_softmax(dim=1) for one in said])
            maps = [one.maps.float() for one in said if one.maps is not None]
            shares = [one.extras["attention"].float() for one in said if "attention" in one.extras]
            extras = {}
            if len(shares) == len(said):
                extras["attention"] = smoothed(torch.stack(_on_one_grid(shares)).mean(dim=0), self.smooth)
            whole = len(maps) == len(said)
            return Evidence(
                logits=logits.logsumexp(dim=0) - math.log(len(said)),
                maps=smoothed(mean_map(_on_one_grid(maps)), self.smooth) if whole else None,
                extras=extras,
            )


def mean_map(maps: Sequence[Tensor]) -> Tensor:
    """The mean of maps [b, k, *m], each first given the mean spread (standard deviation over cells) of all of them.

    Equal maps come out as they are. A map without any spread (the first class of `one_map`) stays flat.
    """
    cells = torch.stack([one.flatten(2) for one in maps])
    centre = cells.mean(dim=3, keepdim=True)
    spread = (cells - centre).square().mean(dim=3, keepdim=True).sqrt()
    units = torch.where(spread > 0, (cells - centre) / spread.clamp_min(torch.finfo(cells.dtype).tiny), 0.0)
    mean = units.mean(dim=0) * spread.mean(dim=0) + centre.mean(dim=0)
    return mean.view(maps[0].shape)


def smoothed(maps: Tensor, cells: float) -> Tensor:
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


def _turned_back(evidence: Evidence) -> Evidence:
    maps = None if evidence.maps is None else evidence.maps.flip(-1)
    extras = {"attention": evidence.extras["attention"].flip(-1)} if "attention" in evidence.extras else {}
    return Evidence(evidence.logits, maps, extras)


def _on_one_grid(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps on the finest member's grid, so that no member loses places."""
    if not maps:
        return []
    finest = max((one.shape[2:] for one in maps), key=math.prod)
    mode = INTERPOLATION[len(finest)]
    return [
        one if one.shape[2:] == finest else interpolate(one, size=finest, mode=mode, align_corners=False)
        for one in maps
    ]
