"""A layer's units: the activations a network itself computes, and nothing left behind."""

import pytest
import torch
from monai.networks.nets import DenseNet121, resnet18
from torch import nn

from sightline.errors import GeometryError, RecipeError
from sightline.explainers.units.layer import UnitLayer, choose_default_layer, has_cross_image_layers, list_conv_layers
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.volume_networks import VolumeUNet
from sightline.structures.evidence import Batch, Evidence


def marks_of(network):
    """Everything about a network that a pass might leave changed."""
    hooks = [(n, len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in network.named_modules()]
    modes = [m.training for m in network.modules()]
    state = {k: v.clone() for k, v in network.state_dict().items()}
    grads = [(p.requires_grad, p.grad is None) for p in network.parameters()]
    return hooks, modes, state, grads


def same(a, b):
    return a[:2] == b[:2] and a[3] == b[3] and all(torch.equal(a[2][k], b[2][k]) for k in a[2])


def volume_network(**how):
    torch.manual_seed(0)
    return VolumeUNet(width=4, size=16, **how).build(2)


def test_activations_are_the_networks_own():
    network = volume_network().train()
    images = torch.rand(3, 1, 16, 16, 16)
    before = marks_of(network)
    evidence, activations = UnitLayer(network, "encoder.3")(images)
    assert same(marks_of(network), before)
    network.eval()
    with torch.no_grad():
        assert torch.equal(activations, network.features(images))
        assert torch.equal(evidence.logits, network(images).logits)
    assert activations.dtype == torch.float32 and activations.shape == (3, 64, 2, 2, 2)
    assert not activations.requires_grad and not evidence.logits.requires_grad


def test_mixed_modes_are_put_back_one_by_one():
    network = volume_network().train()
    network.encoder[1].eval()
    before = marks_of(network)
    UnitLayer(network, "encoder.0")(torch.rand(2, 1, 16, 16, 16))
    assert same(marks_of(network), before)


def test_nothing_is_left_after_an_error():
    network = volume_network().train()
    before = marks_of(network)
    with pytest.raises(GeometryError):
        UnitLayer(network, "encoder.3")(torch.rand(2, 1, 15, 16, 16))
    assert same(marks_of(network), before)


def test_a_step_in_place_does_not_change_what_was_caught():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.randn(2, 1, 8, 8)
    _, caught = UnitLayer(network, "0")(images)
    with torch.no_grad():
        assert torch.equal(caught, network[0](images)) and float(caught.min()) < 0


def test_the_pass_is_exact_whatever_surrounds_it():
    network = volume_network()
    images = torch.rand(2, 1, 16, 16, 16)
    plain = UnitLayer(network, "encoder.3")(images)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(UnitLayer(network, "encoder.3")(images)[1], plain)
    with torch.inference_mode():
        assert torch.equal(UnitLayer(network, "encoder.3")(images)[1], plain)
    # a network in 16 bits gives what it gives, in single precision
    half = network.bfloat16()
    _, caught = UnitLayer(half, "encoder.3")(images)
    assert caught.dtype == torch.float32 and torch.equal(caught, caught.bfloat16().float())


@pytest.mark.parametrize("name", ["resnet", "densenet"])
def test_monai_networks(name):
    torch.manual_seed(0)
    if name == "resnet":
        network = resnet18(spatial_dims=3, n_input_channels=1, num_classes=2)
    else:
        network = DenseNet121(spatial_dims=3, in_channels=1, out_channels=2, init_features=8, growth_rate=4)
    layers = list_conv_layers(network)
    last = list(layers)[-1]
    evidence, activations = UnitLayer(network, last)(torch.rand(1, 1, 32, 32, 32))
    assert activations.shape[:2] == (1, layers[last]) and activations.ndim == 5
    assert isinstance(evidence, Evidence) and evidence.logits.shape == (1, 2)


def test_a_network_of_two_dimensions():
    network = ClassMapModel(Backbone("test_resnet", channels=1)).build(2)
    assert choose_default_layer(network) == "trunk"
    layer = UnitLayer(network)
    images = torch.rand(2, 1, 64, 64)
    batch = Batch(images, torch.zeros(2).long(), None, torch.zeros(2, 2).bool(), (None, None), ("a", "b"))
    assert torch.equal(layer(batch)[1], layer(images)[1]) and layer(images)[1].ndim == 4
    for name, units in list_conv_layers(network).items():
        if name.startswith("trunk"):
            assert UnitLayer(network, name)(images)[1].shape[1] == units, name


def test_layers_by_default():
    assert choose_default_layer(volume_network()) == "encoder.3"
    assert choose_default_layer(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1), nn.ReLU())) == "1"
    with pytest.raises(RecipeError, match="no convolution"):
        choose_default_layer(nn.Linear(2, 2))


def test_what_is_no_layer_is_refused_with_those_there_are():
    network = volume_network()
    with pytest.raises(RecipeError, match=r"no layer 'encoder.5'.*Near it: encoder") as refused:
        UnitLayer(network, "encoder.5")
    assert "head.convolutions.3.conv" in str(refused.value)
    with pytest.raises(RecipeError):
        UnitLayer(network, "")
    with pytest.raises(GeometryError, match=r"expected \[b, u, \*m\] with 3 axes"):
        UnitLayer(network, "head.hidden.0")(torch.rand(2, 1, 16, 16, 16))
    with pytest.raises(GeometryError, match="gives no tensor but Evidence"):
        UnitLayer(network, "head")(torch.rand(2, 1, 16, 16, 16))
    network.spare = nn.Conv3d(1, 1, 1)
    with pytest.raises(GeometryError, match="was not used"):
        UnitLayer(network, "spare")(torch.rand(2, 1, 16, 16, 16))


def test_networks_that_mix_images_are_known():
    assert not has_cross_image_layers(volume_network()) and not has_cross_image_layers(volume_network(norm="instance"))
    network = volume_network(norm="batch_always")
    assert has_cross_image_layers(network)
    images = torch.rand(3, 1, 16, 16, 16)
    layer = UnitLayer(network, "encoder.3")
    assert not torch.allclose(layer(images)[1][:2], layer(images[:2])[1])
    # golden check 20, for the network that does not
    calm = UnitLayer(volume_network(), "encoder.3")
    assert torch.allclose(calm(images)[1][:2], calm(images[:2])[1], atol=1e-6)
