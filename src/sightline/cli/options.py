"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sightline.papers.overrides import Changes
    from sightline.training.engine import Engine

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class DeviceOptions:
    """Where a command runs."""

    device: Device = "auto"
    """Device to use."""
    devices: int = 1
    """Number of devices."""
    workers: int = 0
    """Processes that read pictures; 0 reads in the main process."""
    quiet: bool = False
    """No progress bar."""


def hold_folder(
    folder: Callable[[Any], Path], hold: Callable[[Path], AbstractContextManager[None]] | None = None
) -> Callable[[Callable[[Any], int]], Callable[[Any], int]]:
    """Let a command's `run` write alone: a second one that would write there is refused while it runs.

    Args:
        folder: what a command writes.
        hold: how; by default a lock inside the folder.
    """

    def decorate(run: Callable[[Any], int]) -> Callable[[Any], int]:
        @wraps(run)
        def run_alone(command: Any) -> int:
            from sightline.io.files import hold_folder

            with (hold or hold_folder)(folder(command)):
                return run(command)

        return run_alone

    return decorate


def hold_empty_folder(folder: Path) -> AbstractContextManager[None]:
    """Hold a folder that must be empty at first: the lock lies beside it."""
    from sightline.io.files import hold_new_folder

    return hold_new_folder(folder)


@dataclass(frozen=True)
class RecipeOptions:
    """What is often changed of a recipe, of one or of every row's."""

    steps: int | None = None
    """Steps per training, instead of the recipe's epochs."""
    epochs: int | None = None
    """Epochs per training."""
    size: int | None = None
    """Side of the square input in pixels; in a table it stands for the recipe's 512, and other sizes keep their
    ratio."""
    batch_size: int | None = None
    """Images per step."""
    backbone: str | None = None
    """Any timm backbone."""
    weights: str | None = None
    """Initial weights: a safetensors file or folder, `imagenet` (timm's download), or `none`."""


def collect_changes(*commands: object) -> Changes:
    """What a person changes of recipes: every flag of a command, or of a group of options, that a recipe has, too."""
    from sightline.papers.overrides import Changes

    return Changes(
        **{f.name: getattr(one, f.name) for one in commands for f in fields(Changes) if hasattr(one, f.name)}
    )


def make_engine(on: DeviceOptions) -> Engine:
    """The engine that the options ask for."""
    from sightline.training.engine import Engine

    return Engine(device=on.device, devices=on.devices, workers=on.workers, quiet=on.quiet)
