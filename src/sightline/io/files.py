"""Names of files, their digests, and writing them in one step."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock, Timeout

from sightline.errors import FolderHeld, LayoutError, RunError, SightlineError
from sightline.io.progress import hold_back_interrupt

# names that Windows keeps for itself, with any suffix
_RESERVED = frozenset(("con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))))
# file systems count bytes, and a suffix, a mark or a number may be added
LONGEST = 120
# of a whole number in JSON: a float holds it
MOST_DIGITS = 100
# of a folder that a command writes into, and of one that it has begun and not finished
LOCK_NAME, BEGUN = ".lock", ".unfinished"
# within a finished folder: where it is written anew, and where what was there waits until that is in its place
LEFTOVERS = AGAIN, FORMER = ".again", ".former"


def fingerprint_file(path: Path) -> str:
    """A digest of a file's size and of its first and last 64 KiB: quick to make, also of 100,000 pictures.

    Empty where the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            digest = hashlib.blake2b(str(size).encode() + b" " + file.read(65536), digest_size=12)
            file.seek(max(65536, size - 65536))
            digest.update(file.read())
    except OSError:
        return ""
    return digest.hexdigest()


@contextmanager
def hold_folder(folder: Path, doing: str = "written into", name: str = LOCK_NAME) -> Iterator[None]:
    """Hold a folder while a command writes into it; the system lets go when a process dies, however it dies.

    Raises:
        FolderHeld: another command holds it.
    """
    if folder.exists() and not folder.is_dir():
        raise LayoutError(f"{folder} is a file, not a folder.", "Choose another destination.")
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise FolderHeld(
            f"{folder} is being {doing} by {_describe_holder(path)}.",
            "Wait until it is done, or stop it; or choose another.",
        ) from None
    except (OSError, NotImplementedError):
        pass  # a file system without locks
    try:
        with suppress(OSError):  # who holds it is said for people alone
            path.write_text(f"process {os.getpid()}", encoding="utf-8")
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            error.filename = str(folder)  # a write does not say where the disk is full
        raise
    finally:
        with suppress(OSError):  # a file system that cannot be written
            path.unlink(missing_ok=True)
        lock.release()
        if new:
            with suppress(OSError):  # nothing was written
                folder.rmdir()


def hold_new_folder(folder: Path) -> AbstractContextManager[None]:
    """Hold a folder that must be new or empty when it is written: its lock lies beside it.

    Raises:
        FolderHeld: another command holds it.
    """
    folder = Path(os.path.realpath(folder))
    return hold_folder(folder.parent, f"written into ({folder.name})", f".{folder.name}{LOCK_NAME}")


def contains_files(folder: Path) -> bool:
    """Whether a folder holds anything but the lock of a command."""
    return any(not entry.name.endswith(LOCK_NAME) and entry.name != "LOCK" for entry in folder.iterdir())


def require_no_content(folder: Path) -> None:
    """Refuse a destination that is anything but a new or empty folder; nothing is made of it.

    Raises:
        LayoutError: it holds something, or is a file.
    """
    if folder.exists() and (not folder.is_dir() or contains_files(folder)):
        raise LayoutError(f"{folder} is not an empty folder.", "Choose a new one; nothing was written.")


def require_place_for_results(out: Path, writes: Iterable[str] = (), given: Iterable[object] = ()) -> None:
    """Refuse to write results among the files of a cohort, or over a file that is read for them.

    A run within the folder of a cohort is a place of its own.

    Args:
        out: folder or file to write.
        writes: names of files that are written into the folder.
        given: what a person gave; paths of files count.

    Raises:
        LayoutError: the cohort's tables, or the file, would be written over.
    """
    place = Path(os.path.realpath(out))
    for folder in (place, *place.parents):
        if (folder / "recipe.json").is_file():
            break
        if (folder / "cohort.json").is_file() and (folder / "images.csv").is_file():
            raise LayoutError(f"{out} lies among the files of the cohort {folder}.", "Write to a folder outside of it.")
    written = {place, *(place / name for name in writes)}
    for path in given:
        if isinstance(path, Path) and path.is_file() and Path(os.path.realpath(path)) in written:
            raise LayoutError(
                f"{path} is read, and would be written over by what goes to {out}.", "Write to another folder or file."
            )


@contextmanager
def write_new_folder(folder: Path) -> Iterator[Path]:
    """Write a folder that must be new or empty, whole or not at all: what is written within this block lies beside it,
    and takes its place at the end.

    Raises:
        LayoutError: it holds something, or is a file.
    """
    require_no_content(folder)
    whole = Path(os.path.realpath(folder))
    partial = whole.with_name(f"{whole.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if whole.exists():
            whole.rmdir()
        partial.replace(whole)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def rewrite_folder(folder: Path, head: str) -> Iterator[Path]:
    """Write a finished folder anew, or leave it as it is: what this block writes goes into a copy within the folder,
    made of links, and takes its place at the end. Files must be replaced in it, never opened and written over.

    Args:
        folder: the folder; one that is such a copy itself is written into.
        head: the file without which the folder counts as not finished; it comes last.
    """
    if folder.name == AGAIN:
        yield folder
        return
    again = folder / AGAIN
    drop_leftovers(folder)
    try:
        shutil.copytree(folder, again, symlinks=True, copy_function=_link, ignore=_list_own_names)
        yield again
        with hold_back_interrupt():
            _exchange(folder, again, head)
    except SightlineError as error:
        # the copy is nothing that a person has heard of
        error.message = error.message.replace(str(again), str(folder))
        raise
    finally:
        drop_leftovers(folder)


def drop_leftovers(folder: Path) -> None:
    """Remove what a process that died while it wrote a folder anew left in it."""
    for name in LEFTOVERS:
        shutil.rmtree(folder / name, ignore_errors=True)


def _list_own_names(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name in LEFTOVERS or name.endswith(LOCK_NAME)}


def _link(source: str, destination: str) -> None:
    try:
        os.link(source, destination, follow_symlinks=False)
    except OSError:  # a file system without links
        shutil.copy2(source, destination, follow_symlinks=False)


def _exchange(folder: Path, again: Path, head: str) -> None:
    former = folder / FORMER
    (folder / BEGUN).touch()
    former.mkdir()
    try:
        if os.path.lexists(folder / head):
            (folder / head).replace(former / head)
        for entry in sorted(again.iterdir(), key=lambda entry: entry.name == head):
            _put_in_place(entry, folder / entry.name, former / entry.name)
    except OSError:
        # what was there goes back, its head last
        for entry in sorted(former.iterdir(), key=lambda entry: entry.name == head):
            _put_in_place(entry, folder / entry.name, again / entry.name)
        mark_whole(folder)
        raise
    mark_whole(folder)


def _put_in_place(entry: Path, place: Path, aside: Path) -> None:
    """Move an entry to a place; what is there goes aside."""
    if os.path.lexists(place):
        place.replace(aside)
    entry.replace(place)


def require_empty(folder: Path) -> None:
    """Refuse a folder with content, but what the same command left in it when it was stopped; mark it as begun.

    Raises:
        LayoutError: it holds something, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise LayoutError(f"{folder} is a file, not a folder.", "Choose another destination.")
    if folder.exists() and contains_files(folder) and not (folder / BEGUN).exists():
        raise LayoutError(f"{folder} is not an empty folder.", "Choose a new or empty folder; nothing was written.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BEGUN).touch()


def mark_whole(folder: Path) -> None:
    """What `require_empty` began is complete."""
    (folder / BEGUN).unlink(missing_ok=True)


def _describe_holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")[:100].strip() or "another process"
    except OSError:
        return "another process"


def write_text(path: Path, text: str) -> None:
    """Write a text file in one atomic step."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file in one atomic step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError:  # a full disk, or a folder where the file belongs
        partial.unlink(missing_ok=True)
        raise


def parse_json(text: str, constant: Callable[[str], Any] | None = None) -> Any:
    """The document of a JSON text.

    Args:
        text: JSON.
        constant: what becomes of NaN and Infinity, which are no JSON; None takes them as Python does.

    Raises:
        ValueError: no JSON, an object with a name twice (of which most readers keep the last), a whole number that
            no float can hold, or a text with half a letter (a lone surrogate), which no file can hold.
        RecursionError: nested without end.
    """
    data = json.loads(
        text, object_pairs_hook=_refuse_repeated_names, parse_int=_parse_whole_number, parse_constant=constant
    )
    if "\\ud" in text or "\\uD" in text:
        json.dumps(data, ensure_ascii=False).encode()
    return data


def _parse_whole_number(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def _refuse_repeated_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice[:60]!r} stands twice in one object")
    return found


def read_json(path: Path, remedy: str = "Restore the file.") -> dict[str, Any]:
    """The JSON object of a file that a run left.

    Raises:
        RunError: it does not read, or holds something else.
    """
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}).", remedy) from None
    if not isinstance(data, dict):
        raise RunError(f"{path} is damaged: expected a JSON object.", remedy)
    return data


def read_run_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a csv file that a run left, such as `history.csv`; none where there is no such file.

    Raises:
        RunError: it is damaged.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{path} is damaged ({error}).", "Restore the run folder.") from None


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes: 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_safe_name(text: str) -> str:
    """A file name without separators or surprises; long texts that differ at the end stay apart."""
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in unicodedata.normalize("NFC", text))
    if not name.strip("."):
        return "case"
    if name.split(".")[0].casefold() in _RESERVED:
        name = f"_{name}"
    if name.endswith("."):
        name = f"{name.rstrip('.')}_"
    return _shorten_name(name, text)


def _shorten_name(name: str, text: str) -> str:
    """A name of at most LONGEST bytes, of which a letter may have four; those of other texts stay apart."""
    if len(name.encode()) <= LONGEST:
        return name
    mark = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:12]
    return f"{name.encode()[: LONGEST - 20].decode(errors='ignore').rstrip('%')}-{mark}"


def make_unique_name(text: str, taken: set[str]) -> str:
    """A file name for a text that no other has, also where upper and lower case are the same."""
    name, n = make_safe_name(text), 1
    candidate = name
    # some file systems take a letter and its accent, or upper and lower case, for the same
    while (key := unicodedata.normalize("NFKC", candidate).casefold()) in taken:
        n += 1
        candidate = f"{name}_{n}"
    taken.add(key)
    return candidate


def make_file_name(text: str) -> str:
    """An id as a safe file name: everything but letters, digits and `_.-~ ` is percent-encoded."""
    name = quote(os.fsencode(text), safe=" ") if text.strip(".") else quote(text).replace(".", "%2E")
    if name != name.strip() or name.endswith("."):
        # a blank or a dot at an end does not come back from tables, nor from Windows
        name = name.replace(" ", "%20").removesuffix(".") + ("%2E" if name.endswith(".") else "")
    if name.split(".")[0].casefold() in _RESERVED:
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return _shorten_name(name, text)


def find_linked_folders(path: Path) -> list[Path]:
    """Links to folders under a folder, hidden ones apart, whose content lies elsewhere and so is not found in it.

    They are not followed, by `find_images` or in a DICOM series; who lists files lists them, so that nothing is passed
    over.
    """
    root = os.path.realpath(path)
    links: list[Path] = []
    for folder, inner, _ in os.walk(path):
        inner[:] = [name for name in inner if not name.startswith(".")]
        linked = (link for name in inner if (link := Path(folder, name)).is_symlink())
        links += (link for link in linked if not Path(os.path.realpath(link)).is_relative_to(root))
    return sorted(links)
