"""Whether a run knows the cases it is evaluated on, whatever they are called there."""

import json
import shutil
from dataclasses import replace

import pytest
from support.cohorts import tiny_recipe

from sightline import cli
from sightline.data.datasets.folder.writer import write_cohort
from sightline.evaluation.gallery import write_panels
from sightline.evaluation.overlap import describe_changes, describe_known_cases
from sightline.metrics.calibration.recalibration import FittedRecalibration
from sightline.metrics.calibration.record import CalibrationRecord
from sightline.metrics.classification.scores import Brier
from sightline.metrics.estimate import Estimate
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.bootstrap import score_point
from sightline.papers.catalogue import CATALOGUE
from sightline.training.engine import Engine
from sightline.training.run import open_run
from sightline.training.train import train

QUIET = Engine(device="cpu", quiet=True)


@pytest.fixture(scope="module")
def run(tiny_cohort, tmp_path_factory):
    return train(tiny_recipe(steps=2), tiny_cohort, tmp_path_factory.mktemp("runs") / "run", CATALOGUE, QUIET)


def test_cases_that_were_trained_on_are_counted(run, tiny_cohort, tmp_path):
    assert describe_known_cases(run, tiny_cohort.split("test")) == ()
    training = tiny_cohort.split("train")
    n = len(training)
    assert describe_known_cases(run, training)[0].startswith(f"WARNING: {n} of {n} cases were trained on")
    # under other names, of other patients, in another cohort and file
    shutil.copy(training[0].image, tmp_path / "other.png")
    renamed = replace(training[0], case_id="z", study_id="z", patient_id="z", image=tmp_path / "other.png")
    elsewhere = replace(tiny_cohort, name="elsewhere", cases=(renamed, *tiny_cohort.split("test").cases[:3]))
    assert describe_known_cases(run, elsewhere)[0].startswith("WARNING: 1 of 4 cases was trained on")
    # another picture of a patient that was trained on
    relative = replace(tiny_cohort.split("test")[0], patient_id=training[0].patient_id)
    assert (
        "1 of 1 case has the id of a patient" in describe_known_cases(run, replace(tiny_cohort, cases=(relative,)))[0]
    )
    # a run of an earlier version knows ids alone
    plain = {k: v for k, v in run.cohort.items() if k not in ("pictures", "patients")}
    assert describe_known_cases(replace(run, cohort=plain), training)[0].startswith(
        f"WARNING: {n} of {n} cases were trained on"
    )
    assert describe_known_cases(replace(run, cohort=plain), tiny_cohort.split("test")) == ()


def test_evaluate_says_so_in_a_folder_of_its_own(run, tiny_cohort, tmp_path, capsys):
    unsafe = replace(tiny_cohort, name="../../out of run")
    write_cohort(unsafe, tmp_path / "cohort")
    before = {path for path in tmp_path.rglob("*") if run.folder not in path.parents}
    with pytest.raises(SystemExit) as done:
        cli.main(
            [
                *("evaluate", str(run.folder), "--cohort", str(tmp_path / "cohort"), "--split", "train"),
                *("--panels", "0", "--replicates", "50", "--device", "cpu", "--quiet"),
            ]
        )
    assert done.value.code == 0
    assert "cases were trained on" in capsys.readouterr().out
    (folder,) = (run.folder / "evaluation").iterdir()
    assert "cases were trained on" in (folder / "metrics.md").read_text()
    assert {path for path in tmp_path.rglob("*") if run.folder not in path.parents} == before


def test_cases_whose_names_differ_in_a_sign_have_panels_of_their_own(run, tiny_cohort, tmp_path):
    from sightline.evaluation.evaluate import evaluate

    ids = ("s/1", "s_1", "s 1", "s:1")
    test = tiny_cohort.split("test").cases[:4]
    cohort = replace(tiny_cohort, cases=tuple(replace(c, case_id=i) for c, i in zip(test, ids, strict=True)))
    evaluation = replace(evaluate(run, cohort, "test", out=tmp_path, engine=QUIET), box_scores=None, map_scores=None)
    written = write_panels(evaluation, cohort, run.recipe.view, tmp_path / "panels")
    assert len([path for path in written if path.stem.startswith("s")]) == 4
    assert len(set(written)) == len(written) == len(list((tmp_path / "panels").iterdir()))


def test_another_cohort_stands_beside_the_runs_own_test(run, tiny_cohort, tmp_path, capsys):
    here = {"n": {"images": 9}, "method": "m", "why": ""}
    found = [Estimate("AUC", 0.9, 0.8, 0.95, {}), Estimate("F1", 0.5, None, None, {}, why="w"), Estimate("new", 0.1)]
    cases = tuple(replace(c, case_id=f"x{i}", study_id=f"x{i}") for i, c in enumerate(tiny_cohort.split("test")))
    other = replace(tiny_cohort, name="elsewhere", cases=cases)
    assert "Evaluate its own test split" in describe_changes(run, other, found)[0]
    folder = run.folder / "evaluation" / f"{tiny_cohort.name}-test"
    with pytest.raises(SystemExit):
        cli.main(
            [
                "evaluate",
                str(run.folder),
                "--cohort",
                str(tiny_cohort.root),
                "--panels",
                "0",
                "--replicates",
                "50",
                "--quiet",
            ]
        )
    assert "Beside the run's own test" not in capsys.readouterr().out
    numbers = [
        {"name": "AUC", "value": 0.7, "low": 0.6, "high": 0.78, **here},
        {"name": "F1", "value": 0.6, "low": 0.5, "high": 0.7, **here},
    ]
    (folder / "metrics.json").write_text(json.dumps(numbers))
    (section,) = describe_changes(run, other, found)
    low, high = 0.2 - (0.1**2 + 0.08**2) ** 0.5, 0.2 + (0.05**2 + 0.1**2) ** 0.5
    assert f"| AUC | 0.700 | 0.900 | +0.200 ({low:+.3f} to {high:+.3f}) |" in section
    assert "| F1 | 0.600 | 0.500 | -0.100 |" in section and "new" not in section
    # numbers of before `sightline calibrate` (here: of a temperature of 4) are no own test of the run as it is now
    fitted = {"method": "temperature", "temperature": 4.0, "fitted_on": {}, "log_loss": {}, "why": ""}
    record = CalibrationRecord(run.identity, run.classes, FittedRecalibration.from_dict(fitted))
    said = Predictions.read(folder / "test.csv")
    for meant, words in ((said, "Beside the run's own test"), (record.apply(said), "under another calibration")):
        brier = {"name": "Brier score, image-wise", "value": score_point(Brier(), meant), "low": None, "high": None}
        (folder / "metrics.json").write_text(json.dumps([*numbers, {**brier, **here}]))
        assert words in describe_changes(run, other, found)[0]
    record.write(run.folder)
    assert "Beside the run's own test" in describe_changes(open_run(run.folder, CATALOGUE), other, found)[0]
    (run.folder / "calibration.json").unlink()
    # an evaluation of other cases than the own test's is none of it
    (folder / "test.csv").write_text("\n".join((folder / "test.csv").read_text().splitlines()[:-1]) + "\n")
    assert "Evaluate its own test split" in describe_changes(run, other, found)[0]
    assert describe_changes(run, tiny_cohort.split("test"), found) == ()


def test_another_cohort_of_the_same_name_and_ids_is_another(run, tiny_cohort, tmp_path):
    # two places' folders are both called `images`, and their pictures `1` and `2`
    (tmp_path / "1.png").write_bytes(b"another picture")
    test = tiny_cohort.split("test").cases
    other = replace(tiny_cohort, cases=(replace(test[0], image=tmp_path / "1.png"),))
    assert "no cases of the run's own cohort" in describe_changes(run, other, [Estimate("AUC", 0.9)])[0]
    assert describe_changes(run, replace(other, cases=(*other.cases, test[1])), [Estimate("AUC", 0.9)]) == ()
    # a run of an earlier version knows ids alone
    plain = replace(run, cohort={k: v for k, v in run.cohort.items() if k != "pictures"})
    assert describe_changes(plain, other, [Estimate("AUC", 0.9)]) == ()
