"""Transformers that try windows: the head of places, what is tried, and the loss that learns from it."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from sightline.errors import RecipeError
from sightline.losses.sampled_windows import SampledWindowLoss, compute_score_term
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.sampled_windows import (
    HeatmapRegressionHead,
    SampledWindowTransformer,
    WindowSampling,
    build_square_windows,
)
from sightline.models.spatial_transformer import crop_windows
from sightline.structures.evidence import Batch, Evidence
from sightline.structures.frame import Frame

TINY = Backbone("test_resnet")
SAMPLING = SampledWindowTransformer(ClassMapModel(TINY), TINY, WindowSampling(windows=4), localiser_px=48, roi_px=32)
PLACES = replace(SAMPLING, sampling=None)


def batch_of(images: torch.Tensor, labels: list[int]) -> Batch:
    n = len(images)
    frame = Frame.of_image(tuple(images.shape[2:]))
    return Batch(
        images,
        torch.tensor(labels),
        None,
        torch.zeros(n, 3, dtype=torch.bool),
        (frame,) * n,
        tuple(f"case {i}" for i in range(n)),
    )


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 1, 96, 96, generator=torch.Generator().manual_seed(5))


class TestHeadOfPlaces:
    def test_it_starts_at_the_whole_image_exactly(self, images):
        network = PLACES.build(3).eval()
        evidence = network(images)
        identity = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).expand(3, 2, 3)
        torch.testing.assert_close(evidence.window, identity, atol=1e-6, rtol=0)

    def test_the_centre_is_the_mean_of_the_heat(self):
        head = HeatmapRegressionHead(2, 2)
        with torch.no_grad():
            head.hidden.weight.copy_(torch.eye(2).view(2, 2, 1, 1))
            head.hidden.bias.zero_()
            head.heat.weight.copy_(torch.tensor([1.5, -0.5]).view(1, 2, 1, 1))
            head.log_scale.weight.copy_(torch.tensor([[-0.4, 0.1]]))
        features = torch.rand(1, 2, 3, 4, generator=torch.Generator().manual_seed(1))
        total = row = column = 0.0
        for r in range(3):
            for c in range(4):
                share = math.exp(1.5 * float(features[0, 0, r, c]) - 0.5 * float(features[0, 1, r, c]))
                total += share
                row += share * (r + 0.5) / 3
                column += share * (c + 0.5) / 4
        log_scale = -0.4 * float(features[0, 0].mean()) + 0.1 * float(features[0, 1].mean())
        assert head(features)[0].tolist() == pytest.approx([log_scale, row / total, column / total], abs=1e-6)

    def test_a_hot_cell_draws_the_window_to_its_middle(self):
        head = HeatmapRegressionHead(1, 1)
        with torch.no_grad():
            head.hidden.weight.fill_(1.0)
            head.hidden.bias.zero_()
            head.heat.weight.fill_(1.0)
        features = torch.zeros(1, 1, 4, 4)
        features[0, 0, 3, 1] = 80.0
        _, row, column = head(features)[0].tolist()
        assert (row, column) == pytest.approx((3.5 / 4, 1.5 / 4), abs=1e-5)

    def test_gradients_in_double_precision(self):
        head = HeatmapRegressionHead(2, 3).double()
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
        features = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        assert torch.autograd.gradcheck(head, (features.requires_grad_(),))

    def test_its_windows_have_that_centre_and_side(self):
        said = torch.tensor([[math.log(0.5), 0.6, 0.3]]).expand(3, 3)
        upright = torch.tensor([[0.5, 0.0, 0.35], [0.0, 0.5, 0.05]])
        torch.testing.assert_close(build_square_windows(said), upright.expand(3, 2, 3))
        slow = [0.6 - 0.5 / 2, 0.3 - 0.5 / 2]
        assert build_square_windows(said)[0, :, 2].tolist() == pytest.approx(slow)


class TestTries:
    def test_they_lie_in_pairs_around_the_predicted_one(self):
        torch.manual_seed(0)
        said = torch.tensor([[0.0, 0.5, 0.5], [-0.7, 0.4, 0.6]], requires_grad=True)
        tried = WindowSampling(windows=6, zoom_sd=0.2, shift_sd=0.1).sample(said)
        assert tried.shape == (6, 2, 3) and not tried.requires_grad
        torch.testing.assert_close((tried[:3] + tried[3:]) / 2, said.detach().expand(3, 2, 3))

    def test_they_spread_as_they_say(self):
        torch.manual_seed(0)
        said = torch.tensor([[math.log(0.5), 0.5, 0.5]]).expand(20000, 3)
        tried = WindowSampling(windows=2, zoom_sd=0.2, shift_sd=0.1).sample(said)
        assert tried[0].std(dim=0).tolist() == pytest.approx([0.2, 0.05, 0.05], rel=0.03)

    def test_log_density_is_the_normal_distributions_but_for_a_constant(self):
        sampling = WindowSampling(windows=4, zoom_sd=0.3, shift_sd=0.15)
        said = torch.randn(5, 3, dtype=torch.float64)
        tried = sampling.sample(said)
        side = 0.15 * said[:, 0].exp()
        normal = torch.distributions.Normal(said, torch.stack([torch.full_like(side, 0.3), side, side], dim=1))
        slow = normal.log_prob(tried).sum(dim=-1).T
        ours = sampling.log_density(tried, said)
        assert ours.shape == (5, 4)
        # the constant of an image is that of its spread
        torch.testing.assert_close(ours - ours[:, :1], slow - slow[:, :1])

    def test_its_gradient_in_double_precision(self):
        sampling = WindowSampling()
        said = torch.randn(2, 3, dtype=torch.float64)
        tried = sampling.sample(said)
        where = said[:, 1:].clone().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda w: sampling.log_density(tried, torch.cat([said[:, :1], w], dim=1)), (where,)
        )
        # along the scale too, but that the spread stands still
        moved = said.clone().requires_grad_()
        sampling.log_density(tried, moved).sum().backward()
        expected = ((tried[..., 0] - said[:, 0]) / 0.25**2).sum(dim=0)
        torch.testing.assert_close(moved.grad[:, 0], expected, atol=1e-9, rtol=1e-9)

    def test_the_roaming_window_stays_inside_and_comes_everywhere(self):
        torch.manual_seed(0)
        said = WindowSampling(roam=0.25).sample_roaming(torch.zeros(4000, 3))
        side, centre = said[:, :1].exp(), said[:, 1:]
        assert float(side.min()) >= 0.25 and float(side.max()) <= 1.0
        assert float((centre - side / 2).min()) >= -1e-6 and float((centre + side / 2).max()) <= 1.0 + 1e-6
        assert float(said[:, 0].mean()) == pytest.approx(math.log(0.25) / 2, abs=0.03)
        small = side[:, 0] < 0.3
        assert float(centre[small].min()) < 0.2 and float(centre[small].max()) > 0.8

    def test_a_roam_of_one_is_the_whole_image(self):
        torch.testing.assert_close(
            WindowSampling(roam=1.0).sample_roaming(torch.zeros(2, 3)), torch.tensor([[0.0, 0.5, 0.5]] * 2)
        )

    @pytest.mark.parametrize("wrong", [{"windows": 3}, {"windows": 0}, {"zoom_sd": 0.0}, {"roam": 1.5}])
    def test_what_cannot_be_tried_is_refused(self, wrong):
        with pytest.raises(RecipeError):
            WindowSampling(**wrong)


class TestNetworkThatTries:
    def test_nothing_is_tried_in_evaluation(self, images):
        torch.manual_seed(0)
        sampled = SAMPLING.build(3).eval()
        plain = PLACES.build(3).eval()
        plain.load_state_dict(sampled.state_dict())
        torch.testing.assert_close(sampled(images).logits, plain(images).logits)
        assert "tried_logits" not in sampled(images).extras

    def test_what_it_says_in_training(self, images):
        network = SAMPLING.build(3).train()
        evidence = network(images)
        assert evidence.extras["tried_logits"].shape == (3, 4, 3)
        assert not evidence.extras["tried_logits"].requires_grad
        assert evidence.extras["tried_log_density"].shape == (3, 4)
        assert evidence.extras["roaming_logits"].shape == (3, 3)
        assert network.classifier.training

    def test_windows_are_judged_as_at_test_time(self, images):
        """The judged logits of a window are those of the classifier in evaluation on that crop."""
        network = SAMPLING.build(3).train()
        before = {name: value.clone() for name, value in network.classifier.state_dict().items()}
        torch.manual_seed(7)
        judged = network(images).extras["tried_logits"]
        torch.manual_seed(7)
        network.classifier.load_state_dict(before)
        network.classifier.eval()
        with torch.no_grad():
            tried = SAMPLING.sampling.sample(network.localiser(images))
            slow = [network.classifier(crop_windows(images, build_square_windows(t), (32, 32))).logits for t in tried]
        torch.testing.assert_close(judged, torch.stack(slow, dim=1), atol=1e-5, rtol=1e-4)

    def test_the_classifier_learns_from_pixels_and_the_localiser_from_samples_alone(self, images):
        network = SAMPLING.build(3).train()
        evidence = network(images)
        (evidence.logits.sum() + evidence.extras["roaming_logits"].sum()).backward(retain_graph=True)
        assert all(p.grad is None for p in network.localiser.parameters())
        assert all(p.grad is not None for p in network.classifier.parameters())
        network.zero_grad(set_to_none=True)
        compute_score_term(torch.rand(3, 4), evidence.extras["tried_log_density"]).mean().backward()
        assert all(p.grad is None for p in network.classifier.parameters())
        assert network.localiser.head.heat.weight.grad.abs().sum() > 0


class TestLoss:
    def test_the_term_against_loops(self):
        generator = torch.Generator().manual_seed(4)
        losses, density = (torch.rand(2, 4, generator=generator) for _ in range(2))
        slow = []
        for image in range(2):
            total = 0.0
            for i in range(4):
                mean = sum(float(losses[image, j]) for j in range(4)) / 4
                total += (float(losses[image, i]) - mean) * float(density[image, i])
            slow.append(total / 4)
        assert compute_score_term(losses, density).tolist() == pytest.approx(slow, abs=1e-6)

    def test_its_gradient_is_that_of_the_expected_loss(self):
        """For a quadratic bowl the expected loss of a tried window is known, and so is its gradient."""
        torch.manual_seed(0)
        sampling = WindowSampling(windows=8, zoom_sd=0.2, shift_sd=0.1)
        said = torch.tensor([[-0.3, 0.6, 0.45]], dtype=torch.float64).repeat(20000, 1).requires_grad_()
        best = torch.tensor([-0.7, 0.4, 0.5], dtype=torch.float64)
        tried = sampling.sample(said)
        losses = (tried - best).square().sum(dim=-1).T
        compute_score_term(losses, sampling.log_density(tried, said)).sum().backward()
        # E = |said - best|^2 + variances
        expected = 2.0 * (said.detach()[0] - best)
        assert said.grad.mean(dim=0).tolist() == pytest.approx(expected.tolist(), abs=0.01)

    def test_before_its_time_the_localiser_learns_nothing(self, images):
        network, batch = SAMPLING.build(3).train(), batch_of(images, [0, 1, 2])
        for history, learns in (((), False), (({}, {}), True)):
            network.zero_grad(set_to_none=True)
            evidence = network(images)
            out = {"logits": evidence.logits, **evidence.extras}
            SampledWindowLoss(after=2)(out, batch, torch.ones(3), history).value.backward()
            assert any(p.grad is not None for p in network.localiser.parameters()) == learns

    def test_in_evaluation_it_is_the_cross_entropy(self, images):
        evidence = SAMPLING.build(3).eval()(images)
        out = {"logits": evidence.logits, **evidence.extras}
        batch = batch_of(images, [2, 0, 1])
        term = SampledWindowLoss()(out, batch, torch.ones(3), ())
        assert float(term.value) == pytest.approx(float(nn.functional.cross_entropy(evidence.logits, batch.labels)))
        assert term.parts["window_scale"] == pytest.approx(1.0)

    def test_a_network_without_a_window_is_refused(self, images):
        with pytest.raises(RecipeError, match="no window"):
            SampledWindowLoss()({"logits": torch.zeros(3, 3)}, batch_of(images, [0, 1, 2]), torch.ones(3), ())

    @pytest.mark.parametrize("wrong", [{"localiser_px": 0}, {"roi_px": -1}, {"hidden": 0}])
    def test_sizes_that_mean_nothing_are_refused(self, wrong):
        with pytest.raises(RecipeError, match=next(iter(wrong))):
            SampledWindowTransformer(**wrong)

    @pytest.mark.parametrize("wrong", [{"weight": 0.0}, {"after": -1}])
    def test_wrong_settings_are_refused(self, wrong):
        with pytest.raises(RecipeError):
            SampledWindowLoss(**wrong)

    def test_sampled_windows_find_the_place_that_pixels_do_not_point_to(self):
        """In steps of brightness the warp has no gradient within a step; what a window is worth can be tried."""

        class Judge(nn.Module):
            """Sure of its class as far as the window is near (0.75, 0.25), whatever the pixels are."""

            def forward(self, crops: torch.Tensor) -> Evidence:
                at = crops.mean(dim=(2, 3))
                distance = (at - torch.tensor([0.75, 0.25])).square().sum(dim=1, keepdim=True)
                return Evidence(torch.cat([-8.0 * distance, torch.zeros_like(distance)], dim=1))

        # the picture is its own coordinates, in steps: no gradient within a step, yet places differ
        steps = (torch.arange(64) // 16 + 0.5) / 4
        rows, columns = torch.meshgrid(steps, steps, indexing="ij")
        images = torch.stack([rows, columns]).expand(4, 2, 64, 64)
        torch.manual_seed(0)
        config = SampledWindowTransformer(ClassMapModel(TINY), Backbone("test_resnet", channels=2), roi_px=16)
        network = config.build(2).train()
        network.classifier = Judge()
        optimiser = torch.optim.Adam(network.localiser.parameters(), 3e-3)
        batch = batch_of(images, [0] * 4)
        for _ in range(30):
            evidence = network(images)
            term = SampledWindowLoss()({"logits": evidence.logits, **evidence.extras}, batch, torch.ones(2), ())
            optimiser.zero_grad()
            term.value.backward()
            optimiser.step()
        with torch.no_grad():
            row, column = network(images).extras["box"][:, :2].mean(dim=0).tolist()
        assert row > 0.62 and column < 0.38
