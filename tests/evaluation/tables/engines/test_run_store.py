"""Runs in an object store: fetched whole, never half; a training goes on elsewhere; what goes wrong is one line."""

import hashlib
import io
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import torch
from support.cohorts import make_cohort, tiny_recipe
from support.killed_training import launch_training
from support.nodes import wait_for

from sightline.data.datasets.folder.reader import read_cohort
from sightline.errors import FolderHeld, RunError
from sightline.evaluation.tables.engines.local import LocalEngine
from sightline.evaluation.tables.engines.run_store import RunStore, move_cohort
from sightline.evaluation.tables.run_table import run_table
from sightline.evaluation.tables.table import Row, Table
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.regions import Mask
from sightline.training import train as loop
from sightline.training.engine import Engine
from sightline.training.optimization import AdamW
from sightline.training.run import hold_run

QUIET = Engine(device="cpu", quiet=True)


@pytest.fixture
def store():
    kept = RunStore("memory://sightline-test")
    yield kept
    fsspec.filesystem("memory").rm("/sightline-test", recursive=True)


def names(store):
    return sorted(Path(p).name for p in fsspec.filesystem("memory").find("/sightline-test"))


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def make_table(cohort, out, store):
    base = tiny_recipe()
    table = Table("tiny", "tiny", (Row("unguided", replace(base, weight=0.0)), Row("guided", base, "unguided")))
    engine = LocalEngine(store=store)
    return run_table(table, cohort, out, CATALOGUE, seeds=(0,), engine=QUIET, runs_on=engine)


def test_another_machine_finds_the_finished_runs(tiny_cohort, tmp_path, store, monkeypatch):
    made = make_table(tiny_cohort, tmp_path / "here", store)
    kept = names(store)
    assert [n.partition("-")[0] for n in kept] == ["done", "done"]

    def refuse(*args, **kwargs):
        raise AssertionError("nothing is trained that is kept")

    monkeypatch.setattr(loop, "run_training_step", refuse)
    again = make_table(tiny_cohort, tmp_path / "there", store)
    one, other = contents(tmp_path / "here"), contents(tmp_path / "there")
    assert one == other and any(name.endswith("weights.safetensors") for name in one)
    for row, twin in zip(made.rows, again.rows, strict=True):
        assert [e.predictions.probabilities.tolist() for e in row.evaluations["test"]] == [
            e.predictions.probabilities.tolist() for e in twin.evaluations["test"]
        ]
    # what is the same is not sent again; a folder that is there is not written over
    assert names(store) == kept
    run = next((tmp_path / "there" / "runs").iterdir())
    (run / "note.txt").write_text("mine")
    assert not store.fetch_run(run) and (run / "note.txt").exists()
    # what came to a run is sent in place of what was kept
    store.send_run(run)
    assert len(names(store)) == 2 and names(store) != kept


def test_a_killed_training_goes_on_elsewhere_to_the_same_bits(tmp_path, store):
    cohort = make_cohort(tmp_path / "cohort")
    torch.set_num_threads(1)
    whole, killed = tmp_path / "whole", tmp_path / "killed" / "0123456789ab"
    process = launch_training(cohort.root, killed, 0.05)
    wait_for((killed / "state" / "state.safetensors").is_file)
    # its states are sent while it trains; here by hand, from another process than the one that dies
    sender = RunStore(store.url, send_every_s=0.0)
    sender._send(f"runs/{killed.name}", "state", killed, [p for p in contents(killed) if "LOCK" not in p])
    process.kill()
    process.join()
    assert not (killed / "DONE").exists()
    elsewhere = tmp_path / "elsewhere" / killed.name
    recipe = tiny_recipe(epochs=4, optimiser=AdamW(), ema_decay=0.9, select="loss", train_on=("train",))
    engine = Engine(device="cpu", quiet=True, state_every_s=0.0)
    with store.keep_run(elsewhere):
        assert (elsewhere / "state" / "state.safetensors").is_file()
        loop.train(recipe, read_cohort(cohort.root), elsewhere, CATALOGUE, engine)
    loop.train(recipe, read_cohort(cohort.root), whole, CATALOGUE, engine)
    assert (elsewhere / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    assert len(list((elsewhere / "events").iterdir())) == 2
    assert [n.partition("-")[0] for n in names(store)] == ["done"]
    shutil.rmtree(elsewhere)
    assert store.fetch_run(elsewhere) and (elsewhere / "DONE").is_file()


def test_states_are_sent_while_a_training_runs(tmp_path, store):
    folder = tmp_path / "0123456789ab"
    state = folder / "state" / "state.safetensors"
    state.parent.mkdir(parents=True)
    eager = RunStore(store.url, send_every_s=0.01)
    with eager.keep_run(folder):
        state.write_bytes(b"one")
        wait_for(lambda: len(names(store)) == 1)
        first = names(store)
        state.write_bytes(b"two")
        wait_for(lambda: names(store) and names(store) != first)
    assert [n.partition("-")[0] for n in names(store)] == ["state"]
    # no DONE: it is a state that another machine gets
    shutil.rmtree(folder)
    assert store.fetch_run(folder) and state.read_bytes() == b"two"


@pytest.mark.parametrize("keep", [0, 1, 600, -1])
def test_an_object_cut_on_its_way_is_none(tmp_path, store, keep):
    folder = tmp_path / "0123456789ab"
    for text in ("older", "newer"):
        folder.mkdir(exist_ok=True)
        (folder / "DONE").write_text(text)
        files = fsspec.filesystem("memory")
        before = {p: files.cat(p) for p in files.find("/sightline-test")}
        store.send_run(folder)
        for path, content in before.items():
            files.pipe_file(path, content)
    newest = sorted(files.find("/sightline-test"))[-1]
    files.pipe_file(newest, files.cat(newest)[:keep])
    shutil.rmtree(folder)
    assert store.fetch_run(folder) and (folder / "DONE").read_text() == "older"
    for path in files.find("/sightline-test"):
        files.pipe_file(path, b"x")
    shutil.rmtree(folder)
    assert not store.fetch_run(folder) and not folder.exists()


def test_a_cohort_is_sent_once_and_reads_the_same_elsewhere(tmp_path, store):
    cohort = make_cohort(tmp_path / "cohort")
    name = store.send_cohort(cohort.root)
    kept = names(store)
    assert store.send_cohort(cohort.root) == name and names(store) == kept
    store.fetch_cohort(name, tmp_path / "node" / name)
    store.fetch_cohort(name, tmp_path / "node" / name)
    moved = move_cohort(cohort.split("train"), tmp_path / "node" / name)
    shutil.rmtree(cohort.root)
    assert moved.fingerprint() == read_cohort(tmp_path / "node" / name).split("train").fingerprint()
    for case in moved:
        assert case.image.is_file() and case.image.is_relative_to(tmp_path / "node")
        assert all(region.source.is_file() for region in case.regions if isinstance(region, Mask))
    assert any(isinstance(region, Mask) for case in moved for region in case.regions)
    with pytest.raises(RunError, match="does not hold the cohort 0000"):
        store.fetch_cohort("0000", tmp_path / "node" / "other")


def test_what_was_cut_while_it_was_sent_is_sent_again(tmp_path, store):
    root, run = tmp_path / "cohort", tmp_path / "0123456789ab"
    for folder, name in ((root, "Röntgen " + "lang " * 30 + ".png"), (run, "DONE")):
        folder.mkdir()
        (folder / name).write_bytes(bytes(range(256)) * 9)
    kept = store.send_cohort(root)
    store.send_run(run)
    files = fsspec.filesystem("memory")
    for path in files.find("/sightline-test"):
        files.pipe_file(path, files.cat(path)[:700])
    assert store.send_cohort(root) == kept
    store.send_run(run)
    assert len(names(store)) == 2
    store.fetch_cohort(kept, tmp_path / "node")
    assert contents(tmp_path / "node") == contents(root)
    before = contents(run)
    shutil.rmtree(run)
    assert store.fetch_run(run) and contents(run) == before


def test_a_run_that_was_begun_here_and_finished_elsewhere_is_taken(tmp_path, store):
    here, there = (tmp_path / place / "0123456789ab" for place in ("here", "there"))
    for folder in (here, there):
        (folder / "state").mkdir(parents=True)
        (folder / "cohort.json").write_text("{}")
        (folder / "state" / "state.safetensors").write_text(folder.parent.name)
    store._send(f"runs/{there.name}", "state", there, list(contents(there)))
    assert not store.fetch_run(here) and (here / "state" / "state.safetensors").read_text() == "here"
    (there / "DONE").write_text("x")
    store.send_run(there)
    with hold_run(here), pytest.raises(FolderHeld):
        store.fetch_run(here)
    assert store.fetch_run(here) and contents(here) == contents(there)
    assert not store.fetch_run(here)


def test_a_state_sent_later_is_the_newest_also_by_a_clock_that_is_slow(tmp_path, store, monkeypatch):
    folder = tmp_path / "0123456789ab"
    folder.mkdir()
    for clock in (2000, 1000):
        monkeypatch.setattr("time.time_ns", lambda clock=clock: clock)
        (folder / "cohort.json").write_text(f"{clock}")
        store._send(f"runs/{folder.name}", "state", folder, ["cohort.json"])
    shutil.rmtree(folder)
    assert store.fetch_run(folder) and (folder / "cohort.json").read_text() == "1000"


def test_pictures_in_a_folder_that_is_linked_to_are_sent(tmp_path, store):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(b"picture")
    root = tmp_path / "cohort"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "elsewhere")
    (root / "images" / "back").symlink_to(root)
    store.fetch_cohort(store.send_cohort(root), tmp_path / "node")
    assert contents(tmp_path / "node") == {"images/a.png": b"picture"}


def test_a_store_that_cannot_be_written_is_refused_before_anything_is_trained(tiny_cohort, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError("403 Forbidden")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "pipe_file", refuse)
    with pytest.raises(RunError, match=r"cannot be written \(PermissionError: 403 Forbidden"):
        make_table(tiny_cohort, tmp_path / "table", RunStore("memory://x"))
    assert not (tmp_path / "table").exists()


def test_archives_that_lead_out_of_their_folder_are_refused(tmp_path, store):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../outside"), io.BytesIO())
    content = packed.getvalue()
    name = f"done-{1:020d}-{hashlib.sha256(content).hexdigest()}.tar"
    fsspec.filesystem("memory").pipe_file(f"/sightline-test/runs/0123456789ab/{name}", content)
    with pytest.raises(RunError, match="outside"):
        store.fetch_run(tmp_path / "a" / "b" / "0123456789ab")
    assert not (tmp_path / "outside").exists() and not (tmp_path / "a" / "b" / "0123456789ab").exists()


def test_places_that_cannot_be_used_are_one_line(tiny_cohort, tmp_path, monkeypatch):
    with pytest.raises(RunError, match="no place that fsspec knows"):
        make_table(tiny_cohort, tmp_path / "table", RunStore("nowhere://x"))
    assert not (tmp_path / "table").exists()
    with pytest.raises(RunError, match=r"nowhere://x is no place that fsspec knows.*s3://bucket"):
        RunStore("nowhere://x").fetch_run(tmp_path / "r")
    with pytest.raises(RunError, match=r"Install the package that fsspec names"):
        RunStore("adl://x/y").fetch_run(tmp_path / "r")
    with pytest.raises(RunError, match="every run folder would record") as refused:
        RunStore("sftp://me:s3cret@host/folder")
    assert "s3cret" not in str(refused.value)
    with pytest.raises(RunError, match=r"'s3://\[x/y' is no URL"):
        RunStore("s3://[x/y")
    with pytest.raises(RunError, match=r"'bucket/folder' is no URL.*file:///shared"):
        RunStore("bucket/folder")
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "DONE").write_text("x")
    with pytest.raises(RunError, match=r"cannot be (read|written) \(\w+Error: .*Check address"):
        RunStore(f"file://{blocked}/x").send_run(tmp_path / "r")

    def fail(*args, **kwargs):
        raise RuntimeError("403 Forbidden\nrequest 17")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "ls", fail)
    with pytest.raises(RunError, match=r"cannot be read \(RuntimeError: 403 Forbidden request 17\)"):
        RunStore("memory://x").fetch_run(tmp_path / "q")
