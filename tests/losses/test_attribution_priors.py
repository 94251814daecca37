"""Energy inside the mark (Rao 2023) and evidence outside of it (Ross 2017), against slow restatements."""

import math

import pytest
import torch
from torch import nn

from sightline.errors import GeometryError, RecipeError
from sightline.explainers.cam import GradCAM
from sightline.explainers.gradients import InputGradient
from sightline.losses.attribution_priors import AttributionPrior, MapEnergy
from sightline.structures.evidence import Batch
from sightline.structures.frame import Frame


def slow_energy(maps, targets, guided, positive):
    """Pixel by pixel on the map enlarged cell by cell, in plain floats."""
    shares = []
    b, k, h, w = maps.shape
    step = targets.shape[-1] // w
    for i in range(b):
        for c in range(k):
            if not guided[i, c]:
                continue
            mark = targets[i, c if targets.shape[1] > 1 else 0]
            inside = total = 0.0
            for y in range(h * step):
                for x in range(w * step):
                    m = float(maps[i, c, y // step, x // step])
                    evidence = max(m, 0.0) if positive == "relu" else math.log1p(math.exp(m))
                    total += evidence
                    inside += evidence if mark[y, x] else 0.0
            if total > 0.0:
                shares.append(inside / total)
    return -sum(shares) / len(shares)


def case(channels=2, dtype=torch.float64):
    torch.manual_seed(0)
    maps = torch.randn(3, 2, 3, 4, dtype=dtype)
    targets = torch.zeros(3, channels, 12, 16, dtype=torch.uint8)
    targets[0, -1, 3:9, 5:14] = 1
    targets[1, -1, 0, 0] = 1
    targets[1, 0, 4:, 2:3] = 1
    return maps, targets, torch.tensor([[False, True], [channels > 1, True], [False, False]])


@pytest.mark.parametrize("positive", ["relu", "softplus"])
@pytest.mark.parametrize("channels", [1, 2])
def test_energy_equals_its_formula_and_its_gradient_finite_differences(positive, channels):
    maps, targets, guided = case(channels)
    loss = MapEnergy(positive)
    term = loss(maps, targets, guided)
    assert float(term.value) == pytest.approx(slow_energy(maps, targets, guided, positive), rel=1e-9)
    assert term.images == 2 and -1.0 <= float(term.value) <= 0.0 and term.floor == -1.0
    assert torch.autograd.gradcheck(lambda m: loss(m, targets, guided).value, maps.requires_grad_())


def test_all_energy_inside_is_the_floor_and_maps_without_evidence_are_left_out():
    maps, targets, guided = case()
    inside = torch.where(nn.functional.max_pool2d(targets.float(), 4) > 0, 1.0, -1.0).double()
    targets = nn.functional.interpolate((inside > 0).float(), scale_factor=4).to(torch.uint8)
    assert MapEnergy()(inside, targets, guided).excess == pytest.approx(0.0)
    dead = (-maps.abs()).requires_grad_()
    term = MapEnergy()(dead, targets, guided)
    assert float(term.value.detach()) == 0.0 and term.images == 0
    term.value.backward()
    assert not dead.grad.any()
    # which is why there is another word
    assert MapEnergy("softplus")(dead, targets, guided).images == 2
    assert float(MapEnergy()(maps, targets, torch.zeros_like(guided)).value) == 0.0


@pytest.mark.parametrize("low", [-45.0, -95.0, -1e3])
def test_softplus_energy_has_a_gradient_however_low_a_map_is(low):
    """The sum of denormal numbers is above 0, and 1 / sum is not finite; below -104 the map was left out."""
    maps, targets, guided = (one[:1] for one in case())
    maps = maps.float() - maps.amax() + low
    shares = (maps - low).flatten(2).softmax(-1).view_as(maps)
    expected = -(shares * nn.functional.avg_pool2d(targets.float(), 4))[0, 1].sum()
    term = MapEnergy("softplus")(maps.requires_grad_(), targets, guided)
    torch.testing.assert_close(term.value.detach(), expected, rtol=1e-4, atol=0)
    term.value.backward()
    assert torch.isfinite(maps.grad).all() and float(maps.grad.abs().max()) > 1e-3
    tiny = torch.full((1, 2, 3, 4), 1e-41, requires_grad=True)
    term = MapEnergy()(tiny, targets, guided)
    term.value.backward()
    assert term.images == 0 and torch.isfinite(tiny.grad).all()


def test_what_means_nothing_is_refused():
    with pytest.raises(RecipeError, match="relu or softplus"):
        MapEnergy("abs")
    with pytest.raises(GeometryError, match="two axes"):
        MapEnergy()(torch.zeros(1, 2, 4), torch.zeros(1, 1, 8), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(RecipeError, match="energy or outside"):
        AttributionPrior(GradCAM(), "inside")
    with pytest.raises(RecipeError, match="trained through"):
        AttributionPrior(MapEnergy())
    with pytest.raises(GeometryError, match="explainer"):
        AttributionPrior(GradCAM())({"logits": torch.zeros(3, 2)}, batch_of(torch.zeros(3, 1, 12, 16)), ONES, ())


ONES = torch.ones(2)


def batch_of(images):
    _, targets, guided = case()
    frames = (Frame.of_image(tuple(images.shape[2:])),) * 3
    return Batch(images, torch.tensor([1, 1, 0]), targets, guided, frames, ("a", "b", "c"))


class Small(nn.Module):
    """Smooth, so that second derivatives exist everywhere."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.attention = nn.Sequential(nn.Conv2d(1, 3, 4, stride=4), nn.Tanh())
        self.head = nn.Linear(3, 2)
        self.double()

    def forward(self, images):
        return self.head(self.attention(images).mean(dim=(2, 3)))


def slow_right_reasons(network, batch, weight):
    """Ross 2017, equation 1: image by image, every pixel's derivative by central differences."""
    total = 0.0
    for i in range(len(batch)):
        image = batch.images[i : i + 1].double()
        scores = network(image).log_softmax(1)
        total -= float(scores[0, batch.labels[i]])
        if not batch.guided[i, batch.labels[i]]:
            continue
        for y in range(image.shape[2]):
            for x in range(image.shape[3]):
                if batch.targets[i, batch.labels[i], y, x]:
                    continue
                both = []
                for sign in (1.0, -1.0):
                    moved = image.clone()
                    moved[0, 0, y, x] += sign * 1e-5
                    both.append(float(network(moved).log_softmax(1).sum()))
                total += weight * ((both[0] - both[1]) / 2e-5) ** 2
    return total / len(batch)


def explained(prior, network, batch):
    maps = prior.explainer(network, batch.images, batch.labels[:, None], create_graph=True)
    return prior({"logits": network(batch.images), "explained": maps}, batch, ONES.double(), ())


REASONS = AttributionPrior(
    InputGradient(score="log_probabilities", reduce="square_sum"), "outside", weight=2.0, squared=False
)


def test_right_for_the_right_reasons_is_its_equation():
    network, batch = Small(), batch_of(torch.rand(3, 1, 12, 16, dtype=torch.float64))
    with torch.no_grad():
        wanted = slow_right_reasons(network, batch, 2.0)
    term = explained(REASONS, network, batch)
    assert float(term.value.detach()) == pytest.approx(wanted, rel=1e-5)
    assert term.parts["map_error"] > 0.0


@pytest.mark.parametrize(
    "prior",
    [REASONS, AttributionPrior(GradCAM(), "energy"), AttributionPrior(GradCAM(relu=False), "outside", scale="max")],
    ids=["ross", "energy", "grad-cam"],
)
def test_weights_learn_through_the_map(prior):
    """The gradient of one weight of each layer against central differences of the whole loss."""
    network, batch = Small(), batch_of(torch.rand(3, 1, 12, 16, dtype=torch.float64))
    explained(prior, network, batch).value.backward()
    for weights, place in ((network.attention[0].weight, (1, 0, 2, 3)), (network.head.weight, (1, 2))):
        found = float(weights.grad[place])
        both = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                weights[place] += sign * 1e-5
            both.append(float(explained(prior, network, batch).value.detach()))
            with torch.no_grad():
                weights[place] -= sign * 1e-5
        assert found == pytest.approx((both[0] - both[1]) / 2e-5, rel=1e-4, abs=1e-7)


def test_images_without_a_mark_count_for_their_label_alone():
    network, batch = Small(), batch_of(torch.rand(3, 1, 12, 16, dtype=torch.float64))
    batch.guided[:] = False
    entropy = nn.functional.cross_entropy(network(batch.images), batch.labels)
    for prior in (REASONS, AttributionPrior(GradCAM(), "energy")):
        assert float(explained(prior, network, batch).value.detach()) == pytest.approx(float(entropy.detach()))


def test_an_energy_of_a_map_agrees_with_that_of_its_explainer():
    """Grad-CAM of a network with mean pooling is the rectified class map without its bias (Selvaraju 2017)."""
    network, batch = Small(), batch_of(torch.rand(3, 1, 12, 16, dtype=torch.float64))
    prior = AttributionPrior(GradCAM(), "energy")
    maps = torch.einsum("bchw,kc->bkhw", network.attention(batch.images), network.head.weight)
    own = nn.functional.one_hot(batch.labels, 2).bool() & batch.guided
    term = MapEnergy()(maps, batch.targets, own)
    assert explained(prior, network, batch).parts["map_error"] == pytest.approx(float(term.value.detach()))
