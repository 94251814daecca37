"""Features kept in files: the same training as without them, computed once for all."""

import hashlib
import os
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.cohorts import tiny_recipe

from sightline.data.targets.region_choice import RegionChoice
from sightline.data.views.crops import Crop, RegionJitter
from sightline.data.views.image_view import View
from sightline.data.views.patches import Patches
from sightline.errors import RecipeError, RunError
from sightline.evaluation.evaluate import evaluate
from sightline.explainers.cam import GradCAM
from sightline.explainers.gradients import InputGradient
from sightline.losses.attribution_priors import AttributionPrior, MapEnergy
from sightline.losses.map_norm import MapNorm
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.necks import Fusion
from sightline.models.pooling import SoftmaxPool
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.case import Case
from sightline.structures.regions import Box
from sightline.structures.tag import Tag
from sightline.training.engine import Engine
from sightline.training.feature_cache import FeatureCache
from sightline.training.optimization import WeightRelease
from sightline.training.train import train

QUIET = Engine(device="cpu", quiet=True)


def frozen_recipe(**changes):
    backbone = Backbone(name="mobilenetv2_050", frozen_stages=5, stages=5, frozen_precision="bf16")
    model = ClassMapModel(backbone=backbone, pool=SoftmaxPool(), fusion=Fusion(stride=8, channels=8))
    recipe = tiny_recipe(model=model, view=View(size=32, rotation_deg=10.0, contrast=0.1, draws=2), steps=4)
    return replace(recipe, validate="end", ema_decay=0.9, **changes)


def test_training_and_evaluation_are_the_same_with_features_kept(tiny_cohort, tmp_path):
    engine = replace(QUIET, features=tmp_path / "features")
    recipe = frozen_recipe()
    plain = train(recipe, tiny_cohort, tmp_path / "plain", CATALOGUE, QUIET)
    kept = train(recipe, tiny_cohort, tmp_path / "kept", CATALOGUE, engine)
    a, b = (load_file(run.folder / "weights.safetensors") for run in (plain, kept))
    # kept features are computed an image at a time, others a batch at a time: the last bit of bfloat16 may differ
    for name in a:
        assert torch.allclose(a[name].float(), b[name].float(), rtol=0.02, atol=0.02), name
    test = tiny_cohort.split("test")
    said = [evaluate(run, test, "test", engine=e).predictions for run, e in ((plain, QUIET), (kept, engine))]
    assert np.allclose(said[0].probabilities, said[1].probabilities, atol=0.05)


def test_another_seed_and_row_compute_nothing_again(tiny_cohort, tmp_path, monkeypatch):
    engine = replace(QUIET, features=tmp_path / "features")
    # one set of frozen weights for all seeds, as an initial weights file gives
    torch.manual_seed(0)
    same = frozen_recipe().model.build(2).state_dict()
    build = ClassMapModel.build

    def with_weights(self, n):
        network = build(self, n)
        network.load_state_dict(same)
        return network

    monkeypatch.setattr(ClassMapModel, "build", with_weights)
    first = train(frozen_recipe(steps=None, epochs=2), tiny_cohort, tmp_path / "first", CATALOGUE, engine)
    evaluate(first, tiny_cohort.split("test"), "test", engine=engine)
    monkeypatch.setattr(FeatureCache, "encode", lambda self, key, image: pytest.fail(f"{key} was computed again"))
    other = frozen_recipe(steps=None, epochs=2, weight=0.0, guidance=None, seed=7)
    second = train(other, tiny_cohort, tmp_path / "second", CATALOGUE, engine)
    # what is fixed stays so bit for bit, through the moving average too: evaluations find the same features
    evaluate(second, tiny_cohort.split("test"), "test", engine=engine)


def test_a_changed_picture_or_view_is_computed_anew(tiny_cohort, tmp_path):
    network = frozen_recipe().model.build(2)
    case = tiny_cohort[0]
    cache = FeatureCache(tmp_path, network.trunk, frozen_recipe().view)
    before = cache.name(case, "test")
    case.image.touch()
    assert FeatureCache(tmp_path, network.trunk, frozen_recipe().view).name(case, "test") != before
    other = FeatureCache(tmp_path, network.trunk, replace(frozen_recipe().view, contrast=0.2))
    assert other.folder != cache.folder


def test_what_frames_a_picture_is_part_of_its_name(tiny_cohort, tmp_path):
    """Marks where the view looks at them, pixels' shape where the cohort corrects it; else names are as before."""
    network = frozen_recipe().model.build(2)
    case = next(case for case in tiny_cohort if case.label == "fracture")
    box = Box((2.0, 2.0), (8.0, 9.0), Tag("finding", "fracture"))
    moved = replace(case, regions=(*(r for r in case.regions if r.tag.role != "finding"), box))
    tall = replace(case, spacing_mm=(0.4, 0.2))
    views = {
        "whole": View(size=32, draws=1),
        "patches": View(size=32, draws=1, patches=Patches(size=32)),
        "of the picture": View(size=32, draws=1, patches=Patches(size=32, around=0.0, labels="picture")),
        "crop": View(size=32, draws=1, crop=Crop()),
        "jitter": View(size=32, draws=1, jitter=RegionJitter()),
    }
    for name, view in views.items():
        cache = FeatureCache(tmp_path, network.trunk, view)
        renamed = [drawn for drawn in ("draw 0", "test") if cache.name(case, drawn) != cache.name(moved, drawn)]
        wanted = {"patches": ["draw 0"], "jitter": ["draw 0"], "crop": ["draw 0", "test"]}
        assert renamed == wanted.get(name, []), name
        assert cache.name(case, "test") != cache.name(tall, "test")
        assert cache.name(case, "test") == cache.name(replace(case, spacing_mm=(0.3, 0.3)), "test")
        # two cases of one picture are drawn differently
        assert cache.name(case, "draw 0") != cache.name(replace(case, case_id="another"), "draw 0")
    facts = case.image.stat()
    named = f"{case.case_id} {facts.st_size} {facts.st_mtime_ns}"
    cache = FeatureCache(tmp_path, network.trunk, views["whole"])
    assert cache.name(case, "draw 0") == f"{hashlib.sha256(named.encode()).hexdigest()[:20]}-draw0"


def test_pictures_out_of_archives_are_told_apart_by_what_they_hold(tmp_path):
    cache = FeatureCache(tmp_path, frozen_recipe().model.build(2).trunk, View(size=32, draws=1))
    names = set()
    for pixel in (0, 1):
        path = tmp_path / f"{pixel}.bmp"
        Image.fromarray(np.full((8, 8), pixel, np.uint8)).save(path)
        os.utime(path, (10**9, 10**9))
        names.add(cache.name(Case("a", "s", "p", path, "fracture"), "test"))
    assert len(names) == 2


def test_a_penalty_that_needs_no_marks_trains_on_kept_features(tiny_cohort, tmp_path):
    engine = replace(QUIET, features=tmp_path / "features")
    recipe = frozen_recipe(guidance=MapNorm(2), weight=1e-8, train_on=("train", "val"))
    assert train(replace(recipe, steps=1), tiny_cohort, tmp_path / "run", CATALOGUE, engine).done


def test_a_damaged_file_is_named(tmp_path):
    network = frozen_recipe().model.build(2)
    cache = FeatureCache(tmp_path, network.trunk, frozen_recipe().view)
    image = np.random.default_rng(0).random((1, 64, 64), dtype=np.float32)
    kept = cache.encode("a", image)
    assert np.array_equal(cache.find("a"), kept)
    assert cache.find("b") is None
    other = BytesIO()
    np.save(other, kept.astype(np.float64))
    # cut off by a power failure, of another kind, of other numbers
    for content in (b"nothing", b"", b"PK\x03\x04", other.getvalue()):
        (cache.folder / "a.npy").write_bytes(content)
        with pytest.raises(RunError, match="damaged"):
            cache.find("a")


def test_validation_at_the_end_only(tiny_cohort, tmp_path):
    train(frozen_recipe(steps=None, epochs=3), tiny_cohort, tmp_path / "run", CATALOGUE, QUIET)
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    at = rows[0].split(",").index("val_auc")
    assert [bool(row.split(",")[at]) for row in rows[1:]] == [False, False, True]
    with pytest.raises(RecipeError, match="after every epoch"):
        frozen_recipe(select="auc")


@pytest.mark.slow
def test_explainers_of_the_image_see_it_and_those_of_a_layer_learn_from_kept_features(tiny_cohort, tmp_path):
    """Priors on attributions train either way, with a weight that is released and marks that are dropped."""
    regions = RegionChoice("box", "finding", "all", dropout=0.3)
    reasons = InputGradient(score="log_probabilities", reduce="square_sum")
    priors = {
        "energy": AttributionPrior(GradCAM(), "energy", weight=5.0),
        "right reasons, Grad-CAM": AttributionPrior(GradCAM(), "outside", scale="max"),
        "right reasons": AttributionPrior(reasons, "outside", squared=False),
    }
    for name, prior in priors.items():
        engine = replace(QUIET, features=tmp_path / name)
        recipe = frozen_recipe(objective=prior, guidance=None, weight=0.0, regions=regions)
        run = train(recipe, tiny_cohort, tmp_path / "runs" / name, CATALOGUE, engine)
        row = (run.folder / "history.csv").read_text().splitlines()
        facts = dict(zip(row[0].split(","), row[-1].split(","), strict=True))
        assert float(facts["cross_entropy"]) > 0 and np.isfinite(float(facts["map_error"])), name
        # Grad-CAM of random frozen weights may be negative everywhere, and then has no energy
        assert float(facts["map_error"]) > 0 or name == "energy"
        # nothing is kept in training for what has to see the image
        assert (tmp_path / name).exists() == (name != "right reasons")
        assert np.isfinite(
            evaluate(run, tiny_cohort.split("test"), "test", engine=engine).predictions.probabilities
        ).all()
    guided = frozen_recipe(guidance=MapEnergy("softplus"), weight=2.0, release=WeightRelease(0.5, 0.0), regions=regions)
    train(guided, tiny_cohort, tmp_path / "runs" / "released", CATALOGUE, replace(QUIET, features=tmp_path / "energy"))


def test_a_released_weight_is_that_of_the_step(tiny_cohort, tmp_path):
    """Held throughout it changes no bit; released after the first step it does."""
    whole = train(tiny_recipe(steps=4), tiny_cohort, tmp_path / "whole", CATALOGUE, QUIET)
    same = tiny_recipe(steps=4, release=WeightRelease(1.0, 0.0))
    nothing = tiny_recipe(steps=4, release=WeightRelease(0.0, 0.0, end=0.0))
    a, b, c = (
        load_file(run.folder / "weights.safetensors")
        for run in (
            whole,
            train(same, tiny_cohort, tmp_path / "same", CATALOGUE, QUIET),
            train(nothing, tiny_cohort, tmp_path / "nothing", CATALOGUE, QUIET),
        )
    )
    assert all(torch.equal(a[k], b[k]) for k in a) and any(not torch.equal(a[k], c[k]) for k in a)
