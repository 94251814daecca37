"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, is_dataclass
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


# options that start processes, and that repeat trainings or cases, with the least that makes sense
_PROCESSES = {"workers": 0, "parallel": 1, "devices": 1}
_REPEATS = ("seeds", "trials", "trainings", "studies", "replicates")
MOST_REPEATS = 1_000_000


def require_sound(command: object) -> None:
    """Refuse what no command can do, before any work.

    A seed that no generator takes, more processes than the machine can bear, no training at all, results among the
    files of a cohort, or over a file that is read.

    Raises:
        SightlineError: one of them.
    """
    _require_numbers(command)
    options = vars(command)
    out = options.get("out") or options.get("destination")
    if isinstance(out, Path):
        _require_apart(out, (options.get("cohort"), *(options.get("inputs") or ())))
    if isinstance(options.get("out"), Path):
        from sightline.io.files import require_place_for_results

        read = (value for name, value in options.items() if name != "out")
        paths = [path for value in read for path in (value if isinstance(value, tuple) else (value,))]
        require_place_for_results(options["out"], given=paths)


def _require_numbers(command: object) -> None:
    from sightline.errors import RecipeError
    from sightline.io.progress import require_processes

    for name, value in vars(command).items():
        if is_dataclass(value):
            _require_numbers(value)
        if not isinstance(value, int):
            continue
        if name in _PROCESSES:
            require_processes(name, value, _PROCESSES[name])
        elif name == "seed" and not 0 <= value < 2**63:
            raise RecipeError(f"seed must be 0 or more, and below 2 ** 63; got {value}.", "Choose another seed.")
        elif name in _REPEATS and not 1 <= value <= MOST_REPEATS:
            raise RecipeError(
                f"{name} must be 1 or more, and at most {MOST_REPEATS}; got {value}.", f"Leave --{name} out if unsure."
            )


def require_other_folder(source: Path, destination: Path) -> None:
    """Refuse to write a part of a cohort over the cohort, or among its files: what is left out would be lost.

    Raises:
        LayoutError: it is the same folder, or one that holds its pictures or marks.
    """
    _require_apart(destination, (source,))


def _require_apart(out: Path, every: Iterable[object]) -> None:
    from sightline.errors import LayoutError

    place = Path(os.path.realpath(out))
    for read in every:
        root = Path(os.path.realpath(read)) if isinstance(read, Path) and (read / "images.csv").is_file() else None
        if root and (place == root or any(place.is_relative_to(root / part) for part in ("images", "regions"))):
            raise LayoutError(f"{out} lies among the files of the cohort {read}.", "Write to a folder outside of it.")


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
