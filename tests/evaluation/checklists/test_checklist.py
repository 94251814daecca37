"""Checklists and the model card say what the run's files say, and nothing else; the author's words stay."""

import csv
import json
import re
import shutil
from dataclasses import replace

import pytest
from support.cohorts import make_cohort, tiny_recipe

from sightline.cli.main import main
from sightline.errors import RunError
from sightline.evaluation.checklists.checklist import BLANK, FILLED, PART, fill_checklist, write_checklist
from sightline.evaluation.checklists.facts import GROUPS, resolve
from sightline.evaluation.checklists.guidelines import GUIDELINES
from sightline.io.files import read_run_csv
from sightline.metrics.estimate import Estimate
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.case import Cohort
from sightline.training.engine import Engine
from sightline.training.model_card import read_measurements, write_model_card
from sightline.training.run import open_run
from sightline.training.train import train

# what only a test can answer
RESULTS = {
    "CLAIM": {"21", "28", "29", "31", "32", "33", "37", "38", "39"},
    "TRIPOD+AI": {"12d", "12e", "14", "16", "23a", "24"},
    "STARD-AI": {"1", "18", "21", "22", "23", "28", "29", "30", "31", "40b"},
}


def type_in(*words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert end.value.code == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A cohort of 42 patients with a device each, and a run of two steps; RUN/fresh: the same, never evaluated."""
    from sightline.data.datasets.folder.writer import write_cohort

    place = tmp_path_factory.mktemp("reported")
    cohort = make_cohort(place / "cohort", patients=42)
    cases = tuple(
        replace(
            c,
            split=("train", "val", "test")[int(c.patient_id[1:]) % 6 // 2],
            facts={"device": "ab"[int(c.patient_id[1:]) % 3 % 2]},
        )
        for c in cohort
    )
    cohort = Cohort("tiny", cohort.classes, cases, cohort.root)
    write_cohort(cohort, place / "cohort")
    quiet = Engine(device="cpu", quiet=True)
    write_model_card(train(tiny_recipe(steps=2), cohort, place / "run", CATALOGUE, quiet))
    shutil.copytree(place / "run", place / "fresh")
    card = place / "run" / "model_card.md"
    words = re.sub(r"(## Intended use\n\n)[^#]+", r"\1Adult wrists, second reading.\n\n", card.read_text())
    card.write_text(words + "## Changes\n\nNone yet.\n")
    on = ("--cohort", place / "cohort", "--device", "cpu", "--quiet")
    type_in("calibrate", place / "run", "--miss-rate", "0.2", "--coverage", "0.8", *on)
    type_in("evaluate", place / "run", "--panels", "0", "--replicates", "30", *on)
    type_in("evaluate", place / "run", "--panels", "0", "--replicates", "30", "--split", "val", *on)
    return place


@pytest.fixture
def run(place):
    return open_run(place / "run", CATALOGUE)


def held(folder, source):
    """What a file holds at a place, read in the plainest way."""
    file, _, where = source.partition("#")
    if file.endswith(".csv"):
        number, column = re.fullmatch(r"row (\d+), (\w+)", where).groups()
        return list(csv.DictReader((folder / file).open()))[int(number) - 1][column]
    return resolve(json.loads((folder / file).read_text()), where)


@pytest.mark.parametrize("name", GUIDELINES)
def test_every_filled_item_says_what_its_file_says(run, name):
    found = fill_checklist(run, name)
    counts = found.counts()
    assert sum(counts.values()) == len(GUIDELINES[name].items) and min(counts.values()) > 5
    for answer in found.answers:
        assert (answer.state == BLANK) == (not answer.facts)
        for fact in answer.facts:
            value = held(run.folder, fact.source)
            assert value == fact.value and value not in (None, "", [], {}), fact.source
            if isinstance(value, dict) and "low" in value and value["value"] is not None:
                assert Estimate.from_dict(value).text() in fact.text()
            elif isinstance(value, str) and "weights" not in fact.place:
                assert value in fact.text()
    assert "test_resnet" in found.csv() and found.summary() in found.markdown("title")


def test_a_run_without_a_test_leaves_results_to_the_author(place, run):
    fresh = open_run(place / "fresh", CATALOGUE)
    for name, results in RESULTS.items():
        states = {answer.item.number: answer.state for answer in fill_checklist(fresh, name).answers}
        assert {states[number] for number in results} == {BLANK}
        tested = {answer.item.number: answer.state for answer in fill_checklist(run, name).answers}
        # no other hospital was tested
        assert {number for number in results if tested[number] == BLANK} == {
            "CLAIM": {"33"}, "TRIPOD+AI": {"16"}, "STARD-AI": {"29"}
        }[name]  # fmt: skip
    # cases are counted but not tested: the item says what is lacking
    untested, whole = ({a.item.number: a for a in fill_checklist(r, "TRIPOD+AI").answers}["21"] for r in (fresh, run))
    assert untested.state == PART and "tested" in untested.lacks and (whole.state, whole.lacks) == (FILLED, "")
    assert {"4", "44"} <= {a.item.number for a in fill_checklist(run, "CLAIM").answers if a.state == BLANK}


def test_cases_that_the_training_does_not_name_are_another_cohort(run):
    elsewhere = replace(run, cohort={**run.cohort, "split": {}})
    answers = {a.item.number: a for a in fill_checklist(elsewhere, "CLAIM").answers}
    assert answers["33"].state == PART and answers["32"].state == BLANK
    assert {each.kind for each in read_measurements(run)} == {"test", "val"}


def test_numbers_of_another_run_are_not_taken(place, run, tmp_path):
    stranger = replace(run, cohort={**run.cohort, "run_identity": "0" * 12})
    assert read_measurements(stranger) == []
    with pytest.raises(RunError, match="not finished"):
        fill_checklist(replace(run, done=False), "CLAIM")
    with pytest.raises(RunError, match="no checklist 'STROBE'"):
        fill_checklist(run, "STROBE")


def test_the_numbers_of_items_are_the_guidelines_own():
    mains = {name: [int(re.match(r"\d+", i.number)[0]) for i in g.items] for name, g in GUIDELINES.items()}
    assert {name: (len(each), len(set(each)), max(each)) for name, each in mains.items()} == {
        "CLAIM": (44, 44, 44), "TRIPOD+AI": (52, 27, 27), "STARD-AI": (48, 40, 40)
    }  # fmt: skip
    assert all(each == sorted(each) for each in mains.values())
    used = {group for guideline in GUIDELINES.values() for item in guideline.items for group in item.facts}
    assert used == set(GROUPS)


def test_what_the_author_wrote_into_the_table_stays(run, tmp_path):
    type_in("report", run.folder, "--checklist", "CLAIM", "--out", tmp_path)
    path = tmp_path / "CLAIM.csv"
    rows = list(csv.DictReader(path.open()))
    assert {row["state"] for row in rows} == {FILLED, PART, BLANK}
    rows[3]["author"] = "To find fractures, earlier; and ö"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    write_checklist(run, "CLAIM", tmp_path)
    assert list(csv.DictReader(path.open(encoding="utf-8"))) == rows
    assert "- author: To find fractures" in (tmp_path / "CLAIM.md").read_text(encoding="utf-8")
    path.write_text("item,words\n4,mine\n")
    with pytest.raises(RunError, match="author's words"):
        write_checklist(run, "CLAIM", tmp_path)
    assert path.read_text() == "item,words\n4,mine\n"


def test_a_table_that_a_spreadsheet_saved_keeps_the_authors_words(run, tmp_path):
    write_checklist(run, "CLAIM", tmp_path)
    path = tmp_path / "CLAIM.csv"
    rows = list(csv.DictReader(path.open(newline="", encoding="utf-8")))
    rows[3]["author"] = "To find fractures"
    with path.open("w", newline="", encoding="utf-16") as file:
        table = csv.DictWriter(file, rows[0], delimiter=";")
        table.writeheader()
        table.writerows(rows)
    write_checklist(run, "CLAIM", tmp_path)
    assert list(csv.DictReader(path.open(newline="", encoding="utf-8")))[3]["author"] == "To find fractures"


def test_a_damaged_history_is_named(tmp_path):
    (tmp_path / "history.csv").write_bytes(b"\xff\x00")
    with pytest.raises(RunError, match=r"history\.csv is damaged"):
        read_run_csv(tmp_path / "history.csv")


def test_the_card_has_the_runs_numbers_and_the_authors_words(place, run):
    card = (run.folder / "model_card.md").read_text()
    metrics = {e["name"]: Estimate.from_dict(e) for e in json.loads((run.folder / "evaluation/tiny-test/metrics.json").read_text())}  # fmt: skip  # noqa: E501
    assert f"- {metrics['AUC, study-wise']} (14 studies, 14 patients)" in card
    assert any(name in card for name in metrics if name.startswith("missed share"))
    assert "| AUC, device a |" in card and "not calibrated" not in card and "- miss rate 0.2: fracture from" in card
    assert f"code {json.loads((run.folder / 'environment.json').read_text())['code']}" in card
    assert card.count("## Intended use\n\nAdult wrists, second reading.\n") == 1 and card.endswith("## Changes\n\nNone yet.\n")  # fmt: skip  # noqa: E501
    assert card.index("## Tested on tiny-test") < card.index("## Tested on tiny-val") < card.index("## Limits")
    assert "nothing is known of another hospital" in card
    # a run that was never tested has no test number, and says so
    fresh = (place / "fresh" / "model_card.md").read_text()
    assert "AUC, study-wise" not in fresh and "No test result yet" in fresh and "no threshold was fixed" in fresh
    assert "Not stated yet" in fresh


def test_cards_and_environments_of_earlier_versions(place):
    fresh = open_run(place / "fresh", CATALOGUE)
    path = fresh.folder / "environment.json"
    environment = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in environment.items() if key != "code"}))
    (fresh.folder / "model_card.md").write_text("# old\n\n## Trained on x (fingerprint y)\n\nz\n\n## Limits\n\n- a\n")
    card = write_model_card(fresh).read_text()
    assert "(code" not in card and card.count("## Limits") == 1 and "## Intended use\n\nNot stated yet" in card
    assert not any(f.place == "/code" for a in fill_checklist(fresh, "CLAIM").answers for f in a.facts)
