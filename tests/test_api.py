"""What a notebook calls: names, laziness, errors, and every example of the public functions and nouns."""

import ast
import doctest
import importlib
import shutil
import subprocess
import sys
from dataclasses import replace
from operator import attrgetter

import numpy as np
import pytest
import tifffile
import torch
from support.paths import ROOT

import sightline as sl
from sightline import cli
from sightline.errors import LayoutError, RecipeError, SightlineError, UnreadableFile
from sightline.metrics.calibration.recalibration import FittedRecalibration
from sightline.metrics.calibration.record import CalibrationRecord
from sightline.metrics.calibration.scaling import Temperature
from sightline.structures.evidence import get_logits
from sightline.structures.resampling import upsample_map


@pytest.fixture(scope="module")
def run_folder(tiny_cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("api") / "run"
    sl.train("small-guided", tiny_cohort, out, steps=2, size=48, weights="none", quiet=True)
    return out


@pytest.fixture(scope="module")
def other_folder(tiny_cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("api") / "other"
    sl.train("small-unguided", tiny_cohort, out, steps=2, size=48, weights="none", quiet=True)
    return out


# a whole table takes several seconds
SLOW = {"run_table"}
EXAMPLES = [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
    for name in sl.__all__
    if name not in ("__version__", "losses", "explainers")
]
EXAMPLES += [f"{room}.{name}" for room in ("losses", "explainers") for name in getattr(sl, room).__all__]


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_public_name_has_an_example_that_runs(name, tiny_cohort, run_folder, other_folder, tmp_path):
    thing = attrgetter(name)(sl)
    examples = doctest.DocTestFinder(recurse=False).find(thing, name, globs={})
    assert examples and examples[0].examples, f"{name} has no example"
    globs = {
        **{n: getattr(sl, n) for n in sl.__all__},
        "sl": sl, "np": np, "torch": torch, "cohort_folder": tiny_cohort.root, "run_folder": run_folder,
        "other_folder": other_folder, "destination": tmp_path / "out",
    }  # fmt: skip
    if "." in name:
        room = getattr(sl, name.partition(".")[0])
        globs |= {n: getattr(room, n) for n in room.__all__}
    for example in examples:
        example.globs = globs
        assert doctest.DocTestRunner(verbose=False).run(example).failed == 0


def test_import_is_light():
    code = "import sys; before = set(sys.modules); import sightline; print(*sorted(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {name.split(".")[0] for name in loaded} & {"numpy", "torch", "PIL", "pydicom", "pandas", "matplotlib"}


def test_names_resolve_and_the_list_is_whole():
    assert set(dir(sl)) == set(sl.__all__)
    for name in sl.__all__:
        assert getattr(sl, name) is not None
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = sl.nothing_here


def test_an_evaluation_is_that_of_the_command_line(tiny_cohort, run_folder):
    # of another site, before and after the own test was evaluated: `cohort` holds the same cases under other ids
    cases = tuple(replace(c, case_id=f"x{i}", study_id=f"x{i}") for i, c in enumerate(tiny_cohort.split("test")))
    other = replace(tiny_cohort, name="elsewhere", cases=cases)
    asked = {"replicates": 99, "quiet": True}
    shutil.rmtree(run_folder / "evaluation", ignore_errors=True)
    assert "Evaluate its own test split" in sl.evaluate(run_folder, other, **asked).changes[0]
    own = sl.evaluate(run_folder, tiny_cohort, **asked)
    assert own.changes == ()
    there = sl.evaluate(run_folder, other, **asked)
    share = own["accuracy, image-wise"].value
    assert f"| accuracy, image-wise | {share:.3f} | {share:.3f} | +0.000 (-" in there.changes[0]
    assert there.summary() == (run_folder / "evaluation" / "elsewhere-test" / "metrics.md").read_text()
    for part in (*there.changes, *there.notes, "Scope: ", "Calibration"):
        assert part in there.summary()
    assert "elsewhere" in (run_folder / "model_card.md").read_text()
    faithful = sl.evaluate(run_folder, tiny_cohort, faithfulness="cam", faithfulness_images=2, **asked)
    assert len(faithful.estimates) > len(own.estimates) == len(own.to_frame())


def test_a_comparison_is_that_of_the_command_line(tiny_cohort, run_folder, other_folder, tmp_path):
    found = sl.compare([run_folder], sl.load_run(other_folder), tiny_cohort, margin=0.1, replicates=99, quiet=True)
    command = ["compare", str(run_folder), "--with", str(other_folder), "--cohort", str(tiny_cohort.root)]
    with pytest.raises(SystemExit):
        cli.main([*command, "--out", str(tmp_path), "--margin", "0.1", "--replicates", "99", "--quiet"])
    assert found.markdown() == (tmp_path / "comparison.md").read_text()
    assert found.margins and found.names[0] != found.names[1]
    with pytest.raises(SightlineError, match="twice"):
        sl.compare([run_folder, run_folder], other_folder, tiny_cohort, replicates=99)
    with pytest.raises(SightlineError, match="expected two numbers"):
        sl.compare(run_folder, other_folder, tiny_cohort, together=[1])
    with pytest.raises(SightlineError, match="cannot judge together by 2"):
        sl.compare(run_folder, other_folder, tiny_cohort, together=(2, 1), replicates=99, quiet=True)
    with pytest.raises(SightlineError, match="no option 'repeats'"):
        sl.compare(run_folder, other_folder, tiny_cohort, repeats=3)


def test_numbers_of_numpy_are_numbers(tiny_cohort, run_folder, tmp_path):
    small = {"steps": np.int64(1), "size": np.int32(48), "weights": "none", "quiet": True}
    assert sl.load_recipe("small-guided", epochs=np.int64(2)).epochs == 2
    run = sl.train("small-guided", tiny_cohort, tmp_path / "run", seed=np.int64(3), workers=np.int64(0), **small)
    assert run.recipe.seed == 3 and '"seed": 3' in (run.folder / "recipe.json").read_text()
    few = np.float32(0.25), np.float64(0.5)
    assert sl.evaluate(run, tiny_cohort, replicates=np.int64(99), prevalences=np.array(few), quiet=True).estimates
    result = sl.run_table(
        "liao2022/fracatlas", tiny_cohort, tmp_path / "table", seeds=np.arange(1), rows=["unguided"], **small
    )
    assert result.seeds == (0,)
    for wrong in (np.float64(1.5), np.bool_(True), np.array(["1"]), [99, 9], []):
        with pytest.raises(SightlineError, match=r"expected (one )?whole number"):
            sl.evaluate(run_folder, tiny_cohort, replicates=wrong)


def test_odd_options_are_refused_in_words(tiny_cohort, run_folder, other_folder, tmp_path):
    both = run_folder, other_folder, tiny_cohort
    for words, call in (
        ("expected texts", lambda: sl.evaluate(run_folder, tiny_cohort, faithfulness=3)),
        ("expected whole", lambda: sl.evaluate(run_folder, tiny_cohort, faithfulness="cam", faithfulness_images="x")),
        ("A run was expected", lambda: sl.compare(None, other_folder, tiny_cohort)),
        ("expected 1 or more", lambda: sl.compare(*both, replicates=0)),
        ("expected numbers", lambda: sl.compare(*both, margin="x")),
        ("expected texts", lambda: sl.dissect(run_folder, tiny_cohort, tmp_path, layer=3)),
        ("--by is 'x'", lambda: sl.dissect(run_folder, tiny_cohort, tmp_path, by="x")),
        ("--over is 'x'", lambda: sl.dissect(run_folder, tiny_cohort, tmp_path, over="x")),
        ("expected texts", lambda: sl.import_cohort("pictures", tmp_path, tmp_path / "new", classes=3)),
        ("expected a text", lambda: sl.load_recipe("small-guided", readers=3)),
        ("expected a text", lambda: sl.load_recipe("small-guided", precision=32)),
        ("a folder; one picture", lambda: sl.explain(run_folder, tiny_cohort.root / "images")),
    ):
        with pytest.raises(SightlineError, match=words):
            call()


def test_no_function_hides_a_room():
    rooms = {path.stem for path in (ROOT / "src" / "sightline").iterdir() if path.is_dir()}
    assert not rooms & (set(sl.__all__) - {"losses", "explainers"})


def test_what_type_checkers_see_is_what_there_is():
    tree = ast.parse((ROOT / "src" / "sightline" / "__init__.py").read_text(encoding="utf-8"))
    seen = {
        alias.asname: (node.module, alias.name)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == set(sl.__all__) - {"__version__"}
    for name, (module, original) in seen.items():
        expected = importlib.import_module(f"{module}.{original}") if module == "sightline" else None
        assert getattr(sl, name) is (expected or getattr(importlib.import_module(module), original))


@pytest.mark.parametrize(
    ("dtype", "colour"), [("uint8", False), ("uint8", True), ("uint16", False), ("uint16", True), ("int32", False)]
)
def test_an_array_is_read_as_a_file_of_the_same_numbers(run_folder, tmp_path, dtype, colour):
    """Also where 12 bits lie in 16: both are stretched, so that the picture is not nearly black."""
    grey = np.random.default_rng(0).integers(0, 250 if dtype == "uint8" else 4000, (48, 40)).astype(dtype)
    pixels = np.stack([grey, grey, grey // 2], axis=-1) if colour else grey
    tifffile.imwrite(tmp_path / "same.tif", pixels, photometric="rgb" if colour else "minisblack")
    found = sl.predict(run_folder, [tmp_path / "same.tif", pixels])
    assert found[0].probabilities == found[1].probabilities
    assert np.array_equal(found[0].result.pixels, found[1].result.pixels)


def test_predictions_of_arrays_files_folders_and_cohorts(run_folder, tiny_cohort):
    run = sl.load_run(str(run_folder))
    case = tiny_cohort[0]
    file = sl.predict(run, str(case.image))[0]
    array = sl.predict(run, np.asarray(__import__("PIL.Image").Image.open(case.image)))[0]
    assert file.probabilities == pytest.approx(array.probabilities) and file.map.shape == array.map.shape
    assert sum(file.probabilities.values()) == pytest.approx(1.0)
    folder = sl.predict(run, tiny_cohort.root / "images")
    table = folder.to_frame()
    assert len(folder) == len(table) == len(tiny_cohort) and folder[:2].to_frame().shape[0] == 2
    row = table[table["name"] == str(case.image)].iloc[0]
    assert row["p(fracture)"] == pytest.approx(file.probabilities["fracture"])
    output = sl.predict(run, tiny_cohort.split("test"), quiet=True)
    assert len(output.predictions) == len(tiny_cohort.split("test"))
    of_cases = output.to_frame()
    assert of_cases.shape == (len(output.predictions), 5 + 2) and set(of_cases["label"]) <= set(tiny_cohort.classes)
    assert (of_cases["predicted"] == "fracture").equals(of_cases["p(fracture)"] > of_cases["p(no fracture)"])
    assert file.overlay()._repr_png_() == file._repr_png_()
    assert file._repr_png_().startswith(b"\x89PNG") and "fracture" in repr(file)


def test_a_calibrated_run_says_the_same_of_a_file_and_of_a_cohort(run_folder, tiny_cohort, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run")
    run, case = sl.load_run(tmp_path / "run"), tiny_cohort.split("test")[0]
    (plain,) = sl.predict(run, case.image)
    CalibrationRecord(run.identity, run.classes, FittedRecalibration(Temperature(0.2))).write(run.folder)
    (file,) = sl.predict(run, case.image)
    of_cohort = sl.predict(run, tiny_cohort.where(lambda one: one.case_id == case.case_id), quiet=True).predictions
    assert list(file.probabilities.values()) == pytest.approx(of_cohort.probabilities[0].tolist(), abs=1e-5)
    assert abs(file.probabilities["fracture"] - plain.probabilities["fracture"]) > 1e-3


def test_a_table_says_how_many_trainings_it_wants(tiny_cohort, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("sightline.evaluation.tables.run_table.run_table", lambda *_, seeds, **__: asked.append(seeds))
    monkeypatch.setattr("sightline.evaluation.tables.report.write_table", lambda *_: "")
    rows = "rows:\n  - {name: one, recipe: small-unguided}\n"
    for name, text in (("five", "seeds: 5\n"), ("none", "")):
        (tmp_path / f"{name}.yaml").write_text(text + rows)
        for given in ({}, {"seeds": 2}, {"seeds": [4]}):
            sl.run_table(tmp_path / f"{name}.yaml", tiny_cohort, tmp_path / "out", **given)
    assert [list(seeds) for seeds in asked] == [[0, 1, 2, 3, 4], [0, 1], [4], [0, 1, 2], [0, 1], [4]]


def test_an_explanation_has_its_place(run_folder, tiny_cohort):
    heat = sl.explain(run_folder, str(tiny_cohort[0].image), "gradcam", target="fracture")
    assert heat.target == "fracture" and heat.overlay()._repr_png_() == heat._repr_png_()
    rows, columns = tiny_cohort[0].shape
    row, column = heat.peak
    assert -rows < row < 2 * rows and -columns < column < 2 * columns
    # the peak is where the map, enlarged to what the network saw and led back to the picture, is highest
    shown = upsample_map(heat.values, heat.pixels.shape[:2])
    assert shown.max() <= heat.values.max() + 1e-9


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda run, cohort: sl.load_recipe("small-guided", epoch=1), RecipeError, "no option 'epoch'"),
        (lambda run, cohort: sl.load_recipe("nothing"), RecipeError, "no recipe 'nothing'"),
        (lambda run, cohort: sl.predict(run, np.zeros((4, 4))), UnreadableFile, "float64 of shape"),
        (lambda run, cohort: sl.predict(run, np.zeros((40, 40), np.uint8)), UnreadableFile, "looks the same"),
        (lambda run, cohort: sl.predict(run, np.zeros((0, 4), np.uint8)), UnreadableFile, "0 x 4"),
        (lambda run, cohort: sl.predict(run, np.ones((4, 4, 2), np.uint8)), UnreadableFile, "no picture"),
        (lambda run, cohort: sl.predict(run, None), UnreadableFile, "NoneType is no picture"),
        (lambda run, cohort: sl.predict(run, np.zeros((4, 4), np.uint8), speed=1), RecipeError, "no option 'speed'"),
        (lambda run, cohort: sl.explain(run, np.eye(9, dtype=np.uint8), "tea"), RecipeError, "no explainer 'tea'"),
        (lambda run, cohort: sl.explain(run, np.eye(9, dtype=np.uint8), target="x"), RecipeError, "no class 'x'"),
        (lambda run, cohort: sl.import_cohort("coco", cohort, "x", group=1), LayoutError, "no option 'group'"),
        (lambda run, cohort: sl.evaluate(run, cohort, replicates=99, quiet=True)["AUROC"], SightlineError, "no number"),
        (lambda run, cohort: sl.evaluate(run, cohort, replicates="99"), RecipeError, "expected whole numbers"),
        (lambda run, cohort: sl.evaluate(run, cohort, prevalences=["low"]), RecipeError, "expected numbers"),
        (lambda run, cohort: sl.predict(run, cohort, workers="1"), SightlineError, "expected a whole number"),
        (lambda run, cohort: sl.predict(run, cohort, features=3), SightlineError, "folder of features was expected"),
        (lambda run, cohort: sl.load_recipe("small-guided", weights=5), RecipeError, "expected a text"),
        (lambda run, cohort: sl.load_recipe("small-guided", size="big"), RecipeError, "whole number.* size=512"),
        (lambda run, cohort: sl.train(None, cohort, "x", steps=2), RecipeError, "got a NoneType"),
        (lambda run, cohort: sl.train("small-guided", cohort, None), SightlineError, "run folder was expected"),
        (lambda run, cohort: sl.dissect(run, cohort, "x", top="1%"), RecipeError, "top is '1%'"),
        (lambda run, cohort: sl.run_table("liao2022/fracatlas", cohort, "x", rows=3), RecipeError, "expected texts"),
        (lambda run, cohort: sl.run_table("liao2022/fracatlas", cohort, "x", seeds=[0, 0]), RecipeError, "twice"),
        (
            lambda run, cohort: sl.run_table("liao2022/fracatlas", cohort, "x", seeds=[0.5]),
            RecipeError,
            "whole numbers",
        ),
    ],
)
def test_mistakes_are_named(call, error, words, run_folder, tiny_cohort):
    with pytest.raises(error, match=words):
        call(run_folder, tiny_cohort.root)


def test_results_do_not_go_into_a_cohort(run_folder, tiny_cohort):
    place = tiny_cohort.root / "results"
    for call in (
        lambda: sl.train("small-guided", tiny_cohort, place, steps=1),
        lambda: sl.dissect(run_folder, tiny_cohort, place),
        lambda: sl.run_table("liao2022/fracatlas", tiny_cohort, place, seeds=[0]),
    ):
        with pytest.raises(LayoutError, match="among the files of the cohort"):
            call()
    assert not place.exists()


def test_folders_are_texts_or_paths(tiny_cohort, tmp_path):
    assert sl.load_recipe("small-guided", weights=tmp_path / "w.safetensors").model.backbone.weights.endswith(
        "w.safetensors"
    )
    few = {"steps": 1, "size": 32, "weights": "none", "quiet": True}
    assert sl.train("small-guided", tiny_cohort, str(tmp_path / "run"), features=str(tmp_path / "kept"), **few).done


def test_logits_of_any_network():
    assert get_logits(torch.zeros(2, 3)).shape == (2, 3)
    with pytest.raises(SightlineError, match="expected logits"):
        get_logits((torch.zeros(2, 3),))
