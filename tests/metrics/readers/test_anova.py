"""Van Dyke's reader study against the numbers that MRMCaov (Smith & Hillis 2020, user guide) and Hillis publish."""

from pathlib import Path

import numpy as np
import pytest

from sightline.errors import LayoutError, RunError
from sightline.metrics.readers.anova import NO_TEST, analyse_readers
from sightline.metrics.readers.pseudovalues import analyse_pseudovalues, compute_pseudovalues
from sightline.metrics.readers.study import ReaderStudy
from sightline.metrics.readers.variance import compute_figures, estimate_error_covariances, jackknife

FILE = Path(__file__).with_name("van_dyke.imrmc")


@pytest.fixture(scope="module")
def van_dyke():
    return ReaderStudy.parse(FILE.read_text(encoding="utf-8"), FILE)


# printed by MRMCaov 0.2.0 for VanDyke: error, cov1, cov2, cov3, reader, treatment:reader, F, df2, p
PUBLISHED = {
    "delong": (0.0007921325, 0.0003420090, 0.0003395265, 0.0002358497, 0.0015364254, 0.0002045840, 4.484854, 15.06611,
               0.05123303),
    "jackknife": (0.0008022883, 0.0003466137, 0.0003440748, 0.0002390284, 0.0015349993, 0.0002004025, 4.4563187,
                  15.259675, 0.05166569),
}  # fmt: skip


@pytest.mark.parametrize("method", list(PUBLISHED))
def test_van_dyke_as_published(van_dyke, method):
    found = analyse_readers(van_dyke, method=method)
    c = found.covariances
    ours = (c.error, c.cov1, c.cov2, c.cov3, found.reader_variance, found.both_variance, found.statistic, found.df[1],
            found.p_value)  # fmt: skip
    assert ours == pytest.approx(PUBLISHED[method], rel=2e-6)
    assert (found.squares.modality, found.squares.both) == pytest.approx((0.004796171, 0.0005510306), rel=1e-6)


def test_differences_and_means_as_published(van_dyke):
    found = analyse_readers(van_dyke)
    (difference,) = found.differences()
    assert difference.difference == pytest.approx(-0.04380032, abs=1e-8)
    assert (difference.low, difference.high) == pytest.approx((-0.0878671960, 0.0002665519), abs=1e-8)
    one, two = found.means()
    assert (one.value, one.low, one.high) == pytest.approx((0.8970370, 0.8253461, 0.9687280), abs=1e-7)
    assert (two.value, two.low, two.high) == pytest.approx((0.9408374, 0.8942155, 0.9874592), abs=1e-7)


def test_fixed_readers_as_published(van_dyke):
    found = analyse_readers(van_dyke, inference="cases", method="jackknife")
    assert (found.statistic, found.p_value) == pytest.approx((5.475953, 0.01927984), rel=1e-6)
    (difference,) = found.differences()
    assert (difference.low, difference.high) == pytest.approx((-0.08048591, -0.00711473), abs=1e-8)
    assert (found.means()[0].low, found.means()[0].high) == pytest.approx((0.8494301, 0.9446440), abs=1e-7)


def test_fixed_cases_compare_the_readers_differences(van_dyke):
    # with fixed cases and two modalities the analysis is the paired t test over readers (Hillis 2005)
    from scipy.stats import ttest_rel

    found = analyse_readers(van_dyke, inference="readers")
    paired = ttest_rel(*compute_figures(van_dyke))
    assert (found.statistic, found.p_value) == pytest.approx((paired.statistic**2, paired.pvalue))


def test_sensitivity_of_calls_as_published(van_dyke):
    found = analyse_readers(van_dyke.apply_threshold(3), figure="sensitivity", method="jackknife")
    assert found.covariances.error == pytest.approx(0.0023681257, rel=1e-7)
    assert (found.statistic, found.df[1], found.p_value) == pytest.approx((6.689493, 15.71732, 0.02008822), rel=1e-6)
    with pytest.raises(RunError, match="calls of 0 or 1"):
        analyse_readers(van_dyke, figure="specificity")


def test_dbm_is_or_with_jackknifed_covariances(van_dyke):
    dbm, obuchowski = analyse_pseudovalues(van_dyke), analyse_readers(van_dyke, method="jackknife")
    assert (dbm.statistic, dbm.df[1], dbm.p_value) == pytest.approx(
        (obuchowski.statistic, obuchowski.df[1], obuchowski.p_value), rel=1e-9
    )
    # printed by DBM MRMC and RJafroc for fixed readers
    fixed = analyse_pseudovalues(van_dyke, inference="cases")
    assert (fixed.statistic, fixed.df) == (pytest.approx(5.47595, rel=1e-5), (1.0, 113.0))
    assert compute_pseudovalues(van_dyke).mean(axis=-1) == pytest.approx(compute_figures(van_dyke), abs=1e-9)


def test_figures_and_jackknife_are_what_they_say(van_dyke):
    from sklearn.metrics import roc_auc_score

    small = ReaderStudy(
        ("a", "b"), ("x", "y"), tuple("123456"), [0, 0, 0, 1, 1, 1], np.random.default_rng(0).integers(1, 4, (2, 2, 6))
    )
    left_out = jackknife(small)
    for t in range(2):
        for r in range(2):
            assert compute_figures(small)[t, r] == pytest.approx(roc_auc_score(small.positive, small.ratings[t, r]))
            for k in range(6):
                keep = np.arange(6) != k
                value = roc_auc_score(small.positive[keep], small.ratings[t, r, keep])
                assert left_out[t, r, k] == pytest.approx(value)


def test_intervals_stay_where_figures_can_be():
    """Two readers of 20 cases: Student's quantile with 1.3 degrees of freedom reaches beyond both ends."""
    random = np.random.default_rng(1)
    truth = np.arange(20) % 2
    ratings = random.normal(truth, 1.0, (2, 2, 20))
    ratings[0, 0] = truth
    study = ReaderStudy(("a", "b"), ("x", "y"), tuple(map(str, range(20))), truth, ratings)
    found = analyse_readers(study)
    ends = [(e.low, e.high) for e in found.means() if e.low is not None]
    assert ends and all(0.0 <= low <= high <= 1.0 for low, high in ends) and any(high == 1.0 for _, high in ends)
    assert all(c.low >= -1.0 and c.high <= 1.0 for c in found.differences())
    with pytest.raises(RunError, match="is nan"):
        study.apply_threshold(float("nan"))


def test_equal_modalities_give_no_p_of_nought(van_dyke):
    twice = ReaderStudy(("a", "b"), van_dyke.readers, van_dyke.cases, van_dyke.positive, van_dyke.ratings[[0, 0]])
    assert analyse_readers(twice).p_value == 1.0
    assert analyse_readers(twice, inference="cases").p_value == 1.0


def test_no_variation_is_no_test():
    """One modality always right, the other always at chance: nothing varies that the difference could be held to."""
    truth = np.arange(8) % 2 == 1
    study = ReaderStudy(("a", "b"), ("x", "y", "z"), tuple("12345678"), truth, [[truth * 1.0] * 3, [truth * 0.0] * 3])
    found = analyse_readers(study)
    assert found.text() == "no test: readers and cases leave no variation"
    assert found.differences()[0].p_value is None
    # nor where both are read alike and everybody is always right
    study = ReaderStudy(("a", "b"), ("x", "y", "z"), tuple("12345678"), truth, [[truth * 1.0] * 3] * 2)
    assert analyse_readers(study).text() == analyse_pseudovalues(study).text() == NO_TEST


def test_one_delong_covariance_is_that_of_two_predictions(van_dyke):
    # restated for one pair: sample covariances of placements, over their numbers
    full = estimate_error_covariances(van_dyke).full
    x, y = van_dyke.ratings[0, 1], van_dyke.ratings[1, 3]
    pos, neg = van_dyke.positive, ~van_dyke.positive

    def share(z, i, other):
        return np.mean((z[other] < z[i]) + 0.5 * (z[other] == z[i]))

    v10 = [[share(z, i, neg) for i in np.flatnonzero(pos)] for z in (x, y)]
    v01 = [[1 - share(z, j, pos) for j in np.flatnonzero(neg)] for z in (x, y)]
    expected = np.cov(*v10)[0, 1] / pos.sum() + np.cov(*v01)[0, 1] / neg.sum()
    assert full[0, 1, 1, 3] == pytest.approx(expected)


def test_imrmc_file_there_and_back(van_dyke, tmp_path):
    van_dyke.write(tmp_path / "again.imrmc")
    again = ReaderStudy.parse((tmp_path / "again.imrmc").read_text(encoding="utf-8"), FILE)
    assert again.readers == van_dyke.readers and again.cases == van_dyke.cases
    assert np.array_equal(again.ratings, van_dyke.ratings) and np.array_equal(again.positive, van_dyke.positive)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("BEGIN DATA:", "DATA"), "no line"),
        (lambda text: text.replace("\n1,1,1,1\n", "\n1,1,1,one\n"), "no number"),
        (lambda text: text.replace("\n1,1,1,1\n", "\n1,1,1\n"), "3 fields"),
        (lambda text: text.replace("\n1,1,1,1\n", "\n"), "missing"),
        (lambda text: text.replace("\n1,1,1,1\n", "\n1,1,1,1\n1,1,1,2\n"), "twice"),
        (lambda text: text.replace("\n-1,1,truth,0\n", "\n"), "truth is not given"),
        (lambda text: text.replace("\n-1,1,truth,0\n", "\n-1,1,truth,7\n"), "truth of case"),
    ],
)
def test_broken_files_are_refused_by_line(change, words):
    with pytest.raises(LayoutError, match=words):
        ReaderStudy.parse(change(FILE.read_text(encoding="utf-8")), FILE)


def test_files_of_imrmc_with_spaces_in_names_are_read():
    rows = ["simulated", "NR: 1", "BEGIN DATA:", "-1 , case1 , x , 0", "-1,case2,x,0", "-1,c3,x,1", "-1,c4,x,1"]
    rows += [" reader 1 ,case1, m 1 ,1.0", "reader1,case2,m1,2", "reader 1,c3,m1,3", "reader1,c4,m1,0.5"]
    study = ReaderStudy.parse("\n".join(rows) + "\n", FILE)
    assert study.readers == ("reader1",) and study.modalities == ("m1",)
    assert study.ratings.tolist() == [[[1.0, 2.0, 3.0, 0.5]]]
