"""The code as a graph of imports; docs/rooms.md, made of the first line of every module (`make rooms`)."""

import ast
import gc
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "sightline"
PAGE = ROOT / "docs" / "rooms.md"
HEAD = """# Every file in a line

Made from the first line of each module by `make rooms`; a test fails when it is not current. What each room is for, and
what it must not do, stands in [house.md](house.md).
"""


@cache
def parsed(code: str) -> ast.Module:
    """The tree of a file, for all tests that ask; made without the collector, which would look through all trees."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(code)
    finally:
        if collecting:
            gc.enable()


@cache
def nodes_of(code: str) -> tuple[ast.AST, ...]:
    """Every node of a file."""
    return tuple(ast.walk(parsed(code)))


@cache
def read_source(path: Path) -> str:
    """The text of a file, the same object each time."""
    return path.read_text(encoding="utf-8")


WALKS = {
    "one radiograph is predicted": "sightline.inference.radiographs",
    "a training": "sightline.training.train",
    "a row of a table": "sightline.evaluation.tables.run_table",
    "a table becomes files": "sightline.evaluation.tables.report",
}


def first_imports(code: str) -> set[str]:
    """What importing a file imports: not what stands in functions, nor what is for types alone."""
    todo: list[ast.stmt] = list(parsed(code).body)
    found = set()
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            todo += [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.stmt) and not is_scope(node)]
    return found


def is_scope(node: ast.AST) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))


def loaded_by(starts: tuple[str, ...], code: dict[str, str]) -> set[str]:
    """All that importing some modules imports, ours followed to the end."""
    seen: set[str] = set()
    todo = list(starts)
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += first_imports(code[name]) if name in code else []
            # importing a part of a package runs the package first
            todo += [package for package in [name.rpartition(".")[0]] if package in code]
    return seen


def first_line(path: Path) -> str:
    """The first paragraph of a module's docstring, in one line."""
    text = ast.get_docstring(parsed(read_source(path))) or ""
    return " ".join(text.split("\n\n", 1)[0].split()).replace("|", "\\|")


def write_rooms() -> str:
    """The page: a heading a folder, a line a file."""
    lines = [HEAD]
    for folder in [SOURCE, *sorted(p for p in SOURCE.rglob("*") if (p / "__init__.py").is_file())]:
        name = folder.relative_to(SOURCE).as_posix()
        files = [p for p in sorted(folder.glob("*.py")) if p.name != "__init__.py"]
        lines += [f"## {'sightline' if name == '.' else name}", "", first_line(folder / "__init__.py"), ""]
        lines += [f"- `{path.name}`: {first_line(path)}" for path in files] + [""] * bool(files)
    return "\n".join(lines)


def count_walks() -> dict[str, int]:
    """How many files of ours each walk of docs/house.md imports before anything runs, packages not counted."""
    files = {".".join(("sightline", *p.relative_to(SOURCE).with_suffix("").parts)): p for p in SOURCE.rglob("*.py")}
    code = {name.removesuffix(".__init__"): read_source(path) for name, path in files.items()}
    return {walk: len(loaded_by((start,), code) & set(files)) for walk, start in WALKS.items()}


if __name__ == "__main__":
    if sys.argv[1:] == ["walks"]:
        print(*(f"{walk}: {count} files" for walk, count in count_walks().items()), sep="\n")
    else:
        PAGE.write_text(write_rooms(), encoding="utf-8")
