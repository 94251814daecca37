"""A finished run tells when its files were changed, and a folder is trained into by one process at a time."""

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.cohorts import tiny_recipe

from sightline.errors import RecipeError, RunError
from sightline.models.backbones import Backbone
from sightline.papers.catalogue import CATALOGUE
from sightline.training.engine import Engine
from sightline.training.model_card import write_model_card
from sightline.training.recipe import format_recipe_json, name_weights_by_content, read_recipe
from sightline.training.run import (
    LOCK,
    SEAL,
    compute_run_identity,
    describe_environment,
    find_identity,
    hold_run,
    open_run,
    start_run,
)  # fmt: skip
from sightline.training.train import train

QUIET = Engine(device="cpu", quiet=True)


@pytest.fixture(scope="module")
def finished(tiny_cohort, tmp_path_factory):
    return train(tiny_recipe(steps=2), tiny_cohort, tmp_path_factory.mktemp("runs") / "run", CATALOGUE, QUIET)


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished.folder, tmp_path / "run")


def test_the_recorded_command_can_be_typed_again(monkeypatch):
    typed = ["table", "t", "--rows", "s-512 guided 0.1", "--cohort", "my cohort"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/sightline", *typed])
    assert shlex.split(describe_environment()["command"]) == ["sightline", *typed]


def flip_a_bit(folder):
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-100] ^= 1
    (folder / "weights.safetensors").write_bytes(data)


def exchange_weights(folder):
    tensors = load_file(folder / "weights.safetensors")
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, folder / "weights.safetensors")


def edit(name, old, new):
    def change(folder):
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (flip_a_bit, "weights.safetensors"),
        (exchange_weights, "weights.safetensors"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b""), "weights.safetensors"),
        (edit("recipe.json", '"size": ', '"size": 1'), "recipe.json"),
        (edit("cohort.json", '"no fracture"', '"fracture, none"'), "cohort.json"),
    ],
)
def test_a_changed_run_is_refused_by_name(folder, tiny_cohort, change, name):
    change(folder)
    with pytest.raises(RunError, match=f"{name} changed after the training") as refusal:
        open_run(folder, CATALOGUE)
    assert "DONE" in refusal.value.remedy


def test_a_whole_run_opens_and_one_without_a_seal_too_which_is_said_once(folder, capsys):
    assert open_run(folder, CATALOGUE).done
    (folder / SEAL).unlink()
    flip_a_bit(folder)
    assert capsys.readouterr().err == ""
    assert open_run(folder, CATALOGUE).done and open_run(folder, CATALOGUE).done
    assert capsys.readouterr().err.count("has no SHA256SUMS") == 1
    (folder / "DONE").unlink()
    assert not open_run(folder, CATALOGUE).done and capsys.readouterr().err == ""


def test_a_seal_that_names_nothing_is_damaged(folder):
    (folder / "SHA256SUMS").write_text("zz\n")
    with pytest.raises(RunError, match="SHA256SUMS names no file of the run"):
        open_run(folder, CATALOGUE)


@pytest.mark.parametrize("text", ["[]", "{}", '{"sightline": 1, "python": "", "processor": "", "packages": 3}'])
def test_a_card_of_a_run_whose_environment_was_edited(folder, text):
    run = open_run(folder, CATALOGUE)
    (folder / "environment.json").write_text(text)
    with pytest.raises(RunError, match=r"environment\.json is damaged"):
        write_model_card(run)


@pytest.mark.parametrize("splits", [(), ("train", "train"), ("train", "none")])
def test_splits_that_cannot_be_trained_on(splits):
    with pytest.raises(RecipeError, match="train_on is"):
        tiny_recipe(train_on=splits)


def test_a_recipe_that_says_a_word_twice(folder):
    (folder / "recipe.json").write_text((folder / "recipe.json").read_text().replace("{", '{"seed": 5, "seed": 6,', 1))
    with pytest.raises(RecipeError, match="'seed' stands twice"):
        read_recipe(folder / "recipe.json", CATALOGUE)


def test_a_seal_that_is_no_text(folder):
    (folder / SEAL).write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="cannot be compared"):
        open_run(folder, CATALOGUE)


def test_lost_weights_are_trained_again_to_the_same_bits(finished, folder, tiny_cohort):
    before = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").unlink()
    assert not open_run(folder, CATALOGUE).done
    assert train(tiny_recipe(steps=2), tiny_cohort, folder, CATALOGUE, QUIET).done
    assert (folder / "weights.safetensors").read_bytes() == before


def test_a_run_is_not_reused_once_its_pictures_changed(folder, tiny_cohort, tmp_path):
    def turn(case):
        path = tmp_path / case.image.name
        path.write_bytes(case.image.read_bytes()[::-1])
        return replace(case, image=path)

    first = next(case for case in tiny_cohort if case.split == "train")
    changed = replace(tiny_cohort, cases=tuple(turn(case) if case is first else case for case in tiny_cohort))
    assert changed.fingerprint() == tiny_cohort.fingerprint()
    for _ in ("finished", "interrupted"):
        with pytest.raises(RunError, match=f"1 picture .* e.g. {first.case_id}") as refused:
            train(tiny_recipe(steps=2), changed, folder, CATALOGUE, QUIET)
        assert "delete" in refused.value.remedy
        (folder / "DONE").unlink(missing_ok=True)
    # what is tested on is evaluation's to notice
    tested = tuple(turn(case) if case.split == "test" else case for case in tiny_cohort)
    assert train(tiny_recipe(steps=2), replace(tiny_cohort, cases=tested), folder, CATALOGUE, QUIET).done


def test_a_folder_that_holds_a_cohort_is_no_run(tiny_cohort):
    with pytest.raises(RunError, match="holds no run"):
        train(tiny_recipe(steps=2), tiny_cohort, tiny_cohort.root, CATALOGUE, QUIET)


HOLD = """
import sys, time
from pathlib import Path
from sightline.io.files import hold_folder
with hold_folder(Path(sys.argv[1]), "trained", sys.argv[2]):
    print("held", flush=True)
    time.sleep(100)
"""


def test_two_processes_do_not_train_into_one_folder(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), LOCK], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=rf"being trained by process {other.pid}"), hold_run(tmp_path):
            pass
    finally:
        other.kill()
        other.communicate()
    # a lock dies with its holder
    with hold_run(tmp_path):
        assert (tmp_path / LOCK).is_file()
    assert not (tmp_path / LOCK).exists()


def test_a_full_disk_is_one_line_and_leaves_the_weights_that_were_there(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    from sightline.training import run as runs

    path = tmp_path / "weights.safetensors"
    runs.save_weights({"a": torch.zeros(2)}, path)
    before = path.read_bytes()

    def full(tensors, file, metadata):
        file.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(runs, "save_file", full)
    with pytest.raises(RunError, match="No space left on device") as error:
        runs.save_weights({"a": torch.ones(2)}, path)
    assert "\n" not in str(error.value)
    assert "resumes" in error.value.remedy
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def beginning_with(file):
    recipe = tiny_recipe(steps=2)
    return replace(recipe, model=replace(recipe.model, backbone=Backbone("test_resnet", weights=str(file))))


def test_initial_weights_count_by_their_content(tiny_cohort, tmp_path):
    here, there = (tmp_path / place / "test_resnet.mine.safetensors" for place in ("here", "there"))
    for file in (here, there):
        file.parent.mkdir()
    save_file(Backbone("test_resnet").build().net.state_dict(), here)
    shutil.copy(here, there)
    a, b, folder = (compute_run_identity(beginning_with(x), tiny_cohort, CATALOGUE) for x in (here, there, here.parent))
    assert a == b == folder != compute_run_identity(beginning_with(here), tiny_cohort, CATALOGUE, as_typed=True)
    name = f"sha256:{sha256(here.read_bytes()).hexdigest()}/{here.name}"
    start_run(tmp_path / "run", beginning_with(here), tiny_cohort, CATALOGUE)
    written = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert written["model"]["backbone"]["weights"] == name and str(tmp_path) not in json.dumps(written)
    # on the machine that trained it the file is found again, on another one its name says what is wanted
    papers = tmp_path / "run" / "recipe.json"
    assert read_recipe(papers, CATALOGUE) == beginning_with(here)
    here.unlink()
    recipe = read_recipe(papers, CATALOGUE)
    assert recipe.model.backbone.weights == name and format_recipe_json(recipe, CATALOGUE) == papers.read_text()
    recipe.model.without_weights().build(2)
    with pytest.raises(RecipeError, match="No file on this machine") as refusal:
        recipe.model.build(2)
    assert "--weights FILE" in refusal.value.remedy
    # other bytes, another run
    shutil.copy(there, here)
    tensors = load_file(there)
    save_file({key: value + 1 for key, value in tensors.items()}, there)
    assert compute_run_identity(beginning_with(there), tiny_cohort, CATALOGUE) != a
    assert read_recipe(papers, CATALOGUE) == beginning_with(here)
    start_run(tmp_path / "run", beginning_with(here), tiny_cohort, CATALOGUE)
    with pytest.raises(RunError, match="another run"):
        start_run(tmp_path / "run", beginning_with(there), tiny_cohort, CATALOGUE)


def test_runs_named_by_a_path_stay_what_they_are(tiny_cohort, tmp_path):
    file = tmp_path / "test_resnet.mine.safetensors"
    file.write_bytes(b"weights")
    recipe = beginning_with(file)
    former = compute_run_identity(recipe, tiny_cohort, CATALOGUE, as_typed=True)
    assert (
        find_identity(tmp_path, recipe, tiny_cohort, CATALOGUE)
        == compute_run_identity(recipe, tiny_cohort, CATALOGUE)
        != former
    )
    start_run(tmp_path / former, recipe, tiny_cohort, CATALOGUE)
    facts = json.loads((tmp_path / former / "cohort.json").read_text())
    (tmp_path / former / "cohort.json").write_text(json.dumps({**facts, "run_identity": former}))
    (tmp_path / former / "recipe.json").write_text(format_recipe_json(recipe, CATALOGUE, as_typed=True))
    assert find_identity(tmp_path, recipe, tiny_cohort, CATALOGUE) == former
    start_run(tmp_path / former, recipe, tiny_cohort, CATALOGUE)
    assert open_run(tmp_path / former, CATALOGUE).recipe == recipe


def test_words_that_are_no_files_stay():
    for kind, word in (("backbone", "imagenet"), ("backbone", "/no/such.safetensors"), ("gg_cam", "learned")):
        plain = {"kind": kind, "name": "resnet18", "weights": word}
        assert name_weights_by_content([{"model": plain}]) == [{"model": plain}]
