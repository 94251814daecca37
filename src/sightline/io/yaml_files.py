"""YAML that people write, by one reader: no word twice in one place, no objects, nothing that unfolds without end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sightline.errors import LayoutError
from sightline.io.tables import read_text

MOST_BYTES, MOST_VALUES, DEEPEST = 2**20, 100_000, 40
# of a number: more digits than any float or whole number here needs
LONGEST_NUMBER, MOST_BITS = 100, 63
_FIX = "Fix the line: indent by blanks, not tabs; put texts in quotes that hold signs."


@dataclass(frozen=True)
class YamlFile:
    """What a YAML file holds.

    Attributes:
        data: as Python's own kinds; None where the file is empty.
        root: the same as nodes, which know their lines.
    """

    data: Any
    root: yaml.Node | None


def read_yaml(path: Path, remedy: str) -> YamlFile:
    """Read a YAML file as PyYAML's safe loader does, with less trust.

    Refused are: a word twice in one place, of which that loader keeps the last, `<<` among them (`<<: [*a, *b]` merges
    two); words that are lists; more than MOST_VALUES values when every alias is unfolded, an alias within itself, and
    more than DEEPEST places inside each other; numbers beyond 64 bits.

    Args:
        path: the file, in UTF-8 or UTF-16.
        remedy: where there is none.

    Raises:
        LayoutError: one line, with the number of the line in the file where it has one.
    """
    text = read_text(path, remedy)
    if len(text) > MOST_BYTES:
        raise LayoutError(
            f"{path} holds {len(text):,} characters; at most {MOST_BYTES:,} were expected.", "Point at another file."
        )
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            _require_bounded(path, root, 0, {}, set())
        return YamlFile(_Loader(text).get_single_data(), root)
    except RecursionError:
        raise LayoutError(f"{path} holds words inside each other without end.", "Restore the file.") from None
    except yaml.YAMLError as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else " ".join(str(error).split())[:160]
        place = "" if mark is None else f", line {mark.line + 1}"
        raise LayoutError(f"{path}{place}: not YAML ({problem}).", _FIX) from None


class _Loader(yaml.SafeLoader):
    """The safe loader, whose refusals of single values are errors of YAML that know their line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            if isinstance(node, yaml.ScalarNode):
                # half a letter, as "\ud800" writes it, is in no file
                node.value.encode()
            return super().construct_object(node, deep)
        except (ValueError, AttributeError, TypeError, ArithmeticError) as error:
            # a day that is none, or a tag such as !!int before a text
            value = f"{node.value[:40]!r}, " if isinstance(node, yaml.ScalarNode) else ""
            raise _build_problem(node, f"{value}a value that is none: {error}") from None

    def construct_number(self, node: yaml.ScalarNode) -> float:
        """A number whose length and size are bounded: longer ones take hours, and cannot be printed."""
        if len(node.value) > LONGEST_NUMBER:
            raise _build_problem(node, f"a number of {len(node.value):,} signs")
        if node.tag.endswith(":float"):
            return float(self.construct_yaml_float(node))
        number = int(self.construct_yaml_int(node))
        if number.bit_length() > MOST_BITS:
            raise _build_problem(node, f"the number {node.value[:40]} is beyond 64 bits")
        return number


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)


def _build_problem(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _require_bounded(
    path: Path, node: yaml.Node, depth: int, known: dict[int, tuple[int, int]], above: set[int]
) -> tuple[int, int]:
    """Values and depth of a node with every alias unfolded; refuses what has no end, and words that are twice."""
    if id(node) in above:
        raise LayoutError(f"{path}, line {node.start_mark.line + 1}: an alias holds itself.", "Write it out.")
    if id(node) not in known:
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = _list_values(path, node)
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        within = above | {id(node)} if parts else above
        found = [_require_bounded(path, part, depth + 1, known, within) for part in parts]
        known[id(node)] = 1 + sum(n for n, _ in found), 1 + max((deep for _, deep in found), default=0)
    values, deep = known[id(node)]
    if values > MOST_VALUES or depth + deep > DEEPEST:
        raise LayoutError(
            f"{path}, line {node.start_mark.line + 1}: more than {MOST_VALUES:,} values with every alias unfolded, or "
            f"more than {DEEPEST} places inside each other.",
            "Write out what is meant.",
        )
    return values, deep


def _list_values(path: Path, node: yaml.MappingNode) -> list[yaml.Node]:
    words: set[str] = set()
    for key, _ in node.value:
        line = f"{path}, line {key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise LayoutError(f"{line}: a word must be a text, not a list.", "Write `word: value`.")
        if key.value in words:
            raise LayoutError(f"{line}: {key.value!r} stands twice.", "Fix the line: keep one of them.")
        words.add(key.value)
    return [value for _, value in node.value]
