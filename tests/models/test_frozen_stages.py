"""Packed features of frozen stages stand in for images, and nothing else changes."""

import copy
from dataclasses import replace

import pytest
import torch

from sightline.errors import GeometryError, RecipeError
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.necks import Fusion
from sightline.models.pooling import MeanPool


def built(name="mobilenetv2_050", frozen=5, fusion=8, precision="bf16"):
    torch.manual_seed(0)
    backbone = Backbone(name=name, frozen_stages=frozen, frozen_precision=precision)
    fused = None if fusion is None else Fusion(stride=fusion, channels=8)
    return ClassMapModel(backbone=backbone, pool=MeanPool(), fusion=fused).build(2)


@pytest.mark.parametrize(
    ("name", "frozen", "fusion", "strides"),
    [
        ("mobilenetv2_050", 5, 8, [8, 16]),
        ("mobilenetv2_050", 4, 8, [8, 16]),
        ("mobilenetv2_050", 3, 8, [8]),
        ("mobilenetv2_050", 5, None, [16]),
        ("resnet10t", 2, 8, [8]),
    ],
)
def test_a_network_says_the_same_of_packed_features(name, frozen, fusion, strides):
    network = built(name, frozen, fusion).eval()
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        packed = network.trunk.frozen_features(images)
        assert [level.stride for level in network.trunk.frozen_stages.levels] == strides
        assert packed.dtype == torch.bfloat16
        assert packed.shape[0] == 2
        assert torch.equal(network(packed).maps, network(images).maps)
        # afterwards the network is as it was
        assert torch.equal(network(images).maps, copy.deepcopy(network)(images).maps)


def test_in_bfloat16_it_says_nearly_what_it_says_in_float32():
    network, plain = built(), built(precision="32")
    plain.load_state_dict(network.state_dict())
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        a, b = network.eval()(images).logits, plain.eval()(images).logits
    assert torch.allclose(a, b, atol=0.05)
    assert not torch.equal(a, b)


def test_trained_stages_get_the_same_gradients():
    network = built().eval()
    images = torch.rand(2, 1, 64, 64)
    gradients = []
    for given in (images, network.trunk.frozen_features(images).detach()):
        network.zero_grad()
        network(given).logits.sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_the_digest_is_of_frozen_weights_alone():
    network = built()
    first = network.trunk.frozen_stages.digest()
    with torch.no_grad():
        network.head.linear.weight.add_(1.0)
    assert network.trunk.frozen_stages.digest() == first
    with torch.no_grad():
        network.trunk.net.conv_stem.weight.add_(1.0)
    assert network.trunk.frozen_stages.digest() != first


def test_the_digest_knows_what_images_are_normalised_by():
    """Two rows of a table that differ in nothing else do not share kept features."""
    backbone = Backbone(name="mobilenetv2_050", frozen_stages=3, stages=5, frozen_precision="bf16")
    digests = set()
    for mean in (None, (0.1, 0.2, 0.3)):
        torch.manual_seed(0)
        digests.add(replace(backbone, mean=mean).build().frozen_stages.digest())
    assert len(digests) == 2


def test_what_does_not_fit_is_refused():
    network = built()
    with pytest.raises(GeometryError, match="square"):
        network.trunk.frozen_features(torch.rand(1, 1, 64, 80))
    with pytest.raises(GeometryError, match="16 divides"):
        network.trunk.frozen_features(torch.rand(1, 1, 72, 72))
    with pytest.raises(GeometryError, match="are no features"):
        network(torch.rand(1, 1001).bfloat16())
    with pytest.raises(RecipeError, match="there are none"):
        Backbone(name="mobilenetv2_050", frozen_precision="bf16")
    with pytest.raises(RecipeError, match="precision of their own"):
        built(precision="32").trunk.frozen_features(torch.rand(1, 1, 64, 64))
