"""Scores of units: by hand, against slow restatements, and against tests of the same name elsewhere."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import hypergeom
from sklearn.metrics import roc_auc_score

from sightline.errors import CohortError, LayoutError, RunError, UnreadableFile
from sightline.metrics.units.permutation import iterate_label_permutations, permute_contrast
from sightline.metrics.units.scores import UnitDraws, UnitScores, compute_unit_scores, rank_units

FAST = UnitDraws(permutations=200, replicates=100)


def drawn(n=60, u=5, seed=0):
    """Units of growing use: unit 0 knows nothing, the last nearly everything."""
    random = np.random.default_rng(seed)
    truth = random.random(n) < 0.4
    rates = np.where(truth[:, None], 0.3 + 0.6 * np.arange(u) / (u - 1), 0.3)
    return random.random((n, u)) < rates, truth


def test_two_units_by_hand():
    # golden check 19: unit 0 is enabled in both positives and one of three negatives, unit 1 in one positive
    enabled = np.array([[1, 1], [1, 0], [1, 0], [0, 0], [0, 0]], bool)
    truth = np.array([1, 1, 0, 0, 0], bool)
    called = np.array([1, 0, 1, 1, 0], bool)
    strength = np.array([[3.0, 1.0], [2.0, 0.0], [2.5, 0.0], [0.0, 0.0], [0.0, 0.0]])
    found = compute_unit_scores(enabled, truth, called=called, strength=strength, draws=FAST)
    assert found.c.tolist() == [1.0, 0.5]
    assert found.shares["true_positives"].tolist() == [1.0, 1.0]
    assert found.shares["false_positives"].tolist() == [0.5, 0.0]
    assert found.shares["negatives"].tolist() == [1 / 3, 0.0]
    assert found.n == {"positives": 2, "true_positives": 1, "false_positives": 2, "negatives": 3}
    assert found.contrast.difference.tolist() == [1 - 1 / 3, 0.5]
    assert found.calls.difference.tolist() == [0.5, 1.0]
    assert found.saturated.tolist() == [True, False] and found.rank.tolist() == [1, 2] and found.ties.tolist() == [1, 1]
    # of six pairs the positive is stronger in five; unit 1: three of six and three ties
    assert np.allclose(found.auc_strength, [5 / 6, 4.5 / 6]) and found.auc_peak is None


def test_shares_are_those_of_a_loop():
    enabled, truth = drawn()
    called = np.random.default_rng(1).random(60) < 0.5
    for over in ("positives", "true_positives", "false_positives"):
        found = compute_unit_scores(enabled, truth, called=called, over=over, draws=FAST)
        rows = {
            "positives": [i for i in range(60) if truth[i]],
            "true_positives": [i for i in range(60) if truth[i] and called[i]],
            "false_positives": [i for i in range(60) if not truth[i] and called[i]],
        }[over]
        other = [i for i in range(60) if not truth[i] and i not in rows]
        for k in range(5):
            c = sum(enabled[i, k] for i in rows) / len(rows)
            assert found.c[k] == pytest.approx(c, abs=1e-15)
            against = sum(enabled[i, k] for i in other) / len(other)
            assert found.contrast.difference[k] == pytest.approx(c - against, abs=1e-12)
        assert (found.contrast.n_of, found.contrast.n_against) == (len(rows), len(other))


def test_ranks_state_their_ties():
    c = np.array([0.5, 1.0, 1.0, 1.0, 0.2, 1.0])
    contrast = np.array([0.5, 0.1, 0.3, 0.1, 0.2, 0.1])
    auc = np.array([0.9, 0.6, 0.5, 0.8, 0.5, 0.6])
    rank, ties = rank_units(c, contrast, auc)
    assert rank.tolist() == [5, 3, 1, 2, 6, 4] and ties.tolist() == [1, 4, 4, 4, 1, 4]
    assert rank_units(c, None, None)[0].tolist() == [5, 1, 2, 3, 6, 4]


def test_every_permutation_is_fishers_exact_test():
    # fixed margins: the permutation test of a difference of shares is Fisher's, its two sides ordered by the difference
    enabled, truth = drawn(n=40, u=6, seed=3)
    found = permute_contrast(enabled, truth, permutations=20_000, seed=1)
    n1, n0 = int(truth.sum()), int((~truth).sum())
    for k in range(6):
        total = int(enabled[:, k].sum())
        among = np.arange(max(0, total - n0), min(n1, total) + 1)
        far = np.abs(among / n1 - (total - among) / n0) >= abs(found.difference[k]) - 1e-12
        exact = hypergeom(n1 + n0, total, n1).pmf(among)[far].sum()
        assert found.p[k] == pytest.approx(exact, abs=0.012)


def test_the_largest_statistic_is_that_of_a_loop():
    enabled, truth = drawn(n=14, u=4, seed=5)
    values = enabled.astype(float)
    found = permute_contrast(values, truth, permutations=300, seed=2)
    labels = np.concatenate(list(iterate_label_permutations(truth, None, 300, 2)))
    spread = values.std(0)

    def statistic(row):
        row = row.astype(bool)
        return np.abs(values[row].mean(0) - values[~row].mean(0))

    observed = statistic(truth)
    null = np.array([statistic(row) for row in labels])
    assert np.allclose(found.p, [(1 + (null[:, k] >= observed[k] - 1e-12).sum()) / 301 for k in range(4)])
    scaled = np.array([max(n / s for n, s in zip(row, spread, strict=True) if s > 0) for row in null])
    expected = [(1 + (scaled >= observed[k] / spread[k] - 1e-9).sum()) / 301 for k in range(4)]
    assert np.allclose(found.p_max, np.maximum(expected, found.p))
    order = np.argsort(found.p)
    stepped = np.maximum.accumulate([min(1, found.p[k] * (4 - i)) for i, k in enumerate(order)])
    assert np.allclose(found.p_holm[order], stepped)
    assert (found.p_holm >= found.p_bh - 1e-12).all() and (found.p_bh >= found.p - 1e-12).all()


def test_the_family_of_units_holds_its_level():
    hits = single = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        found = permute_contrast(random.random((30, 20)) < 0.5, random.permutation(30) < 12, permutations=99, seed=seed)
        hits += bool((found.p_max <= 0.05).any())
        single += bool((found.p <= 0.05).any())
    # at 5% three of sixty are expected; without adjustment every third family has a false alarm
    assert hits <= 9 and single >= 15


def test_a_unit_that_never_varies_says_nothing():
    enabled, truth = drawn()
    enabled[:, 0], enabled[:, 1] = True, False
    found = permute_contrast(enabled, truth, permutations=100)
    assert found.difference[:2].tolist() == [0.0, 0.0] and found.p[:2].tolist() == [1.0, 1.0]
    assert found.p_max[:2].tolist() == [1.0, 1.0] and np.isfinite(found.p_bh).all()


def test_labels_of_patients_stay_together():
    patients = ["a"] * 3 + ["b"] * 3 + ["c"] * 3 + ["d"] * 3
    whole = np.repeat([True, False, False, True], 3)
    rows = np.concatenate(list(iterate_label_permutations(whole, patients, 200, 0))).reshape(-1, 4, 3)
    assert (rows == rows[:, :, :1]).all() and (rows.sum((1, 2)) == 6).all()
    assert {tuple(r) for r in rows[:, :, 0]} == set(itertools.permutations([1, 1, 0, 0]))
    # mixed labels, equally many cases: whole runs change places
    mixed = np.array([1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], bool)
    runs = sorted(map(tuple, mixed.reshape(4, 3).astype(float)))
    rows = np.concatenate(list(iterate_label_permutations(mixed, patients, 200, 0))).reshape(-1, 4, 3)
    assert all(sorted(map(tuple, row)) == runs for row in rows) and len({row.tobytes() for row in rows}) == 24
    # the ids need not stand together
    shuffled = np.random.default_rng(0).permutation(12)
    again = np.concatenate(list(iterate_label_permutations(mixed[shuffled], [patients[i] for i in shuffled], 50, 0)))
    assert (again.sum(1) == 3).all() and {float(v) for v in np.unique(again)} == {0.0, 1.0}
    # unequal numbers: as many positives, each patient's run of labels in order (cyclically)
    rows = np.concatenate(list(iterate_label_permutations(mixed, ["a"] * 5 + ["b"] * 3 + ["c"] * 4, 200, 0)))
    assert (rows.sum(1) == 3).all()


def test_patients_who_agree_with_themselves_make_p_larger():
    # every patient's twelve cases are alike: as cases they would count twelve times
    patients = np.repeat(np.arange(8), 12)
    truth = np.isin(patients, [0, 1, 2])
    enabled = np.isin(patients, [0, 1, 4])[:, None]
    alone = permute_contrast(enabled, truth, permutations=999)
    together = permute_contrast(enabled, truth, patients=[str(p) for p in patients], permutations=999)
    assert alone.p[0] < 0.005 and together.p[0] > 0.1
    # 56 ways to choose three of eight patients; with 2, 3 or none of the enabled among them 26 are as far out
    assert together.p[0] == pytest.approx(26 / 56, abs=0.05)
    assert "8 patients kept together" in together.method and "labels of cases" in alone.method


def test_auc_is_scikit_learns():
    enabled, truth = drawn(n=50)
    strength = np.round(np.random.default_rng(4).random((50, 5)) + 0.3 * truth[:, None], 1) * enabled
    found = compute_unit_scores(enabled, truth, strength=strength, peak=strength**2, draws=FAST)
    assert np.allclose(found.auc_strength, [roc_auc_score(truth, strength[:, k]) for k in range(5)])
    assert np.allclose(found.auc_strength, found.auc_peak) and np.allclose(found.strength.p, found.peak.p)


def test_auc_goes_on_where_c_saturates():
    truth = np.arange(40) < 20
    strength = np.random.default_rng(0).random((40, 2)) + 0.1
    strength[:20, 1] += 1.0
    found = compute_unit_scores(strength > 0, truth, strength=strength, draws=FAST)
    assert found.saturated.all() and found.ties.tolist() == [2, 2] and found.contrast.p.tolist() == [1.0, 1.0]
    assert found.auc_strength[1] == 1.0 and found.strength.p[1] < 0.01 and found.rank.tolist() == [2, 1]


def test_intervals_are_of_patients_and_hold_the_contrast():
    enabled, truth = drawn(n=120)
    patients = [str(i // 4) for i in range(120)]
    found = compute_unit_scores(
        enabled, truth, patients=patients, draws=UnitDraws(top=2, permutations=50, replicates=400)
    )
    assert set(found.intervals) == set(found.ranked[:2].tolist())
    for unit, given in found.intervals.items():
        assert given.low < found.contrast.difference[unit] < given.high and given.method.startswith("patient bootstrap")
    few = compute_unit_scores(enabled[:4], np.array([1, 0, 1, 0], bool), draws=FAST)
    assert all(i.low is None and "4 patients" in i.why for i in few.intervals.values())


def test_a_seed_decides_everything():
    enabled, truth = drawn()
    a, b = (compute_unit_scores(enabled, truth, strength=enabled * 1.0, draws=replace(FAST, seed=7)) for _ in range(2))
    assert np.array_equal(a.contrast.p, b.contrast.p) and a.intervals == b.intervals
    c = compute_unit_scores(enabled, truth, strength=enabled * 1.0, draws=replace(FAST, seed=8))
    assert not np.array_equal(a.contrast.p, c.contrast.p)
    # and the size of the blocks nothing
    rows = [np.concatenate(list(iterate_label_permutations(truth, None, 100, 0))) for _ in range(2)]
    assert np.array_equal(*rows)


@pytest.mark.parametrize("with_calls", [True, False])
def test_scores_read_back_to_the_last_bit(tmp_path, with_calls):
    enabled, truth = drawn()
    called = np.random.default_rng(1).random(60) < 0.5 if with_calls else None
    strength = np.random.default_rng(2).random((60, 5)) * enabled if with_calls else None
    patients = [str(i // 3) for i in range(60)] if with_calls else None
    found = compute_unit_scores(
        enabled, truth, called=called, strength=strength, patients=patients, draws=replace(FAST, top=2)
    )
    found.write(tmp_path / "scores.csv")
    again = UnitScores.read(tmp_path / "scores.csv")
    for name in ("contrast", "calls", "strength", "peak"):
        a, b = getattr(found, name), getattr(again, name)
        assert (a is None) == (b is None)
        if a is not None:
            assert all(np.array_equal(getattr(a, f), getattr(b, f)) for f in vars(a)) and a.method == b.method
    assert (found.over, found.n, found.intervals) == (again.over, again.n, again.intervals)
    assert all(np.array_equal(found.shares[g], again.shares[g]) for g in found.shares)
    assert np.array_equal(found.rank, again.rank) and np.array_equal(found.ties, again.ties)


def test_damaged_scores_are_refused(tmp_path):
    enabled, truth = drawn()
    path = tmp_path / "scores.csv"
    compute_unit_scores(enabled, truth, draws=FAST).write(path)
    text = path.read_text()
    with pytest.raises(UnreadableFile):
        UnitScores.read(tmp_path / "none.csv")
    for broken in (
        text[: len(text) // 2],
        text.replace("positives,", "everything,"),
        "",
        text.split("\n")[0],
        text.replace("contrast_p,", "contrast_q,", 1).replace("contrast_p_max", "contrast_p", 1),
    ):
        path.write_text(broken)
        with pytest.raises(LayoutError):
            UnitScores.read(path)
    path.write_text(text.replace("\n0,", "\n7,", 1))
    with pytest.raises(LayoutError, match="numbered from 0"):
        UnitScores.read(path)


def test_what_cannot_be_scored_is_refused():
    enabled, truth = drawn()
    with pytest.raises(RunError, match="needs what the network called"):
        compute_unit_scores(enabled, truth, over="true_positives")
    with pytest.raises(CohortError, match="false positives"):
        compute_unit_scores(enabled, truth, called=np.zeros(60, bool), over="false_positives")
    with pytest.raises(CohortError, match="positives"):
        compute_unit_scores(enabled, np.zeros(60, bool))
    for wrong in (enabled[0], enabled[:3], enabled[:, :0]):
        with pytest.raises(RunError):
            compute_unit_scores(wrong, truth)
    with pytest.raises(RunError, match="one value a case and unit"):
        compute_unit_scores(enabled, truth, strength=enabled[:, :2])
    with pytest.raises(RunError, match="59 patient ids"):
        permute_contrast(enabled, truth, patients=["a"] * 59)
    with pytest.raises(RunError, match="both sides"):
        permute_contrast(enabled, np.ones(60, bool))
    with pytest.raises(RunError, match="finite"):
        permute_contrast(np.full((60, 1), np.nan), truth)
    # no negatives: c stands alone
    alone = compute_unit_scores(enabled, np.ones(60, bool))
    assert alone.contrast is None and not alone.intervals and alone.rank.min() == 1
