"""The demo: rows that differ in what is asked, and a log that never falls silent."""

import time
from dataclasses import replace

import pytest

from sightline.papers import demo


def test_rows_differ_in_guidance_and_pooling_alone():
    unguided, guided = (row.recipe for row in demo.build_table().rows)
    same = replace(
        guided, title=unguided.title, guidance=unguided.guidance, weight=unguided.weight, regions=unguided.regions,
        model=replace(guided.model, pool=unguided.model.pool),
    )  # fmt: skip
    assert same == unguided and guided.weight > 0 and guided.guidance is not None
    # the small recipes keep their own size and network
    assert demo.build_guided_recipe().view.size == 192 and guided.view.size == demo.SEEN_PX


def test_a_line_stands_in_the_log_though_nothing_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "LINE_EVERY_S", 0.05)
    with demo.Log(tmp_path / "out" / "demo.log", lambda: "still at it") as log:
        log.say("begun")
        end = time.monotonic() + 20
        while (tmp_path / "out" / "demo.log").read_text().count("still at it") < 3 and time.monotonic() < end:
            time.sleep(0.01)
    written = (tmp_path / "out" / "demo.log").read_text()
    assert written == capsys.readouterr().err
    assert written.startswith("[   0 s] begun\n") and written.count("still at it") >= 3
    # a second demo in the folder writes on, and what stopped it is said
    with pytest.raises(ValueError), demo.Log(tmp_path / "out" / "demo.log", str, quiet=True):
        raise ValueError("no more disk")
    again = (tmp_path / "out" / "demo.log").read_text()
    assert again.startswith(written) and again.endswith("stopped: ValueError no more disk\n")
    assert capsys.readouterr().err == ""


def test_how_far_the_trainings_are_is_read_from_disk(tmp_path):
    assert demo.count_trainings(tmp_path / "runs", 6) == ": 0 of 6 done"
    for name in ("a", "b", "c"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / "a" / "DONE").touch()
    (tmp_path / "runs" / "b" / "history.csv").write_text("epoch\n0\n1\n")
    assert demo.count_trainings(tmp_path / "runs", 6) == (
        f": 1 of 6 done, under way: 2 of {demo.EPOCHS} epochs, 0 of {demo.EPOCHS} epochs"
    )
