"""Results to docs/benchmarks.md: one JSON file a machine, the page drawn from all of them."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

from benchmarks.timing import Part, Result, Row

ORDER = (
    "step", "explained_step", "maps", "explain", "boxes", "reading", "memory", "patches", "dissect", "onnx",
    "workstation",
)  # fmt: skip
TITLES = {
    "step": "Training step",
    "explained_step": "Training step through a map",
    "maps": "Class maps",
    "explain": "Explainers",
    "boxes": "Boxes from maps",
    "reading": "Reading",
    "memory": "Peak memory",
    "patches": "Patches of vertebrae",
    "dissect": "Dissection",
    "onnx": "Graphs with onnxruntime",
    "workstation": "Workstation",
}
ABOUT = """# Benchmarks

`make bench` (or `python -m benchmarks`, one of `step`, `explained_step`, `maps`, `explain`, `boxes`, `reading`,
`memory`, `patches`, `dissect`, `onnx`, `workstation` by name) measures sightline against plain libraries and rewrites
this page. A machine with another name gets a section of its own.

How it is measured, so that a ratio means something:

- **Side by side.** Both sides run in one process by turns, A B A B ..., after pairs that do not count. What disturbs
  the machine disturbs both. Each pair gives one ratio; the table shows their median, least and greatest. Read a spread
  that crosses the goal as "not decided on this machine".
- **The same work.** Same pictures, weights, number format, memory layout and threads. Before anything is timed,
  the two sides are shown to compute the same thing, or the benchmark stops.
- **No seconds in the tests.** `tests/test_benchmarks.py` runs every benchmark at a toy size and holds the equality;
  speed is measured here only.

The goals are part of the project's specification: a guided step costs at most 1.05 of a plain one, a step that trains
through an explainer's map at most 3. Class maps come at least 3 times faster than Grad-CAM, and a batch of 64 images
is explained at least twice as fast as by Captum and pytorch-grad-cam. A thousand maps of 512 x 512 pixels are boxed in
under a second on one core. Patches of vertebrae are cut at least as fast as by MONAI. A dissection takes at most 1.3
times its bare forward passes, and the same memory for ten times the cases. A graph takes at most 0.90 of the time of
the eager network. Reading and memory have no goal; they are here so that a loss is seen.

`python -m benchmarks --device cuda` measures on a GPU, which is waited for before and after every call; add
`--toy` to see in a minute that everything runs. Results stand as numbers in `benchmarks/results`;
`python -m benchmarks --render` draws this page again without measuring.
"""


def slug(name: str) -> str:
    """A machine's name as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def keep(folder: Path, facts: dict[str, str], results: list[Result]) -> Path:
    """Write results into the machine's file; benchmarks that were not run again stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{slug(facts['machine'])}.json"
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for result in results:
        stored[result.name] = {"facts": facts, "result": result.plain()}
    text = json.dumps({name: stored[name] for name in ORDER if name in stored}, indent=1) + "\n"
    # numbers on one line: the file is for machines, its differences for people
    path.write_text(re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", _on_one_line, text), encoding="utf-8")
    return path


def render(folder: Path) -> str:
    """The page of every machine in a folder, with what was measured by other commands (`notes.md`) at its end."""
    sections = [_section(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]
    notes = [path.read_text(encoding="utf-8") for path in [folder / "notes.md"] if path.is_file()]
    return "\n".join([ABOUT, *(sections or ["Nothing has been measured yet.\n"]), *notes])


def summary(result: Result) -> str:
    """A result as plain lines for the terminal."""
    width = max(len(row.what) for row in result.rows)
    lines = []
    for row in result.rows:
        spread = f"({min(row.ratios):.3f} to {max(row.ratios):.3f}, n {len(row.ratios)})"
        goal = "" if row.goal is None else f"  goal {_bound(row)}: {_verdict(row)}"
        lines.append(f"  {row.what:<{width}}  {row.median:.3f} {spread}{goal}")
    return "\n".join([f"{result.name}:", *lines])


def _section(stored: dict[str, Any]) -> str:
    first = next(iter(stored.values()))["facts"]
    lines = [f"## {first['machine']}", ""]
    for name in (n for n in ORDER if n in stored):
        facts, result = stored[name]["facts"], Result.of(stored[name]["result"])
        lines += [f"### {TITLES[name]}", "", *_ratios(result), ""]
        if result.parts:
            lines += [*_parts(result.parts), ""]
        lines += [*(f"{note}\n" for note in result.notes)]
        shown = {key: value for key, value in facts.items() if key != "machine"}
        lines += ["Measured on: " + "; ".join(f"{key} {value}" for key, value in shown.items()) + ".", ""]
    return "\n".join(lines)


def _ratios(result: Result) -> list[str]:
    form = "sightline / other" if result.rows[0].form == "ours / theirs" else "other / sightline"
    lines = [
        f"| | ratio ({form}), median | min to max | n | sightline | other | goal |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result.rows:
        goal = "" if row.goal is None else f"{_bound(row)}: {_verdict(row)}"
        lines.append(
            f"| {row.what} | **{row.median:.3g}** | {min(row.ratios):.3g} to {max(row.ratios):.3g} "
            f"| {len(row.ratios)} | {_value(row.ours, row.unit)} | {_value(row.theirs, row.unit)} | {goal} |"
        )
    return lines


def _parts(parts: tuple[Part, ...]) -> list[str]:
    lines = ["| part of our step, alone | median | share of the plain step |", "|---|---|---|"]
    return lines + [f"| {p.what} | {_value(p.seconds, 's')} | {p.share:.2%} |" for p in parts]


def _bound(row: Row) -> str:
    return f"at {'most' if row.better == 'low' else 'least'} {row.goal:g}"


def _verdict(row: Row) -> str:
    return "met" if row.met else "not met"


def _value(values: tuple[float, ...], unit: str) -> str:
    middle = statistics.median(values)
    if unit != "s":
        return f"{middle:.4g} {unit}"
    return f"{middle:.3g} s" if middle >= 1.0 else f"{middle * 1e3:.3g} ms"


def _on_one_line(found: re.Match[str]) -> str:
    return "[" + " ".join(found[1].split()) + "]"
