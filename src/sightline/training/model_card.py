"""What a reader should know of a trained network before using it, written from the run's own papers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.io.files import write_text
from sightline.training.run import Run


def write_model_card(run: Run) -> Path:
    """`model_card.md` in the run folder: what was trained, on what, how it did on validation, and its limits."""
    environment = json.loads((run.folder / "environment.json").read_text(encoding="utf-8"))
    counts = run.cohort["counts"]
    last = _last_row(run.folder / "history.csv")
    recipe = run.recipe
    guided = (
        f"{type(recipe.guidance).__name__}, weight {recipe.weight:g}, {recipe.regions.role} regions as "
        f"{recipe.regions.style}, guiding {recipe.regions.classes} class maps"
        if recipe.guidance is not None and recipe.weight > 0
        else "none"
    )
    splits = [f"| {name} | " + " | ".join(str(n) for n in counts[name].values()) + " |" for name in counts]
    text = [
        f"# {recipe.title}",
        "",
        f"Classes, in order: {', '.join(run.classes)}. Guidance: {guided}.",
        f"Input: {_input(recipe.view)}; seed {recipe.seed}.",
        "",
        f"## Trained on {run.cohort['name']} (fingerprint {run.cohort['fingerprint']})",
        "",
        "| images | " + " | ".join(run.classes) + " |",
        "|---" * (1 + len(run.classes)) + "|",
        *splits,
        "",
        *(f"- {key}: {value}" for key, value in run.cohort.get("about", {}).items()),
        "",
        "## Validation, last epoch",
        "",
        *([f"- {key}: {value}" for key, value in last.items() if key.startswith("val_") and value] or ["- none"]),
        "",
        *([f"Put together from: {_parts(run)}.", ""] if "parts" in run.cohort else []),
        "## Limits",
        "",
        "- Validation numbers choose settings; report test numbers, from `sightline evaluate`, once.",
        "- A map shows where the network looked, not what is there.",
        "- It has seen only the cohort above: another hospital, device or projection must be tested first.",
        "- Not a medical device; nothing here has been cleared for clinical use.",
        "",
        "## Made with",
        "",
        f"- sightline {environment['sightline']}, Python {environment['python']}, {environment['processor']}",
        *(f"- {name} {version}" for name, version in environment["packages"].items()),
        f"- run identity {run.identity}",
        "",
    ]
    path = run.folder / "model_card.md"
    write_text(path, "\n".join(text))
    return path


def _input(view: View | VolumeView) -> str:
    side = view.size
    if isinstance(view, VolumeView):
        low, high = view.window_hu
        return f"{side} x {side} x {side} voxels from the middle of a patch, {low:g} to {high:g} HU"
    return f"{side} x {side} pixels, padded to square"


def _parts(run: Run) -> str:
    return ", ".join(f"{name} of run {identity}" for name, identity in run.cohort["parts"].items())


def _last_row(path: Path) -> dict[str, str]:
    if not path.is_file():
        # put together from other runs, never trained
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return rows[-1] if rows else {}
