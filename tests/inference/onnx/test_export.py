"""Graphs say what networks say, or are not written."""

import csv
import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from support.cohorts import tiny_recipe
from support.dicom_sources import radiograph
from torch import nn

from sightline.errors import GeometryError, RunError
from sightline.inference.gate.fit import fit_gate
from sightline.inference.gate.gate_file import write_gate
from sightline.inference.onnx import export
from sightline.inference.onnx.export import NamedOutputs, check_graph, export_onnx, measure_differences, write_graph
from sightline.inference.onnx.exported_run import OnnxNetwork, open_export
from sightline.inference.onnx.model_file import FACTS, GRAPH, find_export, make_session, read_facts, write_facts
from sightline.inference.radiographs import predict_files
from sightline.io.files import digest_file
from sightline.models.ensembles import average_answers
from sightline.models.pooling import NoisyOrPool
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.overrides import Changes, apply_changes
from sightline.papers.recipes import RECIPES, find_recipe
from sightline.structures.evidence import Evidence, FeatureTap, forward_evidence
from sightline.training.engine import Engine
from sightline.training.train import train

QUIET = Engine(device="cpu", quiet=True)
SMALL = Changes(backbone="test_resnet", weights="none", size=64)


@pytest.fixture(scope="module")
def run(tiny_cohort, tmp_path_factory):
    return train(tiny_recipe(steps=2), tiny_cohort, tmp_path_factory.mktemp("runs") / "run", CATALOGUE, QUIET)


@pytest.fixture(scope="module")
def exported(run):
    return export_onnx(run, run.folder / "onnx", CATALOGUE)


def test_a_graph_says_what_the_network_says_for_any_batch(run, exported):
    session = make_session(exported.folder / GRAPH)
    assert session.get_inputs()[0].shape == ["batch", 3, 48, 48]
    images = np.random.default_rng(3).random((5, 3, 48, 48)).astype(np.float32)
    wanted = forward_evidence(run.network(), torch.from_numpy(images))
    said = dict(zip(exported.facts.outputs, session.run(None, {"images": images}), strict=True))
    np.testing.assert_allclose(said["logits"], wanted.logits.numpy(), atol=1e-5)
    np.testing.assert_allclose(said["probabilities"], wanted.logits.softmax(dim=1).numpy(), atol=1e-6)
    for name, one in (("maps", wanted.maps), ("attention", wanted.extras["attention"])):
        np.testing.assert_allclose(said[name], one.numpy(), atol=1e-5 * float(one.max() - one.min()))
    # the head is linear in the features, so their mean gives the mean of the map
    head = run.network().head.linear
    means = said["features"] @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    np.testing.assert_allclose(means, said["maps"].mean(axis=(2, 3)), atol=1e-5)


def test_the_description_lies_beside_the_graph_and_within_it(run, exported):
    facts = read_facts(exported.folder)
    assert facts == exported.facts and find_export(run.folder) == exported.folder
    assert (facts.classes, facts.run_identity, facts.batch) == (run.classes, run.identity, 0)
    assert facts.checked["largest_differences"]["probabilities"] <= 1e-5
    model = onnx.load(str(exported.folder / GRAPH))
    within = json.loads(next(entry.value for entry in model.metadata_props if entry.key == "sightline"))
    beside = json.loads((exported.folder / FACTS).read_text(encoding="utf-8"))
    assert {**within, "graph_sha256": facts.graph_sha256} == beside
    # nothing of the machine it was made on
    assert str(run.folder.parent).encode() not in (exported.folder / GRAPH).read_bytes()
    assert b"site-packages" not in (exported.folder / GRAPH).read_bytes()


def test_another_graph_or_description_is_refused(exported, tmp_path):
    for name in (GRAPH, FACTS):
        (tmp_path / name).write_bytes((exported.folder / name).read_bytes())
    (tmp_path / GRAPH).write_bytes((tmp_path / GRAPH).read_bytes() + b"\0")
    with pytest.raises(RunError, match="not the graph"):
        read_facts(tmp_path)
    (tmp_path / FACTS).write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match="damaged"):
        read_facts(tmp_path)


class Drifting(nn.Module):
    """A network that says something else after its graph was made."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        maps = images[:, :1] * torch.stack([self.scale, 1.0 - self.scale]).view(1, 2, 1, 1)
        return Evidence(maps.mean(dim=(2, 3)), maps)


class Averaging(nn.Module):
    """An ensemble of one member that is a convolution."""

    def __init__(self, member):
        super().__init__()
        self.member, self.independent = member, True

    def forward(self, images):
        maps = self.member(images)
        return Evidence(average_answers(maps.mean(dim=(2, 3))[None], independent=self.independent), maps)


class NoisyOr(nn.Module):
    """Maps that are the image, and a picture's answer by noisy or."""

    def forward(self, images):
        maps = 2000.0 * (images - 0.5)
        return Evidence(NoisyOrPool()(maps), maps, {"attention": NoisyOrPool().share(maps)})


def test_a_noisy_or_of_maps_however_low_is_exported_to_the_last_digits(tmp_path):
    network = NoisyOr()
    named = NamedOutputs(network, independent=False).eval()
    assert write_graph(named, (3, 8, 8), tmp_path / GRAPH) == 0
    check_graph(named, tmp_path / GRAPH, (3, 8, 8), 0)
    session = make_session(tmp_path / GRAPH)
    for level in (-900.0, -60.0, -30.0, -10.0, 0.0, 5.0, 100.0, 900.0):
        maps = level + torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        images = maps / 2000.0 + 0.5
        said = dict(zip(named.names, session.run(None, {"images": images.numpy()}), strict=True))
        wanted = network(images)
        np.testing.assert_allclose(said["logits"], wanted.logits.numpy(), rtol=2e-6)
        np.testing.assert_allclose(said["attention"], wanted.extras["attention"].numpy(), rtol=2e-5)


def test_a_graph_that_says_something_else_is_refused(tmp_path):
    network = Drifting()
    named = NamedOutputs(network, independent=False).eval()
    assert write_graph(named, (1, 16, 16), tmp_path / GRAPH) == 0
    assert check_graph(named, tmp_path / GRAPH, (1, 16, 16), 0)["largest_differences"]["maps"] < 1e-6
    with torch.no_grad():
        network.scale += 1e-2
    with pytest.raises(RunError, match="differ from the network"):
        check_graph(named, tmp_path / GRAPH, (1, 16, 16), 0)


def test_what_counts_as_different():
    one = {"probabilities": np.array([[0.6, 0.4]], np.float32), "maps": np.array([[[0.0, 50.0]]], np.float32)}
    assert measure_differences(one, one) == {"probabilities": 0.0, "maps": 0.0}
    other = {**one, "maps": np.array([[[0.0, 50.5]]], np.float32)}
    assert measure_differences(one, other)["maps"] == pytest.approx(0.01)
    assert measure_differences(one, {**one, "probabilities": one["probabilities"][:, ::-1]})["probabilities"] == np.inf
    assert measure_differences(one, {**one, "maps": np.zeros((1, 1, 3), np.float32)})["maps"] == np.inf


def test_an_unfinished_run_is_not_exported(run, tmp_path):
    with pytest.raises(RunError, match="not finished"):
        export_onnx(replace(run, done=False), tmp_path / "out", CATALOGUE)
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named(monkeypatch):
    def absent(name):
        raise export.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(export.metadata, "version", absent)
    with pytest.raises(RunError, match=r"not installed \(onnx\)"):
        export.require_onnx()


@pytest.mark.parametrize(
    ("name", "channels"), [("global-pooling", 1024), ("self-transfer", None), ("a-stn", None), ("box-regression", None)]
)
def test_features_are_those_of_the_part_that_classifies(name, channels):
    network = apply_changes(find_recipe(name), SMALL).model.build(2).eval()
    tap = FeatureTap(network)
    with torch.no_grad():
        network(torch.rand(2, 1, 64, 64))
    features = tap.take()
    assert features.shape[0] == 2 and (channels is None or features.shape[1] == channels)
    assert tap.take() is None


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_graph_for_any_batch(name, tmp_path):
    volumes = name.startswith("spine")
    recipe = apply_changes(find_recipe(name), Changes(size=16) if volumes else SMALL)
    named = NamedOutputs(recipe.model.build(2), independent=recipe.independent).eval()
    side = recipe.view.size
    size = (1, side, side, side) if volumes else (3, side, side)
    batch = write_graph(named, size, tmp_path / GRAPH)
    check_graph(named, tmp_path / GRAPH, size, batch)
    assert batch == 0


def test_predicting_and_judging_with_a_graph_import_no_torch(run, exported, tiny_cohort, tmp_path):
    """The same tables, words equal and numbers nearly, from a process in which torch cannot be imported."""
    write_gate(run.folder, fit_gate(run, tiny_cohort, {"modality": ("DX",), "body_part": ("WRIST",)}, quiet=True))
    files = [case.image for case in tiny_cohort.split("test")][:2]
    dicom = tmp_path / "hand.dcm"
    radiograph().save_as(dicom, enforce_file_format=True)
    predict_files(run, [*files, dicom], tmp_path / "torch", QUIET)
    code = """
import json, sys
from pathlib import Path

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm", "monai"):
            raise ImportError(f"{name} is forbidden here")

sys.meta_path.insert(0, Absent())
from sightline.cli.main import main

run, out, dicom, *files = sys.argv[1:]
try:
    main(["predict", run, *files, dicom, "--engine", "onnx", "--out", f"{out}/onnx", "--quiet"])
except SystemExit as end:
    assert end.code == 0, end.code
from sightline.web.node.jobs.child import Request
from sightline.web.node.jobs.judge import judge_study

made = Path(out, "made")
made.mkdir()
words = dict(left_out=(), objects=("findings", "picture"), received=1.7e9, codes=None, predecessor=())
answer = judge_study(Request(run=Path(run), engine="auto", images={"a" * 64: Path(dicom)}, out=made, **words))
print(json.dumps([[kind for _, kind in answer.results], [dict(one) for one in answer.refused], sorted(
    name for name in sys.modules if name.split(".")[0] == "torch")]))
"""
    words = [run.folder, tmp_path, dicom, *files]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    kinds, refused, loaded = json.loads(done.stdout.splitlines()[-1])
    assert loaded == [] and (kinds == ["findings", "picture"] or [one["door"] for one in refused] == ["picture"])
    for name in ("predictions.csv", "boxes.csv", "studies.csv", "rejects.csv"):
        wanted, said = (list(csv.reader((tmp_path / engine / name).open())) for engine in ("torch", "onnx"))
        assert len(wanted) == len(said) and len(wanted) > (name != "rejects.csv")
        for one, other in zip(wanted, said, strict=True):
            for cell, same in zip(one, other, strict=True):
                try:
                    assert float(same) == pytest.approx(float(cell), abs=1e-4)
                except ValueError:
                    assert cell == same
    for overlay in (tmp_path / "torch" / "overlays").iterdir():
        pixels = [
            np.asarray(Image.open(tmp_path / engine / "overlays" / overlay.name), int) for engine in ("torch", "onnx")
        ]
        assert np.abs(pixels[0] - pixels[1]).max() <= 2


def test_a_graph_of_other_weights_is_not_asked(run, exported, tmp_path):
    folder = tmp_path / "my run"
    shutil.copytree(run.folder, folder)
    assert open_export(folder).facts.identity == run.identity
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes() + b"\0")
    with pytest.raises(RunError, match="other weights"):
        open_export(folder)
    shutil.rmtree(folder / "onnx")
    with pytest.raises(RunError, match="no ONNX graph") as refused:
        open_export(folder)
    assert f"sightline export '{folder}' --as onnx" in refused.value.remedy


def test_the_graph_of_an_ensemble_that_halves_sigmoids_is_refused(exported, tmp_path):
    # as an earlier version put it together: means of a softmax, read as sigmoids
    maps, images = nn.Conv2d(3, 2, 1), torch.rand(2, 3, 48, 48)
    network = NamedOutputs(Averaging(maps), independent=True).eval()
    for network.network.independent, refused in ((True, False), (False, True)):
        write_graph(network, (3, 48, 48), tmp_path / GRAPH)
        made = digest_file(tmp_path / GRAPH)
        facts = replace(exported.facts, independent=True, outputs=network.names, graph_sha256=made)
        write_facts(tmp_path, facts)
        with pytest.raises(RunError, match="above a half") if refused else nullcontext():
            assert open_export(tmp_path).network(images.numpy()).logits.shape == (2, 2)


def test_a_fixed_batch_is_kept_to_and_another_size_refused(exported):
    model = replace(exported.facts, batch=2)
    images = np.random.default_rng(0).random((4, 1, 48, 48)).astype(np.float32)
    whole = open_export(exported.folder).network(images)
    parts = OnnxNetwork(exported.folder / GRAPH, model)(images)
    np.testing.assert_allclose(parts.logits, whole.logits, atol=1e-6)
    assert parts.features.shape == whole.features.shape and set(parts.extras) == {"attention"}
    with pytest.raises(GeometryError, match="48, 48"):
        parts_of = OnnxNetwork(exported.folder / GRAPH, model)
        parts_of(images[..., :40])
