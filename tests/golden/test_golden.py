"""What every command writes on tiny data is, byte for byte, what tests/golden/digests.json says."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RECORDER = HERE / "record.py"
OTHER_MACHINE = 3


@pytest.fixture(scope="module")
def recorder():
    spec = importlib.util.spec_from_file_location("golden_record", RECORDER)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.slow
def test_outputs_are_those_recorded():
    """About four minutes. A change that is meant: `python tests/golden/record.py --record`, and say why in the note."""
    ended = subprocess.run([sys.executable, RECORDER, "--check"], capture_output=True, text=True, check=False)
    if ended.returncode == OTHER_MACHINE:
        pytest.skip(ended.stdout.strip())
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]


def test_differences_are_named(recorder):
    old = {"a": {"x": "1", "y": "2"}, "gone": {}}
    new = {"a": {"x": "1", "y": "3", "z": "4"}, "more": {}}
    assert recorder.differences(old, new) == [
        "a: changed y", "a: new z", "more: a new step", "gone: no such step any more",
    ]  # fmt: skip
    assert recorder.differences(new, {**new, "a": {"x": "1", "y": "3"}}) == ["a: missing z"]
    assert recorder.differences(old, old) == []


def test_only_what_is_named_is_left_out(recorder, tmp_path):
    """Time, machine and host make no difference; a number, a name and a line of the same files do."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return recorder.digest(path, f"runs/{name}")

    assert write("a/history.csv", "loss,seconds\n1,2\n") == write("b/history.csv", "loss,seconds\n1,3\n")
    assert write("a/history.csv", "loss,seconds\n1,2\n") != write("b/history.csv", "loss,seconds\n2,2\n")
    assert write("a/units.json", '{"date": "2026-01-01"}') == write("b/units.json", '{"date": "2026-01-02"}')
    assert write("a/units.json", '{"units": 1}') != write("b/units.json", '{"units": 2}')
    card = "# a\n\n## Made with\n\n- sightline 0.1.0, {}\n- run identity {}\n"
    assert write("a/model_card.md", card.format("EPYC", 2)) == write("b/model_card.md", card.format("Xeon", 2))
    assert write("a/model_card.md", card.format("EPYC", 2)) != write("b/model_card.md", card.format("EPYC", 3))
    (tmp_path / "a" / "DONE").write_text("now")
    (tmp_path / "a" / "events").mkdir()
    (tmp_path / "a" / "events" / "out.1").write_text("x")
    found = recorder.digest_folder(tmp_path / "a", tmp_path)
    assert sorted(found) == ["history.csv", "model_card.md", "units.json"]


def test_what_is_recorded_ended_well(recorder):
    """Every step stands in the digests, none of them failed, and none that writes wrote nothing."""
    steps = json.loads((HERE / "digests.json").read_text(encoding="utf-8"))["steps"]
    assert list(steps) == [step.name for step in recorder.STEPS if not step.words[0].startswith("!")]
    assert {name: files["(exit code)"] for name, files in steps.items() if files["(exit code)"] != "0"} == {}
    assert [step.name for step in recorder.STEPS if step.writes and len(steps[step.name]) < 3] == []
