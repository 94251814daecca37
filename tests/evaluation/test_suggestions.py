"""Which cases to mark next: orders against slow restatements, every fifth by chance, and what is refused."""

import csv
import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from support.cohorts import tiny_recipe

from sightline.data.subset import keep_marks_of_cases
from sightline.errors import CohortError, RunError
from sightline.evaluation.suggestions import (
    compute_entropy,
    measure_disagreement,
    select_diverse,
    suggest_cases,
    write_suggestions,
)
from sightline.explainers.localisation.protocols import MapBoxes
from sightline.inference.network_output import Maps
from sightline.metrics.calibration.recalibration import FittedRecalibration
from sightline.metrics.calibration.record import CalibrationRecord
from sightline.metrics.calibration.scaling import Temperature
from sightline.structures.case import Case, Cohort
from sightline.structures.evidence import Evidence
from sightline.structures.regions import Box
from sightline.structures.tag import Tag
from sightline.training.engine import Engine
from sightline.training.run import Run

QUIET = Engine(device="cpu", quiet=True)


class Grey(torch.nn.Module):
    """The probability is the picture's grey; the map is bright where the corner is, whatever the answer."""

    def __init__(self, maps=True):
        super().__init__()
        self.maps = maps

    def forward(self, images):
        z = 8 * (images.mean(dim=(1, 2, 3)) - 0.5)
        cells = torch.nn.functional.adaptive_avg_pool2d(images[:, :1], 4)
        logits = torch.stack([torch.zeros_like(z), z], dim=1)
        return Evidence(logits, torch.cat([torch.zeros_like(cells), cells], dim=1) if self.maps else None)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """40 squares of rising grey; number 5 is dark with one bright corner."""
    place, cases = tmp_path_factory.mktemp("greys"), []
    for i in range(40):
        pixels = np.full((64, 64), 20 + 5 * i, np.uint8)
        if i == 5:
            pixels[:16, :16] = 255
        Image.fromarray(pixels).save(place / f"{i}.png")
        box = (Box((1.0, 1.0), (9.0, 9.0), Tag("finding", "b")),) if i % 2 else ()
        cases.append(Case(f"c{i}", f"s{i}", f"p{i}", place / f"{i}.png", "ab"[i % 2], box, "train", shape=(64, 64)))
    return Cohort("greys", ("a", "b"), tuple(cases))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "network", lambda self: Grey().eval())
    return Run(tmp_path, tiny_recipe(), ("a", "b"), {"run_identity": "x"}, True, MapBoxes())


def test_entropy_is_its_formula():
    p = np.array([[0.5, 0.5], [0.9, 0.1], [1.0, 0.0]])
    assert np.allclose(compute_entropy(p), [1.0, -(0.9 * np.log2(0.9) + 0.1 * np.log2(0.1)), 0.0], atol=1e-9)
    assert np.allclose(compute_entropy(np.array([[0.5, 0.5, 0.5]])), 1.0)


def test_uncertain_ones_come_first_and_every_fifth_is_by_chance(run, cohort):
    found = suggest_cases(run, cohort, 20, strategy="uncertainty", engine=QUIET)
    assert len({s.case_id for s in found}) == 20
    assert [i for i, s in enumerate(found) if s.chosen_by == "random"] == [4, 9, 14, 19]
    wanted = [s.uncertainty for s in found if s.chosen_by == "uncertainty"]
    assert wanted == sorted(wanted, reverse=True) and wanted[0] > 0.99
    assert found == suggest_cases(run, cohort, 20, strategy="uncertainty", engine=QUIET)


def test_probabilities_are_the_calibrated_ones(run, cohort):
    before = suggest_cases(run, cohort, 1, strategy="uncertainty", engine=QUIET)[0]
    assert before.probability == pytest.approx(0.5, abs=0.05)
    CalibrationRecord("x", run.classes, FittedRecalibration(Temperature(0.1))).write(run.folder)
    odds = np.log(before.probability / (1 - before.probability))
    found = suggest_cases(run, cohort, 40, strategy="uncertainty", engine=QUIET)
    (after,) = [one for one in found if one.case_id == before.case_id]
    assert after.probability == pytest.approx(1 / (1 + np.exp(-10 * odds)), abs=1e-6)


def test_the_map_that_disagrees_is_found(run, cohort):
    first = suggest_cases(run, cohort, 5, strategy="disagreement", engine=QUIET)[0]
    assert first.case_id == "c5" and first.disagreement > 0.2


def test_a_case_without_the_map_of_the_last_class_is_left_out_of_the_order():
    """Of ten classes two maps a case are kept: another class's map must not stand in for the last one's."""
    probabilities = np.full((4, 10), 0.01)
    probabilities[:, 9] = [0.1, 0.2, 0.3, 0.4]
    maps = np.zeros((4, 2, 3, 3), np.float32)
    maps[0, 1], maps[1, 0], maps[3, 1] = 9.0, 1.0, 2.0
    kept = Maps(tuple("abcd"), np.array([[3, 9], [9, 1], [2, 1], [0, 9]]), maps, maps)
    assert measure_disagreement(probabilities, kept).tolist() == pytest.approx([1.0, 0.5, np.nan, 0.5], nan_ok=True)


def test_centres_cover_as_a_slow_search_says():
    features = np.random.default_rng(0).normal(size=(30, 3))
    among = np.arange(3, 30)
    got = among[select_diverse(features[among], 6)]
    taken = [3]
    while len(taken) < 6:
        rest = [i for i in among if i not in taken]
        taken.append(max(rest, key=lambda i: min(np.linalg.norm(features[i] - features[t]) for t in taken)))
    assert got.tolist() == taken


@pytest.mark.parametrize("strategy", ["mixed", "diversity", "random"])
def test_other_strategies_give_as_many_as_were_asked(run, cohort, strategy):
    for n, seed in itertools.product((1, 7, 40), (0, 1)):
        assert len({s.case_id for s in suggest_cases(run, cohort, n, strategy=strategy, seed=seed, engine=QUIET)}) == n


def test_the_table_is_read_back_and_keeps_the_marks_of_those_alone(run, cohort, tmp_path):
    found = suggest_cases(run, cohort, 10, engine=QUIET)
    write_suggestions(found, tmp_path / "s.csv")
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case_id"] for row in rows] == [s.case_id for s in found]
    part = keep_marks_of_cases(cohort, [row["case_id"] for row in rows])
    chosen = {s.case_id for s in found}
    assert {c.case_id for c in part if c.regions} == {c.case_id for c in cohort if c.regions and c.case_id in chosen}
    with pytest.raises(CohortError, match="not in"):
        keep_marks_of_cases(cohort, ["nobody"])
    with pytest.raises(CohortError, match="None of the 1"):
        keep_marks_of_cases(cohort, ["c0"])


def test_what_cannot_be_chosen_is_refused(run, cohort, monkeypatch):
    with pytest.raises(CohortError, match="41 cases"):
        suggest_cases(run, cohort, 41, engine=QUIET)
    with pytest.raises(CohortError, match="classes"):
        suggest_cases(run, Cohort("swapped", ("b", "a"), cohort.cases), 4, engine=QUIET)
    with pytest.raises(RunError, match="Unknown strategy"):
        suggest_cases(run, cohort, 4, strategy="best", engine=QUIET)
    monkeypatch.setattr(Run, "network", lambda self: Grey(maps=False).eval())
    with pytest.raises(RunError, match="no maps of the last class"):
        suggest_cases(run, cohort, 4, strategy="disagreement", engine=QUIET)
    assert suggest_cases(run, cohort, 4, engine=QUIET)[0].disagreement is None
