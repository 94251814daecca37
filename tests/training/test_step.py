"""Objectives that bring weights of their own, maps that are trained through, and classes judged by themselves."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.cohorts import tiny_recipe
from support.objectives import Explained, Learned, LearnedWeight

from sightline.data.targets.region_choice import RegionChoice
from sightline.errors import RecipeError, RunError
from sightline.evaluation.evaluate import evaluate
from sightline.explainers.cam import GradCAM
from sightline.explainers.gradients import InputGradient
from sightline.losses.cell_focal import CellFocal
from sightline.losses.spatial_nll import SpatialNLL
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.necks import Fusion
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.evidence import Batch
from sightline.training.engine import Engine
from sightline.training.optimization import Adam, ReduceOnPlateau
from sightline.training.run import open_run
from sightline.training.step import _compute_guidance, convert_evidence
from sightline.training.train import train

QUIET = Engine(device="cpu", quiet=True)


WORDS = {**CATALOGUE, "learned": Learned, "explained": Explained}
WORDS.setdefault("grad_cam", GradCAM)


def rows_of(folder):
    return list(csv.DictReader((Path(folder) / "history.csv").open()))


def bare(**changes):
    return tiny_recipe(guidance=None, weight=0.0, **changes)


def test_marks_reach_two_depths_and_the_second_answers_nothing(tiny_cohort, tmp_path):
    """Both depths' maps are guided alike; what is kept and answered has the first alone."""
    model = ClassMapModel(Backbone(name="test_resnet"), fusion=Fusion(stride=8, channels=16), deep_maps=True)
    recipe = tiny_recipe(model=model, guidance=CellFocal(), weight=1.0, steps=2, regions=RegionChoice("box", "finding"))
    torch.manual_seed(0)
    network = model.build(2)
    images, targets = torch.rand(2, 3, 64, 64), torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    targets[0, 0, 8:24, 8:24] = 1
    batch = Batch(images, torch.tensor([1, 0]), targets, torch.tensor([[True, True], [False, False]]), (), ("a", "b"))
    with torch.no_grad():
        out = convert_evidence(network.train()(images))
        # a 1x1 convolution of the trunk's last features, whose batch norms see the same batch
        head, last = network.companion.linear, network.trunk(images)
    assert out["deep_maps"].shape[2] < out["maps"].shape[2]
    cells = torch.einsum("bchw,kc->bkhw", last, head.weight) + head.bias[:, None, None]
    torch.testing.assert_close(cells, out["deep_maps"], rtol=1e-4, atol=1e-4)
    assert "deep_maps" not in network.eval()(images).extras
    both = _compute_guidance(recipe.guidance, out, targets, batch)
    single = [recipe.guidance(out[name], targets, batch.guided, batch.labels).value for name in ("maps", "deep_maps")]
    assert float(both.value) == pytest.approx(float(sum(single)))
    run = train(recipe, tiny_cohort, tmp_path / "run", CATALOGUE, QUIET)
    torch.manual_seed(recipe.seed)
    assert not torch.equal(run.network().companion.linear.weight, model.build(2).companion.linear.weight)
    for wrong in ({"weight": 0.0, "guidance": None}, {"weight": 0.0}):
        with pytest.raises(RecipeError, match="nothing guides"):
            replace(recipe, **wrong)


def test_an_objectives_own_weights_are_trained_saved_and_kept_apart(tiny_cohort, tmp_path):
    run = train(bare(objective=Learned(), epochs=2), tiny_cohort, tmp_path / "run", WORDS, QUIET)
    assert not any(name.startswith("objective") for name in load_file(run.folder / "weights.safetensors"))
    learned = load_file(run.folder / "objective.safetensors")
    assert set(learned) == {"log_scale"} and float(learned["log_scale"]) < 0.5
    assert float(rows_of(run.folder)[-1]["scale"]) > 0 and float(rows_of(run.folder)[-1]["val_cross_entropy"]) > 0
    run.network()  # the weights fit the network without them


def test_own_weights_survive_being_killed(tiny_cohort, tmp_path):
    recipe = bare(objective=Learned(), epochs=2, ema_decay=0.9)
    whole = train(recipe, tiny_cohort, tmp_path / "whole", WORDS, QUIET)

    class Killed(Exception):
        pass

    class Dying(LearnedWeight):
        calls = 0

        def forward(self, *given):
            Dying.calls += self.training
            if Dying.calls == 7:
                raise Killed
            return super().forward(*given)

    build, Learned.build = Learned.build, lambda self: Dying(self.start)
    try:
        with pytest.raises(Killed):
            train(recipe, tiny_cohort, tmp_path / "cut", WORDS, replace(QUIET, state_every_s=0.0))
    finally:
        Learned.build = build
    cut = train(recipe, tiny_cohort, tmp_path / "cut", WORDS, QUIET)
    for name in ("weights.safetensors", "objective.safetensors"):
        a, b = load_file(whole.folder / name), load_file(cut.folder / name)
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_maps_are_trained_through(tiny_cohort, tmp_path):
    """Pressing the map of Grad-CAM towards zero does so; without the weight it does not."""
    size = {}
    for weight in (0.0, 30.0):
        recipe = bare(objective=Explained(weight), epochs=2, seed=3)
        run = train(recipe, tiny_cohort, tmp_path / f"{weight:g}", WORDS, QUIET)
        size[weight] = float(rows_of(run.folder)[-1]["val_map_size"])
        assert float(rows_of(run.folder)[-1]["map_size"]) > 0
        # checked before the first step, in words
        assert "weights" in (run.folder / "preflight.md").read_text()
    assert size[30.0] < 0.5 * size[0.0]


def test_a_training_that_diverged_says_so(tiny_cohort, tmp_path):
    with pytest.raises(RunError, match=r"diverged|loss became"):
        train(bare(objective=Explained(1e6), epochs=4), tiny_cohort, tmp_path / "run", WORDS, QUIET)


def test_independent_classes_keep_their_own_probabilities(tiny_cohort, tmp_path):
    run = train(bare(objective=Explained(), steps=3), tiny_cohort, tmp_path / "run", WORDS, QUIET)
    evaluation = evaluate(run, tiny_cohort.split("test"), "test", engine=QUIET)
    sums = evaluation.predictions.probabilities.sum(axis=1)
    assert evaluation.predictions.independent and abs(sums - 1.0).max() > 1e-3
    again = evaluate(open_run(run.folder, WORDS), tiny_cohort.split("test"), "test", engine=QUIET)
    assert again.predictions == evaluation.predictions
    header = (run.folder / "predictions" / "test.csv").read_text().splitlines()[0]
    assert header.endswith("s(no fracture),s(fracture)")


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_weights_of_16_bits_are_refused(precision):
    with pytest.raises(RecipeError, match=f"{precision} keeps the weights in 16 bits") as caught:
        tiny_recipe(precision=precision)
    assert "bf16-mixed" in caught.value.remedy


def test_a_plateau_ends_a_training(tiny_cohort, tmp_path):
    schedule = ReduceOnPlateau(start=0.0, patience=1, give_up=2, least=0.0)
    run = train(bare(schedule=schedule, epochs=9, optimiser=Adam()), tiny_cohort, tmp_path / "run", CATALOGUE, QUIET)
    assert len(rows_of(run.folder)) < 9 and run.done


def test_gradients_are_clipped_by_value(tiny_cohort, tmp_path):
    seen = []
    step = torch.optim.Adam.step

    def watched(self, *args, **kwargs):
        grads = [p.grad.abs().max() for g in self.param_groups for p in g["params"] if p.grad is not None]
        seen.append(float(torch.stack(grads).max()))
        return step(self, *args, **kwargs)

    torch.optim.Adam.step = watched
    try:
        for name, clip in (("free", None), ("held", 1e-3)):
            train(bare(optimiser=Adam(clip_value=clip), steps=2), tiny_cohort, tmp_path / name, CATALOGUE, QUIET)
    finally:
        torch.optim.Adam.step = step
    assert max(seen[:2]) > 1e-3 and max(seen[2:]) <= 1e-3 + 1e-9


def test_a_rule_that_shows_the_weights_alone_is_called_wrong_before_training(tiny_cohort, tmp_path, capsys):
    """Deconvolution without max-pooling never looks at the picture (spec 4.4)."""
    explainer = InputGradient("deconvolution")
    backbone = Backbone("test_efficientnet")
    recipe = bare(objective=Explained(0.01, explainer), steps=2, model=ClassMapModel(backbone=backbone))
    run = train(recipe, tiny_cohort, tmp_path / "run", WORDS, QUIET)
    words = (run.folder / "preflight.md").read_text()
    assert "**wrong**" in words and "pre-flight" in capsys.readouterr().err


def test_a_recipe_guides_the_labelled_class_alone(tiny_cohort, tmp_path, monkeypatch):
    seen = []
    call = SpatialNLL.__call__

    def spy(self, maps, targets, guided, labels=None):
        term = call(self, maps, targets, guided, labels)
        seen.append((maps.detach().double().numpy(), targets.numpy(), guided.numpy(), labels.numpy(), term))
        return term

    monkeypatch.setattr(SpatialNLL, "__call__", spy)
    recipe = tiny_recipe(guidance=SpatialNLL(resolution="map", labelled_only=True), steps=2)
    train(recipe, tiny_cohort, tmp_path / "run", CATALOGUE, QUIET)
    assert len(seen) == 2
    # every map is marked (classes: all), and one of each image counts
    total = images = 0
    for maps, targets, guided, labels, term in seen:
        assert guided.all() and len(set(labels)) == 2
        losses = []
        for cells_of, marks, label in zip(maps, targets, labels, strict=True):
            rows, columns = (n // m for n, m in zip(marks.shape[1:], cells_of.shape[1:], strict=True))
            log_p = cells_of[label] - np.log(np.exp(cells_of[label]).sum())
            cells = [
                log_p[r, c]
                for r in range(cells_of.shape[1])
                for c in range(cells_of.shape[2])
                if marks[0, r * rows : (r + 1) * rows, c * columns : (c + 1) * columns].any()
            ]
            losses.append(-np.mean(cells))
        assert float(term.value.detach()) == pytest.approx(np.mean(losses), rel=1e-5)
        total, images = total + sum(losses), images + len(losses)
    assert float(rows_of(tmp_path / "run")[-1]["guidance"]) == pytest.approx(total / images, rel=1e-5)
