"""The seal of a finished run, and the lock of one that is trained: files that changed, and two trainings at once.

`SHA256SUMS` holds checksums of what decides an answer, in the format of `sha256sum -c`. Weights with a flipped bit,
weights of another run or classes in another order load without a complaint and answer wrongly; the seal tells.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sightline.errors import RunError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

SEAL = "SHA256SUMS"
LOCK = "LOCK"
_SEALED = ("recipe.json", "cohort.json", "weights.safetensors", "objective.safetensors")


def seal_text(folder: Path) -> str:
    """Checksums of what decides a run's answers, a line a file."""
    return "".join(f"{_sum(folder / name)}  {name}\n" for name in _SEALED if (folder / name).is_file())


def require_whole(folder: Path) -> None:
    """Refuse a finished run whose files are not those that the training left; runs without a seal pass.

    Raises:
        RunError: naming the file.
    """
    if not (folder / SEAL).is_file():
        return
    try:
        lines = (folder / SEAL).read_text(encoding="utf-8").splitlines()
        sums = {name: wanted for wanted, _, name in (line.partition("  ") for line in lines)}
        changed = [name for name, wanted in sums.items() if name in _SEALED and _sum(folder / name) != wanted]
    except (OSError, ValueError) as error:
        raise RunError(f"{folder} cannot be compared with its {SEAL} ({error}).", "Restore the run folder.") from None
    if changed:
        raise RunError(
            f"{folder}: {', '.join(changed)} changed after the training ({SEAL}): damaged, edited or exchanged.",
            "Restore the run folder; or delete its DONE and run the same train command to train again.",
        )


@contextmanager
def only_training(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder; the system lets go of it when a process dies, however it dies.

    Raises:
        RunError: another process trains into the folder just now.
    """
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{folder} is being trained by {_holder(file)}.",
                "Wait until it is done, or stop it; or choose another --out.",
            ) from None
        except OSError:
            pass  # a file system without locks
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read(100).strip() or "another process"


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
