"""Capsules: the same bytes again, every number again, and forgeries of every kind, each found."""

import csv
import hashlib
import io
import json
import random
import shlex
import shutil
import zipfile
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.cohorts import make_cohort, tiny_recipe

from sightline.errors import RunError
from sightline.evaluation.evidence.capsule import strip_folders, unpack_capsule, write_capsule
from sightline.evaluation.evidence.verification import verify_capsule
from sightline.evaluation.tables.lines import write_lines
from sightline.evaluation.tables.provenance import read_result, write_sources
from sightline.evaluation.tables.run_table import run_table
from sightline.evaluation.tables.summary import summarise
from sightline.evaluation.tables.table import Row, Table
from sightline.papers.catalogue import CATALOGUE
from sightline.training.engine import Engine
from sightline.training.run import digest_identity

REPLICATES = 60
FLIPPED = 60


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Two rows, two trainings each, the second taught by the first; a tiny cohort: 14 test images of 7 patients."""
    place = tmp_path_factory.mktemp("capsule")
    cohort = make_cohort(place / "cohort", patients=42)
    rows = (
        Row("baseline", tiny_recipe(guidance=None, weight=0.0, steps=4)),
        Row("guided", tiny_recipe(steps=4), reference="baseline", teacher="baseline", seed_offset=5),
    )
    out = place / "table"
    result = run_table(
        Table("tiny/two", "Two rows", rows),
        cohort,
        out,
        CATALOGUE,
        seeds=(0, 1),
        engine=Engine(device="cpu", quiet=True),
    )
    # of what `write_table` leaves, what a capsule takes up: neither pictures nor a report
    write_lines(summarise(result, replicates=REPLICATES), out)
    write_sources(result, out, REPLICATES)
    return out


@pytest.fixture(scope="module")
def capsule(table):
    return write_capsule(table, table / "two.capsule")


def test_a_capsule_is_small_text_and_the_same_again(table, capsule, tmp_path):
    again = write_capsule(table, tmp_path / "again.capsule")
    assert again.path.read_bytes() == capsule.path.read_bytes() and again.digest == capsule.digest
    names = zipfile.ZipFile(capsule.path).namelist()
    assert {name.rpartition(".")[2] for name in names} <= {"json", "csv"}
    assert not any("weights" in name or "maps.npz" in name for name in names)


def test_every_number_comes_out_again(capsule):
    found = verify_capsule(capsule.path, CATALOGUE, published=capsule.digest[:12])
    assert found.problems == () and found.numbers > 200
    words = "\n".join(found.facts)
    assert "the epoch kept: last" in words and "last, on val" not in words
    assert "seeds 0, 1" in words and "the same as here" in words
    assert "row guided learnt from marks (which are not in a capsule) by row baseline (Teaching(keep=" in words


def test_another_digest_than_the_published_is_told(capsule, monkeypatch):
    # told before any number is computed
    monkeypatch.setattr("sightline.evaluation.evidence.verification.summarise", lambda *args, **options: [])
    for published in ("0" * 12, capsule.digest[:4]):
        assert "was published" in verify_capsule(capsule.path, CATALOGUE, published=published).problems[0]


def files_of(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def write(files, path, *, mended):
    """A capsule of these files; with mended checksums as a forger would write it."""
    if mended:
        sums = {
            name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items()) if name != "contents.json"
        }
        files = {**files, "contents.json": json.dumps({"format": 1, "files": sums}, indent=1).encode()}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)


def rows_of(data):
    return list(csv.reader(io.StringIO(data.decode())))


def text_of(rows):
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def predictions(files, rnd):
    return rnd.choice(sorted(name for name in files if name.endswith("predictions/test.csv")))


def a_probability(files, rnd):
    name = predictions(files, rnd)
    rows = rows_of(files[name])
    row = rnd.choice(rows[1:])
    p = round(rnd.choice([0.001, 0.5, 0.999]), 3)
    row[5:] = [repr(1 - p), repr(p)]
    files[name] = text_of(rows)


def a_label(files, rnd):
    name = predictions(files, rnd)
    rows = rows_of(files[name])
    row = rnd.choice(rows[1:])
    row[4] = "fracture" if row[4] != "fracture" else "no fracture"
    files[name] = text_of(rows)


def a_patient(files, rnd):
    name = predictions(files, rnd)
    rows = rows_of(files[name])
    rnd.choice(rows[1:])[2] = "P00"
    files[name] = text_of(rows)


def a_hard_case_left_out(files, rnd):
    name = predictions(files, rnd)
    rows = rows_of(files[name])
    rows.pop(rnd.randrange(1, len(rows)))
    files[name] = text_of(rows)


def a_printed_number(files, rnd):
    lines = json.loads(files["table.json"])
    line = rnd.choice([line for line in lines if line["mean"] is not None])
    key = rnd.choice([k for k in ("mean", "low", "high", "p_paired", "difference", "std") if line[k] is not None])
    line[key] = line[key] + rnd.choice([-0.01, 0.01, 0.1])
    files["table.json"] = json.dumps(lines).encode()


def a_count(files, rnd):
    lines = json.loads(files["table.json"])
    rnd.choice([line for line in lines if line["n"]])["n"] = "1000 images, 1000 patients"
    files["table.json"] = json.dumps(lines).encode()


def a_line_left_out(files, rnd):
    lines = json.loads(files["table.json"])
    lines.pop(rnd.randrange(len(lines)))
    files["table.json"] = json.dumps(lines).encode()


def a_recipe(files, rnd):
    name = rnd.choice(sorted(n for n in files if n.endswith("recipe.json")))
    files[name] = files[name].replace(b'"epochs": 3', b'"epochs": 30')


def a_split(files, rnd):
    rows = rows_of(files["cases.csv"])
    row = rnd.choice([row for row in rows[1:] if row[4] == "train"])
    row[4] = "test"
    files["cases.csv"] = text_of(rows)


def a_split_of_a_run(files, rnd):
    name = rnd.choice(sorted(n for n in files if n.endswith("cohort.json")))
    facts = json.loads(files[name])
    case = rnd.choice(sorted(facts["split"]))
    facts["split"][case] = "val" if facts["split"][case] == "train" else "train"
    files[name] = json.dumps(facts).encode()


def a_test_case_that_was_trained_on(files, rnd):
    name = predictions(files, rnd)
    rows = rows_of(files[name])
    cases = [row for row in rows_of(files["cases.csv"])[1:] if row[4] == "train"]
    rnd.choice(rows[1:])[:3] = rnd.choice(cases)[:3]
    files[name] = text_of(rows)


def another_seeds_predictions(files, rnd):
    a, b = rnd.sample(sorted(n for n in files if n.endswith("predictions/test.csv")), 2)
    files[a], files[b] = files[b], files[a]


def one_run_twice(files, rnd):
    sources = json.loads(files["sources.json"])
    row = rnd.choice(sources["rows"])
    row["runs"] = [row["runs"][0]] * 2
    files["sources.json"] = json.dumps(sources).encode()


def a_bad_run_left_out(files, rnd):
    sources = json.loads(files["sources.json"])
    rnd.choice(sources["rows"])["runs"].pop()
    files["sources.json"] = json.dumps(sources).encode()


def a_seed(files, rnd):
    sources = json.loads(files["sources.json"])
    sources["seeds"] = [7, 8]
    files["sources.json"] = json.dumps(sources).encode()


def replicates(files, rnd):
    sources = json.loads(files["sources.json"])
    sources["replicates"] = rnd.choice([20, 30])
    files["sources.json"] = json.dumps(sources).encode()


def a_map_score(files, rnd):
    name = rnd.choice(sorted(n for n in files if n.endswith("map_scores.csv")))
    rows = rows_of(files[name])
    column = rows[0].index("energy")
    row = rnd.choice([row for row in rows[1:] if row[column]])
    row[column] = "0.99"
    files[name] = text_of(rows)


def a_box(files, rnd):
    name = rnd.choice(sorted(n for n in files if n.endswith("test_boxes.csv")))
    rows = rows_of(files[name])
    start, stop = rows[0].index("row_start"), rows[0].index("row_stop")
    for row in rows[1:]:
        # an expert's box where the network's is: one box that no number rests on would change nothing
        if row[rows[0].index("kind")] == "truth":
            row[start], row[stop] = "0.0", "39.0"
    files[name] = text_of(rows)


def a_fingerprint(files, rnd):
    name = rnd.choice(sorted(n for n in files if n.endswith("cohort.json")))
    facts = json.loads(files[name])
    facts["fingerprint"] = "0" * 16
    files[name] = json.dumps(facts).encode()


def a_study(files, rnd):
    name = predictions(files, rnd)
    rows = rows_of(files[name])
    a, b = rnd.sample(rows[1:], 2)
    a[1], b[1] = b[1], a[1] + "x"
    files[name] = text_of(rows)


def a_label_of_the_cohort(files, rnd):
    rows = rows_of(files["cases.csv"])
    row = rnd.choice([row for row in rows[1:] if row[4] == "test"])
    place = next(i for i, cell in enumerate(row) if cell in ("fracture", "no fracture"))
    row[place] = "fracture" if row[place] != "fracture" else "no fracture"
    files["cases.csv"] = text_of(rows)


def all_probabilities_sharpened(files, rnd):
    name = predictions(files, rnd)
    rows = rows_of(files[name])
    for row in rows[1:]:
        p = float(row[6]) ** 3 / (float(row[6]) ** 3 + (1 - float(row[6])) ** 3)
        row[5:] = [repr(1 - p), repr(p)]
    files[name] = text_of(rows)


def predictions_of_the_other_row(files, rnd):
    sources = json.loads(files["sources.json"])
    a, b = (row["runs"] for row in sources["rows"])
    a[0], b[0] = b[0], a[0]
    files["sources.json"] = json.dumps(sources).encode()


def a_row_left_out(files, rnd):
    sources = json.loads(files["sources.json"])
    sources["rows"].pop()
    files["sources.json"] = json.dumps(sources).encode()


def a_number_that_never_was(files, rnd):
    lines = json.loads(files["table.json"])
    lines.append({**lines[0], "row": "better", "mean": 0.99})
    files["table.json"] = json.dumps(lines).encode()


def rows_in_another_order(files, rnd):
    name = predictions(files, rnd)
    head, *rows = rows_of(files[name])
    files[name] = text_of([head, *reversed(rows)])


def a_case_twice(files, rnd):
    name = predictions(files, rnd)
    rows = rows_of(files[name])
    files[name] = text_of([*rows, rows[1]])


def a_case_of_the_cohort_twice(files, rnd):
    rows = rows_of(files["cases.csv"])
    files["cases.csv"] = text_of([*rows, rows[-1]])


def labels_of_two_cases_swapped(files, rnd):
    name = predictions(files, rnd)
    rows = rows_of(files[name])
    a, b = (next(row for row in rows[1:] if row[4] == label) for label in ("fracture", "no fracture"))
    a[4], b[4] = b[4], a[4]
    files[name] = text_of(rows)


def labels_swapped_everywhere(files, rnd):
    """In the cases and in all predictions alike, for a whole patient each."""
    swap = {"P04": "fracture", "P05": "no fracture"}
    for name in [n for n in files if n == "cases.csv" or n.endswith("predictions/test.csv")]:
        rows = rows_of(files[name])
        place = 3 if name == "cases.csv" else 4
        for row in rows[1:]:
            row[place] = swap.get(row[2], row[place])
        files[name] = text_of(rows)


def recipes_of_two_runs_exchanged(files, rnd):
    a, b = rnd.sample(sorted(n for n in files if n.endswith("recipe.json")), 2)
    files[a], files[b] = files[b], files[a]


def a_seed_everywhere(files, rnd):
    sources = json.loads(files["sources.json"])
    sources["seeds"] = [0, 5]
    files["sources.json"] = json.dumps(sources).encode()
    for name in [n for n in files if n.endswith("recipe.json")]:
        files[name] = files[name].replace(b'"seed": 1', b'"seed": 5').replace(b"seed 1", b"seed 5")


def numbers_rounded(files, rnd):
    lines = json.loads(files["table.json"], parse_float=lambda text: round(float(text), 3))
    files["table.json"] = json.dumps(lines).encode()


def probabilities_rounded(files, rnd):
    name = predictions(files, rnd)
    rows = rows_of(files[name])
    for row in rows[1:]:
        p = round(float(row[6]), 1)
        row[5:] = [repr(1 - p), repr(p)]
    files[name] = text_of(rows)


def a_number_that_is_none(files, rnd):
    lines = json.loads(files["table.json"])
    next(line for line in lines if line["low"] is not None)["low"] = float("nan")
    files["table.json"] = json.dumps(lines).encode()


def a_file_that_nothing_rests_on(files, rnd):
    run = predictions(files, rnd).rpartition("/")[0]
    files[f"{run}/test_corrected.csv"] = files[f"{run}/test.csv"]


def a_second_spelling(files, rnd):
    files["runs/../cases.csv"] = files["cases.csv"]


def another_capital_letter(files, rnd):
    files["Cases.csv"] = files["cases.csv"]


def a_backslash(files, rnd):
    files["untrained\\x.csv"] = files["cases.csv"]


def a_file_without_end(files, rnd):
    name = rnd.choice(sorted(n for n in files if n.endswith("cohort.json")))
    files[name] = b"[" * 200_000


def runs_exchanged_and_numbers_mended(files, rnd):
    """The guided row's runs are said to be the baseline's, and every number is computed again from them."""
    sources = json.loads(files["sources.json"])
    a, b = sources["rows"]
    a["runs"], b["runs"] = b["runs"], a["runs"]
    files["sources.json"] = json.dumps(sources).encode()
    mend_numbers(files)


def mend_numbers(files):
    """Every number is computed again from what the files say now."""
    with TemporaryDirectory() as place:
        write(files, Path(place) / "x.capsule", mended=True)
        unpack_capsule(Path(place) / "x.capsule", Path(place))
        lines = summarise(read_result(Path(place), CATALOGUE), replicates=REPLICATES)
    files["table.json"] = json.dumps([asdict(line) for line in lines]).encode()


def the_teacher_left_out(files, rnd):
    sources = json.loads(files["sources.json"])
    del sources["rows"][1]["teacher"]
    files["sources.json"] = json.dumps(sources).encode()


def another_teacher(files, rnd):
    """The other seed's run is said to have marked the pictures, in the run's papers too."""
    sources = json.loads(files["sources.json"])
    run, (a, b) = sources["rows"][1]["runs"][0], sources["rows"][0]["runs"]
    files[f"runs/{run}/cohort.json"] = files[f"runs/{run}/cohort.json"].replace(a.encode(), b.encode())


def another_teaching(files, rnd):
    for name in [name for name in files if name == "sources.json" or name.endswith("cohort.json")]:
        files[name] = files[name].replace(b"keep=0.5", b"keep=0.9")


def a_label_of_a_training_case(files, rnd, place=3, word="fracture"):
    rows = rows_of(files["cases.csv"])
    row = next(row for row in rows if row[4] == "train" and row[place] != word)
    row[place] = word
    files["cases.csv"] = text_of(rows)


def a_patient_of_a_training_case(files, rnd):
    """As one would who hides that a patient is in training and test."""
    a_label_of_a_training_case(files, rnd, 2, "Z99")


def a_number_twice(files, rnd):
    """The forged one stands first: who reads the text sees it, and some programs take it."""
    files["table.json"] = files["table.json"].replace(b'"mean": ', b'"mean": 0.999,\n  "mean": ', 1)


def a_hard_case_left_out_of_a_row(files, rnd):
    """The row is said to be trained on one source, which has no say in what it is tested on; numbers are mended."""
    sources = json.loads(files["sources.json"])
    row = sources["rows"][1]
    row["trained_on"] = ["site A"]
    files["sources.json"] = json.dumps(sources).encode()
    for name in [
        name for name in files if name.split("/")[1:2] and name.split("/")[1] in row["runs"] and "/test" in name
    ]:
        head, *rows = rows_of(files[name])
        files[name] = text_of([head, *(each for each in rows if "P05-1" not in each)])
    mend_numbers(files)


FORGERIES = (
    another_teaching, another_teacher, the_teacher_left_out,
    rows_in_another_order, a_case_twice, a_case_of_the_cohort_twice, labels_of_two_cases_swapped,
    labels_swapped_everywhere, recipes_of_two_runs_exchanged, a_seed_everywhere, numbers_rounded,
    probabilities_rounded, a_number_that_is_none, a_file_that_nothing_rests_on, a_second_spelling,
    another_capital_letter, a_backslash, a_file_without_end,
    runs_exchanged_and_numbers_mended,
    a_study, a_label_of_the_cohort, predictions_of_the_other_row, a_row_left_out,
    a_number_that_never_was,
    a_probability, a_label, a_patient, a_hard_case_left_out, a_printed_number, a_count, a_line_left_out, a_recipe,
    a_split, a_split_of_a_run, a_test_case_that_was_trained_on, another_seeds_predictions, one_run_twice,
    a_bad_run_left_out, a_seed, replicates, a_map_score, a_box, a_number_twice, a_fingerprint,
    a_label_of_a_training_case, a_patient_of_a_training_case, a_hard_case_left_out_of_a_row,
)  # fmt: skip


# every seventh kind in `make test`, all of them in `make test-all`
ASKED = [
    pytest.param(forge, id=forge.__name__, marks=() if place % 7 == 0 else pytest.mark.slow)
    for place, forge in enumerate(FORGERIES)
]


@pytest.mark.parametrize("forge", ASKED)
def test_a_forger_who_mends_the_checksums_is_caught(capsule, tmp_path, forge):
    files = files_of(capsule.path)
    forge(files, random.Random(0))
    assert files != files_of(capsule.path), "the forgery changed nothing"
    write(files, tmp_path / "forged.capsule", mended=True)
    assert not verify_capsule(tmp_path / "forged.capsule", CATALOGUE).holds


def test_what_moves_no_number_shows_in_the_published_digest_alone(capsule, tmp_path):
    files = files_of(capsule.path)
    all_probabilities_sharpened(files, random.Random(0))
    write(files, tmp_path / "forged.capsule", mended=True)
    # the table's scores ask for ranks and for calls at one half: sharper probabilities change none of them
    (problem,) = verify_capsule(tmp_path / "forged.capsule", CATALOGUE, published=capsule.digest).problems
    assert problem.endswith("was published")


def test_sources_that_mean_nothing_are_refused_in_words_by_both(table, capsule, tmp_path):
    (tmp_path / "table").mkdir()
    sound = json.loads((table / "sources.json").read_text())
    for changed, words in (
        ({"seeds": [float("nan")]}, "a seed is 'nan'"), ({"seeds": ["0", "1"]}, None), ({"seeds": []}, "no list"),
        ({"seeds": "01"}, "no list"), ({"seeds": [-1, True]}, "a seed is '-1'"), ({"replicates": 1e300}, "1e+300"),
        ({"replicates": -60}, "'-60'"), ({"replicates": True}, "whole number"), ({"replicates": 10**9}, "100,000"),
        ({"rows": {}}, "rows is no list"), ({"rows": [{**sound["rows"][0], "runs": ["../.."]}]}, "no name of a file"),
        ({"untrained": [3]}, "no object"),
        ({"rows": [{**sound["rows"][0], "seed_offset": "100"}]}, "seed_offset is '100'"),
    ):  # fmt: skip
        files = files_of(capsule.path)
        files["sources.json"] = json.dumps({**sound, **changed}).encode()
        write(files, tmp_path / "changed.capsule", mended=True)
        (problem,) = verify_capsule(tmp_path / "changed.capsule", CATALOGUE).problems
        (tmp_path / "table" / "sources.json").write_bytes(files["sources.json"])
        with pytest.raises(RunError, match="json is damaged") as refused:
            write_capsule(tmp_path / "table", tmp_path / "out.capsule")
        assert all((words or "a seed is") in text for text in (problem, str(refused.value))), changed
    assert not (tmp_path / "out.capsule").exists()


def test_any_flipped_byte_is_caught(capsule, tmp_path):
    data = capsule.path.read_bytes()
    rnd = random.Random(1)
    for k in range(FLIPPED):
        place = rnd.randrange(len(data))
        forged = tmp_path / f"{k}.capsule"
        forged.write_bytes(data[:place] + bytes([data[place] ^ (1 << rnd.randrange(8))]) + data[place + 1 :])
        try:
            found = unpack_capsule(forged, tmp_path / f"{k}")
        except RunError:
            continue
        # a flipped bit in the dates of the archive changes no file of it
        assert found.digest != capsule.digest or files_of(forged) == files_of(capsule.path), place


def test_one_letter_in_any_file_of_it_is_caught(capsule, tmp_path):
    whole = files_of(capsule.path)
    rnd = random.Random(2)
    for name, data in whole.items():
        place = rnd.choice([i for i, letter in enumerate(data) if chr(letter).isalnum()])
        letter = b"7" if data[place : place + 1] != b"7" else b"1"
        write({**whole, name: data[:place] + letter + data[place + 1 :]}, tmp_path / "one.capsule", mended=False)
        assert not verify_capsule(tmp_path / "one.capsule", CATALOGUE, published=capsule.digest).holds, name
    # beside the flipped bytes, and what is missing, strange or outside
    assert len(whole) + len(FORGERIES) + FLIPPED + 4 >= 100


def test_missing_strange_and_doubled_files_are_caught(capsule, tmp_path):
    whole = files_of(capsule.path)
    less = {name: data for name, data in whole.items() if name != "cases.csv"}
    write(less, tmp_path / "less.capsule", mended=False)
    assert "missing" in verify_capsule(tmp_path / "less.capsule", CATALOGUE).problems[0]
    write(less, tmp_path / "mended.capsule", mended=True)
    assert not verify_capsule(tmp_path / "mended.capsule", CATALOGUE).holds
    write({**whole, "more.csv": b"1"}, tmp_path / "more.capsule", mended=False)
    assert "more.csv" in verify_capsule(tmp_path / "more.capsule", CATALOGUE).problems[0]


def test_nothing_is_written_outside(capsule, tmp_path):
    write({**files_of(capsule.path), "../evil.csv": b"1"}, tmp_path / "evil.capsule", mended=True)
    with pytest.raises(RunError, match="elsewhere"):
        unpack_capsule(tmp_path / "evil.capsule", tmp_path / "in")
    assert not (tmp_path / "evil.csv").exists()


@pytest.mark.parametrize("there", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_no_folder_of_the_machine_is_told(table, tmp_path, there):
    """A table of an earlier version: runs named by where their weights lay, and taught ones that name no teacher."""
    file = tmp_path / "ada's" / "test_resnet.mine.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    old = shutil.copytree(table, tmp_path / "old")
    sources = json.loads((old / "sources.json").read_text())
    names = {run: None for row in sources["rows"] for run in row["runs"]}
    teachers = dict(zip(sources["rows"][1]["runs"], sources["rows"][0]["runs"], strict=True))
    for run in names:
        folder = old / "runs" / run
        recipe, facts = (json.loads((folder / f"{name}.json").read_text()) for name in ("recipe", "cohort"))
        recipe["model"]["backbone"]["weights"] = str(file)
        facts["run_identity"] = names[run] = digest_identity(json.dumps(recipe), facts["fingerprint"])
        if run in teachers:
            parts = {"teacher": facts.pop("parts")["teacher"].replace(teachers[run], names[teachers[run]])}
            names[run] = digest_identity(json.dumps(recipe), facts["fingerprint"], parts)
            facts["fingerprint"] = facts.pop("fingerprint_with_marks")
            facts["run_identity"] = digest_identity(json.dumps(recipe), facts["fingerprint"])
        (folder / "recipe.json").write_text(json.dumps(recipe))
        (folder / "cohort.json").write_text(json.dumps(facts))
        folder.rename(old / "runs" / names[run])
    for row in sources["rows"]:
        row["runs"] = [names[run] for run in row["runs"]]
    sources["command"] = sources["environment"]["command"] = f"sightline table x --weights {file.name} --out={old}"
    (old / "sources.json").write_text(json.dumps(sources))
    if not there:
        file.unlink()
    files = files_of(write_capsule(old, tmp_path / "old.capsule").path)
    assert not any(str(tmp_path).encode() in data for data in files.values())
    assert verify_capsule(tmp_path / "old.capsule", CATALOGUE).problems == ()
    recipes = [json.loads(data) for name, data in files.items() if name.endswith("recipe.json")]
    digest = f"sha256:{hashlib.sha256(b'weights').hexdigest()}/"
    assert {recipe["model"]["backbone"]["weights"] for recipe in recipes} == {f"{digest if there else ''}{file.name}"}
    facts = [json.loads(data) for name, data in files.items() if name.endswith("cohort.json")]
    assert {each["trained_as"] for each in facts} == set(names.values())


def test_predictions_of_other_cases_are_refused(table, tmp_path):
    """They would go into the capsule beside numbers that were computed from others."""
    old = tmp_path / "old"
    shutil.copytree(table, old)
    (run, *_) = json.loads((old / "sources.json").read_text())["rows"][1]["runs"]
    stamp, answers = (old / "runs" / run / "predictions" / f"test.{end}" for end in ("json", "csv"))
    kept = stamp.read_text()
    stamp.write_text(json.dumps({**json.loads(kept), "cohort": "0" * 16}))
    with pytest.raises(RunError, match="are predictions of different cohorts"):
        write_capsule(old, tmp_path / "x.capsule")
    stamp.write_text(kept)
    rows = rows_of(answers.read_bytes())
    rows[1][0] = "elsewhere"
    answers.write_bytes(text_of(rows))
    with pytest.raises(RunError, match="holds elsewhere, which the table does not test on"):
        write_capsule(old, tmp_path / "x.capsule")


def test_paths_in_commands_keep_their_last_part():
    words = "python -m x --a=/b/c /data/ada/my.csv ~/runs/1 C:\\Users\\ada\\w.safetensors rows/2 1/2"
    assert strip_folders(words) == "python -m x --a=c my.csv 1 w.safetensors rows/2 1/2"
    typed = ["x", "--rows", "guided 0.1", "/data/ada's scans/my csv", "--a=/b c/d e", "C:\\Users\\ada b\\w"]
    cut = strip_folders(shlex.join(typed))
    assert shlex.split(cut) == ["x", "--rows", "guided 0.1", "my csv", "--a=d e", "w"] and strip_folders(cut) == cut
    # of a version that left the quotes out
    assert strip_folders("x --title it's /data/ada/c") == "x --title it's c"


def test_what_is_no_capsule_is_said(tmp_path):
    (tmp_path / "text").write_text("hello")
    assert "no capsule" in verify_capsule(tmp_path / "text", CATALOGUE).problems[0]
    with pytest.raises(RunError, match="There is no capsule"):
        verify_capsule(tmp_path / "nowhere", CATALOGUE)
    with pytest.raises(RunError, match="it is a folder"):
        verify_capsule(tmp_path, CATALOGUE)
    with pytest.raises(RunError, match="no finished table"):
        write_capsule(tmp_path, tmp_path / "x.capsule")


def test_welch_over_all_that_each_row_has_is_taken_from_earlier_versions():
    from dataclasses import replace

    from sightline.evaluation.evidence import verification
    from sightline.evaluation.tables.lines import Line
    from sightline.metrics.statistics.comparison import welch

    theirs = Line("mean", "test", "centre distance in px", values=(90.0, 100.0, 85.0))
    why = "1 image left out: not defined in every run"
    now = Line(
        "guided", "test", "centre distance in px", values=(40.0, 70.0, 55.0), reference="mean", p_welch=0.04,
        why=f"{why}; compared on 9 images",
    )  # fmt: skip
    before = replace(now, p_welch=welch(now.values, theirs.values).p_value, why=why)
    again = [theirs, now]
    assert verification._compare_lines([theirs, before], again) == []
    for forged in (replace(before, p_welch=0.001), replace(before, why=""), replace(before, mean=50.0)):
        assert len(verification._compare_lines([theirs, forged], again)) == 1
