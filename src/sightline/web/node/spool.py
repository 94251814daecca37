"""Files of the node, named by the SHA-256 of their bytes: no name of a patient, no UID ever becomes a path.

KEEP/incoming/     what is being received; emptied at start
KEEP/objects/      images, SHA256.dcm
KEEP/results/      results, SHA256.dcm
KEEP/work/         scratch folders of child processes; emptied at start
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from sightline.errors import SightlineError

NAME = re.compile(r"[0-9a-f]{64}")


class SpoolFull(SightlineError):
    """There is less space on the disk than the node keeps free."""


class Spool:
    """The folders of one node.

    Args:
        keep: the node's folder.
        least_free: bytes that stay free.
        least_free_share: share of the disk that stays free, 0 to 1.
    """

    def __init__(self, keep: Path, least_free: int = 0, least_free_share: float = 0.0) -> None:
        self.keep = keep
        self.least_free, self.least_free_share = least_free, least_free_share
        self.incoming, self.objects, self.results, self.work = (
            keep / name for name in ("incoming", "objects", "results", "work")
        )
        for folder in (keep, self.incoming, self.objects, self.results, self.work):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def empty_scratch(self) -> None:
        """Remove what an earlier process left half received or half judged; nothing of it was acknowledged."""
        for folder in (self.incoming, self.work):
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def measure_free(self) -> tuple[int, float]:
        """Free bytes of the disk, and their share of it."""
        usage = shutil.disk_usage(self.keep)
        return usage.free, usage.free / usage.total

    def has_room(self) -> bool:
        """Whether more may be received."""
        free, share = self.measure_free()
        return free >= self.least_free and share >= self.least_free_share

    def require_room(self) -> None:
        """Refuse to receive while the disk is low.

        Raises:
            SpoolFull: saying how much is free.
        """
        if not self.has_room():
            free, share = self.measure_free()
            raise SpoolFull(
                f"{self.keep}: {free / 1e9:.1f} GB ({share:.0%}) of the disk are free; "
                f"{self.least_free / 1e9:.1f} GB and {self.least_free_share:.0%} are kept free.",
                "Make room; the node goes on by itself.",
            )

    def scratch_folder(self, number: int) -> Path:
        """A new empty folder for a child process."""
        return Path(tempfile.mkdtemp(prefix=f"{number}-", dir=self.work))

    def path(self, sha256: str, *, result: bool = False) -> Path:
        """Where a file lies.

        Raises:
            ValueError: the name is no SHA-256.
        """
        if not NAME.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is no SHA-256")
        return (self.results if result else self.objects) / f"{sha256}.dcm"

    def hash_file(self, file: Path) -> str:
        """SHA-256 of a complete file, whose bytes are durable afterwards."""
        with file.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
        return sha256

    def adopt(self, file: Path, sha256: str, *, result: bool = False) -> Path:
        """Move a hashed file of the same disk into the spool; the folder it lies in now.

        Call it inside the transaction that writes the row, and give the folder to `Change.folders`: what cleaning
        removes is decided there too, and the name is durable before the row is.
        """
        place = self.path(sha256, result=result)
        if place.exists():
            file.unlink()
        else:
            file.replace(place)
        return place.parent

    def remove(self, sha256: str, *, result: bool = False) -> None:
        """Remove a file; one that is gone already is no error."""
        self.path(sha256, result=result).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
