"""Equation 6 of Liao 2022 against loops, closed forms and finite differences."""

import itertools
import math

import pytest
import torch
from torch.nn.functional import interpolate

from sightline.errors import GeometryError, RecipeError
from sightline.losses.map_norm import L1_PROFILES, MapNorm
from sightline.losses.spatial_nll import PROFILES, SpatialNLL, gather_back, reduce_marks, resize_maps


def example(seed=0, b=3, k=2, m=(4, 4), s=(16, 16), channels=1, dtype=torch.float64):
    torch.manual_seed(seed)
    maps = torch.randn(b, k, *m, dtype=dtype, requires_grad=True)
    targets = (torch.rand(b, channels, *s) > 0.8).to(torch.uint8)
    return maps, targets, torch.ones(b, k, dtype=torch.bool)


def slowly(maps, targets, guided, average):
    """Eq. 4 and 6 pixel by pixel: softmax over the bicubic enlargement, binary cross-entropy where S is 1."""
    b, k = maps.shape[:2]
    size = targets.shape[2:]
    large = interpolate(maps, size=size, mode="bicubic", align_corners=False)
    totals, numbers = [], []
    for i in range(b):
        total, number = 0.0, 0
        for c in range(k):
            if not guided[i, c]:
                continue
            p = torch.softmax(large[i, c].flatten(), 0).reshape(size)
            mark = targets[i, c if targets.shape[1] > 1 else 0]
            for row, column in itertools.product(range(size[0]), range(size[1])):
                if mark[row, column] != 0:
                    s = float(mark[row, column])
                    total += float(-s * torch.log(p[row, column]) - (1 - s) * torch.log(1 - p[row, column]))
                    number += 1
        totals.append(total)
        numbers.append(number)
    if average == "batch":
        return sum(totals) / max(sum(numbers), 1)
    means = [t / n for t, n in zip(totals, numbers, strict=True) if n]
    return sum(means) / max(len(means), 1)


@pytest.mark.parametrize("average", ["image", "batch"])
@pytest.mark.parametrize("channels", [1, 2])
def test_equals_equation_6_written_as_loops(average, channels):
    maps, targets, guided = example(channels=channels)
    guided[1, 0] = False
    guided[2] = False
    term = SpatialNLL(average=average)(maps, targets, guided)
    assert float(term.value.detach()) == pytest.approx(slowly(maps.detach(), targets, guided, average), rel=1e-9)
    assert term.images == 2


def test_clamped_form_equals_the_stable_one_where_nothing_is_improbable():
    maps, targets, guided = example(channels=2)
    stable = SpatialNLL()(maps, targets, guided).value
    clamped = SpatialNLL(floor_probability=1e-10)(maps, targets, guided).value
    assert float(clamped) == pytest.approx(float(stable), rel=1e-9)


def test_gradient_is_softmax_minus_uniform_over_the_mark():
    # golden 1; two classes share the mean, so each carries half
    maps, targets, guided = example(s=(4, 4))
    targets[:, :, 0, 0] = 1
    SpatialNLL(resolution="map")(maps, targets, guided).value.backward()
    p = torch.softmax(maps.detach().flatten(2), -1)
    s = targets.flatten(2).double()
    expected = (p - s / s.sum(-1, keepdim=True)) / 2 / len(maps)
    torch.testing.assert_close(maps.grad.flatten(2), expected, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize(("size", "value"), [((14, 14), 5.2781), ((16, 16), 5.5452), ((512, 512), 12.4766)])
def test_uniform_map_costs_the_log_of_its_pixels(size, value):
    # golden 3
    maps = torch.zeros(1, 2, 7, 7)
    targets = torch.zeros(1, 1, *size, dtype=torch.uint8)
    targets[..., 3:9, 5] = 1
    term = SpatialNLL()(maps, targets, torch.ones(1, 2, dtype=torch.bool))
    assert float(term.value) == pytest.approx(math.log(size[0] * size[1]), rel=1e-6)
    assert float(term.value) == pytest.approx(value, abs=1e-3)


def test_floor_is_reached_by_a_map_that_is_flat_on_the_mark():
    targets = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    targets[0, 0, 2:4, 2:5] = 1
    targets[1, 0, :, 0] = 1
    maps = (targets.float() * 60.0).expand(2, 3, 8, 8)
    guided = torch.ones(2, 3, dtype=torch.bool)
    for average, floor in (
        ("image", (math.log(6) + math.log(8)) / 2),
        ("batch", (6 * math.log(6) + 8 * math.log(8)) / 14),
    ):
        term = SpatialNLL(resolution="map", average=average)(maps, targets, guided)
        assert term.floor == pytest.approx(floor, rel=1e-6)
        assert term.excess == pytest.approx(0.0, abs=1e-5)


def test_excess_is_the_divergence_from_the_uniform_mark():
    maps, targets, guided = example(b=1, k=1, s=(4, 4))
    p = torch.softmax(maps.detach().flatten(), 0)
    u = targets.flatten().double() / targets.sum()
    divergence = float(torch.where(u > 0, u * (u / p).log(), torch.zeros(())).sum())
    assert SpatialNLL(resolution="map")(maps, targets, guided).excess == pytest.approx(divergence, rel=1e-6)


@pytest.mark.parametrize("resolution", ["input", "map"])
@pytest.mark.parametrize("floor_probability", [None, 1e-10])
def test_unmarked_images_get_exactly_nothing(resolution, floor_probability):
    loss = SpatialNLL(resolution=resolution, floor_probability=floor_probability)
    maps, targets, guided = example(b=4)
    guided[1] = False
    targets[2] = 0  # guided, but nothing is drawn
    guided[3, 1] = False
    term = loss(maps, targets, guided)
    term.value.backward()
    assert term.images == 2
    for silent in (maps.grad[1], maps.grad[2], maps.grad[3, 1]):
        assert torch.equal(silent, torch.zeros_like(silent))
    assert (maps.grad[0] != 0).all()
    alone = loss(maps[[0, 3]], targets[[0, 3]], guided[[0, 3]])
    assert float(term.value) == pytest.approx(float(alone.value), rel=1e-12)


def test_unmarked_image_cannot_spoil_the_others():
    maps, targets, guided = example()
    guided[1] = False
    with torch.no_grad():
        maps[1] = float("nan")
    term = SpatialNLL()(maps, targets, guided)
    term.value.backward()
    assert torch.isfinite(term.value)
    assert torch.equal(maps.grad[1], torch.zeros_like(maps.grad[1]))


@pytest.mark.parametrize("why", ["unguided", "empty"])
@pytest.mark.parametrize("average", ["image", "batch"])
def test_batch_without_marks_is_zero_with_a_graph(why, average):
    maps, targets, guided = example()
    if why == "unguided":
        guided[:] = False
    else:
        targets[:] = 0
    term = SpatialNLL(average=average)(maps, targets, guided)
    assert (float(term.value), term.images, term.floor) == (0.0, 0, 0.0)
    term.value.backward()
    assert torch.equal(maps.grad, torch.zeros_like(maps))


@pytest.mark.parametrize("resolution", ["input", "map"])
@pytest.mark.parametrize("average", ["image", "batch"])
@pytest.mark.parametrize("floor_probability", [None, 1e-10])
def test_finite_differences(resolution, average, floor_probability):
    maps, targets, guided = example(b=2, k=2, m=(3, 2), s=(7, 6), channels=2)
    guided[0, 1] = False
    loss = SpatialNLL(resolution=resolution, average=average, floor_probability=floor_probability)
    assert torch.autograd.gradcheck(lambda m: loss(m, targets, guided).value, (maps,))
    assert torch.autograd.gradgradcheck(lambda m: loss(m, targets, guided).value, (maps,))


def test_released_clamp_stops_learning_where_the_stable_form_does_not():
    maps = torch.zeros(1, 1, 8, 8)
    maps[..., 0, 0] = 30.0
    targets = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    targets[..., 4:6, 4:6] = 1
    guided = torch.ones(1, 1, dtype=torch.bool)
    official, stable = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    value = PROFILES["official_code"](official, targets, guided).value
    value.backward()
    SpatialNLL(resolution="map")(stable, targets, guided).value.backward()
    assert float(value) == pytest.approx(23.026, abs=1e-3)
    assert float(official.grad.abs().max()) == 0.0
    assert float(stable.grad[0, 0, 0, 0]) == pytest.approx(1.0, abs=1e-6)
    assert float(stable.grad[0, 0, 4, 4]) == pytest.approx(-0.25, abs=1e-6)


def test_any_hit_keeps_every_line_that_nearest_loses():
    kept = {"any_hit": 0, "nearest": 0}
    for row in range(64):
        targets = torch.zeros(1, 1, 512, 512)
        targets[0, 0, 200 + row, 40:400] = 1
        for how in kept:
            kept[how] += bool(reduce_marks(targets, (16, 16), how).any())
    assert kept == {"any_hit": 64, "nearest": 2}


def test_any_hit_covers_grids_that_do_not_divide():
    targets = torch.zeros(1, 1, 10, 10)
    targets[0, 0, 3, 3] = 1  # the pixel [3, 4) reaches into cells [2.5, 5) only at scale 2.5
    cells = reduce_marks(targets, (4, 4), "any_hit")[0, 0]
    assert cells.nonzero().tolist() == [[1, 1]]
    targets[0, 0, 2, 2] = 1  # [2, 3) straddles the edge at 2.5
    assert reduce_marks(targets, (4, 4), "any_hit")[0, 0].nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(4, 6, 32, 48), (7, 5, 30, 23)])
def test_enlarging_is_torchs_interpolation_and_has_its_adjoint(mode, size):
    torch.manual_seed(0)
    maps = torch.randn(2, 3, *size[:2], dtype=torch.float64)
    large = resize_maps(maps, size[2:], mode)
    torch.testing.assert_close(large, interpolate(maps, size=size[2:], mode=mode, align_corners=False))
    marks = torch.rand(2, 1, *size[2:], dtype=torch.float64)
    torch.testing.assert_close((large * marks).sum((2, 3)), (maps * gather_back(marks, size[:2], mode)).sum((2, 3)))


def test_three_axes():
    torch.manual_seed(0)
    maps = torch.randn(1, 2, 2, 3, 3, dtype=torch.float64)
    large = resize_maps(maps, (4, 6, 9), "bilinear")
    torch.testing.assert_close(large, interpolate(maps, size=(4, 6, 9), mode="trilinear", align_corners=False))
    targets = torch.zeros(1, 1, 4, 6, 9, dtype=torch.uint8)
    targets[0, 0, 1:3, 2, 4:7] = 1
    for resolution in ("input", "map"):
        term = SpatialNLL(resolution=resolution)(maps * 0, targets, torch.ones(1, 2, dtype=torch.bool))
        assert float(term.value) == pytest.approx(math.log(216 if resolution == "input" else 18), rel=1e-9)


def test_chosen_classes_only():
    maps, targets, guided = example(k=3)
    SpatialNLL(classes=(1,))(maps, targets, guided).value.backward()
    assert (maps.grad[:, 1] != 0).all()
    assert (maps.grad[:, [0, 2]] == 0).all()
    maps.grad = None
    labels = torch.tensor([2, 0, 1])
    SpatialNLL(labelled_only=True)(maps, targets, guided, labels).value.backward()
    assert (maps.grad != 0).flatten(2).all(-1).nonzero().tolist() == [[0, 2], [1, 0], [2, 1]]


def test_float16_and_autocast_compute_in_float32():
    maps, targets, guided = example(dtype=torch.float32, s=(64, 64))
    exact = SpatialNLL()(maps, targets, guided).value
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = SpatialNLL()(maps, targets, guided).value
    assert inside.dtype == torch.float32
    assert torch.equal(inside, exact)
    half = maps.detach().to(torch.bfloat16).requires_grad_()
    term = SpatialNLL()(half * 1000, targets, guided)
    term.value.backward()
    assert term.value.dtype == torch.float32
    assert torch.isfinite(half.grad).all()


def test_profiles_are_field_values():
    assert PROFILES["recommended"] == SpatialNLL()
    assert PROFILES["official_code"] == SpatialNLL("map", "batch", "nearest", floor_probability=1e-10)
    assert PROFILES["paper"].resolution == "input"


def test_what_does_not_fit_is_refused():
    maps, targets, guided = example()
    for args in ((maps, targets[:2], guided), (maps, targets, guided.float()), (maps, targets[..., :2, :2], guided)):
        with pytest.raises(GeometryError):
            SpatialNLL()(*args)
    for call in (
        lambda: SpatialNLL(resolution="both"),
        lambda: SpatialNLL(floor_probability=0.0),
        lambda: SpatialNLL(classes=(5,))(maps, targets, guided),
        lambda: SpatialNLL(labelled_only=True)(maps, targets, guided),
        lambda: MapNorm(norm=3),
    ):
        with pytest.raises(RecipeError):
            call()


def test_l1_of_a_softmax_is_a_constant_without_gradient():
    # golden 2
    maps, targets, guided = example()
    term = L1_PROFILES["paper"](maps, targets, guided)
    term.value.backward()
    assert float(term.value) == pytest.approx(3 * 2, rel=1e-9)
    assert term.excess == pytest.approx(0.0, abs=1e-9)
    assert float(maps.grad.abs().max()) < 1e-12


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("penalty_on", ["softmax", "cam"])
@pytest.mark.parametrize("resolution", ["input", "map"])
def test_norms_are_plain_sums(norm, penalty_on, resolution):
    maps, targets, guided = example()
    guided[:] = False  # needs no expert
    term = MapNorm(norm, penalty_on, resolution)(maps, targets, guided)
    total = 0.0
    for image in maps.detach():
        for one in image:
            if resolution == "input":
                one = interpolate(one[None, None], size=(16, 16), mode="bicubic", align_corners=False)[0, 0]
            if penalty_on == "softmax":
                one = one.exp() / one.exp().sum()
            total += sum(abs(float(x)) ** norm for x in one.flatten())
    assert float(term.value) == pytest.approx(total, rel=1e-9)
    assert term.excess > -1e-9
    assert torch.autograd.gradcheck(lambda m: MapNorm(norm, penalty_on, resolution)(m, targets, guided).value, (maps,))


def test_l2_floor_is_the_flat_softmax():
    maps, targets, guided = example()
    assert MapNorm(2, "softmax")(maps * 0, targets, guided).excess == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("average", ["image", "batch"])
@pytest.mark.parametrize("resolution", ["input", "map"])
def test_shares_weigh_pixels_and_the_floor_is_their_entropy(average, resolution):
    torch.manual_seed(5)
    maps, targets = torch.randn(3, 2, 6, 5, dtype=torch.float64), torch.randint(0, 4, (3, 2, 6, 5)).double() / 3
    targets[0, 0] = 0.0
    targets[0, 0, 2, 2] = 1 / 3  # a mark of less than one pixel in all
    guided = torch.tensor([[True, True], [True, False], [False, False]])
    loss = SpatialNLL(weigh="share", average=average, resolution=resolution)
    term = loss(maps, targets, guided)
    each, least, areas = {}, {}, {}
    for i, c in itertools.product(range(3), range(2)):
        if guided[i, c]:
            p, s = torch.softmax(maps[i, c].flatten(), 0), targets[i, c].flatten()
            areas[i, c] = float(s.sum())
            q = s / s.sum()
            each[i, c] = sum(-float(a) * float(torch.log(b)) for a, b in zip(q, p, strict=True) if a > 0)
            least[i, c] = sum(-float(a) * float(torch.log(a)) for a in q if a > 0)
    if average == "batch":
        weights = {k: a / sum(areas.values()) for k, a in areas.items()}
    else:
        weights = {(i, c): a / sum(v for (j, _), v in areas.items() if j == i) / 2 for (i, c), a in areas.items()}
    assert float(term.value) == pytest.approx(sum(weights[k] * each[k] for k in each), rel=1e-9)
    assert term.floor == pytest.approx(sum(weights[k] * least[k] for k in least), rel=1e-9)
    hard = targets.ne(0).double()
    plain, shares = SpatialNLL(average=average)(maps, hard, guided), SpatialNLL(average=average, weigh="share")
    assert float(plain.value) == float(shares(maps, hard, guided).value) and plain.floor == pytest.approx(
        shares(maps, hard, guided).floor
    )
