"""A table that goes on from a capsule: numbers as of one trained whole, and nothing is taken that does not belong."""

import json
import shutil
from dataclasses import asdict, replace

import pytest
from support.cohorts import make_cohort, tiny_recipe

from sightline.errors import RunError
from sightline.evaluation.evaluate import evaluate
from sightline.evaluation.evidence.capsule import write_capsule
from sightline.evaluation.evidence.verification import verify_capsule
from sightline.evaluation.result import read_capsule_digest
from sightline.evaluation.tables.engines.capsule_runs import take_over_runs
from sightline.evaluation.tables.lines import write_lines
from sightline.evaluation.tables.provenance import write_sources
from sightline.evaluation.tables.report import write_table
from sightline.evaluation.tables.run_table import run_table
from sightline.evaluation.tables.summary import summarise
from sightline.evaluation.tables.table import Row, Table
from sightline.inference.network_output import collect_facts
from sightline.papers.catalogue import CATALOGUE
from sightline.training.engine import Engine
from sightline.training.run import open_run

REPLICATES = 60
BASELINE = tiny_recipe(guidance=None, weight=0.0, steps=2)
ROWS = (Row("baseline", BASELINE), Row("guided", tiny_recipe(steps=2), reference="baseline"))


def run(out, cohort, rows=ROWS, seeds=(0,), capsules=(), say=lambda line: None):
    table = Table("tiny/two", "Two rows", rows)
    engine = Engine(device="cpu", quiet=True)
    return run_table(table, cohort, out, CATALOGUE, seeds=seeds, engine=engine, capsules=capsules, say=say)


def seal(result, out):
    write_lines(summarise(result, replicates=REPLICATES), out)
    write_sources(result, out, REPLICATES)
    return write_capsule(out, out / "table.capsule")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("cohort"), patients=42)


@pytest.fixture(scope="module")
def whole(cohort, tmp_path_factory):
    """Two seeds, trained in one place."""
    out = tmp_path_factory.mktemp("whole")
    return run(out, cohort, seeds=(0, 1))


@pytest.fixture(scope="module")
def capsule(cohort, whole, tmp_path_factory):
    """The first seed, from another place."""
    out = tmp_path_factory.mktemp("first")
    shutil.copytree(whole.rows[0].folders[0].parent, out / "runs")
    return seal(run(out, cohort), out)


def test_a_table_goes_on_from_a_capsule_with_the_numbers_of_one_trained_whole(cohort, whole, capsule, tmp_path):
    said = []
    result = run(tmp_path, cohort, seeds=(0, 1), capsules=(capsule.path,), say=said.append)
    assert said[0] == f"table.capsule (digest {capsule.digest[:12]}): 2 trainings taken over"
    for row in result.rows:
        first, second = row.folders
        assert not (first / "weights.safetensors").exists() and (second / "DONE").is_file()
        assert read_capsule_digest(first) == capsule.digest and read_capsule_digest(second) is None
    ours, theirs = ([asdict(x) for x in summarise(each, replicates=REPLICATES)] for each in (result, whole))
    assert ours == theirs and len(ours) > 10
    # its own capsule names the other one, and verifies
    again = seal(result, tmp_path)
    found = verify_capsule(again.path, CATALOGUE)
    assert found.problems == () and found.numbers > 200
    sources = json.loads((tmp_path / "sources.json").read_text())
    assert sources["rows"][0]["taken"] == {result.rows[0].folders[0].name: capsule.digest}


def test_the_report_says_which_trainings_came_from_which_capsule_and_draws_those_it_has(cohort, capsule, tmp_path):
    result = run(tmp_path, cohort, capsules=(capsule.path,))
    write_table(result, tmp_path, replicates=REPLICATES)
    page = (tmp_path / "report.html").read_text()
    assert f"(capsule {capsule.digest[:12]})" in page
    # the same command without the capsule goes on with what was taken
    again = run(tmp_path, cohort)
    assert again.rows[0].folders == result.rows[0].folders


def test_weights_that_another_run_is_made_of_are_not_taken(whole, capsule, tmp_path):
    parts = [tmp_path / "runs" / row.folders[0].name for row in whole.rows]
    pair = tmp_path / "runs" / "pair"
    wanted = {parts[0]: (), parts[1]: (), pair: (parts[0],)}
    # the pair has to be put together here, of the first; the second is free
    assert take_over_runs((capsule.path,), wanted) == (parts[1],)
    # once the pair is there, nothing is needed for it
    pair.mkdir()
    (pair / "DONE").write_text("finished")
    assert take_over_runs((capsule.path,), wanted) == (parts[0],)


def test_other_cases_or_recipes_are_not_taken(cohort, capsule, tmp_path):
    said = []
    rows = (Row("baseline", replace(BASELINE, steps=3)),)
    run(tmp_path, cohort, rows=rows, capsules=(capsule.path,), say=said.append)
    assert "0 trainings taken over" in said[0]


def test_predictions_of_other_test_cases_are_refused(cohort, capsule, tmp_path):
    result = run(tmp_path, cohort, capsules=(capsule.path,))
    predictions = result.rows[0].folders[0] / "predictions" / "test.csv"
    head, *lines = predictions.read_text().splitlines(keepends=True)
    predictions.write_text("".join([head, *lines[1:]]))
    failed = run(tmp_path, cohort)
    assert "was tested on" in str(failed.rows[0].why_not) and failed.rows[1].why_not is None
    predictions.unlink()
    assert "holds no predictions called 'test'" in str(run(tmp_path, cohort).rows[0].why_not)


def test_what_needs_weights_says_that_a_capsule_has_none(cohort, capsule, tmp_path):
    taken = open_run(run(tmp_path, cohort, capsules=(capsule.path,)).rows[0].folders[0], CATALOGUE)
    with pytest.raises(RunError, match=r"taken from a capsule, which holds no weights.*"):
        collect_facts(taken)
    # saved predictions of the test cases can be asked for all the same
    assert len(evaluate(taken, cohort.split("test"), "test").predictions) == len(cohort.split("test"))


def test_a_folder_that_is_there_stays_and_a_damaged_capsule_gives_nothing(capsule, tmp_path):
    with pytest.raises(RunError, match="There is no capsule"):
        take_over_runs((tmp_path / "gone.capsule",), {tmp_path / "runs" / "a": ()})
    with pytest.raises(RunError, match="is no capsule"):
        (tmp_path / "torn.capsule").write_bytes(capsule.path.read_bytes()[:-200])
        take_over_runs((tmp_path / "torn.capsule",), {tmp_path / "runs" / "a": ()})
    assert not (tmp_path / "runs").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    assert take_over_runs((capsule.path,), {mine: ()}) == () and list(mine.iterdir()) == []
