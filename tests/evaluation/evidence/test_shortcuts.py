"""Interventions tell a network that reads the mark from one that reads the corner."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from support.cohorts import tiny_recipe

from sightline.errors import CohortError
from sightline.evaluation.evidence.interventions import erase, keep_only
from sightline.evaluation.evidence.shortcuts import (
    _estimate_bound_facts,
    _excludes_zero,
    _word_verdicts,
    find_shortcuts,
    write_shortcuts,
)
from sightline.explainers.localisation.protocols import MapBoxes
from sightline.inference.predict import build_predictions
from sightline.metrics.estimate import Estimate
from sightline.structures.case import Case, Cohort
from sightline.structures.evidence import Evidence
from sightline.structures.regions import Box
from sightline.structures.tag import Tag
from sightline.training.engine import Engine
from sightline.training.run import Run

QUIET = Engine(device="cpu", quiet=True)


class Reader(torch.nn.Module):
    """Says fracture where a part of the view is bright: the middle (the finding), or a corner (the shortcut)."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, images):
        side = images.shape[-1]
        low, high = (round(x * side) for x in self.part)
        bright = images[:, 0, low:high, low:high].amax(dim=(1, 2))
        z = 8 * (bright - 0.6)
        return Evidence(torch.stack([-z, z], dim=1))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Findings in the middle of fractures; a plug in the corner of fractures too."""
    place, random, cases = tmp_path_factory.mktemp("corner"), np.random.default_rng(0), []
    for i in range(40):
        pixels = random.integers(20, 60, (96, 96)).astype(np.uint8)
        regions = ()
        if i % 2:
            pixels[44:52, 44:52] = 250
            pixels[6:13, 6:13] = 250
            regions = (Box((44.0, 44.0), (52.0, 52.0), Tag("finding", "fracture")),)
        Image.fromarray(pixels).save(place / f"{i}.png")
        label = ("normal", "fracture")[i % 2]
        cases.append(Case(f"c{i}", f"s{i}", f"p{i}", place / f"{i}.png", label, regions, "test", shape=(96, 96)))
    return Cohort("corner", ("normal", "fracture"), tuple(cases))


def report_of(cohort, monkeypatch, tmp_path, part):
    monkeypatch.setattr(Run, "network", lambda self: Reader(part).eval())
    run = Run(tmp_path, tiny_recipe(), cohort.classes, {"run_identity": "x"}, True, MapBoxes())
    return find_shortcuts(run, cohort, engine=QUIET)


@pytest.mark.parametrize(("part", "left"), [((0.4, 0.6), False), ((0.0, 0.2), True)])
def test_erasing_the_mark_tells_what_is_read(cohort, monkeypatch, tmp_path, part, left):
    report = report_of(cohort, monkeypatch, tmp_path, part)
    values = {estimate.name: estimate.value for estimate in report.estimates}
    assert values["AUC, pictures as they are"] == 1.0
    assert (values["AUC, the mark erased"] > 0.9) == left
    assert (values["AUC, all outside the mark erased"] > 0.9) == (not left)
    assert (values["AUC, the mark on a background of the other class"] > 0.9) == (not left)
    assert ("Something outside the mark predicts the label" in report.verdicts[0]) == left
    # the plug and the finding both recur with fractures alone; the reader of the corner follows the plug
    assert any(o.named for o in report.objects)
    write_shortcuts(report, tmp_path, "corner")
    assert json.loads((tmp_path / "shortcuts.json").read_text(encoding="utf-8"))["verdicts"]
    assert "**named**" in (tmp_path / "shortcuts.md").read_text(encoding="utf-8")


def test_a_fact_of_one_class_is_asked_with_the_mark_erased(cohort):
    """Half of the fractures have hardware; what is said of them without the mark tells whether it is read."""
    from dataclasses import replace

    hardware = np.arange(40) % 4 == 1
    # what only the drawer of a phantom knows is no fact of the acquisition
    facts = [{"hardware": str(int(x)), "side": "left", "truth_grade": str(int(x))} for x in hardware]
    stated = replace(cohort, cases=tuple(replace(case, facts=fact) for case, fact in zip(cohort, facts, strict=True)))
    noise = np.random.default_rng(3).normal(0, 0.05, 40)
    for told, read in ((0.3, False), (0.8, True)):
        p = np.where(hardware, told, 0.3) + noise
        (found,) = _estimate_bound_facts(stated, build_predictions(stated, np.stack([1 - p, p], axis=1)))
        others = np.array([case.label == "fracture" for case in stated]) & ~hardware
        assert found.name.startswith("mark erased: p(fracture) where hardware is 1 (only fracture)")
        assert found.value == pytest.approx(p[hardware].mean() - p[others].mean())
        assert (found.low > 0) == read and found.n["patients"] == 10


def test_erasing_leaves_the_rest_alone():
    planes = np.random.default_rng(1).random((1, 64, 64)).astype(np.float32)
    where = np.zeros((64, 64), dtype=bool)
    where[20:30, 20:30] = True
    inside, outside = erase(planes, where), keep_only(planes, where, 0.5)
    assert np.abs(inside[0, 45:, 45:] - planes[0, 45:, 45:]).max() < 1e-5
    assert inside[0, 22:28, 22:28].std() < 0.3 * planes[0, 22:28, 22:28].std()
    assert np.abs(outside[0, 22:28, 22:28] - planes[0, 22:28, 22:28]).max() < 1e-5
    assert np.abs(outside[0, 40:, 40:] - 0.5).max() < 1e-5


def test_a_cohort_without_marks_is_refused(cohort, monkeypatch, tmp_path):
    from dataclasses import replace

    bare = replace(cohort, cases=tuple(replace(case, regions=()) for case in cohort))
    with pytest.raises(CohortError, match="No case is marked"):
        report_of(bare, monkeypatch, tmp_path, (0.4, 0.6))


def test_without_an_interval_nothing_is_claimed():
    one = Estimate("AUC, the mark erased", 0.669, None, None)
    assert "too few patients" in _word_verdicts([one], ())[0]
    assert "Something outside the mark predicts the label" in _word_verdicts([replace(one, low=0.51, high=0.8)], ())[0]
    assert "nothing clear is left" in _word_verdicts([replace(one, low=0.49, high=0.8)], ())[0]


def test_what_moves_an_answer_goes_by_the_interval_corrected_for_all_that_was_asked():
    # 1.96 standard errors above 0 for one question, 2.24 for two
    effect = Estimate("change of p(fracture), object 1 erased where it is", 0.21, 0.014, 0.406)
    assert _excludes_zero(effect, 1)
    assert not _excludes_zero(effect, 2)
    assert not _excludes_zero(replace(effect, low=None, high=None), 1)
