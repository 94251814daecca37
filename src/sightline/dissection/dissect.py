"""What the units of a layer respond to: thresholds, scores, galleries, files for a viewer, and a page (Engstler 2022).

Two passes over the cohort give thresholds and readings, which are kept; everything after that is computed from them, so
that a second call with other `over` or more units takes no further pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sightline.data.views.image_view import View, refuse_unmarked
from sightline.data.views.volume_view import VolumeView
from sightline.dissection.concepts import keep_concepts, read_concepts
from sightline.dissection.export import UnitPictures
from sightline.dissection.passes import read_cohort_units
from sightline.dissection.report import DissectionSummary, write_dissection_report
from sightline.dissection.results import (
    By,
    CallRow,
    Dissection,
    UnitAgreementRow,
    UnitRow,
    open_dissection,
    select_named_concepts,
    write_csv,
    write_units,
)
from sightline.dissection.scoring import (
    build_agreement_rows,
    build_unit_rows,
    call_rows,
    compute_null_band,
    measure_agreement,
    score_units,
)
from sightline.dissection.top_cases import CaseCalls
from sightline.errors import CohortError, RecipeError, RunError, count_noun, require_numbers, require_texts
from sightline.explainers.units.layer import UnitLayer, choose_default_layer, has_cross_image_layers
from sightline.io.files import digest_file
from sightline.metrics.units.scores import Over
from sightline.structures.case import Cohort
from sightline.structures.evidence import to_channels_last
from sightline.training.engine import Engine
from sightline.training.preconditions import require_finished
from sightline.training.run import Run, describe_environment, require_same_classes

TOP = 0.005
UNITS = 10
LEAST_CASES = 2
PASSES_BATCH = {View: 16, VolumeView: 8}


@dataclass(frozen=True)
class DissectionOptions:
    """Options of a dissection.

    Attributes:
        layer: any module of the network with spatial outputs; None: the network's default.
        split: `train`, `val`, `test` or `all`.
        top: share of all positions at which a unit exceeds its threshold.
        over: the cases over which c is computed: all positives, true positives or false positives.
        positive: the positive class; None: the last one.
        units: number of units that get a gallery.
        by: how they are chosen: the first by `c`, by `contrast`, or by the `auc` of r_k.
    """

    layer: str | None = None
    split: str = "test"
    top: float = TOP
    over: Over = "positives"
    positive: str | None = None
    units: int = UNITS
    by: By = "c"

    def __post_init__(self) -> None:
        """Refuse what dissects or shows nothing."""
        require_numbers("top", self.top)
        require_numbers("units", self.units, whole=True)
        if self.layer is not None:
            require_texts("layer", self.layer)
        for name, known in (("over", get_args(Over)), ("by", get_args(By))):
            if getattr(self, name) not in known:
                raise RunError(f"--{name} is {getattr(self, name)!r}.", f"Choose one of {', '.join(known)}.")
        if not 0 < self.top < 1:
            raise RunError(f"--top is a share between 0 and 1; got {self.top}.", "Published: 0.005.")
        if self.units < 1:
            raise RunError(f"A dissection shows at least one unit; got {self.units}.", "Give --units 10.")


def dissect(
    run: Run, cohort: Cohort, out: Path, options: DissectionOptions | None = None, *, engine: Engine | None = None
) -> Dissection:
    """Dissect a layer of a run on a cohort into a folder; the same call again reuses what was read.

    Args:
        run: a finished run, of pictures or volumes.
        cohort: with the run's classes, also another hospital's.
        out: folder to write.
        options: layer, cases and what is shown; the defaults when None.
        engine: device and workers.

    Raises:
        RunError: the run is not finished, or `out` holds another dissection.
        RecipeError: no such layer.
        CohortError: other classes, or too few cases to rank units by.
    """
    engine = engine or Engine()
    options = options or DissectionOptions()
    layer, split, top, over, by = options.layer, options.split, options.top, options.over, options.by
    require_finished(run)
    cohort = _choose_cases(run, cohort, split)
    name = _choose_positive(run, options.positive)
    view = run.recipe.view
    device = engine.find_device()
    network = to_channels_last(run.network().to(device))
    reader = UnitLayer(network, layer or choose_layer(network))
    stamp = _stamp(run, reader.name, cohort, split, top)
    if (out / "concepts.yaml").is_file():
        read_concepts(out / "concepts.yaml")  # a malformed file is told before the passes, not after
    passes = read_cohort_units(
        reader, cohort, view, out, stamp, batch_size=PASSES_BATCH[type(view)], top=top, engine=engine
    )
    called = _collect_calls(cohort, passes.probabilities(independent=run.recipe.independent), name)
    among = _select_group(called, over, cohort, split)
    scores = score_units(passes.readings, called, over, cohort)
    about = _describe_about(run, stamp, name, over)
    found = Dissection(out, reader.name, name, over, build_unit_rows(scores, passes.thresholds), about)
    chosen = select_first_units(found, by, options.units)
    shown = [row.unit for row in chosen]
    concepts = keep_concepts(
        out / "concepts.yaml",
        run=run.identity,
        weights=stamp["weights"],
        layer=reader.name,
        units=[(row.unit, row.standing) for row in chosen],
    )
    found = replace(found, concepts=select_named_concepts(concepts))
    agreement = build_agreement_rows(measure_agreement(passes.readings, out / "readings", cohort))
    calls = call_rows(scores)
    # what a call over other cases found is no longer what the tables and pictures beside it say
    (out / "units.json").unlink(missing_ok=True)
    _write_rows(out, agreement, calls)
    UnitPictures(found, passes, called, cohort, view, reader, engine).write(shown, among)
    write_dissection_report(
        out / "report.html",
        found,
        DissectionSummary(
            band=compute_null_band(passes.readings, called, over, cohort),
            agreement=agreement,
            without_agreement=passes.without_masks,
            calls=calls,
            true_calls=int(called.group("true_positives").sum()),
            false_alarms=int(called.group("false_positives").sum()),
            shown=tuple(shown),
            by=by,
            n_against=0 if scores.contrast is None else scores.contrast.n_against,
            notes=_list_notes(network, view, cohort),
        ),
    )
    # last: its presence says that all the rest is there
    write_units(out, found)
    return open_dissection(out)


def select_first_units(found: Dissection, by: By, most: int) -> list[UnitRow]:
    """The units that get a gallery: the first by a score; by rank where the score is not known or equal."""
    if by == "c":
        return list(found.ranked[:most])
    return sorted(found.ranked, key=lambda row: -(getattr(row, by) or 0.0))[:most]


def choose_layer(network: nn.Module) -> str:
    """The layer dissected where none is named: what the network says, else the features its maps are made of."""
    prefix, inner = "", network
    if isinstance(getattr(network, "classifier", None), nn.Module):
        # a network that cuts out a window: the part that says the class
        prefix, inner = "classifier.", network.classifier  # type: ignore[assignment]
    if not hasattr(inner, "dissected") and isinstance(getattr(inner, "fusion", None), nn.Module):
        return f"{prefix}fusion"
    return prefix + choose_default_layer(inner)


def _choose_cases(run: Run, whole: Cohort, split: str) -> Cohort:
    cohort = run.recipe.see(whole.part(split))
    require_same_classes(run.classes, cohort.classes, f"Cohort {cohort.name!r}")
    if len(cohort) == 0:
        there = ", ".join(f"{name}: {len(whole.split(name))}" for name in ("train", "val", "test"))
        raise CohortError(f"{whole.name!r} has no case in {split} ({there}).", "Choose another --split, or `all`.")
    if isinstance(run.recipe.view, View):
        refuse_unmarked(cohort, run.recipe.view)
    return cohort


def _choose_positive(run: Run, positive: str | None) -> str:
    if positive is None:
        return run.classes[-1]
    if positive not in run.classes:
        raise RecipeError(f"The run has no class {positive!r}.", f"Its classes are {', '.join(run.classes)}.")
    return positive


def _stamp(run: Run, layer: str, cohort: Cohort, split: str, top: float) -> dict[str, str]:
    """What the readings depend on."""
    return {
        "run": run.identity,
        "weights": digest_file(run.folder / "weights.safetensors")[:16],
        "layer": layer,
        "cohort": cohort.name,
        "fingerprint": cohort.fingerprint(),
        "cases": str(len(cohort)),
        "split": split,
        "top": repr(top),
    }


def _describe_about(run: Run, stamp: Mapping[str, str], positive: str, over: Over) -> dict[str, str]:
    """What the page says of its making."""
    machine = describe_environment()
    return {
        "title": run.recipe.title,
        **stamp,
        "positive": positive,
        "over": over,
        "command": machine["command"],
        "date": datetime.now(UTC).date().isoformat(),
        "sightline": machine["sightline"],
        "torch": machine["packages"]["torch"],
        "numpy": machine["packages"]["numpy"],
    }


def _write_rows(out: Path, agreement: Sequence[UnitAgreementRow], calls: Sequence[CallRow]) -> None:
    names = [f.name for f in fields(UnitAgreementRow)]
    write_csv(out / "agreement.csv", names, [astuple(row) for row in agreement])
    write_csv(
        out / "calls.csv",
        ("unit", "true_calls", "false_alarms", "difference", "p"),
        [(r.unit, r.true_calls, r.false_alarms, r.difference, r.p) for r in calls],
    )


def _collect_calls(cohort: Cohort, probabilities: NDArray[np.float64], name: str) -> CaseCalls:
    index = cohort.classes.index(name)
    truth = np.array([case.label == name for case in cohort])
    return CaseCalls(name, truth, probabilities.argmax(axis=1) == index, probabilities[:, index])


def _select_group(called: CaseCalls, over: Over, cohort: Cohort, split: str) -> NDArray[np.int64]:
    """The rows that c is a share of."""
    if not called.truth.any():
        raise CohortError(
            f"None of the {count_noun(len(cohort), 'case')} in {split} is of the class {called.positive!r}.",
            f"Choose another --split, or --positive; there are {cohort.counts()}.",
        )
    rows = np.flatnonzero(called.group(over))
    if len(rows) < LEAST_CASES:
        words = {"positives": "case", "true_positives": "true call", "false_positives": "false alarm"}[over]
        raise CohortError(
            f"Only {len(rows)} {words} of {called.positive!r} among "
            f"{count_noun(len(cohort), 'case')} in {split}; units are ranked "
            f"by a share of at least {LEAST_CASES}.",
            "Use more cases (--split all), or another --over.",
        )
    return rows


def _list_notes(network: nn.Module, view: View | VolumeView, cohort: Cohort) -> tuple[str, ...]:
    notes = []
    if has_cross_image_layers(network):
        notes.append(
            "This network normalises each batch by itself, even in use: what a unit says of a case depends on the "
            f"cases beside it. All passes went {PASSES_BATCH[type(view)]} cases at a time; galleries, whose cases "
            "stand beside others, differ a little from the numbers."
        )
    if isinstance(view, VolumeView) and any(case.view == "straightened" for case in cohort):
        notes.append(
            "Patches of this cohort are straightened along the spine: their files lie at the vertebra in the CT, but "
            "away from its centre they are bent against it."
        )
    return tuple(notes)
