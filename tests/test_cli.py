"""The commands as a person types them: exit codes, one line of error, and files that stand where they are said to."""

import csv
import json
import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.cohorts import make_cohort
from support.layouts import write_tiny
from support.paths import DATA, ROOT

from sightline.cli.main import main
from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.io.files import hold_folder, hold_new_folder

SOURCE = str(ROOT / "src")
SHELL = "import sys; sys.argv[0] = 'sightline'; from sightline.cli import main; main()"
ON = ("--device", "cpu", "--quiet")
TINY = ("--steps", "2", "--size", "48", "--batch-size", "4", "--backbone", "test_resnet", "--weights", "none", *ON)


def shell(*words):
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", SHELL, *map(str, words)],
        capture_output=True, text=True, timeout=300, env={"PYTHONPATH": SOURCE, "PATH": "/usr/bin:/bin"},
    )  # fmt: skip


@pytest.fixture
def type_in(capsys):
    """The command in this process: exit code, standard output, standard error."""

    def typed(*words):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return typed


def refused(answer, *words):
    """Exit code 2 and one line that names what was wrong."""
    code, _, err = answer
    assert code == 2, err
    assert len(err.strip().splitlines()) == 1 and err.startswith("sightline: ") and "Traceback" not in err
    assert all(word in err for word in words), err


def test_a_reader_that_has_gone_is_no_error():
    """What `sightline version | head -0` leaves: nobody reads what is printed."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", SHELL, "version"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300,
            env={"PYTHONPATH": SOURCE, "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A cohort and a trained run, in a folder with spaces and umlauts."""
    root = tmp_path_factory.mktemp("Röntgen bilder")
    make_cohort(root / "tiny cohort")
    with pytest.raises(SystemExit) as ended:
        main(["train", "attended", "--cohort", str(root / "tiny cohort"), "--out", str(root / "run"), *TINY])
    assert ended.value.code == 0
    return root


# -- in a process of its own ------------------------------------------------------------------------------------------


def test_a_process_that_reads_pictures_and_was_ended_is_one_line(type_in, monkeypatch):
    def fail(command):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr("sightline.cli.tables.Version.run", fail)
    refused(type_in("version"), "not enough memory", "(DataLoader worker (pid 7)", "fewer --replicates or --workers")


def test_help_is_light():
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    answer = shell("--help")
    spent_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert answer.returncode == 0 and not answer.stderr
    for command in ("cohort", "train", "evaluate", "predict", "table", "recipes", "demo", "version"):
        assert command in answer.stdout
    # user time does not count waiting; an import of torch alone would be several seconds
    assert spent_s < 1.5


def test_the_shell_sees_the_exit_code_and_one_line(tmp_path):
    answer = shell("cohort", "check", tmp_path)
    assert answer.returncode == 2 and answer.stdout == ""
    assert answer.stderr.startswith("sightline: ") and answer.stderr.count("\n") == 1
    assert "Remedy: " in answer.stderr


STOPPED_AT = """
import os, signal, sys
sys.argv[0] = "sightline"
place, left = os.environ["PLACE"], [int(os.environ["AT"])]

def watch(event, args):
    if event in ("open", "os.rename") and str(args[0]).startswith(place) and (event != "open" or args[2] & 3):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(watch)
from sightline.cli import main; main()
"""
ON_TINY = ("--cohort", "{place}/tiny cohort", "--out", "{out}")
LONG = {
    "import": ("cohort", "import", "folder", "{place}/tiny cohort", "{out}"),
    "phantom": ("cohort", "phantom", "radiographs", "{out}", "--studies", "2"),
    "split": ("cohort", "split", "{place}/tiny cohort", "{out}"),
    "train": ("train", "attended", *ON_TINY, *TINY),
    "evaluate": ("evaluate", "{place}/run", *ON_TINY, "--panels", "1", "--replicates", "20", *ON),
    "predict": ("predict", "{place}/run", "{place}/tiny cohort/images", "--out", "{out}", *ON),
    "explain": ("explain", "{place}/run", "{place}/tiny cohort", "--out", "{out}", "--most", "1", *ON),
    "stress": ("stress", "{place}/run", *ON_TINY, "--images", "4", "--replicates", "20", *ON),
}


@pytest.mark.parametrize("command", [name if name == "import" else pytest.param(name, marks=pytest.mark.slow)
                                     for name in LONG])  # fmt: skip
def test_ctrl_c_is_one_line_and_the_same_command_again_is_whole(place, type_in, tmp_path, command):
    out = tmp_path / "out"
    words = [word.format(place=place, out=out) for word in LONG[command]]
    env = {"PYTHONPATH": SOURCE, "PATH": "/usr/bin:/bin", "PLACE": str(out)}
    # in the middle of its files; and at one that has many, near their end
    for at in (12,) if command == "import" else (3, 12, 30):
        ended = subprocess.run(
            [sys.executable, "-c", STOPPED_AT, *words], capture_output=True, text=True, timeout=600,
            env={**env, "AT": str(at)},
        )  # fmt: skip
        assert "Traceback" not in ended.stderr
        if ended.returncode == 0:
            break  # it writes fewer files
        assert ended.returncode == 130 and ended.stderr.strip().splitlines()[-1].startswith("sightline: stopped; ")
    assert type_in(*words)[0] == 0
    assert not [file for file in out.rglob("*") if file.name.endswith((".partial", ".new", ".unfinished"))]


# -- the way through --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_phantom_then_check(type_in, tmp_path):
    out = tmp_path / "phantom ö"
    code, text, _ = type_in("cohort", "phantom", "radiographs", out, "--studies", "6")
    assert code == 0 and "6 studies" in text
    assert len(read_cohort(out)) >= 6
    code, text, _ = type_in("cohort", "check", out)
    assert text.strip().splitlines()[-1].startswith("0 errors") and code == 0


def test_train_leaves_a_run_and_goes_on_where_it_was(type_in, place):
    names = {p.name for p in (place / "run").iterdir()}
    assert {"recipe.json", "cohort.json", "weights.safetensors", "model_card.md", "DONE", "history.csv"} <= names
    code, text, _ = type_in("train", "attended", "--cohort", place / "tiny cohort", "--out", place / "run", *TINY)
    assert code == 0 and "2 steps" in text
    refused(
        type_in("train", "unguided", "--cohort", place / "tiny cohort", "--out", place / "run", *TINY), "another run"
    )


@pytest.mark.parametrize("split", ["test", "all", pytest.param("val", marks=pytest.mark.slow)])
def test_evaluate(type_in, place, tmp_path, split):
    panels = "2" if split == "test" else "0"
    words = ("evaluate", place / "run", "--cohort", place / "tiny cohort", "--split", split, "--panels", panels,
             "--replicates", "50", "--out", tmp_path, *ON)  # fmt: skip
    code, text, _ = type_in(*words)
    assert code == 0 and "image-wise" in text
    assert len(json.loads((tmp_path / "metrics.json").read_text())) > 5
    drawn = {path.stem for path in (tmp_path / "panels").glob("*.png")}
    sheets = {"best_maps", "worst_maps", "best_boxes", "worst_boxes"}
    positive = "The positive class is fracture: AUC"
    assert positive in text and positive in (tmp_path / "metrics.md").read_text(encoding="utf-8")
    assert (sheets <= drawn and len(drawn - sheets) == 2) if split == "test" else not drawn
    n = {"test": 12, "val": 4, "all": 36}[split]
    assert len(list(csv.DictReader((tmp_path / f"{split}.csv").open()))) == n


def test_predict_files_and_folders(type_in, place, tmp_path):
    pictures = sorted((place / "tiny cohort" / "images").iterdir())[:2]
    (tmp_path / "broken.png").write_bytes(pictures[0].read_bytes()[:100])
    code, text, _ = type_in("predict", place / "run", *pictures, tmp_path, "--out", tmp_path / "out", *ON)
    assert code == 0 and "2 pictures predicted, 1 file rejected" in text
    code, text, _ = type_in("predict", place / "run", tmp_path / "broken.png", "--out", tmp_path / "none", *ON)
    assert code == 1 and "0 pictures predicted" in text
    (row,) = csv.DictReader((tmp_path / "none" / "rejects.csv").open())
    assert row["reason"] and row["remedy"]


def test_table_with_two_rows(type_in, place, tmp_path, no_pictures):
    words = ("table", "liao2022/table3", "--cohort", place / "tiny cohort", "--out", tmp_path, "--rows",
             "s-512 guided 1 bbox", "--seeds", "1", *TINY)  # fmt: skip
    code, text, err = type_in(*words)
    assert code == 0 and "s-512 guided 1 bbox" in text and "s-512 baseline" in err
    assert {"table.csv", "table.md", "table.json", "report.html"} <= {p.name for p in tmp_path.iterdir()}


def test_recipes_and_version(type_in):
    from sightline import __version__

    code, text, _ = type_in("recipes")
    assert code == 0 and "liao2022/table3" in text and "guided" in text
    assert type_in("version")[:2] == (0, f"{__version__}\n")


# -- cohorts ----------------------------------------------------------------------------------------------------------


def test_check_finds_planted_leakage_and_duplicates(type_in, tmp_path):
    cohort = make_cohort(tmp_path / "c")
    rows = (tmp_path / "c" / "studies.csv").read_text().replace("S04,P04", "S04,P00")
    (tmp_path / "c" / "studies.csv").write_text(rows)
    cohort[10].image.write_bytes(cohort[0].image.read_bytes())
    code, text, _ = type_in("cohort", "check", tmp_path / "c")
    assert code == 1 and "P00" in text and "P05-0" in text and cohort[10].case_id == "P05-0"


def coco_source(root):
    (root / "images").mkdir(parents=True)
    images, marks = [], []
    for i in range(12):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (20, 30)).astype(np.uint8)).save(
            root / "images" / f"{i}.png"
        )
        images.append({"id": i, "file_name": f"{i}.png", "width": 30, "height": 20})
        if i % 2:
            marks.append({"id": i, "image_id": i, "category_id": 1, "bbox": [2, 3, 8, 6]})
    document = {"images": images, "annotations": marks, "categories": [{"id": 1, "name": "fracture"}]}
    (root / "coco.json").write_text(json.dumps(document))
    return root


def dicom_source(root):
    from support.layouts import radiograph

    for i in range(3):
        radiograph(root / "deep" / f"{i}.dcm", f"1.{i}", study=f"2.{i}", patient=f"P{i}")
    return root


SOURCES = {
    "coco": coco_source,
    "cub200": write_tiny,
    "dicom": dicom_source,
    "folder": lambda root: make_cohort(root).root,
}


@pytest.mark.parametrize("layout", SOURCES)
def test_import_and_import_again(type_in, tmp_path, layout):
    source = SOURCES[layout](tmp_path / "source")
    code, text, _ = type_in("cohort", "import", layout, source, tmp_path / "one")
    assert code == 0 and "images" in text
    first = read_cohort(tmp_path / "one")
    assert type_in("cohort", "import", "folder", tmp_path / "one", tmp_path / "two")[0] == 0
    second = read_cohort(tmp_path / "two")
    assert (first.name, first.classes, len(first)) == (second.name, second.classes, len(second))
    assert first.fingerprint() == second.fingerprint()
    for a, b in zip(first, second, strict=True):
        assert a.image.read_bytes() == b.image.read_bytes() and a.regions == b.regions and a.facts == b.facts


@pytest.mark.skipif(not (DATA / "fracatlas").is_dir(), reason="FracAtlas is not here")
def test_import_of_fracatlas(type_in, tmp_path):
    code, text, _ = type_in("cohort", "import", "fracatlas", DATA / "fracatlas", tmp_path / "one")
    assert code == 0 and "1500 images" in text
    cohort = read_cohort(tmp_path / "one")
    assert cohort.classes == ("no fracture", "fracture") and sum(c.label == "fracture" for c in cohort) == 615
    assert all(r.tag.label == "fracture" for c in cohort for r in c.regions)


def test_an_import_that_brings_nothing_says_so(type_in, tmp_path):
    (tmp_path / "source").mkdir()
    code, _, err = type_in("cohort", "import", "dicom", tmp_path / "source", tmp_path / "out")
    assert code == 1 and "no file of it could be imported as dicom" in err


def test_a_former_word_says_the_new_one(type_in):
    code, out, err = type_in("committee", "--help")
    assert code == 0 and "committee is called ensemble now" in err and "smooth" in out


def test_an_option_that_a_phantom_lacks_is_named_once(type_in, tmp_path):
    code, _, err = type_in("cohort", "phantom", "chest", tmp_path / "p", "--workers", "2")
    assert code == 2 and err.count("--workers") == 1


def test_an_option_of_another_layout_is_refused(type_in, tmp_path):
    source = make_cohort(tmp_path / "c").root
    for option, value in (("--labels", tmp_path / "l.csv"), ("--groups", tmp_path / "g.csv"), ("--per-class", 5)):
        code, _, err = type_in("cohort", "import", "folder", source, tmp_path / "o", option, value)
        assert code == 2 and "Unrecognized" in err and "import folder --help" in err


def test_a_layout_shows_its_own_options_and_no_others(type_in):
    code, out, _ = type_in("cohort", "import", "verse", "--help")
    assert code == 0 and "--positive-if" in out and "--per-class" not in out and "--labels" not in out
    code, out, _ = type_in("cohort", "import", "--help")
    assert code == 0 and "verse:" in out and "grazpedwri:" in out
    refused(type_in("cohort", "import", "nothing", "a", "b"), "nothing", "fracatlas")


# -- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("--device", "banana"), ()), (("--epochs", "0"), ("epochs",)), (("--batch-size", "1"), ("batch_size",)),
        (("--rate", "0"), ("rate",)), (("--rate", "nan"), ("rate",)), (("--seed", "-1"), ("seed",)),
        (("--weight", "0.5"), ("no guidance",)), (("--weight", "nan"), ("weight",)), (("--size", "8"), ("16 pixels",)),
        (("--size", "1000000"), ("16384", "--size 512")), (("--steps", "-1"), ("steps", "-1")),
        (("--backbone", "resnet5O"), ("resnet50",)), (("--weights", "/no/such.safetensors"), ("such.safetensors",)),
        (("--select", "auc"), ("validation",)), (("--devices", "0"), ("devices",)), (("--workers", "-1"), ("workers",)),
        (("--workers", "1000"), ("core", "got 1000", "--workers")), (("--rate", "1e300"), ("rate", "--rate 0.01")),
    ],
)  # fmt: skip
def test_mistyped_options_are_one_line_and_leave_no_folder(type_in, place, tmp_path, changes, words):
    typed = list(TINY)
    if changes[0] in typed:
        at = typed.index(changes[0])
        del typed[at : at + 2]
    answer = type_in("train", "unguided", "--cohort", place / "tiny cohort", "--out", tmp_path / "r", *typed, *changes)
    if words:
        refused(answer, *words)
    assert answer[0] == 2 and not (tmp_path / "r").exists()


def test_unknown_names_are_answered_with_the_known(type_in, place, tmp_path):
    cohort = ("--cohort", place / "tiny cohort", "--out", tmp_path / "o")
    refused(type_in("train", "gided", *cohort, *TINY), "no recipe 'gided'", "guided")
    refused(type_in("table", "table9", *cohort, *TINY), "no table 'table9'", "liao2022/table3")
    refused(type_in("table", "liao2022/table4", "--rows", "zzz", *cohort, *TINY), "contains zzz", "baseline")
    refused(type_in("table", "liao2022/table4", "--seeds", "0", *cohort, *TINY), "seeds must be 1")
    refused(type_in("stress", place / "run", "--replicates", "0", *cohort, *ON), "replicates must be 1", "Leave")
    refused(type_in("demo", "--parallel", "1000", *cohort[2:]), "parallel must be", "got 1000", "--parallel")
    refused(type_in("cohort", "phantom", "spine", tmp_path / "o", "--workers", "1000"), "got 1000")


def test_files_where_folders_belong(type_in, place, tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    cohort = ("--cohort", place / "tiny cohort")
    refused(type_in("train", "unguided", *cohort, "--out", file, *TINY))
    refused(type_in("train", "unguided", *cohort, "--out", file / "x", *TINY))
    refused(type_in("evaluate", place / "run", *cohort, "--out", file, *ON))
    refused(type_in("predict", place / "run", place / "tiny cohort" / "images", "--out", file, *ON))
    refused(type_in("cohort", "check", file), "cohort")
    whole = place / "tiny cohort"
    refused(type_in("cohort", "subset", whole, whole, "--images", 4), "among the files of the cohort")
    refused(type_in("evaluate", place / "run", *cohort, "--out", whole / "images" / "x", *ON), "outside of it")
    refused(type_in("cohort", "split", whole, tmp_path / "s", "--seed", -1), "seed must be 0 or more")
    refused(type_in("cohort", "import", "folder", place / "tiny cohort", file))
    assert file.read_text() == "x"


def test_what_is_no_run_or_no_cohort(type_in, place, tmp_path):
    refused(type_in("evaluate", tmp_path, "--cohort", place / "tiny cohort", *ON), "is not a run")
    for words in (("--panels", "-1"), ("--replicates", "0")):
        refused(type_in("evaluate", place / "run", "--cohort", place / "tiny cohort", *words, *ON), words[0].strip("-"))
    refused(type_in("predict", tmp_path, tmp_path, "--out", tmp_path / "o", *ON), "is not a run")
    refused(type_in("predict", place / "run", tmp_path / "nope", "--out", tmp_path / "o", *ON), "does not exist")
    refused(type_in("train", "unguided", "--cohort", tmp_path, "--out", tmp_path / "r", *TINY), "cohort.json")
    (tmp_path / "cohort.json").write_text("{")
    refused(type_in("train", "unguided", "--cohort", tmp_path, "--out", tmp_path / "r", *TINY), "cohort.json")
    (tmp_path / "view.json").write_text('{"kind": "view"}')
    refused(
        type_in("train", tmp_path / "view.json", "--cohort", place / "tiny cohort", "--out", tmp_path / "r", *ON),
        "View",
    )


def test_a_split_the_cohort_does_not_have(type_in, place, tmp_path):
    cohort = read_cohort(place / "tiny cohort").split("train", "test")
    write_cohort(cohort, tmp_path / "c")
    answer = type_in(
        "evaluate", place / "run", "--cohort", tmp_path / "c", "--split", "val", "--out", tmp_path / "o", *ON
    )
    refused(answer, "no case", "split")


def test_results_do_not_go_into_a_cohort_nor_over_a_file_that_is_read(type_in, place, tmp_path):
    cohort, other = place / "tiny cohort", tmp_path / "other"
    shutil.copytree(cohort, other)
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    run, read = place / "run", ("--cohort", cohort)
    refused(type_in("predict", run, other / "images", "--out", other, *ON), "among the files of the cohort")
    refused(type_in("compare", run, "--with", run, *read, "--out", other, *ON), "among the files of the cohort")
    refused(type_in("stress", run, *read, "--out", other / "stress", *ON), "among the files of the cohort")
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == before
    table = tmp_path / "mine" / "studies.csv"
    table.parent.mkdir()
    table.write_text("file,study\na.png,S\n")
    refused(type_in("predict", run, cohort / "images", "--out", table.parent, "--studies", table, *ON), "written over")
    assert table.read_text() == "file,study\na.png,S\n" and len(list(table.parent.iterdir())) == 1


def test_every_command_that_writes_a_folder_writes_it_alone(type_in, tmp_path):
    run, cohort, out = tmp_path / "run", tmp_path / "cohort", tmp_path / "out"
    inside = {
        "calibrate": ((run, "--cohort", cohort), run),
        "gate": ((run, "--cohort", cohort), run),
        "compare": ((run, "--with", run, "--cohort", cohort, "--out", out), out),
        "stress": ((run, "--cohort", cohort, "--out", out), out),
        "shortcuts": ((run, "--cohort", cohort, "--out", out), out),
        "report": ((run, "--out", out), out),
        "dissect": ((run, "--cohort", cohort, "--out", out), out),
        "export": ((run, "--out", out), out),
        "cascade": ((run, run, "--cohort", cohort, "--out", out), out),
        "ensemble": ((run, "--cohort", cohort, "--out", out), out),
        "deidentify": ((cohort, out), out),
        "table": (("liao2022/table3", "--cohort", cohort, "--out", out), out),
        "demo": (("--out", out), out),
        "cohort subset": ((cohort, out, "--images", "4"), out),
        "cohort split": ((cohort, out), out),
        "cohort gaze": ((cohort, out), out),
        "marks agree": ((cohort, "--out", out), out),
    }
    for command, (words, folder) in inside.items():
        with hold_folder(folder):
            code, _, err = type_in(*command.split(), *words)
        assert (code, "is being written into by process" in err) == (2, True), (command, err)
    beside = {
        "cohort phantom": ("radiographs", out),
        "cohort halve": (cohort, out),
        "marks export": (cohort, out),
        "capsule": (run, "--out", out),
        "node report": (tmp_path / "node.yaml", "--out", out),
        "cohort suggest": (run, "--cohort", cohort, "--out", out),
    }
    for command, words in beside.items():
        with hold_new_folder(out):
            code, _, err = type_in(*command.split(), *words)
        assert (code, "is being written into" in err) == (2, True), (command, err)


def test_none_is_typed_where_a_layout_may_stay_unsplit_and_nowhere_else(capsys):
    for words, shown in (
        (["table"], False),
        (["cohort", "import", "dicom"], False),
        (["cohort", "import", "coco"], True),
    ):
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        assert ("{None}" in capsys.readouterr().out) == shown
