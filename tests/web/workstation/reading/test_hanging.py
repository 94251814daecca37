"""Which view hangs where."""

import pytest

from sightline.web.workstation.reading.hanging import plan_hanging


def views(*named):
    return [{"key": f"k{n}", "view": view, "side": side, "ordinal": n} for n, (view, side) in enumerate(named)]


def test_frontal_hangs_before_oblique_before_lateral_and_right_before_left():
    given = views(("LAT", "L"), ("PA", "L"), ("OBL", "L"), ("LAT", "R"), ("PA", "R"))
    assert plan_hanging(given)["order"] == ["k4", "k1", "k2", "k3", "k0"]
    # words of hospitals; what is no projection follows in the order of the cohort
    odd = views(("", ""), ("wrist-lateral", ""), ("Frontal view", ""), ("scaphoid", ""))
    assert plan_hanging(odd)["order"] == ["k2", "k1", "k0", "k3"]


@pytest.mark.parametrize(
    ("count", "grid"), [(0, (1, 1)), (1, (1, 1)), (2, (1, 2)), (3, (1, 3)), (4, (2, 2)), (6, (2, 3)), (100, (2, 3))]
)
def test_grids(count, grid):
    plan = plan_hanging(views(*[("PA", "")] * count))
    assert (plan["rows"], plan["columns"]) == grid and len(plan["order"]) == count
