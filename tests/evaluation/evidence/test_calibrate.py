"""Calibration of a run, carried by every command after; comparison of two runs; all on a tiny network."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from support.cohorts import make_cohort, tiny_recipe
from support.simulated import predictions_of

from sightline.cli.main import main
from sightline.errors import CohortError, FolderHeld, RunError
from sightline.evaluation.evaluate import evaluate
from sightline.evaluation.evidence.calibrate import CalibrationChoice, calibrate, format_points, require_two_classes
from sightline.evaluation.evidence.comparison import (
    ENDS_AT_ZERO,
    _average_members,
    compare_methods,
    compare_runs,
    write_comparison,
)
from sightline.evaluation.evidence.numbers import compute_evidence
from sightline.evaluation.result import Evaluation
from sightline.io.files import hold_folder
from sightline.metrics.calibration.recalibration import recalibrate
from sightline.metrics.decision.operating_points import OperatingPoint
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.combined import build_ensemble_recipe
from sightline.structures.case import Cohort
from sightline.training.assemble import assemble
from sightline.training.engine import Engine
from sightline.training.run import open_run
from sightline.training.train import train

QUIET = Engine(device="cpu", quiet=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A cohort with 14 validation patients, and two runs of a few steps."""
    place = tmp_path_factory.mktemp("world")
    cohort = make_cohort(place / "cohort", patients=42)
    splits = ("train", "val", "test")
    cases = tuple(
        replace(c, split=splits[int(c.patient_id[1:]) % 6 // 2], facts={"device": "ab"[int(c.patient_id[1:]) % 3 % 2]})
        for c in cohort
    )
    cohort = Cohort("world", cohort.classes, cases, cohort.root)
    runs = [train(tiny_recipe(steps=6, seed=seed), cohort, place / f"run{seed}", CATALOGUE, QUIET) for seed in (0, 1)]
    return cohort, runs


def test_what_validation_fixed_is_applied_after(world):
    cohort, (run, _) = world
    before = evaluate(run, cohort.split("test"), "test", engine=QUIET).predictions
    choice = CalibrationChoice(miss_rate=0.2, coverage=0.8, confidence="energy", sets=0.2)
    record = calibrate(run, cohort, choice, engine=QUIET)
    again = open_run(run.folder, CATALOGUE)
    assert again.calibration == record and record.run == run.identity
    after = evaluate(again, cohort.split("test"), "test", engine=QUIET)
    assert np.array_equal(
        after.predictions.probabilities, recalibrate(before, record.fitted.recalibration).probabilities
    )
    # the files keep what the network said
    assert evaluate(again, cohort.split("test"), "test", engine=QUIET, calibrated=False).predictions == before
    assert [point.name for point in record.points] == [
        "Youden",
        "sensitivity 0.95",
        "specificity 0.95",
        "miss rate 0.2",
    ]
    assert all(point.chosen_on["split"] == "world, val" for point in record.points)
    assert (run.folder / "calibration.png").read_bytes()[:4] == b"\x89PNG"
    found = compute_evidence(after.predictions, cohort, record, energies=after.energies, replicates=50)
    names = [estimate.name for estimate in found.estimates()]
    assert any(name.startswith("sensitivity at miss rate 0.2") for name in names)
    assert any(name.startswith("share of cases answered, abstaining by energy") for name in names)
    assert any(group.fact == "device" for group in found.subgroups)
    assert "## Subgroups" in found.markdown() and "detectable at 80% power" in found.markdown()


def test_local_studies_choose_the_thresholds(world):
    cohort, (_, run) = world
    local = cohort.split("test")
    record = calibrate(run, cohort, CalibrationChoice(miss_rate=0.2), local=local, engine=QUIET)
    assert all("local studies" in point.chosen_on["split"] for point in record.points)
    assert record.fitted.fitted_on["split"] == "world, val"


def test_a_run_that_was_trained_on_validation_chooses_on_local_studies_alone(world, tmp_path):
    cohort, (run, _) = world
    place = shutil.copytree(run.folder, tmp_path / "run")
    seen = replace(run, folder=place, recipe=replace(run.recipe, train_on=("train", "val")))
    choice, local = CalibrationChoice("none", miss_rate=0.2, coverage=0.8, sets=0.2), cohort.split("test")
    with pytest.raises(RunError, match="nothing is left") as error:
        calibrate(seen, cohort, choice, engine=QUIET)
    assert "--local DIR --method none" in error.value.remedy
    with pytest.raises(RunError, match=r"no map of probabilities \(temperature\)"):
        calibrate(seen, cohort, CalibrationChoice(), local=local, engine=QUIET)
    record = calibrate(seen, cohort, choice, local=local, engine=QUIET)
    assert record.fitted is None and record.abstention is not None and record.sets is not None
    assert [p.name for p in record.points][-1] == "miss rate 0.2"
    assert all("local studies" in point.chosen_on["split"] for point in record.points)
    assert "Probabilities stay as said" in (place / "calibration.md").read_text(encoding="utf-8")


def test_what_cannot_be_calibrated_is_refused(world):
    cohort, (run, other) = world
    with pytest.raises(CohortError, match="19 needed"):
        calibrate(run, cohort, CalibrationChoice(miss_rate=0.05), engine=QUIET)
    (other.folder / "calibration.json").write_bytes((run.folder / "calibration.json").read_bytes())
    with pytest.raises(RunError, match="belongs to run"):
        evaluate(other, cohort.split("test"), "test", engine=QUIET)
    (other.folder / "calibration.json").unlink()
    (run.folder / "calibration.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match="damaged"):
        evaluate(run, cohort.split("test"), "test", engine=QUIET)
    (run.folder / "calibration.json").unlink()
    with pytest.raises(CohortError, match="local studies of cohort 'world' were trained on"):
        calibrate(run, cohort, CalibrationChoice(), local=cohort, engine=QUIET)
    turned = replace(cohort, cases=tuple(replace(c, split={"train": "val"}.get(c.split, "train")) for c in cohort))
    with pytest.raises(CohortError, match="validation cases of cohort 'world' were trained on"):
        calibrate(run, turned, CalibrationChoice(), engine=QUIET)
    with pytest.raises(RunError, match=r"--miss-rate and --positive a run of two classes .* 3 apart \(a, b, c\)"):
        require_two_classes("abc", CalibrationChoice(miss_rate=0.2, positive="a"))
    known = compare_runs([run], [other], cohort.split("train"), name="train", replicates=50, engine=QUIET).notes
    # two trainings of one method are said once
    assert sum("were trained on, so the numbers are too good" in note for note in known) == 1


def test_shares_that_are_none_are_refused_before_anything_is_predicted():
    for name in ("sensitivities", "specificities", "miss_rate", "coverage", "sets"):
        for share in (float("nan"), float("inf"), 2.0, -1.0, 0.0):
            with pytest.raises(RunError, match=r"(share above 0, up to 1|rate between 0 and 1) was expected"):
                CalibrationChoice(**{name: (share,) if name.endswith("ties") else share})


def test_thresholds_of_two_points_do_not_read_alike():
    """After a large temperature all probabilities lie near one half."""
    points = [OperatingPoint("fracture", at, "sensitivity", of) for at, of in ((0.499611, 0.95), (0.499634, 0.9))]
    page = format_points(points)
    assert "fracture \u2265 0.49961 |" in page and "fracture \u2265 0.49963 |" in page
    assert "\u2265 0.25 |" in format_points([replace(points[0], threshold=0.25)])


def test_two_runs_are_compared_by_every_test(world, tmp_path):
    cohort, runs = world
    found = compare_runs(runs[:1], runs[1:], cohort.split("test"), margin=0.1, replicates=50, engine=QUIET)
    write_comparison(found, tmp_path)
    methods = " ".join(c.method for c in found.others)
    assert all(word in methods for word in ("permutation", "DeLong", "McNemar"))
    assert {m.verdict for m in found.margins} <= {"superior", "non-inferior", "inferior", "not shown"}
    fields = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert fields["leading"][0]["difference"] == pytest.approx(
        fields["leading"][0]["value_a"] - fields["leading"][0]["value_b"]
    )
    page = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert "One training each" in page and "Calls (McNemar's test) are the most probable class" in page
    tables = [evaluate(run, cohort.split("test"), "test", engine=QUIET).predictions for run in runs]
    same = compare_methods([tables[0]], [tables[0]], replicates=50)
    assert all(c.difference == 0 for c in same.leading)
    with pytest.raises(RunError, match="named twice"):
        compare_runs([runs[0], runs[0]], runs[1:], cohort.split("test"), replicates=50, engine=QUIET)
    for together in ((1, 1), (2, 2)):
        with pytest.raises(RunError, match=r"Both sides are the same: .*after --with"):
            compare_runs(runs, runs[::-1], cohort.split("test"), replicates=50, engine=QUIET, together=together)
    # every training calls at its own threshold
    called = compare_methods(tables, tables[::-1], thresholds=((0.0, 1.1), (1.1, 0.0)), replicates=50)
    assert not any("most probable class" in note for note in called.notes)
    shares = [(c.value_a, c.value_b) for c in called.others if c.name.startswith("share of fracture called right")]
    assert shares == [(1.0, 0.0), (0.0, 1.0)]


def test_a_comparison_elsewhere_leaves_the_own_predictions(world):
    """Those of another site's test cases were written over them, also where that site's ids are the same."""
    cohort, runs = world
    own = cohort.split("test")
    compare_runs(runs[:1], runs[1:], own, replicates=20, engine=QUIET)
    kept = [(run.folder / "predictions" / "test.csv").read_bytes() for run in runs]
    turned = tuple(replace(case, image=of.image) for case, of in zip(own, own.cases[::-1], strict=True))
    for site in (Cohort("site", own.classes, own.cases[:9]), replace(own, cases=turned)):
        compare_runs(runs[:1], runs[1:], site, replicates=20, engine=QUIET)
        assert [(run.folder / "predictions" / "test.csv").read_bytes() for run in runs] == kept
        assert all((run.folder / "predictions" / f"test_{site.fingerprint()}.csv").is_file() for run in runs)
    with hold_folder(runs[1].folder / "predictions"), pytest.raises(FolderHeld, match="is being written into"):
        compare_runs(runs[:1], runs[1:], own, replicates=20, engine=QUIET)


def test_an_interval_of_few_who_differ_is_explained():
    """It ended at exactly 0 beside a p of 0.25, and looked like a difference that just may be one."""
    patient = [f"p{i}" for i in range(12)]
    right = [0.9] * 6 + [0.1] * 6
    wrong = [0.1] * 3 + right[3:]
    a, b = ([predictions_of([1] * 6 + [0] * 6, each, patient)] for each in (right, wrong))
    found = compare_methods(a, b, replicates=200)
    (accuracy,) = [one for one in found.leading if one.name == "accuracy"]
    assert accuracy.low == pytest.approx(0.0, abs=1e-12) and accuracy.p_value > 0.15
    assert ENDS_AT_ZERO in found.notes and ENDS_AT_ZERO in found.markdown()
    assert ENDS_AT_ZERO not in compare_methods(a, a, replicates=200).notes


def test_no_margin_is_met_by_an_interval_of_few_who_differ():
    """One of forty was right by the other method alone: -0.025, from -0.05 to 0, and `non-inferior` at 0.06."""
    patient = [f"p{i:02d}" for i in range(40)]
    right = [0.9] * 20 + [0.1] * 20
    for few, is_decided in ((1, True), (6, False)):
        a, b = ([predictions_of([1] * 20 + [0] * 20, each, patient)] for each in ([0.2] * few + right[few:], right))
        found = compare_methods(a, b, margin=0.06 * few, replicates=200)
        (one,) = [each for each in found.margins if each.comparison.name == "accuracy"]
        assert one.comparison.difference == pytest.approx(-few / 40) and one.comparison.low > -one.margin
        assert one.verdict == ("not shown" if is_decided else "non-inferior")
        assert ("on too few patients" in one.text()) is is_decided


def test_no_test_claims_a_difference_of_an_auc_from_two_positive_patients():
    """DeLong's p was below 0.001 and the bootstrap's 0.01, beside a leading test that said that there can be none."""
    patient = [f"p{i}" for i in range(30)]
    low = [0.01 * i for i in range(28)]
    a, b = ([predictions_of([1] * 2 + [0] * 28, each + low, patient)] for each in ([0.9, 0.95], [0.05, 0.06]))
    found = compare_methods(a, b, replicates=200)
    areas = [one for one in (*found.leading, *found.others) if one.name == "AUC of fracture"]
    assert [one.method.partition(",")[0] for one in areas] == ["no test", "paired permutation over patients", "DeLong"]
    assert all(one.low is None and (one.p_value or 1.0) > 0.05 for one in areas)


def test_the_commands_run(world, tmp_path, capsys):
    from sightline.data.datasets.folder.writer import write_cohort

    cohort, runs = world
    tables = [str(run.folder / "predictions" / "test.csv") for run in runs]
    write_cohort(cohort, tmp_path / "cohort")
    place = ["--cohort", str(tmp_path / "cohort"), "--quiet"]
    codes = []
    for words in (
        ["calibrate", str(runs[0].folder), *place, "--method", "auto", "--miss-rate", "0.2"],
        ["compare", str(runs[0].folder), "--with", str(runs[1].folder), *place, "--out", str(tmp_path / "c"),
         "--replicates", "50"],
        ["power", tables[0], "--with", tables[1], "--difference", "0.1", "--patients", "30", "--studies", "20"],
        ["predict", str(runs[0].folder), str(cohort[0].image), "--out", str(tmp_path / "p"), "--quiet"],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as end:
            main(words)
        codes.append(end.value.code)
    said = capsys.readouterr()
    assert codes == [0, 0, 0, 0], said
    assert "Youden" in said.out and "30 patients, 1 training: power" in said.out
    (row,) = csv.DictReader((tmp_path / "p" / "studies.csv").open(encoding="utf-8"))
    assert row["called at miss rate 0.2"] in ("fracture", "not fracture")
    (runs[0].folder / "calibration.json").unlink()


def test_runs_that_judge_together_are_the_ensemble_of_their_networks(world, tmp_path):
    cohort, runs = world
    recipe = build_ensemble_recipe([run.recipe for run in runs])
    members = {f"members.{place}": run for place, run in enumerate(runs)}
    both = assemble(recipe, cohort, members, tmp_path / "both", CATALOGUE)
    with pytest.raises(RunError, match="named twice"):
        assemble(recipe, cohort, dict.fromkeys(members, runs[0]), tmp_path / "one", CATALOGUE)
    found = compare_runs(runs, [both], cohort.split("test"), replicates=50, engine=QUIET, together=(2, 1))
    assert "2 networks together" in found.names[0] and not found.maps
    brier = next(c for c in found.leading if c.name.startswith("Brier"))
    assert brier.difference == pytest.approx(0.0, abs=1e-6) and brier.value_a != pytest.approx(0.25, abs=1e-9)
    alone = compare_runs(runs[:1], [both], cohort.split("test"), replicates=50, engine=QUIET)
    assert abs(next(c for c in alone.leading if c.name.startswith("Brier")).difference) > 1e-6
    # the logarithms of its probabilities say nothing of how strong the evidence was: rounding alone chose who answers
    with pytest.raises(RunError, match="Every energy is 0"):
        calibrate(both, cohort, CalibrationChoice(coverage=0.8, confidence="energy"), engine=QUIET)
    with pytest.raises(RunError, match="2 runs cannot judge together by 3"):
        compare_runs(runs, [both], cohort.split("test"), replicates=50, engine=QUIET, together=(3, 1))
    with pytest.raises(RunError, match="1 run cannot judge together by 0"):
        compare_runs(runs, [both], cohort.split("test"), replicates=50, engine=QUIET, together=(2, 0))
    # an ensemble against its members
    found = compare_runs(runs, runs, cohort.split("test"), replicates=50, engine=QUIET, together=(2, 1))
    assert [c.difference for c in found.leading if c.name.startswith("Brier")] != [0.0]


def test_softmax_and_sigmoid_runs_do_not_judge_together():
    softmax = predictions_of([0, 1, 1], [0.2, 0.7, 0.4])
    sigmoid = replace(softmax, independent=True)
    with pytest.raises(RunError, match="no common mean"):
        _average_members([Evaluation(softmax), Evaluation(sigmoid)], 2)
    (alike,) = _average_members([Evaluation(sigmoid), Evaluation(sigmoid)], 2)
    assert alike.predictions == sigmoid
