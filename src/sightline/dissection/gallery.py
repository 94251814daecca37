"""What a unit responds to, as pictures: 25 cases at a glance, and the strongest five in detail (Engstler 2022, 3.3).

A contour and a translucent colour show where the unit is above its threshold; the slice of a volume is the one in which
this very unit responds most. A viewer of one page judges one unit: brightness is scaled within each case.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.dissection.responses import CONTOUR, Response, draw_contour, tint_units, trace_contours
from sightline.plots.canvas import INK, Sheet
from sightline.plots.overlay import Pixels, outline_regions, show
from sightline.plots.planes import PLANES, SAGITTAL, Cube, Plane, cut_plane, cut_regions
from sightline.plots.volume_panels import draw_slice, measure_physical
from sightline.structures.frame import Frame
from sightline.structures.regions import Region

COLLAGE = 25
STRONGEST = 5
COLUMNS = 5
SLICES = 8
SLICE_MARGIN = 4
_CELL, _GAP = 1.92, 0.12
_RIGHT, _WRONG = "#0b5394", "#a01010"
FOOT = (
    "Yellow contour: where the unit is above its threshold. Colour: how far, on a scale of each picture's own. Square: "
    "one faint cell, whole. Green outline: finding (expert). A network's inner workings, not a diagnosis."
)


@dataclass(frozen=True, eq=False)
class GalleryCase:
    """One case of a unit's gallery.

    Attributes:
        title: what the case is called.
        facts: what is known of it in a few words: class, level, grade.
        probability: of the class that is looked for.
        call: the call against the truth, e.g. `true call`, `missed`.
        right: whether that is right.
        response: of the unit, on the grid of `grey` (turned as the cube is).
        grey: [h, w] or [h, w, 3] in 0..1 of a picture; None of a volume.
        cube: of a volume; None of a picture.
        regions: an expert's marks, in source pixels or voxels.
        frame: of a picture's grid.
        close: pixels of the source around the place of highest response, its response, and the frame of that.
    """

    title: str
    facts: str
    probability: float
    call: str
    right: bool
    response: Response
    grey: Pixels | None = None
    cube: Cube | None = None
    regions: tuple[Region, ...] = ()
    frame: Frame | None = None
    close: tuple[Pixels, Response, Frame] | None = None


@dataclass(frozen=True)
class GalleryHead:
    """What stands above a unit's gallery.

    Attributes:
        unit: its number.
        standing: rank and scores in words.
        name: what experts call it, or empty.
        among: what the cases were chosen from, e.g. `cases of fracture`.
    """

    unit: int
    standing: str
    name: str = ""
    among: str = "cases"


def draw_collage(head: GalleryHead, cases: Sequence[GalleryCase]) -> bytes:
    """A PNG of up to 25 cases, strongest first, one slice each."""
    cases = cases[:COLLAGE]
    shapes = [_size_flat(case, _CELL) for case in cases]
    tall = max(height for height, _ in shapes)
    rows = -(-len(cases) // COLUMNS)
    top, row = 1.0, tall + 0.5
    sheet = Sheet(0.3 + COLUMNS * (_CELL + _GAP), top + rows * row + 0.48)
    _write_heading(sheet, head, f"the {len(cases)} {head.among} that it responds to most, strongest first")
    for n, (case, (height, width)) in enumerate(zip(cases, shapes, strict=True)):
        left, y = 0.15 + n % COLUMNS * (_CELL + _GAP), top + n // COLUMNS * row
        axes = sheet.axes(left + (_CELL - width) / 2, y + (tall - height) / 2, width, height)
        _draw_flat(axes, case, marks=False)
        _write_words(sheet, left, y + tall + 0.14, case, _CELL, n + 1)
    _draw_footer(sheet, marks=False)
    return sheet.png()


def draw_strongest(head: GalleryHead, cases: Sequence[GalleryCase]) -> bytes:
    """A PNG of up to five cases in detail: all slices and three planes of volumes; pictures plain, marked, close up."""
    cases = cases[:STRONGEST]
    return _draw_volumes(head, cases) if cases[0].cube is not None else _draw_pictures(head, cases)


def draw_thumbnail(case: GalleryCase, side_px: int = 160) -> Pixels:
    """The slice of a case under its colour and contour, `side_px` on its longer side: RGB [h, w, 3] in 0..1."""
    from PIL import Image, ImageDraw

    grey, level, above, ratio = _flatten_case(case)
    high, wide = (side_px, max(1, round(side_px / ratio))) if ratio >= 1 else (max(1, round(side_px * ratio)), side_px)
    picture = Image.fromarray((tint_units(_clip_grey(grey), level, above) * 255).astype(np.uint8))
    picture = picture.resize((wide, high), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for line in trace_contours(above):
        points = [(x * wide / grey.shape[1], y * high / grey.shape[0]) for y, x in line]
        pen.line(points, fill=CONTOUR, width=2)
    return np.asarray(picture, dtype=np.float32) / 255.0


def _draw_volumes(head: GalleryHead, cases: Sequence[GalleryCase]) -> bytes:
    small = (SLICES, 1.18)
    page = SLICES * (small[1] + 0.06)
    big = (page - 3 * _GAP) / 4
    blocks = []
    for case in cases:
        assert case.cube is not None
        slices = measure_physical(case.cube, small[1])[SAGITTAL.name]
        planes = measure_physical(case.cube, big)
        blocks.append((slices, planes, slices[0] + max(h for h, _ in planes.values()) + 0.95))
    sheet = Sheet(0.3 + page, 1.0 + sum(block[2] for block in blocks) + 0.42)
    _write_heading(
        sheet, head, f"the {len(cases)} strongest in detail: {SLICES} sagittal slices from right to left, 3 planes"
    )
    y = 1.0
    for n, (case, (slices, planes, height)) in enumerate(zip(cases, blocks, strict=True)):
        assert case.cube is not None
        _write_words(sheet, 0.15, y + 0.05, case, sheet.width - 0.3, n + 1, one_line=True)
        for k, x in enumerate(_choose_slices(case.cube.grey.shape[2])):
            axes = sheet.axes(0.15 + k * (small[1] + 0.06), y + 0.15, slices[1], slices[0])
            _draw_slice(axes, case, SAGITTAL, (0, 0, x), letters=k == 0)
            sheet.text(0.15 + k * (small[1] + 0.06), y + 0.15 + slices[0] + 0.13, f"{x + 1}", size=8)
        at, left = y + 0.15 + slices[0] + 0.25, 0.15
        a, b, c = case.response.through()
        for plane, plain in ((SAGITTAL, True), *((plane, False) for plane in PLANES)):
            tall, wide = planes[plane.name]
            axes = sheet.axes(left, at, wide, tall)
            if plain:
                draw_slice(
                    axes, np.ascontiguousarray(cut_plane(case.cube.grey, plane, (a, b, c))), plane, None, letters=True
                )
            else:
                _draw_slice(axes, case, plane, (a, b, c), letters=True, marks=True)
            words = f"{plane.name} {(a, b, c)[plane.normal] + 1}" + (", plain" if plain else "")
            sheet.text(left, at + tall + 0.14, words, size=8)
            left += wide + _GAP
        y += height
    _draw_footer(sheet, marks=True)
    return sheet.png()


def _draw_pictures(head: GalleryHead, cases: Sequence[GalleryCase]) -> bytes:
    side = 3.1
    row = side + 0.42
    sheet = Sheet(0.3 + 3 * (side + _GAP), 1.05 + len(cases) * row + 0.42)
    _write_heading(
        sheet,
        head,
        f"the {len(cases)} strongest in detail: as marked, where the unit responds, and close up",
    )
    for n, case in enumerate(cases):
        y = 1.05 + n * row
        _write_words(sheet, 0.15, y + 0.05, case, sheet.width - 0.3, n + 1, one_line=True)
        assert case.grey is not None and case.frame is not None
        height, width = _size_flat(case, side)
        plain = sheet.axes(0.15 + (side - width) / 2, y + 0.15, width, height)
        show(plain, case.grey)
        outline_regions(plain, _list_findings(case), case.frame)
        axes = sheet.axes(0.15 + side + _GAP + (side - width) / 2, y + 0.15, width, height)
        _draw_flat(axes, case, marks=False)
        if case.close is not None:
            pixels, response, frame = case.close
            axes = sheet.axes(0.15 + 2 * (side + _GAP), y + 0.15, side, side * pixels.shape[0] / pixels.shape[1])
            show(axes, pixels)
            draw_contour(axes, response.above)
            outline_regions(axes, _list_findings(case), frame, over_map=True)
    _draw_footer(sheet, marks=True)
    return sheet.png()


def _choose_slices(n: int) -> list[int]:
    """Eight slices from 4 before one end to 4 before the other (4 to 60 of 64, as released)."""
    margin = min(SLICE_MARGIN, (n - 1) // 2)
    return [round(float(x)) for x in np.linspace(margin, n - margin, SLICES).clip(0, n - 1)]


def _flatten_case(case: GalleryCase) -> tuple[Pixels, NDArray[np.float64], NDArray[np.bool_], float]:
    """The picture, or slice, that stands for a case; its level, where it is above, and height over width."""
    if case.cube is None:
        assert case.grey is not None
        return case.grey, case.response.level, case.response.above, case.grey.shape[0] / case.grey.shape[1]
    z, y, x = case.response.through()
    cubes = (case.cube.grey, case.response.level, case.response.above)
    parts = [cut_plane(values, SAGITTAL, (z, y, x)) for values in cubes]
    high, wide = measure_physical(case.cube, 1.0)[SAGITTAL.name]
    return np.ascontiguousarray(parts[0]), parts[1], parts[2], high / wide


def _size_flat(case: GalleryCase, side: float) -> tuple[float, float]:
    """Height and width in inches, the longer `side`."""
    ratio = _flatten_case(case)[3]
    return (side, side / ratio) if ratio >= 1 else (side * ratio, side)


def _draw_flat(axes: Any, case: GalleryCase, *, marks: bool) -> None:
    grey, level, above, _ = _flatten_case(case)
    picture = tint_units(_clip_grey(grey), level, above)
    if case.cube is not None:
        draw_slice(axes, picture, SAGITTAL, None, letters=False)
    else:
        show(axes, picture)
    draw_contour(axes, above)
    if marks and case.frame is not None:
        outline_regions(axes, _list_findings(case), case.frame, over_map=True)


def _draw_slice(
    axes: Any, case: GalleryCase, plane: Plane, through: tuple[int, int, int], *, letters: bool, marks: bool = False
) -> None:
    assert case.cube is not None
    grey = np.ascontiguousarray(cut_plane(case.cube.grey, plane, through))
    picture = tint_units(
        grey, cut_plane(case.response.level, plane, through), cut_plane(case.response.above, plane, through)
    )
    draw_slice(axes, picture, plane, through, letters=letters, ticks=marks)
    draw_contour(axes, cut_plane(case.response.above, plane, through))
    if marks:
        found = cut_regions(case.regions, case.cube.frame, plane, through, ("finding",))
        outline_regions(axes, found, Frame.of_image(grey.shape), over_map=True)


def _list_findings(case: GalleryCase) -> tuple[Region, ...]:
    return tuple(region for region in case.regions if region.tag.role == "finding")


def _clip_grey(grey: Pixels) -> Pixels:
    return grey if grey.ndim == 2 else grey.mean(axis=2, dtype=np.float32)


def _write_heading(sheet: Sheet, head: GalleryHead, words: str) -> None:
    name = f": {head.name}" if head.name else ""
    sheet.text(0.15, 0.3, f"unit {head.unit}{name}"[: int(sheet.width / 0.115)], size=14, weight="bold")
    sheet.text(0.15, 0.55, head.standing, size=10, color="#444444")
    sheet.text(0.15, 0.78, words, size=10, color="#444444")


def _write_words(
    sheet: Sheet, left: float, y: float, case: GalleryCase, width: float, n: int, *, one_line: bool = False
) -> None:
    colour = _RIGHT if case.right else _WRONG
    call = f"{case.call}, p {case.probability:.2f}"
    if one_line:
        sheet.text(left, y, f"{n}  {case.title}   {case.facts}", size=9.5, weight="bold", color=INK)
        sheet.text(left + width, y, call, size=9.5, color=colour, ha="right")
        return
    most = int(width / 0.075)
    sheet.text(left, y, f"{n}  {_shorten(case.title, most - 4)}", size=8.5, color=INK)
    sheet.text(left, y + 0.14, textwrap.shorten(case.facts, most + 2, placeholder=" …"), size=8, color="#444444")
    sheet.text(left, y + 0.28, call, size=8, color=colour)


def _shorten(title: str, most: int) -> str:
    """Both ends of a long name: the end tells the vertebrae of a series apart."""
    if len(title) <= most:
        return title
    end = most * 2 // 3
    return f"{title[: most - end - 1]}…{title[-end:]}"


def _draw_footer(sheet: Sheet, *, marks: bool) -> None:
    words = FOOT if marks else FOOT.replace(" Green outline: finding (expert).", "")
    for n, line in enumerate(reversed(textwrap.wrap(words, int(sheet.width / 0.063)))):
        sheet.text(0.15, sheet.height - 0.1 - 0.15 * n, line, size=8, color="#444444")
