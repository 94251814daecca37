import time

import numpy as np
import pytest
from scipy import stats

from sightline.errors import RunError
from sightline.metrics.classification.scores import AUC, Accuracy, HandTillAUC, Sensitivity
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.bootstrap import (
    Resample,
    bootstrap,
    compute_interval,
    seed_bootstrap,
    seed_replicates,
)


def cohort(patients=40, images=2, seed=0, effect=1.0, patient_noise=1.0, prevalence=0.5):
    """Patients share part of their score, so images of one patient are not independent."""
    random = np.random.default_rng(seed)
    labels = np.repeat((np.arange(patients) < patients * prevalence).astype(int), images)
    shared = np.repeat(random.normal(size=patients), images) * patient_noise
    p = stats.norm.cdf(effect * (labels - 0.5) + shared + random.normal(size=labels.size) * 0.5)
    ids = [f"p{i}" for i in np.repeat(np.arange(patients), images)]
    return Predictions(
        ("none", "fracture"),
        tuple(f"{p}.{i}" for i, p in enumerate(ids)),
        tuple(ids),
        tuple(ids),
        labels,
        np.stack([1 - p, p], axis=1),
    )


def test_a_patient_brings_all_images_and_every_draw_is_whole():
    t = cohort(images=3)
    resample = Resample.draw(t.patient_ids, 50, seed=3)
    assert (resample.counts.sum(axis=1) == 40).all()
    weights = resample.counts[:, resample.patient].reshape(50, 40, 3)
    assert (weights == weights[:, :, :1]).all()
    slow = [np.mean(np.repeat(t.probabilities.argmax(1) == t.labels, w)) for w in resample.counts[:, resample.patient]]
    np.testing.assert_allclose(resample.values(Accuracy(), t), slow)


def test_same_seed_same_interval_and_rows_in_any_order():
    t = cohort()
    first, again = (bootstrap(AUC(1), t, replicates=200, seed=7) for _ in range(2))
    assert first == again
    shuffled = t.select(np.random.default_rng(0).permutation(len(t)))
    assert bootstrap(AUC(1), shuffled, replicates=200, seed=7) == first
    assert bootstrap(AUC(1), t, replicates=200, seed=8) != first
    assert first.method == "patient bootstrap, 200 replicates, seed 7"
    assert first.n == {"images": 80, "studies": 40, "patients": 40}


def test_grouping_by_patient_widens_the_interval():
    # 4 images a patient that all say the same: the image-wise interval would be half as wide
    t = cohort(patients=40, images=4, patient_noise=3.0)
    apart = Predictions(t.classes, t.case_ids, t.case_ids, t.case_ids, t.labels, t.probabilities)
    grouped, naive = (bootstrap(Accuracy(), x, replicates=1000) for x in (t, apart))
    assert (grouped.high - grouped.low) / (naive.high - naive.low) == pytest.approx(2.0, abs=0.35)


def test_percentile_interval_of_accuracy_is_near_the_binomial():
    t = cohort(patients=300, images=1)
    e = bootstrap(Accuracy(), t, replicates=4000)
    spread = np.sqrt(e.value * (1 - e.value) / 300)
    assert e.low == pytest.approx(e.value - 1.96 * spread, abs=0.008)
    assert e.high == pytest.approx(e.value + 1.96 * spread, abs=0.008)


def test_bca_equals_scipy():
    t = cohort(patients=60, images=1, effect=3.0, patient_noise=0.8)
    hit = (t.probabilities.argmax(1) == t.labels).astype(float)
    reference = stats.bootstrap((hit,), np.mean, method="BCa", n_resamples=9999, random_state=1).confidence_interval
    e = bootstrap(Accuracy(), t, replicates=9999, kind="BCa")
    assert e.method.endswith("BCa")
    assert (e.low, e.high) == pytest.approx((reference.low, reference.high), abs=0.017)  # one case in sixty
    assert e.low < bootstrap(Accuracy(), t, replicates=9999).low + 1e-12  # corrected for skewness near 1


def test_a_missing_class_never_fails_golden_check_22():
    t = cohort(patients=30, prevalence=0.1)  # 3 fractures: none is drawn in about 4% of replicates
    for kind in ("percentile", "BCa"):
        e = bootstrap(AUC(1), t, replicates=1000, kind=kind)
        undefined = int(np.isnan(Resample.draw(t.patient_ids, 1000, 0).values(AUC(1), t)).sum())
        assert 20 < undefined < 70
        assert f"{undefined} undefined" in e.method
        assert e.low <= e.value <= e.high


def test_a_class_without_any_case_gives_no_value_and_says_which():
    t = cohort()
    t = t.select(t.labels == 0)
    for score in (AUC(1), Sensitivity(1), HandTillAUC()):
        e = bootstrap(score, t, replicates=50)
        assert (e.value, e.low, e.high) == (None, None, None)
        assert "no case of fracture" in e.why


def test_too_few_patients_or_too_many_undefined_give_no_interval():
    few = bootstrap(Accuracy(), cohort(patients=4, images=10), replicates=100)
    assert few.low is None and few.value is not None and "4 patients" in few.why
    found = compute_interval(0.5, np.r_[np.full(51, np.nan), np.linspace(0, 1, 49)], 20, 0)
    assert found.low is None and "51 of 100 replicates lack a class" in found.why
    found = compute_interval(0.5, np.r_[np.full(50, np.nan), np.linspace(0, 1, 50)], 20, 0)
    assert found.low == pytest.approx(0.025)


def test_ten_of_ten_right_is_not_certain():
    t = cohort(patients=10, effect=100.0)
    e = bootstrap(Accuracy(), t, replicates=100)
    assert e.value == 1.0 and e.low is None and "every resample of the 10 patients gives 1.000" in e.why


def test_no_replicates_is_an_error():
    with pytest.raises(RunError):
        bootstrap(Accuracy(), cohort(), replicates=0)


def test_two_thousand_replicates_of_300_patients_take_under_a_second():
    t = cohort(patients=300, images=1)
    times = []
    for _ in range(3):
        start = time.process_time()
        bootstrap(AUC(1), t, replicates=2000)
        times.append(time.process_time() - start)
    assert min(times) < 1.0


def test_coverage_over_patients_is_near_95_percent():
    # the true AUC of normal scores: Phi(effect / sqrt(2 (1 + 0.25)))
    truth = stats.norm.cdf(1.0 / np.sqrt(2 * 1.25))
    covered = 0
    for seed in range(200):
        e = bootstrap(AUC(1), cohort(patients=80, seed=seed), replicates=300, seed=seed)
        covered += e.low <= truth <= e.high
    assert 0.90 <= covered / 200 <= 0.985


def test_resampled_seeds_keep_the_variance_of_a_mean():
    # without the stretch, three seeds would show two thirds of it
    values = np.random.default_rng(2).normal(size=3)
    drawn = seed_replicates(np.tile(values[:, None], 40_000), np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(values.mean(), abs=0.01)
    assert drawn.var() == pytest.approx(values.var(ddof=1) / 3, rel=0.03)


def test_interval_over_seeds_holds_both_sources():
    runs = [cohort(seed=s) for s in (0, 1, 2)]
    over = seed_bootstrap(runs, AUC(1), replicates=500)
    assert over.n["seeds"] == 3 and over.low < over.value < over.high
    assert over.method == "bootstrap over patients and 3 seeds, 500 replicates, seed 0"
    singles = [bootstrap(AUC(1), run, replicates=500).value for run in runs]
    assert over.value == pytest.approx(np.mean(singles))
    alone = seed_bootstrap(runs[:1], AUC(1), replicates=500)
    assert (alone.low, alone.high) == pytest.approx(
        (lambda e: (e.low, e.high))(bootstrap(AUC(1), runs[0], replicates=500))
    )
    assert "one training" in alone.method
