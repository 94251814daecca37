"""What a reader should know of a trained network before using it, written from the run's own papers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.errors import RunError, SightlineError, count_noun
from sightline.io.files import read_json, read_run_csv, write_text
from sightline.metrics.calibration.record import CalibrationRecord
from sightline.metrics.estimate import Estimate
from sightline.metrics.predictions import Predictions
from sightline.structures.identifiers import format_apart
from sightline.training.run import Run

CARD = "model_card.md"
USE = "Intended use"
NOT_STATED = (
    "Not stated yet: write here for whom, for which pictures and for which decision. These words are kept when the "
    "card is written anew, and so are headings of your own. Research only: nothing here has been cleared for clinical "
    "use."
)
# headings that are written anew, by their beginnings
_OURS = ("Trained on", "Validation,", "Fixed on validation", "Tested on", "Limits", "Made with")
_SCORES = ("AUC", "balanced accuracy", "sensitivity", "specificity", "accuracy", "F1 macro", "Brier score")
_POINT = re.compile(r"^(sensitivity|specificity) at .* \(threshold |^missed share of ")
# how names of gaps end; the second was written by earlier versions
_GAPS = (" minus the rest", " less the rest")


@dataclass(frozen=True)
class Measurement:
    """An evaluation of a run that lies in its folder.

    Attributes:
        folder: `evaluation/NAME`.
        split: name of its tables.
        kind: `test`, `val` or `train` where all cases were that in the training's cohort; `other` where none of them
            was in it; else `mixed`.
        cases: how many.
        estimates: the numbers of `metrics.json`, in its order.
    """

    folder: Path
    split: str
    kind: str
    cases: int
    estimates: tuple[Estimate, ...]

    @property
    def tests(self) -> bool:
        """Whether its cases took no part in training."""
        return self.kind in ("test", "other")

    @property
    def scores(self) -> list[Estimate]:
        """Scores of the whole: study-wise, or image-wise where there are no others."""
        for wise in (", study-wise", ", image-wise"):
            found = [
                e for e in self.estimates if e.name.endswith(wise) and e.name.removesuffix(wise).startswith(_SCORES)
            ]
            if found:
                return found
        return []

    @property
    def points(self) -> list[Estimate]:
        """What operating points and promised miss rates did."""
        return [e for e in self.estimates if _POINT.match(e.name)]

    @property
    def calibration(self) -> list[Estimate]:
        """Slope, intercept and mean gap."""
        return [
            e for e in self.estimates if e.name.startswith(("calibration slope", "calibration intercept", "mean pro"))
        ]

    @property
    def subgroups(self) -> list[tuple[Estimate, Estimate]]:
        """Each group's own score, and its gap to the rest."""
        by_name = {e.name: e for e in self.estimates}
        ends = [
            (name, gap) for gap in self.estimates for end in _GAPS if (name := gap.name.removesuffix(end)) != gap.name
        ]
        return [(by_name[name], gap) for name, gap in ends if name in by_name]

    def words(self) -> str:
        """What its cases are, in words."""
        return {
            "test": "test cases of the cohort it was trained on",
            "val": "validation cases, which chose settings",
            "train": "cases it was trained on",
            "other": "cases of another cohort (none of them is named in the training's)",
        }.get(self.kind, "cases of several kinds, trained on among them")


def read_measurements(run: Run) -> list[Measurement]:
    """Evaluations of a run in its folder; those of other runs, and half ones, are left out."""
    found = []
    for path in sorted(run.folder.glob("evaluation/*/metrics.json")):
        for stamp in sorted(path.parent.glob("*.json")):
            try:
                made_of = json.loads(stamp.read_text(encoding="utf-8"))
                if not isinstance(made_of, dict) or made_of.get("run") != run.identity or "cases" not in made_of:
                    continue
                estimates = [Estimate.from_dict(each) for each in json.loads(path.read_text(encoding="utf-8"))]
                names = Predictions.read(stamp.with_suffix(".csv")).case_ids
            except (OSError, ValueError, TypeError, SightlineError):
                continue
            splits = {run.cohort.get("split", {}).get(name, "other") for name in names}
            kind = splits.pop() if len(splits) == 1 else "mixed"
            found.append(Measurement(path.parent, stamp.stem, kind, len(names), tuple(estimates)))
            break
    return found


def write_model_card(run: Run) -> Path:
    """`model_card.md` in the run folder: intended use, training, validation, tests, limits; no number it does not have.

    Written after training, and anew by `calibrate` and `evaluate`. What its author wrote under `Intended use`, and
    under headings of his own, stays.
    """
    path = run.folder / CARD
    software = _describe_software(run.folder / "environment.json")
    use, others = _read_authors_words(path)
    measured = read_measurements(run)
    record = run.calibration
    counts = run.cohort["counts"]
    recipe = run.recipe
    rows = read_run_csv(run.folder / "history.csv")
    kept = find_kept_epoch(rows, recipe.select)
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
        f"Input: {_describe_input(recipe.view)}; seed {recipe.seed}.",
        "",
        f"## {USE}",
        "",
        use,
        "",
        f"## Trained on {run.cohort['name']} (fingerprint {run.cohort['fingerprint']})",
        "",
        "| images | " + " | ".join(run.classes) + " |",
        "|---" * (1 + len(run.classes)) + "|",
        *splits,
        "",
        *(f"- {key}: {value}" for key, value in run.cohort.get("about", {}).items()),
        "",
        f"## Validation, {_describe_epoch(rows, kept, recipe.select)}",
        "",
        *(
            [f"- {key}: {value}" for key, value in rows[kept].items() if key.startswith("val_") and value]
            if rows
            else []
        ),
        *([] if rows and any(v for k, v in rows[kept].items() if k.startswith("val_")) else ["- none"]),
        "",
        *([_describe_parts(run), ""] if "parts" in run.cohort else []),
        *(_describe_calibration(record) if record is not None else []),
        *(line for each in measured for line in _describe_evaluation(run, each)),
        "## Limits",
        "",
        *_list_missing(measured, record),
        "- Validation numbers choose settings; report test numbers, from `sightline evaluate`, once.",
        "- A map shows where the network looked, not what is there.",
        "- It was trained on the cohort above (and on what its initial weights had seen): another hospital, device or "
        "projection must be tested first.",
        "- Not a medical device; nothing here has been cleared for clinical use.",
        "",
        "## Made with",
        "",
        *software,
        f"- run identity {run.identity}",
        "",
        *others,
    ]
    write_text(path, "\n".join(text))
    return path


def _read_authors_words(path: Path) -> tuple[str, list[str]]:
    """What an author wrote into an older card: the intended use, and sections under headings of his own."""
    if not path.is_file():
        return NOT_STATED, []
    use, others = NOT_STATED, []
    for section in re.split(r"^(?=## )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        heading, _, body = section.removeprefix("## ").partition("\n")
        if heading.strip() == USE:
            use = body.strip() or NOT_STATED
        elif not heading.startswith(_OURS):
            others += [section.rstrip("\n"), ""]
    return use, others


def _describe_software(path: Path) -> list[str]:
    """Versions that a run was made with."""
    environment = read_json(path, "Restore the run folder.")
    # runs of earlier versions do not name their code
    code = f" (code {environment['code']})" if environment.get("code") else ""
    try:
        made = (
            f"- sightline {environment['sightline']}{code}, Python {environment['python']}, {environment['processor']}"
        )
        return [made, *(f"- {name} {version}" for name, version in environment["packages"].items())]
    except (KeyError, AttributeError) as error:
        raise RunError(f"{path} is damaged ({error}).", "Restore the run folder.") from None


def _describe_calibration(record: CalibrationRecord) -> list[str]:
    """Probabilities, thresholds and abstention, as `sightline calibrate` fixed them."""
    local = (record.about or {}).get("local")
    lines = [f"## Fixed on validation{f' and on {local}' if local else ''} (`calibration.json`)", ""]
    if record.fitted is not None:
        losses = record.fitted.describe_losses(3)
        lines.append(f"- probabilities: {record.fitted.recalibration.method}; log loss on unseen patients {losses}")
    for point, threshold in zip(record.points, format_apart([p.threshold for p in record.points]), strict=True):
        reached = [f"{name} {point.chosen_on[name]:.3f}" for name in ("sensitivity", "specificity")
                   if point.chosen_on.get(name) is not None]  # fmt: skip
        there = f" ({', '.join(reached)} on {point.chosen_on.get('split', 'validation')})" if reached else ""
        lines.append(f"- {point.name}: {point.positive} from {threshold} on{there}")
    if record.abstention is not None:
        where = record.abstention.chosen_on.get("split", "validation")
        lines.append(
            f"- no answer where {record.abstention.kind} is below {record.abstention.threshold:.4g}, fixed on {where}"
        )
    return [*lines, ""]


def _describe_evaluation(run: Run, each: Measurement) -> list[str]:
    """Numbers of one evaluation."""
    place = each.folder.relative_to(run.folder).as_posix()
    lines = [f"## Tested on {each.folder.name}", ""]
    lines += [f"{count_noun(each.cases, 'image')}: {each.words()}. All numbers: `{place}/metrics.md`.", ""]
    for estimate in (*each.scores, *each.points, *each.calibration):
        counted = ", ".join(f"{n} {what}" for what, n in estimate.n.items() if what in ("studies", "patients"))
        lines.append(f"- {estimate}" + (f" ({counted})" if counted else ""))
    groups = each.subgroups
    if groups:
        lines += ["", "| subgroup | score (95% interval) | difference from the rest | test |", "|---|---|---|---|"]
        for own, gap in groups:
            test = gap.method.rpartition("; ")[2] if gap.value is not None else gap.why
            cells = (own.name, own.text(), gap.text(), test)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def _list_missing(measured: Sequence[Measurement], record: CalibrationRecord | None) -> list[str]:
    """What is not known of the run, a line each."""
    lines = []
    if not any(each.tests for each in measured):
        lines.append("- No test result yet: `sightline evaluate` adds it.")
    elif not any(each.kind == "other" for each in measured):
        lines.append("- Tested on cases of its own cohort alone: nothing is known of another hospital.")
    if record is None:
        lines.append("- Probabilities are not calibrated, and no threshold was fixed: `sightline calibrate`.")
    for each in measured:
        blind = [own.name for own, _ in each.subgroups if own.value is None or own.low is None]
        if blind:
            lines.append(f"- {each.folder.name}: no number, or no interval, for {', '.join(blind)}.")
        claimed = [own.name for own, gap in each.subgroups if re.search(r"corrected p (< |= 0\.0[0-4])", gap.method)]
        if claimed:
            lines.append(
                f"- {each.folder.name}: it does not do alike for {', '.join(claimed)} (corrected p below .05)."
            )
    return lines


def _describe_input(view: View | VolumeView) -> str:
    side = view.size
    if isinstance(view, VolumeView):
        low, high = view.window_hu
        return f"{side} x {side} x {side} voxels from the middle of a patch, {low:g} to {high:g} HU"
    return f"{side} x {side} pixels, padded to square"


def _describe_parts(run: Run) -> str:
    """Which runs it was made of, or taught by."""
    parts = dict(run.cohort["parts"])
    teacher = parts.pop("teacher", None)
    lines = [f"Put together from: {', '.join(f'{name} of run {i}' for name, i in parts.items())}."] if parts else []
    if teacher is not None:
        lines.append(f"Taught by run {teacher}: that run, not experts alone, decided what is marked in training cases.")
    return " ".join(lines)


def find_kept_epoch(rows: Sequence[Mapping[str, str]], select: str) -> int:
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


def _describe_epoch(rows: Sequence[Mapping[str, str]], kept: int, select: str) -> str:
    if not rows:
        return "never trained"
    place = f"epoch {kept + 1} of {len(rows)}"
    return f"{place}, whose weights are kept" + ("" if select == "last" else f" (best val_{select})")
