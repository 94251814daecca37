"""Parts of the phantom spine: who is drawn, the column, solids, series, metal."""

import math
from itertools import pairwise

import nibabel
import numpy as np
import pytest
from support.paths import DATA as DATA_ROOT

from sightline.data.phantoms.spine.body import DEFORMED_AT, MEASURES, SIXTH, BodyPlan, VertebraBody
from sightline.data.phantoms.spine.column import stack_vertebrae
from sightline.data.phantoms.spine.contents import METAL_HU, add_metal
from sightline.data.phantoms.spine.plan import MOST_NORMAL, plan_person
from sightline.data.phantoms.spine.scan import draw_spine
from sightline.data.phantoms.spine.series import orient_arrays, plan_series
from sightline.data.phantoms.spine.solids import EllipticBar, Grid, VertebraPose, compute_partial_volume
from sightline.data.spine.vertebrae import LABELS, RANKS

DATA = DATA_ROOT / "spine_ct" / "verse"


def people(count, prevalence=0.08, seed=0):
    return [plan_person(number, seed, prevalence=prevalence) for number in range(count)]


@pytest.mark.parametrize(
    "prevalence", [pytest.param(0.0, marks=pytest.mark.slow), 0.08, pytest.param(0.3, marks=pytest.mark.slow)]
)
def test_prevalence_is_the_one_asked_for(prevalence):
    grades = [one.grade > 0 for person in people(100, prevalence) for one in person.vertebrae if 11 <= one.label <= 24]
    assert np.mean(grades) == pytest.approx(prevalence, abs=0.2 * prevalence)


@pytest.mark.slow
def test_deformities_gather_where_they_do_in_patients_and_in_the_frail():
    by_level, frail, sound = {}, [], []
    for person in people(160):
        for one in person.vertebrae:
            by_level.setdefault(one.label, []).append(one.grade > 0)
        (frail if person.frailty > 0.6 else sound).append(sum(one.grade > 0 for one in person.vertebrae))
    share = {label: np.mean(hits) for label, hits in by_level.items()}
    assert share[LABELS["L1"]] > 2 * share[LABELS["T10"]] * 0.7 > 3 * share[LABELS["T2"]]
    assert share[LABELS["C7"]] == 0.0
    assert np.mean(frail) > 1.5 * np.mean(sound)
    assert any(LABELS["T13"] in [one.label for one in person.vertebrae] for person in people(60))


def test_a_vertebra_without_a_deformity_loses_less_than_a_fifth():
    for person in people(40):
        for one in person.vertebrae:
            front, middle, back = one.body.heights
            if one.grade == 0:
                assert one.body.heights == one.body.normal
                assert max(1 - front / back, 1 - middle / back) <= MOST_NORMAL + 1e-9
            assert min(one.body.heights) > 4.0


def test_discs_keep_some_height_at_both_ends_however_the_spine_is_curved():
    for person in people(12, prevalence=0.4):
        for upper, lower in pairwise(stack_vertebrae(person).vertebrae):
            half = SIXTH * upper.body.depth / 2.0
            gaps = []
            for y in (-half, half):
                height, slope = lower.body.rims()[0]
                below = np.array([0.0, y, height + slope * y])
                height, slope = upper.body.rims()[1]
                above = np.array([0.0, y, height + slope * y])
                gaps.append((upper.pose.place(above) - lower.pose.place(below)) @ lower.pose.turn[:, 2])
            assert min(gaps) > 0.1
            assert sum(gaps) / 2 == pytest.approx(upper.plan.disc_mm, rel=0.35, abs=0.8)


def test_frames_of_the_column_neither_flip_nor_jump():
    for person in people(12):
        for upper, lower in pairwise(stack_vertebrae(person).vertebrae):
            turn = upper.pose.turn.T @ lower.pose.turn
            assert np.linalg.det(upper.pose.turn) == pytest.approx(1.0)
            assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) < 30.0


@pytest.mark.parametrize("central", [False, True])
def test_endplates_have_the_heights_planned(central):
    plan = BodyPlan(MEASURES[20], (22.0, 21.0, 23.8), (14.0, 12.5, 22.9), upper_share=0.7, central=central)
    upper, lower = VertebraBody(plan).plates(np.array([SIXTH, 0.0, -SIXTH]))
    np.testing.assert_allclose(upper - lower, plan.heights, atol=0.02)
    _, untouched = VertebraBody(plan).plates(np.array([SIXTH, 0.0, -SIXTH]))
    assert (upper - (untouched + np.array(plan.normal)) < 0.3).all()


def test_a_bar_has_the_walls_of_its_ellipse():
    bar = EllipticBar(np.zeros(3), np.array([0.0, 0.0, 30.0]), (3.0, 8.0), (3.0, 8.0), (0.0, 1.0, 0.0))
    z = np.full(400, 15.0, np.float32)
    line, zero = np.linspace(0.0, 20.0, 400, dtype=np.float32), np.zeros(400, np.float32)
    for axis, radius in ((0, 3.0), (1, 8.0)):
        distance = bar.distance(*((line, zero) if axis == 0 else (zero, line)), z)
        assert line[np.argmin(np.abs(distance))] == pytest.approx(radius, abs=0.06)
        slope = np.gradient(distance, line)[np.abs(line - radius) < 0.5]
        np.testing.assert_allclose(slope, 1.0, atol=0.1)
    assert compute_partial_volume(np.array([-2.0, 0.0, 2.0], np.float32), 1.0).tolist() == [1.0, 0.5, 0.0]


def test_own_coordinates_undo_the_pose():
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    pose = VertebraPose(turn, np.array([5.0, -3.0, 40.0]))
    grid = Grid(*(np.arange(start, start + 12, dtype=np.float32) for start in (0, -9, 34)))
    part = grid.part(np.array([2.0, -5.0, 36.0]), np.array([8.0, 0.0, 44.0]))
    own = np.stack(np.broadcast_arrays(*pose.own(grid, part)), axis=-1)
    there = np.stack(np.broadcast_arrays(*grid.axes(part)), axis=-1)
    np.testing.assert_allclose(pose.place(own), there, atol=1e-4)


@pytest.mark.parametrize("codes", ["PIR", "LPS", "IPL", "RAS", "AIL"])
def test_turning_the_axes_moves_nothing_in_the_patient(codes):
    rng = np.random.default_rng(0)
    array = rng.integers(0, 99, (4, 5, 6))
    affine = np.array([[2.0, 0, 0, -7], [0, 0.9, -0.1, 3], [0, 0.1, 0.9, 50], [0, 0, 0, 1]])
    (turned,), moved = orient_arrays([array], affine, tuple(codes))
    assert "".join(nibabel.aff2axcodes(moved)) == codes
    for voxel in [(0, 0, 0), (3, 1, 5), (2, 4, 1)]:
        world = nibabel.affines.apply_affine(affine, voxel)
        there = np.rint(nibabel.affines.apply_affine(np.linalg.inv(moved), world)).astype(int)
        assert turned[tuple(there)] == array[voxel]


def test_series_differ_as_those_of_scanners_do():
    planned = [s for n, person in enumerate(people(60)) for s in plan_series(person, n, 0, None)]
    assert len({s.name for s in planned}) == len(planned)
    assert len({s.orientation for s in planned}) >= 5
    assert len({s.spacing_mm for s in planned}) >= 8
    assert any("split-" in s.name for s in planned) and any(s.nod_deg for s in planned)
    assert min(len(s.labels) for s in planned) >= 4
    ranks = [[RANKS[label] for label in s.labels] for s in planned]
    assert all(b - a in (1, 2) for one in ranks for a, b in pairwise(one))
    assert set(DEFORMED_AT) >= {label for s in planned for label in s.labels}


@pytest.mark.slow
def test_metal_is_bright_and_throws_dark_streaks_beside_it():
    person = next(one for one in people(200) if any(v.screws for v in one.vertebrae))
    column = stack_vertebrae(person)
    held = [one for one in column.vertebrae if one.plan.screws]
    centre = np.mean([one.centre for one in held], axis=0)
    grid = Grid(*(np.arange(c - r, c + r, 1.5, dtype=np.float32) for c, r in zip(centre, (45, 60, 30), strict=True)))
    before = np.full(grid.shape, 50.0, np.float32)
    hu = before.copy()
    add_metal(hu, grid, held, np.random.default_rng(0))
    assert hu.max() == pytest.approx(METAL_HU, rel=0.01)
    assert (hu > 2000).sum() > 100
    assert hu.min() < -100 and np.percentile(hu, 50) == pytest.approx(50.0, abs=40.0)


def test_bodies_are_as_large_as_real_ones():
    mask_file = DATA / "sub-verse004_seg-vert_msk.nii.gz"
    if not mask_file.exists():
        return _known_volumes([28.2, 31.5, 36.3, 41.3, 53.7, 58.0, 60.0, 58.2])
    image = nibabel.load(mask_file)
    mask, voxel = np.asanyarray(image.dataobj), abs(np.linalg.det(image.affine[:3, :3])) / 1000.0
    # L1 is crushed there
    return _known_volumes([float((mask == n).sum() * voxel) for n in (16, 17, 18, 19, 21, 22, 23, 24)])


def _known_volumes(real_ml):
    """Whole vertebrae T9 to L4 of a drawn person against those of a tall one: alike in course, within a third."""
    person = people(1)[0]
    column = stack_vertebrae(person)
    drawn = []
    for label in (16, 17, 18, 19, 21, 22, 23, 24):
        number = [one.plan.label for one in column.vertebrae].index(label)
        centre = column.vertebrae[number].centre - np.array([0.0, 22.0, 0.0])
        grid = Grid(
            *(np.arange(c - r, c + r, 1.5, dtype=np.float32) for c, r in zip(centre, (50, 50, 38), strict=True))
        )
        spine = draw_spine(grid, column, person, (label,), np.random.default_rng(0))
        drawn.append(float((spine.vertebrae == label).sum()) * 1.5**3 / 1000.0)
    ratio = np.array(drawn) / np.array(real_ml)
    assert math.isclose(ratio.mean(), 0.9, abs_tol=0.3)
    assert np.corrcoef(drawn, real_ml)[0, 1] > 0.9
    assert ratio.max() / ratio.min() < 1.5
