"""Where and how a training or an evaluation runs: Lightning Fabric's device, precision and strategy."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from sightline.errors import RunError

STATE_EVERY_S = 60.0


@dataclass(frozen=True)
class Engine:
    """Where and how a training runs; none of it changes what is trained.

    Attributes:
        device: `auto`, `cpu`, `cuda` (Fabric's accelerator).
        devices: how many of them.
        strategy: Fabric's strategy word.
        workers: loader processes.
        quiet: no progress.
        state_every_s: seconds between state files within an epoch.
        features: folder to keep what frozen stages say of images, for all trainings alike; None computes it anew.
    """

    device: str = "auto"
    devices: int = 1
    strategy: str = "auto"
    workers: int = 0
    quiet: bool = False
    state_every_s: float = STATE_EVERY_S
    features: Path | None = None

    def __post_init__(self) -> None:
        """Refuse numbers of devices and processes that mean nothing."""
        if self.devices < 1 or self.workers < 0:
            raise RunError(
                f"An engine needs devices >= 1 and workers >= 0; got {self.devices} and {self.workers}.",
                "Use --devices 1 --workers 0.",
            )

    def fabric(self, precision: str) -> Fabric:
        """Fabric for this engine.

        Raises:
            RunError: this machine has no such device, or Fabric knows no such precision.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return Fabric(
                    accelerator=self.device,
                    devices=self.devices,
                    strategy=self.strategy,
                    precision=cast(Any, precision),
                )
            except (RuntimeError, ValueError, TypeError, MisconfigurationException) as error:
                raise RunError(
                    f"This machine cannot train on {self.devices} x {self.device!r} in {precision!r}: {error}",
                    "Choose another --device, --devices or --precision; `auto` takes what there is.",
                ) from None


class _InFloat32:
    """Mixed into a convolution's class: computes in float32, also under autocast."""

    def forward(self, images: Tensor) -> Tensor:
        """The convolution of images."""
        with torch.autocast(images.device.type, enabled=False):
            said: Tensor = super().forward(images.float())  # type: ignore[misc]  # the convolution it is mixed into
        return said


def compute_strided_in_float32(network: nn.Module) -> int:
    """Make every strided grouped convolution of a network compute in float32; how many there are.

    For CPUs in bfloat16: oneDNN has no fast kernel there for such a layer's gradient of the image (torch 2.15, AVX512
    with bfloat16: 50 ms in place of 2 for 16 images of 192 x 32 x 32). MobileNetV2 has four of them, and they ate half
    of a step. Names and weights stay as they are.
    """
    changed = 0
    for module in network.modules():
        grouped = isinstance(module, nn.Conv2d) and module.groups > 1 and max(module.stride) > 1
        if grouped and not isinstance(module, _InFloat32):
            kind: type[Any] = type(module)
            # a class of its own in place of a wrapped method: copies of the network keep it
            module.__class__ = type(f"Float32{kind.__name__}", (_InFloat32, kind), {})
            changed += 1
    return changed
