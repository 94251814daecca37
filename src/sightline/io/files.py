"""Names and atomic writing of files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import quote


def write_text(path: Path, text: str) -> None:
    """Write a text file in one atomic step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


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
