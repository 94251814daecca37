"""The rules of docs/house.md, held with ast. Each rule is a function of (place, code) or of names, and a planted fault
shows that it can fail."""

import ast
import keyword
import re
from functools import cache
from pathlib import Path

import pytest
from support.paths import ROOT
from support.rooms import count_walks, is_scope, loaded_by, nodes_of, parsed, read_source
from support.words import EMPTY_NAMES, KNOWN_BY_NAME, VERBS, is_participle

SOURCE = ROOT / "src" / "sightline"
TESTS = ROOT / "tests"

WORKSHOPS = ("io", "models", "losses", "explainers", "metrics")
FLOORS = (
    ("errors",),
    ("structures",),
    WORKSHOPS,
    ("data",),
    ("plots", "training"),
    ("dissection",),
    ("inference",),
    ("evaluation",),
    ("papers",),
    ("web",),
    ("cli", "api"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FORBIDDEN_WORDS = ("utils", "core", "common", "helpers", "base", "manager", "handler")
HEAVY = (
    "torch",
    "numpy",
    "scipy",
    "skimage",
    "sklearn",
    "pandas",
    "matplotlib",
    "timm",
    "pydicom",
    "PIL",
    "lightning_fabric",
    "fastapi",
    "sqlalchemy",
)
MOST_ENTRIES, FEWEST_LINES, MOST_LINES = 13, 60, 420
# entries, which nobody imports or one package alone
SMALL_BY_NATURE = (
    "sightline.cli.main",
    "sightline.web.workstation.__main__",
    "sightline.web.workstation.store.migrations.env",
)


def room_of(module: str) -> str:
    """`sightline.data.split` -> `data`; `sightline` itself -> the empty room."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@cache
def imports(code: str) -> set[str]:
    """Every module or name a file imports, anywhere in it, type-only imports included."""
    found, todo = set(), list(ast.parse(code).body)
    while todo:
        node = todo.pop()
        # no expression imports
        todo += [part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.expr)]
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module.startswith("sightline")}
    return found


def broken_arrows(place: str, code: str) -> list[str]:
    """What a file's imports break. `place` is its module, e.g. `sightline.metrics.estimate`."""
    room, found = room_of(place), []
    for module in sorted(imports(code)):
        if module == "torch" or module.startswith("torch."):
            if room == "metrics":
                found.append(f"{place} imports {module}: scores are recomputed from saved predictions")
            if place.startswith("sightline.explainers.localisation"):
                found.append(f"{place} imports {module}: boxes are read without it where onnxruntime judges")
            continue
        other = room_of(module)
        if not module.startswith("sightline.") or other not in FLOOR or other == room:
            continue
        if FLOOR[other] > FLOOR[room]:
            found.append(f"{place} imports {module}: arrows only point down")
        elif FLOOR[other] == FLOOR[room]:
            found.append(f"{place} imports {module}: rooms of one floor are blind to each other")
        elif room == "training" and other in ("models", "losses"):
            found.append(f"{place} imports {module}: training meets networks and losses through protocols")
    return found


def broken_size(place: str, lines: int, importers: set[str]) -> list[str]:
    """A file has 60 to 420 lines; a smaller one serves more than one file of its own folder."""
    if lines > MOST_LINES:
        return [f"{place} has {lines} lines: a file has at most {MOST_LINES}"]
    siblings = {name for name in importers if name.rpartition(".")[0] == place.rpartition(".")[0]}
    if lines < FEWEST_LINES and len(importers) < 2 and siblings == importers and place not in SMALL_BY_NATURE:
        return [f"{place} has {lines} lines and serves {sorted(importers)} alone: it belongs into that file"]
    return []


def crowded(folder: str, entries: list[str]) -> list[str]:
    """A folder has at most 13 entries, the top excepted."""
    if folder and len(entries) > MOST_ENTRIES:
        return [f"{folder} holds {len(entries)} entries, at most {MOST_ENTRIES}: {sorted(entries)}"]
    return []


def broken_test(place: str, code: str) -> list[str]:
    """A test lies where its source does, and imports no other test. `place`: path below tests/."""
    path, found = Path(place), []
    folder = SOURCE / path.parent
    if path.name.startswith("test_") and path.parts[0] not in ("benchmarks", "fuzz", "golden") and not folder.is_dir():
        found.append(f"tests/{place} mirrors no folder of src/sightline")
    for module in imports(code):
        names = module.split(".")
        if names[0] != "sightline" and (names[-1].startswith("test_") or names[0] == "conftest"):
            found.append(f"tests/{place} imports {module}: what tests share lies in tests/support")
    return found


def modules() -> dict[str, Path]:
    return {
        ".".join(("sightline", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in sorted(SOURCE.rglob("*.py"))
    }


MODULES = modules()
CODE = {name: read_source(path) for name, path in MODULES.items()}


@cache
def import_graph() -> dict[str, set[str]]:
    """Who imports whom; asked for by tests, for every worker collects this file."""
    return {name: {m for m in imports(code) if m in MODULES and m != name} for name, code in CODE.items()}


def test_arrows_point_down():
    assert [words for place, code in CODE.items() if place != "sightline" for words in broken_arrows(place, code)] == []


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("sightline.structures.new", "from sightline.data.split import split"),
        ("sightline.losses.new", "def f():\n    from sightline.models.backbones import Backbone"),
        ("sightline.metrics.new", "import torch.nn"),
        ("sightline.explainers.localisation.new", "def f():\n    import torch"),
        (
            "sightline.data.new",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sightline.training.run",
        ),
        ("sightline.training.new", "from sightline.models.cam_classifiers import ClassMapModel"),
        ("sightline.training.new", "from sightline.plots.charts import draw"),
        ("sightline.web.new", "from sightline.cli import main"),
        ("sightline.io.new", "from sightline import cli"),
    ],
)
def test_a_planted_import_is_found(place, code):
    assert len(broken_arrows(place, code)) >= 1


def circles(graph: dict[str, set[str]]) -> list[str]:
    done: set[str] = set()
    found = []

    def visit(name, trail):
        if name in trail:
            found.append(" -> ".join([*trail, name]))
            return
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, [*trail, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    return found


def test_no_circles():
    # a package's own `__init__` may hand out what lies in it
    graph = {n: {m for m in others if not n.startswith(f"{m}.")} for n, others in import_graph().items()}
    assert circles(graph) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a -> b -> c -> a"]


def test_every_room_is_on_the_map():
    rooms = {room_of(name) for name in MODULES} - {""}
    assert rooms <= set(FLOOR), "a new room belongs in docs/house.md and in this test"


def test_files_have_a_readable_size():
    importers = {name: {n for n, others in import_graph().items() if name in others} for name in MODULES}
    found = []
    for name, path in MODULES.items():
        if path.name != "__init__.py":
            found += broken_size(name, len(CODE[name].splitlines()), importers[name])
    assert found == []
    assert broken_size("sightline.io.new", 421, {"a", "b"}) and broken_size("sightline.io.new", 59, {"sightline.io.a"})
    assert not broken_size("sightline.io.new", 59, {"a", "b"})


def test_no_folder_is_crowded():
    found = []
    for folder in [SOURCE, *(p for p in SOURCE.rglob("*") if p.is_dir() and p.name != "__pycache__")]:
        entries = [
            p.name
            for p in folder.iterdir()
            if (p.is_dir() and any(p.rglob("*.py"))) or (p.suffix == ".py" and p.name != "__init__.py")
        ]
        found += crowded(str(folder.relative_to(SOURCE)).strip("."), entries)
    assert found == []
    assert crowded("lab", [str(n) for n in range(14)])


def test_names_say_what_they_hold():
    for name in MODULES:
        assert not set(name.split(".")) & set(FORBIDDEN_WORDS), name


def test_tests_mirror_the_source():
    found = []
    for path in sorted(TESTS.rglob("*.py")):
        place = path.relative_to(TESTS).as_posix()
        if not place.startswith("support/"):
            found += broken_test(place, path.read_text(encoding="utf-8"))
    assert found == []
    assert broken_test("lab/test_new.py", "") and broken_test("io/test_new.py", "from test_image import read")


def heavy_imports(code: str) -> set[str]:
    """Heavy packages imported at module level."""
    top = [node for node in parsed(code).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name if isinstance(node, ast.Import) else node.module for node in top for alias in node.names}
    return {n for n in names if n.split(".")[0] in HEAVY}


def test_the_doors_are_light():
    for name, code in CODE.items():
        if room_of(name) in ("cli", "api", ""):
            assert not heavy_imports(code), name
            top = [node for node in parsed(code).body if isinstance(node, ast.ImportFrom)]
            ours = {node.module for node in top if node.module.startswith("sightline.")}
            assert all(room_of(m) in ("cli", "api", "errors") for m in ours), (name, ours)
    assert heavy_imports("import numpy as np") == {"numpy"}


def test_nothing_executes_what_it_reads():
    for name, code in CODE.items():
        for node in nodes_of(code):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "pickle.load", "pickle.loads", "torch.load", "yaml.load"), name
        assert "import pickle" not in code, name
        assert "allow_pickle=True" not in code, name


# what `sightline predict` loads before it reads a radiograph, and what it must not
PREDICTING = ("sightline.inference.radiographs", "sightline.papers.catalogue", "sightline.training.run")
NOT_OF_RADIOGRAPHS = (
    "matplotlib", "nibabel", "monai", "pandas", "sklearn", "highdicom", "sightline.plots", "sightline.io.ct",
    "sightline.io.nifti", "sightline.io.volume", "sightline.data.spine", "sightline.data.datasets",
    "sightline.data.phantoms", "sightline.inference.ct", "sightline.dissection", "sightline.evaluation",
)  # fmt: skip


def heavy_for(starts: tuple[str, ...], code: dict[str, str]) -> list[str]:
    return sorted(
        name for name in loaded_by(starts, code) if any(f"{name}.".startswith(f"{h}.") for h in NOT_OF_RADIOGRAPHS)
    )


def test_predicting_a_radiograph_loads_no_ct_stack_and_no_plots():
    assert heavy_for(PREDICTING, CODE) == []
    planted = {
        "sightline.a": "from sightline.b import f",
        "sightline.b": "try:\n    import nibabel.x\nfinally:\n    pass",
    }
    assert heavy_for(("sightline.a",), planted) == ["nibabel.x"]
    assert heavy_for(("sightline.b",), {"sightline.b": "def f():\n    import nibabel"}) == []


# files that each walk of docs/house.md imported before the house had its rooms
LONGEST_WALKS = {
    "one radiograph is predicted": 89,
    "a training": 75,
    "a row of a table": 110,
    "a table becomes files": 110,
}


def test_walks_import_fewer_files_than_before_the_rooms():
    counts = count_walks()
    assert {walk: counts[walk] for walk, most in LONGEST_WALKS.items() if not 20 < counts[walk] < most} == {}
    page = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    assert [walk for walk, count in counts.items() if not re.search(rf"{walk} .*\| {count}\b", page)] == []


SHARED_LINES = 12
_WORD = re.compile(r'[rbf]{0,2}"(?:[^"\\]|\\.)*"|\w+')


def logic_of(code: str) -> list[tuple[int, str]]:
    """The lines of function bodies with their shape: names, texts and numbers are alike; docstrings and headers out."""
    bodies, left_out = set(), set()
    for node in nodes_of(code):
        if is_scope(node):
            first, last = node.body[0], node.body[-1]
            bodies |= set(range(first.lineno, last.end_lineno + 1))
            left_out |= set(range(node.lineno, first.lineno))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            left_out |= set(range(node.lineno, node.end_lineno + 1))
    lines = code.splitlines()
    shapes = []
    for number in sorted(bodies - left_out):
        line = lines[number - 1].strip()
        shape = _WORD.sub(lambda word: word[0] if keyword.iskeyword(word[0]) else "x", line)
        # a line of brackets and commas alone says nothing, nor does a comment
        if not line.startswith("#") and set(shape) - set("()[]{}:,. "):
            shapes.append((number, shape))
    return shapes


def shared_logic(code: dict[str, str], lines: int = SHARED_LINES) -> list[str]:
    """Two places in which so many lines of function bodies have one shape: where each run begins."""
    seen: dict[tuple[str, ...], list[tuple[str, int, int]]] = {}
    for name, text in code.items():
        shapes = logic_of(text)
        for i in range(len(shapes) - lines + 1):
            seen.setdefault(tuple(s for _, s in shapes[i : i + lines]), []).append((name, i, shapes[i][0]))
    pairs = {}
    for (a, i, line), *others in seen.values():
        pairs |= {((a, i), (b, j)): f"{a}:{line} ~ {b}:{other}" for b, j, other in others[:1]}
    return [words for ((a, i), (b, j)), words in pairs.items() if ((a, i - 1), (b, j - 1)) not in pairs]


def test_no_two_places_share_twelve_lines_of_logic():
    # a step of a data base is what it was, whatever comes after it
    assert shared_logic({name: code for name, code in CODE.items() if ".migrations." not in name}) == []
    body = "".join(f"    {c} = f({c}, {n}) + {c}[{n}:{n + 1}]\n" for n, c in enumerate("abcdefghijkl"))
    renamed = body.replace("f(", "other(").replace("a", "first")
    assert shared_logic(
        {"one": f"def f():\n{body}", "two": f"x = 1\ndef g(y):\n    return 2\ndef h():\n{renamed}"}
    ) == ["one:2 ~ two:5"]
    assert shared_logic({"one": f"def f():\n{body}", "two": f"def h():\n{renamed.replace('+', '-', 3)}"}) == []


MOST_PARAMETERS = 10


def broken_calls(place: str, code: str) -> list[str]:
    """A function has at most ten parameters."""
    found = []
    for node in nodes_of(code):
        if is_scope(node):
            given = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            count = len([name for name in given if name not in ("self", "cls")])
            if count > MOST_PARAMETERS:
                found.append(f"{place}:{node.lineno} {node.name} has {count} parameters: at most {MOST_PARAMETERS}")
    return found


def test_functions_have_few_parameters():
    assert [words for name, code in CODE.items() for words in broken_calls(name, code)] == []
    words = ", ".join(f"a{n}" for n in range(11))
    assert broken_calls("x", f"def f({words}): ...") and broken_calls("x", f"def f(self, *, {words}): ...")
    assert not broken_calls("x", f"def f(self, {words[:-5]}): ...")


# objects of other libraries, of which no protocol of ours can speak; and parts of a network by the name of a layer
ASKED_BY_NAME = {
    "sightline.data.datasets.gaze.recordings": "typing's own objects",
    "sightline.training.serialization": "typing's own objects",
    "sightline.explainers.captum": "modules of torch",
    "sightline.explainers.backprop_rules.network_activations": "functions of torch",
    "sightline.models.backbones": "networks of timm",
    "sightline.structures.pictures.raster": "pictures of Pillow",
    "sightline.io.dicom.greyscale": "elements of pydicom",
    "sightline.io.dicom.pixels": "elements of pydicom",
    "sightline.io.dicom.radiograph": "elements of pydicom",
    "sightline.io.dicom_results.header": "elements of pydicom",
    "sightline.structures.evidence": "anybody's network",
    "sightline.explainers.units.layer": "a network's parts",
    "sightline.dissection.dissect": "a network's parts",
    "sightline.papers.overrides": "a recipe's parts",
}


def asked_by_name(place: str, code: str) -> list[str]:
    """`getattr(x, "literal")` asks for what no type promises: structures/protocols alone does."""
    if place == "sightline.structures.protocols" or place in ASKED_BY_NAME:
        return []
    return [
        f"{place}:{node.lineno} {ast.unparse(node)}: say it in structures/protocols"
        for node in nodes_of(code)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr"
        if len(node.args) > 1 and isinstance(node.args[1], ast.Constant)
    ]


def test_what_types_do_not_promise_is_asked_for_in_one_place():
    assert [words for name, code in CODE.items() for words in asked_by_name(name, code)] == []
    assert asked_by_name("sightline.x", 'y = getattr(view, "crop", None)')
    assert not asked_by_name("sightline.x", "y = getattr(row, name)")
    # an exception that is none any more goes
    assert all("getattr(" in CODE[name] for name in ASKED_BY_NAME)


# one name of a class in several files: a layout of a data set is a module with `Options` and `read` (CONTRIBUTING.md)
SEVERAL_PLACES = {"Options": "what a data set's reader takes, one a layout"}


def two_things(code: dict[str, str]) -> list[str]:
    """Public classes of one name in several files."""
    places: dict[str, list[str]] = {}
    for name, text in code.items():
        for node in parsed(text).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name)
    return [f"{word}: {', '.join(files)}" for word, files in places.items() if len(files) > 1]


def test_one_class_name_means_one_thing():
    found = two_things(CODE)
    assert [words for words in found if words.partition(":")[0] not in SEVERAL_PLACES] == []
    assert two_things({"a": "class View: ...", "b": "class View: ...\nclass _Own: ..."}) == ["View: a, b"]


@cache
def functions(code: str) -> list[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Every function, and whether it is a public method; properties and context managers are no actions."""
    found = []

    def visit(node: ast.AST, in_class: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if is_scope(child):
                marks = {ast.unparse(mark).partition("(")[0].rpartition(".")[2] for mark in child.decorator_list}
                if not child.name.startswith("__") and not marks & {"property", "cached_property", "contextmanager"}:
                    found.append((child, in_class and not child.name.startswith("_")))
            visit(child, isinstance(child, ast.ClassDef))

    visit(parsed(code), False)
    return found


def broken_names(place: str, code: str) -> list[str]:
    """A function begins with a verb; a public method may be called by what it gives, never by a participle."""
    found = []
    for node, public_method in functions(code):
        first = node.name.lstrip("_").split("_")[0]
        # `_repr_png_` and its like are IPython's
        allowed = first in VERBS or first == "repr" or node.name in KNOWN_BY_NAME
        if not allowed and not (public_method and not is_participle(first)):
            found.append(f"{place}:{node.lineno} {node.name}: a function is a verb with its object")
    # a function in a function is looked through once
    inside = {id(node): node for function, _ in functions(code) for node in ast.walk(function)}
    for node in inside.values():
        name = node.arg if isinstance(node, ast.arg) else node.id if isinstance(node, ast.Name) else ""
        if name in EMPTY_NAMES and not isinstance(getattr(node, "ctx", None), ast.Load):
            found.append(f"{place}:{node.lineno} {name}: say what it holds")
    classes = {node.name.lstrip("_"): node.lineno for node in nodes_of(code) if isinstance(node, ast.ClassDef)}
    participles = [name for name in classes if name.istitle() and is_participle(name.lower())]
    return [*found, *(f"{place}:{classes[name]} {name}: a class is a noun" for name in participles)]


def test_names_say_what_functions_do():
    names = {name: code for name, code in CODE.items() if ".migrations." not in name}
    assert [words for name, code in names.items() for words in broken_names(name, code)] == []
    for planted in (
        "def laid_out(): ...",
        "def _joined(): ...",
        "def table(): ...",
        "class A:\n    def _row(self): ...",
        "class A:\n    def drawn(self): ...",
        "def read():\n    def inner_part(): ...",
        "def read():\n    said = 1",
        "def read(told): ...",
        "class Accepted: ...",
    ):
        assert len(broken_names("x", planted)) == 1, planted
    assert not broken_names("x", "class A:\n    @property\n    def drawn(self): ...\n    def mean(self): ...")
    assert not broken_names("x", "@contextmanager\ndef frozen_eval(): ...\ndef iou(): ...\ndef _build_row(): ...")


def test_every_verb_is_used():
    used = {node.name.lstrip("_").split("_")[0] for code in CODE.values() for node, _ in functions(code)}
    assert sorted(VERBS - used) == []
    assert sorted(KNOWN_BY_NAME - {node.name for code in CODE.values() for node, _ in functions(code)}) == []
