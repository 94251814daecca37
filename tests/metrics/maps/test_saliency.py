from dataclasses import replace

import numpy as np
import pytest

from sightline.errors import CohortError, GeometryError, LayoutError, RunError
from sightline.metrics.maps.gaze import NAMES, GazeRow, GazeScores, compare_gaze, seed_gaze
from sightline.metrics.maps.saliency import MEASURES, GazeScore, resample_by_area, sample_others, score_gaze
from sightline.metrics.maps.score import draw_centre_prior
from sightline.structures.frame import Frame
from sightline.structures.gaze import Gaze


def example(seed=0, shape=(24, 20), n=30):
    """Gaze around one spot, its density, and other images' places all over."""
    random = np.random.default_rng(seed)
    places = np.clip(random.normal((8, 14), 2.0, (n, 2)), 0, np.array(shape) - 0.01)
    gaze = Gaze(places, np.arange(n) * 0.3, np.full(n, 0.3), spread_px=2.0)
    others = random.uniform((0, 0), shape, (400, 2))
    return gaze.density(Frame.of_image(shape)), places, others


def slow(field, density, places, others):
    """Bylinskii 2019, loop by loop."""
    eps = np.finfo(float).eps
    p, q = np.clip(field, 0, None) / np.clip(field, 0, None).sum(), density / density.sum(dtype=float)
    kl = sum(b * np.log(eps + b / (a + eps)) for a, b in zip(p.flat, q.flat, strict=True))
    sim = sum(min(a, b) for a, b in zip(p.flat, q.flat, strict=True))
    cells = [tuple(x) for x in places.astype(int)]
    z = (field - field.mean()) / field.std()
    free = [field[r, c] for r in range(field.shape[0]) for c in range(field.shape[1]) if (r, c) not in cells]
    beats = lambda a, b: (a > b) + 0.5 * (a == b)  # noqa: E731
    auc = np.mean([beats(field[x], v) for x in cells for v in free])
    sauc = np.mean([beats(field[x], field[tuple(o)]) for x in cells for o in others.astype(int)])
    k = round(0.2 * field.size)
    best, most = np.argsort(-field.ravel())[:k], np.argsort(-density.ravel())[:k]
    iou = len(set(best) & set(most)) / len(set(best) | set(most))
    cc = np.corrcoef(field.ravel(), density.ravel())[0, 1]
    return {"kl": kl, "cc": cc, "sim": sim, "nss": np.mean([z[x] for x in cells]), "auc": auc, "sauc": sauc} | {
        "iou_top": iou
    }


def test_every_measure_against_loops():
    density, places, others = example()
    field = np.random.default_rng(3).random(density.shape) + 3 * density / density.max()
    found = score_gaze(field, density, places, others=others)
    for measure, value in slow(field, density, places, others).items():
        assert getattr(found, measure) == pytest.approx(value, rel=1e-5), measure
    centre = slow(draw_centre_prior(np.ones(density.shape)), density, places, others)
    for measure in ("kl", "cc", "sim", "nss", "auc", "sauc"):
        assert getattr(found, f"{measure}_centre") == pytest.approx(centre[measure], rel=1e-5), measure
    assert found.why == "" and found.places == 30 and found.image_px == 480


def judd(field, cells):
    """AUC_Judd of the MIT benchmark: thresholds at the fixated values, joined by straight lines."""
    values = np.sort([field[x] for x in cells])[::-1]
    tp, fp = [0.0], [0.0]
    for i, threshold in enumerate(values, start=1):
        above = (field >= threshold).sum()
        tp.append(i / len(values))
        fp.append((above - i) / (field.size - len(values)))
    return np.trapezoid([*tp, 1.0], [*fp, 1.0])


def test_auc_is_judds_but_for_half_a_step():
    density, places, _ = example(n=15)
    field = np.random.default_rng(3).random(density.shape) + density / density.max()
    cells = sorted({tuple(x) for x in places.astype(int)})
    distinct = np.array(cells) + 0.5
    found = score_gaze(field, density, distinct).auc
    assert 0 <= judd(field, cells) - found <= 0.5 / len(cells) + 1e-9


def test_the_gaze_itself_is_perfect():
    density, places, others = example()
    found = score_gaze(density, density, places, others=others)
    assert found.kl == pytest.approx(0.0, abs=1e-9)
    assert (found.cc, found.sim, found.iou_top) == pytest.approx((1.0, 1.0, 1.0))
    assert found.nss > 1.5 and found.auc > 0.9 and found.sauc > 0.9


@pytest.mark.parametrize("level", [1.0, 1e-30, 7e8])
def test_a_flat_map_gets_exactly_chance(level):
    density, places, others = example()
    found = score_gaze(np.full(density.shape, level), density, places, others=others)
    for measure in MEASURES:
        assert getattr(found, measure) == pytest.approx(getattr(found, f"{measure}_chance")), measure
    assert (found.cc, found.nss, found.auc, found.sauc) == pytest.approx((0.0, 0.0, 0.5, 0.5))
    q = density / density.sum()
    assert found.kl == pytest.approx((q * np.log(q * q.size)).sum(), rel=1e-4)


def test_random_maps_get_chance_on_average():
    density, places, others = example()
    random = np.random.default_rng(0)
    found = [score_gaze(random.random(density.shape), density, places, others=others) for _ in range(200)]
    for measure, spread in (("cc", 0.02), ("nss", 0.06), ("auc", 0.02), ("sauc", 0.02), ("iou_top", 0.01)):
        chance = getattr(found[0], f"{measure}_chance")
        assert np.mean([getattr(s, measure) for s in found]) == pytest.approx(chance, abs=spread), measure


def test_a_centre_bias_gains_auc_but_no_shuffled_auc():
    random = np.random.default_rng(1)
    shape = (24, 24)
    draw = lambda n: np.clip(random.normal(12, 4, (n, 2)), 0, 23.9)  # noqa: E731
    density = Gaze(draw(200), np.arange(200.0), np.ones(200), spread_px=2.0).density(Frame.of_image(shape))
    found = score_gaze(np.ones(shape), density, draw(200), others=draw(2000))
    assert found.auc_centre > 0.75
    assert found.sauc_centre == pytest.approx(0.5, abs=0.06)


def test_no_gaze_is_not_counted_and_no_positive_value_has_no_kl():
    empty = score_gaze(np.ones((4, 5)), np.zeros((4, 5)), np.zeros((0, 2)))
    assert all(getattr(empty, m) is None for m in MEASURES) and empty.why == "no gaze on the image"
    density, places, others = example()
    negative = score_gaze(density - 10.0, density, places, others=others)
    assert negative.kl is None and negative.sim is None and "no positive value" in negative.why
    assert negative.cc == pytest.approx(1.0) and negative.kl_chance is not None
    bare = score_gaze(density, density)
    assert bare.nss is None and bare.auc is None and bare.kl is not None and "no places" in bare.why
    off = score_gaze(density, density, places + 1000)
    assert off.places == 0 and off.nss is None
    assert score_gaze(density, density, places).sauc is None
    everywhere = np.argwhere(np.ones(density.shape)) + 0.5
    assert "every cell was looked at" in score_gaze(density, density, everywhere).why
    assert score_gaze(density, np.ones(density.shape), places).cc is None


def test_padding_is_no_part_of_the_image():
    density, places, others = example()
    field = np.random.default_rng(0).random(density.shape)
    valid = np.zeros(density.shape, dtype=bool)
    valid[:, 4:18] = True
    kept = places[(places[:, 1] >= 4) & (places[:, 1] < 18)] - (0, 4)
    other = others[(others[:, 1] >= 4) & (others[:, 1] < 18)] - (0, 4)
    field[~valid] = np.nan
    cut = score_gaze(field[:, 4:18], density[:, 4:18], kept, others=other)
    padded = score_gaze(field, density, places, others=others, valid=valid)
    for measure in MEASURES:
        for suffix in ("", "_chance", "_centre"):
            assert getattr(padded, measure + suffix) == pytest.approx(getattr(cut, measure + suffix)), measure


def test_weights_are_copies():
    density, places, others = example()
    field = np.random.default_rng(0).random(density.shape)
    times = np.random.default_rng(1).integers(0, 3, len(places))
    a = score_gaze(field, density, places, weights=times, others=others)
    b = score_gaze(field, density, np.repeat(places, times, axis=0), others=others)
    assert (a.nss, a.auc, a.sauc) == pytest.approx((b.nss, b.auc, b.sauc))


def test_resampling_by_area_keeps_the_mean():
    field = np.random.default_rng(0).random((7, 5))
    fine = np.kron(field, np.ones((3, 4)))
    np.testing.assert_allclose(resample_by_area(fine, (7, 5)), field)
    np.testing.assert_allclose(resample_by_area(field, (21, 20)), fine)
    # no whole ratio: through the least common grid
    np.testing.assert_allclose(
        resample_by_area(field, (4, 3)), np.kron(field, np.ones((4, 3))).reshape(4, 7, 3, 5).mean(axis=(1, 3))
    )
    assert resample_by_area(field, (13, 11)).mean() == pytest.approx(field.mean())
    density, places, others = example()
    coarse = resample_by_area(density, (6, 5))
    repeated = np.kron(coarse, np.ones((4, 4)))
    assert score_gaze(coarse, density, places, others=others).cc == pytest.approx(
        score_gaze(repeated, density, places, others=others).cc
    )


def test_wrong_input_is_refused():
    for field, density in (
        (np.ones(3), np.ones((3, 3))),
        (np.full((3, 3), np.nan), np.ones((3, 3))),
        (np.ones((3, 3)), -np.ones((3, 3))),
    ):
        with pytest.raises(GeometryError):
            score_gaze(field, density)
    with pytest.raises(GeometryError, match="as many weights"):
        score_gaze(np.ones((3, 3)), np.ones((3, 3)), [[1, 1]], weights=[1, 2])
    with pytest.raises(RunError, match="without a reason"):
        GazeScore(kl=1.0)
    with pytest.raises(RunError, match="finite"):
        GazeScore(kl=float("nan"), why="x")


def test_places_of_other_images():
    places = {"a": [[1, 1]], "b": [[2, 2], [3, 3]], "c": []}
    assert sample_others(places, "a").tolist() == [[2, 2], [3, 3]]
    assert len(sample_others(places, "c", most=2)) == 2
    assert sample_others({"a": [[1, 1]]}, "a").shape == (0, 2)


def table(skill, seed, n=16):
    rows = []
    for i in range(n):
        density, places, others = example(i)
        density = density * (i != 3)  # one image without gaze
        noise = np.random.default_rng([seed, i]).random(density.shape)
        score = score_gaze(noise + skill * example(i)[0] / example(i)[0].max(), density, places, others=others)
        rows.append(GazeRow(f"i{i}", f"s{i}", f"p{i // 2}", "CHF", "CHF", "reader", score))
    return GazeScores(tuple(rows))


def test_table_survives_the_disk_to_the_last_bit(tmp_path):
    scores = table(1.0, 0)
    scores.write(tmp_path / "gaze.csv")
    assert GazeScores.read(tmp_path / "gaze.csv") == scores
    text = (tmp_path / "gaze.csv").read_text()
    (tmp_path / "bad.csv").write_text(text.replace(text.splitlines()[2].split(",")[6], "twelve", 1))
    with pytest.raises(LayoutError, match="row 3"):
        GazeScores.read(tmp_path / "bad.csv")
    (tmp_path / "bare.csv").write_text("case_id\n")
    with pytest.raises(LayoutError, match="expected rows under"):
        GazeScores.read(tmp_path / "bare.csv")
    with pytest.raises(CohortError, match="repeat"):
        GazeScores(scores.rows + scores.rows[:1])
    with pytest.raises(CohortError, match="no gaze scores"):
        scores.where(lambda row: False)


def test_estimates_over_patients_beside_chance():
    scores = table(1.0, 0)
    found = {e.name: e for e in scores.estimates()}
    assert found["CC with gaze"].n == {"maps": 15, "images": 15, "studies": 15, "patients": 8}
    assert "1 maps without a score left out" in found["CC with gaze"].method
    assert found["CC with gaze"].value == pytest.approx(np.nanmean(scores.column("cc")))
    assert found["CC with gaze, flat map"].value == 0.0
    gain = found["KL from gaze, better than a flat map by"]
    assert gain.value == pytest.approx(np.nanmean(scores.column("kl_chance") - scores.column("kl"))) and gain.low > 0


def test_intervals_stay_within_the_range_of_their_measure():
    own = table(1.0, 0).rows[0]
    values = [(1.0, 0.0, 1.0, 0.0)] * 4 + [(0.99, 0.1, 0.9, 0.1), (0.6, 0.3, 0.1, 3.0)]
    scores = GazeScores(tuple(
        replace(own, case_id=f"i{i}", patient_id=f"p{i}",
                score=replace(own.score, auc=auc, iou_top=top, cc=cc, kl=kl))
        for i, (auc, top, cc, kl) in enumerate(values)
    ))  # fmt: skip
    found = {e.name: e for e in scores.estimates()}
    for column, low, high in (("auc", 0, 1), ("iou_top", 0, 1), ("cc", -1, 1), ("kl", 0, np.inf)):
        for estimate in (found[NAMES[column]], seed_gaze([scores, scores], column)):
            assert low <= estimate.low < estimate.value < estimate.high <= high


def test_trainings_and_methods():
    a, b = ([table(skill, s) for s in (1, 2)] for skill in (1.0, 0.0))
    mean = seed_gaze(b, "cc")
    assert mean.value == pytest.approx(np.mean([np.nanmean(t.column("cc")) for t in b]))
    assert mean.low < 0 < mean.high and mean.n["seeds"] == 2  # a correlation may be negative: nothing is cut at zero
    found = compare_gaze(a, b, "nss", replicates=200)
    assert found.difference > 0.5 and found.p_value < 0.05 and "1 maps left out" in found.why
    assert compare_gaze(a, b, "kl", replicates=200).difference < 0
    with pytest.raises(RunError, match="no gaze measure"):
        compare_gaze(a, b, "mean")
    with pytest.raises(RunError, match="different maps"):
        compare_gaze(a, [table(0.0, 1, n=8)], "cc")
    with pytest.raises(RunError, match="both methods"):
        compare_gaze(a, [], "cc")
    with pytest.raises(RunError, match="at least one run"):
        seed_gaze([], "cc")
