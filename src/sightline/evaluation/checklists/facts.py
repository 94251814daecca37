"""What a run and its evaluations know of themselves, each fact with the file and the place in it where it stands.

Places in JSON files are JSON pointers (RFC 6901), e.g. `recipe.json#/view/size`; in `history.csv` a row and a column.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sightline.io.files import read_run_csv
from sightline.metrics.calibration.record import FILE as CALIBRATION
from sightline.metrics.estimate import Estimate
from sightline.training.model_card import Measurement, find_kept_epoch, read_measurements
from sightline.training.preconditions import require_finished
from sightline.training.run import Run

RECIPE, COHORT, ENVIRONMENT, HISTORY = "recipe.json", "cohort.json", "environment.json", "history.csv"
MAPS = ("pointing game", "energy inside", "deletion", "insertion", "ROAD")
CROSSED = ("true_positives", "false_negatives", "false_positives", "true_negatives")


@dataclass(frozen=True)
class Fact:
    """One thing that a file says.

    Attributes:
        words: what it is of, e.g. `view`.
        value: what the file holds there, as JSON has it.
        file: the file, in the run's folder.
        place: where in the file: a JSON pointer, or row and column of a table.
    """

    words: str
    value: Any
    file: str
    place: str

    @property
    def source(self) -> str:
        """File and place, in one word."""
        return f"{self.file}#{self.place}"

    def text(self) -> str:
        """What it says, for a reader."""
        shown = (
            _format_value(self.value)
            if isinstance(self.value, dict | list)
            else _format_cell(self.place[-7:], self.value)
        )
        return f"{self.words}: {shown}" if self.words else shown


def _format_value(value: Any) -> str:
    """A JSON value in a line: numbers of an estimate as a table prints them, parts of a recipe as `name=value`."""
    if isinstance(value, dict) and set(value) == set(Estimate.__dataclass_fields__):
        estimate = Estimate.from_dict(value)
        why = f" ({estimate.why})" if estimate.value is None else ""
        counted = ", ".join(f"{n} {what}" for what, n in estimate.n.items() if what in ("studies", "patients"))
        return f"{estimate}{why}" + (f" ({counted})" if counted else "")
    if isinstance(value, dict):
        return ", ".join(
            f"{name}={_format_cell(name, each)}" for name, each in value.items() if each not in (None, "", [], {})
        )
    if isinstance(value, list):
        return ", ".join(_format_cell("", each) for each in value)
    return _format_cell("", value)


def _format_cell(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"({_format_value(value)})"
    if isinstance(value, list):
        return f"[{', '.join(_format_cell('', each) for each in value)}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    # where a file lay on some machine tells nobody anything
    return Path(str(value)).name if name.endswith("weights") else str(value)


class RunRecord:
    """The files of a run, read once.

    Args:
        run: a run that has been opened.

    Raises:
        RunError: it is not finished.
    """

    def __init__(self, run: Run) -> None:
        require_finished(run)
        self.run = run

    @cached_property
    def measurements(self) -> list[Measurement]:
        """Evaluations in the run's folder."""
        return read_measurements(self.run)

    @cached_property
    def tests(self) -> list[Measurement]:
        """Those on cases that took no part in training."""
        return [each for each in self.measurements if each.tests]

    def json(self, file: str, pointer: str, words: str = "") -> Iterator[Fact]:
        """The fact at a pointer; nothing where the file or the place is missing, empty or null."""
        path = self.run.folder / file
        if path.is_file():
            try:
                value = resolve(json.loads(path.read_text(encoding="utf-8")), pointer)
            except (ValueError, KeyError, IndexError, TypeError):
                return
            if value not in (None, "", [], {}):
                yield Fact(words, value, file, pointer)

    def estimates(self, each: Measurement, wanted: Iterable[Estimate]) -> Iterator[Fact]:
        """Numbers of an evaluation, by their place in its `metrics.json`."""
        place = {estimate.name: i for i, estimate in reversed(list(enumerate(each.estimates)))}
        for estimate in wanted:
            yield from self.json(self.file_of(each, "metrics.json"), f"/{place[estimate.name]}", each.folder.name)

    def file_of(self, each: Measurement, name: str) -> str:
        """A file of an evaluation, seen from the run's folder."""
        return (each.folder / name).relative_to(self.run.folder).as_posix()


def resolve(value: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) points to.

    Raises:
        KeyError, IndexError, TypeError, ValueError: nothing stands there.

    Example:
        >>> resolve({"view": [{"size": 48}]}, "/view/0/size")
        48
    """
    for word in pointer.split("/")[1:]:
        key = word.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def _gather_pointers(file: str, *pointers: str) -> Callable[[RunRecord], Iterator[Fact]]:
    """Facts at several pointers of a file, named by their words."""

    def read(record: RunRecord) -> Iterator[Fact]:
        for pointer in pointers:
            yield from record.json(
                file, pointer, pointer.removeprefix("/about")[1:].replace("/", " ").replace("_", " ")
            )

    return read


def _find_initial_weights(record: RunRecord) -> Iterator[Fact]:
    """Wherever the recipe names initial weights."""
    recipe = json.loads((record.run.folder / RECIPE).read_text(encoding="utf-8"))

    def walk(value: Any, pointer: str) -> Iterator[Fact]:
        for name, each in value.items() if isinstance(value, dict) else ():
            if name == "weights" and isinstance(each, str):
                yield Fact(f"initial weights of {pointer[1:]}", each, RECIPE, f"{pointer}/{name}")
            else:
                yield from walk(each, f"{pointer}/{name}")

    yield from walk(recipe["model"], "/model")
    yield from record.json(RECIPE, "/seed", "seed")


def _find_selection(record: RunRecord) -> Iterator[Fact]:
    yield from record.json(RECIPE, "/select", "epoch kept")
    if rows := read_run_csv(record.run.folder / HISTORY):
        kept = find_kept_epoch(rows, record.run.recipe.select)
        for column in ("epoch", "val_loss", "val_auc"):
            if rows[kept].get(column):
                yield Fact(column, rows[kept][column], HISTORY, f"row {kept + 1}, {column}")


def _gather_from_tests(choose: Callable[[Measurement], Iterable[Estimate]]) -> Callable[[RunRecord], Iterator[Fact]]:
    def read(record: RunRecord) -> Iterator[Fact]:
        for each in record.tests:
            yield from record.estimates(each, choose(each))

    return read


def _find_validation(record: RunRecord) -> Iterator[Fact]:
    for each in record.measurements:
        if each.kind == "val":
            yield from record.estimates(each, each.scores[:3])


def _gather_kind(kind: str) -> Callable[[RunRecord], Iterator[Fact]]:
    def read(record: RunRecord) -> Iterator[Fact]:
        for each in record.tests:
            if each.kind == kind:
                words = f"{each.folder.name} ({each.words()}), images"
                yield from record.json(record.file_of(each, f"{each.split}.json"), "/cases", words)
                yield from record.estimates(each, [e for e in each.scores if e.name.startswith("AUC")])

    return read


def _find_intervals(record: RunRecord) -> Iterator[Fact]:
    for each in record.tests:
        seen = set()
        for i, estimate in enumerate(each.estimates):
            if estimate in each.scores and estimate.low is not None and estimate.method not in seen:
                seen.add(estimate.method)
                name = record.file_of(each, "metrics.json")
                yield from record.json(name, f"/{i}/method", f"95% interval of {estimate.name}")


def _find_fourfold_tables(record: RunRecord) -> Iterator[Fact]:
    """The fourfold table at each operating point."""
    for each in record.tests:
        for i, estimate in enumerate(each.estimates):
            if estimate.name.startswith("sensitivity at ") and all(name in estimate.n for name in CROSSED):
                words = f"{each.folder.name}, {estimate.name.removeprefix('sensitivity ')}"
                yield from record.json(record.file_of(each, "metrics.json"), f"/{i}/n", words)


def _find_subgroups(record: RunRecord) -> Iterator[Fact]:
    for each in record.tests:
        for own, gap in each.subgroups:
            yield from record.estimates(each, (own, gap))


def _find_robustness(record: RunRecord) -> Iterator[Fact]:
    for file in sorted(record.run.folder.glob("*/shortcuts.json")):
        name = file.relative_to(record.run.folder).as_posix()
        yield from record.json(name, "/verdicts", "changed pictures")
    for file in sorted(record.run.folder.glob("*/stress.json")):
        name = file.relative_to(record.run.folder).as_posix()
        drops = json.loads(file.read_text(encoding="utf-8"))["drops"]
        for change in drops:
            place = "/drops/" + change.replace("~", "~0").replace("/", "~1")
            for number, lost in enumerate(drops[change]):
                if lost["difference"] is not None:
                    yield Fact(
                        f"AUC under {change} less without", lost["difference"], name, f"{place}/{number}/difference"
                    )


def _find_maps(record: RunRecord) -> Iterator[Fact]:
    for each in record.tests:
        yield from record.estimates(each, [e for e in each.estimates if e.name.startswith(MAPS)])


def _find_tests(record: RunRecord) -> Iterator[Fact]:
    for each in record.tests:
        yield from record.json(record.file_of(each, f"{each.split}.json"), "/cases", f"images of {each.folder.name}")


def _find_kept_predictions(record: RunRecord) -> Iterator[Fact]:
    for each in record.tests:
        yield from record.json(record.file_of(each, f"{each.split}.json"), "/files", f"kept of {each.folder.name}")


def _find_prevalence(record: RunRecord) -> Iterator[Fact]:
    for each in record.tests:
        yield from record.estimates(each, [e for e in each.estimates if e.name.startswith("prevalence")][-1:])


def _find_points(record: RunRecord) -> Iterator[Fact]:
    for number, point in enumerate(record.run.calibration.points if record.run.calibration else ()):
        yield from record.json(CALIBRATION, f"/points/{number}", point.name)


def _find_sources(record: RunRecord) -> Iterator[Fact]:
    yield from record.json(COHORT, "/name", "cohort")
    for word in record.run.cohort.get("about", {}):
        if word not in ("licence", "split", "patients"):
            yield from record.json(COHORT, "/about/" + word.replace("~", "~0").replace("/", "~1"), word)


GROUPS: Mapping[str, Callable[[RunRecord], Iterator[Fact]]] = {
    "technology": _gather_pointers(RECIPE, "/title", "/model/kind", "/model/backbone/name", "/guidance/kind"),
    "classes": _gather_pointers(COHORT, "/classes"),
    "source": _find_sources,
    "licence": _gather_pointers(COHORT, "/about/licence"),
    "split": _gather_pointers(COHORT, "/about/split"),
    "subset": _gather_pointers(COHORT, "/about/subset", "/about/split"),
    "patients": _gather_pointers(COHORT, "/about/patients"),
    "counts": _gather_pointers(COHORT, "/counts/train", "/counts/val", "/counts/test"),
    "view": _gather_pointers(RECIPE, "/view"),
    "model": _gather_pointers(RECIPE, "/model"),
    "software": _gather_pointers(ENVIRONMENT, "/sightline", "/python", "/packages", "/platform", "/processor"),
    "code": _gather_pointers(ENVIRONMENT, "/code", "/sightline"),
    "command": _gather_pointers(ENVIRONMENT, "/command"),
    "initial": _find_initial_weights,
    "weights": _gather_pointers(COHORT, "/run_identity"),
    "training": _gather_pointers(
        RECIPE, "/optimiser", "/schedule", "/rates", "/epochs", "/steps", "/batch_size", "/guidance", "/weight",
        "/regions", "/objective", "/train_on", "/seed",
    ),
    "imbalance": _gather_pointers(RECIPE, "/reweight"),
    "selection": _find_selection,
    "parts": _gather_pointers(COHORT, "/parts"),
    "validation": _find_validation,
    "performance": _gather_from_tests(lambda each: each.scores),
    "points": _gather_from_tests(lambda each: each.points),
    "calibration": _gather_from_tests(lambda each: each.calibration),
    "benefit": _gather_from_tests(lambda each: [e for e in each.estimates if e.name.startswith("net benefit")]),
    "intervals": _find_intervals,
    "crosstab": _find_fourfold_tables,
    "subgroups": _find_subgroups,
    "robustness": _find_robustness,
    "maps": _find_maps,
    "internal": _gather_kind("test"),
    "external": _gather_kind("other"),
    "tested": _find_tests,
    "kept": _find_kept_predictions,
    "prevalence": _find_prevalence,
    "thresholds": _find_points,
    "recalibration": _gather_pointers(CALIBRATION, "/fitted"),
    "indeterminate": _gather_pointers(CALIBRATION, "/abstention", "/sets"),
}  # fmt: skip
