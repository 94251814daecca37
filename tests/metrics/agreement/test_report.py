"""The table holds what its parts say, with intervals over patients that hold the truth as often as they should."""

import numpy as np
import pytest

from sightline.metrics.agreement.masks import dice
from sightline.metrics.agreement.report import (
    Reading,
    build_agreement_table,
    compute_density_grid,
    compute_study_dice,
    estimate_over_patients,
)


def readings(studies=12, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for s in range(studies):
        for reader, number in (("ada", 1), ("ada", 2), ("ben", 1), ("cyd", 1)):
            mask = np.zeros((30, 30), bool)
            if s % 4:
                r, c = rng.integers(5, 12, 2)
                mask[r : r + 10, c : c + 8] = True
            label = ("no", "yes", "maybe")[int(rng.integers(0, 3))]
            made.append(
                Reading(
                    reader,
                    number,
                    f"S{s}",
                    f"P{s // 2}",
                    label,
                    float(rng.integers(0, 100)),
                    {"i": mask},
                    {"i": (0.5, 0.5)},
                )
            )
    return made


def test_rows_equal_their_parts():
    made = readings()
    table = build_agreement_table(made, ("no", "maybe", "yes"), replicates=50)
    by_study = {(r.reader, r.number, r.study): r for r in made}
    wanted = np.mean(
        [dice(by_study["ada", 1, f"S{s}"].masks["i"], by_study["ben", 1, f"S{s}"].masks["i"]) for s in range(12)]
    )
    row = next(r.estimate for r in table if r.pair == "ada, ben" and r.estimate.name == "Dice")
    assert row.value == pytest.approx(wanted, abs=1e-12)
    assert (row.n["images"], row.n["both empty"], row.n["patients"]) == (12, 3, 6)
    assert row.low < row.value < row.high
    names = {(r.pair, r.estimate.name) for r in table}
    for name in (
        ("ada 1, ada 2", "Dice"), ("all", "Fleiss' kappa"), ("all", "Krippendorff's alpha"), ("ada, ben", "ICC(2,1)"),
        ("all", "ICC(3,1) of marks on a grid"), ("cyd", "STAPLE sensitivity"), ("ada, cyd", "Hausdorff 95 (mm)"),
        ("ben, cyd", "Cohen's kappa, quadratic weights"),
    ):  # fmt: skip
        assert name in names
    assert compute_study_dice(made)["S0"] == 1.0
    # thousands of cells of few patients are no thousand patients
    three = [one for one in made if one.study in ("S0", "S1", "S2")]
    few = build_agreement_table(three, ("no", "maybe", "yes"), replicates=50)
    cells = [row.estimate for row in few if "on a grid" in row.estimate.name]
    assert cells and all(one.low is None and "patients" in one.why for one in cells)


def test_a_density_on_a_grid_keeps_the_marked_area():
    rng = np.random.default_rng(0)
    mask = rng.random((130, 77)) > 0.7
    grid = compute_density_grid(mask)
    assert grid.shape == (64, 64)
    assert grid.mean() == pytest.approx(mask.mean(), abs=1e-12)
    small = rng.random((5, 9)) > 0.5
    assert np.allclose(compute_density_grid(small), small)


def test_intervals_over_patients_hold_the_truth():
    """Two images a patient that share the patient's level: an interval over images would be too short."""
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        level = rng.normal(0.5, 0.1, 40)
        values = np.repeat(level, 2) + rng.normal(0, 0.02, 80)
        patients = [f"P{i // 2}" for i in range(80)]
        found = estimate_over_patients(
            "x", patients, lambda w, v=values: float(w @ v / w.sum()), {}, replicates=300, seed=trial
        )
        hits += found.low <= 0.5 <= found.high
    assert 0.89 <= hits / 200 <= 0.99


@pytest.mark.parametrize(("known", "unit", "distance"), [(8, "mm", 1.0), (7, "px", 10.0)])
def test_distances_of_all_images_have_one_unit(known, unit, distance):
    made = []
    for i in range(8):
        for reader, start in (("ada", 20), ("ben", 30)):
            mask = np.zeros((64, 64), dtype=bool)
            mask[start : start + 20, 20:40] = True
            spacing = {"im": (0.1, 0.1) if i < known else None}
            made.append(Reading(reader, 1, f"S{i}", f"P{i}", masks={"im": mask}, spacing_mm=spacing))
    found = {row.estimate.name: row.estimate for row in build_agreement_table(made, ("x", "y"), replicates=20)}
    farthest = found[f"Hausdorff ({unit})"]
    assert farthest.value == pytest.approx(distance)
    assert farthest.n["counted"] == 8 and farthest.n.get("without spacing", 0) == 8 - known


def test_a_reader_who_marks_everything_and_one_who_marks_nothing_have_a_table():
    made = [
        Reading(reader, 1, f"S{i}", f"P{i}", masks={"im": np.full((40, 30), reader == "ada")})
        for i in range(6) for reader in ("ada", "ben")
    ]  # fmt: skip
    found = {row.estimate.name: row.estimate for row in build_agreement_table(made, ("x", "y"), replicates=20)}
    assert found["Dice"].value == 0.0
    fixed = found["ICC(3,1) of marks on a grid"]
    assert fixed.value is None and "targets do not differ" in fixed.why


def test_nothing_in_common_says_why():
    table = build_agreement_table([Reading("a", 1, "S", "P", "x"), Reading("b", 1, "T", "P", "x")], ("x",))
    assert all(row.estimate.value is None for row in table)
    found = estimate_over_patients("x", [], lambda w: 1.0, {})
    assert found.value is None
    assert "read by both" in found.why
