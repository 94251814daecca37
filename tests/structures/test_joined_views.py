"""Studies as the examples of a training: every view has its map, and the study one answer."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.cohorts import make_cohort, tiny_recipe

from sightline.data.loader import CohortItems, iterate_training_batches
from sightline.data.views.image_view import View
from sightline.errors import CohortError, RecipeError
from sightline.evaluation.evaluate import evaluate
from sightline.inference.radiographs import predict_files
from sightline.losses.cell_focal import CellFocal
from sightline.metrics.predictions import Predictions
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.evidence import join_logits
from sightline.structures.joined_views import join_answers
from sightline.training import train as loop
from sightline.training.engine import Engine
from sightline.training.step import compute_study_loss

QUIET = Engine(device="cpu", quiet=True)
HOWS = ("mean", "maximum", "log_sum_exp")


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    """Studies of two views, and some of which one view is missing."""
    cohort = make_cohort(tmp_path_factory.mktemp("views"))
    return replace(cohort, cases=tuple(c for i, c in enumerate(cohort) if i % 7))


def join_slowly(logits, studies, how, normal):
    """One study and one class after the other, with plain numbers."""
    found = []
    for study in studies:
        mine = [row for row, other in zip(logits, studies, strict=True) if other == study]
        z = []
        for c in range(len(logits[0])):
            d = [row[c] - (row[normal] if normal is not None else 0.0) for row in mine]
            z.append(
                {
                    "mean": sum(d) / len(d),
                    "maximum": max(d),
                    "log_sum_exp": math.log(sum(math.exp(x) for x in d) / len(d)),
                }[how]
            )
        found.append(z)
    return found


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("normal", [0, 2, None])
def test_joined_evidence_is_that_of_the_definition(how, normal):
    logits = np.random.default_rng(1).normal(0, 3, (9, 3))
    studies = [0, 1, 1, 0, 2, 3, 3, 3, 1]
    slow = np.array(join_slowly(logits.tolist(), studies, how, normal))
    quick = join_logits(torch.from_numpy(logits), torch.tensor(studies), how, normal)
    assert quick.numpy() == pytest.approx(slow)
    if normal is not None:
        # the same from what a file keeps: probabilities
        said = torch.from_numpy(logits).softmax(1).numpy()
        joined = join_answers(said, [f"S{s}" for s in studies], how, normal)
        assert joined == pytest.approx(torch.from_numpy(slow).softmax(1).numpy())


def test_every_study_counts_once_and_one_view_learns_from_a_maximum():
    logits = torch.tensor([[0.0, 1.0], [0.0, 3.0], [0.0, -1.0]], requires_grad=True)
    labels, studies = torch.tensor([1, 1, 0]), torch.tensor([4, 4, 9])
    joined = join_logits(logits, studies, "maximum", 0)
    loss, n = compute_study_loss(joined, labels, studies, torch.ones(2))
    assert n == 2
    assert float(loss.detach()) == pytest.approx((math.log(1 + math.exp(-3)) + math.log(1 + math.exp(-1))) / 2)
    loss.backward()
    assert logits.grad[0].tolist() == [0.0, 0.0] and logits.grad[1, 1] < 0 < logits.grad[2, 1]


def test_batches_hold_whole_studies_in_turn(views):
    training = views.split("train")
    items = CohortItems(training, View(size=16), seed=3, whole_studies=True)
    sizes = {study: sum(c.study_id == study for c in training) for study in {c.study_id for c in training}}
    assert set(sizes.values()) == {1, 2}
    for balance in ("none", "most"):
        seen = []
        for batch in iterate_training_batches(items, epoch=1, batch_size=4, balance=balance):
            drawn = {}
            for name, number in zip(batch.case_ids, batch.studies.tolist(), strict=True):
                drawn.setdefault(number, []).append(name)
            assert all(len(names) == sizes[f"S{names[0][1:3]}"] for names in drawn.values())
            seen += list(drawn)
        assert len(seen) == len(set(seen)) == items.images_per_epoch(balance=balance)


def test_a_study_is_trained_judged_and_predicted_as_one(views, tmp_path, monkeypatch, no_overlays):
    recipe = tiny_recipe(steps=4, batch_size=4, join_views="maximum", guidance=CellFocal(), reweight="oversample")
    run = loop.train(recipe, views, tmp_path / "whole", CATALOGUE, QUIET)
    step, count = loop.run_training_step, []

    def stop(*args):
        if len(count) == 3:
            raise KeyboardInterrupt
        count.append(1)
        return step(*args)

    monkeypatch.setattr(loop, "run_training_step", stop)
    with pytest.raises(KeyboardInterrupt):
        loop.train(recipe, views, tmp_path / "killed", CATALOGUE, replace(QUIET, state_every_s=0.0))
    monkeypatch.setattr(loop, "run_training_step", step)
    loop.train(recipe, views, tmp_path / "killed", CATALOGUE, QUIET)
    weights = [load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed")]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])

    test = views.split("test")
    told = evaluate(run, test, "test", engine=QUIET).predictions
    assert told == Predictions.read(run.folder / "predictions" / "test.csv")
    # what the network says of each view: the study has that of the view which says most
    for study in set(told.study_ids):
        mine = [i for i, other in enumerate(told.study_ids) if other == study]
        most = max(float(told.alone[i, 1]) for i in mine)
        assert told.probabilities[mine, 1] == pytest.approx(most)
    # from files without any header: a table says what belongs together
    table = tmp_path / "studies.csv"
    table.write_text("file,study\n" + "".join(f"{case.image.name},{case.study_id}\n" for case in test))
    predict_files(run, [case.image for case in test], tmp_path / "out", QUIET, study_table=table)
    said = {row["study"]: float(row["p(fracture)"]) for row in csv.DictReader((tmp_path / "out/studies.csv").open())}
    assert said == pytest.approx(dict(zip(told.study_ids, told.probabilities[:, 1].tolist(), strict=True)), abs=1e-6)


def test_what_does_not_judge_studies_is_refused(views, tmp_path):
    with pytest.raises(RecipeError, match="patches"):
        tiny_recipe(join_views="mean", view=replace(tiny_recipe().view, patches=CATALOGUE["patches"](size=16)))
    mixed = replace(views, cases=(*views.cases[:2], replace(views[2], label="no fracture"), *views.cases[3:]))
    assert mixed[1].study_id == mixed[2].study_id
    with pytest.raises(CohortError, match="joined views have one answer"):
        loop.train(tiny_recipe(join_views="mean"), mixed, tmp_path / "run", CATALOGUE, QUIET)
