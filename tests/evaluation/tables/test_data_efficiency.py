"""Scores against training images: what a mark is worth, by hand, and the picture."""

from dataclasses import replace
from pathlib import Path

import pytest

from sightline.errors import SightlineError
from sightline.evaluation.tables.data_efficiency import collect_sized_rows, describe_worth, draw_efficiency_chart
from sightline.evaluation.tables.lines import Line
from sightline.evaluation.tables.report import _write_sentences
from sightline.evaluation.tables.table import RowResult, TableResult
from sightline.papers.fracatlas.learning_curve import build_table
from sightline.structures.case import Case, Cohort
from sightline.structures.regions import Box
from sightline.structures.tag import Tag

CURVE = build_table()
BOX = (Box((1.0, 1.0), (5.0, 5.0), Tag("finding", "fracture")),)


@pytest.fixture(scope="module")
def cohort():
    """800 training images of 400 patients, half of them with a marked fracture."""
    cases = []
    for i in range(800):
        broken = i // 2 % 2
        label = ("no fracture", "fracture")[broken]
        cases.append(Case(f"c{i}", f"s{i}", f"p{i // 2}", "x.png", label, BOX * broken, "train"))
    return Cohort("marks", ("no fracture", "fracture"), tuple(cases))


def result_of(cohort, scores):
    rows = [row for row in CURVE.rows if row.name in scores]
    done = tuple(RowResult(row, {"test": ("an evaluation",)}) for row in rows)
    result = TableResult(replace(CURVE, rows=tuple(rows)), cohort, (0,), done)
    lines = [
        Line(name, "test", metric, mean=value, low=value - 0.05, high=value + 0.05)
        for name, value in scores.items()
        for metric in CURVE.leading
    ]
    return result, lines


def test_what_a_mark_is_worth_by_hand(cohort):
    scores = {
        "unguided mean, 75 images": 0.60, "unguided softmax, 75 images": 0.62, "unguided mean, 600 images": 0.80,
        "guided all marks, 75 images": 0.71, "guided 20% of marks, 75 images": 0.61,
        "guided all marks, 600 images": 0.9,
    }  # fmt: skip
    result, lines = result_of(cohort, scores)
    rows = {one.row.name: one for one in collect_sized_rows(result)}
    # a method at one size has no curve
    assert "guided 20% of marks, 75 images" not in rows and "unguided softmax, 75 images" not in rows
    small = rows["guided all marks, 75 images"]
    assert abs(small.images - 75) <= 3 and small.marks == pytest.approx(small.images / 2, abs=3)
    # halfway between the scores of 0.60 and 0.80 on a logarithmic axis, further 0.01 / 0.2 of the way
    first, last = rows["unguided mean, 75 images"].images, rows["unguided mean, 600 images"].images
    equal = first ** (1 - 0.55) * last**0.55
    said = describe_worth(result, lines)
    assert f"guided all marks, 75 images: {(equal - small.images) / small.marks:.1f} images without a mark" in said
    assert "guided all marks, 600 images: cannot be said" in said
    # of a distance less is better
    far = [replace(line, metric="centre distance in px", mean=10 * (1 - line.mean)) for line in lines]
    assert describe_worth(result, far, "centre distance in px").split("counted): ")[1] == said.split("counted): ")[1]


def test_the_fewest_images_that_would_have_given_the_same_count(cohort):
    marked = "guided all marks, 75 images"
    scores = {
        "unguided mean, 75 images": 0.7, "unguided mean, 150 images": 0.8, "unguided mean, 300 images": 0.79,
        "unguided mean, 600 images": 0.9, marked: 0.8, "guided all marks, 600 images": 0.9,
    }  # fmt: skip
    result, lines = result_of(cohort, scores)
    rows = {one.row.name: one for one in collect_sized_rows(result)}
    small, images = rows[marked], {name: one.images for name, one in rows.items()}
    # 150 images give as much as 300
    worth = (images["unguided mean, 150 images"] - small.images) / small.marks
    assert f"{marked}: {worth:.1f} images without a mark" in describe_worth(result, lines)
    # what lies above a plateau lies beyond its end
    above = [replace(line, mean=0.85) if line.row == marked else line for line in lines]
    equal = (images["unguided mean, 300 images"] * images["unguided mean, 600 images"]) ** 0.5
    worth = (equal - small.images) / small.marks
    assert f"{marked}: {worth:.1f} images without a mark" in describe_worth(result, above)


def test_of_fewer_images_than_any_unmarked_row_has_nothing_is_known(cohort):
    marked = "guided all marks, 75 images"
    scores = {
        "unguided mean, 150 images": 0.80, "unguided mean, 600 images": 0.85, marked: 0.79,
        "guided all marks, 600 images": 0.8,
    }  # fmt: skip
    result, lines = result_of(cohort, scores)
    said = describe_worth(result, lines)
    assert f"{marked}: cannot be said, no unmarked row has so few images" in said
    assert "guided all marks, 600 images: nothing" in said
    # better than more images without marks is worth something all the same
    better = [replace(line, mean=0.82) if line.row == marked else line for line in lines]
    assert f"{marked}: cannot" not in describe_worth(result, better)


def test_marks_of_a_reader_whom_the_row_does_not_use_are_not_counted(cohort):
    ada = (Box((1.0, 1.0), (5.0, 5.0), Tag("finding", "fracture", reader="ada")),)
    every_other = [replace(case, regions=ada) if case.regions and i % 4 == 2 else case for i, case in enumerate(cohort)]
    rows = []
    for row in CURVE.rows:
        if row.name in ("guided all marks, 75 images", "guided all marks, 600 images"):
            choice = replace(row.recipe.regions, readers="ada")
            rows.append(replace(row, recipe=replace(row.recipe, regions=choice)))
    done = tuple(RowResult(row, {"test": ("an evaluation",)}) for row in rows)
    table = replace(CURVE, rows=tuple(rows))
    for few in collect_sized_rows(TableResult(table, replace(cohort, cases=tuple(every_other)), (0,), done)):
        assert few.marks == pytest.approx(few.images / 4, rel=0.25)


def test_marks_that_gain_nothing_are_worth_nothing(cohort):
    scores = {
        "unguided mean, 75 images": 0.7, "unguided mean, 600 images": 0.7, "guided all marks, 75 images": 0.7,
        "guided all marks, 600 images": 0.65,
    }  # fmt: skip
    result, lines = result_of(cohort, scores)
    assert describe_worth(result, lines).count("nothing") == 2
    picture = draw_efficiency_chart(result, lines)
    assert picture is not None and "24 s a mark" in picture.caption and picture.png.startswith(b"\x89PNG")


def test_the_report_says_how_many_images_the_rows_were_trained_on(cohort):
    result, lines = result_of(cohort, {"unguided mean, 75 images": 0.7, "unguided mean, 600 images": 0.8})
    done = replace(result, rows=tuple(replace(row, folders=(Path("runs"),)) for row in result.rows))
    sizes = [round(one.images) for one in collect_sized_rows(result)]
    assert f"on {sizes[0]} to {sizes[1]} of 800 training images of marks" in _write_sentences(done, lines)[0]


def test_the_report_tells_trained_rows_from_those_put_together(cohort):
    pair = "two networks: unguided mean twice, 300 images"
    names = (pair, "unguided mean 3 x longer, 300 images", "unguided mean again, 300 images")
    result, lines = result_of(cohort, dict.fromkeys(names, 0.7))
    done = replace(result, seeds=(0, 1), rows=tuple(replace(row, folders=(Path("runs"),)) for row in result.rows))
    opening = "2 methods were trained 2 times each on 300 of 800 training images of marks, 1 more was assembled"
    assert _write_sentences(done, lines)[0].startswith(opening)
    alone = replace(done, seeds=(0,), rows=tuple(row for row in done.rows if row.row.name == names[1]))
    assert _write_sentences(alone, lines)[0].startswith("1 method was trained 1 time on 300 of 800 training images")
    # a row that did not run was not trained
    failed = replace(done, rows=tuple(replace(row, why_not=SightlineError("no")) for row in done.rows))
    assert _write_sentences(failed, lines)[0].startswith("0 methods were trained")


def test_one_size_has_no_curve(cohort):
    result, lines = result_of(cohort, {"unguided mean, 75 images": 0.7, "guided all marks, 75 images": 0.8})
    assert draw_efficiency_chart(result, lines) is None
    assert "cannot be said" in describe_worth(result, lines)
