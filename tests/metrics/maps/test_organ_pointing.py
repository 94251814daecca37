from dataclasses import replace

import numpy as np
import pytest

from sightline.errors import GeometryError, RunError
from sightline.metrics.maps.localisation import (
    MapScores,
    build_organ_row,
    compare_maps,
    compute_organ_report,
    score_in_organ,
)
from sightline.metrics.maps.score import MapScore, score_map


def heart():
    organ = np.zeros((12, 10), dtype=bool)
    organ[5:9, 3:7] = True
    return organ


def slow_hit(field, organ, tolerance):
    """Look at every maximum and at all cells around it."""
    hits = []
    for r, c in np.argwhere(field == field.max()):
        around = organ[max(0, r - tolerance) : r + tolerance + 1, max(0, c - tolerance) : c + tolerance + 1]
        hits.append(around.any())
    return np.mean(hits)


@pytest.mark.parametrize("tolerance", [0, 1, 2])
def test_every_maximum_against_looking_around_it(tolerance):
    organ = heart()
    for r in range(12):
        for c in range(10):
            field = np.zeros((12, 10))
            field[r, c] = 1.0
            found = score_in_organ(field, organ, tolerance_cells=tolerance)
            assert found.pointing == slow_hit(field, organ, tolerance)


@pytest.mark.parametrize(("tolerance", "cells"), [(0, 16), (1, 36), (2, 64)])
def test_chance_is_what_random_maps_get(tolerance, cells):
    random = np.random.default_rng(0)
    found = score_in_organ(np.ones((12, 10)), heart(), tolerance_cells=tolerance)
    assert found.pointing == found.pointing_chance == cells / 120
    hits = [score_in_organ(random.random((12, 10)), heart(), tolerance_cells=tolerance).pointing for _ in range(300)]
    assert np.mean(hits) == pytest.approx(cells / 120, abs=0.09)


def test_tied_maxima_count_by_their_share():
    field = np.zeros((12, 10))
    field[5, 3] = field[4, 2] = field[0, 0] = 2.0  # inside, beside, far
    assert score_in_organ(field, heart()).pointing == pytest.approx(1 / 3)
    assert score_in_organ(field, heart(), tolerance_cells=1).pointing == pytest.approx(2 / 3)


def test_padding_gives_no_tolerance():
    valid = np.ones((12, 10), dtype=bool)
    valid[:, 3:] = False  # the heart lies in the padding
    assert score_in_organ(np.ones((12, 10)), heart(), tolerance_cells=1, valid=valid).pointing is None
    assert "no pixel inside the image" in score_in_organ(np.ones((12, 10)), heart(), valid=valid).why


def test_no_tolerance_is_the_map_score():
    field = np.random.default_rng(1).random((12, 10))
    assert score_in_organ(field, heart()) == score_map(field, heart())
    with pytest.raises(GeometryError, match="0 cells or more"):
        score_in_organ(field, heart(), tolerance_cells=-1)


def rows(seed, skill, tolerance):
    random = np.random.default_rng(seed)
    found = []
    for i in range(30):
        label = ("normal", "CHF", "pneumonia")[i % 3]
        organ = {"normal": None, "CHF": heart(), "pneumonia": ~heart()}[label]
        field = random.random((12, 10)) + skill * heart()
        score = score_in_organ(field, organ, tolerance_cells=tolerance)
        found.append(build_organ_row((f"i{i}", f"s{i}", f"p{i}"), label, score, tolerance_cells=tolerance))
    return found


def test_report_per_class_beside_chance_and_normals_are_not_counted(tmp_path):
    scores = MapScores(tuple(rows(0, 1.0, 0) + rows(0, 1.0, 1)))
    scores.write(tmp_path / "organs.csv")
    assert MapScores.read(tmp_path / "organs.csv") == scores
    report = {e.name: e for e in compute_organ_report(scores)}
    exact = report["pointing game in the organ: CHF, mask"]
    assert exact.value == 1.0 and exact.n["images"] == 10
    assert report["pointing game in the organ, chance: CHF, mask"].value == pytest.approx(16 / 120)
    assert report["pointing game in the organ, chance: CHF, mask and 1 cells around"].value == pytest.approx(36 / 120)
    assert report["pointing game in the organ: all classes, mask"].n["images"] == 20
    assert not any("normal" in name for name in report)
    lungs = report["pointing game in the organ: pneumonia, mask"]
    assert lungs.value == 0.0  # all those maps looked at the heart
    lost = replace(scores.rows[1], case_id="lost", score=MapScore(why="the region has no pixel inside the image"))
    counted = {e.name: e for e in compute_organ_report(MapScores((*scores.rows, lost)))}
    assert counted["pointing game in the organ: CHF, mask"].value == exact.value
    assert "1 maps without a score left out" in counted["pointing game in the organ: CHF, mask"].method
    only = MapScores(tuple(row for row in scores.rows if row.label == "normal"))
    assert compute_organ_report(only)[0].why.startswith("the class has no organ")


def test_two_methods_compare_over_patients():
    a, b = ([MapScores(tuple(rows(s, skill, 1))) for s in (1, 2)] for skill in (1.0, 0.0))
    found = compare_maps(a, b, "pointing", replicates=200)
    assert found.value_a is not None and "10 maps left out" in found.why


def test_an_organ_too_small_for_one_of_two_grids_is_left_out_of_the_comparison():
    whole = MapScores(tuple(rows(0, 1.0, 0)))
    coarse = MapScores(tuple(row for row in rows(0, 0.0, 0) if row.case_id not in ("i1", "i2")))
    for a, b in (([whole], [coarse]), ([coarse], [whole])):
        found = compare_maps(a, b, "pointing", replicates=50)
        assert found.n["maps"] == 18 and "12 maps left out" in found.why  # ten of them are of normals
    finding = MapScores(tuple(replace(row, role="finding") for row in whole.rows))
    with pytest.raises(RunError, match="different maps"):
        compare_maps([finding], [coarse], "pointing")
