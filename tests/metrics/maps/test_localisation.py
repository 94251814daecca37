import csv
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.errors import CohortError, GeometryError, LayoutError, RunError, UnreadableFile
from sightline.metrics.maps.localisation import MapRow, MapScores, compare_maps, seed_estimate
from sightline.metrics.maps.score import MapScore, draw_centre_prior, expect_iou, score_map


def region(shape=(8, 10), rows=slice(2, 5), columns=slice(3, 7)):
    inside = np.zeros(shape, dtype=bool)
    inside[rows, columns] = True
    return inside


def test_a_map_that_is_the_region_scores_one_everywhere():
    inside = region()
    s = score_map(inside.astype(float), inside)
    assert (s.pointing, s.energy, s.iou, s.iou_half) == (1.0, 1.0, 1.0, 1.0)
    assert s.pointing_chance == s.energy_chance == 12 / 80
    assert (s.inside_px, s.image_px, s.why) == (12, 80, "")


def test_a_map_beside_the_region_scores_zero():
    inside = region()
    s = score_map((~inside).astype(float), inside)
    assert (s.pointing, s.energy, s.iou, s.iou_half) == (0.0, 0.0, 0.0, 0.0)


def test_a_softmax_map_has_the_sum_inside_as_energy():
    random = np.random.default_rng(0)
    logits = random.normal(size=(8, 10)) * 3
    p = np.exp(logits) / np.exp(logits).sum()
    inside = region()
    assert score_map(p, inside).energy == pytest.approx(p[inside].sum())


def test_negative_values_carry_no_energy_but_can_be_the_maximum():
    values = np.full((8, 10), -2.0)
    values[3, 4] = -1.0
    s = score_map(values, region())
    assert s.pointing == 1.0 and s.energy is None and s.iou_half is None and "no positive value" in s.why
    values[0, 0] = 3.0
    values[3, 5] = 1.0
    assert score_map(values, region()).energy == pytest.approx(0.25)


def test_a_flat_map_gets_exactly_chance_not_the_first_pixel():
    for constant in (0.0, 1.0, -3.0):
        inside = np.zeros((8, 10), dtype=bool)
        inside[0, :3] = True
        s = score_map(np.full((8, 10), constant), inside)
        assert s.pointing == pytest.approx(s.pointing_chance) == 3 / 80
        assert s.iou == pytest.approx(s.iou_chance)
    assert score_map(np.zeros((8, 10)), inside).energy is None
    assert score_map(np.ones((8, 10)), inside).energy == pytest.approx(3 / 80)


def test_ties_at_the_top_count_by_their_share_inside():
    values = np.zeros((8, 10))
    values[3, 4] = values[3, 5] = values[0, 0] = values[7, 9] = 2.0
    assert score_map(values, region()).pointing == 0.5


def test_padding_is_no_part_of_the_image():
    inside = region()
    valid = np.zeros((8, 10), dtype=bool)
    valid[:, 2:8] = True
    values = np.random.default_rng(0).random((8, 10))
    inside[0, 0] = True  # a mark in the padding
    values[~valid] = 100.0
    values[0, 1] = np.nan  # nor is what a network says there
    assert score_map(values, inside, valid) == score_map(values[:, 2:8], inside[:, 2:8])
    assert score_map(values, inside, valid).pointing_chance == 12 / 48


def test_an_empty_region_is_undefined_and_says_so():
    s = score_map(np.ones((4, 4)), np.zeros((4, 4)))
    assert s.pointing is None and s.iou_chance is None and s.why == "the region has no pixel inside the image"
    assert score_map(np.ones((4, 4)), np.ones((4, 4)), np.zeros((4, 4))).why == "no pixel belongs to the image"


def test_a_region_that_is_the_image_is_no_achievement():
    s = score_map(np.random.default_rng(0).random((4, 4)), np.ones((4, 4)))
    assert s.pointing == s.pointing_chance == s.energy == s.energy_chance == s.iou == s.iou_chance == 1.0


def test_shapes_and_nan_are_refused():
    with pytest.raises(GeometryError, match="one grid"):
        score_map(np.ones((4, 4)), np.ones((4, 5)))
    with pytest.raises(GeometryError, match="NaN"):
        score_map(np.full((4, 4), np.nan), np.ones((4, 4)))
    with pytest.raises(RunError, match="without a reason"):
        MapScore(pointing=1.0)


def test_scores_survive_tiny_and_huge_maps():
    values = np.random.default_rng(0).random((8, 10)) + 1e-3
    reference = score_map(values, region())
    for scale in (1e-300, 1e300):
        s = score_map(values * scale, region())
        assert s.energy == pytest.approx(reference.energy) and s.iou == reference.iou


def slow_iou(values, inside):
    """Every way of breaking ties, equally likely."""
    area, flat, hits = int(inside.sum()), values.ravel(), inside.ravel()
    limit = np.sort(flat)[-area]
    sure, tied = np.flatnonzero(flat > limit), np.flatnonzero(flat == limit)
    found = []
    for rest in itertools.combinations(tied, area - len(sure)):
        kept = np.zeros(flat.size, dtype=bool)
        kept[list(sure) + list(rest)] = True
        found.append((kept & hits).sum() / (kept | hits).sum())
    return np.mean(found)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=12, max_size=12), st.lists(st.booleans(), min_size=12, max_size=12))
def test_iou_at_the_regions_area_is_the_mean_over_all_ways_to_break_ties(values, marks):
    values, inside = np.array(values, dtype=float).reshape(3, 4), np.array(marks).reshape(3, 4)
    s = score_map(values, inside)
    if not inside.any():
        assert s.iou is None
        return
    assert s.iou == pytest.approx(slow_iou(values, inside))
    assert s.iou_chance == pytest.approx(slow_iou(np.zeros((3, 4)), inside))
    if s.iou_half is not None:
        kept = values >= values.max() / 2
        assert s.iou_half == pytest.approx((kept & inside).sum() / (kept | inside).sum())


def test_chance_is_what_random_maps_get():
    random = np.random.default_rng(0)
    inside = region()
    scores = [score_map(random.random((8, 10)), inside) for _ in range(1500)]
    for measure in ("pointing", "energy", "iou", "iou_half"):
        got = np.array([getattr(s, measure) for s in scores])
        chance = np.mean([getattr(s, measure + "_chance") for s in scores])
        assert got.mean() == pytest.approx(chance, abs=4 * got.std() / math.sqrt(1500)), measure


def test_expected_iou_of_a_large_image_is_cut_without_loss():
    # nearly normal: E[I / (2S - I)] close to its value at the mean
    n, s = 512 * 512, 20_000
    mean = s * s / n
    assert expect_iou(0, 0, n, s, s, s) == pytest.approx(mean / (2 * s - mean), rel=1e-3)


def test_centre_prior_is_symmetric_and_follows_the_image_area():
    valid = np.zeros((12, 20), dtype=bool)
    valid[:, 4:14] = True
    g = draw_centre_prior(valid)
    assert np.argwhere(g == g.max()).tolist() == [[5, 8], [5, 9], [6, 8], [6, 9]]
    np.testing.assert_array_equal(g, g[::-1])
    # one standard deviation is a quarter of the size: 3 rows from the middle line
    assert draw_centre_prior(np.ones((12, 1)))[8, 0] == pytest.approx(math.exp(-(2.5**2) / 18))
    s = score_map(np.random.default_rng(0).random((12, 20)), valid & (np.arange(12)[:, None] == 5), valid)
    assert s.pointing_centre == 0.5


def scores(seed=0, patients=20, lift=0.0):
    """Two images a patient; the region is a small box near the centre; `lift` moves the map onto it."""
    random = np.random.default_rng(seed)
    rows = []
    for patient, view in itertools.product(range(patients), range(2)):
        inside = region(rows=slice(2 + patient % 3, 5 + patient % 3))
        values = random.random((8, 10)) + lift * inside * random.random()
        ids = (f"p{patient}.{view}", f"s{patient}", f"p{patient}", "fracture", "fracture", "finding", "box")
        rows.append(MapRow(*ids, score_map(values, inside)))
    return MapScores(tuple(rows))


def test_map_scores_read_back_bit_for_bit(tmp_path):
    table = scores()
    odd = MapRow('a,"b', "s", "p", "none", "none", "focus", "mask", score_map(np.ones((2, 2)), np.zeros((2, 2))))
    table = MapScores((*table.rows, odd))
    table.write(tmp_path / "sub" / "maps.csv")
    assert MapScores.read(tmp_path / "sub" / "maps.csv") == table
    assert len(table.where(lambda row: row.role == "finding")) == 40


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda rows: rows[3].__setitem__(7, "1.5"), "row 4"),
        (lambda rows: rows[3].__setitem__(7, "nan"), "row 4"),
        (lambda rows: rows[3].__setitem__(7, ""), "row 4: A map score is missing without a reason"),
        (lambda rows: rows[3].__setitem__(-2, "x"), "row 4: invalid literal"),
        (lambda rows: rows[3].pop(), "row 4"),
        (lambda rows: rows[0].pop(), "expected rows under"),
        (lambda rows: rows.clear(), "no table"),
    ],
)
def test_broken_map_tables_say_where(tmp_path, edit, message):
    path = tmp_path / "maps.csv"
    scores().write(path)
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    edit(rows)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(LayoutError, match=message):
        MapScores.read(path)
    with pytest.raises(UnreadableFile):
        MapScores.read(tmp_path / "none.csv")


def test_rows_must_be_there_and_differ():
    with pytest.raises(CohortError, match="no map scores"):
        MapScores(())
    with pytest.raises(CohortError, match="repeat 1 row,"):
        MapScores((scores().rows[0],) * 2)


def test_estimates_stand_beside_chance_and_centre():
    table = scores(lift=0.3)
    found = {e.name: e for e in table.estimates()}
    assert len(found) == 20
    own, chance, above = (found["pointing game" + s] for s in ("", ", chance", ", above chance"))
    assert own.value == pytest.approx(np.mean([row.score.pointing for row in table.rows]))
    assert chance.value == pytest.approx(12 / 80)
    assert above.value == pytest.approx(own.value - chance.value) and above.low > 0
    assert own.low < own.value < own.high
    assert own.n == {"maps": 40, "images": 40, "studies": 20, "patients": 20}
    assert "score interval of a share (Wilson, clustered by patient), over patients (one training)" in own.method
    # chance is the same for every case of this table, so it has no interval, and says so
    assert chance.low is None and "leaving out any of the 20 patients" in chance.why
    random = {e.name: e for e in scores().estimates()}
    assert random["energy inside, above chance"].low < 0 < random["energy inside, above chance"].high


def test_undefined_scores_are_left_out_and_counted():
    dead = MapRow("x", "x", "x", "none", "none", "focus", "box", score_map(np.zeros((8, 10)), region()))
    found = {e.name: e for e in MapScores((*scores().rows, dead)).estimates()}
    assert "1 maps without a score left out" in found["energy inside"].method
    assert found["energy inside"].n["maps"] == 40 and found["pointing game"].n["maps"] == 41
    alone = {e.name: e for e in MapScores((dead,)).estimates()}
    assert alone["energy inside"].value is None and "no positive value" in alone["energy inside"].why


def test_chance_is_of_the_same_maps_as_the_measure():
    """A dead map has a chance level and no energy: neither counts."""
    ids = ("x", "x", "x", "none", "none", "finding", "box")
    wide = np.ones((8, 10), dtype=bool)
    table = MapScores((*scores().rows, MapRow(*ids, score_map(np.zeros((8, 10)), wide))))
    assert table.rows[-1].score.energy_chance == 1.0
    found = seed_estimate([table, table], "energy_chance")
    assert found.value == pytest.approx(np.mean([r.score.energy_chance for r in table.rows[:-1]]))
    assert found.n["maps"] == 40 and "1 maps without a score left out" in found.method
    assert seed_estimate([table], "pointing_chance").n["maps"] == 41


def test_guided_maps_beat_unguided_maps_and_equal_ones_do_not():
    a, b = [scores(s, lift=1.0) for s in range(3)], [scores(s) for s in (7, 8, 9)]
    found = compare_maps(a, b, "energy", replicates=500)
    means = [np.mean([[r.score.energy for r in t.rows] for t in runs]) for runs in (a, b)]
    assert found.difference == pytest.approx(means[0] - means[1])
    assert found.low > 0 and found.p_value < 0.01
    assert found.n["seeds_a"] == 3 and found.n["patients"] == 20
    same = compare_maps(b[:1], b[:1], "pointing", replicates=100)
    assert same.p_value == 1.0 and same.difference == 0.0
    # what is the same of every patient tells nothing of other patients
    assert same.low is None and same.high is None and "the same" in same.why


def test_comparison_leaves_out_what_one_run_lacks_and_refuses_other_maps():
    a, b = scores(0), scores(1)
    first = a.rows[0]
    dead = MapRow(*(getattr(first, k) for k in ("case_id", "study_id", "patient_id", "label", "map_class", "role",
                    "style")), score_map(np.zeros((8, 10)), region()))  # fmt: skip
    lacking = MapScores((dead, *a.rows[1:]))
    found = compare_maps([lacking], [b], "energy", replicates=50)
    assert found.n["maps"] == 39 and "1 maps left out" in found.why
    reference = compare_maps([MapScores(a.rows[1:])], [MapScores(b.rows[1:])], "energy", replicates=50)
    assert found.difference == pytest.approx(reference.difference)
    with pytest.raises(RunError, match="different maps"):
        compare_maps([a], [MapScores(b.rows[1:])], "energy")
    with pytest.raises(RunError, match="no map measure"):
        compare_maps([a], [b], "dice")


def test_the_mean_over_seeds_holds_patients_and_trainings():
    runs = [scores(seed=s) for s in range(3)]
    found = seed_estimate(runs, "pointing")
    assert found.value == pytest.approx(np.mean([np.nanmean(r.column("pointing")) for r in runs]))
    assert found.n["seeds"] == 3 and 0.0 <= found.low < found.value < found.high <= 1.0
    one = seed_estimate(runs[:1], "energy")
    alone = next(e for e in runs[0].estimates() if e.name == "energy inside")
    assert (one.value, one.low, one.high) == pytest.approx((alone.value, alone.low, alone.high))
    with pytest.raises(RunError, match="different maps"):
        seed_estimate([runs[0], MapScores(runs[1].rows[1:])], "energy")
