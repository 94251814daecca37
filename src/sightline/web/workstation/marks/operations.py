"""What an operation may hold. Everything that comes from a browser is checked here before it is stored."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sightline.errors import SightlineError

KINDS = (
    "add", "change", "remove", "restore", "accept", "reject", "label", "nothing", "confidence", "quality", "comment",
    "copy", "submit", "reopen", "shown",
)  # fmt: skip
MARK_KINDS = ("box", "polygon", "scribble", "mask")
SOURCES = ("drawn", "copied", "converted", "accepted", "edited", "imported", "merged")
# of the lines and strokes of a mark together, as the page writes them: fewer bytes than a request may have
POINTS_AT_MOST = 200_000
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_GEOMETRY = {
    "box": ("start", "stop"),
    "polygon": ("parts",),
    "scribble": ("lines", "stroke_px"),
    "mask": ("size", "counts"),
}
_COMMON = ("id", "kind", "role", "label", "name", "strokes", "source", "from")
_ON_AN_IMAGE = ("add", "change", "remove", "restore", "accept", "reject", "copy")


class OperationRefused(SightlineError):
    """An operation that cannot be stored.

    Attributes:
        status: as of HTTP.
        field: which part of it.
        op: id of the operation, where it is one of a batch.
    """

    def __init__(self, message: str, remedy: str = "", *, field: str = "", status: int = 422) -> None:
        super().__init__(message, remedy)
        self.field, self.status, self.op = field, status, ""


@dataclass(frozen=True)
class MarkContext:
    """What an operation is checked against.

    Attributes:
        shapes: of the images of the read's study, by key; None where the size is not known.
        classes: class names of the task.
        roles: of marks that the task allows.
        flags: quality flags that may be set.
    """

    shapes: Mapping[str, tuple[int, ...] | None]
    classes: Sequence[str]
    roles: Sequence[str]
    flags: Sequence[str]


def check_operation(op: Mapping[str, Any], around: MarkContext) -> None:
    """Refuse an operation that is malformed, or about something else than this read.

    Raises:
        OperationRefused: with the field at fault.
    """
    for name in ("id", "client"):
        if not isinstance(op.get(name), str) or not _UUID.fullmatch(op[name]):
            raise OperationRefused(
                f"{name} must be a uuid in lower case.", "Make it with crypto.randomUUID().", field=name
            )
    if not _is_whole(op.get("n"), 0, 2**31 - 1):
        raise OperationRefused("n must be a whole number from 0.", "Count operations of a client.", field="n")
    for name in ("at_ms", "mono_ms"):
        if not _is_finite(op.get(name)):
            raise OperationRefused(f"{name} must be a finite number of milliseconds.", "", field=name)
    kind, body, image = op.get("kind"), op.get("body"), op.get("image")
    if kind not in KINDS or kind == "reopen":
        raise OperationRefused(
            f"{kind!r} is no kind of operation.", f"Known: {', '.join(KINDS[:-2])}, shown.", field="kind"
        )
    if not isinstance(body, dict):
        raise OperationRefused("body must be an object.", "", field="body")
    if image is not None and (not isinstance(image, str) or image not in around.shapes):
        raise OperationRefused("There is no such image in this study.", "", field="image", status=404)
    if kind in _ON_AN_IMAGE and image is None:
        raise OperationRefused(f"{kind} needs an image.", "", field="image")
    for word in ("undoes", "redoes"):
        if word in body and not (isinstance(body[word], str) and _UUID.fullmatch(body[word])):
            raise OperationRefused(f"{word} names an operation by its uuid.", "", field=word)
    _check_body(kind, body, around, None if image is None else around.shapes[image])


def _check_body(kind: str, body: Mapping[str, Any], around: MarkContext, shape: tuple[int, ...] | None) -> None:
    if kind in ("add", "copy", "accept"):
        check_mark(body.get("mark"), around, shape)
    if kind == "copy":
        _require_uuid(body.get("from"), "from")
    if kind in ("accept", "reject"):
        _require_uuid(body.get("proposal"), "proposal")
    if kind in ("change", "remove", "restore"):
        _require_uuid(body.get("mark"), "mark")
    if kind == "change":
        _check_change(body.get("set"), around, shape)
    if kind == "label" and body.get("label") is not None and body["label"] not in around.classes:
        raise OperationRefused(
            f"{body['label']!r} is no class.", f"Classes: {', '.join(around.classes)}.", field="label"
        )
    if kind == "nothing" and not isinstance(body.get("value"), bool):
        raise OperationRefused("nothing is true or false.", "", field="value")
    if kind == "confidence":
        value = body.get("value")
        if value is not None and not (_is_finite(value) and 0 <= value <= 100):
            raise OperationRefused("A confidence lies from 0 to 100.", "", field="value")
    if kind == "quality":
        flags = body.get("flags")
        if not isinstance(flags, list) or any(flag not in around.flags for flag in flags) or len(flags) > 20:
            raise OperationRefused("Unknown quality flag.", f"Known: {', '.join(around.flags)}.", field="flags")
    if kind == "comment" and (not isinstance(body.get("text"), str) or len(body["text"]) > 10_000):
        raise OperationRefused("A comment is a text of at most 10,000 characters.", "", field="text")
    if kind == "shown":
        ids = body.get("ids", [])
        if not isinstance(body.get("what"), str) or len(body["what"]) > 40 or not _are_short_texts(ids):
            raise OperationRefused("shown needs what was shown and its ids.", "", field="what")


def _check_change(change: Any, around: MarkContext, shape: tuple[int, ...] | None) -> None:
    if not isinstance(change, dict) or not change:
        raise OperationRefused("change needs a set of fields.", "", field="set")
    _require_few_points(change)
    known = {*_COMMON, *(name for names in _GEOMETRY.values() for name in names)} - {"id"}
    strange = sorted(set(change) - known)
    if strange:
        raise OperationRefused(f"A mark has no field {strange[0]!r} that can be changed.", "", field=str(strange[0]))
    touches = [kind for kind, names in _GEOMETRY.items() if set(names) & set(change)]
    if "kind" in change or touches:
        kind = change.get("kind") or touches[0]
        if (
            kind not in MARK_KINDS
            or any(t != kind for t in touches)
            or not set(_GEOMETRY[kind]) <= {"stroke_px", *change}
        ):
            raise OperationRefused("A change of shape states the whole new shape.", "", field="set")
        if "lines" not in change and kind == "scribble":
            # the width alone
            if not (_is_finite(change.get("stroke_px")) and 0 < change["stroke_px"] <= 10_000):
                raise OperationRefused("A width is a positive length.", "", field="stroke_px")
        else:
            check_shape({"stroke_px": 1.0, **change, "kind": kind}, shape)
    _check_words(change, around)


def check_mark(mark: Any, around: MarkContext, shape: tuple[int, ...] | None) -> None:
    """Refuse a mark that is not one: another kind, no shape, a role or class that the task has not.

    Raises:
        OperationRefused: with the field at fault.
    """
    if not isinstance(mark, dict):
        raise OperationRefused("A mark must be an object.", "", field="mark")
    _require_uuid(mark.get("id"), "id")
    kind = mark.get("kind")
    if kind not in MARK_KINDS:
        raise OperationRefused(f"{kind!r} is no kind of mark.", f"Known: {', '.join(MARK_KINDS)}.", field="kind")
    _require_few_points(mark)
    strange = sorted(set(mark) - set(_COMMON) - set(_GEOMETRY[kind]))
    if strange:
        raise OperationRefused(f"A {kind} has no field {strange[0]!r}.", "", field=str(strange[0]))
    if mark.get("role") not in around.roles:
        problem = f"The role {mark.get('role')!r} is not among this task's."
        raise OperationRefused(problem, f"Roles: {', '.join(around.roles)}.", field="role")
    _check_words(mark, around)
    check_shape(mark, shape)


def _check_words(mark: Mapping[str, Any], around: MarkContext) -> None:
    if mark.get("label") is not None and mark["label"] not in around.classes:
        raise OperationRefused(
            f"{mark['label']!r} is no class.", f"Classes: {', '.join(around.classes)}.", field="label"
        )
    if "role" in mark and mark["role"] not in around.roles:
        raise OperationRefused(f"The role {mark['role']!r} is not among this task's.", "", field="role")
    if not isinstance(mark.get("name", ""), str) or len(mark.get("name", "")) > 100:
        raise OperationRefused("A name has at most 100 characters.", "", field="name")
    if mark.get("source", "drawn") not in SOURCES:
        raise OperationRefused(
            f"{mark['source']!r} is no source of marks.", f"Known: {', '.join(SOURCES)}.", field="source"
        )
    if mark.get("from") is not None:
        _require_uuid(mark["from"], "from")
    strokes = mark.get("strokes", [])
    if not isinstance(strokes, list):
        raise OperationRefused("strokes must be a list.", "", field="strokes")
    for stroke in strokes:
        points = stroke.get("points") if isinstance(stroke, dict) else None
        if not isinstance(points, list) or not _is_finite(stroke.get("t0_ms", 0)):
            raise OperationRefused("A stroke has points and a start.", "", field="strokes")
        if not isinstance(stroke.get("pointer", ""), str) or len(stroke.get("pointer", "")) > 20:
            raise OperationRefused("A pointer is a word.", "", field="strokes")
        if any(not isinstance(p, list) or len(p) != 4 or not all(_is_finite(x) for x in p) for p in points):
            raise OperationRefused("A point of a stroke is [row, column, ms, pressure].", "", field="strokes")


def check_shape(mark: Mapping[str, Any], shape: tuple[int, ...] | None) -> None:
    """Refuse a shape that is none, or that lies outside by more than the picture's size.

    Raises:
        OperationRefused: with the field at fault; 413 for a mask of too many runs.
    """
    kind = mark["kind"]
    axes = 2 if shape is None else len(shape)
    if kind == "box":
        start, stop = _require_point(mark.get("start"), axes, "start"), _require_point(mark.get("stop"), axes, "stop")
        if any(b <= a for a, b in zip(start, stop, strict=True)):
            raise OperationRefused("A box has a size on every axis.", "", field="stop")
        _require_near([start, stop], shape)
        return
    if kind == "mask":
        _check_runs(mark, shape)
        return
    if axes != 2:
        raise OperationRefused(
            f"A {kind} cannot be drawn on a volume.",
            "Use a box or a mask: lines are drawn on two axes only.",
            field="kind",
        )
    name, fewest = ("parts", 3) if kind == "polygon" else ("lines", 1)
    parts = mark.get(name)
    if not isinstance(parts, list) or not parts or any(not isinstance(part, list) for part in parts):
        raise OperationRefused(f"A {kind} has {name}.", "", field=name)
    if any(len(part) < fewest for part in parts):
        raise OperationRefused(f"Each of the {name} of a {kind} has {fewest} points or more.", "", field=name)
    _require_near([_require_point(p, 2, name) for part in parts for p in part], shape)
    if kind == "scribble" and not (_is_finite(mark.get("stroke_px")) and 0 < mark["stroke_px"] <= 10_000):
        raise OperationRefused("A width is a positive length.", "", field="stroke_px")


def _require_few_points(mark: Mapping[str, Any]) -> None:
    strokes = mark.get("strokes")
    lines = [mark.get("parts"), mark.get("lines")]
    drawn = (
        [stroke.get("points") for stroke in strokes if isinstance(stroke, dict)] if isinstance(strokes, list) else []
    )
    parts = [*drawn, *(part for line in lines if isinstance(line, list) for part in line)]
    found = sum(len(part) for part in parts if isinstance(part, list))
    if found > POINTS_AT_MOST:
        problem = f"A mark has at most {POINTS_AT_MOST:,} points in its lines and strokes together; got {found:,}."
        raise OperationRefused(problem, "Draw it as several marks.", field="strokes" if drawn else "lines", status=413)


def _check_runs(mark: Mapping[str, Any], shape: tuple[int, ...] | None) -> None:
    size, counts = mark.get("size"), mark.get("counts")
    if not isinstance(size, list) or not all(_is_whole(n, 1, 2**31) for n in size) or len(size) not in (2, 3):
        raise OperationRefused("A mask states its size.", "", field="size")
    if shape is not None and tuple(size) != tuple(shape):
        raise OperationRefused(f"The mask is of {size}, its image of {list(shape)}.", "", field="size")
    if not isinstance(counts, list) or not all(_is_whole(n, 0, 2**40) for n in counts):
        raise OperationRefused("A mask's counts are whole numbers.", "", field="counts")
    if len(counts) > 2_000_000:
        raise OperationRefused("The mask has too many runs.", "", field="counts", status=413)
    if sum(counts) != math.prod(size):
        raise OperationRefused("The runs of the mask do not fill its size.", "", field="counts")
    if sum(counts[1::2]) == 0:
        raise OperationRefused("The mask has no pixel.", "Take the mark away instead.", field="counts")


def _require_near(points: Sequence[Sequence[float]], shape: tuple[int, ...] | None) -> None:
    for point in points:
        for x, n in zip(point, shape or (), strict=False):
            if not -n <= x <= 2 * n:
                raise OperationRefused(
                    "The mark lies far outside the picture.", "Draw it on the picture.", field="geometry"
                )


def _require_point(value: Any, axes: int, field: str) -> list[float]:
    if not isinstance(value, list) or len(value) != axes or not all(_is_finite(x) for x in value):
        raise OperationRefused(f"A point is a list of {axes} finite numbers.", "", field=field)
    return value


def _require_uuid(value: Any, field: str) -> None:
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise OperationRefused(f"{field} must be a uuid in lower case.", "", field=field)


def _are_short_texts(values: Any) -> bool:
    return isinstance(values, list) and len(values) <= 1000 and all(isinstance(v, str) and len(v) <= 64 for v in values)


def _is_finite(value: Any) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15 and math.isfinite(value)
    )


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
