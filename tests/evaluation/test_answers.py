"""Readings of maps against plain loops, chosen on validation."""

import math
import shutil

import numpy as np
import pytest

from sightline.errors import RunError
from sightline.evaluation.answers import OWN, READINGS, choose_best_reading, format_answers_table, read_answers
from sightline.inference.network_output import Maps
from sightline.metrics.predictions import Predictions


def left(folder, name, maps, labels, classes=("none", "some")):
    """Predictions and maps as an evaluation leaves them; the own answer is the mean of the maps."""
    n = len(labels)
    ids = tuple(f"{name}{i}" for i in range(n))
    z = maps.reshape(*maps.shape[:2], -1).mean(-1)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    folder.mkdir(exist_ok=True)
    Predictions(classes, ids, ids, ids, np.asarray(labels), p).write(folder / f"{name}.csv")
    kept = np.tile(np.arange(maps.shape[1]), (n, 1))
    Maps(ids, kept, maps.astype(np.float32), maps.astype(np.float32)).write(folder / f"{name}_maps.npz")


def spotted(n=60, seed=0, two=False):
    """Positives have one high cell under noise whose mean says nothing."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    maps = np.zeros((n, 2, 5, 5))
    maps[:, 1] = rng.normal(0, 1, (n, 5, 5))
    maps[labels == 1, 1, 2, 2] = 6
    maps[:, 1] -= maps[:, 1].mean((1, 2), keepdims=True) - rng.normal(0, 0.1, (n, 1, 1))
    if two:
        maps[:, 0] = rng.normal(0, 3, (n, 1, 1))
    return maps, labels


def test_readings_are_what_they_say():
    cells = np.random.default_rng(1).normal(0, 2, (3, 40))
    for i in range(3):
        row = cells[i].tolist()
        none = math.prod(1 - 1 / (1 + math.exp(-x)) for x in row)
        weights = [math.exp(x) for x in row]
        wanted = {
            "mean": sum(row) / 40,
            "maximum": max(row),
            "top 0.1%": max(row),
            "top 0.5%": max(row),
            "top 2%": max(row),
            "softmax pooling": sum(w * x for w, x in zip(weights, row, strict=True)) / sum(weights),
            "log-sum-exp": math.log(sum(math.exp(4 * x) for x in row)) / 4,
            "noisy or": -math.log(none),
        }
        assert {name: reading(cells)[i] for name, reading in READINGS.items()} == pytest.approx(wanted)
    assert READINGS["top 2%"](np.arange(100.0)[None])[0] == 98.5


def test_a_spot_is_found_by_the_maximum_and_not_by_the_mean(tmp_path):
    for seed, name in enumerate(("val", "test")):
        left(tmp_path / "p", name, *spotted(seed=seed))
    found = {r.name: r for r in read_answers(tmp_path / "p")}
    assert found["maximum"].test > 0.95 > 0.7 > found[OWN].test
    assert found["mean"].test == pytest.approx(found[OWN].test)
    assert found["mean"].compared.difference == pytest.approx(0.0)
    best = choose_best_reading(list(found.values()))
    assert best.validation == max(r.validation for r in found.values())
    assert best.compared.low > 0
    assert f"**{best.name}**" in format_answers_table(list(found.values()))


def test_of_two_maps_the_second_is_also_read_alone(tmp_path):
    for seed, name in enumerate(("val", "test")):
        left(tmp_path / "p", name, *spotted(seed=seed, two=True))
    for file in (tmp_path / "p").glob("test*"):
        shutil.copy(file, file.with_name(file.name.replace("test", "external", 1)))
    assert read_answers(tmp_path / "p", "external") == read_answers(tmp_path / "p")
    found = {r.name: r.test for r in read_answers(tmp_path / "p")}
    assert found["maximum, second map alone"] > 0.95
    assert found["maximum"] < 0.9


def test_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(RunError, match="no class maps of val"):
        read_answers(tmp_path)
    maps, labels = spotted()
    left(tmp_path, "val", maps, [1] * len(labels))
    left(tmp_path, "test", maps, labels)
    with pytest.raises(RunError, match="cases of one class alone"):
        read_answers(tmp_path)
    three = np.concatenate([maps, maps[:, :1]], axis=1)
    left(tmp_path, "val", three, labels, ("a", "b", "c"))
    with pytest.raises(RunError, match="3 classes"):
        read_answers(tmp_path)
