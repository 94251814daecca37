"""Runs and cohorts kept in an object store (whatever fsspec opens: s3, gs, abfs), for machines that share no disk.

An object store takes and gives an object whole, and has no locks, no renaming and no fsync. So nothing in it is ever
changed: the name of an object ends in the digest of its bytes, an object whose bytes do not fit its name is not used,
and of several the newest that fits is taken. Two machines that train the same run send the same bytes.

    runs/RUN/done-TIME-DIGEST.tar       a finished run with its predictions
    runs/RUN/state-TIME-DIGEST.tar      a training on its way, from which another machine goes on
    cohorts/FILES/files-TIME-DIGEST.tar the files of a cohort
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
import shutil
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sightline.errors import FolderHeld, RunError
from sightline.io.files import (
    LOCK_NAME,
    contains_files,
    digest_file,
    fingerprint_file,
    hold_new_folder,
    write_new_folder,
)
from sightline.structures.case import Cohort
from sightline.structures.regions import Mask, Region
from sightline.training.run import FROM_CAPSULE, hold_run

# another process of this machine fetches the same folder: it is waited for
HELD_S = 600.0
_OBJECT = re.compile(r"(done|state|files)-(\d{20})-([0-9a-f]{64})\.tar")
_STATE = Path("state", "state.safetensors")


@dataclass(frozen=True)
class RunStore:
    """A place in an object store, by its URL; the protocol's package (s3fs for s3) has to be installed.

    Attributes:
        url: as fsspec has it, e.g. `s3://bucket/folder`.
        send_every_s: seconds between looks whether a training has saved a new state that is to be sent.

    Example:
        >>> store = RunStore("memory://sightline")
        >>> store.fetch_run(destination / "0123456789ab")  # nothing is kept yet
        False
    """

    url: str
    send_every_s: float = 30.0

    def __post_init__(self) -> None:
        """Refuse a password: run folders and errors name the command that was typed."""
        if "://" not in self.url:
            raise RunError(
                f"The store {self.url!r} is no URL.",
                "Write for example s3://bucket/folder; a folder that all machines see is file:///shared/folder.",
            )
        try:
            password = urlsplit(self.url).password
        except ValueError as error:
            raise RunError(
                f"The store {self.url!r} is no URL ({error}).", "Write for example s3://bucket/folder."
            ) from None
        if password is not None:
            raise RunError(
                "The store's URL holds a password, which every run folder would record.",
                "Leave it out: put credentials where fsspec or the protocol's package looks for them.",
            )

    def require_open(self) -> None:
        """Look into the store, and leave a word in it and take it away, before the work of hours.

        Raises:
            RunError: it cannot be read or written: no such protocol, no package for it, no network or no right.
        """
        self._list("runs", "done")
        name = f".opened-{secrets.token_hex(8)}"
        self.write_note(name, "")
        self.delete_note(name)

    @contextmanager
    def keep_run(self, folder: Path, needs: Iterable[Path] = ()) -> Iterator[None]:
        """Fetch what is known of a run, send its states while this block trains it, and at its end the finished run.

        Args:
            folder: of the run, named by its identity; one that holds files stays as it is, unless the run was finished
                elsewhere since it was begun here.
            needs: folders of the finished runs that it is made of or taught by.

        Raises:
            RunError: the store cannot be read or written.
        """
        for needed in needs:
            self.fetch_run(needed)
        fetched = self.fetch_run(folder)
        ended = threading.Event()
        sent = _read_change(folder / _STATE) if fetched else None
        sender = threading.Thread(target=self._send_states, args=(folder, ended, sent), daemon=True)
        sender.start()
        try:
            yield
        finally:
            ended.set()
            sender.join()
        self.send_run(folder)

    def fetch_run(self, folder: Path) -> bool:
        """Put the run of this name, finished or on its way, into a folder that holds nothing yet; whether one was kept.

        A run that was begun in the folder and finished elsewhere is taken too: the same run would be trained again.

        Raises:
            RunError: the store cannot be read.
            FolderHeld: a process trains into the folder.
        """
        kinds: tuple[str, ...] = ("done", "state")
        if folder.is_dir() and contains_files(folder):
            kinds = ("done",) if _is_begun(folder) else ()
        return any(self._fetch_newest(f"runs/{folder.name}", kind, folder) for kind in kinds)

    def send_run(self, folder: Path) -> None:
        """Keep a finished run as it now is; its states, and what was kept of it before, are deleted.

        Raises:
            RunError: the store cannot be written.
        """
        if (folder / "DONE").is_file():
            self._send(f"runs/{folder.name}", "done", folder, _list_files(folder))
            self._delete(f"runs/{folder.name}", "state", keep=0)

    def send_cohort(self, root: Path) -> str:
        """Keep the files of a cohort, once; the name by which `fetch_cohort` finds them.

        Raises:
            RunError: the store cannot be written.
        """
        files = _list_files(root)
        digest = hashlib.sha256()
        for name in files:
            digest.update(f"{name} {fingerprint_file(root / name)}\n".encode())
        place = f"cohorts/{digest.hexdigest()[:24]}"
        # one that was cut while it was sent would be taken by no node
        if self._measure_newest(place, "files") != _measure_packed(root, files):
            self._send(place, "files", root, files)
        return place.partition("/")[2]

    def fetch_cohort(self, name: str, folder: Path) -> None:
        """Put a cohort's files into a folder, unless they are there.

        Raises:
            RunError: the store does not hold it whole, or cannot be read.
        """
        if not (folder.is_dir() and contains_files(folder)) and not self._fetch_newest(
            f"cohorts/{name}", "files", folder
        ):
            raise RunError(f"{self.url} does not hold the cohort {name}.", "Start the table again: it sends the files.")

    def write_note(self, name: str, text: str) -> None:
        """Keep a line of text under a name.

        Raises:
            RunError: the store cannot be written.
        """
        with self._open("written") as (files, root):
            files.makedirs(root, exist_ok=True)
            files.pipe_file(f"{root}/{name}", text.encode())

    def read_note(self, name: str) -> str | None:
        """The text under a name; None where there is none.

        Raises:
            RunError: the store cannot be read.
        """
        with self._open("read") as (files, root):
            files.invalidate_cache()
            try:
                return bytes(files.cat_file(f"{root}/{name}")).decode()
            except FileNotFoundError:
                return None

    def delete_note(self, name: str) -> None:
        """Delete the text under a name, if there is one."""
        with self._open("written") as (files, root), suppress(FileNotFoundError):
            files.rm_file(f"{root}/{name}")

    @contextmanager
    def _open(self, doing: str) -> Iterator[tuple[Any, str]]:
        """The file system and the path in it; whatever goes wrong there is said in one line."""
        import fsspec

        try:
            files, root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            raise RunError(f"{self.url}: {error}", "Install the package that fsspec names, on every machine.") from None
        except ValueError as error:
            known = "s3://bucket/folder, gs://bucket/folder, abfs://container/folder, sftp://host/folder"
            raise RunError(
                f"{self.url} is no place that fsspec knows ({error}).", f"Write for example {known}."
            ) from None
        try:
            yield files, root.rstrip("/")
        except RunError:
            raise
        except Exception as error:  # every protocol's package raises its own
            words = " ".join(str(error).split())[:300]
            raise RunError(
                f"{self.url} cannot be {doing} ({type(error).__name__}: {words}).",
                "Check address, credentials and rights; then give the same command again, which goes on.",
            ) from None

    def _list(self, place: str, kind: str) -> list[str]:
        """Objects of a kind at a place, the newest first, by their names alone."""
        with self._open("read") as (files, root):
            files.invalidate_cache()
            try:
                found = files.ls(f"{root}/{place}", detail=False)
            except FileNotFoundError:
                return []
        names = (name.rpartition("/")[2] for name in found)
        return sorted((n for n in names if (fits := _OBJECT.fullmatch(n)) and fits[1] == kind), reverse=True)

    def _send(self, place: str, kind: str, folder: Path, files: Iterable[str]) -> None:
        """Keep files of a folder as one object, unless the newest of its kind is the same; older ones are deleted."""
        with tempfile.TemporaryDirectory(prefix="sightline-") as scratch:
            packed = Path(scratch) / "packed.tar"
            _pack_files(packed, folder, files)
            digest = digest_file(packed)
            newest = self._list(place, kind)[:1]
            is_kept = any(name.endswith(f"-{digest}.tar") for name in newest)
            if not is_kept or self._measure_newest(place, kind) != packed.stat().st_size:
                # after what another machine sent, whatever its clock says
                now = max([time.time_ns(), *(int(name.split("-")[1]) + 1 for name in newest)])
                with self._open("written") as (remote, root):
                    remote.makedirs(f"{root}/{place}", exist_ok=True)
                    remote.put_file(str(packed), f"{root}/{place}/{kind}-{now:020d}-{digest}.tar")
        self._delete(place, kind, keep=1)

    def _measure_newest(self, place: str, kind: str) -> int | None:
        """Bytes of the newest object of a kind; None where there is none."""
        for name in self._list(place, kind)[:1]:
            with self._open("read") as (files, root), suppress(FileNotFoundError):
                return int(files.info(f"{root}/{place}/{name}")["size"])
        return None

    def _delete(self, place: str, kind: str, keep: int) -> None:
        for name in self._list(place, kind)[keep:]:
            with self._open("written") as (files, root), suppress(FileNotFoundError):
                files.rm_file(f"{root}/{place}/{name}")

    def _fetch_newest(self, place: str, kind: str, folder: Path) -> bool:
        """Put the newest whole object of a kind into a new folder; whether there was one."""
        for name in self._list(place, kind):
            with tempfile.TemporaryDirectory(prefix="sightline-") as scratch:
                packed = Path(scratch) / "packed.tar"
                with self._open("read") as (files, root):
                    try:
                        files.get_file(f"{root}/{place}/{name}", str(packed))
                    except FileNotFoundError:  # another machine has sent a newer one, and deleted this
                        continue
                if not name.endswith(f"-{digest_file(packed)}.tar"):
                    continue  # cut on its way here or there
                folder.parent.mkdir(parents=True, exist_ok=True)
                with _hold_when_free(folder):
                    if folder.is_dir() and contains_files(folder):
                        if kind != "done" or not _is_begun(folder):
                            return True
                        with hold_run(folder):
                            shutil.rmtree(folder)
                    with write_new_folder(folder) as whole:
                        self._unpack(packed, whole, name)
                return True
        return False

    def _unpack(self, packed: Path, folder: Path, name: str) -> None:
        try:
            with tarfile.open(packed) as archive:
                archive.extractall(folder, filter="data")
        except (tarfile.TarError, OSError) as error:
            raise RunError(
                f"{self.url}: {name} cannot be unpacked here ({error}).", "Free some space; else delete the object."
            ) from None

    def _send_states(self, folder: Path, ended: threading.Event, sent: int | None) -> None:
        """Send each new state of a training; one that cannot be sent costs only what would be trained again."""
        while not ended.wait(self.send_every_s):
            now = _read_change(folder / _STATE)
            if now is not None and now != sent:
                with suppress(RunError, OSError):
                    self._send(f"runs/{folder.name}", "state", folder, _list_files(folder))
                    sent = now


def move_cohort(cohort: Cohort, root: Path) -> Cohort:
    """A cohort whose files lie in another folder now.

    Args:
        cohort: one in a folder, or a part of it.
        root: where the same files are.
    """

    def move(path: Path) -> Path:
        assert cohort.root is not None
        return root / path.relative_to(cohort.root) if path.is_relative_to(cohort.root) else path

    def move_region(region: Region) -> Region:
        if not isinstance(region, Mask):
            return region
        source = move(region.source) if isinstance(region.source, Path) else region.source
        return replace(region, source=source, on=None if region.on is None else move(region.on))

    cases = (replace(c, image=move(c.image), regions=tuple(map(move_region, c.regions))) for c in cohort)
    return replace(cohort, cases=tuple(cases), root=root)


def _is_begun(folder: Path) -> bool:
    """Whether a folder holds a training that is not finished; what came from a capsule is none."""
    ended = ("DONE", FROM_CAPSULE)
    return (folder / "cohort.json").is_file() and not any((folder / name).is_file() for name in ended)


def _list_files(folder: Path) -> list[str]:
    """Names of the files in a folder that are of lasting use, sorted: no locks, nothing half written or hidden.

    Pictures may lie in a folder that is linked to; a link that leads back to where it lies is not followed.
    """
    found = []
    for where, inner, names in os.walk(folder, followlinks=True):
        above = {os.path.realpath(folder) for folder in (Path(where), *Path(where).parents)}
        inner[:] = [
            name
            for name in inner
            if not name.startswith(".")
            and not name.endswith(".partial")
            and os.path.realpath(Path(where, name)) not in above
        ]
        found += [
            Path(where, name).relative_to(folder).as_posix()
            for name in names
            if not name.endswith((LOCK_NAME, ".partial")) and name != "LOCK" and not name.startswith(".")
        ]
    return sorted(found)


def _pack_files(packed: Path, folder: Path, files: Iterable[str]) -> None:
    """A tar file that holds names and bytes alone: no times, no owners, so that the same files give the same bytes."""
    with tarfile.open(packed, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in files:
            try:
                content = (folder / name).read_bytes()
            except FileNotFoundError:  # replaced or deleted by the training that goes on
                continue
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(content), 0o644
            archive.addfile(about, io.BytesIO(content))


def _measure_packed(folder: Path, files: Iterable[str]) -> int:
    """How many bytes `_pack_files` makes of files, from their names and sizes alone."""
    size = 0
    for name in files:
        about = tarfile.TarInfo(name)
        about.size = (folder / name).stat().st_size
        size += len(about.tobuf(tarfile.PAX_FORMAT)) + -(-about.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    # two empty blocks end it, and it is a whole number of records
    return -(-(size + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def _read_change(path: Path) -> int | None:
    """When a file was last written; None where it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


@contextmanager
def _hold_when_free(folder: Path) -> Iterator[None]:
    """Hold a folder that is to be fetched; another process of this machine that fetches it is waited for."""
    until = time.monotonic() + HELD_S
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(hold_new_folder(folder))
                break
            except FolderHeld:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        yield
