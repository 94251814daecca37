"""Annotation styles from one another: tight boxes, skeleton scribbles, masks, margins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sightline.data.targets.drawing_styles import convert_style, dilate, rasterise_region, trace_midlines
from sightline.errors import GeometryError
from sightline.structures.frame import Frame
from sightline.structures.regions import Box, Mask, Polygon, Scribble
from sightline.structures.tag import Tag

SHAPE = (40, 30)
TAG = Tag("finding", "fracture", "a")
BLOB = np.zeros(SHAPE, bool)
BLOB[5:30, 10:15] = True
REGIONS = [
    Mask(BLOB, TAG),
    Polygon((((5.25, 4.0), (5.25, 9.5), (30.0, 20.0)),), TAG),
    Box((2.5, 3.0), (20.0, 9.25), TAG),
    Scribble((((4.0, 5.0), (20.0, 8.0), (22.5, 20.0)),), 2.0, TAG),
]


@pytest.mark.parametrize("region", REGIONS, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize(("style", "kind"), [("mask", Mask), ("box", Box), ("scribble", Scribble)])
def test_every_region_has_every_style_and_keeps_its_tag(region, style, kind):
    changed = convert_style(region, style, SHAPE)
    assert isinstance(changed, kind) and changed.tag == TAG
    assert convert_style(changed, style, SHAPE) is changed
    if not isinstance(region, Mask) or style != "mask":
        frame = Frame.of_image(SHAPE)
        before, after = region.draw(frame) > 0, changed.draw(frame) > 0
        assert (before & after).any()
        if style == "mask":
            assert np.array_equal(before, after)
        elif style == "box" and not isinstance(region, Box):
            rows, columns = np.nonzero(before)
            tight = np.zeros(SHAPE, bool)
            tight[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
            assert np.array_equal(after, tight)


def test_boxes_are_tight_and_continuous():
    assert convert_style(REGIONS[0], "box", SHAPE) == Box((5.0, 10.0), (30.0, 15.0), TAG)
    assert convert_style(REGIONS[1], "box", SHAPE) == Box((5.25, 4.0), (30.0, 20.0), TAG)


def test_the_scribble_of_a_bar_is_its_mid_line():
    scribble = convert_style(REGIONS[0], "scribble", SHAPE, stroke_px=4.0)
    (line,) = scribble.lines
    assert scribble.stroke_px == 4.0
    rows, columns = np.array(line).T
    # the bar's axis is column 12.5; a skeleton may fork by half the width at its ends
    assert rows.min() <= 8.5 and rows.max() >= 26.5
    assert np.abs(columns - 12.5).max() <= 2.0 and 12.5 in columns


def test_the_scribble_of_a_bend_follows_it():
    rows, columns = np.mgrid[:80, :80]
    radius = np.hypot(rows + 0.5, columns + 0.5)
    bow = (radius > 45) & (radius < 55)
    (line,) = trace_midlines(bow)
    assert np.abs(np.hypot(*np.array(line).T) - 50).max() < 3.0
    length = np.linalg.norm(np.diff(np.array(line), axis=0), axis=1).sum()
    assert length > 0.85 * 50 * np.pi / 2


def test_parts_and_rings_have_a_line_each():
    pixels = np.zeros((40, 40), bool)
    pixels[2:4, 2:20] = True
    rows, columns = np.mgrid[:40, :40]
    distance = np.hypot(rows - 25, columns - 20)
    pixels |= (distance > 6) & (distance < 10)
    lines = trace_midlines(pixels)
    assert len(lines) == 2
    ring = np.array(lines[1]) - [25.5, 20.5]
    assert np.abs(np.hypot(*ring.T) - 8).max() < 2.5


def test_one_pixel_is_a_scribble_of_one_point():
    pixels = np.zeros(SHAPE, bool)
    pixels[7, 3] = True
    assert convert_style(Mask(pixels), "scribble", SHAPE).lines == (((7.5, 3.5),),)
    assert convert_style(Mask(pixels), "box", SHAPE) == Box((7.0, 3.0), (8.0, 4.0))


@given(arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14))))
@settings(max_examples=60, deadline=None)
def test_scribbles_lie_inside_their_mask_and_boxes_hold_it(pixels):
    if not pixels.any():
        with pytest.raises(GeometryError, match="no pixel inside"):
            convert_style(Mask(pixels), "scribble", pixels.shape)
        return
    for line in trace_midlines(pixels):
        for row, column in line:
            assert pixels[int(row), int(column)] and row % 1 == column % 1 == 0.5
    drawn = convert_style(Mask(pixels), "box", pixels.shape).draw(Frame.of_image(pixels.shape)) > 0
    assert drawn[pixels].all() and drawn.any(axis=1).sum() == np.ptp(np.nonzero(pixels)[0]) + 1


def test_regions_outside_their_image_are_refused():
    with pytest.raises(GeometryError, match="box has no pixel inside its image of 40 x 30"):
        convert_style(Box((100.0, 100.0), (120.0, 120.0)), "mask", SHAPE)
    with pytest.raises(GeometryError, match=r"mask has shape \(40, 30\), its image \(30, 40\)"):
        rasterise_region(REGIONS[0], (30, 40))
    with pytest.raises(GeometryError, match="expected 'scribble', 'box' or 'mask'"):
        convert_style(REGIONS[0], "polygon", SHAPE)


def test_margins():
    assert dilate(REGIONS[2], 2.0, SHAPE) == Box((0.5, 1.0), (22.0, 11.25), TAG)
    assert dilate(REGIONS[2], 5.0, SHAPE) == Box((0.0, 0.0), (25.0, 14.25), TAG)
    assert dilate(REGIONS[3], 2.0, SHAPE) == Scribble(REGIONS[3].lines, 6.0, TAG)
    assert dilate(REGIONS[0], 0.0, SHAPE) is REGIONS[0]
    grown = dilate(REGIONS[0], 3.0, SHAPE)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    inside = np.argwhere(BLOB)
    nearest = np.hypot(rows[..., None] - inside[:, 0], columns[..., None] - inside[:, 1]).min(axis=-1)
    assert np.array_equal(grown.pixels(), nearest <= 3.0) and grown.tag == TAG
    with pytest.raises(GeometryError, match="margin"):
        dilate(REGIONS[0], -1.0, SHAPE)
    with pytest.raises(GeometryError, match="outside the image"):
        dilate(Box((100.0, 100.0), (120.0, 120.0)), 1.0, SHAPE)
