"""The documentation, held to what the program does: commands run, links resolve, every recipe field is described."""

import ast
import builtins
import contextlib
import dataclasses
import io
import itertools
import json
import re
import shlex
import subprocess
import zipfile

import pytest
from support import rooms
from support.paths import ROOT

from sightline import cli, load_recipe
from sightline.data.datasets.layouts import LAYOUTS
from sightline.papers.catalogue import CATALOGUE

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(page):
    return str(page.relative_to(ROOT))


def run_command(line):
    """A `sightline ...` line in this process: what it printed on standard output, and its exit code."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        cli.main(shlex.split(line)[1:])
    return out.getvalue(), ended.value.code


CAPSULES = re.findall(
    r"sightline verify (docs/results/capsules/\S+) --digest ([0-9a-f]{12,})",
    "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "results").glob("*.md")),
)


def test_every_capsule_stands_on_a_page_with_its_digest():
    assert CAPSULES
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "results" / "capsules").iterdir()}
    assert files == {file for file, _ in CAPSULES}


def test_what_capsules_say_of_their_numbers_is_still_said_in_these_words():
    # `sightline verify` compares the words too: who rewords one breaks every capsule that holds it
    sources = [path for room in ("metrics", "evaluation") for path in (ROOT / "src/sightline" / room).rglob("*.py")]
    nodes = [node for path in sources for node in rooms.nodes_of(rooms.read_source(path))]
    written = "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    said = set()
    for file, _ in CAPSULES:
        with zipfile.ZipFile(ROOT / file) as capsule:
            lines = json.loads(capsule.read("table.json"))
        said |= {
            re.sub("patients? called fracture", "patients", line[name]) for line in lines for name in ("why", "method")
        }
    # what stands between numbers and marks came from one literal
    pieces = {piece.strip() for words in said for piece in re.split(r"[;,:()]|\b\d[\d.]*\b", words)}
    assert len(pieces) > 20 and not [piece for piece in pieces if piece not in written]


@pytest.mark.slow
@pytest.mark.parametrize(("file", "digest"), CAPSULES)
def test_the_numbers_of_a_capsule_come_out_again(file, digest):
    printed, code = run_command(f"sightline verify {ROOT / file} --digest {digest}")
    assert code == 0 and "holds" in printed


def test_every_file_has_its_line():
    written = rooms.write_rooms()
    assert rooms.PAGE.read_text(encoding="utf-8") == written, "run `make rooms`"
    assert rooms.first_line(rooms.SOURCE / "errors.py").startswith("Errors a user can act on")
    assert not [line for line in written.splitlines() if line.endswith(": ")], "a file without a first line"


def test_the_tour_runs_as_written(tmp_path, monkeypatch, few_pictures, coarse_pictures):
    monkeypatch.chdir(tmp_path)
    printed, quoted = "", 0
    for language, body in BLOCK.findall((ROOT / "docs" / "tour.md").read_text(encoding="utf-8")):
        if language == "sh":
            printed = ""
            for line in body.splitlines():
                assert line.startswith("sightline "), "only commands of ours, so that the tour runs anywhere"
                text, code = run_command(line)
                assert code == 0, line
                printed += text
        elif language == "text":
            for line in body.splitlines():
                assert line in printed.splitlines(), line
                quoted += 1
        elif language == "csv":
            assert body in [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.csv")], body
            quoted += 1
    assert quoted >= 8
    # every file that the tour explains
    for place in ("phantom", "runs/guided", "runs/guided/evaluation/phantom-wrist-test", "predicted", "table"):
        assert (tmp_path / place).is_dir(), place
    here = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")]
    tour = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
    for named in re.findall(r"`([\w./-]+\.(?:csv|json|md|html)|[\w./-]+/)`", tour):
        assert any(path.endswith(named.rstrip("/")) for path in here), named


def test_the_notebook_runs_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for language, body in BLOCK.findall((ROOT / "docs" / "notebook.md").read_text(encoding="utf-8")):
        if language == "python":
            exec(body, names)
    assert names["picture"].startswith(b"\x89PNG") and len(names["found"].to_frame()) == 1


@pytest.mark.parametrize("document", [p for p in PAGES if "```python" in p.read_text(encoding="utf-8")], ids=name_of)
def test_python_of_the_pages_runs(document):
    if "papers" not in document.parts:
        # elsewhere snippets name files of the reader's: they must be Python, and what they import must exist
        for language, body in BLOCK.findall(document.read_text(encoding="utf-8")):
            if language == "python":
                compile(body, name_of(document), "exec")
                exec("\n".join(re.findall(r"^(?:from|import) .*$", body, re.MULTILINE)), {})
        return
    names = {}
    for language, body in BLOCK.findall(document.read_text(encoding="utf-8")):
        if language == "python":
            exec(body, names)


# what a snippet takes from its reader
OF_THE_READER = {"network", "batches"}


@pytest.mark.parametrize("document", [p for p in PAGES if "```python" in p.read_text(encoding="utf-8")], ids=name_of)
def test_what_a_snippet_calls_is_imported_on_its_page(document):
    blocks = [body for language, body in BLOCK.findall(document.read_text(encoding="utf-8")) if language == "python"]
    nodes = list(ast.walk(ast.parse("\n".join(blocks))))
    known = {*dir(builtins), *OF_THE_READER}
    known |= {node.asname or node.name for node in nodes if isinstance(node, ast.alias)}
    known |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    known |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    known |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    for node in nodes:
        called = node.func if isinstance(node, ast.Call) else None
        while isinstance(called, ast.Attribute | ast.Call):
            called = called.value if isinstance(called, ast.Attribute) else called.func
        assert not isinstance(called, ast.Name) or called.id in known, called.id


def test_functions_that_pages_name_exist():
    files = [path for room in ("src", "tests", "benchmarks") for path in (ROOT / room).rglob("*") if path.is_file()]
    code = [path for path in files if path.suffix in (".py", ".yaml", ".json", ".sh")]
    written = "\n".join([*map(str, files), *(path.read_text(encoding="utf-8") for path in code)])
    # decisions keep the names of their day
    for page in [page for page in PAGES if page.parent.name not in ("decisions", "results")]:
        spans = re.findall(r"`(?:\w+\.)*([a-z]+(?:_[a-z0-9]+)+)(?:\([^`\n]*)?`", page.read_text(encoding="utf-8"))
        # prometheus adds the last word of a counter's name, and the metrics their first
        plain = [span.removeprefix("sightline_").removesuffix("_total") for span in spans]
        assert not [name for name in plain if name not in written], page.name


def test_extras_are_installed_under_our_own_name():
    # on the package index `sightline` is another project
    for file in tracked_files():
        if file.suffix in (".py", ".md") and file.is_file():
            assert not re.search(r"(?<![\w-])sightline\[\w", file.read_text(encoding="utf-8")), file


def heading_anchor(title):
    text = re.sub(r"[^\w\- ]", "", title.replace("`", "").lower())
    return text.strip().replace(" ", "-")


@pytest.mark.parametrize("document", PAGES, ids=name_of)
def test_links_and_pictures_resolve(document):
    text = BLOCK.sub("", document.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        assert there.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [heading_anchor(title) for title in titles], target


def commands_in(text):
    """Every `sightline ...` in a code span or at the start of a code line."""
    spans = re.findall(r"`(sightline [^`\n]+)`", text)
    lines = re.findall(r"^(?:    |\$ )?(sightline \w[^\n]*)$", text, re.MULTILINE)
    return [re.split(r"\s#|\|\s", found)[0] for found in (*spans, *lines)]


def test_commands_are_found():
    assert commands_in("see `sightline train A --out B` and\n\n    sightline table x  # why\n") == [
        "sightline train A --out B",
        "sightline table x ",
    ]


# commands of several words
GROUPS = ("cohort", "readers", "reads", "marks", "node")
HELP = {}


def help_of(*words):
    if words not in HELP:
        HELP[words] = run_command(shlex.join(["sightline", *words, "--help"]))[0]
    return HELP[words]


@pytest.mark.parametrize("document", PAGES, ids=name_of)
def test_every_command_and_option_exists(document):
    top = set(re.search(r"\{([\w,]+)\}", help_of()).group(1).split(","))
    for command in commands_in(document.read_text(encoding="utf-8")):
        words = command.split()[1:]
        if words[0].isupper() or words[0].startswith("-"):
            continue
        assert words[0] in top, command
        head = words[:2] if words[0] in GROUPS and len(words) > 1 else words[:1]
        if words[:2] == ["cohort", "import"] and len(words) > 2 and words[2] in LAYOUTS:
            head = words[:3]
        if words[0] == "cohort" and len(head) > 1:
            assert head[1] in re.search(r"\{([\w,]+)\}", help_of("cohort")).group(1).split(","), command
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", command):
            assert option == "--help" or re.search(rf"{option}\b", help_of(*head)), command


def test_a_documented_search_is_of_fields_that_the_recipe_has():
    commands = [command.split() for page in PAGES for command in commands_in(page.read_text(encoding="utf-8"))]
    searches = [words for words in commands if words[1] == "search" and len(words) > 2 and words[2].islower()]
    assert searches
    for words in searches:
        for field in itertools.takewhile(lambda word: "=" in word, words[words.index("--field") + 1 :]):
            part = load_recipe(words[2])
            for name in field.partition("=")[0].split("."):
                assert hasattr(part, name), f"{words[2]} has no {field}"
                part = getattr(part, name)


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (("train",), "RECIPE"),
        (("predict",), "RUN INPUT [INPUT ...]"),
        (("cohort", "split"), "SOURCE DESTINATION"),
        (("cohort", "import", "folder"), "SOURCE DESTINATION"),
    ],
)
def test_usage_names_what_stands_where(words, usage):
    first = help_of(*words).splitlines()[0]
    assert first.startswith("usage: sightline " + " ".join(words)) and first.endswith(f" {usage}")


def test_the_page_of_commands_names_every_command():
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for command in re.search(r"\{([\w,]+)\}", help_of()).group(1).split(","):
        assert f"`sightline {command}" in text, command
    for action in re.search(r"\{([\w,]+)\}", help_of("cohort")).group(1).split(","):
        assert f"`sightline cohort {action}" in text, action


def default_of(field):
    """A field's default as docs/runs.md writes it."""
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "required"
    words = {cls: word for word, cls in CATALOGUE.items()}
    if type(value) in words:
        return f"`{words[type(value)]}`"
    return f"`{value}`" if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("word", CATALOGUE)
def test_every_word_of_a_recipe_is_described(word):
    text = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")
    section = re.search(rf"^### `{word}`$(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, f"docs/runs.md has no section `{word}`"
    described = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section.group(1), re.MULTILINE))
    fields = [field for field in dataclasses.fields(CATALOGUE[word]) if field.init]
    assert described == {field.name: default_of(field) for field in fields}


def tracked_files():
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
        return [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        # an unpacked archive
        return [p for place in ("src", "tests", "docs", "benchmarks") for p in (ROOT / place).rglob("*") if p.is_file()]


# put together here, so that this file does not hold what it forbids
HOSTS = ("pypi" + ".org", "files.python" + "hosted.org", "hugging" + "face.co", "ana" + "conda.org", "npm" + "js.com")
PLACES = tuple("/" + place + "/" for place in ("work", "home", "root", "Users", "tmp"))


def test_no_registry_hosts_and_no_paths_of_one_machine():
    suffixes = {".py", ".md", ".toml", ".txt", ".cff", ".json", ".csv", ".html", ".yml", ".yaml", ""}
    files = [f for f in tracked_files() if f.suffix in suffixes and f.is_file()]
    assert len(files) > 50 or not (ROOT / ".git").exists()
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        found = [host for host in HOSTS if host in text]
        found += [place for place in PLACES if re.search(rf"(?<![\w.]){re.escape(place)}", text)]
        assert not found, f"{file.relative_to(ROOT)}: {found}"


def test_the_house_names_every_room():
    text = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    for place in sorted((ROOT / "src" / "sightline").iterdir()):
        if place.name.startswith("__") or place.suffix not in ("", ".py"):
            continue
        assert (f"`{place.name}/`" if place.is_dir() else f"`{place.name}`") in text, place.name
    numbers = [page.name[:3] for page in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))]
    assert numbers == [f"{n + 1:03}" for n in range(len(numbers))], "a decision has a number of its own"


def test_a_command_in_a_message_can_be_copied_whatever_the_folder_is_called():
    # a path after `sightline WORD` or `chmod` comes through quote_command, never bare into the text
    bare, foreign = [], []
    for path in sorted((ROOT / "src" / "sightline").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        foreign += [
            (path.name, line) for line in text.splitlines() if re.search(r"pip install '?sightline(?!-radiology)", line)
        ]
        for node in rooms.nodes_of(rooms.read_source(path)):
            parts = node.values if isinstance(node, ast.JoinedStr) else []
            for before, after in itertools.pairwise(parts):
                command = isinstance(before, ast.Constant) and re.search(
                    r"\b(sightline (?!cohort import )[a-z]+( [a-z]+)?( [A-Z]+)*( --\S+ \S+)*|chmod \d+) $", before.value
                )
                if command and isinstance(after, ast.FormattedValue):
                    bare.append((path.name, ast.unparse(node)))
    assert not bare
    assert not foreign, "the distribution is called sightline-radiology"
