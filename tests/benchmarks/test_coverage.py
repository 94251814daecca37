"""The coverage table of docs/statistics.md is the measured one, meets its goals, and is measured again in small."""

from pathlib import Path

import pytest

from benchmarks.coverage import (
    AUCS,
    LEVEL_SPREADS,
    MAP_PATIENTS,
    MAP_SCORES,
    PATIENTS,
    PREVALENCES,
    auc_cell,
    map_cell,
    measure,
    read_cells,
    tables,
    write_cells,
)

ROOT = Path(__file__).parents[2]
MEASURED = read_cells(ROOT / "benchmarks" / "coverage.csv")


def test_the_page_prints_what_was_measured():
    assert tables(MEASURED) in (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")


def test_every_cell_meets_the_goals():
    ranked = [cell for cell in MEASURED if cell.kind == "AUC"]
    assert {(c.patients, c.truth, c.prevalence) for c in ranked} == {
        (n, auc, share) for n in PATIENTS for auc in AUCS for share in PREVALENCES
    }
    assert all(cell.simulations >= 2000 for cell in MEASURED)
    assert all(3.0 <= cell.rejected <= 7.0 for cell in ranked)
    assert all(93.0 <= cell.covered <= 97.0 for cell in ranked if cell.trainings != 2)
    assert all(91.0 <= cell.covered <= 97.0 for cell in ranked if cell.trainings == 2)
    assert all(93.0 <= cell.covered <= 97.6 for cell in MEASURED if cell.kind == "sensitivity")


def test_scores_of_maps_are_told_apart_as_often_as_the_page_says():
    measured = {(c.kind, c.patients): c for c in MEASURED if c.kind.startswith(tuple(MAP_SCORES))}
    assert set(measured) == {
        (f"{score}, trainings {spread:g} apart", n)
        for score in MAP_SCORES for n in MAP_PATIENTS for spread in LEVEL_SPREADS
    }  # fmt: skip
    # more often than 5%: no goal that is met, but what the page warns of
    assert all(4.0 <= c.rejected <= 8.5 and 92.5 <= c.covered <= 97.6 for c in measured.values())
    assert all(c.simulations >= 8000 for c in measured.values())


def test_one_part_is_simulated_alone():
    found = list(measure(simulations=2, small=True, parts=("pointing", "energy")))
    assert [(c.kind, c.patients, c.simulations) for c in found] == [
        ("pointing game, trainings 0.4 apart", 40, 8), ("energy, trainings 0.4 apart", 40, 8),
    ]  # fmt: skip
    assert "| energy | 40 | 0.4 | " in tables(found)


def test_a_cell_repeats_itself_and_survives_its_file(tmp_path):
    cells = [auc_cell(40, 0.9, 0.1, trainings, 20) for trainings in (1, 3)]
    assert cells == [auc_cell(40, 0.9, 0.1, trainings, 20) for trainings in (1, 3)]
    maps = [map_cell(score, 20, 0.2, 5) for score in MAP_SCORES]
    assert maps == [map_cell(score, 20, 0.2, 5) for score in MAP_SCORES]
    cells += maps
    write_cells(cells, tmp_path / "cells.csv")
    assert read_cells(tmp_path / "cells.csv") == cells


@pytest.mark.slow
def test_a_small_run_is_near_the_goals():
    for cell in measure(simulations=200, small=True):
        # 200 simulations of 95% have a standard deviation of 1.5%
        assert 90.0 <= cell.covered <= 99.5, cell
        assert cell.rejected is None or 0.5 <= cell.rejected <= 10.5, cell
