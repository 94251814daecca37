"""Stress: changes are the same again and stay in the picture; a network that reads a rim loses what it should."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from support.cohorts import tiny_recipe

from sightline import cli
from sightline.data.views.image_view import View
from sightline.errors import CohortError, RunError
from sightline.evaluation.evidence.picture_changes import CHANGES, CROPPED, FIELDS, PLAIN, change_picture
from sightline.evaluation.evidence.stress import stress_runs, write_stress
from sightline.explainers.localisation.protocols import MapBoxes
from sightline.io.image import read_image
from sightline.losses.heatmap_matching import HeatmapMatch
from sightline.metrics.classification.scores import AUC
from sightline.metrics.statistics.bootstrap import score_point
from sightline.structures.case import Case, Cohort
from sightline.structures.evidence import Evidence
from sightline.training.engine import Engine
from sightline.training.run import Run

QUIET = Engine(device="cpu", quiet=True)


class Reader(torch.nn.Module):
    """Says fracture where the mean of some rows of the view is bright, in its middle columns."""

    def __init__(self, low, high):
        super().__init__()
        self.part = low, high

    def forward(self, images):
        side = images.shape[-1]
        low, high = (round(x * side) for x in self.part)
        z = 20 * (images[:, 0, low:high, side // 3 : -side // 3].mean(dim=(1, 2)) - 0.5)
        return Evidence(torch.stack([-z, z], dim=1))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Fractures are bright in the middle and, as a shortcut, at the very rim."""
    place, random, cases = tmp_path_factory.mktemp("stress"), np.random.default_rng(0), []
    for i in range(24):
        pixels = random.integers(60, 90, (96, 80)).astype(np.uint8)
        pixels[80:84, 20:24] = 200
        if i % 2:
            pixels[40:56, 32:48] = 230
            pixels[:7] = 230
        Image.fromarray(pixels).save(place / f"{i}.png")
        label = ("normal", "fracture")[i % 2]
        cases.append(Case(f"c{i}", f"s{i}", f"p{i}", place / f"{i}.png", label, (), "test", shape=(96, 80)))
    return Cohort("stress", ("normal", "fracture"), tuple(cases))


def run_of(tmp_path, name, monkeypatch, readers, **view):
    monkeypatch.setattr(Run, "network", lambda self: Reader(*readers[self.folder.name]).eval())
    recipe = tiny_recipe()
    recipe = replace(recipe, view=replace(recipe.view, **view))
    return Run(tmp_path / name, recipe, ("normal", "fracture"), {"run_identity": name}, True, MapBoxes())


def test_changes_are_the_same_again_and_leave_the_padding(cohort):
    view = View(size=96)
    once, again = (change_picture(cohort.cases[1], view) for _ in range(2))
    assert list(once) == [PLAIN, *FIELDS, *CHANGES]
    plain = once[PLAIN]
    for name, planes in once.items():
        assert planes.shape == plain.shape and planes.dtype == np.float32
        assert (planes >= 0).all() and (planes <= 1).all() and (planes == again[name]).all()
        assert name == PLAIN or not np.array_equal(planes, plain), name
        if name not in FIELDS:
            assert (planes[:, :, :5] == plain[:, :, :5]).all() and (planes[:, :, -5:] == plain[:, :, -5:]).all()


def test_fields_of_view_show_the_middle_or_black_ground_around_it(cohort):
    picture = read_image(cohort.cases[1].image).pixels
    rows, columns = picture.shape
    row, column = round(0.2 * rows), round(0.2 * columns)
    closer = change_picture(cohort.cases[1], View(size=96))["closer: the middle 60%"]
    alone = replace(cohort.cases[1], image=cohort.cases[1].image.with_name("middle.png"), shape=None, regions=())
    Image.fromarray(picture[row : rows - row, column : columns - column]).save(alone.image)
    assert np.array_equal(closer, change_picture(alone, View(size=96))[PLAIN])
    farther = change_picture(cohort.cases[1], View(size=96))["farther: 60% of its size"]
    side = 96 * 0.6
    inside = slice(int(48 - side / 2) + 1, int(48 + side / 2) - 1)
    assert farther[:, inside, inside].mean() > 0.1
    farther[:, inside.start - 2 : inside.stop + 2, inside.start - 2 : inside.stop + 2] = 0.0
    assert not farther.any()


def test_windows_are_their_formulas(cohort):
    planes = change_picture(cohort.cases[0], View(size=96))
    inside = (slice(None), slice(2, -2), slice(12, 84))
    plain = planes[PLAIN][inside]
    assert np.allclose(planes["darker (gamma 1.6)"][inside], plain**1.6, atol=1e-6)
    low, high = np.quantile(planes[PLAIN][:, :, 8:88], (0.1, 0.9))
    assert np.allclose(planes["narrow window"][inside], ((plain - low) / (high - low)).clip(0, 1), atol=1e-5)


@pytest.mark.slow
def test_cropped_borders_take_the_shortcut_away_and_not_the_finding(cohort, tmp_path, monkeypatch):
    readers = {"rim": (0.0, 0.06), "middle": (0.45, 0.55)}
    rim, middle = (run_of(tmp_path, name, monkeypatch, readers) for name in readers)
    report = stress_runs([middle], [rim], cohort, engine=QUIET, replicates=200)
    assert report.plain == (1.0, 1.0)
    # two runs of one recipe are two columns of two names
    assert len(set(report.names)) == 2
    kept, lost = report.drops[CROPPED]
    assert kept.difference == 0.0 and lost.difference < -0.3
    again = report.predictions[CROPPED]
    score = AUC(1)
    expected = score_point(score, again[0][0]) - score_point(score, again[1][0])
    assert report.differences[CROPPED].difference == pytest.approx(expected)
    assert report.differences[CROPPED].low > 0 and report.p_holm[CROPPED] >= report.differences[CROPPED].p_value
    write_stress(report, tmp_path / "out", "test")
    fields = json.loads((tmp_path / "out" / "stress.json").read_text())
    assert fields["drops"][CROPPED][1]["difference"] == lost.difference
    assert (tmp_path / "out" / "changes.png").stat().st_size > 10_000
    assert CROPPED in (tmp_path / "out" / "stress.md").read_text()


def test_two_trainings_of_a_method_are_averaged(cohort, tmp_path, monkeypatch):
    readers = {"rim": (0.0, 0.06), "middle": (0.45, 0.55)}
    both = [run_of(tmp_path, name, monkeypatch, readers) for name in readers]
    report = stress_runs(both, [], cohort, engine=QUIET, replicates=100)
    assert report.differences == {}
    (drop,) = report.drops[CROPPED]
    single = [score_point(AUC(1), t) for t in report.predictions[CROPPED][0]]
    assert drop.difference == pytest.approx(np.mean(single) - 1.0) and drop.n["trainings"] == 2
    # a reason stands below the table where there is no interval, and only there
    assert drop.low is not None and "nterval is given" not in report.markdown("both")


def test_a_network_that_judges_each_class_by_itself_keeps_its_sigmoids(cohort, tmp_path, monkeypatch):
    """They do not sum to 1, and the first picture ended with an error that asked for a softmax."""
    run, apart = (
        run_of(tmp_path, n, monkeypatch, dict.fromkeys(("one", "each"), (0.45, 0.55))) for n in ("one", "each")
    )
    apart = replace(
        apart, recipe=replace(apart.recipe, objective=HeatmapMatch("classifier"), guidance=None, weight=0.0)
    )
    few = replace(cohort, cases=cohort.cases[:4])
    report = stress_runs([run, apart], [], few, engine=QUIET, replicates=20)
    softmax, sigmoid = report.predictions[PLAIN][0]
    assert sigmoid.independent and not softmax.independent
    odds = [np.log(p / (1 - p)) for p in (softmax.probabilities[:, 1], sigmoid.probabilities[:, 1])]
    np.testing.assert_allclose(odds[0], 2 * odds[1], rtol=1e-5)
    # why so few patients get no interval stands in the page, too
    assert "No interval: 4 patients, at least" in report.markdown("few")


def test_every_method_is_shown_pictures_as_it_was_trained_on(cohort, tmp_path, monkeypatch):
    """Those of the first method were shown to both."""
    readers = dict.fromkeys(("plain", "even", "near"), (0.45, 0.55))
    views = {"plain": {}, "even": {"equalise": True}, "near": {"centre_crop": 0.5, "size": 64}}
    plain, even, near = (run_of(tmp_path, name, monkeypatch, readers, **view) for name, view in views.items())
    few = replace(cohort, cases=cohort.cases[:6])
    for run in (even, near):
        both = stress_runs([plain], [run], few, engine=QUIET, replicates=20)
        alone = stress_runs([run], [], few, engine=QUIET, replicates=20)
        for name in (PLAIN, CROPPED):
            assert both.predictions[name][1] == alone.predictions[name][0] != both.predictions[name][0]
    with pytest.raises(RunError, match=r"even and .*plain are shown different pictures: .*'equalise': True"):
        stress_runs([plain, even], [], few, engine=QUIET)
    with pytest.raises(RunError, match="different classes"):
        stress_runs([plain], [replace(even, classes=("a", "b"))], few, engine=QUIET)


def test_the_help_counts_the_changes_and_names_the_files(capsys):
    said = []
    for command in ("stress", "power"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        said.append(" ".join(capsys.readouterr().out.replace("│", " ").split()))
    assert f"asked {len([PLAIN, *FIELDS, *CHANGES])} times for each" in said[0]
    assert "CSV [CSV ...]" in said[1] and "RUN" not in said[1]


def test_one_class_and_no_run_are_refused(cohort, tmp_path, monkeypatch):
    run = run_of(tmp_path, "middle", monkeypatch, {"middle": (0.45, 0.55)})
    with pytest.raises(CohortError, match="one class"):
        stress_runs([run], [], cohort.where(lambda case: case.label == "normal"), engine=QUIET)
    swapped = Cohort(cohort.name, cohort.classes[::-1], cohort.cases)
    with pytest.raises(CohortError, match="classes"):
        stress_runs([run], [], swapped, engine=QUIET)
    with pytest.raises(RunError, match="needs a run"):
        stress_runs([], [], cohort, engine=QUIET)
    with pytest.raises(RunError, match="named twice"):
        stress_runs([run, run], [], cohort, engine=QUIET)
    with pytest.raises(RunError, match="Both sides are the same"):
        stress_runs([run], [run], cohort, engine=QUIET)
