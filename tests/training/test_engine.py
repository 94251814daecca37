"""Precision, several devices and the GPU are Fabric's; what they train must be the same training."""

import copy
import ctypes
import inspect
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.cohorts import tiny_recipe
from support.paths import ROOT

from sightline.data.views.image_view import View
from sightline.evaluation.evaluate import evaluate
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.papers.catalogue import CATALOGUE
from sightline.training import engine
from sightline.training.engine import (
    Engine,
    compute_strided_in_float32,
    deterministic_operations,
    keep_freed_memory,
    sync_batch_norms,
)
from sightline.training.feature_cache import FeatureCache
from sightline.training.train import train


def test_mixed_precision_trains_and_saves_whole_precision(tiny_cohort, tmp_path):
    run = train(
        tiny_recipe(steps=3, precision="bf16-mixed"),
        tiny_cohort,
        tmp_path / "run",
        CATALOGUE,
        Engine("cpu", quiet=True),
    )
    assert {t.dtype for t in run.network().state_dict().values()} <= {torch.float32, torch.int64}
    found = evaluate(run, tiny_cohort.split("test"), "test", engine=Engine("cpu", quiet=True))
    assert np.isfinite(found.predictions.probabilities).all()


# with bfloat16 the test above trains
@pytest.mark.parametrize("there", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_processor_without_bfloat16_computes_in_float32_and_says_so(
    tiny_cohort, tmp_path, monkeypatch, capsys, caplog, there
):
    caplog.set_level("INFO")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: there)
    backbone = Backbone(name="mobilenetv2_050", frozen_stages=3, stages=5, frozen_precision="bf16")
    recipe = tiny_recipe(
        steps=2, model=ClassMapModel(backbone=backbone), view=View(size=32, draws=1), precision="bf16-mixed"
    )
    weights = []
    for name, recipe_ in (("mixed", recipe), ("float32", replace(recipe, precision="32-true"))):
        engine = Engine("cpu", quiet=True, features=tmp_path / f"features-{name}")
        run = train(recipe_, tiny_cohort, tmp_path / name, CATALOGUE, engine)
        weights.append(run.network().state_dict())
    same = all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert same != there
    said = capsys.readouterr().err + caplog.text
    assert said.count("has no bfloat16") == (0 if there else 1) and ("Using bfloat16" in said) == there, said
    assert json.loads((tmp_path / "mixed" / "environment.json").read_text())["bfloat16"] is there
    # features computed in float32 are not mixed with those in bfloat16
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: not there)
    trunk = run.network().trunk
    other = FeatureCache(tmp_path / "features-float32", trunk, recipe.view)
    assert list(other.folder.iterdir()) == [other.folder / "about.txt"]


@pytest.mark.slow
def test_two_devices_leave_the_weights_of_one(tiny_cohort, tmp_path):
    """Also where a loss divides by what is marked, leaves the worst out or learns a weight, and a part is not used."""
    script = ROOT / "tests" / "support" / "device_training.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    for devices in ("1", "2"):
        command = [sys.executable, str(script), str(tiny_cohort.root), str(tmp_path / devices), devices]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stderr
    worst = {}
    for path in sorted((tmp_path / "1").rglob("*.safetensors")):
        one, two = load_file(path), load_file(tmp_path / "2" / path.relative_to(tmp_path / "1"))
        gap = max(float((one[k].double() - two[k].double()).abs().max()) for k in one)
        worst[str(path.relative_to(tmp_path / "1"))] = gap
    print(worst)
    assert len(worst) == 12
    most = {
        "guided": 1e-5,
        "trimmed": 1e-5,
        "learned": 1e-4,
        "learned in float64": 1e-9,
        "prior in float64": 1e-9,
        "gaze in float64": 1e-9,
        "idle in float64": 1e-9,
        "joined in float64": 1e-9,
        "explained": 1e-5,
    }
    # without guidance the small network's rounding grows faster (measured 3e-5): in float64 nothing is left of it
    assert all(gap < most.get(name.split("/")[0], 1e-4) for name, gap in worst.items())
    history = [(tmp_path / n / "guided" / "history.csv").read_text().splitlines() for n in ("1", "2")]
    assert len(history[0]) == len(history[1]) > 1


def test_one_process_of_several_devices_speaks_for_the_training(monkeypatch):
    assert engine.is_first_process()
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    for rank in (0, 1):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        assert engine.is_first_process() == (rank == 0)


def test_batch_norms_are_synced_once():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    names = list(network.state_dict())
    assert sync_batch_norms(network) == 1
    assert sync_batch_norms(network) == 0
    assert list(network.state_dict()) == names
    # alone, outside of training, it is the batch norm it was
    images = torch.rand(3, 1, 4, 4)
    plain = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    plain.load_state_dict(network.state_dict())
    assert torch.equal(network.eval()(images), plain.eval()(images))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_gpu_run_predicts_the_same_on_the_cpu(tiny_cohort, tmp_path, precision):
    recipe = tiny_recipe(steps=4, precision=precision)
    run = train(recipe, tiny_cohort, tmp_path / "run", CATALOGUE, Engine("cuda", quiet=True))
    test = tiny_cohort.split("test")
    both = [evaluate(run, test, d, out=tmp_path / d, engine=Engine(d, quiet=True)) for d in ("cuda", "cpu")]
    assert np.abs(both[0].predictions.probabilities - both[1].predictions.probabilities).max() < 1e-2


def test_strided_grouped_convolutions_compute_in_float32_and_only_they():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
    )
    images = torch.rand(2, 8, 16, 16)
    with torch.no_grad():
        plain = network[0](images)
        assert compute_strided_in_float32(network) == 1
        assert compute_strided_in_float32(network) == 0
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(network[0](images), plain)
            assert network(images).dtype == torch.bfloat16
            # a copy has weights of its own
            copied = copy.deepcopy(network)
            copied[0].weight.zero_()
            assert torch.equal(network[0](images), plain)
    assert list(network.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_operations_that_are_not_deterministic_are_named():
    with pytest.warns(UserWarning, match="of another kind"), deterministic_operations() as named:
        for _ in range(2):
            torch.zeros(4).put_(torch.tensor([0]), torch.tensor([1.0]))
        warnings.warn("of another kind", UserWarning, stacklevel=1)
        assert torch.are_deterministic_algorithms_enabled()
    assert named == {"put_"}
    assert not torch.are_deterministic_algorithms_enabled()


# of the function itself in a process without torch, which takes six seconds to import
KEEPING = f"""
import ctypes
import os
import resource

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = {engine._TRIM_THRESHOLD}, {engine._TOP_PAD}, {engine._MMAP_MAX}

{inspect.getsource(engine.keep_freed_memory)}

def count_faults(times=10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        bytearray(b"1") * (40 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

count_faults(2)
plain, kept = count_faults(), keep_freed_memory()
count_faults(2)
print(plain, kept, count_faults())
"""


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_freed_memory_is_kept_for_the_next_step_unless_the_user_set_it(monkeypatch):
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", KEEPING], env=plain, capture_output=True, text=True, check=True)
    before, kept, after = done.stdout.split()
    # ten arrays of 40 MiB, more than glibc keeps by itself, are 102,400 pages of 4 KiB, or 200 of 2 MiB
    assert kept == "True" and int(after) < 0.1 * int(before), done.stdout
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not keep_freed_memory()
