"""The report's section on whether an answer can be relied on, from rows with known predictions."""

from dataclasses import replace

import numpy as np
import pytest
from support.cohorts import tiny_recipe
from support.simulated import drawn

from sightline.evaluation.evidence.reliance import build_reliance_section
from sightline.evaluation.result import Evaluation
from sightline.evaluation.tables.table import Row, RowResult, Table, TableResult
from sightline.metrics.classification.selective_prediction import AURC
from sightline.structures.case import Case, Cohort


def made(place, *, train_on=("train",)):
    """Two rows on 60 patients; the first kept its validation predictions."""
    random = np.random.default_rng(0)
    tables = {name: drawn(random, patients=60) for name in ("a", "b")}
    labels = tables["a"].labels
    tables["b"] = replace(tables["b"], labels=labels)
    ids = tables["a"].case_ids
    cases = [
        Case(c, c, p, place / "x.png", ("normal", "fracture")[y], split="test", facts={"sex": "fm"[i % 2]})
        for i, (c, p, y) in enumerate(zip(ids, tables["a"].patient_ids, labels, strict=True))
    ]
    (place / "a" / "predictions").mkdir(parents=True)
    drawn(random, patients=80).write(place / "a" / "predictions" / "val.csv")
    recipe = replace(tiny_recipe(), train_on=train_on)
    rows = tuple(
        RowResult(Row(name, recipe), {"test": (Evaluation(table),)}, (place / name,)) for name, table in tables.items()
    )
    table = Table("t", "T", tuple(row.row for row in rows))
    return TableResult(table, Cohort("c", ("normal", "fracture"), tuple(cases), place), (0,), rows), tables


def test_the_section_holds_what_the_numbers_say(tmp_path):
    result, tables = made(tmp_path)
    section = build_reliance_section(result, {"a": 0, "b": 1}, "a")
    coverage, points, groups = section.tables
    assert all(table.folded for table in section.tables) and len(section.pictures) == 2
    assert [row[0] for row in coverage.rows] == ["a", "b"]
    area = AURC()(tables["b"].labels, tables["b"].probabilities, np.ones((1, 60)))[0]
    assert float(coverage.rows[1][1].split()[0]) == pytest.approx(area, abs=1e-3)
    # two points of the row that kept validation, none of the other
    assert [row[:2] for row in points.rows] == [("a", "Youden"), ("a", "sensitivity 0.95")]
    called = tables["a"].probabilities[:, 1] >= float(points.rows[0][2])
    share = called[tables["a"].labels == 1].mean()
    assert float(points.rows[0][3].split()[0]) == pytest.approx(share, abs=0.02)
    assert {row[0] for row in groups.rows} == {"sex: f", "sex: m"} and "Subgroups of a" in groups.caption


def test_thresholds_are_never_chosen_on_what_was_trained_on(tmp_path):
    result, _ = made(tmp_path, train_on=("train", "val"))
    section = build_reliance_section(result, {"a": 0, "b": 1}, None)
    assert [table.caption[:6] for table in section.tables] == ["Errors"]
    assert build_reliance_section(replace(result, rows=()), {}, None) is None
