"""Every benchmark runs at a toy size and its two sides compute the same thing; no test here reads a clock."""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import boxes, explain, explained_step, maps, memory, onnx, page, patches, reading, step
from benchmarks.timing import Result, Row, Unequal, alternate
from sightline.data.views.image_view import View
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.pooling import SoftmaxPool


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    # threads only wait for each other at these sizes
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def row(ours, theirs, form="ours / theirs", goal=None, better="low"):
    return Row("a thing", ours, theirs, "s", form, goal, better)


def test_ratios_are_of_pairs():
    assert row((1.0, 4.0, 9.0), (1.0, 2.0, 3.0)).ratios == (1.0, 2.0, 3.0)
    assert row((1.0, 2.0), (4.0, 4.0), "theirs / ours").ratios == (4.0, 2.0)
    assert row((2.1,), (2.0,), goal=1.05).met and not row((2.2,), (2.0,), goal=1.05).met
    assert row((1.0,), (3.0,), "theirs / ours", 3.0, "high").met
    assert not row((1.0,), (2.9,), "theirs / ours", 3.0, "high").met


def test_sides_take_turns():
    calls = []
    a, b = alternate(lambda: calls.append("A"), lambda: calls.append("B"), pairs=3, warm_up=1, device="cpu")
    assert calls == ["A", "B"] * 4 and len(a) == len(b) == 3


@pytest.mark.slow
def test_step_runs_and_names_its_parts():
    result = step.measure(step.settings("cpu", toy=True))
    assert len(result.rows) == 1 and result.rows[0].goal == 1.05 and len(result.parts) == 6
    again = Result.of(json.loads(json.dumps(result.plain())))
    assert (again.rows, again.parts, again.notes) == (result.rows, result.parts, result.notes)


def test_step_sides_are_the_same_update():
    chosen = step.settings("cpu", toy=True)
    assert step.check(chosen) < 1e-3
    # a guided step is another update, and the measure of difference sees it
    batch, network = step.make_batch(chosen), step.make_network("test_resnet", guided=True)
    plain = step.make_plain(network)
    assert step.difference(network, plain) == 0.0
    step.guided_step(network, batch, chosen, "32-true")()
    assert step.difference(network, plain) > 1e-3


@pytest.mark.slow
def test_a_step_through_a_map_runs_and_is_the_plain_step_without_one(monkeypatch):
    chosen = explained_step.settings("cpu", toy=True)
    result = explained_step.measure(chosen)
    assert [r.goal for r in result.rows] == [3.0] and explained_step.check(chosen, chosen.encoders[0]) < 1e-3
    # other pictures are seen
    plain_step = explained_step.plain_step
    monkeypatch.setattr(explained_step, "plain_step", lambda model, images, batch: plain_step(model, -images, batch))
    with pytest.raises(Unequal, match="differ by"):
        explained_step.check(chosen, chosen.encoders[0])


@pytest.mark.slow
def test_maps_run_and_are_grad_cam():
    chosen = maps.settings("cpu", toy=True)
    assert len(maps.measure(chosen).rows) == 2
    network, images = maps.make(chosen, 64)
    assert maps.check(network, images) < 1e-4
    assert maps.class_maps(network, images).shape == (2, 2, 2, 2)
    # a bias shifts the class map but not Grad-CAM, and may not show
    with torch.no_grad():
        network.head.linear.bias += torch.tensor([5.0, 0.0])
    assert maps.check(network, images) < 1e-4
    with torch.no_grad():
        network.head.linear.weight.zero_()
    with pytest.raises(Unequal, match="blank"):
        maps.check(network, images)


@pytest.mark.slow
def test_explainers_run_and_are_those_of_the_others():
    chosen = explain.settings("cpu", toy=True)
    result = explain.measure(chosen)
    assert len(result.rows) == 9 and all(row.goal == 2.0 for row in result.rows)
    network, images = explain.make(chosen)
    vanilla = explain.plain(explain.InputGradient("vanilla", "signed_sum"), network, images, (1,))
    with pytest.raises(Unequal, match="differ by"):
        explain.check(explain.Match("a", vanilla, explain.captum_guided(network, images, (1,))))


@pytest.mark.slow
def test_boxes_run_and_are_those_of_the_loops():
    chosen = boxes.settings("cpu", toy=True)
    result = boxes.measure(chosen)
    assert [r.what.rpartition("; ")[2] for r in result.rows] == ["scikit-image", "SciPy"]
    assert any("largest component 0." in note for note in result.notes)
    maps_made = boxes.make(chosen, 6)
    boxes.check(maps_made)
    with pytest.raises(Unequal, match="whole map"):
        # one dark corner aside everything is kept
        boxes.check(
            boxes.make(replace(chosen, count=2), 6) * 0 + np.where(np.eye(48) > 0, 1.0, 0.9) - np.eye(48)[:, ::-1]
        )


@pytest.mark.slow
def test_reading_runs_and_serves_the_same_pictures(tmp_path):
    chosen = reading.settings("cpu", toy=True)
    result = reading.measure(chosen)
    assert [r.what.split(",")[0] for r in result.rows] == ["first epoch", "later epoch"]
    assert all(len(r.ours) == 2 for r in result.rows)
    (files,) = reading.prepare(chosen, tmp_path)
    view = View(size=64)
    gap, overlap = reading.check(files, view)
    assert gap < 0.03 and overlap > 0.8
    images, masks, labels = next(reading.plain_batches(reading.PlainItems(files, view), 4, seed=0))
    assert images.shape == masks.shape == (4, 1, 64, 64) and labels.shape == (4,)
    assert images.dtype == torch.float32 and images.min() >= 0 and images.max() <= 1
    assert masks.dtype == torch.uint8 and set(masks.unique().tolist()) == {0, 1}
    with pytest.raises(Unequal, match="overlap"):
        reading.check(replace(files, masks=files.masks[1:] + files.masks[:1]), view, overlap=0.97)


@pytest.mark.slow
def test_memory_is_of_a_process_of_its_own(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = memory.in_process("plain step", memory.settings("cpu", toy=True))
    assert 0 <= found["added"] < found["peak"] and found["peak"] > 50 * memory.MIB
    with pytest.raises(ValueError, match="no such side"):
        memory.work("no such side", memory.settings("cpu", toy=True))


@pytest.mark.parametrize("side", memory.SIDES)
def test_every_side_has_work(side):
    memory.work(side, memory.settings("cpu", toy=True))()


def test_the_page_keeps_machines_and_earlier_results(tmp_path):
    first = Result("step", {}, (row((2.0, 2.2), (2.0, 2.0), goal=1.05),), (), ("A note.",))
    second = Result("memory", {}, (row((3.0,), (4.0,)),))
    page.keep(tmp_path, {"machine": "One (R) CPU", "measured": "today"}, [first])
    page.keep(tmp_path, {"machine": "One (R) CPU", "measured": "later"}, [second])
    page.keep(tmp_path, {"machine": "Two", "measured": "today"}, [second])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one-r-cpu.json", "two.json"]
    text = page.render(tmp_path)
    assert text.count("## One (R) CPU\n") == 1 and text.count("### Peak memory") == 2
    assert "| a thing | **1.05** | 1 to 1.1 | 2 | 2.1 s | 2 s | at most 1.05: met |" in text
    assert "A note." in text and "measured today" in text and "measured later" in text
    page.keep(tmp_path, {"machine": "Two", "measured": "tomorrow"}, [replace(second, notes=("Anew.",))])
    assert page.render(tmp_path).count("## Two\n") == 1 and "Anew." in page.render(tmp_path)
    assert "1.05" in page.summary(first)


@pytest.mark.slow
def test_patches_run_and_are_monais():
    chosen = patches.settings("cpu", toy=True)
    result = patches.measure(chosen)
    assert len(result.rows) == 4 and {r.goal for r in result.rows} == {1.0}
    ct, placements = patches.make(chosen, (0.5, 0.5, 2.0))
    theirs = patches.whole_ct(ct, placements)
    assert patches.check(patches.ours(ct, placements), theirs) < 0.6
    # a patch that lies elsewhere is seen
    with pytest.raises(Unequal, match="differ by up to"):
        patches.check(patches.ours(ct, placements[::-1]), theirs)


@pytest.mark.slow
def test_graphs_run_and_are_the_network():
    (only,) = onnx.measure(onnx.settings("cpu", toy=True)).rows
    assert only.goal == onnx.GOAL and min(only.ratios) > 0.0
    # both layouts answer alike, with everything that a graph gives
    network = ClassMapModel(Backbone(name="test_resnet", channels=3), pool=SoftmaxPool()).build(2)
    given = np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32)
    with torch.inference_mode():
        said = [onnx.Eager(deepcopy(network), given, form)() for form in onnx.LAYOUTS.values()]
    assert len(said[0]) == len(said[1]) >= 4
    for one, other in zip(*said, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
