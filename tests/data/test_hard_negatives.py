"""Draws of pictures without a finding: counts by hand, a slow restatement, and a training that is killed."""

import csv
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.cohorts import tiny_recipe

from sightline.data.hard_negatives import HardNegatives, NegativeMiner
from sightline.data.loader import CohortItems, draw_epoch_blocks, iterate_training_batches
from sightline.data.views.image_view import View
from sightline.errors import CohortError, RecipeError, RunError
from sightline.papers.catalogue import CATALOGUE
from sightline.training import train as loop
from sightline.training.engine import Engine
from sightline.training.step import read_finding_answers

QUIET = Engine(device="cpu", quiet=True)


def miner_of(cohort, normals, findings, config=None):
    cases = [replace(cohort[0], case_id=f"n{i}", label="no fracture") for i in range(normals)]
    cases += [replace(cohort[0], case_id=f"f{i}", label="fracture") for i in range(findings)]
    return NegativeMiner(config or HardNegatives(), replace(cohort, cases=tuple(cases)))


@given(
    answers=st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=4, max_size=24),
    share=st.sampled_from([0.1, 0.5, 1.0]),
    hardest=st.sampled_from([0.1, 0.25, 1.0]),
    epoch=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_draws_follow_their_definition(tiny, answers, share, hardest, epoch):
    n = len(answers)
    miner = miner_of(tiny, n, 5, HardNegatives(share, hardest))
    known = [i for i, a in enumerate(answers) if a is not None]
    miner.observe(known, np.array([answers[i] for i in known], dtype=float))
    miner.observe([n, n + 1], np.array([1.0, 1.0]))  # findings are not remembered
    order = np.random.default_rng(epoch).permutation(np.arange(n + 5))
    assert np.array_equal(miner.redraw(order, 3, epoch), order), "nothing is believed before an epoch begins"
    miner.renew()
    mined = miner.redraw(order, 3, epoch)
    chosen = sorted(known, key=lambda i: (-answers[i], i))[: math.ceil(hardest * n)]
    assert miner.hardest().tolist() == chosen
    if not chosen:
        assert np.array_equal(mined, order)
        return
    assert miner.answer_of_hardest() == pytest.approx(np.mean([answers[i] for i in chosen]))
    assert np.array_equal(mined[order >= n], order[order >= n]), "findings stay where they are"
    places = np.flatnonzero(order < n)
    replaced = round(share * n)
    changed = [p for p in places if mined[p] != order[p]]
    assert len(changed) <= replaced and all(mined[p] in chosen for p in changed)
    # each of the hardest comes as often as another, but for one
    kept = Counter(order[p] for p in places if mined[p] == order[p])
    added = Counter(mined[p] for p in changed)
    assert sum(kept.values()) + sum(added.values()) == n
    if share == 1.0:
        times = Counter(mined[places].tolist())
        assert set(times) <= set(chosen) and max(times.values()) - min(times[c] for c in chosen) <= 1
    assert np.array_equal(mined, miner.redraw(order, 3, epoch))
    again = miner_of(tiny, n, 5, HardNegatives(share, hardest))
    again.restore(miner.state())
    assert np.array_equal(mined, again.redraw(order, 3, epoch))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    from support.cohorts import make_cohort

    return make_cohort(tmp_path_factory.mktemp("mined"), patients=8)


def test_the_hardest_come_as_often_as_said(tiny):
    config = HardNegatives(0.5, 0.25)
    miner = miner_of(tiny, 400, 10, config)
    miner.observe(range(400), np.linspace(0, 1, 400))
    miner.renew()
    times = np.zeros(410)
    for epoch in range(1, 41):
        times += np.bincount(miner.redraw(np.random.default_rng(epoch).permutation(410), 0, epoch), minlength=410)
    assert times[300:400].mean() / 40 == pytest.approx(config.times_as_often, rel=0.02) == pytest.approx(2.5, rel=0.02)
    assert times[:300].mean() / 40 == pytest.approx(0.5, rel=0.02)
    assert (times[400:] == 40).all()


def test_blocks_are_what_batches_show_with_any_workers(tiny):
    items = CohortItems(tiny.split("train"), View(size=32), seed=1)
    miner = NegativeMiner(HardNegatives(1.0, 0.1), items.cohort)
    miner.observe(range(len(items)), np.random.default_rng(0).random(len(items)))
    miner.renew()
    how = {"epoch": 2, "batch_size": 4, "balance": "most", "redraw": miner.redraw}
    named = [[items.cohort[key.index].case_id for key in block] for block in draw_epoch_blocks(items, **how)]
    assert named == [list(batch.case_ids) for batch in iterate_training_batches(items, **how)]
    assert named[1:] == [list(b.case_ids) for b in iterate_training_batches(items, **how, first_batch=1, workers=1)]
    normal = {case.case_id for case in tiny if case.label == "no fracture"}
    drawn = {name for block in named for name in block if name in normal}
    assert drawn == {items.cohort[int(i)].case_id for i in miner.hardest()}


def test_answers_are_probabilities_or_peaks():
    out = {
        "logits": torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]]),
        "maps": torch.arange(24.0).reshape(2, 3, 2, 2),
    }
    p = out["logits"].double().softmax(1)
    assert read_finding_answers(out, 0, "answer", independent=False) == pytest.approx((p[:, 1] + p[:, 2]).numpy())
    assert read_finding_answers(out, 1, "answer", independent=True) == pytest.approx(
        [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-3))]
    )
    assert read_finding_answers(out, 2, "peak", independent=False).tolist() == [7.0, 19.0]
    with pytest.raises(RunError, match="no class maps"):
        read_finding_answers({"logits": out["logits"]}, 0, "peak", independent=False)


@pytest.mark.slow
def test_a_killed_training_mines_on(tiny, tmp_path, monkeypatch):
    recipe = tiny_recipe(steps=7, epochs=100, batch_size=4, mining=HardNegatives(1.0, 0.25))
    train, step, count = loop.train, loop.run_training_step, []
    train(recipe, tiny, tmp_path / "whole", CATALOGUE, QUIET)

    def killing(*args):
        if len(count) == 5:
            raise KeyboardInterrupt
        count.append(1)
        return step(*args)

    monkeypatch.setattr(loop, "run_training_step", killing)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tiny, tmp_path / "killed", CATALOGUE, replace(QUIET, state_every_s=0.0))
    monkeypatch.setattr(loop, "run_training_step", step)
    train(recipe, tiny, tmp_path / "killed", CATALOGUE, replace(QUIET, workers=1))
    weights = [load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed")]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    columns = [
        [row["hardest_negatives"] for row in csv.DictReader((tmp_path / name / "history.csv").open())]
        for name in ("whole", "killed")
    ]
    # of the one picture of four that was hardest when the epoch began; before the first nothing was known
    assert columns[0] == columns[1] and columns[0][0] == "" and all(0.0 < float(p) < 1.0 for p in columns[0][1:])


def test_impossible_settings_are_refused(tiny):
    for bad in ({"share": 0.0}, {"hardest": 1.2}, {"after": 0}):
        with pytest.raises(RecipeError, match="Hard negatives"):
            HardNegatives(**bad)
    with pytest.raises(CohortError, match="without a finding"):
        NegativeMiner(HardNegatives(), tiny.where(lambda case: case.label == "fracture"))
