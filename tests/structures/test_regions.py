"""Region: drawn by any hit on any grid; against a slow, obvious restatement by fine sampling."""

import gzip
import math
import os
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from sightline.errors import CohortError, GeometryError, UnreadableFile
from sightline.structures import rasterize
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.regions import Box, Mask, Polygon, Scribble, bound_region, find_style, read_mask
from sightline.structures.tag import Tag

FINE = 12  # samples per cell side
EIGHTHS = st.integers(0, 8 * 24).map(lambda n: n / 8)
POINTS = st.tuples(EIGHTHS, EIGHTHS)
BOXES = st.tuples(POINTS, POINTS).map(
    lambda p: Box(
        (min(p[0][0], p[1][0]), min(p[0][1], p[1][1])),
        (max(p[0][0], p[1][0]) + 0.125, max(p[0][1], p[1][1]) + 0.125),
    )
)
SCRIBBLES = st.builds(
    lambda lines, stroke: Scribble(tuple(map(tuple, lines)), stroke),
    st.lists(st.lists(POINTS, min_size=1, max_size=4), min_size=1, max_size=2),
    st.sampled_from([0.25, 1.0, 3.0]),
)


@st.composite
def polygons(draw):
    """Rings that do not cross themselves: corners by angle around a centre."""
    centre = draw(POINTS)
    angles = sorted(draw(st.lists(st.floats(0, 2 * math.pi), min_size=3, max_size=7, unique=True)))
    radii = [draw(st.floats(0.2, 12.0)) for _ in angles]
    ring = [(centre[0] + r * math.sin(a), centre[1] + r * math.cos(a)) for a, r in zip(angles, radii, strict=True)]
    return Polygon((tuple((round(r, 3), round(c, 3)) for r, c in ring),))


@st.composite
def frames(draw):
    """Grids over a 24 x 24 image: cropped, resized, flipped, perhaps turned."""
    frame = Frame.of_image((24, 24))
    if draw(st.booleans()):
        start = draw(st.tuples(st.integers(-4, 12), st.integers(-4, 12)))
        frame = frame.crop(start, draw(st.tuples(st.integers(4, 24), st.integers(4, 24))))
    if draw(st.booleans()):
        frame = frame.resize(draw(st.tuples(st.integers(1, 30), st.integers(1, 30))))
    if draw(st.booleans()):
        frame = frame.flip(draw(st.integers(0, 1)))
    if draw(st.booleans()):
        frame = frame.rotate(draw(st.sampled_from([-30.0, 17.0, 90.0])))
    return frame


def samples(frame: Frame) -> np.ndarray:
    """Source coordinates [h, w, FINE * FINE, 2] of points strictly inside every cell."""
    inner = (np.arange(FINE) + 0.5) / FINE
    grid = np.stack(np.meshgrid(inner, inner, indexing="ij"), axis=-1).reshape(-1, 2)
    cells = np.stack(np.meshgrid(*map(np.arange, frame.shape), indexing="ij"), axis=-1)
    return frame.map_points(cells[:, :, None, :] + grid)


def gap(frame: Frame) -> float:
    """No point of a cell is farther from its nearest sample than this, in source pixels."""
    corners = frame.map_points([[0, 0], [0.5 / FINE, 0.5 / FINE], [0.5 / FINE, -0.5 / FINE]])
    return float(max(np.linalg.norm(corners[1] - corners[0]), np.linalg.norm(corners[2] - corners[0]))) + 1e-6


def distance_to(points: np.ndarray, lines, closed: bool) -> np.ndarray:
    """Distance of points [..., 2] to polylines, one segment after the other."""
    best = np.full(points.shape[:-1], np.inf)
    for line in lines:
        ends = [*line[1:], line[0]] if closed else (line[1:] or [line[0]])
        for a, b in zip(line, ends, strict=False):
            a, b = np.array(a), np.array(b)
            along = np.clip(((points - a) @ (b - a)) / max((b - a) @ (b - a), 1e-300), 0, 1)
            best = np.minimum(best, np.linalg.norm(points - (a + along[..., None] * (b - a)), axis=-1))
    return best


def inside_ring(points: np.ndarray, ring) -> np.ndarray:
    """Even-odd rule, one edge after the other."""
    inside = np.zeros(points.shape[:-1], bool)
    for (r0, c0), (r1, c1) in zip(ring, [*ring[1:], ring[0]], strict=True):
        crosses = (points[..., 0] < r0) != (points[..., 0] < r1)
        at = c0 + (points[..., 0] - r0) / (r1 - r0 if r1 != r0 else 1.0) * (c1 - c0)
        inside ^= crosses & (points[..., 1] < at)
    return inside


def agree(drawn: np.ndarray, sure: np.ndarray, possible: np.ndarray) -> None:
    """Every cell with a sample surely inside is drawn; no cell without a possible one is."""
    assert drawn.dtype == np.float32 and set(np.unique(drawn)) <= {0.0, 1.0}
    assert (drawn[sure.any(axis=-1)] == 1).all()
    assert (drawn[~possible.any(axis=-1)] == 0).all()


@given(BOXES, frames())
@settings(max_examples=25, deadline=None)
def test_boxes_touch_what_samples_say(box, frame):
    p = samples(frame)
    inside = ((p >= box.start) & (p <= box.stop)).all(axis=-1)
    near = ((p >= np.array(box.start) - gap(frame)) & (p <= np.array(box.stop) + gap(frame))).all(axis=-1)
    agree(box.draw(frame), inside, near)


@given(polygons(), frames())
@settings(max_examples=25, deadline=None)
def test_polygons_touch_what_samples_say(polygon, frame):
    p, ring = samples(frame), polygon.parts[0]
    inside, distance = inside_ring(p, ring), distance_to(p, polygon.parts, closed=True)
    agree(polygon.draw(frame), inside & (distance > 1e-6), inside | (distance <= gap(frame)))


@given(SCRIBBLES, frames())
@settings(max_examples=25, deadline=None)
def test_scribbles_touch_what_samples_say(scribble, frame):
    distance = distance_to(samples(frame), scribble.lines, closed=False)
    radius = scribble.stroke_px / 2
    # round ends are drawn as 16-gons inside the circle
    agree(scribble.draw(frame), distance < radius * math.cos(math.pi / 16), distance <= radius + gap(frame))


@given(SCRIBBLES, frames())
@settings(max_examples=25, deadline=None)
def test_long_scribbles_are_drawn_some_rings_at_a_time_and_stay_the_same(scribble, frame):
    drawing = scribble.draw(frame)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rasterize, "LINES_AT_ONCE", 2)
        np.testing.assert_array_equal(scribble.draw(frame), drawing)


@given(arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 6))), st.integers(1, 4))
def test_masks_reduce_by_the_maximum_of_each_block(small, stride):
    pixels = np.random.default_rng(0).random((small.shape[0] * stride, small.shape[1] * stride)) < 0.2
    pixels &= np.kron(small, np.ones((stride, stride), bool))
    frame = Frame.of_image(pixels.shape)
    assert np.array_equal(Mask(pixels).draw(frame), pixels)
    blocks = pixels.reshape(small.shape[0], stride, small.shape[1], stride).any(axis=(1, 3))
    assert np.array_equal(Mask(pixels).draw(frame.resize(small.shape)), blocks)
    big = [n * stride for n in pixels.shape]
    assert np.array_equal(Mask(pixels).draw(frame.resize(big)), np.kron(pixels, np.ones((stride, stride))))


@given(st.one_of(BOXES, polygons(), SCRIBBLES), st.integers(0, 1), st.tuples(st.integers(1, 30), st.integers(1, 30)))
@settings(max_examples=60, deadline=None)
def test_a_flipped_drawing_is_the_drawing_of_the_flip(region, axis, shape):
    frame = Frame.of_image((24, 24)).resize(shape)
    assert np.array_equal(region.draw(frame.flip(axis)), np.flip(region.draw(frame), axis))


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.integers(0, 1))
def test_a_flipped_mask_is_the_mask_of_the_flip(pixels, axis):
    frame = Frame.of_image(pixels.shape)
    assert np.array_equal(Mask(pixels).draw(frame.flip(axis)), np.flip(pixels, axis))


@given(st.lists(POINTS, min_size=1, max_size=4), st.tuples(st.integers(1, 24), st.integers(1, 24)))
@settings(max_examples=40, deadline=None)
def test_a_line_survives_any_reduction(line, shape):
    drawn = Scribble((tuple(line),), 1.0).draw(Frame.of_image((25, 25)).resize(shape))
    for row, column in line:
        cell = min(int(row / 25 * shape[0]), shape[0] - 1), min(int(column / 25 * shape[1]), shape[1] - 1)
        assert drawn[cell] == 1.0


@pytest.mark.parametrize("row", [0.5, 31.5, 32.0, 200.25, 511.5])
def test_golden_check_5_a_one_pixel_line_survives_stride_32(row):
    """Nearest-neighbour reduction keeps it with a chance of 1 in 32 (Liao 2022's released code)."""
    frame = Frame.of_image((512, 512)).resize((16, 16))
    drawn = Scribble((((row, 0.5), (row, 511.5)),), 1.0).draw(frame)
    assert (drawn[int(row // 32)] == 1).all() and drawn.sum() <= 32
    pixels = np.zeros((512, 512), bool)
    pixels[int(row)] = True
    assert np.array_equal(Mask(pixels).draw(frame)[int(row) // 32], np.ones(16)) and pixels[16::32].sum() == 0


def test_a_mark_on_the_line_between_cells_is_not_lost_and_not_lopsided():
    frame = Frame.of_image((6, 6))
    square = Polygon((((2, 2), (2, 4), (4, 4), (4, 2)),))
    assert np.array_equal(square.draw(frame), Box((2, 2), (4, 4)).draw(frame))
    assert np.argwhere(square.draw(frame)).tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]
    thread = Scribble((((3.0, 1.5), (3.0, 4.5)),), 1e-3).draw(frame)
    assert thread[2:4, 1:5].all() and thread.sum() == 8
    flat = Polygon((((3, 1), (3, 4), (3, 2)),)).draw(frame)
    assert flat[2:4, 1:4].all()


def test_a_box_in_three_axes():
    frame = Frame.of_image((4, 4, 4))
    box = Box((1, 1, 1), (2, 3, 4))
    assert box.draw(frame).sum() == 1 * 2 * 3
    assert box.draw(frame.resize((2, 2, 2))).sum() == 1 * 2 * 2
    with pytest.raises(GeometryError, match="3-axis box cannot be drawn on a 2-axis"):
        box.draw(Frame.of_image((4, 4)))


def test_masks_from_files(tmp_path):
    pixels = np.zeros((5, 7), np.uint8)
    pixels[1:3, 2] = 1
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([pixels * 0, pixels, pixels * 0], axis=-1)).save(tmp_path / "colour.png")
    assert np.array_equal(read_mask(tmp_path / "grey.png"), pixels > 0)
    assert Mask(tmp_path / "grey.png") == Mask(tmp_path / "colour.png") == Mask(pixels > 0)
    assert Mask(pixels > 0) != Mask(pixels == 0) and Mask(pixels > 0) != Mask(pixels > 0, Tag("finding"))
    # a mask that is drawn again is read again, also within one tick and with as many bytes
    stamp = (tmp_path / "grey.png").stat()
    Image.fromarray(pixels[::-1]).save(tmp_path / "grey.png")
    os.utime(tmp_path / "grey.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert np.array_equal(read_mask(tmp_path / "grey.png"), pixels[::-1] > 0)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    for name in ("broken.png", "missing.png"):
        with pytest.raises(UnreadableFile, match=name):
            read_mask(Path(tmp_path / name))


def test_a_volume_mask_that_is_written_again_is_read_again(tmp_path):
    volume, mask = tmp_path / "ct.nii", tmp_path / "mask.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)), volume)
    for inside, affine in ((1, np.eye(4)), (2, np.eye(4)), (2, np.diag([-1.0, 1.0, 1.0, 1.0]))):
        labels = np.zeros((4, 5, 6), np.uint8)
        labels[:inside] = 1
        affine[0, 3] = 3.0 if affine[0, 0] < 0 else 0.0
        nibabel.save(nibabel.Nifti1Image(labels, affine), mask)
        assert np.array_equal(read_mask(mask), labels > 0)
        # the affine, too, is that of the new file
        assert np.array_equal(read_mask(mask, on=volume), (labels if affine[0, 0] > 0 else labels[::-1]) > 0)


@pytest.mark.parametrize("angle_deg", [0.0, 17.0, -90.0, 141.0])
def test_a_turned_mask_cell_by_cell(angle_deg):
    pixels = np.random.default_rng(1).random((13, 11)) < 0.15
    frame = Frame.of_image((13, 11)).pad_to_square().resize((9, 9)).rotate(angle_deg)
    drawn = np.zeros(frame.shape)
    for cell in np.ndindex(*frame.shape):
        row, column = np.floor(frame.map_points(np.array(cell) + 0.5)).astype(int)
        drawn[cell] = 0 <= row < 13 and 0 <= column < 11 and pixels[row, column]
    for row, column in np.argwhere(pixels):
        around = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        if all(0 <= r < 13 and 0 <= c < 11 and pixels[r, c] for r, c in around):
            continue
        cell = np.floor(frame.unmap_points([row + 0.5, column + 0.5])).astype(int)
        if (cell >= 0).all() and (cell < 9).all():
            drawn[tuple(cell)] = 1
    assert np.array_equal(Mask(pixels).draw(frame), drawn)
    assert not Mask(np.zeros((13, 11), dtype=bool)).draw(frame).any()
    assert not Mask(pixels).draw(frame.crop((-40, -40), (9, 9))).any()


def test_styles():
    box, line = Box((0, 0), (1, 1)), Scribble((((0.5, 0.5),),))
    assert [find_style(r) for r in (box, line, Mask(np.ones((2, 2), bool)), Polygon((((0, 0), (0, 1), (1, 1)),)))] == [
        "box",
        "scribble",
        "mask",
        "mask",
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Box((1, 1), (1, 2)), "start < stop"),
        (lambda: Box((1, 1), (2, math.nan)), "finite"),
        (lambda: Box((1,), (2, 3)), "same length"),
        (lambda: Polygon(()), "three or more"),
        (lambda: Polygon((((0, 0), (1, 1)),)), "three or more"),
        (lambda: Polygon((((0, 0), (1, 1), (math.inf, 2)),)), "finite"),
        (lambda: Scribble(()), "at least one line"),
        (lambda: Scribble((((0, 0),),), 0.0), "positive length"),
        (lambda: Mask(np.ones((2, 2, 2), bool)).draw(Frame.of_image((2, 2))), "3-axis mask"),
        (lambda: Polygon((((0, 0), (1, 1), (0, 1)),)).draw(Frame.of_image((2, 2, 2))), "two axes"),
    ],
)
def test_regions_that_cannot_be_are_refused(make, message):
    with pytest.raises(GeometryError, match=message):
        make()


class TestCornersOf:
    def test_every_kind_of_region_fits_its_box(self):
        mask = np.zeros((10, 12), dtype=bool)
        mask[3:5, 7:11] = True
        assert bound_region(Box((1.0, 2.0), (3.5, 4.0))) == (1.0, 2.0, 3.5, 4.0)
        assert bound_region(Polygon((((1, 1), (4, 2), (2, 6)), ((8, 0), (9, 1), (8, 2))))) == (1.0, 0.0, 9.0, 6.0)
        assert bound_region(Scribble((((2, 3), (6, 3)),), stroke_px=2.0)) == (1.0, 2.0, 7.0, 4.0)
        assert bound_region(Mask(mask)) == (3.0, 7.0, 5.0, 11.0)

    def test_what_has_no_box_is_refused(self):
        with pytest.raises(GeometryError, match="marked pixel"):
            bound_region(Mask(np.zeros((4, 4), dtype=bool)))
        with pytest.raises(GeometryError, match="3-axis"):
            bound_region(Box((0, 0, 0), (1, 1, 1)))


@pytest.mark.parametrize(
    "build",
    [
        lambda: Box(("1", "1"), ("5", "5")),
        lambda: Scribble(((4.5, 2.0), (4.5, 12.0))),
        lambda: Scribble((((4.5, 2.0, 1.0),),)),
        lambda: Polygon((1, 2, 3)),
        lambda: Mask(np.full((4, 4), np.nan)),
        lambda: Mask(np.array([["a"]])),
    ],
)
def test_marks_of_another_form_are_refused_in_words(build):
    """They ended in a TypeError, some of them only when they were drawn."""
    with pytest.raises(GeometryError):
        build()


def test_a_mask_is_a_path_as_text_or_numbers_too(tmp_path):
    pixels = np.zeros((8, 8), dtype=np.uint8)
    pixels[2:4, 2:5] = 7
    Image.fromarray(pixels).save(tmp_path / "m.png")
    frame = Frame.of_image((8, 8))
    each = (Mask(str(tmp_path / "m.png")), Mask(pixels), Mask(pixels / 7.0), Mask(pixels, value=7))
    assert [mask.draw(frame).sum() for mask in each] == [6.0] * 4 and Mask(pixels, value=6).draw(frame).sum() == 0


def test_a_split_that_there_is_not_is_refused():
    """`cohort.split("tets")` was an empty cohort, and a case in the split `valid` in none of the three."""
    case = Case("i", "s", "p", "x.png", "a", split="val")
    cohort = Cohort("c", ("a",), (case,))
    assert len(cohort.split("val")) == 1 and case.image.name == "x.png"
    with pytest.raises(CohortError, match="no split 'tets'"):
        cohort.split("tets")
    with pytest.raises(CohortError, match="valid"):
        Case("i", "s", "p", "x.png", "a", split="valid")


def test_a_stroke_far_wider_than_the_picture_takes_no_more_than_the_picture():
    wide, frame = Scribble((((4.0, 4.0), (5.0, 5.0)),), 1e7), Frame.of_image((12, 9))
    tracemalloc.start()
    assert wide.draw(frame).all()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**20


def test_a_packed_mask_of_a_volume_is_read_to_its_checksum(tmp_path):
    """All voxels of these are there, or seem to be: only the end of the file tells that it is cut or damaged."""
    path = tmp_path / "m.nii.gz"
    plain = nibabel.Nifti1Image(np.ones((16, 16, 16), np.uint8), np.eye(4)).to_bytes()
    packed = gzip.compress(plain, compresslevel=0)
    path.write_bytes(packed)
    assert read_mask(path).all()
    damaged = bytearray(packed)
    damaged[-20] ^= 1
    for data, reason in ((packed[:-4], "end-of-stream"), (bytes(damaged), "CRC check failed")):
        path.write_bytes(data)
        with pytest.raises(UnreadableFile, match=reason):
            read_mask(path)
    path.write_bytes(gzip.compress(plain + bytes(2000)))
    with pytest.raises(UnreadableFile, match="bytes follow the voxels"):
        read_mask(path)
