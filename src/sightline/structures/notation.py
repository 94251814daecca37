"""How the nouns are written where a digest is made of them: once, in words that no renaming of a class changes.

A digest names a cohort, a run, an evaluation that is reused. It must come out the same in ten years, so it is not made
of what Python happens to print. Each noun that takes part in one says here, or in a method `notation` of its own, the
word and the names of its fields as they are written; a class or an attribute may be called something else tomorrow.
The words are those of Python's notation of a dataclass, of which the digests of earlier versions were made.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sightline.errors import SightlineError
from sightline.structures.gaze import Gaze
from sightline.structures.regions import Box, Polygon, Region, Scribble
from sightline.structures.tag import Tag


class Notation(str):
    """A notation: it stands as it is, without quotation marks, where it is part of another."""

    def __repr__(self) -> str:
        """The text itself."""
        return str(self)


def write_fields(word: str, **fields: object) -> Notation:
    """One noun: `word(name=value, ...)`, in the order given; numbers keep every digit.

    Args:
        word: what it is called in digests, whatever its class is called.
        fields: numbers, texts, other notations, None, and tuples, lists and mappings of these.

    Raises:
        SightlineError: a value that has no notation.

    Example:
        >>> write_fields("Span", start=1.5, unit="mm", tag=write_fields("Tag", role="focus"))
        Span(start=1.5, unit='mm', tag=Tag(role='focus'))
    """
    for name, value in fields.items():
        _require_plain(value, f"{word}.{name}")
    return Notation(f"{word}({', '.join(f'{name}={value!r}' for name, value in fields.items())})")


def drop_unset(**fields: object) -> dict[str, object]:
    """Fields that came later: they are written where they say something, so that what is older keeps its digest."""
    return {name: value for name, value in fields.items() if value is not None}


def write_tag(tag: Tag) -> Notation:
    """A tag without its name, which came later: marks without one keep their digests."""
    return write_fields("Tag", role=tag.role, label=tag.label, reader=tag.reader)


def encode_region(region: Region) -> bytes:
    """What a cohort's fingerprint holds of a region; a mask in a file counts by the file's name and size."""
    tag = write_tag(region.tag)
    if isinstance(region, Box):
        return write_fields("Box", start=region.start, stop=region.stop, tag=tag).encode()
    if isinstance(region, Polygon):
        return write_fields("Polygon", parts=region.parts, tag=tag).encode()
    if isinstance(region, Scribble):
        return write_fields("Scribble", lines=region.lines, stroke_px=region.stroke_px, tag=tag).encode()
    if isinstance(region, Gaze):
        words = f"gaze {region.kind} {region.px_per_deg} {region.spread_px} {tag}"
        return words.encode() + b"".join(numbers.tobytes() for numbers in region.numbers)
    if isinstance(region.source, Path):
        size = region.source.stat().st_size if region.source.is_file() else -1
        more = "".join(f" {word}" for word in (region.value, region.tag.name) if word)
        return f"mask {region.source.name} {size} {tag}{more}".encode()
    return region.source.tobytes() + tag.encode()


def _require_plain(value: object, where: str) -> None:
    if isinstance(value, (tuple, list)):
        for one in value:
            _require_plain(one, where)
    elif isinstance(value, Mapping):
        for one in value.values():
            _require_plain(one, where)
    elif value is not None and not isinstance(value, (bool, int, float, str, np.generic)):
        raise SightlineError(f"{where} holds a {type(value).__name__}, which has no notation.", "Write its fields out.")
