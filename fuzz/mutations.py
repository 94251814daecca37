"""Ways to spoil bytes, tables and JSON documents, drawn from a seeded generator."""

from __future__ import annotations

import csv
import io
import json
import struct
import zlib
from collections.abc import Sequence
from copy import deepcopy
from random import Random
from typing import Any

EDGES = (0, 1, 2, 7, 8, 16, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
WORDS = (
    "", " ", "-1", "0", "1e309", "nan", "inf", "-inf", "1.5", "99999999999999999999", "..", "../../x", "/etc/passwd",
    "C:\\x", "a/b", "a\\b", "é", "e\u0301", "\u202e", "\u0000", "\n", '"', "'", ",", ";", "\t", "%2e%2e", "x" * 300,
    "x" * 5000, "True", "null", "[]", "{}", "=1+1", "\ufeff", "CON", ".", "𝔸", "١", "0x10", "1_000", "1,5", "a" * 255,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, -(10**30), 0.0, -0.5, 1e308, float("nan"), float("inf"), [], {},
    [[]], [None], [1, 2], [1, 2, 3], [[1, 2]], {"kind": "box"}, {"a": 1}, ["a"], *WORDS, "\ud800",
)  # fmt: skip


IN_PLACE = (0, 1, 2, 3, 8)


def spoil_bytes(data: bytes, random: Random, other: bytes = b"", head: int = 400) -> bytes:
    """One to four changes of bytes, most of them near the start, where headers are; half of the time in place."""
    changed = bytearray(data)
    ways = IN_PLACE if random.random() < 0.5 else range(10)
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        n = len(changed)
        if not n:
            break
        at = random.randrange(min(n, head)) if random.random() < 0.7 else random.randrange(n)
        what = random.choice(ways)
        if what == 0:
            changed[at] ^= 1 << random.randrange(8)
        elif what == 1:
            changed[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
        elif what in (2, 3):
            form = random.choice(("<H", ">H", "<I", ">I", "<i", ">q"))
            size = struct.calcsize(form)
            value = random.choice(EDGES)
            limit = 1 << (8 * size - (form[1] in "iq"))
            changed[at : at + size] = struct.pack(form, value % limit)
        elif what == 4:
            del changed[at : at + random.choice((1, 2, 4, 8, 64))]
        elif what == 5:
            changed[at:at] = random.randbytes(random.choice((1, 2, 4, 8, 64)))
        elif what == 6:
            piece = changed[at : at + random.choice((2, 8, 32, 256))]
            changed[at:at] = piece * random.choice((1, 1, 2, 50))
        elif what == 7:
            del changed[at:]
        elif what == 8:
            stop = at + random.choice((4, 16, 64))
            changed[at:stop] = bytes([random.choice((0, 0xFF))]) * (min(stop, n) - at)
        elif other:
            start = random.randrange(len(other))
            changed[at : at + 32] = other[start : start + random.choice((8, 32, 128))]
    return bytes(changed)


def mend_png(data: bytes) -> bytes:
    """Right checksums for every chunk that is whole, so that what is inside is looked at."""
    changed, at = bytearray(data), 8
    while at + 12 <= len(changed):
        end = at + 8 + int.from_bytes(changed[at : at + 4], "big")
        if end + 4 > len(changed):
            break
        changed[end : end + 4] = zlib.crc32(changed[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(changed)


def spoil_table(text: str, random: Random) -> bytes:
    """A CSV table with cells, rows or columns changed, or its bytes."""
    rows = list(csv.reader(io.StringIO(text)))
    for _ in range(random.choice((1, 1, 2, 3))):
        what, row = random.randrange(9), random.choice(rows) if rows else []
        if what < 4 and row:
            row[random.randrange(len(row))] = random.choice(WORDS)
        elif what == 4 and rows:
            rows.insert(random.randrange(len(rows) + 1), list(row))
        elif what == 5 and row:
            del row[random.randrange(len(row))]
        elif what == 6:
            row.append(random.choice(WORDS))
        elif what == 7 and rows:
            rows.remove(row)
        elif rows and rows[0]:
            column = random.randrange(len(rows[0]))
            for each in rows:
                del each[column : column + 1]
    out = io.StringIO()
    writer = csv.writer(
        out, delimiter=random.choice("," * 12 + ";\t|"), quoting=random.choice((0, 0, 0, 1)), escapechar="\\"
    )
    writer.writerows(rows)
    encoding = random.choice(("utf-8",) * 8 + ("utf-8-sig", "utf-16", "latin-1"))
    data = out.getvalue().encode(encoding, "replace")
    return spoil_bytes(data, random) if random.random() < 0.2 else data


def spoil_json(document: Any, random: Random) -> bytes:
    """A JSON document with values exchanged, removed or added, or its bytes."""
    changed = json.loads(json.dumps(document))
    for _ in range(random.choice((1, 1, 2, 3))):
        holder, key = _place(changed, random)
        if holder is None:
            changed = deepcopy(random.choice(VALUES))
            break
        what = random.randrange(8)
        if what < 5:
            holder[key] = deepcopy(random.choice(VALUES))
        elif what == 5:
            del holder[key]
        elif what == 6 and isinstance(holder, dict):
            holder[random.choice(WORDS)] = deepcopy(random.choice(VALUES))
        elif isinstance(holder, list):
            holder.extend(json.loads(json.dumps(holder[:3])))
    if random.random() < 0.02:
        return b"[" * 5000 + b"]" * 5000 if random.random() < 0.5 else b'{"a":' * 5000 + b"1" + b"}" * 5000
    data = json.dumps(changed).encode()
    if random.random() < 0.02 and len(data) > 2:  # deep inside
        data = data.replace(b"null", b"[" * 3000 + b"]" * 3000, 1)
    return spoil_bytes(data, random, head=len(data)) if random.random() < 0.15 else data


def _place(value: Any, random: Random) -> tuple[Any, Any]:
    """A random container and a key in it, deep ones as likely as shallow ones."""
    places: list[tuple[Any, Any]] = []
    left: list[Any] = [value]
    while left:
        holder = left.pop()
        keys: Sequence[Any] = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            places.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                left.append(holder[key])
    return random.choice(places) if places else (None, None)
