"""Scores against the number of training images, where a table has a method at several sizes: a picture, the minutes an
expert spends on the marks, and how many unmarked images a mark is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline.data.targets.region_choice import RegionChoice
from sightline.evaluation.tables.lines import Line, find_line
from sightline.evaluation.tables.table import Row, TableResult
from sightline.plots.curves import SizeCurve, draw_scores_by_size
from sightline.plots.html_report import ReportPicture

# Liao 2022, section V: a mark takes an expert about 24 s
SECONDS_PER_MARK = 24.0


@dataclass(frozen=True)
class SizedRow:
    """A row with what its training sets held.

    Attributes:
        row: of the table.
        method: the row's name without its size.
        images: training images, mean over seeds.
        marks: of them with a mark that the row used, mean over seeds.
    """

    row: Row
    method: str
    images: float
    marks: float


def collect_sized_rows(result: TableResult) -> list[SizedRow]:
    """Rows of methods that stand in the table at two sizes of training set or more, smallest first."""
    found = []
    for each in result.rows:
        row = each.row
        if not each.evaluations or not row.weight_label:
            continue
        images, marks = zip(*(_count_images(row, result, seed) for seed in result.seeds), strict=True)
        method = row.name.removesuffix(row.weight_label).rstrip(", ")
        found.append(SizedRow(row, method, float(np.mean(images)), float(np.mean(marks))))
    sizes: dict[str, set[int | None]] = {}
    for one in found:
        sizes.setdefault(one.method, set()).add(one.row.train_images)
    return sorted((one for one in found if len(sizes[one.method]) > 1), key=lambda one: one.images)


def draw_efficiency_chart(result: TableResult, lines: Sequence[Line]) -> ReportPicture | None:
    """Each leading metric against training images; None where no method stands at two sizes."""
    rows = collect_sized_rows(result)
    panels: dict[str, list[SizeCurve]] = {}
    for metric in result.table.leading or result.table.metrics[:1]:
        curves = []
        for style, method in enumerate(dict.fromkeys(one.method for one in rows)):
            points = [
                (one.images, line.mean, line.low, line.high)
                for one in rows
                if one.method == method and (line := find_line(lines, one.row.name, "test", metric)) is not None
                and line.mean is not None
            ]  # fmt: skip
            if points:
                curves.append(SizeCurve(method, points, style))
        if curves:
            panels[metric] = curves
    if not panels:
        return None
    all_marked = max(rows, key=lambda one: one.marks / one.images)
    minutes = all_marked.marks / all_marked.images * SECONDS_PER_MARK / 60 if all_marked.marks else None
    caption = "Mean over trainings with its 95% interval over patients and trainings."
    if minutes is not None:
        caption += f" Upper axis: an expert's minutes for all marks, at {SECONDS_PER_MARK:g} s a mark. "
        caption += describe_worth(result, lines)
    return ReportPicture(draw_scores_by_size(panels, minutes_per_image=minutes), caption, "Scores by training images")


def describe_worth(result: TableResult, lines: Sequence[Line], metric: str | None = None) -> str:
    """How many unmarked images one mark is worth, at each size, as a sentence.

    The best unmarked method at each size (by its score on the test cases, to its advantage) gives a curve; where the
    marked method's score lies on it, so many images without marks would have given the same. Scores of which less is
    better are turned (`Line.merit`). Where several numbers of images would have given the same, the smallest counts; of
    fewer images than any unmarked row has, nothing is known.

    Args:
        result: of a table.
        lines: its lines.
        metric: the first leading one when not given.
    """
    metric = metric or (result.table.leading or result.table.metrics)[0]
    scored = [
        (one, line.merit)
        for one in collect_sized_rows(result)
        if (line := find_line(lines, one.row.name, "test", metric)) is not None and line.mean is not None
    ]
    plain: dict[float, float] = {}
    for one, score in scored:
        if not one.marks:
            plain[one.images] = max(score, plain.get(one.images, -np.inf))
    marked = [(one, score) for one, score in scored if one.marks]
    if len(plain) < 2 or not marked:
        return "What a mark is worth cannot be said: no unmarked method stands at two sizes."
    images = np.array(sorted(plain))
    sizes = np.log(images)
    # more images are taken to do no harm: the curve never falls
    best = np.maximum.accumulate([plain[n] for n in images])
    sentences = []
    for one, score in marked:
        if score > best[-1]:
            further = images[-1] - one.images
            sentences.append(
                f"{one.row.name}: more than {further:.0f} further images without marks"
                if further > 0
                else f"{one.row.name}: cannot be said, no unmarked row has more images"
            )
        elif one.images < images[0] and score <= best[0]:
            sentences.append(f"{one.row.name}: cannot be said, no unmarked row has so few images")
        elif score <= np.interp(np.log(one.images), sizes, best):
            sentences.append(f"{one.row.name}: nothing")
        else:
            # the first number of images at which the curve is as high: on a plateau, its beginning
            after = int(np.searchsorted(best, score))
            ends = slice(after - 1, after + 1)
            equal = float(np.exp(np.interp(score, best[ends], sizes[ends])))
            sentences.append(f"{one.row.name}: {(equal - one.images) / one.marks:.1f} images without a mark")
    return f"What a mark is worth by {metric} (points alone, chance not counted): {'; '.join(sentences)}."


def _count_images(row: Row, result: TableResult, seed: int) -> tuple[int, float]:
    """Training images of a seed, and how many of them have a mark that is used."""
    recipe = row.recipe
    training = row.training_cases(result.cohort, seed).split(*recipe.train_on)
    choice = recipe.regions
    if not recipe.guided_by_regions or not isinstance(choice, RegionChoice):
        return len(training), 0.0
    marked = sum(
        any(region.tag.role == choice.role and choice.reader in (None, region.tag.reader) for region in case.regions)
        for case in training
    )
    return len(training), marked * choice.share
