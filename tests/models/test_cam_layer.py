"""GG-CAM's layer (Zhu 2022, equations 4 to 6): maps first, the same logits as pooling and a linear layer."""

import pytest
import torch

from sightline.errors import RecipeError
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import CamLayer, ClassMapModel
from sightline.models.necks import Fusion
from sightline.models.pooling import MeanPool

TINY = Backbone("test_resnet")


def built(**more):
    torch.manual_seed(0)
    return CamLayer(TINY, **more).build(3).eval()


def test_the_layer_is_mean_pooling_and_a_linear_layer():
    ours = built()
    theirs = ClassMapModel(TINY, pool=MeanPool()).build(3).eval()
    theirs.trunk.load_state_dict(ours.trunk.state_dict())
    theirs.head.linear.load_state_dict(ours.head.state_dict())
    images = torch.rand(2, 3, 64, 64)
    a, b = ours(images), theirs(images)
    assert torch.allclose(a.logits, b.logits, atol=1e-6)
    # these maps hold no bias
    assert torch.allclose(a.maps + ours.head.bias.view(1, -1, 1, 1), b.maps, atol=1e-6)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_the_maps_are_equation_4_cell_by_cell():
    layer = built()
    images = torch.rand(1, 3, 96, 64)
    with torch.no_grad():
        features, evidence = layer.trunk(images)[0], layer(images)
    assert evidence.maps.shape == (1, 3, 3, 2)
    for c in range(3):
        weight, bias = layer.head.weight[c].tolist(), float(layer.head.bias[c].detach())
        cells = [
            [sum(w * f for w, f in zip(weight, features[:, i, j].tolist(), strict=True)) for j in range(2)]
            for i in range(3)
        ]
        assert evidence.maps[0, c].tolist() == [pytest.approx(row, abs=1e-4) for row in cells]
        assert float(evidence.logits[0, c]) == pytest.approx(sum(map(sum, cells)) / 6 + bias, abs=1e-4)


def test_the_released_codes_mean_makes_maps_smaller_by_the_number_of_channels():
    ours, mean = built(), built(reduce="mean")
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        a, b = ours(images), mean(images)
    channels, bias = ours.head.in_features, ours.head.bias.detach()
    assert torch.allclose(b.maps * channels, a.maps, atol=1e-4)
    assert torch.allclose((b.logits - bias) * channels, a.logits - bias, atol=1e-4)


def test_fusion_gives_finer_maps_whose_mean_is_the_logit():
    fine = built(fusion=Fusion(stride=8, channels=16))
    with torch.no_grad():
        evidence = fine(torch.rand(2, 1, 64, 64))
    assert evidence.maps.shape == (2, 3, 8, 8)
    assert torch.allclose(evidence.maps.mean(dim=(2, 3)) + fine.head.bias, evidence.logits, atol=1e-5)


def test_under_autocast_maps_and_logits_stay_float32():
    layer = built()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        evidence = layer(torch.rand(2, 3, 64, 64))
    assert evidence.maps.dtype == evidence.logits.dtype == torch.float32


def test_one_class_is_refused_and_weights_can_be_left_out():
    with pytest.raises(RecipeError, match="two or more"):
        CamLayer(TINY).build(1)
    bare = CamLayer(Backbone("resnet50", weights="imagenet")).without_weights()
    assert bare.backbone.weights is None and bare.backbone.name == "resnet50"
