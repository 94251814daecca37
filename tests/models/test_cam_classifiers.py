"""Pools, class maps, attention and fusion against slow restatements and the plain network they restate."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from sightline.errors import GeometryError, RecipeError
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel, ClassMaps
from sightline.models.necks import Fusion, Pylon, PyramidAttention, ResidualAttention, SelfAttention
from sightline.models.pooling import LogSumExpPool, MaxPool, MeanPool, NoisyOrPool, SoftmaxPool, TopPool

POOLS = [
    MeanPool(),
    SoftmaxPool(),
    SoftmaxPool(0.3),
    MaxPool(),
    LogSumExpPool(),
    LogSumExpPool(0.5),
    TopPool(),
    TopPool(0.3),
    NoisyOrPool(),
    NoisyOrPool(0.2),
]
ATTENTION = [ResidualAttention(), SelfAttention(), SelfAttention(value_divisor=2), PyramidAttention(divisor=4)]


def slow_pool(pool, cells):
    cells = [float(x) for x in cells]
    if isinstance(pool, MeanPool):
        return sum(cells) / len(cells)
    if isinstance(pool, MaxPool):
        return max(cells)
    if isinstance(pool, SoftmaxPool):
        weights = [math.exp(x / pool.temperature) for x in cells]
        return sum(w * x for w, x in zip(weights, cells, strict=True)) / sum(weights)
    if isinstance(pool, TopPool):
        kept = sorted(cells, reverse=True)[: max(1, round(pool.share_kept * len(cells)))]
        return sum(kept) / len(kept)
    if isinstance(pool, NoisyOrPool):
        none = math.prod(1 - 1 / (1 + math.exp(-x) * (1 - pool.prior) / pool.prior) for x in cells)
        return math.log((1 - none) / none)
    return math.log(sum(math.exp(pool.r * x) for x in cells) / len(cells)) / pool.r


@pytest.mark.parametrize("pool", POOLS, ids=repr)
@pytest.mark.parametrize("size", [(4, 5), (2, 3, 4)])
def test_pool_equals_its_formula_and_its_shares(pool, size):
    torch.manual_seed(0)
    maps = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    logits = pool(maps)
    for i in range(2):
        for c in range(3):
            assert float(logits[i, c].detach()) == pytest.approx(
                slow_pool(pool, maps[i, c].detach().flatten()), rel=1e-9
            )
    share = pool.share(maps)
    assert share.shape == maps.shape
    torch.testing.assert_close(share.flatten(2).sum(-1), logits)
    assert torch.autograd.gradcheck(pool, (maps,))


def test_mean_pooled_maps_are_pooling_then_linear():
    # golden 4
    torch.manual_seed(0)
    head = ClassMaps(64, 5)
    features = torch.randn(3, 64, 7, 7)
    expected = head.linear(features.mean((2, 3)))
    torch.testing.assert_close(MeanPool()(head(features)), expected, atol=1e-6, rtol=0)


def test_class_maps_are_a_1x1_convolution():
    torch.manual_seed(0)
    head = ClassMaps(16, 4)
    conv = nn.Conv2d(16, 4, 1)
    conv.weight.data, conv.bias.data = head.linear.weight.data[:, :, None, None], head.linear.bias.data
    features = torch.randn(2, 16, 5, 3)
    torch.testing.assert_close(head(features), conv(features))


def test_log_sum_exp_runs_from_mean_to_max_without_overflow():
    # golden 7
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(LogSumExpPool(1e-6)(maps), MeanPool()(maps), atol=1e-5, rtol=0)
    torch.testing.assert_close(LogSumExpPool(1e4)(maps), MaxPool()(maps), atol=1e-3, rtol=0)
    huge = (torch.randn(2, 3, 8, 8) * 1e4).requires_grad_()
    pooled = LogSumExpPool()(huge)
    pooled.sum().backward()
    assert torch.isfinite(pooled).all()
    assert torch.isfinite(huge.grad).all()
    torch.testing.assert_close(pooled, MaxPool()(huge), atol=0.5, rtol=0)


def test_cold_softmax_is_max_and_hot_softmax_is_mean():
    maps = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(SoftmaxPool(1e-3)(maps), MaxPool()(maps), atol=1e-3, rtol=0)
    torch.testing.assert_close(SoftmaxPool(1e6)(maps), MeanPool()(maps), atol=1e-4, rtol=0)


def test_top_pool_lies_between_mean_and_max():
    maps = torch.tensor([[[[4.0, 1.0], [3.0, -2.0]]]])
    assert float(TopPool(0.5)(maps)) == 3.5
    assert TopPool(0.5).share(maps).tolist() == [[[[2.0, 0.0], [1.5, 0.0]]]]
    torch.testing.assert_close(TopPool(1.0)(maps), MeanPool()(maps))
    torch.testing.assert_close(TopPool(1e-6)(maps), MaxPool()(maps))


def test_noisy_or_is_sure_where_any_cell_is_and_keeps_to_numbers():
    maps = torch.full((1, 2, 96, 96), -60.0)
    maps[0, 1, 5, 5] = 30.0
    maps.requires_grad_()
    logits = NoisyOrPool()(maps)
    uncertain, sure = logits[0].tolist()
    # one sure cell decides; where none knows anything it is as unlikely as the cells, and a number
    assert sure == pytest.approx(30 + math.log(1e-4 / (1 - 1e-4)), rel=1e-5)
    assert -80 < uncertain < -50
    logits.sum().backward()
    assert torch.isfinite(maps.grad).all() and float(maps.grad[0, 1, 5, 5]) == pytest.approx(1.0, rel=1e-4)
    # 6,931 cells that know nothing: about a half
    assert float(NoisyOrPool()(torch.zeros(1, 1, 6931))) == pytest.approx(0.0, abs=1e-3)
    assert torch.isfinite(NoisyOrPool()(torch.tensor([[[-1e4, -1e4]], [[1e4, 1e4]]]))).all()


@pytest.mark.parametrize("low", [-35.0, -84.0, -95.0, -1e4])
def test_noisy_or_shares_its_logit_however_low_all_cells_are(low):
    """S underflows below -80: parts of it were infinite, or no number, beside a finite logit."""
    maps = torch.full((1, 1, 2, 2), low)
    maps[0, 0, 0, 1] += 1.0
    maps.requires_grad_()
    pool, parts = NoisyOrPool(), torch.tensor([1.0, math.e, 1.0, 1.0]) / (3.0 + math.e)
    logit, share = pool(maps), pool.share(maps)
    assert float(logit.detach()) == pytest.approx(low + math.log(1e-4 / (1 - 1e-4)) + math.log(3.0 + math.e), rel=1e-5)
    torch.testing.assert_close(share.detach().flatten(), parts * float(logit.detach()), rtol=1e-4, atol=0)
    (gradient,) = torch.autograd.grad(logit.sum() + share.square().sum(), maps, retain_graph=True)
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(torch.autograd.grad(logit.sum(), maps)[0].flatten(), parts, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: NoisyOrPool(0.0),
        lambda: SoftmaxPool(0.0),
        lambda: TopPool(0.0),
        lambda: TopPool(1.5),
        lambda: LogSumExpPool(-1.0),
        lambda: Fusion(stride=5),
        lambda: Pylon(stride=12),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(RecipeError):
        make()


@pytest.mark.parametrize("config", ATTENTION, ids=repr)
@pytest.mark.parametrize("size", [(16, 16), (24, 24), (7, 7), (8, 8), (5, 9), (2, 2), (1, 1)])
def test_attention_keeps_the_shape(config, size):
    torch.manual_seed(0)
    module = config.build(16).eval()
    x = torch.randn(2, 16, *size, requires_grad=True)
    out = module(x)
    assert out.shape == x.shape
    out.sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("config", ATTENTION, ids=repr)
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (4, 4), (3, 3)])
def test_attention_trains_on_one_image(config, size):
    config.build(16).train()(torch.randn(1, 16, *size)).sum().backward()


def test_self_attention_starts_as_identity_and_follows_its_formula():
    torch.manual_seed(0)
    module = SelfAttention().build(16)
    x = torch.randn(2, 16, 3, 4)
    assert torch.equal(module(x), x)
    module.gamma.data.fill_(0.7)
    out = module(x)
    for i in range(2):
        q, k, v = (conv(x)[i].flatten(1) for conv in (module.query, module.key, module.value))
        for j in range(12):
            weights = torch.softmax(torch.stack([q[:, j] @ k[:, n] for n in range(12)]), 0)
            expected = x[i].flatten(1)[:, j] + 0.7 * sum(weights[n] * v[:, n] for n in range(12))
            torch.testing.assert_close(out[i].flatten(1)[:, j], expected, atol=1e-5, rtol=1e-4)


def test_residual_attention_scales_its_trunk_between_one_and_two():
    torch.manual_seed(0)
    module = ResidualAttention().build(16).eval()
    x = torch.randn(2, 16, 8, 8)
    ratio = module(x) / module.trunk(x)
    assert 1.0 <= float(ratio.min()) < float(ratio.max()) <= 2.0


def test_pyramid_attention_uses_a_level_only_where_its_grid_has_two_cells():
    torch.manual_seed(0)
    module = PyramidAttention(divisor=4).build(16)

    def levels(size):
        module.zero_grad()
        module.train()(torch.randn(2, 16, size, size)).sum().backward()
        return sum(down[0].weight.grad is not None and bool((down[0].weight.grad != 0).any()) for down in module.down)

    assert [levels(size) for size in (24, 16, 12, 9, 8, 7, 4, 2)] == [3, 3, 3, 3, 2, 2, 1, 0]


@pytest.mark.parametrize("attention", [None, *ATTENTION], ids=repr)
def test_model_shows_maps_that_pool_to_its_logits(attention):
    torch.manual_seed(0)
    net = ClassMapModel(Backbone("resnet18"), SoftmaxPool(), attention).build(3).eval()
    evidence = net(torch.rand(2, 1, 64, 96))
    assert evidence.maps.shape == (2, 3, 2, 3)
    torch.testing.assert_close(evidence.logits, SoftmaxPool()(evidence.maps))
    torch.testing.assert_close(evidence.extras["attention"].flatten(2).sum(-1), evidence.logits)


def test_baseline_equals_timms_own_network():
    import timm

    torch.manual_seed(0)
    net = ClassMapModel(Backbone("resnet18"), MeanPool()).build(4).eval()
    whole = timm.create_model("resnet18", num_classes=4).eval()
    whole.load_state_dict(
        {**net.trunk.net.state_dict(), **{f"fc.{k}": v for k, v in net.head.linear.state_dict().items()}}
    )
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(net(images).logits, whole(net.trunk.normalise(images)), atol=1e-5, rtol=1e-5)


def test_equal_seeds_build_equal_networks():
    model = ClassMapModel(Backbone("resnet18"), attention=SelfAttention(), fusion=Fusion(16, 8))
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(model.build(2).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
    assert not torch.equal(states[0]["head.linear.weight"], states[2]["head.linear.weight"])


@pytest.mark.parametrize(("name", "stride"), [("resnet18", 16), ("resnet18", 8), ("mobilenetv2_100", 8)])
def test_fusion_gives_finer_maps_and_feeds_every_stage(name, stride):
    torch.manual_seed(0)
    net = ClassMapModel(Backbone(name), fusion=Fusion(stride, 16)).build(2)
    evidence = net(torch.rand(2, 1, 96, 64))
    assert net.stride == stride
    assert evidence.maps.shape == (2, 2, 96 // stride, 64 // stride)
    evidence.logits.sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in net.fusion.laterals.parameters())


def test_fusion_follows_its_formula():
    torch.manual_seed(0)
    net = ClassMapModel(Backbone("resnet18"), fusion=Fusion(16, 8)).build(2).eval()
    images = torch.rand(1, 3, 70, 70)  # sizes that do not divide
    top, stages = net.trunk.levels(images)
    stage = stages[net.fusion.chosen[0]]
    grown = nn.functional.interpolate(net.fusion.top(top), size=stage.shape[2:], mode="bilinear")
    expected = net.fusion.joins[0](grown + net.fusion.laterals[0](stage))
    torch.testing.assert_close(net.features(images), expected)


def slow_pylon(net, images):
    """The published decoder, written out with functions of torch on the network's own weights (evaluation mode)."""

    def layer(block, x):
        conv, norm = block[0], block[1]
        x = nn.functional.conv2d(x, conv.weight, padding=conv.kernel_size[0] // 2)
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        return (x * scale[:, None, None] + shift[:, None, None]).clamp(min=0)

    def grow(small, like):
        rows, columns = like.shape[2:]
        weights = []
        for wanted, there in ((rows, small.shape[2]), (columns, small.shape[3])):
            # corner cells on corner cells
            at = torch.arange(wanted, dtype=torch.float64) * (there - 1) / max(wanted - 1, 1)
            low = at.floor().long().clamp(max=there - 1)
            weight = torch.zeros(wanted, there, dtype=torch.float64)
            for i in range(wanted):
                weight[i, low[i]] += 1 - (at[i] - low[i])
                if low[i] + 1 < there:
                    weight[i, low[i] + 1] += at[i] - low[i]
            weights.append(weight)
        return torch.einsum("ij,bcjl,kl->bcik", weights[0], small, weights[1])

    neck = net.fusion
    x, stages = net.trunk.levels(images)
    attention, halves = neck.pyramid, [x]
    for down in attention.down:
        halves.append(layer(down, nn.functional.max_pool2d(halves[-1], 2)))
    a1, a2, a3 = (layer(up, half) for up, half in zip(attention.up, halves[1:], strict=True))
    weight = grow(grow(grow(a3, a2) + a2, a1) + a1, x)
    fine = weight * layer(attention.main, x)
    for index, lateral in zip(neck.chosen, neck.laterals, strict=True):
        fine = grow(fine, stages[index]) + layer(lateral[1], layer(lateral[0], stages[index]))
    return fine


def test_pylon_follows_its_paper():
    torch.manual_seed(0)
    net = ClassMapModel(Backbone("resnet18"), MaxPool(), fusion=Pylon(channels=8)).build(2)
    # statistics that are not those of a new layer
    net(torch.rand(2, 1, 256, 320)).logits.sum().backward()
    assert all(bool((p.grad != 0).any()) for p in net.fusion.laterals.parameters())
    net = net.double().eval()
    with torch.no_grad():
        for layer in net.fusion.pyramid.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.bias += 0.3  # an attention map of one channel may be zero everywhere under its ReLU
        images = torch.rand(1, 3, 256, 288, dtype=torch.float64)
        evidence = net(images)
        torch.testing.assert_close(net.features(images), slow_pylon(net, images))
    assert net.stride == 4 and evidence.maps.shape == (1, 2, 64, 72)
    assert torch.equal(evidence.logits, evidence.maps.amax((2, 3)))
    # 32 px: one cell, no smaller scale
    torch.testing.assert_close(net(images[..., :32, :32]).maps.shape, torch.Size([1, 2, 8, 8]))


def test_fusion_that_adds_nothing_is_refused():
    with pytest.raises(RecipeError, match="already has stride 16"):
        ClassMapModel(Backbone("resnet18", output_stride=16), fusion=Fusion(16)).build(2)
    with pytest.raises(RecipeError, match="already has stride 8"):
        ClassMapModel(Backbone("resnet18", output_stride=8), fusion=Pylon(8)).build(2)


def test_autocast_leaves_maps_and_logits_in_float32():
    torch.manual_seed(0)
    net = ClassMapModel(Backbone("resnet18")).build(2).eval()
    images = torch.rand(2, 1, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        evidence = net(images)
    assert evidence.logits.dtype == evidence.maps.dtype == torch.float32
    torch.testing.assert_close(evidence.logits, net(images).logits, atol=0.05, rtol=0.05)


def test_channels_last_gives_the_same():
    torch.manual_seed(0)
    net = ClassMapModel(Backbone("resnet18"), attention=SelfAttention()).build(2).eval()
    images = torch.rand(2, 1, 64, 64)
    expected = net(images)
    swapped = net.to(memory_format=torch.channels_last)(images)
    torch.testing.assert_close(swapped.maps, expected.maps, atol=1e-5, rtol=1e-4)


def test_images_of_another_kind_are_refused():
    net = ClassMapModel(Backbone("resnet18")).build(2)
    for shape in ((2, 2, 64, 64), (2, 64, 64)):
        with pytest.raises(GeometryError, match="Images must be"):
            net(torch.rand(*shape))
    with pytest.raises(RecipeError):
        ClassMapModel(Backbone("resnet18")).build(0)


def test_one_map_is_logistic_regression_on_the_second_class():
    torch.manual_seed(0)
    net = ClassMapModel(Backbone("test_resnet"), pool=TopPool(0.5), one_map=True).build(2).eval()
    evidence = net(torch.rand(2, 1, 64, 96))
    assert evidence.maps.shape[:2] == (2, 2) and not evidence.maps[:, 0].any() and not evidence.logits[:, 0].any()
    torch.testing.assert_close(evidence.logits.softmax(1)[:, 1], evidence.logits[:, 1].sigmoid())
    assert net.head.linear.weight.shape[0] == 1
    # an untrained network believes hardly any cell
    assert float(net.head.linear.bias.detach()) == -2.0
    with pytest.raises(RecipeError, match="two classes"):
        ClassMapModel(Backbone("test_resnet"), one_map=True).build(3)


def test_a_joined_head_begins_as_the_map_alone_and_learns_from_both():
    images = torch.rand(3, 1, 64, 64)
    for config, rows in (
        (ClassMapModel(Backbone("test_resnet"), fusion=Fusion(8, 8), one_map=True), 1),
        (ClassMapModel(Backbone("test_resnet")), 2),
    ):
        nets = []
        for joined in (False, True):
            torch.manual_seed(0)
            nets.append(replace(config, joined=joined).build(2).eval())
        alone, both = nets
        assert torch.equal(alone(images).logits, both(images).logits)
        with torch.no_grad():
            both.picture.linear.weight.normal_()
            both.picture.linear.bias.fill_(0.5)
        last = both.trunk(images).mean(dim=(2, 3))
        picture = last @ both.picture.linear.weight.T + 0.5
        assert picture.shape[1] == rows
        evidence = both(images)
        torch.testing.assert_close(evidence.logits[:, -rows:], alone(images).logits[:, -rows:] + picture)
        assert torch.equal(evidence.maps, alone(images).maps)
        evidence.logits[:, 1].sum().backward()
        assert both.picture.linear.weight.grad.any() and both.head.linear.weight.grad.any()
