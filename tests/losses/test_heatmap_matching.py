"""What a decoder, an explainer and gaze are held to: values, options, and who learns what from which set."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import one_hot

from sightline.errors import GeometryError, RecipeError
from sightline.explainers.cam import GradCAMPlusPlus
from sightline.explainers.gradients import InputGradient
from sightline.losses.heatmap_matching import (
    HeatmapMatch,
    encode_target,
    is_not_constant,
    normalise_min_max,
    resize_to_grid,
    smooth_heatmaps,
)
from sightline.losses.map_norm import MapNorm
from sightline.models.backbones import Backbone
from sightline.models.unet import UNet
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.evidence import Batch
from sightline.structures.frame import Frame
from sightline.training.serialization import build_from_plain, to_plain

ONES = torch.ones(3)
GUIDED = InputGradient("guided")


def tiny(**more):
    torch.manual_seed(0)
    return UNet(Backbone("test_resnet"), widths=(16, 8, 8, 8, 4), **more).build(3)


def batch_of(n=3, side=32, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    guided = one_hot(labels, 3).bool()
    guided[-1] = False
    return Batch(
        torch.rand(n, 3, side, side, generator=g, dtype=dtype), labels,
        torch.rand(n, 1, side, side, generator=g, dtype=dtype), guided, (Frame.of_image((side, side)),) * n,
        tuple(map(str, range(n))),
    )  # fmt: skip


def said(n=3, side=8, seed=0):
    """What a network and an explainer might have said."""
    g = torch.Generator().manual_seed(seed)
    return {
        "logits": torch.randn(n, 3, generator=g).requires_grad_(),
        "decoder": torch.randn(n, 1, side, side, generator=g).requires_grad_(),
        "explained": torch.rand(n, 1, side, side, generator=g).requires_grad_(),
    }


def out_of(network, batch, explainer):
    evidence = network(batch.images)
    maps = explainer(network, batch.images, batch.labels[:, None], create_graph=True)
    return {"logits": evidence.logits, **evidence.extras, "explained": maps}


def slow_bce(logits, target):
    """max(z, 0) - z y + ln(1 + e^-|z|), number by number."""
    total = 0.0
    for z, y in zip(logits.flatten().tolist(), target.flatten().tolist(), strict=True):
        total += max(z, 0.0) - z * y + math.log1p(math.exp(-abs(z)))
    return total / logits.numel()


def slow_logits(heat, eps=1e-4):
    low, high = float(heat.min()), float(heat.max())
    shares = [(float(v) - low) / (high - low) for v in heat.flatten()]
    inside = [min(max(p, eps), 1 - eps) for p in shares]
    return torch.tensor([math.log(p / (1 - p)) for p in inside])


class TestValues:
    @pytest.mark.parametrize("match", ["classifier", "decoder", "set1", "set2", "set3"])
    def test_is_the_sum_the_paper_says(self, match):
        batch, out = batch_of(3, 8), said()
        cls = slow_bce(out["logits"], one_hot(batch.labels, 3).float())
        # the last image has no gaze: it counts for its class alone
        d = sum(slow_bce(out["decoder"][i], batch.targets[i]) for i in range(2)) / 2
        h = sum(slow_bce(slow_logits(out["explained"][i]), batch.targets[i]) for i in range(2)) / 2
        each_other = sum(slow_bce(out["decoder"][i], normalise_min_max(out["explained"])[i]) for i in range(3)) / 3
        maps = {"decoder": d, "set1": h, "set2": each_other, "set3": 0.25 * d + 0.75 * h}
        want = cls if match == "classifier" else 0.3 * cls + 0.7 * maps[match]
        term = HeatmapMatch(match, InputGradient(), gamma=0.3, w=0.25)(out, batch, ONES, ())
        assert float(term.value) == pytest.approx(want, rel=1e-4) and term.images == 3
        assert term.parts["classification"] == pytest.approx(cls, rel=1e-5)
        if match == "set3":
            assert term.parts["decoder_error"] == pytest.approx(d, rel=1e-5)
            assert term.parts["heatmap_error"] == pytest.approx(h, rel=1e-4) and term.parts["dead_maps"] == 0.0

    def test_classes_by_themselves_or_against_each_other_and_weighed(self):
        batch, out, weights = batch_of(3, 8), said(), torch.tensor([1.0, 2.0, 4.0])
        term = HeatmapMatch("classifier", labels="softmax")(out, batch, weights, ())
        log_p = out["logits"].log_softmax(1)
        want = -sum(float(weights[y] * log_p[i, y]) for i, y in enumerate(batch.labels.tolist())) / 3
        assert float(term.value) == pytest.approx(want, rel=1e-5)
        truth = one_hot(batch.labels, 3).float()
        want = sum(float(weights[y]) * slow_bce(out["logits"][i], truth[i]) for i, y in enumerate([0, 1, 2])) / 3
        assert float(HeatmapMatch("classifier")(out, batch, weights, ()).value) == pytest.approx(want, rel=1e-5)
        assert HeatmapMatch("classifier").independent and not HeatmapMatch("classifier", labels="softmax").independent

    def test_maps_of_several_grids_meet_on_the_decoders(self):
        batch = batch_of(3, 16)
        out = said() | {"explained": torch.rand(3, 1, 32, 32)}
        fine = HeatmapMatch("set3", GUIDED)(out, batch, ONES, ())
        pooled = torch.nn.functional.avg_pool2d
        coarse = replace(batch, targets=pooled(batch.targets, 2))
        same = HeatmapMatch("set3", GUIDED)(out | {"explained": pooled(out["explained"], 4)}, coarse, ONES, ())
        assert float(fine.value) == pytest.approx(float(same.value), rel=1e-5)
        four = HeatmapMatch("set1", GUIDED, grid=4, gamma=0.0)(out, batch, ONES, ())
        want = sum(slow_bce(slow_logits(pooled(out["explained"], 8)[i]), pooled(batch.targets, 4)[i]) for i in (0, 1))
        assert float(four.value) == pytest.approx(want / 2, rel=1e-4)

    def test_each_class_may_have_gaze_of_its_own(self):
        batch, out = batch_of(3, 8), said()
        own = torch.rand(3, 3, 8, 8)
        own[torch.arange(3), batch.labels] = batch.targets[:, 0]
        loss = HeatmapMatch("set3", GUIDED)
        assert torch.equal(
            loss(out, replace(batch, targets=own), ONES, ()).value, loss(out, batch, ONES, ()).value
        )  # fmt: skip

    def test_raw_maps_as_logits_say_next_to_nothing(self):
        """Spec 4.5: gradients of 1e-4 as logits give ln 2 whatever the map; scaled ones never say less than 1/2."""
        batch = batch_of(3, 8)
        for seed in range(3):
            out = said(seed=seed)
            small = out | {"explained": 1e-4 * out["explained"].detach()}
            raw = HeatmapMatch("set1", GUIDED, to_logits="raw", scale="none")(small, batch, ONES, ())
            assert raw.parts["heatmap_error"] == pytest.approx(math.log(2), abs=1e-3)
        scaled = HeatmapMatch("set1", GUIDED, to_logits="raw", gamma=0.0)
        want = sum(slow_bce(normalise_min_max(out["explained"])[i], batch.targets[i]) for i in range(2)) / 2
        assert float(scaled(out, batch, ONES, ()).value) == pytest.approx(want, rel=1e-5)

    def test_smoothing_comes_first(self):
        batch, out = batch_of(3, 8), said()
        loss = HeatmapMatch("set1", GUIDED, smooth_px=1.5)
        want = HeatmapMatch("set1", GUIDED)(
            out | {"explained": smooth_heatmaps(out["explained"], 1.5)}, batch, ONES, ()
        )
        assert float(loss(out, batch, ONES, ()).value) == pytest.approx(float(want.value), rel=1e-6)


class TestWhoLearns:
    def test_set_1_teaches_the_decoder_nothing(self):
        network, batch = tiny(dropout=0.0), batch_of()
        loss = HeatmapMatch("set1", GUIDED)
        loss(out_of(network, batch, GUIDED), batch, ONES, ()).value.backward()
        assert all(p.grad is None for p in [*network.decoder.parameters(), *network.paint.parameters()])
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.trunk.parameters())

    def test_set_2_needs_no_gaze_and_teaches_the_decoder_alone(self):
        batch, out = batch_of(3, 8), said()
        loss = HeatmapMatch("set2", GUIDED, gamma=0.0)
        assert not loss.needs_regions
        blank = replace(batch, targets=None, guided=batch.guided & False)
        value = loss(out, blank, ONES, ()).value
        assert torch.equal(value, loss(out, batch, ONES, ()).value)
        of_h, of_d = torch.autograd.grad(value, [out["explained"], out["decoder"]], allow_unused=True)
        assert of_h is None and of_d.abs().sum() > 0
        both = replace(loss, flow="both")(out, batch, ONES, ()).value
        assert all(g.abs().sum() > 0 for g in torch.autograd.grad(both, [out["explained"], out["decoder"]]))

    def test_set_3_teaches_both(self):
        network, batch = tiny(dropout=0.0), batch_of()
        out = out_of(network, batch, GUIDED)
        value = HeatmapMatch("set3", GUIDED, gamma=0.0)(out, batch, ONES, ()).value
        assert all(g.abs().sum() > 0 for g in torch.autograd.grad(value, [out["explained"], out["decoder"]]))

    @pytest.mark.parametrize("rule", ["vanilla", "guided", "deconvolution"])
    @pytest.mark.parametrize("encoder", ["test_resnet", "test_efficientnet"])
    def test_weights_learn_through_the_map_by_finite_differences(self, rule, encoder):
        """The whole way, in float64: weights, gradient of the image, objective (spec, golden check 15)."""
        torch.manual_seed(1)
        network = UNet(Backbone(encoder), decoder=False, dropout=0.0).build(3).double().eval()
        batch = batch_of(2, 32, dtype=torch.float64)
        batch = replace(batch, guided=torch.ones(2, 3, dtype=torch.bool))
        explainer = InputGradient(rule, reduce="signed_sum")
        # what is detached on purpose (minimum and maximum) would be seen by differences: left out here
        loss = HeatmapMatch("set1", explainer, gamma=0.0, scale="none", to_logits="raw")
        weight = network.head.linear.weight
        # maps of the order of 1, so that differences so small that hardly any rule's kink lies between are exact
        weight.data *= 3e3

        def value():
            return loss(out_of(network, batch, explainer), batch, ONES.double(), ()).value

        start = value()
        (gradient,) = torch.autograd.grad(start, weight)
        direction, step, kept = torch.randn_like(weight), 1e-8 * float(weight.abs().mean()), weight.detach().clone()
        ends = []
        for sign in (1.0, -1.0):
            weight.data = kept + sign * step * direction
            ends.append(float(value().detach()))
        want = (ends[0] - ends[1]) / (2 * step)
        assert abs(float(start.detach()) - math.log(2)) > 1e-3 and abs(want) > 1e-7
        assert float((gradient * direction).sum()) == pytest.approx(want, rel=1e-5)

    def test_scaling_passes_gradients_through_the_values_alone(self):
        """By differences of the loss restated with minimum and maximum as constants."""
        batch = batch_of(2, 4, dtype=torch.float64)
        batch = replace(batch, guided=torch.ones(2, 3, dtype=torch.bool))
        heat = torch.rand(2, 1, 4, 4, dtype=torch.float64).requires_grad_()
        out = {"logits": torch.zeros(2, 3, dtype=torch.float64), "explained": heat}
        loss = HeatmapMatch("set1", GUIDED, gamma=0.0)(out, batch, ONES.double(), ()).value
        (gradient,) = torch.autograd.grad(loss, heat)
        low = heat.detach().amin((1, 2, 3), keepdim=True)
        high = heat.detach().amax((1, 2, 3), keepdim=True)

        def restated(values):
            p = ((values - low) / (high - low)).clamp(1e-4, 1 - 1e-4)
            return -(batch.targets * p.log() + (1 - batch.targets) * (1 - p).log()).mean()

        assert torch.allclose(restated(heat), loss, rtol=1e-9)
        for place in [(0, 0, 1, 2), (1, 0, 3, 0)]:
            up, down = heat.detach().clone(), heat.detach().clone()
            up[place] += 1e-6
            down[place] -= 1e-6
            want = float(restated(up) - restated(down)) / 2e-6
            # extremes are clamped: nothing passes there
            assert float(gradient[place]) == pytest.approx(want, rel=1e-5, abs=1e-9)

    def test_dead_maps_are_counted_and_skipped(self):
        batch, out = batch_of(3, 8), said()
        out["explained"] = out["explained"].detach()
        out["explained"][0] = 0.0
        out["explained"].requires_grad_()
        for loss in (HeatmapMatch("set1", GUIDED), HeatmapMatch("set1", GUIDED, scale="none")):
            term = loss(out, batch, ONES, ())
            (gradient,) = torch.autograd.grad(term.value, out["explained"])
            assert term.parts["dead_maps"] == pytest.approx(1 / 3) and math.isfinite(float(term.value))
            # the last has no gaze
            assert not gradient[0].any() and gradient[1].any() and not gradient[2].any()
        none = out | {"explained": torch.zeros(3, 1, 8, 8, requires_grad=True)}
        term = HeatmapMatch("set1", GUIDED)(none, batch, ONES, ())
        assert term.parts["dead_maps"] == 1.0 and term.parts["map_error"] == 0.0

    def test_a_map_that_is_not_finite_is_not_taken_for_a_dead_one(self):
        batch, out = batch_of(3, 8), said()
        broken = out | {"explained": out["explained"] * math.nan}
        assert math.isnan(float(HeatmapMatch("set1", GUIDED)(broken, batch, ONES, ()).value))
        assert is_not_constant(broken["explained"]).all() and not is_not_constant(torch.ones(2, 1, 3, 3)).any()

    @pytest.mark.parametrize("match", ["decoder", "set1", "set3"])
    def test_no_gaze_no_comparison(self, match):
        batch = batch_of(3, 8)
        bare = replace(batch, targets=None, guided=batch.guided & False)
        term = HeatmapMatch(match, GUIDED)(said(), bare, ONES, ())
        assert term.parts["map_error"] == 0.0 and math.isfinite(float(term.value))
        term.value.backward()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_mixed_precision_compares_in_float32(self, dtype):
        batch, out = batch_of(3, 8), said()
        low = {name: tensor.detach().to(dtype) for name, tensor in out.items()}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = HeatmapMatch("set3", GUIDED)(low, batch, ONES, ()).value
        want = HeatmapMatch("set3", GUIDED)({k: v.float() for k, v in low.items()}, batch, ONES, ()).value
        assert value.dtype == torch.float32 and torch.allclose(value, want, rtol=1e-6)


class TestSettings:
    def test_what_is_missing_is_named(self):
        batch, out = batch_of(3, 8), said()
        with pytest.raises(GeometryError, match="decoder"):
            HeatmapMatch("decoder")({"logits": out["logits"]}, batch, ONES, ())
        with pytest.raises(GeometryError, match=r"explained is \[3, 3, 8, 8\]"):
            HeatmapMatch("set1", GUIDED)(out | {"explained": torch.rand(3, 3, 8, 8)}, batch, ONES, ())

    @pytest.mark.parametrize(
        ("fields", "match"),
        [
            ({}, "Name a heatmap"), ({"heatmap": MapNorm()}, "no explainer"), ({"gamma": 1.5}, "gamma and w"),
            ({"w": math.nan}, "gamma and w"), ({"eps": 0.5}, "eps"), ({"grid": 0}, "grid"),
            ({"smooth_px": 0.0}, "smooth_px"),
        ],
    )  # fmt: skip
    def test_settings_that_mean_nothing_are_refused(self, fields, match):
        given = {"heatmap": GUIDED, **fields} if fields else {}
        with pytest.raises(RecipeError, match=match):
            HeatmapMatch("set1", **given)

    def test_what_the_lab_reads(self):
        assert HeatmapMatch("classifier", GUIDED).explainer is None
        assert HeatmapMatch("decoder", GUIDED).explainer is None
        asked = {m: HeatmapMatch(m, GUIDED).needs_regions for m in ("classifier", "decoder", "set1", "set2", "set3")}
        assert asked == {"classifier": False, "decoder": True, "set1": True, "set2": False, "set3": True}
        assert HeatmapMatch("set2", GUIDED).explainer is GUIDED

    @pytest.mark.parametrize("heatmap", [None, GUIDED, GradCAMPlusPlus("trunk")])
    def test_is_written_and_read_back(self, heatmap):
        loss = HeatmapMatch("decoder", heatmap, smooth_px=2.0, target="viridis_gray")
        assert build_from_plain(to_plain(loss, CATALOGUE), CATALOGUE) == loss
        model = UNet(Backbone("resnet18"), widths=(8, 8, 8, 8, 8))
        assert build_from_plain(to_plain(model, CATALOGUE), CATALOGUE) == model

    def test_a_number_is_no_explainer_in_a_recipe(self):
        plain = to_plain(HeatmapMatch("decoder", GUIDED), CATALOGUE)
        with pytest.raises(RecipeError, match="heatmap"):
            build_from_plain({**plain, "heatmap": 3}, CATALOGUE)


def test_viridis_read_as_grey_runs_from_0_118_to_0_845():
    """Spec, golden check 16; against Pillow's reading of the picture that matplotlib would save."""
    from matplotlib import colormaps

    values = np.linspace(0, 1, 1000, dtype=np.float32)
    got = encode_target(torch.from_numpy(values), "viridis_gray").numpy()
    picture = colormaps["viridis"](values[None], bytes=True)[..., :3]
    want = np.asarray(Image.fromarray(picture).convert("L"))[0] / 255
    assert np.allclose(got, want, atol=1e-7) and (np.diff(got) >= 0).all()
    assert got[0] == pytest.approx(0.118, abs=2e-3) and got[-1] == pytest.approx(0.845, abs=2e-3)
    steps = torch.from_numpy(values)
    assert encode_target(steps, "linear") is steps


def test_maps_come_to_one_grid():
    fine = torch.arange(16.0).view(1, 1, 4, 4)
    assert resize_to_grid(fine, (2, 2)).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert resize_to_grid(fine, (4, 4)) is fine and resize_to_grid(fine, (8, 8)).shape == (1, 1, 8, 8)


def test_smoothing_is_a_gaussian_and_keeps_what_is_there():
    point = torch.zeros(1, 1, 31, 31)
    point[0, 0, 15, 15] = 1.0
    spread = smooth_heatmaps(point, 2.0)[0, 0]
    assert float(spread.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(spread[15, 17] / spread[15, 15]) == pytest.approx(math.exp(-0.5), rel=1e-4)
    assert smooth_heatmaps(point, None) is point
    # wider than the map: mirrored as far as it goes, nothing lost
    assert torch.allclose(smooth_heatmaps(torch.ones(1, 1, 4, 6), 9.0), torch.ones(1, 1, 4, 6))
    assert not smooth_heatmaps(torch.zeros(1, 1, 5, 5), 1.0).any()


def test_an_image_is_guided_by_the_target_of_its_own_class_alone():
    """Where every class has a target: a mark of another class does not teach to look nowhere."""
    out, labels = said(2), torch.tensor([0, 0])
    targets = torch.zeros(2, 3, 8, 8)
    targets[0, 0, 2:5] = targets[1, 1] = 1.0
    guided = torch.tensor([[True, False, False], [False, True, False]])
    batch = replace(batch_of(2, side=8), labels=labels, targets=targets, guided=guided)
    term = HeatmapMatch("decoder")(out, batch, ONES, ())
    first = torch.nn.functional.binary_cross_entropy_with_logits(out["decoder"][0, 0], targets[0, 0])
    assert term.parts["decoder_error"] == pytest.approx(float(first.detach()), rel=1e-5)
    assert not torch.autograd.grad(term.value, out["decoder"])[0][1].any()
    # one target for all classes guides whoever has a mark
    whole = HeatmapMatch("decoder")(out, replace(batch, targets=targets[:, 1:2]), ONES, ())
    assert torch.autograd.grad(whole.value, out["decoder"])[0][1].any()
