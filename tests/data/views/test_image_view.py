"""Framing: every step is one affine map, pixels are sampled once and lie where the Frame says."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sightline.data.views.crops import Crop
from sightline.data.views.image_view import View, reduce_picture, sample
from sightline.errors import RecipeError
from sightline.structures.frame import Frame
from sightline.structures.regions import Box


def slow_sample(pixels, target):
    """Bilinear sampling one cell at a time, edge pixels held to the picture's edge, zero outside the picture."""
    rows, columns = pixels.shape
    out = np.zeros(target.shape)
    for i in range(target.shape[0]):
        for j in range(target.shape[1]):
            y, x = target.map_points([i + 0.5, j + 0.5])
            if not (0 <= y < rows and 0 <= x < columns):
                continue
            y, x = y - 0.5, x - 0.5  # from corners to centres
            top, left = math.floor(y), math.floor(x)
            for a, b, share in (
                (top, left, (1 - (y - top)) * (1 - (x - left))),
                (top, left + 1, (1 - (y - top)) * (x - left)),
                (top + 1, left, (y - top) * (1 - (x - left))),
                (top + 1, left + 1, (y - top) * (x - left)),
            ):
                out[i, j] += share * pixels[min(max(a, 0), rows - 1), min(max(b, 0), columns - 1)]
    return out / np.iinfo(pixels.dtype).max


def whole(pixels):
    """A picture with no reduction at all."""
    frame = Frame.of_image(pixels.shape[:2])
    return reduce_picture(pixels, frame, max(pixels.shape[:2])), frame


def noise(shape, dtype, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_identity_gives_the_pixels_back(dtype):
    pixels = noise((7, 9), dtype)
    working, frame = whole(pixels)
    got = sample(working, frame)
    assert got.shape == (1, 7, 9) and got.dtype == np.float32
    assert np.allclose(got[0], pixels / np.iinfo(dtype).max, atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (50, 50)])
def test_the_middle_is_torchvisions_resize_and_centre_crop(shape):
    from torchvision.transforms import v2

    pixels = np.kron(noise((shape[0] // 10, shape[1] // 10), np.uint8), np.ones((10, 10))).astype(np.uint8)
    view = View(size=28, centre_crop=28 / 32)
    planes, frame = view.show(pixels, Frame.of_image(shape))
    theirs = v2.CenterCrop(28)(v2.Resize(32)(Image.fromarray(pixels)))
    assert np.abs(planes[0] - np.asarray(theirs) / 255).mean() < 0.04
    short = min(shape)
    start = frame.map_points([0.0, 0.0])
    assert start == pytest.approx([(n - 0.875 * short) / 2 for n in shape])
    assert frame.map_points([28.0, 28.0]) - start == pytest.approx([0.875 * short] * 2)


def test_stretched_crops_are_drawn_as_torchvision_draws_them():
    import torch
    from torchvision.transforms import RandomResizedCrop

    view = View(size=32, crop_area=(0.08, 1.0), rotation_deg=0.0, flip_chance=0.0, crop_ratio=(3 / 4, 4 / 3))
    source, rng = Frame.of_image((300, 400)), np.random.default_rng(0)
    ours, theirs = [], []
    picture = torch.empty(1, 300, 400)
    torch.manual_seed(0)
    for _ in range(2000):
        frame = view.training_frame(source, rng)
        top, end = frame.map_points([0.0, 0.0]), frame.map_points([32.0, 32.0])
        assert (top >= -1e-9).all() and (end <= np.array([300, 400]) + 1e-9).all() and frame.shape == (32, 32)
        ours.append([*top, *(end - top)])
        theirs.append(RandomResizedCrop.get_params(picture, (0.08, 1.0), (3 / 4, 4 / 3)))
    a, b = np.array(ours), np.array(theirs, dtype=float)
    for of in (lambda x: x[:, 2] * x[:, 3] / 120_000, lambda x: np.log(x[:, 3] / x[:, 2]), lambda x: x[:, 0] / 300):
        assert np.quantile(of(a), [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(of(b), [0.1, 0.5, 0.9]), abs=0.03)
    # a picture so long that no draw fits: the largest middle part of a ratio that is asked for
    narrow = view.training_frame(Frame.of_image((10, 400)), rng)
    first = narrow.map_points([0.0, 0.0])
    assert narrow.map_points([32.0, 32.0]) - first == pytest.approx([10.0, 40.0 / 3])
    # every crop has the pixels it shows
    assert view.working_longest((300, 400)) >= 32 * 400 / np.sqrt(0.08 * 120_000 * 0.75) - 1
    for wrong in ({"centre_crop": 0.0}, {"crop_ratio": (2.0, 1.0)}, {"centre_crop": 0.5, "crop": Crop()}):
        with pytest.raises(RecipeError):
            View(**wrong)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_sampling_is_bilinear_at_the_places_the_frame_names(dtype, seed):
    pixels = noise((12, 17), dtype, seed)
    working, frame = whole(pixels)
    target = View(size=16, crop_area=(0.3, 1.0)).training_frame(frame, np.random.default_rng(seed))
    # Pillow holds sixteenths of a grey level in 8 bit; 16-bit pictures are floats
    tolerance = 1.1 / 255 if dtype == np.uint8 else 2e-4
    expected, got = slow_sample(pixels, target), sample(working, target)[0]
    close = np.abs(got - expected) < tolerance
    # a centre that falls on the picture's very edge may count as outside
    edge = (
        np.abs(
            target.map_points(np.argwhere(~close) + 0.5)
            - np.clip(target.map_points(np.argwhere(~close) + 0.5), 1e-3, np.array(pixels.shape) - 1e-3)
        ).max(initial=0.0, axis=-1)
        > 0
    )
    assert edge.all()


def test_enlarging_twofold_agrees_with_torch():
    import torch.nn.functional as F
    from torch import from_numpy

    pixels = noise((8, 8), np.uint16)
    working, frame = whole(pixels)
    got = sample(working, frame.resize((16, 16)))[0]
    wanted = F.interpolate(
        from_numpy(pixels.astype(np.float32))[None, None], size=(16, 16), mode="bilinear", align_corners=False
    )[0, 0]
    assert np.allclose(got, wanted.numpy() / 65535, atol=1e-5)


def test_pads_are_zero_and_the_picture_stands_in_the_middle():
    pixels = np.full((8, 16), 255, np.uint8)
    working, frame = whole(pixels)
    view = View(size=16)
    got = sample(working, view.test_frame(frame))[0]
    assert (got[:4] == 0).all() and (got[12:] == 0).all() and (got[4:12] == 1).all()


def test_corners_of_the_test_frame_are_corners_of_the_padded_square():
    frame = View(size=64).test_frame(Frame.of_image((100, 60)))
    assert np.allclose(frame.map_points([[0, 0], [64, 64]]), [[0, -20], [100, 80]])
    assert frame.scale == pytest.approx(100 / 64)


def test_a_flip_mirrors_the_samples():
    pixels = noise((10, 10), np.uint8)
    working, frame = whole(pixels)
    assert np.array_equal(sample(working, frame.flip(1))[0], sample(working, frame)[0][:, ::-1])


def test_colour_has_three_planes_sampled_alike():
    pixels = noise((6, 8, 3), np.uint8)
    working, frame = whole(pixels)
    got = sample(working, frame.flip(0))
    assert np.allclose(np.moveaxis(got, 0, -1), pixels[::-1] / 255, atol=1e-6)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_a_training_frame_is_the_composition_of_its_steps(seed):
    source = Frame.of_image((37, 60))
    view = View(size=32, crop_area=(0.5, 0.9), flip_chance=0.5, rotation_deg=30.0)
    frame = view.training_frame(source, np.random.default_rng(seed))
    # the same draws, and points carried by hand
    rng = np.random.default_rng(seed)
    side = 60 * math.sqrt(rng.uniform(0.5, 0.9))
    top, left = rng.uniform(0, 60 - side), rng.uniform(0, 60 - side)
    flipped = rng.random() < 0.5
    angle = math.radians(rng.uniform(-30, 30))
    for point in ((0.0, 0.0), (32.0, 0.0), (5.5, 20.25), (16.0, 16.0)):
        # back through the turn, the mirror, the crop and the pad
        row, column = point[0] - 16, point[1] - 16
        row, column = (
            math.cos(angle) * row + math.sin(angle) * column,
            -math.sin(angle) * row + math.cos(angle) * column,
        )
        row, column = row + 16, column + 16
        if flipped:
            column = 32 - column
        row, column = top + row * side / 32, left + column * side / 32
        assert np.allclose(frame.map_points(point), (row - (60 - 37) // 2, column), atol=1e-9)


@given(seed=st.integers(0, 10_000), deep=st.booleans(), longest=st.sampled_from([40, 60, 1000]))
@settings(max_examples=40, deadline=None)
def test_a_region_lies_where_the_sampled_square_lies(seed, deep, longest):
    rng = np.random.default_rng(seed)
    dtype = np.uint16 if deep else np.uint8
    pixels = np.zeros((90, 120), dtype)
    row, column = (int(x) for x in rng.integers(30, 50, 2))
    pixels[row : row + 16, column : column + 24] = np.iinfo(dtype).max
    source = Frame.of_image(pixels.shape)
    target = View(size=48, crop_area=(0.6, 1.0)).training_frame(source, rng)
    bright = sample(reduce_picture(pixels, source, longest), target)[0]
    drawn = Box((row, column), (row + 16, column + 24)).draw(target) > 0
    # all clearly bright pixels lie in the region; the region holds nothing clearly dark but its rim
    assert drawn[bright > 0.6].all()
    inner = Box((row + 5, column + 5), (row + 11, column + 19)).draw(target) > 0
    assert (bright[inner] > 0.5).all()
    if drawn.any() and not (drawn[0].any() or drawn[-1].any() or drawn[:, 0].any() or drawn[:, -1].any()):
        weights = bright / bright.sum()
        grid = np.indices(bright.shape) + 0.5
        centre = target.unmap_points((row + 8.0, column + 12.0))
        assert np.allclose((grid * weights).sum(axis=(1, 2)), centre, atol=0.25)


@pytest.mark.parametrize("shape", [(64, 64), (63, 100), (101, 47), (300, 7)])
@pytest.mark.parametrize("longest", [16, 31, 33])
def test_reducing_never_shifts(shape, longest):
    """The centre of mass of a ramp stays; an error of half a pixel would move it by half a reduced pixel."""
    ramp = np.linspace(0, 60000, shape[0])[:, None] + np.linspace(0, 5000, shape[1])[None, :]
    frame = Frame.of_image(shape)
    working = reduce_picture(ramp.astype(np.uint16), frame, longest)
    assert max(working.frame.shape) == longest
    small = np.asarray(working.planes[0])
    assert working.planes[0].mode == "F" and working.bytes == small.size * 4
    centres = working.frame.map_points(np.moveaxis(np.indices(small.shape), 0, -1) + 0.5)
    expected = (centres[..., 0] - 0.5) / (shape[0] - 1) * 60000 + (centres[..., 1] - 0.5) / (shape[1] - 1) * 5000
    inner = slice(2, -2) if small.shape[0] > 6 else slice(None)
    inner_c = slice(2, -2) if small.shape[1] > 6 else slice(None)
    step = 60000 * working.frame.scale / shape[0]
    assert np.abs(small - expected)[inner, inner_c].max() < 0.12 * step + 3


def test_reducing_never_magnifies_and_the_working_size_serves_the_smallest_crop():
    pixels = noise((20, 30), np.uint8)
    working, _ = whole(pixels)
    assert reduce_picture(pixels, Frame.of_image((20, 30)), 500).planes[0].size == (30, 20)
    assert working.bytes == 600
    view = View(size=100, crop_area=(0.25, 1.0))
    assert view.working_longest() == 200
    source = Frame.of_image((1000, 800))
    for seed in range(20):
        frame = view.training_frame(source, np.random.default_rng(seed))
        reduced = source.resize((200, 160))
        assert frame.scale >= reduced.scale - 1e-9


def test_tone_against_its_formula_and_off_by_default():
    pixels = np.random.default_rng(0).random((1, 8, 8)).astype(np.float32)
    assert View().tone(pixels, np.random.default_rng(0)) is pixels
    view = View(contrast=0.5, brightness=0.2)
    got = view.tone(pixels, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    gain, shift = 1 + rng.uniform(-0.5, 0.5), rng.uniform(-0.2, 0.2)
    expected = [min(1.0, max(0.0, (v - pixels.mean()) * gain + pixels.mean() + shift)) for v in pixels.ravel()]
    assert np.allclose(got.ravel(), expected, atol=1e-6)


def test_a_picture_agrees_with_pillows_own_resize_when_enlarged():
    pixels = noise((10, 10), np.uint8)
    working, frame = whole(pixels)
    wanted = np.asarray(Image.fromarray(pixels).resize((40, 40), Image.Resampling.BILINEAR), dtype=float) / 255
    assert np.abs(sample(working, frame.resize((40, 40)))[0] - wanted).max() < 1.6 / 255


@pytest.mark.parametrize(
    "fields",
    [
        {"size": 15},
        {"size": 16385},
        {"crop_area": (0.0, 1.0)},
        {"crop_area": (0.9, 0.8)},
        {"crop_area": (0.5, 1.1)},
        {"flip_chance": 2.0},
        {"contrast": -0.1},
        {"brightness": 1.5},
        {"rotation_deg": -10.0},
    ],
)
def test_views_that_mean_nothing_are_refused(fields):
    with pytest.raises(RecipeError) as caught:
        View(**fields)
    assert caught.value.remedy


class TestPixelsThatAreNotSquare:
    """A disc in the patient is a disc for the network, whichever axis is finer and however the view frames it."""

    def disc(self, tall, wide):
        """A disc of radius 40 mm in the middle of 120 x 120 mm, with pixels of `tall` x `wide` mm."""
        rows, columns = round(120 / tall), round(120 / wide)
        y, x = np.mgrid[:rows, :columns]
        inside = ((y + 0.5) * tall - 60) ** 2 + ((x + 0.5) * wide - 60) ** 2 < 40**2
        return inside.astype(np.uint8) * 255

    @pytest.mark.parametrize(("tall", "wide"), [(0.8, 0.4), (0.4, 0.8), (0.4, 0.4)])
    @pytest.mark.parametrize("stated", ["spacing", "aspect"])
    def test_discs_stay_round(self, tall, wide, stated):
        pixels = self.disc(tall, wide)
        spacing = (tall, wide) if stated == "spacing" else None
        source = Frame.of_image(pixels.shape, spacing, tall / wide if spacing is None else 1.0)
        view = View(size=60)
        planes, frame = view.show(pixels, source)
        seen = planes[0] > 0.5
        high, broad = seen.any(axis=1).sum(), seen.any(axis=0).sum()
        assert abs(int(high) - 40) <= 1
        assert abs(int(broad) - 40) <= 1
        # and what is found is carried back to pixels of the file
        middle = frame.map_points([30.0, 30.0])
        assert np.allclose(middle, [n / 2 for n in pixels.shape], atol=1)
        rng = np.random.default_rng(0)
        drawn = sample(view.reduce(pixels, source, training=True), view.training_frame(source, rng))[0] > 0.5
        assert abs(drawn.any(axis=1).sum() / drawn.any(axis=0).sum() - 1) < 0.06

    def test_crops_are_square_in_the_patient(self):
        pixels = self.disc(0.8, 0.4)
        source = Frame.of_image(pixels.shape, (0.8, 0.4))
        view = View(size=64, crop=Crop(margin=0.1))
        around = (25.0, 50.0, 125.0, 250.0)  # 80 x 80 mm about the disc
        planes, frame = view.show(pixels, source, around)
        seen = planes[0] > 0.5
        assert abs(int(seen.any(axis=1).sum()) - int(seen.any(axis=0).sum())) <= 1
        assert np.allclose(frame.map_points([32.0, 32.0]), [75, 150], atol=0.5)
        assert Box(around[:2], around[2:]).draw(frame).any(axis=1).sum() == pytest.approx(64 / 1.2, abs=1.5)
