"""Self-training: a first run's surest peaks become the marks of the next, and experts' marks it never saw do not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.cohorts import tiny_recipe
from torch import nn

from sightline.data.targets.region_choice import RegionChoice
from sightline.errors import CohortError, RecipeError
from sightline.evaluation.tables.engines.self_training import READER, Teaching, label_by_run
from sightline.losses.spatial_nll import SpatialNLL
from sightline.structures.evidence import Evidence
from sightline.training.run import Run


class Brightest(nn.Module):
    """The second class's map is the picture itself, pooled to cells of 4 pixels."""

    def forward(self, images):
        cells = nn.functional.avg_pool2d(images[:, :1], 4)
        maps = torch.cat([torch.zeros_like(cells), cells], dim=1)
        return Evidence(logits=maps.flatten(2).amax(-1), maps=maps)


class KnownRun(Run):
    def network(self):
        return Brightest()


def run_of(recipe, cohort, tmp_path):
    return KnownRun(tmp_path / "teacher", recipe, cohort.classes, {}, True, recipe.boxes)


def findings(case):
    return [region for region in case.regions if region.tag.role == "finding"]


def test_peaks_of_an_unguided_run_replace_every_training_mark(tiny_cohort, tmp_path):
    recipe = tiny_recipe(guidance=None, weight=0.0)
    marked = label_by_run(run_of(recipe, tiny_cohort, tmp_path), tiny_cohort, Teaching(keep=1.0, side=0.125))
    positives = 0
    for before, after in zip(tiny_cohort, marked, strict=True):
        if before.split != "train" or before.label == "no fracture":
            assert after == before
            continue
        positives += 1
        (true,), (found,) = findings(before), findings(after)
        assert found.tag.reader == READER and found.tag.label == "fracture"
        # pictures of 40 x 48: the square is 6 pixels wide, its middle a cell of the finding's 6 x 6 pixels
        assert np.subtract(found.stop, found.start) == pytest.approx((6.0, 6.0))
        middle = np.add(found.start, found.stop) / 2.0
        assert (np.subtract(true.start, 1.0) <= middle).all() and (middle <= np.add(true.stop, 1.0)).all()
        # what is no finding is kept
        assert len(after.regions) == len(before.regions)
    assert positives > 4
    assert marked.fingerprint() != tiny_cohort.fingerprint()


def test_only_the_surest_are_marked(tiny_cohort, tmp_path):
    run = run_of(tiny_recipe(guidance=None, weight=0.0), tiny_cohort, tmp_path)
    few, all_of_them = (label_by_run(run, tiny_cohort, Teaching(keep=keep)).split("train") for keep in (0.25, 1.0))
    count = [sum(bool(findings(case)) for case in cohort) for cohort in (few, all_of_them)]
    assert count[0] == -(-count[1] // 4)
    # experts' marks of the pictures that were left out are gone too
    assert all(region.tag.reader == READER for case in few for region in findings(case))


def test_marks_the_run_was_guided_by_stay(tiny_cohort, tmp_path):
    choice = RegionChoice("box", "finding", "tagged", share=0.4)
    recipe = tiny_recipe(guidance=SpatialNLL(resolution="map"), weight=1.0, regions=choice)
    shown = choice.patients(tiny_cohort.split("train"))
    marked = label_by_run(run_of(recipe, tiny_cohort, tmp_path), tiny_cohort, Teaching(keep=1.0))
    readers = {True: set(), False: set()}
    for case in marked.split("train"):
        readers[case.patient_id in shown] |= {region.tag.reader for region in findings(case)}
    assert readers == {True: {""}, False: {READER}}


def test_a_run_that_saw_everything_has_nobody_to_teach(tiny_cohort, tmp_path):
    recipe = tiny_recipe(
        guidance=SpatialNLL(resolution="map"), weight=1.0, regions=RegionChoice("box", "finding", "tagged")
    )
    with pytest.raises(CohortError, match="nobody to teach"):
        label_by_run(run_of(recipe, tiny_cohort, tmp_path), tiny_cohort)
    with pytest.raises(RecipeError, match="keep"):
        Teaching(keep=0.0)
    # the same recipe unguided has
    assert label_by_run(run_of(replace(recipe, weight=0.0), tiny_cohort, tmp_path), tiny_cohort)
