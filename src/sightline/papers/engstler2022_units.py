"""Tables 2 and 3 of Engstler 2022: a trained row is dissected; its first units by rank, and its units on one case."""

from __future__ import annotations

from pathlib import Path

from sightline.errors import RunError
from sightline.lab.case_of_cohort import panel_of_case
from sightline.lab.case_panel import case_words, draw_case_panel
from sightline.lab.dissect import dissect
from sightline.lab.dissection import Dissection
from sightline.lab.engine import Engine
from sightline.lab.run import open_run, write_text
from sightline.lab.table import TableResult
from sightline.measure.predictions import Predictions
from sightline.papers.catalogue import CATALOGUE

# as many as the paper looks at
UNITS = 10


def after_table(result: TableResult, out: Path, engine: Engine) -> str:
    """What a table shows of units besides its rows: `units.md` and `case.png` of its first row's first training.

    Args:
        result: a table that ran.
        out: its folder.
        engine: the device.

    Returns:
        What was written, in words; empty for tables without units, and where the row did not run.
    """
    row = result.rows[0]
    if not result.table.units or row.why_not is not None:
        return ""
    run = open_run(row.folders[0], CATALOGUE)
    found = dissect(run, result.cohort, out / "dissection", units=UNITS, engine=engine)
    write_text(out / "units.md", units_text(found, result.table.title))
    written = f"{out / 'units.md'} and {found.folder / 'report.html'}"
    if result.table.units == "case":
        case_id = surest(row.evaluations["test"][0].predictions, found.positive)
        case = next(case for case in result.cohort if case.case_id == case_id)
        panel = panel_of_case(run, case, found, engine)
        (out / "case.png").write_bytes(draw_case_panel(panel))
        write_text(out / "case.md", f"# {case_id}\n\n![case panel](case.png)\n\n{case_words(panel)}\n")
        written = f"{out / 'case.png'}, {written}"
    return f"units: {written}"


def units_text(found: Dissection, title: str) -> str:
    """The first units by rank as markdown, with what experts call them (Table 2)."""
    lines = [
        f"# {title}",
        "",
        f"Layer `{found.layer}`, {len(found.units)} units; c over {found.over.replace('_', ' ')} of `{found.positive}` "
        f"in the split {found.about['split']}, n {found.units[0].n_pos}. Names come from "
        f"`{found.folder.name}/concepts.yaml`: open the galleries, write what a unit responds to, and run this again.",
        "",
        "| rank | unit | c | contrast with negatives | p, over all units | AUC of r | ties | what experts call it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found.ranked[:UNITS]:
        concept = found.concepts.get(row.unit)
        name = f"{concept.text} ({concept.signed})" if concept is not None else "not named"
        contrast = "" if row.contrast is None else f"{row.contrast:+.3f}"
        p = "" if row.p is None else f"{row.p:.3f}"
        auc = "" if row.auc is None else f"{row.auc:.3f}"
        lines.append(
            f"| {row.rank} | [{row.unit}]({found.folder.name}/galleries/unit_{row.unit:03d}.png) | {row.c:.3f} | "
            f"{contrast} | {p} | {auc} | {row.ties} | {name} |"
        )
    return "\n".join([*lines, ""])


def surest(predictions: Predictions, positive: str) -> str:
    """The case of the positive class that the network is surest of: the sample of Table 3.

    Raises:
        RunError: no case of the class is called so.
    """
    k = predictions.class_index(positive)
    probabilities = predictions.probabilities
    right = (predictions.labels == k) & (probabilities.argmax(axis=1) == k)
    if not right.any():
        raise RunError(f"The network calls no {positive} case {positive}.", "Train it longer before it is dissected.")
    best = max((float(probabilities[i, k]), -i) for i in right.nonzero()[0].tolist())
    return predictions.case_ids[-best[1]]
