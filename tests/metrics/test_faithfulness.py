import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sightline.errors import GeometryError, RunError
from sightline.metrics.faithfulness.perturbation import PixelRemoval, impute, rank_pixels
from sightline.metrics.faithfulness.report import (
    FaithfulnessRow,
    compute_faithfulness_report,
    deletion,
    fill_value,
    insertion,
    road,
)
from sightline.metrics.maps.score import score_map

SHAPE = (12, 10)


def image(seed=0, channels=2):
    return np.random.default_rng(seed).random((channels, *SHAPE)).astype(np.float32)


def weights():
    """A linear network that reads one corner only."""
    w = np.zeros(SHAPE)
    w[:4, :4] = 1.0
    return w


def network(images):
    said = (images.mean(axis=1) * weights()).sum(axis=(1, 2)) / 16
    return np.stack([1 - said, said], axis=1)


def test_deletion_step_by_step():
    x, field = image(), np.random.default_rng(1).random(SHAPE)
    found = deletion(network, x, field, 1, steps=6)
    order = np.argsort(-field.ravel())
    slow = []
    for i in range(7):
        left = x.astype(float).copy().reshape(2, -1)
        left[:, order[: round(i / 6 * 120)]] = x.mean(axis=(1, 2), dtype=float)[:, None]
        slow.append(network(left.reshape(1, 2, *SHAPE))[0, 1])
    assert found.values == pytest.approx(slow, abs=1e-6)
    assert found.value == pytest.approx(sum((a + b) / 2 for a, b in pairwise(slow)) / 6, abs=1e-6)


def test_insertion_step_by_step():
    x, field = image(), np.random.default_rng(1).random(SHAPE)
    found = insertion(network, x, field, 1, steps=5)
    order, start = np.argsort(-field.ravel()), fill_value(x.astype(float), "blur")
    slow = []
    for i in range(6):
        here = start.copy().reshape(2, -1)
        chosen = order[: round(i / 5 * 120)]
        here[:, chosen] = x.reshape(2, -1)[:, chosen]
        slow.append(network(here.reshape(1, 2, *SHAPE))[0, 1])
    assert found.values == pytest.approx(slow, abs=1e-6)
    np.testing.assert_allclose(start[0], gaussian_filter(x[0].astype(float), 5 / 224 * 10))


def test_the_networks_own_weights_beat_chance_and_their_opposite_loses():
    x = np.zeros((1, *SHAPE), dtype=np.float32)
    x[:, :4, :4] = 1.0
    taking = PixelRemoval(orders=5)
    for measure, options in ((deletion, {"baseline": "black"}), (insertion, {"baseline": "black"}), (road, {})):
        good = measure(network, x, weights(), 1, taking=taking, **options)
        bad = measure(network, x, -weights(), 1, taking=taking, **options)
        assert good.gain > 0.15 > -0.15 > bad.gain, measure
        assert good.chance == pytest.approx(bad.chance)
    # least relevant first: the corner stays to the end
    assert road(network, x, weights(), 1, order="LeRF", taking=taking).gain > 0.1
    # black, exactly: all 16 of 120 pixels are gone after 16 / 120 of the way
    exact = deletion(network, x, weights(), 1, steps=120, baseline="black")
    assert exact.value == pytest.approx(16 / 120 / 2, abs=1e-6)


def test_a_flat_map_gets_chance_at_its_own_resolution():
    x = np.zeros((1, *SHAPE), dtype=np.float32)
    x[:, :4, :4] = 1.0
    for shape in ((3, 5), SHAPE):
        flat = [
            deletion(network, x, np.ones(shape), 1, baseline="black", taking=PixelRemoval(orders=20, seed=s))
            for s in range(40)
        ]
        assert np.mean([f.value for f in flat]) == pytest.approx(np.mean([f.chance for f in flat]), abs=0.05)
    # ties are whole cells: the first 8 pixels (of 120) of a flat 3 x 5 map are one cell
    order = rank_pixels(np.ones((3, 5)), np.ones(SHAPE, dtype=bool), np.random.default_rng(0))
    rows, columns = np.unravel_index(order[:8], SHAPE)
    assert set(rows // 4) == {rows[0] // 4} and set(columns // 2) == {columns[0] // 2}


def test_maps_that_know_nothing_gain_nothing_over_random_orders():
    """Each case draws its own order: one order for all of them gave gains far from 0, whose intervals left 0 out."""
    x = np.zeros((1, *SHAPE), dtype=np.float32)
    x[:, :4, :4] = 1.0
    cases = [f"c{i}" for i in range(48)]
    for seed in range(4):
        taking, random = PixelRemoval(orders=1, seed=seed), np.random.default_rng(99)
        useless = {case: random.random((3, 3)) for case in cases}

        def measure(case, taking=taking, useless=useless):
            return deletion(network, x, useless[case], 1, steps=9, baseline="black", taking=taking.seed_case(case))

        rows = [FaithfulnessRow(case, case, case, measure(case)) for case in cases]
        gain = {e.name: e for e in compute_faithfulness_report(rows)}["deletion, better than a random order by"]
        assert gain.low < 0 < gain.high and abs(gain.value) < 0.15, seed
        assert np.std([row.found.chance for row in rows]) > 0.1
        # whatever is measured before it, a case has the same order
        assert measure("c7") == rows[7].found
    # neither the process nor the machine decides
    assert PixelRemoval().seed_case("c7").seed == 17004309795888219574


def test_padding_is_not_taken():
    x, valid = image(), np.zeros(SHAPE, dtype=bool)
    valid[2:, :6] = True
    field = np.random.default_rng(2).random(SHAPE)
    order = rank_pixels(field, valid, np.random.default_rng(0))
    assert sorted(order) == sorted(np.flatnonzero(valid))
    seen = []

    def watch(images):
        seen.append(images)
        return network(images)

    deletion(watch, x, field, 1, valid=valid)
    insertion(watch, x, field, 1, valid=valid)
    road(watch, x, field, 1, valid=valid)
    assert all((images[:, :, ~valid] == x[:, ~valid]).all() for images in seen)


def test_batches_do_not_matter_and_seeds_repeat():
    x, field = image(), np.random.default_rng(2).random((3, 5))
    for measure in (deletion, insertion, road):
        a, b = (measure(network, x, field, 1, taking=PixelRemoval(batch=n)) for n in (4, 100))
        assert a == b


def test_imputation_solves_its_equations():
    x = image(3).astype(float)
    removed = np.random.default_rng(0).random(SHAPE) < 0.6
    found = impute(x, removed, noise=0.0)
    assert (found[:, ~removed] == x[:, ~removed]).all()
    for r, c in np.argwhere(removed):
        total, mass = np.zeros(2), 0.0
        for dr in (-1, 0, 1):
            for dc in (-1, 0, 1):
                if (dr, dc) != (0, 0) and 0 <= r + dr < 12 and 0 <= c + dc < 10:
                    w = 1 / 6 if dr * dc == 0 else 1 / 12
                    total, mass = total + w * found[:, r + dr, c + dc], mass + w
        np.testing.assert_allclose(found[:, r, c], total / mass)
    noisy = impute(x, removed, noise=0.01, seed=1)
    assert (noisy - found)[:, removed].std() == pytest.approx(0.01, rel=0.2)
    assert impute(x, np.ones(SHAPE), noise=0.0) == pytest.approx(
        np.broadcast_to(x.mean((1, 2))[:, None, None], x.shape)
    )
    np.testing.assert_array_equal(impute(x, np.zeros(SHAPE)), x)
    # a linear ramp away from the border comes back as it was
    ramp = np.add.outer(np.arange(12.0), 2 * np.arange(10.0))[None]
    hole = np.zeros(SHAPE, dtype=bool)
    hole[3:8, 3:7] = True
    np.testing.assert_allclose(impute(ramp, hole, noise=0.0), ramp)


def test_report_over_patients():
    rows = []
    for i in range(12):
        x = image(i)
        for measure in (deletion, insertion):
            found = measure(network, x, weights() * x.mean(axis=0), 1, steps=8)
            rows.append(FaithfulnessRow(f"i{i}", f"s{i}", f"p{i // 2}", found))
    report = {e.name: e for e in compute_faithfulness_report(rows)}
    assert report["deletion"].n == {"maps": 12, "images": 12, "studies": 12, "patients": 6}
    assert report["deletion"].value == pytest.approx(
        np.mean([r.found.value for r in rows if r.found.name == "deletion"])
    )
    assert "insertion, better than a random order by" in report and "deletion, centred Gaussian" in report
    odd = replace(rows[0].found, value=math.nan)
    some = {e.name: e for e in compute_faithfulness_report([*rows, FaithfulnessRow("odd", "odd", "odd", odd)])}
    assert some["deletion"].value == report["deletion"].value and some["deletion"].n["maps"] == 12
    assert "1 maps without a score left out" in some["deletion"].method
    with pytest.raises(RunError, match="at least one row"):
        compute_faithfulness_report([])


def test_wrong_input_is_refused():
    x, field = image(), np.ones(SHAPE)
    with pytest.raises(GeometryError, match="c, h, w"):
        deletion(network, x[0], field, 1)
    with pytest.raises(GeometryError, match="NaN"):
        deletion(network, x, field * np.nan, 1)
    with pytest.raises(RunError, match="class 2"):
        deletion(network, x, field, 2)
    with pytest.raises(RunError, match="one step"):
        insertion(network, x, field, 1, steps=0)
    with pytest.raises(RunError, match="baseline"):
        deletion(network, x, field, 1, baseline="noise")
    with pytest.raises(RunError, match="between 0 and 1"):
        road(network, x, field, 1, shares=(0.0, 0.5))
    with pytest.raises(RunError, match="NaN"):
        deletion(lambda images: network(images) * np.nan, x, field, 1)
    with pytest.raises(RunError, match="1 or more"):
        PixelRemoval(orders=0)
    with pytest.raises(GeometryError, match="mask of shape"):
        impute(x, np.ones((3, 3)))


def torch_network(torch, softmax):
    class Linear(torch.nn.Module):
        def forward(self, images):
            said = (images.mean(dim=1) * torch.tensor(weights(), dtype=images.dtype)).sum(dim=(1, 2)) / 16
            both = torch.stack([1 - said, said], dim=1)
            return both.softmax(dim=1) if softmax else both

    return Linear().eval()


def test_imputation_and_road_equal_grad_cams():
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("pytorch_grad_cam.metrics.road")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    x, field = image(3), np.random.default_rng(1).random(SHAPE).astype(np.float32)
    removed = np.random.default_rng(0).random(SHAPE) < 0.6
    imputed = theirs.NoisyLinearImputer(noise=0.0)(torch.tensor(x), torch.tensor(~removed, dtype=torch.float32))
    np.testing.assert_allclose(impute(x, removed, noise=0.0), imputed.numpy(), atol=1e-5)
    # their thresholds are percentiles of the map, ours counts of pixels: at most one pixel of 120 apart; and they
    # print the change from the whole image
    inputs, targets = torch.tensor(x)[None], [ClassifierOutputTarget(1)]
    before = network(x[None])[0, 1]
    each = {"MoRF": theirs.ROADMostRelevantFirstAverage, "LeRF": theirs.ROADLeastRelevantFirstAverage}
    for order, metric in each.items():
        printed = metric()(inputs, field[None], targets, torch_network(torch, softmax=False))[0]
        found = road(network, x, field, 1, order=order)
        assert found.value - before == pytest.approx(printed, abs=0.01)


def test_deletion_equals_quantus_pixel_flipping():
    torch, quantus = pytest.importorskip("torch"), pytest.importorskip("quantus")
    # one channel: quantus flips channels one after another, we flip pixels
    x, field = image(4, channels=1), np.random.default_rng(1).random(SHAPE).astype(np.float32)
    metric = quantus.PixelFlipping(features_in_step=12, perturb_baseline=0.0, normalise=False, disable_warnings=True)
    theirs = metric(
        model=torch_network(torch, softmax=False),
        x_batch=x[None],
        y_batch=np.array([1]),
        a_batch=field[None, None],
        softmax=False,
        device="cpu",
    )[0]
    found = deletion(network, x, field, 1, steps=10, baseline="black")
    assert found.values[1:] == pytest.approx(theirs, abs=1e-6)  # theirs begins after the first step
    # and their area has steps of 1 instead of shares
    assert np.trapezoid(found.values[1:], found.shares[1:]) == pytest.approx(np.trapezoid(theirs) / 10, abs=1e-6)


def test_quantus_imputes_as_we_do_on_any_mask():
    quantus = pytest.importorskip("quantus.functions.perturb_func")
    x = image(5).astype(float)
    removed = np.random.default_rng(0).random(SHAPE) < 0.4
    theirs = quantus.noisy_linear_imputation(x, np.flatnonzero(removed), noise=0.0)
    np.testing.assert_allclose(impute(x, removed, noise=0.0), theirs, atol=1e-9)


def test_pointing_and_energy_equal_quantus_where_maxima_are_single():
    torch, quantus = pytest.importorskip("torch"), pytest.importorskip("quantus")
    random = np.random.default_rng(0)
    fields, inside = random.random((6, 1, *SHAPE)), np.zeros((6, 1, *SHAPE), dtype=bool)
    inside[:, :, 3:9, 2:8] = True
    options = {
        "model": torch_network(torch, softmax=False),
        "x_batch": np.stack([image(i, 1) for i in range(6)]),
        "y_batch": np.ones(6, dtype=int),
        "a_batch": fields,
        "s_batch": inside,
        "device": "cpu",
    }
    ours = [score_map(f[0], s[0]) for f, s in zip(fields, inside, strict=True)]
    pointing = quantus.PointingGame(normalise=False, abs=False, disable_warnings=True)(**options)
    assert [s.pointing for s in ours] == [float(hit) for hit in np.ravel(pointing)]
    mass = quantus.RelevanceMassAccuracy(normalise=False, abs=False, disable_warnings=True)(**options)
    assert [s.energy for s in ours] == pytest.approx(np.ravel(mass))
    # of tied maxima quantus counts a hit if any lies inside, we count their share: a nearly flat map always hits theirs
    flat = np.ones_like(fields)
    flat[:, :, 0, 0] = 0.0
    tied = quantus.PointingGame(normalise=False, abs=False, disable_warnings=True)(**{**options, "a_batch": flat})
    assert np.ravel(tied).all()
    assert score_map(flat[0, 0], inside[0, 0]).pointing == 36 / 119
