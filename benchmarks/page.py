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

Speed and memory of sightline beside plain libraries (PyTorch, timm, torchvision, MONAI, Captum, pytorch-grad-cam), with
the goals that were met and those that were not. `make bench` measures again and rewrites this page; `python -m
benchmarks NAME` runs one benchmark: `step`, `explained_step`, `maps`, `explain`, `boxes`, `reading`, `memory`,
`patches`, `dissect`, `onnx` or `workstation`. A machine with another name gets a section of its own.

How it is measured:

- **Side by side.** Both sides run in one process by turns, A B A B ..., after warm-up pairs that do not count, so other
  work on the machine disturbs both. Each pair gives one ratio; the table shows their median, minimum and maximum. If
  the range crosses the goal, the goal is not decided on this machine.
- **The same work.** Same pictures, weights, number format, memory layout and threads. Before anything is timed,
  both sides are shown to compute the same thing, or the benchmark stops.
- **No timing in the tests.** `tests/benchmarks` runs the benchmarks at a toy size and checks that both sides agree;
  speed is measured here only.

| what | goal |
|---|---|
| guided training step | at most 1.05 times a plain one |
| training step through an explainer's map | at most 3 times a plain one |
| class maps | at least 3 times faster than Grad-CAM |
| explaining a batch of 64 images | at least twice as fast as Captum and pytorch-grad-cam |
| boxes of a thousand maps of 512 x 512 pixels | under a second on one core |
| cutting patches of vertebrae | at least as fast as MONAI |
| dissection | at most 1.3 times its bare forward passes; the same memory for ten times the cases |
| exported graph | at most 0.90 of the time of the eager network |
| reading, memory | none; measured so that a regression is seen |

`python -m benchmarks --device cuda` measures on a GPU and synchronises it before and after every call; `--toy`
shows in a minute that everything runs. The numbers are in `benchmarks/results`; `python -m benchmarks --render`
writes this page again without measuring.
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
