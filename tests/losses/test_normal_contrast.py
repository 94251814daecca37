"""The nearest normal film: its look-alikes hold the map down, and what it does not have may stand out."""

import math

import pytest
import torch
from support.cohorts import tiny_recipe

from sightline.errors import RecipeError
from sightline.losses.normal_contrast import NormalContrast
from sightline.models.cam_classifiers import ClassMapModel
from sightline.structures.evidence import Batch
from sightline.structures.frame import Frame

ONES = torch.ones(2)


def make_batch(labels):
    n = len(labels)
    guided = torch.zeros(n, 2, dtype=torch.bool)
    return Batch(torch.zeros(n, 1, 8, 8), torch.tensor(labels), None, guided, (Frame.of_image((8, 8)),) * n, ("",) * n)


def restate(features, maps, labels, common):
    """The same with loops, in floating numbers of Python; the grid is the map's own."""

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    cells = [[row.tolist() for row in one.flatten(1).T] for one in features.double()]
    means = [[sum(column) / len(one) for column in zip(*one, strict=True)] for one in cells]
    heights = [one.flatten().tolist() for one in maps[:, 1].double()]
    total = []
    for i, label in enumerate(labels):
        if label == 1:
            j = max((k for k, other in enumerate(labels) if other != 1), key=lambda k: cosine(means[i], means[k]))
            found = []
            for c, cell in enumerate(cells[i]):
                alike = [cosine(cell, other) for other in cells[j]]
                place = alike.index(max(alike))
                found.append((max(alike), max(0.0, heights[i][c] - heights[j][place])))
            kept = sorted(found, reverse=True)[: round(common * len(found))]
            total.append(sum(over for _, over in kept) / len(kept))
    return sum(total) / len(total)


def test_the_penalty_is_its_formula():
    generator = torch.Generator().manual_seed(0)
    features, maps = (torch.randn(6, n, 4, 5, generator=generator) for n in (7, 2))
    labels = [1, 0, 0, 1, 1, 0]
    out = {"logits": torch.zeros(6, 2), "maps": maps, "features": features}
    term = NormalContrast(weight=3.0, common=0.4)(out, make_batch(labels), ONES, ())
    expected = restate(features, maps, labels, 0.4)
    assert term.parts["contrast"] == pytest.approx(expected, rel=1e-5) and expected > 0.1
    assert float(term.value) == pytest.approx(math.log(2) + 3.0 * expected, rel=1e-5)


def test_only_what_the_normal_film_has_too_is_held_down():
    features = torch.eye(4).reshape(1, 4, 2, 2).repeat(2, 1, 1, 1)
    # the last cell of the first picture is like no cell of the second
    features[0, :, 1, 1] = torch.tensor([1.0, -1.0, 1.0, -1.0])
    maps = torch.zeros(2, 2, 2, 2)
    maps[0, 1] = 1.0
    maps.requires_grad_()
    out = {"logits": torch.zeros(2, 2), "maps": maps, "features": features}
    NormalContrast(common=0.75)(out, make_batch([1, 0]), ONES, ()).value.backward()
    pulled = maps.grad[0, 1].flatten() > 0
    assert pulled.tolist() == [True, True, True, False]
    # neither the normal film's map nor another class's is moved by it
    assert not maps.grad[1].any() and not maps.grad[0, 0].any()


@pytest.mark.parametrize("labels", [[1, 1], [0, 0]])
def test_without_a_pair_it_is_the_cross_entropy(labels):
    out = {"logits": torch.zeros(2, 2), "maps": torch.randn(2, 2, 3, 3), "features": torch.randn(2, 4, 3, 3)}
    assert float(NormalContrast()(out, make_batch(labels), ONES, ()).value) == pytest.approx(math.log(2))
    del out["features"]
    assert float(NormalContrast()(out, make_batch([0, 1]), ONES, ()).value) == pytest.approx(math.log(2))


def test_network_and_objective_need_each_other():
    plain = tiny_recipe(guidance=None, weight=0.0)
    assert isinstance(plain.model, ClassMapModel)
    model = ClassMapModel(plain.model.backbone, gives_features=True)
    for changes in ({"objective": NormalContrast()}, {"model": model}):
        with pytest.raises(RecipeError, match="need each other"):
            tiny_recipe(guidance=None, weight=0.0, **changes)
    network = tiny_recipe(guidance=None, weight=0.0, model=model, objective=NormalContrast()).model.build(2)
    images = torch.rand(2, 3, 32, 32)
    extras = network.train()(images).extras
    assert extras["features"].shape[2:] == network.eval()(images).maps.shape[2:]
    assert "features" not in network(images).extras
    with pytest.raises(RecipeError, match="common"):
        NormalContrast(common=0.0)
