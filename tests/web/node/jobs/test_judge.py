"""The judge of a served run: a small trained run on DX that look like its training, and on what does not."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from PIL import Image
from support.cohorts import tiny_recipe
from support.nodes import image

from sightline.errors import RunError
from sightline.inference.gate.features import fit_features
from sightline.inference.gate.fit import fit_gate
from sightline.inference.gate.gate_file import read_gate, write_gate
from sightline.inference.predict import TorchNetwork
from sightline.io.dicom_results.identity import is_own_result
from sightline.papers.catalogue import CATALOGUE
from sightline.training.engine import Engine
from sightline.training.train import train
from sightline.web.node.jobs import judge
from sightline.web.node.jobs.child import Request
from sightline.web.node.jobs.judge import judge_study

ASKED = {"modality": ("DX",), "body_part": ("WRIST",)}


@pytest.fixture(scope="module")
def run(tiny_cohort, tmp_path_factory):
    """A run with its gate."""
    engine = Engine(device="cpu", quiet=True)
    made = train(tiny_recipe(steps=2), tiny_cohort, tmp_path_factory.mktemp("runs") / "run", CATALOGUE, engine)
    write_gate(made.folder, fit_gate(made, tiny_cohort, ASKED, quiet=True))
    return made


def dx(case, number, **attributes):
    """A DX of the pixels of a case."""
    with Image.open(case.image) as opened:
        grey = np.asarray(opened.convert("L"))
    data = image(number, size=grey.shape, **attributes)
    data.PixelData = (grey.astype(np.uint16) * 16).tobytes()
    data.WindowCenter, data.WindowWidth = "2048", "4096"
    data.PixelSpacing = ["0.2", "0.2"]
    return data


def words_of(report):
    """All text of a report."""
    return "\n".join(str(one.value) for one in report.iterall() if one.keyword in ("TextValue", "CodeMeaning"))


def request(run, folder, datasets, **words):
    folder.mkdir(exist_ok=True)
    images = {}
    for number, one in enumerate(datasets):
        images[f"{number:064d}"] = folder / f"in{number}.dcm"
        one.save_as(images[f"{number:064d}"], enforce_file_format=True)
    out = folder / words.pop("name", "out")
    out.mkdir()
    plain = {
        "run": run.folder, "engine": "torch", "images": images, "left_out": (), "objects": ("findings", "picture"),
        "out": out, "received": 1.7e9, "codes": None, "predecessor": (),
    }  # fmt: skip
    return Request(**plain | words)


def test_a_study_gets_its_results_and_the_rest_is_named(run, tiny_cohort, tmp_path):
    cases = list(tiny_cohort.split("train"))
    good, dark = dx(cases[0], 1), image(2, size=(40, 48), value=0)
    left = ({"sha256": "f" * 64, "door": "header", "reason": "the body part is FOOT, not WRIST"},)
    answer = judge_study(request(run, tmp_path / "a", [good, dark], left_out=left))
    assert [kind for _, kind in answer.results] == ["findings", "picture"]
    assert [(one["sha256"], one["door"]) for one in answer.refused] == [(f"{1:064d}", "picture")]
    report = pydicom.dcmread(answer.results[0][0])
    assert (report.StudyInstanceUID, report.PatientID) == (good.StudyInstanceUID, good.PatientID)
    assert all(is_own_result(pydicom.dcmread(path)) for path, _ in answer.results)
    text = words_of(report)
    assert "the body part is FOOT" in text and "looks the same" in text
    reading = answer.readings[f"{0:064d}"]
    assert reading["p(fracture)"] + reading["p(no fracture)"] == pytest.approx(1.0)
    assert reading["device"] == "Maker Model" and reading["body part"] == "WRIST"
    assert "Planted" not in json.dumps(dict(answer.readings[f"{0:064d}"]))
    # judged again: the same bytes; after it, a report that names the one before
    again = judge_study(request(run, tmp_path / "a", [good, dark], left_out=left, name="again"))
    for (path, _), (other, _) in zip(answer.results, again.results, strict=True):
        assert path.read_bytes() == other.read_bytes()
    before = tuple(
        str(report[name].value) for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    )
    later = judge_study(
        request(
            run, tmp_path / "b", [good, dx(cases[1], 3, PresentationIntentType="FOR PROCESSING")], predecessor=(before,)
        )
    )
    assert "FOR PROCESSING: raw detector values" in words_of(pydicom.dcmread(later.results[0][0]))
    named = pydicom.dcmread(later.results[0][0]).PredecessorDocumentsSequence[0]
    assert before[1] in [one.value for one in named.iterall()]


def test_views_that_are_joined_get_one_answer(run, tiny_cohort, tmp_path, monkeypatch):
    judging = judge.open_judging(run.folder, None, "torch")
    joining = replace(judging, words=replace(judging.words, join_views="maximum"))
    images = [dx(case, n + 1, study="1.2.77") for n, case in enumerate(list(tiny_cohort.split("train"))[:3])]
    apart = judge_study(request(run, tmp_path / "a", images)).readings
    monkeypatch.setattr(judge, "open_judging", lambda *_: joining)
    answer = judge_study(request(run, tmp_path / "b", images))
    most = max(one["p(fracture)"] for one in apart.values())
    assert [one["p(fracture)"] for one in answer.readings.values()] == pytest.approx([most] * 3)
    report = pydicom.dcmread(answer.results[0][0])
    numbers = [float(one.value) for one in report.iterall() if one.keyword == "NumericValue"]
    assert sum(abs(number - 100 * most) < 1e-4 for number in numbers) == 3
    assert "joined from its views" in words_of(report)
    # nothing is left to be joined where every image is refused
    none = judge_study(request(run, tmp_path / "c", [image(1, size=(40, 48), value=255)]))
    assert none.results == () and none.refused[0]["door"] == "picture"


def test_a_study_that_is_refused_whole_gets_nothing(run, tmp_path):
    bright = image(1, size=(40, 48), value=255)
    answer = judge_study(request(run, tmp_path / "a", [bright]))
    assert answer.results == () and answer.refused[0]["door"] == "picture"


def test_the_gate_is_that_of_the_training(run, tiny_cohort, tmp_path):
    gate = read_gate(run.folder)
    assert gate.header.body_part == ("WRIST",) and set(gate.picture) >= {"mean", "contrast", "rows"}
    assert len(gate.reference["mean"]) == gate.about["pictures"] == len(tiny_cohort.split("train"))
    with pytest.raises(RunError, match="do not say their modality"):
        fit_gate(run, tiny_cohort, {}, quiet=True)
    with pytest.raises(RunError, match="not the cohort"):
        fit_gate(run, tiny_cohort.split("train"), ASKED, quiet=True)


def test_the_parent_never_imports_torch():
    """Pixels are decoded and judged in child processes; the node itself stays small."""
    code = "import sys, sightline.web.node.service, sightline.web.node.intake.dicomweb; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


def test_the_features_check_refuses_what_was_never_seen(run, tiny_cohort, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    rng = np.random.default_rng(0)
    width = TorchNetwork(run)(np.zeros((1, 1, 48, 48), np.float32)).features.shape[1]
    far = fit_features(rng.random((30, width)) + 1e3, rng.random((20, width)) + 1e3, rng.random(20))
    write_gate(folder, replace(read_gate(folder), features=far.to_plain()))
    asked = request(run, tmp_path / "a", [dx(next(iter(tiny_cohort.split("train"))), 1)])
    answer = judge_study(replace(asked, run=folder))
    assert answer.results == () and answer.refused[0]["door"] == "features"
    assert answer.readings[f"{0:064d}"] == {"refused": "features"}
