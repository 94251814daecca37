"""Inputs that once went wrong, each made from a sound one by the change that mattered; the tests read them all."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from fuzz.mutations import mend_png
from fuzz.seeds import SEEDS, Seed

DEEP = b"[" * 5000 + b"]" * 5000
HUGE = 10**400


def past_failures() -> Iterator[tuple[str, str, Seed]]:
    """(kind, what it is, the input)."""
    yield from _pictures()
    yield from _volumes_and_dicom()
    yield from _cohorts()
    yield from _coco()


def recipe_failures() -> Iterator[tuple[str, str, Seed]]:
    """The same of recipes and runs, which need torch to be read."""
    recipe = json.loads(SEEDS["run"]()[0]["recipe.json"])
    for what, text in (
        ("lists inside each other without end", DEEP),
        ("parts inside each other without end", b'{"a":' * 900 + b"1" + b"}" * 900),
        ("a weight that no float holds", json.dumps(recipe | {"weight": HUGE}).encode()),
    ):
        yield "recipe.json", what, {"recipe.json": text}
        yield "run folder", f"a recipe with {what}", SEEDS["run"]()[0] | {"recipe.json": text}
    for name in ("boxes.json", "calibration.json", "cohort.json"):
        yield "run folder", f"{name} without end", SEEDS["run"]()[0] | {name: DEEP}


def _pictures() -> Iterator[tuple[str, str, Seed]]:
    header = struct.pack(">IIBBBBB", 14_000, 14_000, 8, 6, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + b"\0\0\0\0"
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b""))
    )
    yield "PNG", "196 million pixels with alpha in 100 bytes", {"a.png": mend_png(b"\x89PNG\r\n\x1a\n" + chunks)}
    turned = [seed for seed in SEEDS["tiff"]() if _tag(seed["a.tif"], 274)]
    for number, seed in enumerate(turned):
        yield "TIFF", f"turned by a quarter ({number}): header and pixels must agree on the size", seed


def _tag(data: bytes, tag: int) -> bool:
    import io

    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return bool(image.getexif().get(tag, 1) != 1)


def _volumes_and_dicom() -> Iterator[tuple[str, str, Seed]]:
    plain = next(seed["a.nii"] for seed in SEEDS["nifti"]() if "a.nii" in seed)
    scaled = bytearray(plain)
    struct.pack_into("<ff", scaled, 112, 3e38, 0.0)
    yield "NIfTI", "a scale beyond what a float32 holds", {"a.nii": bytes(scaled)}
    empty = bytearray(plain)
    empty[352:] = bytes(len(plain) - 352)
    struct.pack_into("<ff", empty, 112, 1e20, 0.0)
    yield "NIfTI", "a scale beyond what an int32 holds, on zeros", {"a.nii": bytes(empty)}
    for syntax in (b"1.2.840.10008.1.2\n\n\x1b[2J\0", b"1.2.840.10008.1.2\xe2\x80\xae\0"):
        data = SEEDS["dicom"]()[0]["a.dcm"]
        yield (
            "DICOM radiograph",
            f"a transfer syntax {syntax!r}",
            {"a.dcm": data.replace(b"1.2.840.10008.1.2.1\0", (syntax + bytes(20))[:20])},
        )
    packed = bytearray(next(s["a.dcm"] for s in SEEDS["dicom"]() if b"1.2.840.10008.1.2.5" in s["a.dcm"]))
    packed[-859:-855] = b"\0\0\0\x7f"
    yield "DICOM radiograph", "a run of RLE past the last pixel: the decoder in Rust panics", {"a.dcm": bytes(packed)}


def _cohorts() -> Iterator[tuple[str, str, Seed]]:
    full = SEEDS["cohort"]()[0]
    records = json.loads(full["regions.json"])
    mask = next(i for i, r in enumerate(records) if r["kind"] == "mask")
    box = next(i for i, r in enumerate(records) if r["kind"] == "box")
    changes: list[tuple[str, int, str, Any]] = [
        ("a path that is a number", mask, "path", 7), ("a path that is a list", mask, "path", ["a"]),
        ("a path of half a letter", mask, "path", "\ud800"), ("a path with a zero byte", mask, "path", "a\0b"),
        ("a name of 300 letters", mask, "path", "x" * 300), ("a path without end", mask, "path", "x/" * 5000),
        ("a coordinate that no float holds", box, "start", [HUGE, 1]),
        ("a label's reader of 5,000 letters", mask, "reader", "x" * 5000),
        ("an infinite coordinate", box, "start", [float("inf"), 1]),
    ]  # fmt: skip
    for what, at, field, value in changes:
        changed = [dict(record) for record in records]
        changed[at][field] = value
        yield "regions.json", what, full | {"regions.json": json.dumps(changed).encode()}
    yield "regions.json", "lists inside each other without end", full | {"regions.json": DEEP}
    named = [dict(record) | {"reader": "é" * 300, "label": None} for record in records]
    yield (
        "regions.json",
        "readers whose names are longer than a file's",
        full | {"regions.json": json.dumps(named).encode()},
    )
    gaze = next(name for name in full if name.endswith(".npy"))
    yield (
        "masks and gaze of a cohort",
        "a header of npy without end",
        full | {gaze: full[gaze].replace(b"'fortran_order'", b"('ortran_order'")},
    )
    claimed = full[gaze].replace(b"(3, 4)", b"(99999999999, 4)").replace(b"         \n", b"\n")
    yield "masks and gaze of a cohort", "an array that claims 3 TB", full | {gaze: claimed}
    rows = full["images.csv"].replace(b"images/0.png", b"x" * 300 + b".png")
    yield "tables of a cohort", "a picture's name of 300 letters", full | {"images.csv": rows}


def _coco() -> Iterator[tuple[str, str, Seed]]:
    seed = SEEDS["coco"]()[0]
    document = json.loads(seed["annotations.json"])

    def with_(place: str, number: int, **fields: Any) -> dict[str, Any]:
        changed: dict[str, Any] = json.loads(json.dumps(document))
        changed[place][number] |= fields
        return changed

    huge = {"size": [10**6, 10**6], "counts": [10**12]}
    for what, changed in (
        ("an image_id that is a list", with_("annotations", 0, image_id=[1])),
        ("a category_id that is an object", with_("annotations", 0, category_id={})),
        ("a category's id that is a list", with_("categories", 0, id=[1])),
        ("a bbox that no float holds", with_("annotations", 0, bbox=[HUGE, 1, 2, 3])),
        ("runs that are infinite", with_("annotations", 1, segmentation={"size": [20, 16], "counts": [float("inf")]})),
        ("runs of a million million pixels", with_("annotations", 1, segmentation=huge)),
        ("runs of fractions", with_("annotations", 1, segmentation={"size": [20, 16], "counts": [319.5, 0.5]})),
        ("an image that is a text", document | {"images": ["a"]}),
        ("an image that is nothing", document | {"images": [None]}),
        ("categories that are a number", document | {"categories": 3}),
        ("an image's id that is an object", with_("images", 0, id={})),
    ):
        for kind in ("COCO", "COCO as marks"):
            yield kind, what, seed | {"annotations.json": json.dumps(changed).encode()}


def sound() -> Iterator[tuple[str, str, Seed]]:
    """Seeds that must be read: what is refused from the start would test nothing."""
    kinds = {"dicom": "DICOM radiograph", "ct": "CT series", "png": "PNG", "jpeg": "JPEG", "nifti": "NIfTI"}
    kinds |= {"cohort": "regions.json", "coco": "COCO", "predictions": "predictions", "pictures": "table of labels"}
    kinds["stow"] = "STOW body"
    for name, kind in kinds.items():
        for number, seed in enumerate(SEEDS[name]()):
            yield kind, f"sound seed {number}", seed
    assert np.all([len(SEEDS[name]()) for name in kinds])
