"""Finished runs that judge together: means of probabilities and of maps, the mirror image, smoothing."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from sightline.cli.main import main
from sightline.data.datasets.folder.writer import write_cohort
from sightline.errors import RecipeError
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.ensembles import Ensemble, average_answers, average_maps, smooth_maps
from sightline.models.necks import Fusion
from sightline.models.pooling import MaxPool, MeanPool
from sightline.models.volume_networks import VolumeUNet
from sightline.papers.combined import build_ensemble_recipe
from sightline.papers.recipes import find_recipe
from sightline.training.feature_cache import TakesFeatures

SMALL = ("--steps", "2", "--size", "48", "--batch-size", "4", "--backbone", "test_resnet", "--weights", "none")
ON = ("--device", "cpu", "--quiet")
TINY = ClassMapModel(Backbone("test_resnet", weights=None), MeanPool())


def call(*args) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in args])
    return int(end.value.code or 0)


def built(config: Ensemble, classes: int = 2):
    torch.manual_seed(0)
    return config.build(classes).eval()


@torch.no_grad()
def test_one_member_alone_says_what_it_says():
    network = built(Ensemble((TINY,)))
    images = torch.rand(3, 1, 64, 64)
    alone, together = network.members[0](images), network(images)
    torch.testing.assert_close(together.logits.softmax(1), alone.logits.softmax(1))
    torch.testing.assert_close(together.maps, alone.maps)
    torch.testing.assert_close(together.extras["attention"], alone.extras["attention"])


@torch.no_grad()
def test_probabilities_are_the_mean_of_the_members():
    network = built(Ensemble((TINY, TINY, TINY), mirrored=True))
    images = torch.rand(2, 1, 64, 64)
    said = [m(x).logits.softmax(1) for m in network.members for x in (images, images.flip(3))]
    torch.testing.assert_close(network(images).logits.exp(), sum(said) / 6)


@torch.no_grad()
def test_members_that_judge_each_class_by_itself_keep_their_sigmoids():
    """The logarithms of a mean softmax stood for log odds, so that no class reached one half."""
    network = built(Ensemble((TINY, TINY), mirrored=True, independent=True), classes=3)
    for member, bias in zip(network.members, ((3.0, 2.0, -1.0), (5.0, -2.0, 0.5)), strict=True):
        member.head.linear.bias.copy_(torch.tensor(bias))
    images = torch.rand(2, 1, 64, 64)
    said = [m(x).logits.sigmoid() for m in network.members for x in (images, images.flip(3))]
    torch.testing.assert_close(network(images).logits.sigmoid(), sum(said) / 4)
    assert network(images).logits.sigmoid().max() > 0.9
    certain = torch.tensor([[[200.0, -200.0, 1e4]], [[100.0, -100.0, -1e4]], [[100.0, -100.0, 1e4]]])
    far = average_answers(certain, independent=True)
    torch.testing.assert_close(far, torch.tensor([[100.0 + math.log(1.5), -100.0 - math.log(1.5), math.log(2.0)]]))


@pytest.mark.parametrize("config", [TINY, VolumeUNet(width=4, head="maps", size=32)])
@torch.no_grad()
def test_a_mirrored_ensemble_turns_with_its_image(config):
    volumes = isinstance(config, VolumeUNet)
    network = built(Ensemble((config,), mirrored=True, smooth=0.7))
    images = torch.rand(2, 1, *([32] * 3 if volumes else [64] * 2))
    seen, turned = network(images), network(images.flip(-1))
    torch.testing.assert_close(turned.logits, seen.logits)
    torch.testing.assert_close(turned.maps, seen.maps.flip(-1))


def test_no_member_speaks_louder_because_its_maps_are_wider():
    torch.manual_seed(1)
    quiet, loud = torch.randn(1, 1, 8, 8, dtype=torch.double), 100 * torch.randn(1, 1, 8, 8, dtype=torch.double) + 40
    mean = average_maps([quiet, loud])
    units = [(m - m.mean()) / m.std(correction=0) for m in (quiet, loud)]
    spread = (quiet.std(correction=0) + loud.std(correction=0)) / 2
    torch.testing.assert_close(mean, (units[0] + units[1]) / 2 * spread + (quiet.mean() + loud.mean()) / 2)
    # the plain mean would point where the loud one points
    assert ((quiet + loud) / 2).argmax() == loud.argmax()
    agreement = torch.corrcoef(torch.stack([mean.flatten(), quiet.flatten(), loud.flatten()]))[0, 1:]
    assert agreement[0] == pytest.approx(float(agreement[1]))


def test_a_flat_map_stays_flat():
    flat = torch.zeros(1, 2, 4, 4)
    flat[:, 1] = torch.rand(4, 4)
    mean = average_maps([flat, flat])
    assert (mean[:, 0] == 0).all()
    torch.testing.assert_close(mean, flat)


@pytest.mark.parametrize("shape", [(9, 12), (5, 7, 6)])
def test_smoothing_is_scipys(shape):
    maps = torch.rand(2, 3, *shape, dtype=torch.double)
    for cells in (0.5, 1.0, 2.3):
        ours = smooth_maps(maps, cells).numpy()
        for image in range(2):
            for k in range(3):
                # radius, not truncate: SciPy rounds where we take the whole cell
                theirs = gaussian_filter(
                    maps[image, k].numpy(), cells, mode="nearest", radius=int(np.ceil(3.0 * cells))
                )
                np.testing.assert_allclose(ours[image, k], theirs, atol=1e-12)
    assert smooth_maps(maps, 0.0) is maps


@torch.no_grad()
def test_members_of_other_grids_meet_on_the_finest():
    fine = replace(TINY, fusion=Fusion(stride=8, channels=8))
    said = built(Ensemble((TINY, fine)))(torch.rand(1, 1, 64, 64))
    assert said.maps.shape == said.extras["attention"].shape == (1, 2, 8, 8)


@torch.no_grad()
def test_without_maps_of_all_members_there_are_none():
    network = built(Ensemble((VolumeUNet(width=4, size=32), VolumeUNet(width=4, head="maps", size=32))))
    said = network(torch.rand(1, 1, 32, 32, 32))
    assert said.maps is None and said.logits.exp().sum().item() == pytest.approx(1.0)


@torch.no_grad()
def test_maps_of_one_member_stand_beside_the_answer_of_all():
    network, images = built(Ensemble((TINY, TINY, TINY), mirrored=True, maps_of=(1,))), torch.rand(2, 1, 64, 64)
    whole = built(Ensemble((TINY, TINY, TINY), mirrored=True))
    whole.load_state_dict(network.state_dict())
    alone = built(Ensemble((TINY,), mirrored=True))
    alone.members[0].load_state_dict(network.members[1].state_dict())
    assert torch.equal(network(images).logits, whole(images).logits)
    assert torch.equal(network(images).maps, alone(images).maps)
    assert not torch.equal(network(images).maps, whole(images).maps)


def test_settings_that_mean_nothing_are_refused():
    for places in ((3,), (-1,), (0, 0)):
        with pytest.raises(RecipeError, match="Count from 0"):
            Ensemble((TINY, TINY), maps_of=places)
    with pytest.raises(RecipeError, match="at least one member"):
        Ensemble(())
    for width in (-1.0, float("nan"), float("inf")):
        with pytest.raises(RecipeError, match="0 cells or more"):
            Ensemble((TINY,), smooth=width)


def test_members_that_do_not_belong_together_are_refused():
    lbm = find_recipe("lbm")
    assert build_ensemble_recipe([lbm, lbm]).title == "ensemble of 2"
    with pytest.raises(RecipeError, match="different images"):
        build_ensemble_recipe([lbm, replace(lbm, view=replace(lbm.view, size=64))])
    # augmentation is no part of what is shown when a network is asked
    build_ensemble_recipe([lbm, replace(lbm, view=replace(lbm.view, rotation_deg=1.0))])
    with pytest.raises(RecipeError, match="window"):
        build_ensemble_recipe([lbm, find_recipe("a-stn")])
    with pytest.raises(RecipeError, match="classes"):
        build_ensemble_recipe([lbm, replace(lbm, task=find_recipe("box-regression").task or _two_classes())])
    with pytest.raises(RecipeError, match="at least one member"):
        build_ensemble_recipe([])


def _two_classes():
    from sightline.papers.jimenez2018 import TASKS

    return TASKS["2c"]


def test_two_seeds_judge_together_from_the_command_line(tmp_path, tiny_cohort, capsys, coarse_pictures, monkeypatch):
    # charts of what is said, which do not know who says it
    monkeypatch.setattr("sightline.evaluation.evidence.figures.write_figures", lambda *given, **named: [])
    place = tmp_path / "cohort"
    write_cohort(tiny_cohort, place)
    for seed in (0, 1):
        options = (*SMALL, "--seed", str(seed), *ON)
        assert call("train", "unguided", "--cohort", place, "--out", tmp_path / str(seed), *options) == 0
    run = tmp_path / "both"
    assert call("ensemble", tmp_path / "0", tmp_path / "1", "--cohort", place, "--out", run, "--smooth", "1", *ON) == 0
    assert (run / "DONE").read_text().startswith("assembled")
    picture = next((place / "images").iterdir())
    for name in ("0", "1", "both"):
        assert call("predict", tmp_path / name, picture, "--out", tmp_path / f"said-{name}", *ON) == 0
    assert call("evaluate", run, "--cohort", place, "--replicates", "10", "--panels", "1", *ON) == 0
    said = [next(csv.DictReader((tmp_path / f"said-{name}" / "predictions.csv").open())) for name in ("0", "1", "both")]
    first, second, both = (float(row["p(fracture)"]) for row in said)
    assert first != second and both == pytest.approx((first + second) / 2, abs=1e-6)
    with pytest.raises(SystemExit):
        main(["ensemble", "--cohort", str(place), "--out", str(run)])
    refused = {
        "cases that this cohort tests on": replace(
            tiny_cohort, cases=tuple(replace(case, split="test") for case in tiny_cohort)
        ),
        "here the classes are": replace(tiny_cohort, classes=tiny_cohort.classes[::-1]),
    }
    for number, (words, cohort) in enumerate(refused.items()):
        write_cohort(cohort, tmp_path / f"other{number}")
        capsys.readouterr()
        other = ("ensemble", tmp_path / "0", "--cohort", tmp_path / f"other{number}", "--out", tmp_path / "no", *ON)
        assert call(*other) == 2 and words in capsys.readouterr().err
        assert not (tmp_path / "no").exists()


@torch.no_grad()
def test_members_with_the_same_frozen_stages_take_their_kept_features():
    """What `--features` keeps serves runs that judge together; nothing is shared that is not the same."""
    backbone = Backbone("mobilenetv2_050", frozen_stages=5, stages=5, frozen_precision="bf16")
    member = ClassMapModel(backbone, MeanPool(), fusion=Fusion(stride=8, channels=8))

    def build(*members: ClassMapModel, mirrored: bool = False):
        network = built(Ensemble(members, mirrored))
        for one in network.members[1:]:
            one.trunk.net.load_state_dict(network.members[0].trunk.net.state_dict())
        return network

    network = build(member, replace(member, pool=MaxPool()))
    assert isinstance(network, TakesFeatures) and network.trunk is network.members[0].trunk
    images = torch.rand(2, 1, 64, 64)
    plain, kept = network(images), network(network.trunk.frozen_features(images))
    assert torch.allclose(plain.logits, kept.logits, atol=1e-5) and torch.allclose(plain.maps, kept.maps, atol=1e-4)
    # other weights, another normalisation, other strides, nothing frozen, or a mirror image, which features have not
    other = built(Ensemble((member, member)))
    whole = replace(member, backbone=replace(backbone, frozen_stages=0, frozen_precision="32"))
    for config in (
        other,
        build(member, replace(member, backbone=replace(backbone, mean=(0.1, 0.2, 0.3)))),
        build(member, replace(member, fusion=Fusion(stride=16, channels=8))),
        build(member, whole),
        build(member, member, mirrored=True),
        built(Ensemble((TINY, TINY))),
    ):
        assert config.trunk.frozen_stages is None
