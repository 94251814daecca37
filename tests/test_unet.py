"""The U-Net that classifies: consistent maps, any size, a decoder or none; and what its sets teach whom."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.errors import GeometryError, RecipeError
from sightline.evidence import Batch
from sightline.explain.input_gradient import InputGradient
from sightline.frame import Frame
from sightline.guidance.heatmap_match import HeatmapMatch, encoded, on_grid
from sightline.models.backbones import Backbone
from sightline.models.unet import UNet

TINY = Backbone("test_resnet")


def tiny(decoder=True, **more):
    torch.manual_seed(0)
    widths = (16, 8, 8, 8, 4)
    return UNet(TINY, decoder=decoder, widths=widths, **more).build(3)


def batch_of(n=3, side=32, seed=0):
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    guided = torch.zeros(n, 3, dtype=torch.bool)
    guided[torch.arange(n), labels] = True
    guided[-1] = False
    return Batch(
        torch.rand(n, 3, side, side, generator=g), labels, torch.rand(n, 1, side, side, generator=g), guided,
        (Frame.of_image((side, side)),) * n, tuple(map(str, range(n))),
    )  # fmt: skip


class TestNetwork:
    def test_the_mean_of_the_class_maps_is_the_logit(self):
        network = tiny().eval()
        evidence = network(torch.rand(2, 3, 64, 96))
        assert torch.allclose(evidence.maps.flatten(2).mean(-1), evidence.logits, atol=1e-5)
        assert evidence.extras["decoder"].shape == (2, 1, 64, 96)

    @pytest.mark.parametrize("side", [(64, 64), (50, 70), (33, 97)])
    def test_any_size_and_grey(self, side):
        assert tiny().eval()(torch.rand(1, 1, *side)).extras["decoder"].shape[2:] == side

    def test_without_a_decoder(self):
        network = tiny(decoder=False).eval()
        assert network.decoder is None and not network(torch.rand(1, 3, 64, 64)).extras
        with_one = tiny().eval()
        network.load_state_dict({k: v for k, v in with_one.state_dict().items() if k in network.state_dict()})
        images = torch.rand(1, 3, 64, 64)
        assert torch.allclose(network(images).logits, with_one(images).logits, atol=1e-6)

    def test_the_published_encoder_ends_at_320_channels(self):
        network = UNet(Backbone("efficientnet_b0", stages=5)).build(3)
        assert network.trunk.channels_out == 320 and network.trunk.stride == 32
        evidence = network.eval()(torch.rand(1, 3, 64, 64))
        assert evidence.maps.shape == (1, 3, 2, 2) and evidence.extras["decoder"].shape == (1, 1, 64, 64)

    def test_what_does_not_fit_is_refused(self):
        with pytest.raises(RecipeError, match="one width a stride|widths"):
            UNet(TINY, widths=(8, 8)).build(3)
        with pytest.raises(RecipeError, match="dropout"):
            UNet(TINY, dropout=1.0)


def out_of(network, batch, explainer=None):
    evidence = network(batch.images)
    out = {"logits": evidence.logits, **evidence.extras}
    if explainer is not None:
        out["explained"] = explainer(network, batch.images, batch.labels[:, None], create_graph=True)
    return out


def slow_bce(logits, target):
    total = 0.0
    for z, y in zip(logits.flatten().tolist(), target.flatten().tolist(), strict=True):
        total += max(z, 0.0) - z * y + math.log1p(math.exp(-abs(z)))
    return total / logits.numel()


def slow_logits(heat, eps=1e-4):
    low, high = float(heat.min()), float(heat.max())
    return torch.tensor([[math.log(p / (1 - p)) for p in (min(max((float(v) - low) / (high - low), eps), 1 - eps)
                          for v in row)] for row in heat])  # fmt: skip


class TestMatch:
    def test_set_3_is_the_sum_it_says(self):
        g = torch.Generator().manual_seed(0)
        batch = batch_of(3, 8)
        out = {
            "logits": torch.randn(3, 3, generator=g),
            "decoder": torch.randn(3, 1, 8, 8, generator=g),
            "explained": torch.rand(3, 1, 8, 8, generator=g),
        }
        term = HeatmapMatch("set3", InputGradient(), gamma=0.3, w=0.25)(out, batch, torch.ones(3), ())
        truth = torch.nn.functional.one_hot(batch.labels, 3).float()
        cls = slow_bce(out["logits"], truth)
        # the last image has no gaze: it counts for its class alone
        d = sum(slow_bce(out["decoder"][i], batch.targets[i]) for i in range(2)) / 2
        h = sum(slow_bce(slow_logits(out["explained"][i, 0]), batch.targets[i, 0]) for i in range(2)) / 2
        assert float(term.value) == pytest.approx(0.3 * cls + 0.7 * (0.25 * d + 0.75 * h), rel=1e-4)
        assert term.parts["decoder_error"] == pytest.approx(d, rel=1e-5)
        assert term.parts["heatmap_error"] == pytest.approx(h, rel=1e-4) and term.parts["dead_maps"] == 0.0

    def test_set_1_teaches_the_decoder_nothing(self):
        network, batch = tiny(dropout=0.0), batch_of()
        loss = HeatmapMatch("set1", InputGradient("guided"), gamma=0.0)
        loss(out_of(network, batch, InputGradient("guided")), batch, torch.ones(3), ()).value.backward()
        assert all(p.grad is None for p in [*network.decoder.parameters(), *network.paint.parameters()])
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.trunk.parameters())

    def test_set_2_uses_no_gaze_and_teaches_the_decoder_alone(self):
        network, batch = tiny(dropout=0.0).eval(), batch_of()
        loss = HeatmapMatch("set2", InputGradient("guided"), gamma=0.0)
        assert not loss.needs_regions
        out = out_of(network, batch, InputGradient("guided"))
        blank = Batch(batch.images, batch.labels, None, batch.guided * False, batch.frames, batch.case_ids)
        value = loss(out, blank, torch.ones(3), ()).value
        assert float(value) == float(loss(out, batch, torch.ones(3), ()).value)
        (of_h,) = torch.autograd.grad(value, out["explained"], allow_unused=True, retain_graph=True)
        (of_d,) = torch.autograd.grad(value, out["decoder"], retain_graph=True)
        assert of_h is None and of_d.abs().sum() > 0
        both = HeatmapMatch("set2", InputGradient("guided"), gamma=0.0, flow="both")
        (of_h,) = torch.autograd.grad(both(out, batch, torch.ones(3), ()).value, out["explained"])
        assert of_h.abs().sum() > 0

    def test_set_3_teaches_both(self):
        network, batch = tiny(dropout=0.0), batch_of()
        loss = HeatmapMatch("set3", InputGradient("guided"), gamma=0.0)
        out = out_of(network, batch, InputGradient("guided"))
        value = loss(out, batch, torch.ones(3), ()).value
        grads = torch.autograd.grad(value, [out["explained"], out["decoder"]])
        assert all(g.abs().sum() > 0 for g in grads)

    @pytest.mark.parametrize("rule", ["vanilla", "guided", "deconvolution"])
    def test_gradients_reach_the_weights_by_finite_differences(self, rule):
        network, batch = tiny(dropout=0.0).double().eval(), batch_of(2, 32)
        batch = Batch(batch.images.double(), batch.labels, batch.targets, ~batch.guided, batch.frames, batch.case_ids)
        weight = network.head.linear.weight

        def value():
            out = out_of(network, batch, InputGradient(rule, reduce="signed_sum"))
            # a smooth comparison in float64: the loss itself works in float32
            heat = out["explained"]
            return ((heat - batch.targets) ** 2).mean()

        (gradient,) = torch.autograd.grad(value(), weight)
        place = int(gradient.abs().flatten().argmax())
        flat, step = weight.data.view(-1), 1e-5
        kept = float(flat[place])
        flat[place] = kept + step
        above = float(value())
        flat[place] = kept - step
        below = float(value())
        flat[place] = kept
        assert float(gradient.reshape(-1)[place]) == pytest.approx((above - below) / (2 * step), rel=1e-5)

    def test_dead_maps_are_counted_and_skipped(self):
        batch = batch_of(3, 8)
        out = {"logits": torch.zeros(3, 3), "explained": torch.rand(3, 1, 8, 8)}
        out["explained"][0] = 0.0
        out["explained"].requires_grad_()
        term = HeatmapMatch("set1", InputGradient(), gamma=0.5)(out, batch, torch.ones(3), ())
        (gradient,) = torch.autograd.grad(term.value, out["explained"])
        assert term.parts["dead_maps"] == 0.5 and math.isfinite(float(term.value))
        assert not gradient[0].any() and gradient[1].any() and not gradient[2].any()

    def test_raw_maps_as_logits_say_next_to_nothing(self):
        """Spec 4.5: gradients of 1e-4 as logits give log 2 whatever the map."""
        batch = batch_of(3, 8)
        for seed in range(3):
            g = torch.Generator().manual_seed(seed)
            out = {"logits": torch.zeros(3, 3), "explained": 1e-4 * torch.rand(3, 1, 8, 8, generator=g)}
            raw = HeatmapMatch("set1", InputGradient(), to_logits="raw", scale="none")
            assert raw(out, batch, torch.ones(3), ()).parts["heatmap_error"] == pytest.approx(math.log(2), abs=1e-3)

    def test_no_gaze_no_target_no_nan(self):
        batch = batch_of(3, 8)
        bare = Batch(batch.images, batch.labels, None, batch.guided & False, batch.frames, batch.case_ids)
        out = {"logits": torch.zeros(3, 3), "decoder": torch.zeros(3, 1, 8, 8), "explained": torch.rand(3, 1, 8, 8)}
        for match in ("decoder", "set1", "set3"):
            term = HeatmapMatch(match, InputGradient())(out, bare, torch.ones(3), ())
            assert term.parts["map_error"] == 0.0 and math.isfinite(float(term.value))

    def test_what_is_missing_is_named(self):
        batch = batch_of(3, 8)
        with pytest.raises(GeometryError, match="decoder"):
            HeatmapMatch("decoder")({"logits": torch.zeros(3, 3)}, batch, torch.ones(3), ())
        with pytest.raises(RecipeError, match="heatmap"):
            HeatmapMatch("set1")
        assert HeatmapMatch("classifier").explainer is None and HeatmapMatch("decoder").independent
        assert not HeatmapMatch("classifier", labels="softmax").independent


def test_viridis_read_as_grey_runs_from_0_118_to_0_845():
    """Spec, golden check 16; against Pillow's own reading of matplotlib's picture."""
    from matplotlib import colormaps

    steps = np.linspace(0, 1, 256, dtype=np.float32)
    got = encoded(torch.from_numpy(steps), "viridis_gray").numpy()
    picture = (colormaps["viridis"](np.arange(256))[None, :, :3] * 255).astype(np.uint8)
    want = np.asarray(Image.fromarray(picture).convert("L"))[0] / 255
    assert abs(got - want).max() <= 1.01 / 255 and (np.diff(got) >= 0).all()
    assert got[0] == pytest.approx(0.118, abs=2e-3) and got[-1] == pytest.approx(0.845, abs=2e-3)
    assert torch.equal(encoded(torch.from_numpy(steps), "linear"), torch.from_numpy(steps))


def test_maps_come_to_one_grid():
    fine = torch.arange(16.0).view(1, 1, 4, 4)
    assert on_grid(fine, (2, 2)).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert on_grid(fine, (4, 4)) is fine and on_grid(fine, (8, 8)).shape == (1, 1, 8, 8)
