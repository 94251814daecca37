"""The 3D U-Net of Engstler 2022 and MONAI's networks: shapes, heads, norms, what is loaded."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from sightline.errors import GeometryError, RecipeError, UnreadableFile
from sightline.explainers.cam import ClassActivationMap, GradCAM
from sightline.explainers.captum import DeepLift
from sightline.losses.spatial_nll import SpatialNLL
from sightline.models.pooling import MeanPool, SoftmaxPool
from sightline.models.volume_networks import NAMES, VolumeBackbone, VolumeUNet
from sightline.papers.catalogue import CATALOGUE
from sightline.training.serialization import build_from_plain, to_plain

SMALL = VolumeUNet(width=4, size=16)
# MONAI's network of ten layers, an eighth as wide
SLIM = {"widen_factor": 0.125}


def built(config, n_classes=2, seed=0):
    torch.manual_seed(seed)
    return config.build(n_classes)


def cubes(n, side=16, seed=1):
    return torch.rand(n, 1, side, side, side, generator=torch.Generator().manual_seed(seed))


def trained(network, steps=3, passes=8):
    """A few steps, and running statistics that are those of the data."""
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    network.train()
    for step in range(steps):
        optimiser.zero_grad()
        functional.cross_entropy(network(cubes(6, seed=step)).logits, torch.tensor([0, 1] * 3)).backward()
        optimiser.step()
    with torch.no_grad():
        for step in range(passes):
            network(cubes(6, seed=step))
    return network.eval()


def test_the_published_network_is_the_published_one():
    with torch.device("meta"):
        network = VolumeUNet().build(2)
        shapes = []
        for stage in network.encoder:
            stage.register_forward_hook(lambda module, given, out: shapes.append(tuple(out.shape[1:])))
        network.eval().features(torch.zeros(1, 1, 64, 64, 64))
    assert shapes == [(64, 64, 64, 64), (128, 32, 32, 32), (256, 16, 16, 16), (512, 8, 8, 8)]
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv3d)]
    widths = [1, 32, 64, 64, 128, 128, 256, 256, 512]
    assert [(c.in_channels, c.out_channels) for c in convolutions[:8]] == [
        (1, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512),
    ]  # fmt: skip
    assert [c.out_channels for c in convolutions[:8]] == widths[1:]
    assert [c.out_channels for c in convolutions[8:]] == [256, 128, 64, 8]
    assert {tuple(c.kernel_size) for c in convolutions} == {(3, 3, 3)}
    assert [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)] == [
        (4096, 256), (256, 128), (128, 64), (64, 1),
    ]  # fmt: skip
    # nothing but convolution and affine instance norm until the flattened features
    kinds = {type(m) for m in network.head.convolutions.modules() if not list(m.children())}
    assert kinds == {nn.Conv3d, nn.InstanceNorm3d}
    assert all(m.affine for m in network.head.modules() if isinstance(m, nn.InstanceNorm3d))
    # counted by hand: weights and biases of convolutions, norms and linear layers
    pairs = [(c.in_channels, c.out_channels) for c in convolutions]
    by_hand = sum(27 * a * b + b + 2 * b for a, b in pairs)
    by_hand += sum(a * b + b + 2 * b for a, b in ((4096, 256), (256, 128), (128, 64))) + 64 + 1
    assert sum(p.numel() for p in network.parameters()) == by_hand == 12_778_777


@pytest.mark.parametrize("size", [16, 40, 96])
def test_the_flattened_features_follow_the_size(size):
    with torch.device("meta"):
        network = VolumeUNet(size=size).build(2)
    assert next(m for m in network.modules() if isinstance(m, nn.Linear)).in_features == size**3 // 64


def test_the_dissected_layer_is_what_follows_the_last_relu():
    network = built(SMALL).eval()
    held = {}
    network.get_submodule(network.dissected).register_forward_hook(lambda m, given, out: held.update(out=out))
    network(cubes(2))
    assert held["out"].shape == (2, 64, 2, 2, 2)
    assert held["out"].min() == 0.0 and held["out"].max() > 0.0
    assert torch.equal(held["out"], network.features(cubes(2)))


def test_two_classes_make_the_cross_entropy_binary():
    network = built(SMALL).eval()
    logits = network(cubes(5)).logits
    labels = torch.tensor([0, 1, 1, 0, 1])
    assert torch.equal(logits[:, 0], torch.zeros(5)) and logits[:, 1].unique().numel() == 5
    assert torch.allclose(
        functional.cross_entropy(logits, labels),
        functional.binary_cross_entropy_with_logits(logits[:, 1], labels.float()),
    )
    assert torch.allclose(logits.softmax(1)[:, 1], logits[:, 1].sigmoid())


@pytest.mark.parametrize("n_classes", [1, 3, 4])
@pytest.mark.parametrize("head", ["convolutions", "maps"])
def test_other_numbers_of_classes_have_a_logit_each(n_classes, head):
    logits = built(VolumeUNet(width=4, size=16, head=head), n_classes).eval()(cubes(3)).logits
    assert logits.shape == (3, n_classes) and not (logits == 0).any()


def drift(network):
    """How far the logit of a volume moves with what it is batched with, as a share of how far volumes lie apart."""
    one, others = cubes(1), cubes(3, seed=5) ** 2
    with torch.no_grad():
        alone, among = network(one).logits, network(torch.cat([one, others])).logits
    return float((alone[0] - among[0]).abs().max() / (among[0] - among[1:]).abs().max())


@pytest.mark.parametrize("head", ["convolutions", "maps"])
def test_predictions_do_not_depend_on_the_batch_but_as_released(head):
    # golden check 20
    for norm in ("batch", "instance"):
        assert drift(trained(built(VolumeUNet(width=4, size=16, head=head, norm=norm)))) < 1e-3, norm
    assert drift(trained(built(VolumeUNet(width=4, size=16, head=head, norm="batch_always")))) > 0.1
    assert head != "maps" or drift(trained(built(VolumeBackbone("resnet10", stages=1, options=SLIM)), 1)) < 1e-3


def test_batch_always_keeps_no_statistics_and_batch_does():
    kept = {
        norm: [
            name for name in built(VolumeUNet(width=4, size=16, norm=norm)).encoder.state_dict() if "running" in name
        ]
        for norm in ("batch", "instance", "batch_always")
    }
    assert len(kept["batch"]) == 16 and not kept["instance"] and not kept["batch_always"]


@pytest.mark.parametrize("head", ["convolutions", "maps"])
def test_dropout_is_passed_on(head):
    def spread(dropout):
        network = built(VolumeUNet(width=4, size=16, head=head, dropout=dropout, norm="instance")).eval()
        for module in network.modules():
            if isinstance(module, (nn.Dropout, nn.Dropout3d)):
                module.train()
        torch.manual_seed(3)
        draws = torch.stack([network(cubes(2)).logits for _ in range(4)])
        return float(draws.detach().std(0).max())

    assert spread(0.3) > 1e-3
    assert spread(0.0) == 0.0


def test_the_released_dropout_is_nought_and_ours_is_printed():
    assert VolumeUNet().dropout == 0.3
    rates = [m.p for m in built(SMALL).modules() if isinstance(m, nn.Dropout)]
    assert rates == [0.3] * 3


@pytest.mark.parametrize(
    "config",
    [VolumeUNet(width=4, dropout=0.0, head="maps"), VolumeBackbone("resnet10", stages=2, options=SLIM)],
    ids=["unet", "resnet"],
)
def test_maps_average_to_their_logits_and_can_be_guided(config):
    network = built(config).eval()
    images = cubes(2, 24)
    evidence = network(images)
    side = 24 // network.stride
    assert evidence.maps.shape == (2, 2, side, side, side)
    assert torch.allclose(evidence.maps.flatten(2).mean(2), evidence.logits, atol=1e-6)
    assert torch.allclose(evidence.extras["attention"].flatten(2).sum(2), evidence.logits, atol=1e-5)
    targets = torch.zeros(2, 1, 24, 24, 24, dtype=torch.uint8)
    targets[:, :, 8:16, 8:16, 8:16] = 1
    guidance, guided = SpatialNLL(resolution="map"), torch.ones(2, 2, dtype=torch.bool)
    optimiser = torch.optim.Adam(network.train().parameters(), 1e-3)
    excess = []
    for _ in range(6):
        optimiser.zero_grad()
        term = guidance(network(images).maps, targets, guided)
        term.value.backward()
        optimiser.step()
        excess.append(float(term.excess))
    assert excess[-1] < 0.9 * excess[0], excess


def test_softmax_pooling_and_one_map():
    evidence = built(VolumeUNet(width=4, head="maps", pool=SoftmaxPool(), one_map=True)).eval()(cubes(2))
    assert torch.equal(evidence.maps[:, 0], torch.zeros_like(evidence.maps[:, 0]))
    second = evidence.maps[:, 1].flatten(1)
    assert torch.allclose(evidence.logits[:, 1], (second.softmax(1) * second).sum(1), atol=1e-6)
    with pytest.raises(RecipeError, match="one_map"):
        VolumeUNet(width=4, one_map=True).build(2)
    with pytest.raises(RecipeError, match="one_map"):
        VolumeBackbone(one_map=True).build(3)


def test_explainers_work_on_volumes():
    for config in (
        VolumeUNet(width=4, size=16),
        VolumeUNet(width=4, size=16, head="maps"),
        VolumeBackbone("resnet10", options=SLIM),
    ):
        network = built(config).eval()
        maps = GradCAM()(network, cubes(2), (1,))
        assert maps.shape[:2] == (2, 1) and maps.ndim == 5 and torch.isfinite(maps).all()
    # DeepLIFT meets every activation and pooling once; what it gives each voxel sums to the rise of the logit
    network = trained(built(SMALL))
    rise = network(cubes(2)).logits[:, 1] - network(torch.zeros(2, 1, 16, 16, 16)).logits[:, 1]
    assert torch.allclose(DeepLift()(network, cubes(2), (1,)).flatten(1).sum(1), rise, rtol=1e-2, atol=1e-3)
    network = built(VolumeUNet(width=4, size=16, head="maps")).eval()
    assert torch.equal(ClassActivationMap()(network, cubes(2), (1,))[:, 0], network(cubes(2)).maps[:, 1])


def test_mixed_precision_and_channels_last_give_nearly_the_same():
    for config in (
        SMALL,
        VolumeUNet(width=4, size=16, head="maps"),
        VolumeBackbone("resnet10", stages=2, options=SLIM),
    ):
        network = trained(built(config), 1)
        with torch.no_grad():
            plain = network(cubes(2)).logits
            with torch.autocast("cpu", torch.bfloat16):
                mixed = network(cubes(2)).logits
            turned = network.to(memory_format=torch.channels_last_3d)(
                cubes(2).contiguous(memory_format=torch.channels_last_3d)
            ).logits
        assert mixed.dtype == torch.float32
        assert torch.allclose(turned, plain, atol=1e-4)
        assert torch.allclose(mixed, plain, atol=0.1 * float(plain.abs().max()) + 0.02)


def test_equal_seeds_give_equal_networks():
    for config in (SMALL, VolumeBackbone("resnet10", stages=1, options=SLIM)):
        a, b, c = built(config), built(config), built(config, seed=1)
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
        assert any(not torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))


@pytest.mark.parametrize(
    ("head", "epochs", "rate"), [("maps", 6, 1e-2), pytest.param("convolutions", 10, 2e-2, marks=pytest.mark.slow)]
)
def test_a_small_network_learns_on_a_cpu(head, epochs, rate):
    # one octant is bright in one of the classes
    rng = np.random.default_rng(0)
    images, labels = rng.random((24, 1, 16, 16, 16), dtype=np.float32) * 0.3, np.arange(24) % 2
    images[labels == 1, :, :8, :8, :8] += 0.3
    images, labels = torch.from_numpy(images), torch.from_numpy(labels)
    network = built(VolumeUNet(width=4, size=16, head=head, dropout=0.0))
    optimiser = torch.optim.Adam(network.parameters(), rate)
    for _ in range(epochs):
        network.train()
        for part in torch.randperm(24).split(8):
            optimiser.zero_grad()
            functional.cross_entropy(network(images[part]).logits, labels[part]).backward()
            optimiser.step()
    with torch.no_grad():
        assert (network.eval()(images).logits.argmax(1) == labels).float().mean() > 0.9


def test_errors_say_what_fits():
    for fields, match in (
        ({"width": 6}, "multiple of 4"),
        ({"width": 0}, "multiple of 4"),
        ({"size": 20}, "multiple of 8"),
        ({"size": 8}, "from 16"),
        ({"dropout": 1.0}, "below 1"),
    ):
        with pytest.raises(RecipeError, match=match):
            VolumeUNet(**fields)
    with pytest.raises(RecipeError, match="at least one class"):
        SMALL.build(0)
    network = built(SMALL).eval()
    with pytest.raises(GeometryError, match="made for cubes of 16"):
        network(cubes(1, 24))
    with pytest.raises(GeometryError, match="multiples of 8"):
        network(cubes(1, 20))
    with pytest.raises(GeometryError, match=r"\[b, 1, d, h, w\]"):
        network(torch.rand(1, 3, 16, 16, 16))
    with pytest.raises(RecipeError, match="Did you mean resnet18"):
        VolumeBackbone("resnet17")
    with pytest.raises(RecipeError, match="has 4 stages"):
        VolumeBackbone("resnet10", stages=5).build(2)
    with pytest.raises(RecipeError, match="MONAI cannot build"):
        VolumeBackbone("resnet10", options={"colour": 3}).build(2)
    with pytest.raises(RecipeError, match="loads weights"):
        VolumeBackbone("resnet10", options={"pretrained": True}).build(2)
    with pytest.raises(RecipeError, match="MONAI cannot build"):
        VolumeBackbone("resnet10", options={"conv1_t_stride": 0}).build(2)
    with pytest.raises(GeometryError, match=r"\[b, 1, d, h, w\]"):
        built(VolumeBackbone("efficientnet-b0", stages=1))(torch.rand(1, 3, 16, 16, 16))


@pytest.mark.parametrize("config", [VolumeUNet(8, 0.1, "instance", "maps", SoftmaxPool()), VolumeBackbone("resnet10")])
def test_recipes_keep_them(config):
    assert build_from_plain(to_plain(config, CATALOGUE), CATALOGUE) == config
    assert config.without_weights() == config


# -- MONAI's networks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stride", "channels"),
    [
        ("resnet10", 16, 512),
        pytest.param("densenet121", 32, 1024, marks=pytest.mark.slow),
        pytest.param("seresnet50", 32, 2048, marks=pytest.mark.slow),
        ("efficientnet-b0", 32, 1280),
    ],
)
def test_every_family_computes_what_monais_network_does(name, stride, channels):
    from sightline.models.volume_networks import _create

    torch.manual_seed(0)
    net = _create(name, {})
    network = built(VolumeBackbone(name, mean=0.0, std=1.0))
    # the same weights under MONAI's own order of layers
    ours = list(network.trunk.parameters())
    theirs = [p for n, p in net.named_parameters() if not n.startswith(("_fc", "last_linear", "class_layers"))]
    assert sorted(p.shape for p in ours) == sorted(p.shape for p in theirs)
    assert (network.stride, network.trunk.channels_out) == (stride, channels)
    by_size = {}
    for p in theirs:
        by_size.setdefault(tuple(p.shape), []).append(p)
    with torch.no_grad():
        for p in ours:
            p.copy_(by_size[tuple(p.shape)].pop(0))
    # the classifier on pooled features is the class maps, pooled
    last = next((m for m in reversed(list(net.modules())) if isinstance(m, nn.Linear)), None)
    images = cubes(1, 2 * stride)
    with torch.no_grad():
        features = network.eval().features(images)
        if last is None:
            x = net.eval().act(net.bn1(net.conv1(images)))
            x = net.layer4(net.layer3(net.layer2(net.layer1(net.maxpool(x)))))
            assert torch.allclose(features, x, atol=1e-5)
        else:
            pooled = features.flatten(2).mean(2)
            assert torch.allclose(net.eval()(images), last(pooled), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "efficientnet-b0"])
def test_fewer_stages_give_finer_maps(name):
    strides, costs = [], []
    for stages in (1, 2, 3):
        # shapes alone: nothing is drawn, nothing computed
        with torch.device("meta"):
            network = VolumeBackbone(name, stages=stages).build(2)
        strides.append(network.stride)
        costs.append(sum(p.numel() for p in network.parameters()))
    assert strides == sorted(set(strides)) and costs == sorted(set(costs)), (strides, costs)


def test_every_name_is_monais():
    from monai.networks import nets
    from monai.networks.nets.efficientnet import efficientnet_params

    for name in NAMES:
        known = (
            name in efficientnet_params or hasattr(nets, name) or hasattr(nets, name.replace("seresnet", "SEResNet"))
        )
        assert known, name


def stored_resnet(path, prefix="module.", **options):
    from monai.networks.nets import resnet10

    torch.manual_seed(7)
    net = resnet10(spatial_dims=3, n_input_channels=1, feed_forward=False, **options)
    stored = {f"{prefix}{key}": value for key, value in net.state_dict().items()}
    save_file({**stored, f"{prefix}conv_seg.0.weight": torch.zeros(2, 2)}, path)
    return net


def test_weights_in_the_manner_of_medical_net_are_loaded(tmp_path):
    path = tmp_path / "resnet10.safetensors"
    net = stored_resnet(path, bias_downsample=False, **SLIM)
    config = VolumeBackbone("resnet10", weights=str(tmp_path), options={"bias_downsample": False, **SLIM})
    network = built(config)
    assert torch.equal(network.trunk.net[0][0].weight, net.conv1.weight)
    assert torch.equal(network.trunk.net[3][0].conv2.weight, net.layer4[0].conv2.weight)
    bare = config.without_weights()
    path.unlink()
    assert set(built(bare).state_dict()) == set(network.state_dict())


def test_weights_of_something_else_are_refused(tmp_path):
    path = tmp_path / "resnet10.safetensors"
    stored_resnet(path, bias_downsample=False, **SLIM)
    with pytest.raises(RecipeError, match=r"lacks layer\d.*downsample") as caught:
        VolumeBackbone("resnet10", weights=str(path), options=SLIM).build(2)
    assert "bias_downsample" in caught.value.remedy
    with pytest.raises(RecipeError, match="do not belong to 'densenet121'"):
        VolumeBackbone("densenet121", weights=str(path)).build(2)
    path.write_bytes(b"no weights")
    with pytest.raises(UnreadableFile, match="safetensors"):
        VolumeBackbone("resnet10", weights=str(path)).build(2)
    with pytest.raises(RecipeError, match="neither a file"):
        VolumeBackbone("resnet10", weights=str(tmp_path / "nowhere.safetensors")).build(2)
    (tmp_path / "x.pth").write_bytes(b"pickle")
    with pytest.raises(RecipeError, match="pickled weights are never opened"):
        VolumeBackbone("resnet10", weights=str(tmp_path / "x.pth")).build(2)


def test_classifiers_in_a_file_are_left_out(tmp_path):
    from sightline.models.volume_networks import _create

    torch.manual_seed(2)
    net = _create("efficientnet-b0", {})
    path = tmp_path / "efficientnet-b0.safetensors"
    save_file({k: v.clone() for k, v in net.state_dict().items()} | {"_fc.weight": torch.zeros(1000, 1280)}, path)
    network = built(VolumeBackbone("efficientnet-b0", weights=str(path), pool=MeanPool()), 3)
    assert torch.equal(network.trunk.net[0][1].weight, net._conv_stem.weight)
    assert network.head.linear.out_features == 3
