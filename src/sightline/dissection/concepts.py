"""`concepts.yaml`: what experts call a network's units, with author and date (Engstler 2022, Table 2).

The file belongs to people: what stands in it is never changed. A dissection writes it once, with a place for each unit
that it shows, and later only adds places for units that are not in it yet.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from sightline.errors import LayoutError
from sightline.io.files import write_text
from sightline.io.yaml_files import read_yaml

HEAD = """\
# What the units of a network respond to, in experts' words.
#
# Look at galleries/unit_NNN.png, then fill in below: text, who says so, and when (YYYY-MM-DD). A unit that shows no
# one thing may stay empty, or be called `mixed`. Nothing you write here is ever changed by the program.
# Numbers of units mean something in this network alone; run and layer below say which one it is.

"""
_FIELDS = ("text", "author", "date")


@dataclass(frozen=True)
class Concept:
    """What an expert says of one unit.

    Attributes:
        unit: its number in the layer.
        text: the concept, in the expert's words; empty where nobody has named it.
        author: who said so.
        date: when, as YYYY-MM-DD.
    """

    unit: int
    text: str = ""
    author: str = ""
    date: str = ""

    @property
    def signed(self) -> str:
        """Author and date in one line; empty where neither stands."""
        return ", ".join(word for word in (self.author, self.date) if word)


@dataclass(frozen=True)
class Concepts:
    """All of a file.

    Attributes:
        weights: digest of the network's weights.
        layer: name of the layer.
        units: by number, in the file's order.
    """

    weights: str
    layer: str
    units: Mapping[int, Concept]


def read_concepts(path: Path) -> Concepts:
    """Read a `concepts.yaml`.

    Raises:
        LayoutError: no such file, not YAML, not this layout, or a unit twice; with the number of the line.
    """
    root = read_yaml(path, "Point at a concepts.yaml that a dissection wrote.").root
    head = _read_mapping(path, root, "the file", ("run", "weights", "layer", "units"))
    for name in ("weights", "layer", "units"):
        if name not in head:
            raise LayoutError(f"{path} has no `{name}`.", "Restore the lines that the dissection wrote.")
    units: dict[int, Concept] = {}
    for key, node in _list_pairs(path, head["units"], "units"):
        if not key.value.isdecimal():
            raise _build_error(path, key, f"{key.value!r} is no number of a unit", "Write whole numbers, e.g. `17:`.")
        unit = int(key.value)
        if unit in units:  # 7 and 07
            raise _build_error(path, key, f"unit {unit} stands there twice", "Keep one of them.")
        fields = _read_mapping(path, node, f"unit {unit}", _FIELDS)
        words = {name: _read_text(path, fields[name], f"{name} of unit {unit}") for name in fields}
        if words.get("date"):
            try:
                datetime.date.fromisoformat(words["date"])
            except ValueError:
                raise _build_error(
                    path, fields["date"], f"{words['date']!r} is no date", "Write it as YYYY-MM-DD."
                ) from None
        units[unit] = Concept(unit, **words)
    return Concepts(_read_text(path, head["weights"], "weights"), _read_text(path, head["layer"], "layer"), units)


def keep_concepts(
    path: Path, *, run: str, weights: str, layer: str, units: Sequence[tuple[int, str]]
) -> Mapping[int, Concept]:
    """Write the file where there is none, add places for units that it lacks, and give what it says.

    Args:
        path: `concepts.yaml`.
        run: identity of the run.
        weights: digest of its weights.
        layer: that was dissected.
        units: number and a remark (rank and scores) for each unit that has a gallery, first ranks first.

    Raises:
        LayoutError: the file is malformed, or names units of another network or layer.
    """
    if not path.exists():
        head = f"{HEAD}run: {_quote(run)}\nweights: {_quote(weights)}\nlayer: {_quote(layer)}\nunits:\n"
        write_text(path, head + "".join(_format_place(unit, remark) for unit, remark in units))
        return read_concepts(path).units
    there = read_concepts(path)
    if (there.weights, there.layer) != (weights, layer):
        raise LayoutError(
            f"{path} names units of layer {there.layer} of the weights {there.weights}; this is layer {layer} of "
            f"{weights}.",
            "The same numbers mean other units there. Move the file away, or choose another --out.",
        )
    missing = [(unit, remark) for unit, remark in units if unit not in there.units]
    if not missing:
        return there.units
    old = path.read_text(encoding="utf-8")
    added = (
        old + ("" if old.endswith("\n") else "\n") + "".join(_format_place(unit, remark) for unit, remark in missing)
    )
    trial = path.with_name(path.name + ".trial")
    try:
        trial.write_text(added, encoding="utf-8")
        kept = read_concepts(trial).units
        # a file that somebody has rearranged may not end with its units: then it stays as it is
        if {unit: kept.get(unit) for unit in there.units} == dict(there.units):
            trial.replace(path)
            return kept
    except LayoutError:
        pass
    finally:
        trial.unlink(missing_ok=True)
    return there.units


def _format_place(unit: int, remark: str) -> str:
    words = "".join(f'    {name}: ""\n' for name in _FIELDS)
    return f"  {unit}:  # {remark}\n{words}"


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _list_pairs(path: Path, node: yaml.Node | None, what: str) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    if node is None:
        raise LayoutError(f"{path} is empty.", "Delete it; the dissection writes a new one.")
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null":
        return []
    if not isinstance(node, yaml.MappingNode):
        raise _build_error(
            path, node, f"{what} must be names with values", "Write `name: value` lines, indented alike."
        )
    return list(node.value)


def _read_mapping(path: Path, node: yaml.Node | None, what: str, known: tuple[str, ...]) -> dict[str, yaml.Node]:
    found: dict[str, yaml.Node] = {}
    for key, value in _list_pairs(path, node, what):
        if key.value not in known:
            raise _build_error(path, key, f"{what} has no {key.value!r}", f"It has {', '.join(known)}.")
        found[key.value] = value
    return found


def _read_text(path: Path, node: yaml.Node, what: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _build_error(path, node, f"{what} must be words", 'Put them in double quotes ("...").')
    return "" if node.tag == "tag:yaml.org,2002:null" else " ".join(str(node.value).split())


def _build_error(path: Path, node: yaml.Node, problem: str, remedy: str) -> LayoutError:
    return LayoutError(f"{path}, line {node.start_mark.line + 1}: {problem}.", remedy)
