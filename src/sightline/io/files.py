"""Names of files, their digests, and writing them in one step."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sightline.errors import RunError


def write_text(path: Path, text: str) -> None:
    """Write a text file in one atomic step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def read_json(path: Path, remedy: str = "Restore the file.") -> dict[str, Any]:
    """The JSON object of a file that a run left.

    Raises:
        RunError: it does not read, or holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}).", remedy) from None
    if not isinstance(data, dict):
        raise RunError(f"{path} is damaged: expected a JSON object.", remedy)
    return data


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes: 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_name(text: str) -> str:
    """A file name without separators or surprises; long texts that differ at the end stay apart."""
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in text)
    # file systems count bytes, of which a letter may have four
    if len(name.encode()) > 120:
        mark = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:12]
        name = f"{name.encode()[:100].decode(errors='ignore')}-{mark}"
    return name if name.strip(".") else "case"


def unique_name(text: str, taken: set[str]) -> str:
    """A file name for a text that no other has, also where upper and lower case are the same."""
    name, n = safe_name(text), 1
    candidate = name
    while candidate.casefold() in taken:
        n += 1
        candidate = f"{name}_{n}"
    taken.add(candidate.casefold())
    return candidate


def file_name(text: str) -> str:
    """An id as a safe file name: everything but letters, digits and `_.-~ ` is percent-encoded."""
    return quote(text, safe=" ") if text.strip(".") else quote(text).replace(".", "%2E")
