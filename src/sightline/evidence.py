"""What goes into a network (Batch) and what comes out of it (Evidence).

Letters in shapes: b batch, k class, c channel, `*s` image grid, `*m` map grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sightline.errors import GeometryError
from sightline.frame import Frame


@dataclass(frozen=True)
class Batch:
    """Images with what is known of them.

    Attributes:
        images: float [b, c, *s], normalised.
        labels: int64 [b], class index.
        targets: uint8 [b, k or 1, *s], 1 where a region lies; one channel when all classes share it; None when
            no guidance is asked for.
        guided: bool [b, k], True where the class of that image has a region. All False rows are exempt from guidance.
        frames: one per image: where the image grid lies in the source picture.
        case_ids: one per image.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor | None
    guided: Tensor
    frames: tuple[Frame, ...]
    case_ids: tuple[str, ...]

    def __len__(self) -> int:
        """Number of images."""
        return int(self.images.shape[0])

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on a device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            targets=None if self.targets is None else self.targets.to(device, non_blocking=True),
            guided=self.guided.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class Evidence:
    """What a network says and where it looked.

    Attributes:
        logits: float [b, k].
        maps: float [b, k, *m], class maps before pooling (bias included), or None.
        extras: named tensors, e.g. `attention` [b, k, *m]: the share each map cell has in its class logit.
        window: float [b, 2, d] start and stop, as fractions of the image grid, of the part that the maps lie in;
            None means the whole image.
    """

    logits: Tensor
    maps: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    window: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse maps that do not belong to the logits."""
        if self.logits.ndim != 2:
            raise GeometryError(f"Logits must be [b, k]; got {tuple(self.logits.shape)}.")
        if self.maps is not None and self.maps.shape[:2] != self.logits.shape:
            raise GeometryError(f"Maps {tuple(self.maps.shape)} do not fit logits {tuple(self.logits.shape)}.")
