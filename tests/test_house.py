"""The map of docs/house.md, held with ast: arrows only point down, workshops are blind to each other."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "sightline"

NOUNS = ("errors", "frame", "tag", "gaze", "region", "case", "evidence")
WORKSHOPS = ("io", "models", "guidance", "explain", "measure")
FLOORS = (NOUNS, WORKSHOPS, ("cohorts",), ("lab",), ("papers",), ("cli", "web"))
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# within the nouns, each may know only those before it
FORBIDDEN_WORDS = ("utils", "core", "common", "helpers", "base", "manager", "handler")
LIGHT = ("cli",)
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
)


def room_of(module: str) -> str:
    """`sightline.cohorts.folder` -> `cohorts`; `sightline` itself -> the empty room."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(code: str) -> set[str]:
    """Every module a file imports, anywhere in it, type-only imports included."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "sightline"}
    return found


def complaints(place: str, code: str) -> list[str]:
    """What a file's imports break. `place` is its module, e.g. `sightline.measure.auc`."""
    room, found = room_of(place), []
    for module in sorted(imports(code)):
        if module == "torch" or module.startswith("torch."):
            if room == "measure":
                found.append(f"{place} imports {module}: scores are recomputed from saved predictions")
            continue
        if not module.startswith("sightline"):
            continue
        other = room_of(module)
        if other in ("", "__version__", room):
            continue
        if FLOOR[other] > FLOOR[room]:
            found.append(f"{place} imports {module}: arrows only point down")
        elif room in WORKSHOPS and other in WORKSHOPS:
            found.append(f"{place} imports {module}: workshops are blind to each other")
        elif room in NOUNS and NOUNS.index(other) > NOUNS.index(room):
            found.append(f"{place} imports {module}: a noun knows only simpler nouns")
        elif room == "lab" and other in ("models", "guidance"):
            found.append(f"{place} imports {module}: lab meets models and losses through protocols")
    return found


def modules() -> dict[str, Path]:
    return {
        ".".join(("sightline", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in sorted(SOURCE.rglob("*.py"))
    }


@pytest.mark.parametrize("place", [m for m in modules() if m != "sightline"])
def test_arrows_point_down(place):
    assert complaints(place, modules()[place].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("sightline.frame", "from sightline.case import Case"),
        ("sightline.guidance.new", "def f():\n    from sightline.models.backbones import Backbone"),
        ("sightline.measure.new", "import torch.nn"),
        ("sightline.cohorts.new", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sightline.lab.run"),
        ("sightline.lab.new", "from sightline.models.class_maps import ClassMapModel"),
        ("sightline.io.new", "from sightline import cli"),
    ],
)
def test_a_planted_import_is_found(place, code):
    assert len(complaints(place, code)) >= 1


def test_no_circles():
    graph = {
        name: {m for m in imports(path.read_text(encoding="utf-8")) if m in modules() and m != name}
        for name, path in modules().items()
    }
    done: set[str] = set()

    def visit(name, trail):
        assert name not in trail, " -> ".join([*trail, name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, [*trail, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def test_every_room_is_on_the_map():
    rooms = {room_of(name) for name in modules()} - {""}
    assert rooms <= set(FLOOR), "a new room belongs in docs/house.md and in this test"


def test_names_say_what_they_hold():
    for name in modules():
        assert not set(name.split(".")) & set(FORBIDDEN_WORDS), name


def test_the_door_is_light():
    tree = ast.parse((SOURCE / "cli.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name if isinstance(node, ast.Import) else node.module for node in top for alias in node.names}
    assert not {n for n in names if n.split(".")[0] in HEAVY}
    assert {n for n in names if n.startswith("sightline")} == {"sightline", "sightline.errors"}


def test_nothing_executes_what_it_reads():
    for name, path in modules().items():
        code = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "pickle.load", "pickle.loads", "torch.load", "yaml.load"), name
                assert called != "importlib.import_module", name
        assert "import pickle" not in code, name
        assert "allow_pickle=True" not in code, name
