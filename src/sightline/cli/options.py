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


def holding(
    folder: Callable[[Any], Path], hold: Callable[[Path], AbstractContextManager[None]] | None = None
) -> Callable[[Callable[[Any], int]], Callable[[Any], int]]:
    """Let a command's `run` write alone: a second one that would write there is refused while it runs.

    Args:
        folder: what a command writes.
        hold: how; by default a lock inside the folder.
    """

    def decorate(run: Callable[[Any], int]) -> Callable[[Any], int]:
        @wraps(run)
        def alone(command: Any) -> int:
            from sightline.io.files import only_command

            with (hold or only_command)(folder(command)):
                return run(command)

        return alone

    return decorate


def beside(folder: Path) -> AbstractContextManager[None]:
    """Hold a folder that must be empty at first: the lock lies beside it."""
    from sightline.io.files import only_maker

    return only_maker(folder)


def collect_changes(command: object) -> Changes:
    """What a person changes of recipes: every flag of a command that a recipe has, too."""
    from sightline.papers.overrides import Changes

    return Changes(**{f.name: getattr(command, f.name) for f in fields(Changes) if hasattr(command, f.name)})


def make_engine(on: On) -> Engine:
    """The engine that the options ask for."""
    from sightline.training.engine import Engine

    return Engine(device=on.device, devices=on.devices, workers=on.workers, quiet=on.quiet)
