"""What a reader should know of a trained network before using it, written from the run's own papers."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.io.files import write_text
from sightline.training.run import Run


def write_model_card(run: Run) -> Path:
    """`model_card.md` in the run folder: what was trained, on what, how it did on validation, and its limits."""
    environment = json.loads((run.folder / "environment.json").read_text(encoding="utf-8"))
    counts = run.cohort["counts"]
    recipe = run.recipe
    rows = _history(run.folder / "history.csv")
    kept = kept_epoch(rows, recipe.select)
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
        f"## Validation, {_epoch_words(rows, kept, recipe.select)}",
        "",
        *(
            [f"- {key}: {value}" for key, value in rows[kept].items() if key.startswith("val_") and value]
            if rows
            else []
        ),
        *([] if rows and any(v for k, v in rows[kept].items() if k.startswith("val_")) else ["- none"]),
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


def kept_epoch(rows: Sequence[Mapping[str, str]], select: str) -> int:
    """Index of the epoch whose weights were kept: the first of the best ones, the last where nothing chose.

    Args:
        rows: of history.csv.
        select: `last`, `loss`, or a score of validation such as `auc`.
    """
    scores = [
        (-float(text) if select == "loss" else float(text), -i)
        for i, row in enumerate(rows)
        if select != "last" and (text := row.get(f"val_{select}"))
    ]
    return -max(scores)[1] if scores else len(rows) - 1


def _epoch_words(rows: Sequence[Mapping[str, str]], kept: int, select: str) -> str:
    if not rows:
        return "never trained"
    place = f"epoch {kept + 1} of {len(rows)}"
    return f"{place}, whose weights are kept" + ("" if select == "last" else f" (best val_{select})")


def _history(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        # put together from other runs, never trained
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
