"""Sampling windows: against torchvision's crop, against the identity, and through Frame.within."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import functional as tv

from sightline.errors import GeometryError, RecipeError
from sightline.models.backbones import Backbone
from sightline.models.box_regression import resize_square
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.pooling import MaxPool, MeanPool
from sightline.models.spatial_transformer import SecondLook, compute_square, crop_windows
from sightline.structures.evidence import build_window
from sightline.structures.frame import Frame

IDENTITY = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])


def test_the_identity_gives_the_image_back():
    images = torch.rand(3, 2, 17, 23)
    torch.testing.assert_close(crop_windows(images, IDENTITY.expand(3, 2, 3), (17, 23)), images, atol=1e-5, rtol=1e-5)


def test_a_turned_windows_square_has_its_middle_and_its_area():
    angle, height, width = 0.6, 30.0, 60.0
    # pixels (row, column) of a turned and stretched window of an image of 30 x 60
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    pixels = turn @ np.diag([12.0, 20.0])
    to_fractions = np.diag([1 / height, 1 / width])
    window = torch.tensor(np.concatenate([to_fractions @ pixels, [[0.1], [0.2]]], axis=1))[None]
    row, column, tall, wide = compute_square(window, height / width)[0].tolist()
    middle = (to_fractions @ pixels @ [0.5, 0.5]) + [0.1, 0.2]
    assert (row, column) == pytest.approx(tuple(middle))
    assert tall * height == pytest.approx(wide * width) and tall * height * wide * width == pytest.approx(240.0)
    assert compute_square(IDENTITY)[0].tolist() == pytest.approx([0.5, 0.5, 1.0, 1.0])


def test_the_identity_on_another_grid_is_the_resized_image():
    images = torch.rand(1, 1, 32, 48)
    small = torch.nn.functional.interpolate(images, size=(13, 64), mode="bilinear", align_corners=False)
    # at the rim half of a sample lies outside, where interpolation repeats and a warp sees black
    torch.testing.assert_close(
        crop_windows(images, IDENTITY, (13, 64))[..., 1:-1, 1:-1], small[..., 1:-1, 1:-1], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("seed", range(12))
def test_random_windows_are_torchvisions_crops(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(20, 60, 2))
    image = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(seed))
    rows, columns = (int(rng.integers(4, n)) for n in (height, width))
    top, left = int(rng.integers(0, height - rows + 1)), int(rng.integers(0, width - columns + 1))
    size = [int(n) for n in rng.integers(4, 40, 2)]
    window = build_window(
        torch.tensor([[(top + rows / 2) / height, (left + columns / 2) / width, rows / height, columns / width]])
    )
    ours = crop_windows(image, window, (size[0], size[1]))
    # a crop knows nothing beyond its edge, a window does: compare samples whose neighbours are inside both
    theirs = tv.resized_crop(image, top, left, rows, columns, size, antialias=False)
    centres = [(np.arange(n) + 0.5) / n * m - 0.5 for n, m in zip(size, (rows, columns), strict=True)]
    inner = np.ix_(*[(c >= 0) & (c <= m - 1) for c, m in zip(centres, (rows, columns), strict=True)])
    np.testing.assert_allclose(ours[0, 0].numpy()[inner], theirs[0, 0].numpy()[inner], atol=1e-4)


def test_a_window_lies_where_its_frame_says():
    # one bright pixel; the window is turned, scaled and shifted
    image = torch.zeros(1, 1, 40, 60)
    image[0, 0, 25, 33] = 1.0
    turn = np.deg2rad(20.0)
    window = torch.tensor(
        [[[0.5 * np.cos(turn), -0.3 * np.sin(turn), 0.3], [0.3 * np.sin(turn), 0.4 * np.cos(turn), 0.25]]]
    )
    seen = crop_windows(image.double(), window, (200, 200))[0, 0].numpy()
    frame = Frame.of_image((40, 60)).within(window[0].numpy(), (200, 200))
    weights = seen / seen.sum()
    middle = [float((weights.sum(axis=1 - axis) * (np.arange(200) + 0.5)).sum()) for axis in (0, 1)]
    np.testing.assert_allclose(frame.map_points([middle])[0], [25.5, 33.5], atol=0.02)


def test_outside_is_black():
    window = build_window(torch.tensor([[0.0, 0.0, 0.5, 0.5]]))
    seen = crop_windows(torch.ones(1, 1, 20, 20), window, (10, 10))
    # the sample next to the edge lies half a step inside and is mixed with what lies outside
    assert seen[0, 0, :4].abs().max() < 1e-6 and seen[0, 0, :, :4].abs().max() < 1e-6
    assert (seen[0, 0, 6:, 6:] == 1).all()


def test_gradients_by_finite_differences():
    images = torch.rand(1, 1, 6, 7, dtype=torch.float64, requires_grad=True)
    window = torch.tensor([[[0.53, 0.11, 0.17], [-0.07, 0.61, 0.23]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda i, w: crop_windows(i, w, (5, 4)), (images, window))


def test_shapes_that_do_not_belong_together_are_refused():
    with pytest.raises(GeometryError, match=r"\[b, 2, 3\]"):
        crop_windows(torch.zeros(2, 1, 8, 8), IDENTITY, (4, 4))


def looking_twice(crop):
    torch.manual_seed(0)
    whole = ClassMapModel(Backbone("test_resnet"), MaxPool(), one_map=True)
    second = ClassMapModel(Backbone("test_resnet"), MeanPool(), one_map=True) if crop == "own" else None
    return SecondLook(whole, second, localiser_px=96, roi_px=64).build(2).eval()


@pytest.mark.parametrize("crop", ["own", "shared"])
def test_the_second_look_is_the_views_own_pixels_around_the_peak(crop):
    net = looking_twice(crop)
    images = torch.rand(4, 1, 192, 192)
    with torch.no_grad():
        evidence = net(images)
        small = nn.functional.interpolate(images, size=(96, 96), mode="bilinear", antialias=True)
        first = net.whole(small)
        assert torch.equal(evidence.maps, first.maps)
        for i in range(4):
            cells = first.maps[i, 1]
            row, column = divmod(int(cells.argmax()), cells.shape[1])
            start = [
                min(max(round((at + 0.5) / n * 192 - 32), 0), 128)
                for at, n in zip((row, column), cells.shape, strict=True)
            ]
            cut = images[i : i + 1, :, start[0] : start[0] + 64, start[1] : start[1] + 64]
            seen = net.whole if crop == "shared" else net.crop
            mean = (first.logits[i] + seen(cut).logits[0]) / 2
            torch.testing.assert_close(evidence.logits[i], mean, atol=1e-4, rtol=1e-4)
            box = [(start[0] + 32) / 192, (start[1] + 32) / 192, 64 / 192, 64 / 192]
            assert evidence.extras["look"][i].tolist() == pytest.approx(box)
        # the whole picture's part of the logit is what its cells add up to
        part = evidence.extras["attention"].flatten(2).sum(-1)
        torch.testing.assert_close(part + evidence.extras["crop_logits"] / 2, evidence.logits)


def test_both_looks_learn_from_the_label_and_impossible_ones_are_refused():
    net = looking_twice("own").train()
    net(torch.rand(2, 1, 128, 96)).logits[:, 1].sum().backward()
    assert net.whole.head.linear.weight.grad.any() and net.crop.head.linear.weight.grad.any()
    with pytest.raises(RecipeError, match="roi_px"):
        SecondLook(roi_px=8)
    with pytest.raises(RecipeError, match="localiser_px"):
        SecondLook(localiser_px=0)
    with pytest.raises(RecipeError, match="column 2"):
        SecondLook(column=2).build(2)


def test_windows_and_second_looks_in_half_precision_see_the_same_pixels():
    """Sampled at places in bfloat16, the window's columns would be 4 pixels apart."""
    images = torch.rand(2, 1, 600, 600)
    window = torch.tensor([[0.1, 0.0, 0.55], [0.0, 0.1, 0.81]]).expand(2, 2, 3)
    fine = crop_windows(images.bfloat16().float(), window, (60, 60))
    half = crop_windows(images.bfloat16(), window, (60, 60))
    assert half.dtype == torch.bfloat16 and (half.float() - fine).abs().max() < 1 / 128
    network = looking_twice("own")
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        answer = network(torch.rand(2, 3, 192, 192).bfloat16())
    assert answer.logits.isfinite().all() and answer.extras["look"].shape == (2, 4)


def test_pictures_in_double_precision_are_resized_in_it():
    images = torch.rand(1, 1, 40, 40, dtype=torch.float64)
    made = resize_square(images, 16)
    assert made.dtype == torch.float64 and (made - resize_square(images.float(), 16)).abs().max() > 0
