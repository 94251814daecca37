"""How much of a classifier's AUC is lost when pictures look as another hospital's might: a stress test on changed test
pictures, of one method or of two side by side. No new data; every change is written down and is the same again."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sightline.data.views.frames import describe_shown
from sightline.data.views.image_view import View
from sightline.errors import RunError, count_words
from sightline.evaluation.evidence.comparison import build_claim_rows, name_methods, require_two_methods
from sightline.evaluation.evidence.interventions import Planes, require_both_classes, require_view
from sightline.evaluation.evidence.picture_changes import CHANGES, FIELDS, PLAIN, change_picture
from sightline.inference.predict import build_predictions, join_predictions
from sightline.io.files import make_safe_name, write_text
from sightline.io.progress import show_progress
from sightline.metrics.classification.scores import AUC
from sightline.metrics.estimate import Comparison, FloatArray, format_p_text
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.bootstrap import (
    Resample,
    compute_interval,
    describe_resampling,
    score_point,
    seed_replicates,
)
from sightline.metrics.statistics.comparison import compare_paired_values, holm
from sightline.plots.canvas import encode_png
from sightline.plots.charts import draw_forest, make_chart
from sightline.structures.case import Cohort
from sightline.structures.evidence import compute_probabilities, forward_evidence, to_channels_last
from sightline.training.engine import Engine
from sightline.training.feature_cache import TakesFeatures
from sightline.training.run import Run, require_each_once

EXAMPLES = 3


@dataclass(frozen=True, eq=False)
class StressReport:
    """What changed pictures did.

    Attributes:
        names: of the methods, one or two.
        plain: AUC of each method on pictures as they are, mean over trainings.
        drops: change -> for each method, AUC under it less AUC without.
        differences: change -> drop of the first method less drop of the second; empty with one method.
        p_holm: change -> p of that difference, corrected over the changes (Holm).
        predictions: change -> for each method, a table a training.
        examples: planes of some cases under each change.
    """

    names: tuple[str, ...]
    plain: tuple[float, ...]
    drops: Mapping[str, tuple[Comparison, ...]]
    differences: Mapping[str, Comparison]
    p_holm: Mapping[str, float | None]
    predictions: Mapping[str, tuple[tuple[Predictions, ...], ...]]
    examples: Sequence[Mapping[str, Planes]] = field(default=())

    def markdown(self, title: str) -> str:
        """A page with a table."""
        counts = next(iter(self.drops.values()))[0].n
        lines = [f"# Stress: {title}", ""]
        auc = ", ".join(f"{name} {value:.3f}" for name, value in zip(self.names, self.plain, strict=True))
        lines += [
            f"AUC on pictures as they are: {auc}. A number below is AUC under the change less AUC without it.",
            "",
        ]
        head = ["pictures", *self.names]
        if self.differences:
            head += ["difference", "p (Holm)"]
        lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for name, drops in self.drops.items():
            cells = [name, *(_format_range(c) for c in drops)]
            if self.differences:
                d = self.differences[name]
                cells += [_format_range(d), format_p_text(self.p_holm[name])]
            lines.append(f"| {' | '.join(cells)} |")
        lines += [
            "",
            f"n: {count_words(counts)}. {next(iter(self.drops.values()))[0].method}.",
        ]
        if self.differences:
            lines.append("Above 0 in *difference*: the first method loses less.")
        every = [*(one for drops in self.drops.values() for one in drops), *self.differences.values()]
        if reasons := sorted({one.why for one in every if one.why and one.low is None}):
            lines += ["", "; ".join(reasons).capitalize() + "."]
        return "\n".join([*lines, ""])


def stress_runs(
    runs: Sequence[Run],
    others: Sequence[Run],
    cohort: Cohort,
    *,
    replicates: int = 2000,
    engine: Engine | None = None,
) -> StressReport:
    """Ask finished runs again after each change of `CHANGES`, and with other fields of view.

    Every network is shown the pictures in the view that it was trained on: two methods may differ in size or tone.

    Args:
        runs: trainings of the first method.
        others: trainings of a second method, or none.
        cohort: cases with labels, e.g. the test split.
        replicates: bootstrap samples.
        engine: device.

    Raises:
        RunError: no run, a run of volumes, of crops or of other than two classes, runs of other classes, trainings of
            one method that are shown different pictures, one that is named twice, or one method as both.
        CohortError: a cohort of one class.
    """
    methods = [list(runs), *([list(others)] if others else [])]
    for each in methods:
        require_each_once(each)
    if others:
        require_two_methods(runs, others)
    views = [_require_shared_view(each, methods[0]) for each in methods]
    alike = describe_shown(views[0]) == describe_shown(views[-1])
    cohort = methods[0][0].recipe.see(cohort)
    require_both_classes(methods[0][0], cohort)
    engine = engine or Engine()
    device = engine.find_device()
    asked = [SharedNetworks(each, device) for each in methods]
    names = [PLAIN, *FIELDS, *CHANGES]
    # of each method and training, a row [changes, k] a case
    answers: list[list[list[FloatArray]]] = [[[] for _ in each] for each in methods]
    examples: list[dict[str, Planes]] = []
    with show_progress("stress", len(cohort), quiet=engine.quiet) as advance:
        for case in cohort:
            shown = [change_picture(case, view) for view in (views[:1] if alike else views)]
            if len(examples) < EXAMPLES and case.label == cohort.classes[-1]:
                examples.append(shown[0])
            images = [torch.from_numpy(np.stack([planes[n] for n in names])) for planes in shown]
            for trainings, method, given in zip(answers, asked, images * len(asked) if alike else images, strict=True):
                for rows, probabilities in zip(trainings, method(given), strict=True):
                    rows.append(probabilities)
            advance(1)
    stacked = [[np.stack(rows) for rows in trainings] for trainings in answers]
    predictions = {
        name: tuple(
            tuple(
                join_predictions(
                    build_predictions(cohort, probabilities[:, i], independent=run.recipe.independent),
                    run.recipe.join_views,
                )
                for probabilities, run in zip(trainings, each, strict=True)
            )
            for trainings, each in zip(stacked, methods, strict=True)
        )
        for i, name in enumerate(names)
    }
    return summarise(name_methods(methods), predictions, replicates, examples)


def summarise(
    names: tuple[str, ...],
    predictions: Mapping[str, tuple[tuple[Predictions, ...], ...]],
    replicates: int = 2000,
    examples: Sequence[Mapping[str, Planes]] = (),
) -> StressReport:
    """Drops and their differences from predictions of plain and changed pictures."""
    plain = predictions[PLAIN]
    first = plain[0][0]
    score = AUC(len(first.classes) - 1)
    resample = Resample.draw(first.patient_ids, replicates, 0)

    def measure_tables(tables: Sequence[Predictions]) -> tuple[FloatArray, FloatArray]:
        """[s] and [s, r]: the score of each training, and of each resample of patients."""
        return (
            np.array([score_point(score, t) for t in tables]),
            np.stack([resample.values(score, t) for t in tables]),
        )

    base = [measure_tables(tables) for tables in plain]
    drops, differences = {}, {}
    for name, methods in predictions.items():
        if name == PLAIN:
            continue
        changed = [measure_tables(tables) for tables in methods]
        moved = [(c[0] - b[0], c[1] - b[1]) for c, b in zip(changed, base, strict=True)]
        drops[name] = tuple(
            _drop(name, c[0], b[0], m[1], resample, first.counts())
            for c, b, m in zip(changed, base, moved, strict=True)
        )
        if len(moved) == 2:
            points, drawn = np.concatenate([m[0] for m in moved]), np.concatenate([m[1] for m in moved])
            differences[name] = compare_paired_values(
                name, points, drawn, len(moved[0][0]), resample, first.counts(), "not defined"
            )
    corrected = holm([d.p_value for d in differences.values()])
    return StressReport(
        names,
        tuple(float(b[0].mean()) for b in base),
        drops,
        differences,
        dict(zip(differences, corrected, strict=True)),
        predictions,
        examples,
    )


def write_stress(report: StressReport, out: Path, title: str) -> None:
    """`stress.md`, `stress.json`, `stress.png` (drops), `changes.png` (what the changes look like), `predictions/`."""
    write_text(out / "stress.md", report.markdown(title))
    fields = {
        "methods": list(report.names),
        "plain": list(report.plain),
        "drops": {name: [c.to_dict() for c in each] for name, each in report.drops.items()},
        "differences": {name: c.to_dict() for name, c in report.differences.items()},
        "p_holm": dict(report.p_holm),
    }
    write_text(out / "stress.json", json.dumps(fields, indent=1) + "\n")
    rows = build_claim_rows(
        [
            (name if len(report.names) == 1 else f"{name} ({'ab'[i]})", c)
            for name, each in report.drops.items()
            for i, c in enumerate(each)
        ]
    )
    if rows:
        methods = [f"{letter}: {name}" for letter, name in zip("ab", report.names, strict=False)]
        counts = count_words(next(iter(report.drops.values()))[0].n)
        heading = "\n".join(["AUC on changed pictures, less AUC on pictures as they are", *methods, f"n: {counts}"])
        (out / "stress.png").write_bytes(draw_forest(rows, title=heading))
    if report.examples:
        (out / "changes.png").write_bytes(_draw_sheet(report.examples))
    for name, tables in report.predictions.items():
        for letter, each in zip("ab", tables, strict=False):
            for k, table in enumerate(each):
                table.write(out / "predictions" / f"{make_safe_name(name)}_{letter}{k}.csv")


class SharedNetworks:
    """Networks of one method; where frozen stages are the same in several, they are asked once a picture."""

    def __init__(self, runs: Sequence[Run], device: torch.device) -> None:
        self.device = device
        self._independent = [run.recipe.independent for run in runs]
        self.networks = [to_channels_last(run.network().to(device)) for run in runs]
        self._digests = [_digest_frozen(network) for network in self.networks]

    def __call__(self, images: Tensor) -> list[FloatArray]:
        """Class probabilities [n, k] of images [n, c, h, w], one table a network."""
        known: dict[str, Tensor] = {}
        found = []
        for network, digest, independent in zip(self.networks, self._digests, self._independent, strict=True):
            given = images
            if digest and isinstance(network, TakesFeatures):
                if digest not in known:
                    with torch.no_grad():
                        known[digest] = network.trunk.frozen_features(to_channels_last(images.to(self.device)))
                given = known[digest]
            evidence = forward_evidence(network, given, self.device)
            found.append(np.asarray(compute_probabilities(evidence.logits, independent=independent)))
        return found


def _digest_frozen(network: nn.Module) -> str:
    if not isinstance(network, TakesFeatures) or network.trunk.frozen_stages is None:
        return ""
    return network.trunk.frozen_stages.digest()


def _require_shared_view(runs: Sequence[Run], first: Sequence[Run]) -> View:
    """The view of the trainings of a method, which tell the same classes apart as those of the first method."""
    if not runs:
        raise RunError("A stress test needs a run.", "Name run folders.")
    view = require_view(runs[0])
    for run in runs:
        if run.classes != first[0].classes:
            raise RunError(
                f"{run.folder} and {first[0].folder} tell different classes apart.", "Compare like with like."
            )
        shown, others = describe_shown(require_view(run)), describe_shown(view)
        if shown != others:
            raise RunError(
                f"{run.folder} and {runs[0].folder} are shown different pictures: {shown} and {others}.",
                "Name runs of one view as one method, the others after --with.",
            )
    return view


def _drop(
    name: str,
    changed: FloatArray,
    plain: FloatArray,
    drawn: FloatArray,
    resample: Resample,
    counts: Mapping[str, int],
) -> Comparison:
    """AUC under a change less AUC without: the same patients and the same trainings on both sides."""
    n = {**counts, "trainings": len(changed)}
    a, b = float(changed.mean()), float(plain.mean())
    replicates = seed_replicates(drawn, np.random.default_rng([resample.seed, 1]))
    what = f"paired {describe_resampling(len(changed))}"
    found = compute_interval(a - b, replicates, resample.patients, resample.seed, what=what)
    if found.low is None:
        return Comparison(name, a, b, a - b, n=n, method=found.method, why=found.why)
    return Comparison(name, a, b, a - b, found.low, found.high, None, n, found.method, "an interval is given")


def _format_range(c: Comparison) -> str:
    if c.difference is None or c.low is None or c.high is None:
        return "–" if c.difference is None else f"{c.difference:+.3f}"
    return f"{c.difference:+.3f} ({c.low:+.3f} to {c.high:+.3f})"


def _draw_sheet(examples: Sequence[Mapping[str, Planes]]) -> bytes:
    names = list(examples[0])
    figure, axes = make_chart(1.5 * len(names), 1.7 * len(examples), len(examples), len(names))
    for row, planes in zip(np.reshape(axes, (len(examples), len(names))), examples, strict=True):
        for cell, name in zip(row, names, strict=True):
            cell.imshow(planes[name].mean(axis=0), cmap="gray", vmin=0, vmax=1)
            cell.set_title(textwrap.fill(name, 18), fontsize=7)
            cell.set_axis_off()
    return encode_png(figure)
