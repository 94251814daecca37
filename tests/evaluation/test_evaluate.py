"""An evaluation is what was saved: reused while nothing changed, made anew when something did."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.cohorts import tiny_recipe

from sightline.errors import CohortError, RunError, SightlineError
from sightline.evaluation import evaluate as module
from sightline.evaluation.evaluate import evaluate
from sightline.evaluation.gallery import rank_by_pointing, select_telling_cases, show_network_view, write_panels
from sightline.evaluation.report import compute_report, write_report_of
from sightline.evaluation.result import describe_replaced
from sightline.inference.network_output import Maps
from sightline.inference.predict import predict
from sightline.metrics.estimate import Estimate
from sightline.metrics.predictions import Predictions
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.case import Case, Cohort
from sightline.structures.regions import Box, Mask
from sightline.structures.resampling import upsample_map
from sightline.structures.tag import Tag
from sightline.training.engine import Engine
from sightline.training.run import open_run
from sightline.training.train import train

QUIET = Engine(device="cpu", quiet=True)


@pytest.fixture(scope="module")
def run(tiny_cohort, tmp_path_factory):
    return train(tiny_recipe(steps=3), tiny_cohort, tmp_path_factory.mktemp("runs") / "run ü", CATALOGUE, QUIET)


@pytest.fixture
def counted(monkeypatch):
    """How often the network was really asked."""
    calls = []

    def counting(*args, **kwargs):
        calls.append(1)
        return predict(*args, **kwargs)

    monkeypatch.setattr(module, "predict", counting)
    return calls


def ask(run, cohort, out, name="test"):
    return evaluate(run, cohort, name, out=out, engine=QUIET)


def same(a, b):
    return (
        a.predictions.case_ids == b.predictions.case_ids
        and np.array_equal(a.predictions.probabilities, b.predictions.probabilities)
        and np.array_equal(a.maps.maps, b.maps.maps)
        and np.array_equal(a.maps.attention, b.maps.attention)
        and a.map_scores == b.map_scores
    )


def test_what_was_saved_is_what_was_measured(run, tiny_cohort, tmp_path, counted):
    test = tiny_cohort.split("test")
    made, kept = ask(run, test, tmp_path), ask(run, test, tmp_path)
    assert len(counted) == 1 and same(made, kept)
    assert compute_report(made, replicates=50) == compute_report(kept, replicates=50)
    assert Predictions.read(tmp_path / "test.csv").labels.tolist() == made.predictions.labels.tolist()


def test_the_probabilities_are_the_networks(run, tiny_cohort, tmp_path):
    import torch

    test = tiny_cohort.split("test")
    made = ask(run, test, tmp_path)
    for row in (0, 5):
        pixels, _ = show_network_view(test[row], run.recipe.view)
        with torch.no_grad():
            evidence = run.network()(torch.from_numpy(pixels)[None, None])
        assert np.allclose(
            evidence.logits.double().softmax(1)[0].numpy(), made.predictions.probabilities[row], atol=1e-5
        )
        assert np.allclose(evidence.maps[0].numpy(), made.maps.maps[row], atol=1e-4)
    # each cell's share of the logit: the shares sum to the logit (Liao 2022, equation 5)
    logits = made.maps.attention.astype(float).sum(axis=(2, 3))
    assert np.allclose(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), made.predictions.probabilities, atol=1e-5)


def test_another_cohort_or_another_run_is_measured_anew(run, tiny_cohort, tmp_path, counted):
    test = tiny_cohort.split("test")
    ask(run, test, tmp_path)
    relabelled = replace(test, cases=(replace(test[0], regions=()), *test.cases[1:]))
    ask(run, relabelled, tmp_path)
    assert len(counted) == 2
    fewer = ask(run, test.where(lambda c: c.case_id != test[0].case_id), tmp_path)
    assert len(counted) == 3 and len(fewer.predictions.case_ids) == len(test) - 1
    other = train(tiny_recipe(steps=2, seed=9), tiny_cohort, tmp_path / "other", CATALOGUE, QUIET)
    ask(other, test, tmp_path)
    assert len(counted) == 4


def test_what_is_replaced_is_told(run, tiny_cohort, tmp_path):
    """Another cohort of the same name, such as a new split of it, replaced an evaluation without a word."""
    test = tiny_cohort.split("test")
    assert describe_replaced(tmp_path, "test", test) == ""
    ask(run, test, tmp_path)
    assert describe_replaced(tmp_path, "test", test) == ""
    fewer = test.where(lambda case: case.case_id != test[0].case_id)
    assert test.fingerprint() in describe_replaced(tmp_path, "test", fewer)


def test_pixels_that_changed_in_a_file_of_the_same_size_are_looked_at_again(run, tiny_cohort, tmp_path, counted):
    """A fingerprint knows sizes: the answers to the former pictures were given again."""
    cases = []
    for case in tiny_cohort.split("test"):
        picture = tmp_path / f"{len(cases)}.tif"
        Image.open(case.image).save(picture)
        cases.append(replace(case, image=picture))
    test = replace(tiny_cohort, cases=tuple(cases))
    first, size = ask(run, test, tmp_path / "out"), cases[0].image.stat().st_size
    ImageOps.invert(Image.open(cases[0].image)).save(cases[0].image)
    assert cases[0].image.stat().st_size == size
    second = ask(run, test, tmp_path / "out")
    assert len(counted) == 2 and not np.array_equal(first.maps.maps[0], second.maps.maps[0])


@pytest.mark.parametrize("name", ["test.json", "test.csv", "test_maps.npz", "test_map_scores.csv"])
@pytest.mark.parametrize("harm", ["remove", "truncate", "overwrite"])
def test_a_missing_or_damaged_file_is_made_anew(run, tiny_cohort, tmp_path, name, harm):
    test = tiny_cohort.split("test")
    made = ask(run, test, tmp_path)
    path = tmp_path / name
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if harm == "truncate" else b"[1]\n")
    assert same(made, ask(run, test, tmp_path))
    json.loads((tmp_path / "test.json").read_text())


def test_other_boxes_and_other_folders_do_not_ask_the_network_again(run, tiny_cohort, tmp_path, counted):
    own = run.folder / "predictions"
    said = ask(run, tiny_cohort.split("test"), None)
    other = replace(run, boxes=replace(run.boxes, low=10.0, high=20.0))
    again = ask(other, tiny_cohort.split("test"), None)
    assert len(counted) == 1 and same(again, said) and again.box_scores != said.box_scores
    assert "low=10.0" in json.loads((own / "test.json").read_text())["boxes"]
    elsewhere = ask(other, tiny_cohort.split("test"), tmp_path)
    fresh = evaluate(other, tiny_cohort.split("test"), "fresh", out=tmp_path / "fresh", engine=QUIET)
    assert len(counted) == 2 and elsewhere.box_scores == fresh.box_scores == again.box_scores
    assert (tmp_path / "test.json").is_file() and same(ask(other, tiny_cohort.split("test"), tmp_path), fresh)
    for path in own.iterdir():
        path.unlink()


def test_other_classes_are_refused(run, tiny_cohort, tmp_path):
    renamed = replace(
        tiny_cohort,
        classes=("normal", "fracture"),
        cases=tuple(replace(c, label=c.label.replace("no fracture", "normal")) for c in tiny_cohort),
    )
    with pytest.raises(CohortError, match=r"normal.*was trained on") as caught:
        ask(run, renamed, tmp_path)
    assert caught.value.remedy and not list(tmp_path.iterdir())
    with pytest.raises(CohortError, match="classes"):
        ask(run, replace(tiny_cohort, classes=tiny_cohort.classes[::-1]), tmp_path)


def test_an_empty_split_and_an_unfinished_run_are_refused(run, tiny_cohort, tmp_path):
    with pytest.raises(CohortError, match="no case"):
        ask(run, tiny_cohort.where(lambda c: False), tmp_path)
    with pytest.raises(RunError, match="not finished"):
        ask(replace(run, done=False), tiny_cohort, tmp_path)


def test_pictures_without_stated_shape_are_scored_alike(run, tiny_cohort, tmp_path):
    test = tiny_cohort.split("test")
    bare = replace(test, cases=tuple(replace(c, shape=None, spacing_mm=None) for c in test))
    assert ask(run, test, tmp_path / "a").map_scores == ask(run, bare, tmp_path / "b").map_scores


def test_map_scores_against_a_slow_restatement(run, tiny_cohort, tmp_path):
    """Energy of a finding: the share of the map inside the box, cell by cell of the input grid."""
    test = tiny_cohort.split("test")
    made = ask(run, test, tmp_path)
    scores = {row.case_id: row for row in made.scores_for("finding").rows}
    assert set(scores) == {c.case_id for c in test if c.label == "fracture"}
    for index, case in enumerate(test):
        if case.label != "fracture":
            continue
        cells = np.exp(made.maps.maps[index, 1].astype(float))
        grown = upsample_map(cells / cells.sum(), (48, 48))  # equation 4: the spatial softmax
        box = next(r for r in case.regions if r.tag.role == "finding")
        inside = total = 0.0
        scale, pad = 48 / 48, (48 - 40) // 2  # pictures of 40 x 48 padded to 48
        for r in range(48):
            for c in range(48):
                row, column = (r + 0.5) * scale - pad, (c + 0.5) * scale
                if not 0 <= row < 40:
                    continue
                value = max(float(grown[r, c]), 0.0)
                total += value
                if box.start[0] < row < box.stop[0] and box.start[1] < column < box.stop[1]:
                    inside += value
        assert scores[case.case_id].map_class == "fracture"
        assert scores[case.case_id].score.energy == pytest.approx(inside / total, abs=1e-5)


def test_focus_regions_are_scored_in_their_richest_style_on_the_own_class(run, tiny_cohort, tmp_path):
    made = ask(run, tiny_cohort.split("test"), tmp_path)
    focus = made.scores_for("focus").rows
    assert {row.style for row in focus} == {"mask"} and len(focus) == 12
    assert all(row.map_class == row.label for row in focus)


def test_all_cases_at_once(run, tiny_cohort, tmp_path):
    made = ask(run, tiny_cohort, tmp_path, "all")
    assert made.predictions.case_ids == tuple(c.case_id for c in tiny_cohort)
    names = [e.name for e in compute_report(made, replicates=50)]
    assert len(names) == len(set(names)) and any("study" in n for n in names) and any("finding" in n for n in names)


def test_the_report_is_written_and_read_back(run, tiny_cohort, tmp_path):
    estimates = compute_report(ask(run, tiny_cohort.split("test"), tmp_path), replicates=50)
    write_report_of(estimates, tmp_path, "title")
    read = [Estimate.from_dict(fields) for fields in json.loads((tmp_path / "metrics.json").read_text())]
    assert read == estimates
    text = (tmp_path / "metrics.md").read_text()
    assert text.startswith("# title") and all(e.name in text for e in estimates)


def test_a_test_set_of_one_class_says_what_is_undefined(run, tiny_cohort, tmp_path):
    estimates = compute_report(ask(run, tiny_cohort.where(lambda c: c.label == "fracture"), tmp_path), replicates=50)
    undefined = [e for e in estimates if e.value is None]
    assert undefined and all(e.why for e in undefined)


def test_a_network_that_says_the_same_of_all_is_measured_all_the_same(run, tiny_cohort, tmp_path):
    """An AUC of a half and a calibration error are what such a training deserves, not silence."""
    made = ask(run, tiny_cohort.split("test"), tmp_path)
    alike = replace(made.predictions, probabilities=np.full_like(made.predictions.probabilities, 0.5))
    of = {e.name: e for e in compute_report(replace(made, predictions=alike), replicates=50)}
    assert of["AUC, image-wise"].value == 0.5 and of["Brier score, image-wise"].value == 0.25
    assert not any("AUC" in e.name for e in compute_report(made, replicates=50, classifies=False))


def test_panels_are_pictures_of_the_telling_cases(run, tiny_cohort, tmp_path):
    test = tiny_cohort.split("test")
    made = ask(run, test, tmp_path)
    written = write_panels(made, test, run.recipe.view, tmp_path / "panels", most=3)
    sheets = {f"{name}_{by}.png" for name in ("best", "worst") for by in ("boxes", "maps")}
    assert len(written) == 3 + 4 and sheets < {path.name for path in written}
    for path in written:
        with Image.open(path) as picture:
            assert picture.format == "PNG" and min(np.asarray(picture.convert("L")).shape) > 100
            assert np.asarray(picture.convert("L")).std() > 5
    assert write_panels(made, test, run.recipe.view, tmp_path / "none", most=0) == []
    nothing = replace(made, maps=None, map_scores=None, box_scores=None)
    assert write_panels(nothing, test, run.recipe.view, tmp_path / "none") == []
    chosen = select_telling_cases(made, 100)
    assert sorted(chosen) == list(range(len(test)))
    order = rank_by_pointing(made, [c.case_id for c in test])
    assert sorted(order) == [i for i, c in enumerate(test) if c.label == "fracture"]


def test_many_classes_keep_the_predicted_and_the_true_map(tmp_path):
    rng = np.random.default_rng(0)
    names = tuple(f"class {i:02d}" for i in range(10))
    cases = []
    for i in range(20):
        path = tmp_path / f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (32, 32)).astype(np.uint8)).save(path)
        box = Box((4.0, 4.0), (20.0, 20.0), Tag("focus"))
        cases.append(Case(f"{i}", f"{i}", f"{i}", path, names[i % 10], (box,), "train" if i < 10 else "test"))
    cohort = Cohort("ten", names, tuple(cases))
    run = train(tiny_recipe(steps=2, batch_size=5), cohort, tmp_path / "run", CATALOGUE, QUIET)
    test = cohort.split("test")
    made = ask(run, test, tmp_path / "out")
    assert made.maps.maps.shape[:2] == (10, 2)
    predicted = made.predictions.probabilities.argmax(axis=1)
    assert np.array_equal(made.maps.classes, np.stack([predicted, made.predictions.labels], axis=1))
    assert all(made.maps.of_class(i, int(made.predictions.labels[i])) is not None for i in range(10))
    other = next(k for k in range(10) if k not in made.maps.classes[0])
    assert made.maps.of_class(0, other) is None
    assert len(made.scores_for("focus").rows) == 10
    assert len(write_panels(made, test, run.recipe.view, tmp_path / "panels", most=2)) == 2


def test_a_strangers_maps_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "evil.npz", case_ids=np.array([{"a": 1}], dtype=object))
    with pytest.raises(RunError, match="damaged"):
        Maps.read(tmp_path / "evil.npz")


@pytest.mark.parametrize("name", ["weights.safetensors", "recipe.json", "cohort.json"])
def test_a_run_with_a_missing_file_is_one_clear_error(run, tiny_cohort, tmp_path, name):
    import shutil

    shutil.copytree(run.folder, tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    with pytest.raises(SightlineError) as caught:
        ask(open_run(tmp_path / "run", CATALOGUE), tiny_cohort.split("test"), tmp_path / "out")
    assert caught.value.remedy and "run" in caught.value.message


def test_masks_of_another_size_than_the_picture_are_refused_before_the_network_is_asked(
    run, tiny_cohort, tmp_path, counted
):
    """They were drawn in the upper left of the picture, and maps were scored there."""
    case = tiny_cohort.split("test")[0]
    half = np.ones((case.shape[0] // 2, case.shape[1] // 2), dtype=bool)
    Image.fromarray(half).save(tmp_path / "half.png")
    for source in (half, tmp_path / "half.png"):
        cohort = replace(tiny_cohort, cases=(replace(case, regions=(Mask(source, Tag("finding", case.label)),)),))
        with pytest.raises(CohortError, match="of another size than the picture") as refused:
            ask(run, cohort, tmp_path)
        assert f"{half.shape[0]} x {half.shape[1]} on {case.case_id!r} of {case.shape[0]} x" in refused.value.message
    assert not counted
