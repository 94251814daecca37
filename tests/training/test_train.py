"""The loop: repeatable, resumable after SIGKILL bit for bit, honest about what it trained on."""

import copy
import csv
import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.cohorts import tiny_recipe
from support.killed_training import launch_training
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sightline.data.split import split_cohort
from sightline.errors import CohortError, RecipeError, RunError, SightlineError
from sightline.losses.self_transfer import SelfTransferLoss
from sightline.models.backbones import Backbone
from sightline.models.self_transfer import SelfTransfer
from sightline.papers.catalogue import CATALOGUE
from sightline.training.checkpoint import clone_weights, load_state, save_state, update_ema
from sightline.training.engine import Engine
from sightline.training.optimization import (
    AdamW,
    CosineDecay,
    LayerRates,
    LinearDecay,
    Sgd,
    StepDecay,
    compute_class_weights,
    set_rate,
)
from sightline.training.recipe import format_recipe_json, read_recipe
from sightline.training.run import open_run
from sightline.training.serialization import build_from_plain, to_plain
from sightline.training.step import Progress, build_epoch_row
from sightline.training.train import _Loop, train

QUIET = Engine(device="cpu", quiet=True)


def weights(folder):
    return load_file(Path(folder) / "weights.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.slow
@pytest.mark.parametrize("validation", ["first", "current"])
def test_validation_heeds_the_epochs_before_where_the_objective_asks(tiny_cohort, tmp_path, validation):
    """Self-transfer's share switches after an epoch that brought nothing; by choice validation switches along."""
    objective = SelfTransferLoss(0.3, patience=1, validation=validation)
    recipe = tiny_recipe(
        model=SelfTransfer(backbone=Backbone(name="test_resnet")), guidance=None, weight=0.0,
        objective=objective, schedule=LinearDecay(1e-9, 1e-9), epochs=4,
    )  # fmt: skip
    run = train(recipe, tiny_cohort, tmp_path / "run", CATALOGUE, QUIET)
    rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader((run.folder / "history.csv").open())]
    shares = [objective.alpha_after(rows[:epoch]) for epoch in range(4)]
    assert 0.7 in [round(share, 6) for share in shares]
    wanted = shares if validation == "current" else [0.3] * 4
    assert [row["val_alpha"] for row in rows] == pytest.approx(wanted)
    for row, share in zip(rows, wanted, strict=True):
        both = (1.0 - share) * row["val_classification"] + share * row["val_localisation"]
        assert row["val_loss"] == pytest.approx(both, abs=1e-4)


def test_a_run_leaves_its_papers(tiny_cohort, tmp_path):
    run = train(tiny_recipe(steps=4), tiny_cohort, tmp_path / "run", CATALOGUE, QUIET)
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert {"recipe.json", "environment.json", "cohort.json", "history.csv", "weights.safetensors", "DONE"} <= names
    assert any((tmp_path / "run" / "events").iterdir())
    assert run.done
    assert run.classes == tiny_cohort.classes
    assert open_run(tmp_path / "run", CATALOGUE).recipe == tiny_recipe(steps=4)
    facts = json.loads((tmp_path / "run" / "cohort.json").read_text())
    assert facts["split"]["P04-0"] == "test"
    rows = list(csv.DictReader((tmp_path / "run" / "history.csv").open()))
    assert int(rows[-1]["step"]) == 4
    assert float(rows[0]["guidance_excess"]) > 0


def test_same_seed_same_weights_other_seed_others(tiny_cohort, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tiny_recipe(steps=3, seed=seed), tiny_cohort, tmp_path / name, CATALOGUE, QUIET)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


@pytest.mark.parametrize("times", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_and_started_again_ends_with_the_same_weights(tiny_cohort, tmp_path, times):
    whole = launch_training(tiny_cohort.root, tmp_path / "whole", 0.0)
    kills = 0
    for _ in range(times):
        state = tmp_path / "killed" / "state" / "state.safetensors"
        before = state.stat().st_mtime_ns if state.is_file() else 0
        process = launch_training(tiny_cohort.root, tmp_path / "killed", 0.15)
        deadline = time.monotonic() + 120
        # killed in the middle of whatever it does once it has moved past the last state
        while process.is_alive() and time.monotonic() < deadline:
            if state.is_file() and state.stat().st_mtime_ns > before:
                time.sleep(0.2)
                process.kill()
                break
            time.sleep(0.01)
        process.join(120)
        kills += process.exitcode == -signal.SIGKILL
    assert kills >= (times + 1) // 2, "the test must really kill the training"
    last = launch_training(tiny_cohort.root, tmp_path / "killed", 0.0)
    for process in (last, whole):
        process.join(120)
        assert process.exitcode == 0
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    columns = ("epoch", "step", "loss", "cross_entropy", "guidance", "val_loss", "val_auc")
    histories = [
        [[row[c] for c in columns] for row in csv.DictReader((tmp_path / name / "history.csv").open())]
        for name in ("whole", "killed")
    ]
    assert histories[0] == histories[1]
    assert not (tmp_path / "killed" / "state" / "state.safetensors").exists()


def test_a_finished_run_is_not_trained_again(tiny_cohort, tmp_path):
    train(tiny_recipe(steps=2), tiny_cohort, tmp_path / "run", CATALOGUE, QUIET)
    before = (tmp_path / "run" / "weights.safetensors").stat().st_mtime_ns
    train(tiny_recipe(steps=2), tiny_cohort, tmp_path / "run", CATALOGUE, QUIET)
    assert (tmp_path / "run" / "weights.safetensors").stat().st_mtime_ns == before


def test_a_run_is_not_done_before_what_is_chosen_on_validation(tiny_cohort, tmp_path):
    """Killed between its weights and its boxes, a run was taken for a finished one that has its recipe's boxes."""

    def stop(run):
        assert run.done and run.network() is not None
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny_recipe(steps=2), tiny_cohort, tmp_path / "run", CATALOGUE, QUIET, conclude=stop)
    assert not open_run(tmp_path / "run", CATALOGUE).done
    chosen = []
    assert train(tiny_recipe(steps=2), tiny_cohort, tmp_path / "run", CATALOGUE, QUIET, conclude=chosen.append).done
    assert len(chosen) == 1
    train(tiny_recipe(steps=2), tiny_cohort, tmp_path / "whole", CATALOGUE, QUIET)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "run"))


def test_another_recipe_in_the_same_folder_is_refused(tiny_cohort, tmp_path):
    train(tiny_recipe(steps=2), tiny_cohort, tmp_path / "run", CATALOGUE, QUIET)
    with pytest.raises(RunError, match="another run"):
        train(tiny_recipe(steps=3), tiny_cohort, tmp_path / "run", CATALOGUE, QUIET)


def test_unguided_and_weight_zero_are_the_same_training(tiny_cohort, tmp_path):
    train(tiny_recipe(steps=3, weight=0.0), tiny_cohort, tmp_path / "a", CATALOGUE, QUIET)
    train(tiny_recipe(steps=3, weight=0.0, guidance=None), tiny_cohort, tmp_path / "b", CATALOGUE, QUIET)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_guidance_changes_the_training_and_images_without_regions_do_not(tiny_cohort, tmp_path):
    bare = tiny_cohort.where(lambda c: True)
    bare = replace(bare, cases=tuple(replace(c, regions=()) for c in bare.cases))
    train(tiny_recipe(steps=3), tiny_cohort, tmp_path / "guided", CATALOGUE, QUIET)
    train(tiny_recipe(steps=3), bare, tmp_path / "no-regions", CATALOGUE, QUIET)
    train(tiny_recipe(steps=3, weight=0.0), bare, tmp_path / "unguided", CATALOGUE, QUIET)
    assert same(weights(tmp_path / "no-regions"), weights(tmp_path / "unguided"))
    assert not same(weights(tmp_path / "guided"), weights(tmp_path / "unguided"))


def test_refusals(tiny_cohort, tmp_path):
    leaking = replace(tiny_cohort, cases=(replace(tiny_cohort[0], split="test"), *tiny_cohort.cases[1:]))
    with pytest.raises(CohortError, match="P00"):
        train(tiny_recipe(), leaking, tmp_path / "a", CATALOGUE, QUIET)
    one_label = tiny_cohort.where(lambda c: c.label == "fracture")
    with pytest.raises(CohortError, match="one label"):
        train(tiny_recipe(), one_label, tmp_path / "b", CATALOGUE, QUIET)
    with pytest.raises(CohortError, match="no case in the split"):
        train(tiny_recipe(), tiny_cohort.split("test"), tmp_path / "c", CATALOGUE, QUIET)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="holds no run"):
        train(tiny_recipe(), tiny_cohort, tmp_path / "d", CATALOGUE, QUIET)


def test_a_diverging_loss_is_said_not_saved(tiny_cohort, tmp_path):
    recipe = tiny_recipe(steps=30, schedule=LinearDecay(1e9, 1e9))
    with pytest.raises(RunError, match=r"loss became (nan|inf)"):
        train(recipe, tiny_cohort, tmp_path / "run", CATALOGUE, QUIET)
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_a_damaged_state_or_weights_file_is_one_clear_error(tiny_cohort, tmp_path):
    run = train(tiny_recipe(steps=2), tiny_cohort, tmp_path / "run", CATALOGUE, QUIET)
    path = tmp_path / "run" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RunError, match="damaged"):
        run.network()


def test_a_strangers_run_executes_nothing(tiny_cohort, tmp_path):
    train(tiny_recipe(steps=2), tiny_cohort, tmp_path / "run", CATALOGUE, QUIET)
    path = tmp_path / "run" / "recipe.json"
    good = path.read_text()
    for old, new, message in (
        ('"kind": "class_map_model"', '"kind": "os.system"', "unknown"),
        ('"seed": 0', '"seed": "__import__(\'os\')"', "seed"),
        ('"seed": 0', '"seed": 0, "hook": "rm"', "no field hook"),
        ('"epochs": 3', '"epochs": 0', "epochs"),
    ):
        assert old in good
        path.write_text(good.replace(old, new))
        with pytest.raises(RecipeError, match=message):
            open_run(tmp_path / "run", CATALOGUE)


def test_recipes_read_back_equal(tmp_path):
    from sightline.papers.recipes import RECIPES, TABLES

    recipes = [make() for _, make in RECIPES.values()]
    recipes += [row.recipe for make in TABLES.values() for row in make("paper").rows]
    read = {}
    for recipe in recipes:
        text = format_recipe_json(recipe, CATALOGUE)
        if text not in read:
            (tmp_path / "r.json").write_text(text)
            read[text] = read_recipe(tmp_path / "r.json", CATALOGUE)
        assert read[text] == recipe


def test_the_moving_average_is_that_of_torch():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    theirs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    theirs.update_parameters(network)
    ours = clone_weights(network.state_dict())
    for _ in range(4):
        network(torch.randn(2, 1, 8, 8))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        theirs.update_parameters(network)
        update_ema(ours, network, 0.9, step=10_000)
    wanted = theirs.module.state_dict()
    assert all(torch.equal(ours[name], wanted[name]) for name in ours if ours[name].is_floating_point())
    # at the start it forgets faster
    before = ours["0.weight"].clone()
    update_ema(ours, network, 0.9, step=0)
    assert torch.allclose(ours["0.weight"], before.lerp(network[0].weight.detach(), 0.9))


@pytest.mark.filterwarnings("ignore:.*meta parameter")
def test_copies_of_weights_are_read_back_where_the_network_is(tmp_path):
    """`meta` stands in for a GPU: the moving average goes on there."""
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    path = tmp_path / "state.safetensors"
    save_state(path, network, optimizer, {}, {"average": network.state_dict(), "best": network.state_dict()})
    elsewhere = copy.deepcopy(network).to("meta")
    copies = load_state(path, elsewhere, torch.optim.SGD(elsewhere.parameters(), lr=0.1))[1]
    assert {value.device.type for weights in copies.values() for value in weights.values()} == {"meta"}
    update_ema(copies["average"], elsewhere, 0.9, step=5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_moving_average_on_a_gpu_survives_being_killed(tiny_cohort, tmp_path, monkeypatch):
    recipe = tiny_recipe(steps=4, ema_decay=0.9)
    engine = Engine("cuda", quiet=True, state_every_s=0.0)

    step = _Loop._run_step

    def run_until_killed(loop, batch):
        if loop.at.step == 2:
            raise KeyboardInterrupt
        step(loop, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_Loop, "_run_step", run_until_killed)
        train(recipe, tiny_cohort, tmp_path / "run", CATALOGUE, engine)
    assert (tmp_path / "run" / "state" / "state.safetensors").is_file()
    assert train(recipe, tiny_cohort, tmp_path / "run", CATALOGUE, engine).done


@pytest.mark.parametrize("select", ["auc", pytest.param("loss", marks=pytest.mark.slow)])
def test_best_on_validation_is_kept(tiny_cohort, tmp_path, select):
    run = train(tiny_recipe(epochs=4, select=select), tiny_cohort, tmp_path / select, CATALOGUE, QUIET)
    rows = list(csv.DictReader((tmp_path / select / "history.csv").open()))
    column, best = ("val_auc", max) if select == "auc" else ("val_loss", min)
    from sightline.evaluation.evaluate import evaluate

    wanted = best(float(row[column]) for row in rows)
    predictions = evaluate(run, tiny_cohort.split("val"), "val", engine=QUIET).predictions
    if select == "auc":
        from sklearn.metrics import roc_auc_score

        got = roc_auc_score(predictions.labels, predictions.probabilities[:, 1])
    else:
        from sklearn.metrics import log_loss

        got = log_loss(predictions.labels, predictions.probabilities)
    assert got == pytest.approx(wanted, abs=1e-5)


def test_selecting_on_what_is_trained_on_is_refused():
    with pytest.raises(RecipeError, match="validation"):
        tiny_recipe(select="auc", train_on=("train", "val"))


def test_schedules_against_their_formulas():
    assert [LinearDecay(1e-3, 1e-5).rate(s, 101, 10) for s in (0, 50, 100)] == pytest.approx([1e-3, 5.05e-4, 1e-5])
    assert [StepDecay(1e-3, 0.1, 30).rate(s, 950, 10) for s in (0, 299, 300, 600)] == pytest.approx(
        [1e-3, 1e-3, 1e-4, 1e-5]
    )
    cosine = CosineDecay(1.0, 0.0, 0.1)
    assert cosine.rate(0, 100, 10) == pytest.approx(0.1)
    assert cosine.rate(10, 100, 10) == pytest.approx(1.0)
    assert cosine.rate(55, 100, 10) == pytest.approx(0.5)
    assert cosine.rate(100, 100, 10) == pytest.approx(0.0, abs=1e-12)
    for odd in (0, -5):
        with pytest.raises(RecipeError, match=f"every_epochs must be 1 or more; got {odd}"):
            StepDecay(every_epochs=odd)
    for odd in (-0.1, 1.5, float("nan")):
        with pytest.raises(RecipeError, match="warm_up is a share"):
            CosineDecay(warm_up=odd)


def test_layer_rates_and_optimisers():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    groups = LayerRates({"0.": 0.1}).groups(network)
    assert sorted(g["factor"] for g in groups) == [0.1, 1.0]
    for config in (Sgd(), AdamW()):
        optimizer = config.build(LayerRates({"0.": 0.1}).groups(network))
        set_rate(optimizer, 0.5)
        assert sorted(g["lr"] for g in optimizer.param_groups) == pytest.approx([0.05, 0.5])
    with pytest.raises(RecipeError, match="nothing"):
        LayerRates({"nothing": 2.0}).groups(network)


def test_a_layers_own_schedule_runs_beside_the_recipes():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    rates = LayerRates({"1.": 0.5}, {"0.": StepDecay(1e-6, 0.5, 25)})
    optimizer = Sgd().build(rates.groups(network))
    for epoch in (0, 24, 25, 60):
        set_rate(optimizer, 1e-2 * 0.5 ** (epoch // 10), rates.own(epoch * 7, 700, 7))
        lr = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
        want = (1e-6 * 0.5 ** (epoch // 25), 0.5e-2 * 0.5 ** (epoch // 10), 1e-2 * 0.5 ** (epoch // 10))
        assert [lr[id(layer.weight)] for layer in network] == pytest.approx(want)
    with pytest.raises(RecipeError, match="factor and a schedule"):
        LayerRates({"0.": 0.1}, {"0.": StepDecay()})
    with pytest.raises(RecipeError, match="no schedule"):
        LayerRates({}, {"0.": 3.0})
    # kept in recipe.json, and left out where there is none
    recipe = tiny_recipe(rates=rates)
    assert build_from_plain(to_plain(recipe, CATALOGUE), CATALOGUE) == recipe
    assert "schedules" not in to_plain(tiny_recipe(), CATALOGUE)["rates"]
    # and in the history, beside the recipe's own rate
    row = build_epoch_row(29, Progress(step=30 * 7), replace(recipe, schedule=StepDecay(1e-2, 0.5, 10)), 700, 7)
    assert (row["rate"], row["rate of 0"]) == pytest.approx((2.5e-3, 5e-7))


def test_class_weights_are_inverse_frequency_with_mean_one():
    labels = [0] * 6 + [1] * 2 + [3] * 4
    weights = compute_class_weights(labels, 4)
    assert weights[2] == 0
    assert torch.stack([weights[i] for i in labels]).mean() == pytest.approx(1.0)
    assert weights[1] / weights[0] == pytest.approx(3.0)


def test_reweighting_changes_an_unbalanced_training(tiny_cohort, tmp_path):
    few = tiny_cohort.where(lambda c: c.label == "fracture" or c.patient_id < "P07")
    for name in ("none", "inverse_frequency"):
        train(tiny_recipe(steps=3, reweight=name), few, tmp_path / name, CATALOGUE, QUIET)
    assert not same(weights(tmp_path / "none"), weights(tmp_path / "inverse_frequency"))


def test_errors_carry_a_remedy(tiny_cohort, tmp_path):
    with pytest.raises(SightlineError) as caught:
        open_run(tmp_path, CATALOGUE)
    assert caught.value.remedy
    assert split_cohort(tiny_cohort, (0.5, 0.25, 0.25), 1).counts() == tiny_cohort.counts()
