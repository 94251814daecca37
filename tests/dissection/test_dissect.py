"""`sightline dissect` on tiny runs of pictures and volumes: what it writes, reuses and refuses."""

import csv
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.cohorts import tiny_recipe
from support.volumes import WORDS, tiny_spines, tiny_volume_recipe

from sightline.data.loader import CohortItems
from sightline.data.loader import iterate_test_batches as served
from sightline.dissection.dissect import DissectionOptions, choose_layer, dissect, select_first_units
from sightline.dissection.export import remove_earlier_pictures
from sightline.dissection.passes import choose_masks, group_marks_by_name
from sightline.dissection.results import open_dissection
from sightline.dissection.top_cases import sees_window
from sightline.errors import CohortError, LayoutError, RecipeError, RunError
from sightline.explainers.units.layer import UnitLayer
from sightline.io.nifti import read_volume
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.case import Cohort
from sightline.training.engine import Engine
from sightline.training.run import open_run
from sightline.training.train import train

ENGINE = Engine(device="cpu", quiet=True)
TOP = 0.05
UNITS = 1
# how many cases they hold and how large they are is test_gallery.py's
pytestmark = pytest.mark.usefixtures("small_galleries")


@pytest.fixture(scope="module")
def flat(tiny_cohort, tmp_path_factory, small_galleries):
    """A run of pictures, and its dissection."""
    place = tmp_path_factory.mktemp("flat")
    torch.manual_seed(0)
    run = train(replace(tiny_recipe(), epochs=2), tiny_cohort, place / "run", CATALOGUE, ENGINE)
    found = dissect(
        run, tiny_cohort, place / "out", options=DissectionOptions(split="all", top=TOP, units=UNITS), engine=ENGINE
    )
    return run, tiny_cohort, found


@pytest.fixture(scope="module")
def deep(tmp_path_factory, small_galleries):
    """A run of volumes, and its dissection."""
    place = tmp_path_factory.mktemp("deep")
    cohort = tiny_spines(place / "cohort", 16)
    run = train(tiny_volume_recipe(), cohort, place / "run", WORDS, ENGINE)
    found = dissect(
        run, cohort, place / "out", options=DissectionOptions(split="all", top=TOP, units=UNITS), engine=ENGINE
    )
    return run, cohort, found


@pytest.fixture
def undrawn(flat, monkeypatch):
    """Dissections of the same network that draw nothing: their pictures are those of the first."""
    galleries = sorted((flat[2].folder / "galleries").glob("*.png"))
    made = {n: galleries[n].read_bytes() for n in (0, 1)}
    monkeypatch.setattr("sightline.dissection.export.draw_collage", lambda *given: made[0])
    monkeypatch.setattr("sightline.dissection.export.draw_strongest", lambda *given: made[1])
    for name in ("draw_ranked_curve", "draw_agreement_strip", "draw_calls"):
        monkeypatch.setattr(f"sightline.dissection.report.{name}", lambda *given: made[0])


def activations(run, cohort, layer):
    """Every activation of a cohort, slowly: [n, u, *m], and the logits."""
    layer = UnitLayer(run.network(), layer)
    said = [layer(batch.images) for batch in served(CohortItems(cohort, run.recipe.view), batch_size=1)]
    return torch.cat([a for _, a in said]).double().numpy(), torch.cat([e.logits for e, _ in said]).numpy()


@pytest.mark.parametrize("which", ["flat", "deep"])
def test_numbers_are_those_of_the_definition(which, request):
    run, cohort, found = request.getfixturevalue(which)
    a, logits = activations(run, cohort, found.layer)
    positive = np.array([case.label == cohort.classes[-1] for case in cohort])
    flat = np.moveaxis(a, 1, 0).reshape(a.shape[1], -1)
    thresholds = np.quantile(flat, 1 - TOP, axis=1)
    assert found.thresholds == pytest.approx(thresholds, rel=1e-5)
    enabled = (a > thresholds.reshape(1, -1, *[1] * (a.ndim - 2))).any(axis=tuple(range(2, a.ndim)))
    c, against = enabled[positive].mean(axis=0), enabled[~positive].mean(axis=0)
    assert [row.c for row in found.units] == pytest.approx(c)
    assert [row.contrast for row in found.units] == pytest.approx(c - against)
    assert [row.n_pos for row in found.units] == [positive.sum()] * len(c)
    assert sorted(row.rank for row in found.units) == list(range(1, len(c) + 1))
    assert [row.c for row in found.ranked] == sorted(c, reverse=True)
    with (found.folder / "calls.csv").open() as file:
        calls = list(csv.DictReader(file))
    right = positive & (logits.argmax(1) == len(cohort.classes) - 1)
    if calls:
        assert float(calls[0]["true_calls"]) == pytest.approx(enabled[right, 0].mean())


@pytest.mark.parametrize("which", ["flat", "deep"])
def test_everything_promised_is_written(which, request):
    run, cohort, found = request.getfixturevalue(which)
    out = found.folder
    shown = [row.unit for row in found.ranked[:UNITS]]
    for unit in shown:
        assert (out / "galleries" / f"unit_{unit:03d}.png").stat().st_size > 5000
        assert (out / "galleries" / f"unit_{unit:03d}_strongest.png").is_file()
        assert found.gallery(unit) is not None and len(found.examples(unit)) == 4
        assert found.examples(unit)[0].ndim == 3 and found.examples(unit)[0].max() <= 1.0
    other = next(row.unit for row in found.ranked[UNITS:])
    assert found.gallery(other) is None and found.examples(other) == ()
    data = json.loads((out / "units.json").read_text())
    for name in ("run", "weights", "cohort", "fingerprint", "split", "top", "date", "torch"):
        assert data["about"][name]
    assert data["about"]["run"] == run.identity and data["about"]["fingerprint"] == cohort.fingerprint()
    with (out / "units.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["unit"]) for row in rows] == [row.unit for row in found.ranked]
    assert {row["layer"] for row in rows} == {found.layer}
    with (out / "agreement.csv").open() as file:
        masks = {row["mask"] for row in csv.DictReader(file)}
    assert masks == ({"focus", "finding"} if which == "flat" else {"vertebra", "wedge"})
    page = (out / "report.html").read_text()
    assert len(page) < 6_000_000 and page.count("<img") >= 2 + 2 * UNITS
    assert not re.search(r"(src|href)=\"(?!data:|#)", page) and "<script" not in page
    assert "Nothing here is a diagnosis" in page
    # an interval without zero beside a corrected p of 1, a square larger than a strong response, a frame where the
    # text says that nothing is beyond chance: each is explained where it is met
    assert all(words in page for words in ("Unlike p it is not corrected", "A square is one cell", "A frame holds"))
    assert open_dissection(out).units == found.units


def test_volumes_are_written_for_a_viewer(deep):
    _, cohort, found = deep
    assert not (found.folder / "overlays").exists()
    for unit in [row.unit for row in found.ranked[:UNITS]]:
        files = sorted((found.folder / "nifti" / f"unit_{unit:03d}").iterdir())
        assert len(files) == 15
        level = read_volume(next(f for f in files if f.name.startswith("1_") and "activation" in f.name))
        assert 0.0 < level.values.max() <= 1.0
        case = next(c for c in cohort if f"1_{c.case_id}_activation.nii.gz" in {f.name for f in files})
        patch = read_volume(case.image)
        assert patch.place_of(level.world_of((0.0, 0.0, 0.0))) == pytest.approx([4.0, 4.0, 4.0], abs=1e-4)


def test_pictures_have_overlays(flat):
    found = flat[2]
    assert not (found.folder / "nifti").exists()
    unit = found.ranked[0].unit
    assert len(list((found.folder / "overlays" / f"unit_{unit:03d}").glob("*.png"))) == 5


def test_a_second_call_takes_no_pass_and_puts_names_in(flat, monkeypatch):
    run, cohort, found = flat
    monkeypatch.setattr("sightline.dissection.passes.compute_unit_thresholds", None)
    monkeypatch.setattr("sightline.dissection.passes.read_units", None)
    unit = found.ranked[0].unit
    file = found.folder / "concepts.yaml"
    before = file.read_text()
    named = before.replace('text: ""', 'text: "bright square"', 1).replace('author: ""', 'author: "A. Reader"', 1)
    file.write_text(named)
    again = dissect(run, cohort, found.folder, options=DissectionOptions(split="all", top=TOP, units=2), engine=ENGINE)
    assert again.concepts[unit].text == "bright square" and again.units == found.units
    assert file.read_text().startswith(named) and len(again.concepts) == 1
    assert "bright square" in (found.folder / "report.html").read_text()
    assert found.ranked[1].unit in [int(m) for m in re.findall(r"^  (\d+):", file.read_text(), re.MULTILINE)]
    file.write_text(named + "  x: y\n")
    with pytest.raises(LayoutError, match="line"):
        dissect(run, cohort, found.folder, options=DissectionOptions(split="all", top=TOP, units=3), engine=ENGINE)
    file.write_text(named)


def test_other_groups_and_classes_reuse_the_readings(flat, undrawn, monkeypatch, tmp_path):
    run, cohort, found = flat
    monkeypatch.setattr("sightline.dissection.passes.read_units", None)
    other = dissect(
        run,
        cohort,
        found.folder,
        options=DissectionOptions(split="all", top=TOP, positive=cohort.classes[0], by="auc", units=1),
        engine=ENGINE,
    )
    assert other.positive == cohort.classes[0]
    assert [row.contrast for row in other.units] == pytest.approx([-row.contrast for row in found.units])
    assert [row.auc for row in other.units] == pytest.approx([1 - row.auc for row in found.units])
    assert select_first_units(other, "auc", 1)[0].auc == max(row.auc for row in other.units)


def test_of_a_call_over_other_cases_nothing_is_left_beside_the_new_one(tmp_path):
    files = ["examples/unit_007_4.png", "nifti/unit_007/5_b__L1_ct.nii.gz", "overlays/unit_007/5_b.png"]
    kept = ["examples/unit_070_1.png", "nifti/unit_007/mine.nii.gz", "overlays/unit_008/1_a.png"]
    for name in files + kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    remove_earlier_pictures(tmp_path, 7)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == kept


def test_a_call_that_stops_among_its_pictures_leaves_no_finished_dissection(flat, undrawn, tmp_path, monkeypatch):
    run, cohort, found = flat
    shutil.copytree(found.folder, tmp_path / "out")
    (old := tmp_path / "out" / "examples" / f"unit_{found.ranked[0].unit:03d}_9.png").touch()
    options = DissectionOptions(split="all", top=TOP, units=1)
    with monkeypatch.context() as patched:
        patched.setattr("sightline.dissection.export.draw_strongest", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            dissect(run, cohort, tmp_path / "out", options=options, engine=ENGINE)
    assert not old.exists()
    with pytest.raises(RunError, match="no finished dissection"):
        open_dissection(tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"layer": "trunkk"}, RecipeError, "trunk"),
        ({"layer": "head.linear"}, Exception, "head.linear"),
        ({"positive": "broken"}, RecipeError, "no fracture, fracture"),
        ({"split": "val", "top": 1e-6}, CohortError, "needs at least"),
        ({"units": 0}, RunError, "at least one unit"),
    ],
)
def test_what_cannot_be_dissected_is_said(flat, tmp_path, changes, error, said):
    run, cohort, _ = flat
    with pytest.raises(error) as caught:
        dissect(run, cohort, tmp_path / "out", DissectionOptions(**changes), engine=ENGINE)
    assert said in str(caught.value)
    assert not (tmp_path / "out" / "units.json").exists()


def test_cohorts_that_do_not_fit_are_refused(flat, tmp_path):
    run, cohort, _ = flat
    intact = cohort.where(lambda case: case.label == cohort.classes[0])
    with pytest.raises(CohortError, match="is of the class 'fracture'"):
        dissect(run, intact, tmp_path / "a", options=DissectionOptions(split="all", top=TOP), engine=ENGINE)
    with pytest.raises(CohortError, match="no case in val"):
        dissect(run, cohort.split("test"), tmp_path / "b", options=DissectionOptions(split="val"), engine=ENGINE)
    renamed = Cohort("other", ("a", "b"), tuple(replace(c, label="ab"[c.label == "fracture"]) for c in cohort))
    with pytest.raises(CohortError, match="trained on"):
        dissect(run, renamed, tmp_path / "c", engine=ENGINE)
    with pytest.raises(RunError, match="not finished"):
        dissect(replace(run, done=False), cohort, tmp_path / "d", engine=ENGINE)


def test_a_folder_of_something_else_is_left_alone(flat, tmp_path):
    run, cohort, found = flat
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match="holds no dissection"):
        dissect(run, cohort, tmp_path, options=DissectionOptions(split="all", top=TOP), engine=ENGINE)
    with pytest.raises(RunError, match=r"another dissection: .*split all, now test"):
        dissect(run, cohort, found.folder, options=DissectionOptions(split="test", top=TOP), engine=ENGINE)


def test_a_stopped_dissection_starts_again(flat, undrawn, tmp_path, monkeypatch):
    run, cohort, found = flat

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("sightline.dissection.passes.read_units", stop)
        with pytest.raises(KeyboardInterrupt):
            dissect(
                run, cohort, tmp_path / "out", options=DissectionOptions(split="all", top=TOP, units=1), engine=ENGINE
            )
    with pytest.raises(RunError, match="no finished dissection"):
        open_dissection(tmp_path / "out")
    again = dissect(
        run, cohort, tmp_path / "out", options=DissectionOptions(split="all", top=TOP, units=1), engine=ENGINE
    )
    assert again.thresholds == pytest.approx(found.thresholds)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.pop("units"),
        lambda data: data["units"].pop(0),
        lambda data: data["units"][0].update(threshold="x"),
        lambda data: data["units"][0].update(rank=True),
        lambda data: data.update(about=3),
    ],
)
def test_a_damaged_dissection_is_refused(flat, tmp_path, change):
    data = json.loads((flat[2].folder / "units.json").read_text())
    change(data)
    (tmp_path / "units.json").write_text(json.dumps(data))
    with pytest.raises(RunError, match="damaged"):
        open_dissection(tmp_path)


class Parts(torch.nn.Module):
    """A network of named parts."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def test_layers_are_chosen_where_none_is_named(flat, deep):
    assert flat[2].layer == choose_layer(flat[0].network()) and deep[2].layer == "features"
    # features that class maps are made of: after the fusion where there is one, of the classifier in a window
    pyramid = Parts(trunk=torch.nn.Conv2d(1, 2, 1), fusion=torch.nn.Conv2d(2, 2, 1))
    assert choose_layer(pyramid) == "fusion"
    assert choose_layer(Parts(localiser=torch.nn.Conv2d(1, 2, 1), classifier=pyramid)) == "classifier.fusion"
    assert sees_window("classifier.fusion") and not sees_window("localiser.trunk")


def test_of_marks_of_one_name_the_closest_counts(tiny_cohort, flat):
    case = next(c for c in tiny_cohort if c.label == "fracture")
    kinds = {name: {type(r).__name__ for r in regions} for name, regions in group_marks_by_name(case).items()}
    assert kinds == {"focus": {"Mask"}, "finding": {"Box"}}
    items = CohortItems(tiny_cohort, flat[0].recipe.view)
    batch = next(served(items, batch_size=4))
    drawn = choose_masks(tiny_cohort)(batch)
    for b, case_id in enumerate(batch.case_ids):
        case = next(c for c in tiny_cohort if c.case_id == case_id)
        focus = next(r for r in case.regions if type(r).__name__ == "Mask")
        assert np.array_equal(drawn["focus"][b].numpy(), focus.draw(batch.frames[b]) > 0)
    assert choose_masks(tiny_cohort.where(lambda c: False)) is None


def test_the_command_prints_the_first_units(flat, undrawn, tmp_path, capsys):
    from sightline.cli.main import main

    run, cohort, found = flat
    options = ["--split", "all", "--top", str(TOP), "--units", "1", "--device", "cpu", "--quiet"]
    with pytest.raises(SystemExit) as ended:
        main(["dissect", str(run.folder), "--cohort", str(cohort.root), "--out", str(found.folder), *options])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert f"unit {found.ranked[0].unit}: rank 1" in said and "concepts.yaml" in said
    with pytest.raises(SystemExit) as ended:
        main(["dissect", str(tmp_path), "--cohort", str(cohort.root), "--out", str(tmp_path / "o")])
    assert ended.value.code == 2 and "not a run" in capsys.readouterr().err
    assert open_run(run.folder, CATALOGUE).done
