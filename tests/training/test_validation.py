"""What validation says of an epoch: the objective on all images as if they were one batch, in whatever order."""

from dataclasses import replace

import pytest
import torch
from support.cohorts import tiny_recipe

from sightline.data.targets.region_choice import RegionChoice
from sightline.explainers.cam import GradCAM
from sightline.explainers.gradients import InputGradient
from sightline.losses.attribution_priors import AttributionPrior
from sightline.losses.gg_cam import GazeGuided
from sightline.losses.heatmap_matching import HeatmapMatch
from sightline.structures.evidence import Batch
from sightline.structures.protocols import Term
from sightline.training.step import Sums, TrainingObjective, add_means, add_parts, join_means
from sightline.training.validation import validate

INPUT = InputGradient()
OBJECTIVES = {
    "gg-cam": GazeGuided(sigma_map=0.1),
    "gg-cam, fixed": GazeGuided(weights="fixed", weight=3.0),
    "energy": AttributionPrior(GradCAM(), "energy", weight=2.0),
    "outside": AttributionPrior(GradCAM(), "outside", weight=2.0),
    **{name: HeatmapMatch(name, INPUT) for name in ("classifier", "decoder", "set1", "set2", "set3")},
    "set 2, both": HeatmapMatch("set2", INPUT, flow="both"),
}


def say_all(n=12):
    """What a network said of images, every third of which is marked, and some maps of which are dead."""
    g = torch.Generator().manual_seed(0)
    out = {
        "logits": torch.randn(n, 2, generator=g),
        "maps": torch.randn(n, 2, 4, 4, generator=g),
        "decoder": torch.randn(n, 1, 8, 8, generator=g),
        "explained": torch.rand(n, 1, 4, 4, generator=g),
    }
    out["explained"][::4] = 0.0
    labels, marked = torch.arange(n) // 2 % 2, torch.arange(n) % 3 == 0
    # of some images both classes' maps are guided
    guided = torch.stack([marked & (torch.arange(n) > 6), marked], dim=1)
    guided[torch.arange(n), labels] |= marked
    targets = torch.rand(n, 1, 8, 8, generator=g)
    return out, Batch(torch.zeros(n, 1, 8, 8), labels, targets, guided, (), tuple(map(str, range(n))))


def take(out, batch, rows):
    mine = replace(batch, **{k: vars(batch)[k][rows] for k in ("images", "labels", "targets", "guided")})
    return {name: tensor[rows] for name, tensor in out.items()}, mine


@pytest.mark.parametrize("name", OBJECTIVES)
def test_batches_together_are_the_whole(name):
    out, batch = say_all()
    aim = OBJECTIVES[name]
    whole = aim(out, batch, torch.ones(2), ())
    for shares in ([[0, 3, 6], [1, 2, 4, 5, 7, 8, 10, 11], [9]], [list(range(7)), list(range(7, 12))]):
        loss, parts = {}, {}
        for rows in shares:
            term = aim(*take(out, batch, rows), torch.ones(2), ())
            add_means(loss, "loss", term.means or ((float(term.value), term.images),))
            add_parts(parts, term)
        assert join_means(loss)["loss"] == pytest.approx(float(whole.value.detach()), rel=1e-5)
        assert join_means(parts) == pytest.approx(dict(whole.parts), rel=1e-5)


def test_the_loss_of_a_validation_does_not_depend_on_the_order_of_its_cases(tiny_cohort):
    cases = [replace(case, split="val") for case in tiny_cohort]
    recipe = tiny_recipe(
        objective=GazeGuided(sigma_map=0.1), guidance=None, weight=0.0, regions=RegionChoice("box", "finding", "all")
    )
    torch.manual_seed(0)
    aim = TrainingObjective(recipe, recipe.model.build(2), torch.ones(2))
    by_class = sorted(cases, key=lambda case: case.label)
    rows = [validate(aim, replace(tiny_cohort, cases=tuple(one)), torch.device("cpu")) for one in (cases, by_class)]
    assert rows[0]["val_map_error"] > 0.0
    assert rows[0] == pytest.approx(rows[1], rel=1e-5)


def test_parts_are_weighed_by_what_they_are_means_of():
    totals = {}
    for number, count in ((1.0, 1), (4.0, 2), (float("nan"), 0)):
        add_parts(totals, Term(torch.zeros(()), 9, parts={"a": number}, means_of_parts={"a": ((number, count),)}))
    add_parts(totals, Term(torch.zeros(()), 9, parts={"b": 0.0}, means_of_parts={"b": ()}))
    assert join_means(totals) == {"a": 3.0}
    # as states of earlier versions hold them
    assert join_means(Sums(images=4, parts={"a": 8.0}).parts) == {"a": 2.0}
