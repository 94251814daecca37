"""Where and how a training or an evaluation runs: Lightning Fabric's device, precision and strategy."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, cast

from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

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
    """

    device: str = "auto"
    devices: int = 1
    strategy: str = "auto"
    workers: int = 0
    quiet: bool = False
    state_every_s: float = STATE_EVERY_S

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
