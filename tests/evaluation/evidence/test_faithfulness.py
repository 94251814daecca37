"""Faithfulness of a run's maps: slow restatements, baselines, explainers that cannot work, and what is refused."""

import math
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from support.cohorts import tiny_recipe
from support.engines import QUIET

from sightline.data.loader import CohortItems, Key
from sightline.data.views.volume_view import VolumeView
from sightline.errors import CohortError, RecipeError, RunError
from sightline.evaluation.evidence.faithfulness import choose_cases, measure_faithfulness
from sightline.explainers.localisation.protocols import MapBoxes
from sightline.metrics.faithfulness.perturbation import impute
from sightline.structures.evidence import Evidence
from sightline.structures.regions import Box
from sightline.training.run import Run

SIDE, CELLS = 48, 6
BLOCK = SIDE // CELLS


class Bright(torch.nn.Module):
    """Class maps are the brightness of cells; trained it says that of the brightest, untrained it turns them round."""

    def __init__(self, sign):
        super().__init__()
        self.sign = sign

    def forward(self, images):
        cells = torch.nn.functional.avg_pool2d(images.mean(dim=1, keepdim=True), BLOCK) * self.sign
        score = 6 * (cells.flatten(1).amax(dim=1) - 0.5)
        return Evidence(torch.stack([-score, score], dim=1), torch.cat([-cells, cells], dim=1))


@pytest.fixture
def run(tmp_path, monkeypatch, tiny_cohort):
    monkeypatch.setattr(Run, "network", lambda self: Bright(1.0).eval())
    untrained = SimpleNamespace(without_weights=lambda: SimpleNamespace(build=lambda k: Bright(-1.0)))
    recipe = replace(tiny_recipe(), model=untrained)
    return Run(tmp_path, recipe, tiny_cohort.classes, {"run_identity": "x"}, True, MapBoxes())


def slow(planes, order, predicted, *, start, kind):
    """Deletion or insertion, 16 equal steps of the pixels in `order`, the area by trapezia."""
    values = []
    for step in range(17):
        image = planes.astype(float).copy() if kind == "deletion" else start.copy()
        rows, columns = np.divmod(np.array(order[: round(step / 16 * len(order))], dtype=int), SIDE)
        image[:, rows, columns] = (start if kind == "deletion" else planes)[:, rows, columns]
        logits = Bright(1.0)(torch.tensor(image[None], dtype=torch.float32)).logits[0].double()
        values.append(float(logits.softmax(0)[predicted]))
    return sum((a + b) / 32 for a, b in pairwise(values))


def test_numbers_are_those_of_a_slow_restatement(run, tiny_cohort):
    cohort = tiny_cohort.split("test")
    table = measure_faithfulness(run, cohort, ("cam",), images=4, engine=QUIET)
    by_name = {estimate.name: estimate for estimate in table.all()}
    found = {"deletion": [], "insertion": [], "ROAD MoRF": []}
    items = CohortItems(cohort, run.recipe.view)
    # the classes by turns, each time another patient
    chosen = choose_cases(cohort, 4)
    assert [cohort[i].label for i in chosen] == [*cohort.classes] * 2
    assert len({cohort[i].patient_id for i in chosen}) == 4
    for index in chosen:
        item, case = items[Key(index, -1)], cohort[index]
        planes = np.asarray(item.image)
        inside = Box((0.0, 0.0), tuple(map(float, case.shape))).draw(item.frame) > 0
        evidence = Bright(1.0)(torch.tensor(planes[None]))
        predicted = int(evidence.logits.argmax())
        cells = evidence.maps[0, predicted].numpy()
        # whole cells in falling order; a cell's pixels in any order, so values inside a cell are compared loosely
        order = [
            r * SIDE + c
            for cell in np.argsort(-cells.ravel(), kind="stable")
            for r in range(cell // CELLS * BLOCK, (cell // CELLS + 1) * BLOCK)
            for c in range(cell % CELLS * BLOCK, (cell % CELLS + 1) * BLOCK)
            if inside[r, c]
        ]
        mean = np.broadcast_to(planes[:, inside].mean(axis=1, dtype=float)[:, None, None], planes.shape)
        blur = np.stack([gaussian_filter(p.astype(float), 5 / 224 * SIDE) for p in planes])
        blur[:, ~inside] = planes[:, ~inside]
        found["deletion"].append(slow(planes, order, predicted, start=mean, kind="deletion"))
        found["insertion"].append(slow(planes, order, predicted, start=blur, kind="insertion"))
        said = []
        for fifth in range(1, 5):
            gone = np.zeros(SIDE * SIDE, dtype=bool)
            gone[order[: round(fifth / 5 * len(order))]] = True
            image = impute(planes, gone.reshape(SIDE, SIDE), noise=0.0)
            logits = Bright(1.0)(torch.tensor(image[None], dtype=torch.float32)).logits[0].double()
            said.append(float(logits.softmax(0)[predicted]))
        found["ROAD MoRF"].append(np.mean(said))
    for measure, values in found.items():
        estimate = by_name[f"{measure}, class map"]
        assert estimate.value == pytest.approx(np.mean(values), abs=0.02), measure
        assert estimate.n["images"] == 4 and estimate.n["patients"] == 4


def test_the_networks_own_map_beats_what_knows_nothing(run, tiny_cohort):
    train = tiny_cohort.split("train")
    table = measure_faithfulness(run, train, images=8, engine=QUIET)
    by_name = {estimate.name: estimate for estimate in table.all()}
    assert by_name["deletion, class map, better than a random order by"].value > 0.05
    # the untrained map is the trained one turned round: the worst order there is
    worst = by_name["deletion, class map, better than an untrained network by"]
    assert worst.value > by_name["deletion, class map, better than a random order by"].value and worst.low > 0
    gain = by_name["deletion, class map, untrained network"].value - by_name["deletion, class map"].value
    assert worst.value == pytest.approx(gain)
    text = table.markdown()
    assert text.count("| class map |") == 3 and "n: 8 maps" in text
    two = [measure_faithfulness(run, train, ("cam", "gradient"), images=1, engine=QUIET) for _ in range(2)]
    assert two[0] == two[1] and list(two[0].estimates) == ["class map", "image gradient"]
    assert all(e.value is not None and math.isfinite(e.value) for e in table.all())


def test_each_case_has_a_random_order_of_its_own(run, tiny_cohort):
    test = tiny_cohort.split("test")
    first = test[0]
    # the same picture by another name
    second = replace(first, case_id="another", patient_id="another")

    def measure(*cases):
        return measure_faithfulness(run, replace(test, cases=cases), engine=QUIET).all()

    # what is measured before a case changes nothing
    for one, two, pair in zip(measure(first), measure(second), measure(second, first), strict=True):
        if one.name.endswith(", random order"):
            assert one.value != two.value, one.name
        assert pair.value == pytest.approx((one.value + two.value) / 2)


def test_what_cannot_be_measured_is_said(run, tiny_cohort):
    test = tiny_cohort.split("test")
    with pytest.raises(RecipeError, match="no explainer saliency"):
        measure_faithfulness(run, test, ("saliency",), engine=QUIET)
    with pytest.raises(RunError, match="one image or more"):
        measure_faithfulness(run, test, images=0, engine=QUIET)
    with pytest.raises(CohortError, match="no case"):
        measure_faithfulness(run, replace(test, cases=()), engine=QUIET)
    volumes = replace(run, recipe=replace(run.recipe, view=VolumeView()))
    with pytest.raises(RunError, match="no classifier of pictures"):
        measure_faithfulness(volumes, test, engine=QUIET)
    # no layer of this network could be found for Grad-CAM: said, and the class map is measured all the same
    table = measure_faithfulness(run, test, ("grad_cam", "cam"), images=2, engine=QUIET)
    assert list(table.estimates) == ["class map"] and "Grad-CAM was not measured" in table.notes[0]
