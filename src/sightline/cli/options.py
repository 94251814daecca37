"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sightline.papers.overrides import Changes
    from sightline.training.engine import Engine

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class On:
    """Where a command runs."""

    device: Device = "auto"
    """Device to use."""
    devices: int = 1
    """Number of devices."""
    workers: int = 0
    """Processes that read pictures; 0 reads in the main process."""
    quiet: bool = False
    """No progress bar."""


def collect_changes(command: object) -> Changes:
    """What a person changes of recipes: every flag of a command that a recipe has, too."""
    from sightline.papers.overrides import Changes

    return Changes(**{f.name: getattr(command, f.name) for f in fields(Changes) if hasattr(command, f.name)})


def make_engine(on: On) -> Engine:
    """The engine that the options ask for."""
    from sightline.training.engine import Engine

    return Engine(device=on.device, devices=on.devices, workers=on.workers, quiet=on.quiet)
