"""Inputs that once went wrong are refused in words or read rightly; so are the first spoilt inputs of every kind."""

import pytest

from fuzz import corpus
from fuzz.kinds import KINDS, make_input
from fuzz.mutations import spoil_bytes
from fuzz.worker import Watch, try_input, write_input

TORCH = ("recipe.json", "run folder")


def outcome_of(kind, files, tmp_path, watch=None):
    for name in ("input", "out"):
        (tmp_path / name).mkdir(parents=True)
    write_input(files, tmp_path / "input")
    return try_input(kind, tmp_path / "input", tmp_path / "out", watch)


def test_past_failures(tmp_path):
    for number, (kind, what, files) in enumerate(corpus.past_failures()):
        outcome, why = outcome_of(kind, files, tmp_path / str(number))
        assert outcome in ("read", "refused"), f"{kind}: {what}: {outcome}: {why}"


def test_past_failures_of_recipes_and_runs(tmp_path):
    for number, (kind, what, files) in enumerate(corpus.recipe_failures()):
        outcome, why = outcome_of(kind, files, tmp_path / str(number))
        assert outcome == "refused", f"{kind}: {what}: {outcome}: {why}"


def test_sound_inputs_are_read(tmp_path):
    for number, (kind, what, files) in enumerate(corpus.sound()):
        outcome, why = outcome_of(kind, files, tmp_path / str(number))
        assert outcome == "read", f"{kind}: {what}: {outcome}: {why}"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in TORCH])
def test_the_first_spoilt_inputs(kind, tmp_path):
    for number in range(8):
        files = make_input(kind, number, seed=1)
        assert files == make_input(kind, number, seed=1)  # the same for the same seed
        outcome, why = outcome_of(kind, files, tmp_path / str(number))
        assert outcome in ("read", "refused"), f"{kind} {number}: {outcome}: {why}"


def test_what_goes_wrong_is_seen(tmp_path, monkeypatch):
    def broken(source, out):
        (source.parents[1] / "outside.txt").write_text("x")

    (tmp_path / "a").mkdir()
    watch = Watch(tmp_path / "a")
    monkeypatch.setitem(KINDS, "PNG", KINDS["PNG"].__class__("png", 1, KINDS["PNG"].spoil, broken))
    assert outcome_of("PNG", {"a.png": b""}, tmp_path / "a" / "b", watch)[0] == "read"
    monkeypatch.setitem(
        KINDS, "PNG",
        KINDS["PNG"].__class__("png", 1, KINDS["PNG"].spoil, lambda s, o: (tmp_path / "outside.txt").write_text("x")),
    )  # fmt: skip
    assert outcome_of("PNG", {"a.png": b""}, tmp_path / "a" / "c", watch)[0] == "written outside"
    monkeypatch.setitem(KINDS, "PNG", KINDS["PNG"].__class__("png", 1, KINDS["PNG"].spoil, lambda s, o: {}["missing"]))
    assert outcome_of("PNG", {"a.png": b""}, tmp_path / "a" / "d", watch)[0] == "traceback"


def test_bytes_change_and_may_shrink_to_nothing():
    from random import Random

    random = Random(0)
    spoilt = [spoil_bytes(bytes(range(200)), random) for _ in range(300)]
    assert sum(data != bytes(range(200)) for data in spoilt) > 290 and spoil_bytes(b"", random) == b""
