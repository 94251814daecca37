import itertools

import numpy as np
import pytest
from scipy import stats

from sightline.errors import RunError
from sightline.metrics.classification.scores import AUC, Accuracy
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.comparison import (
    holm,
    paired_bootstrap,
    paired_permutation,
    welch,
    welch_from_summary,
)
from sightline.metrics.statistics.delong import delong


def table(scores, labels, patients):
    p = stats.norm.cdf(scores)
    ids = tuple(f"i{i}" for i in range(len(p)))
    groups = tuple(f"p{i}" for i in patients)
    return Predictions(("none", "fracture"), ids, ids, groups, labels, np.stack([1 - p, p], 1))


def methods(seed, *, gain=0.0, seeds=3, patients=50, images=2, training_noise=0.15, case_noise=0.7, taste=0.0):
    """Two methods of several trainings each on the same patients; `gain` is how much clearer method a sees.

    `training_noise` is the spread of what a training is worth, on the scale of `gain`; `taste` is by how much each
    method sees some patients better than others, the same in all its trainings and nothing on average.
    """
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(patients), images)
    labels = groups % 2
    shared = np.repeat(random.normal(size=patients), images) + random.normal(size=groups.size) * 0.5
    found = []
    for method_gain in (gain, 0.0):
        runs = []
        liked = np.repeat(random.normal(size=patients), images) * taste
        for _ in range(seeds):
            worth = 1.0 + method_gain + random.normal() * training_noise
            noise = random.normal(size=groups.size) * case_noise
            runs.append(table(worth * (labels - 0.5) * 1.5 + shared + liked + noise, labels, groups))
        found.append(runs)
    return found


# Liao 2022, Tables III and IV, means and standard deviations over five runs; the p-values are in the paper's text
PUBLISHED = [
    ((84.2, 0.8), (85.0, 1.4), 0.307, "0.31"),  # scaphoid: box, weight 1, s-512 against scribble, 0.01, s-768
    ((72.8, 6.7), (69.0, 2.8), 0.291, "0.29"),  # ankle: L2 against baseline
    ((79.2, 1.8), (76.4, 0.9), 0.021, "0.02"),  # scaphoid s-512: self attention against baseline
    ((80.0, 2.4), (76.4, 0.9), 0.025, "0.02"),  # scaphoid s-512: L1 against baseline
    ((74.6, 3.1), (69.0, 2.8), 0.017, "0.02"),  # ankle: self attention against baseline
]


@pytest.mark.parametrize(("a", "b", "expected", "printed"), PUBLISHED)
def test_welch_gives_the_published_p_values(a, b, expected, printed):
    found = welch_from_summary(*a, 5, *b, 5)
    assert found.p_value == pytest.approx(expected, abs=0.0006)
    assert f"{found.p_value:.2f}" == printed
    assert found.p_value == pytest.approx(
        stats.ttest_ind_from_stats(a[0], a[1], 5, b[0], b[1], 5, equal_var=False).pvalue
    )


@pytest.mark.filterwarnings("ignore:Precision loss")
def test_welch_over_values_equals_scipy_with_its_interval():
    a, b = [0.81, 0.79, 0.84, 0.80, 0.83], [0.74, 0.78, 0.75, 0.71]
    found, reference = welch(a, b), stats.ttest_ind(a, b, equal_var=False)
    ends = reference.confidence_interval()
    assert found.p_value == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert found.difference == pytest.approx(np.mean(a) - np.mean(b))
    assert found.n == {"seeds_a": 5, "seeds_b": 4}
    one_still = welch([0.8, 0.8, 0.8], [0.7, 0.72, 0.74])
    assert one_still.p_value == pytest.approx(stats.ttest_ind([0.8] * 3, [0.7, 0.72, 0.74], equal_var=False).pvalue)


def test_welch_without_spread_or_with_one_seed_gives_no_p():
    still = welch([0.1 + 0.2, 0.3, 0.3], [0.7, 0.7, 0.7])  # rounding error is no spread
    assert still.p_value is None and "no result varies" in still.why and still.difference == pytest.approx(-0.4)
    single = welch([0.8], [0.7, 0.75, 0.72])
    assert single.p_value is None and "1 seed" in single.why
    with pytest.raises(RunError):
        welch([0.8, float("nan")], [0.7, 0.7])
    with pytest.raises(RunError):
        welch([], [0.7])
    with pytest.raises(RunError):
        welch_from_summary(0.8, -0.1, 5, 0.7, 0.1, 5)


def test_paired_bootstrap_is_the_slow_hierarchical_bootstrap():
    a, b = methods(0, gain=0.5, patients=30)
    found = paired_bootstrap(a, b, Accuracy(), replicates=3000)
    hits = np.array([run.probabilities.argmax(1) == run.labels for run in a + b], dtype=float)
    assert found.difference == pytest.approx(hits[:3].mean() - hits[3:].mean())
    random = np.random.default_rng(9)
    slow = []
    for _ in range(3000):
        drawn = random.integers(0, 30, 30)
        rows = np.concatenate([[2 * p, 2 * p + 1] for p in drawn])
        means = hits[:, rows].mean(axis=1)
        ends = [
            group.mean() + np.sqrt(1.5) * (group[random.integers(0, 3, 3)].mean() - group.mean())
            for group in (means[:3], means[3:])
        ]
        slow.append(ends[0] - ends[1])
    low, high = np.quantile(slow, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)
    assert found.p_value == pytest.approx(2 * np.mean(np.array(slow) <= 0), abs=0.03)
    assert found.method == "paired bootstrap over patients and 3 and 3 seeds, 3000 replicates, seed 0"
    assert found.n == {"images": 60, "studies": 60, "patients": 30, "seeds_a": 3, "seeds_b": 3}


def test_paired_bootstrap_takes_rows_in_any_order_and_swapping_turns_the_sign():
    a, b = methods(1, gain=0.5)
    found = paired_bootstrap(a, b, AUC(1), replicates=300)
    order = np.random.default_rng(0).permutation(len(b[0]))
    shuffled = [run.select(order) for run in b]
    assert paired_bootstrap(a, shuffled, AUC(1), replicates=300) == found
    back = paired_bootstrap(b, a, AUC(1), replicates=300)
    assert back.difference == pytest.approx(-found.difference)


def test_equal_predictions_are_no_difference():
    a, _ = methods(2)
    found = paired_bootstrap(a[:1], a[:1], AUC(1), replicates=200)
    # alike on these patients: p is 1, and how far the methods may differ on others is not known
    assert (found.difference, found.low, found.high, found.p_value) == (0.0, None, None, 1.0)
    assert "every resample" in found.why
    assert "one training" in found.method and found.method.startswith("paired patient bootstrap")
    assert paired_permutation(a, a, AUC(1), replicates=200).p_value == 1.0
    still = delong(a[0], a[0])
    assert still.p_value is None and "rank all cases alike" in still.why


def test_pairing_narrows_the_interval():
    a, b = methods(3, seeds=1, case_noise=0.1)
    found = paired_bootstrap(a, b, AUC(1), replicates=500)
    # break the pairs: the cases of b belong to other patients
    random = np.random.default_rng(0)
    other = np.concatenate([2 * random.permutation(25) * 2, 2 * random.permutation(25) * 2 + 2])
    rows = np.stack([other, other + 1], 1).reshape(25 * 2, 2)
    interleaved = np.stack([rows[:25], rows[25:]], 1).reshape(-1)
    p = b[0].probabilities[interleaved]
    assert (b[0].labels[interleaved] == b[0].labels).all()
    broken = Predictions(b[0].classes, b[0].case_ids, b[0].study_ids, b[0].patient_ids, b[0].labels, p)
    loose = paired_bootstrap(a, [broken], AUC(1), replicates=500)
    assert loose.difference == pytest.approx(found.difference)
    assert found.high - found.low < 0.5 * (loose.high - loose.low)


def test_comparison_of_other_cases_or_of_nothing_is_refused():
    a, b = methods(0)
    with pytest.raises(RunError, match="different cases"):
        paired_bootstrap(a, [b[0].select(np.arange(99))], Accuracy())
    with pytest.raises(RunError, match="both methods"):
        paired_bootstrap(a, [], Accuracy())
    with pytest.raises(RunError, match="in pairs"):
        paired_permutation(a, b[:2], Accuracy())


def test_missing_class_is_said_not_raised_golden_check_22():
    a, b = methods(0)
    rows = a[0].labels == 0
    a, b = ([run.select(rows) for run in runs] for runs in (a, b))
    for found in (paired_bootstrap(a, b, AUC(1)), paired_permutation(a, b, AUC(1)), delong(a[0], b[0])):
        assert found.difference is None and found.p_value is None and "no case of fracture" in found.why


def test_permutation_equals_all_swaps_written_out():
    a, b = methods(4, gain=0.8, seeds=2, patients=6)
    found = paired_permutation(a, b, Accuracy(), replicates=4000)
    hits = np.array([[r.probabilities.argmax(1) == r.labels for r in runs] for runs in (a, b)], dtype=float)
    gap = (hits[0] - hits[1]).mean(axis=0).reshape(6, 2).sum(axis=1) / 12
    all_swaps = [abs(np.dot(signs, gap)) >= abs(gap.sum()) - 1e-12 for signs in itertools.product([1, -1], repeat=6)]
    assert found.p_value == pytest.approx(np.mean(all_swaps), abs=0.03)
    assert found.difference == pytest.approx(gap.sum())


def test_permutation_of_an_auc_equals_a_slow_loop():
    a, b = methods(5, gain=0.5, seeds=1, patients=20)
    found = paired_permutation(a, b, AUC(1), replicates=60, seed=3)
    flips = np.random.default_rng(3).integers(0, 2, (60, 20))
    names = np.unique(a[0].patient_ids)
    count = 0
    for row in flips:
        swap = np.array([row[np.flatnonzero(names == p)[0]] for p in a[0].patient_ids], dtype=bool)
        mixed, other = (
            float(
                AUC(1)(a[0].labels, np.where(s[:, None], b[0].probabilities, a[0].probabilities), np.ones((1, 40)))[0]
            )
            for s in (swap, ~swap)
        )
        count += abs(mixed - other) >= abs(found.difference) - 1e-12
    assert found.p_value == pytest.approx((1 + count) / 61)


def slow_delong(scores_a, scores_b, labels):
    """DeLong 1988, equations 3 to 6, pair by pair."""
    x, y = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    psi = [np.array([[(s[i] > s[j]) + 0.5 * (s[i] == s[j]) for j in y] for i in x]) for s in (scores_a, scores_b)]
    s10 = np.cov(np.array([p.mean(axis=1) for p in psi]))
    s01 = np.cov(np.array([p.mean(axis=0) for p in psi]))
    s = s10 / len(x) + s01 / len(y)
    areas = [p.mean() for p in psi]
    z = (areas[0] - areas[1]) / np.sqrt(s[0, 0] + s[1, 1] - 2 * s[0, 1])
    return areas, 2 * stats.norm.sf(abs(z))


def test_delong_pair_by_pair_with_ties():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 40)
    scores = [np.round(random.normal(size=40) + labels * e, 1) for e in (1.2, 0.6)]
    a, b = (table(s, labels, range(40)) for s in scores)
    areas, p_value = slow_delong(*scores, labels)
    for by_patient in (True, False):  # one image a patient: the clustered test is the test of 1988
        found = delong(a, b, by_patient=by_patient)
        assert (found.value_a, found.value_b) == pytest.approx(areas)
        assert found.p_value == pytest.approx(p_value)


def test_perfect_against_worst_is_a_difference_and_not_all_cases_ranked_alike():
    labels = np.array([0] * 6 + [1] * 6)
    best, worst = (table(np.where(labels == side, 0.9, 0.1), labels, np.arange(12)) for side in (1, 0))
    found = delong(best, worst)
    assert found.difference == pytest.approx(1.0)
    assert found.p_value is None
    assert "AUC 1.000 against 0.000" in found.why
    assert "rank all cases alike" not in found.why


def test_delong_has_no_p_with_fewer_than_four_patients_of_a_class():
    random = np.random.default_rng(0)
    labels = np.repeat([1, 0], [4, 40])
    scores = [random.normal(size=44) + labels * e for e in (3.0, 0.0)]
    assert delong(*(table(x, labels, range(44)) for x in scores)).p_value is not None
    # the four positive images are of three patients; of two classes either may be the scarce one
    found = delong(*(table(x, labels, [0, *range(43)]) for x in scores))
    assert found.difference is not None and (found.low, found.p_value) == (None, None)
    assert found.why.startswith("no p: 3 patients with ") and found.why.endswith("at least 4 needed")
    assert "3 patients without " in delong(*(table(x, 1 - labels, [0, *range(43)]) for x in scores)).why


def test_clustered_delong_does_not_count_copies_as_evidence():
    random = np.random.default_rng(1)
    labels = np.arange(60) % 2
    scores = [random.normal(size=60) + labels * e for e in (1.5, 0.7)]
    once = delong(*(table(s, labels, range(60)) for s in scores))
    copied = [table(np.repeat(s, 4), np.repeat(labels, 4), np.repeat(np.arange(60), 4)) for s in scores]
    clustered, naive = delong(*copied), delong(*copied, by_patient=False)
    assert clustered.p_value == pytest.approx(once.p_value, rel=1e-6)
    assert naive.p_value < 0.2 * once.p_value


def test_delong_agrees_with_the_patient_bootstrap_on_mixed_patients():
    # patients with a positive and a negative image: the cross term of Obuchowski matters
    random = np.random.default_rng(2)
    groups = np.repeat(np.arange(80), 2)
    labels = np.tile([0, 1], 80)
    shared = np.repeat(random.normal(size=80), 2) * 1.5
    a = table(labels * 1.0 + shared + random.normal(size=160) * 0.5, labels, groups)
    b = table(labels * 0.5 + random.normal(size=160), labels, groups)
    found, boot = delong(a, b), paired_bootstrap([a], [b], AUC(1), replicates=3000)
    assert (found.low, found.high) == pytest.approx((boot.low, boot.high), abs=0.015)


def test_holm():
    # Holm 1979 by hand: 0.01 * 4, 0.02 * 3 = 0.06, 0.03 * 2 = 0.06, 0.04 -> never below the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([]) == []
    with pytest.raises(RunError):
        holm([1.5])


def false_alarms(tests, trials, **how):
    """Share of trials in which each test says p < 0.05 although neither method is better."""
    alarms = np.zeros(len(tests))
    for seed in range(trials):
        a, b = methods(seed, patients=40, images=2, **how)
        alarms += [test(a, b, seed).p_value < 0.05 for test in tests]
    return alarms / trials


def over_seeds(a, b, seed):
    return welch(*[[AUC(1)(r.labels, r.probabilities, np.ones((1, len(r))))[0] for r in runs] for runs in (a, b)])


def over_both(a, b, seed):
    return paired_bootstrap(a, b, AUC(1), replicates=200, seed=seed)


def by_swapping(a, b, seed):
    return paired_permutation(a, b, AUC(1), replicates=200, seed=seed)


def by_delong(a, b, seed):
    return delong(a[0], b[0])


def test_false_alarms_stay_near_five_in_a_hundred():
    # 200 trials of a true 5% stay below 10% with odds of a thousand to one
    rates = false_alarms([over_both, by_swapping, by_delong], 200, training_noise=0.0, taste=0.5)
    assert (rates <= 0.10).all(), rates
    assert (rates > 0.005).all(), rates
    assert false_alarms([over_both], 200, training_noise=0.3)[0] <= 0.10


@pytest.mark.slow
def test_what_each_test_is_blind_to():
    # seeds are not patients: methods that merely like other patients look different over seeds
    welch_rate, both = false_alarms([over_seeds, over_both], 100, training_noise=0.0, case_noise=0.3, taste=0.8)
    assert welch_rate > 0.3 and both <= 0.12, (welch_rate, both)
    # patients are not seeds: one lucky training looks like a better method over patients
    delong_rate, both = false_alarms([by_delong, over_both], 100, training_noise=0.3)
    assert delong_rate > 0.12 and both <= 0.12, (delong_rate, both)


@pytest.mark.slow
def test_a_real_difference_is_found_and_covered():
    covered = found_it = 0
    truth = np.mean(
        [over_seeds(*methods(1000 + seed, gain=0.6, patients=200, images=1), seed).difference for seed in range(60)]
    )
    for seed in range(100):
        a, b = methods(seed, gain=0.6, patients=60, images=2)
        c = paired_bootstrap(a, b, AUC(1), replicates=200, seed=seed)
        covered += c.low <= truth <= c.high
        found_it += c.p_value < 0.05
    assert covered >= 87
    assert found_it >= 60
