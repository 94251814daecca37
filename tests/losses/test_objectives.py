"""What is minimised besides cross-entropy: self-transfer (Jimenez-Sanchez 2018, eq. 6) and box distance (eq. 3)."""

import math

import pytest
import torch

from sightline.errors import RecipeError
from sightline.losses.box_distance import BoxDistance
from sightline.losses.self_transfer import SelfTransferLoss
from sightline.structures.evidence import Batch
from sightline.structures.frame import Frame


def batch(labels: list[int], boxes: list[list[float]] | None = None, side: tuple[int, int] = (8, 8)) -> Batch:
    n = len(labels)
    return Batch(
        images=torch.zeros(n, 1, *side),
        labels=torch.tensor(labels),
        targets=None,
        guided=torch.zeros(n, 3, dtype=torch.bool),
        frames=(Frame.of_image(side),) * n,
        case_ids=tuple(map(str, range(n))),
        boxes=None if boxes is None else torch.tensor(boxes),
    )


def slow_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> float:
    total = 0.0
    for z, y in zip(logits.tolist(), labels.tolist(), strict=True):
        total += -float(weights[y]) * (z[y] - math.log(sum(math.exp(v) for v in z)))
    return total / len(labels)


class TestSelfTransfer:
    def test_is_the_printed_sum(self):
        generator = torch.Generator().manual_seed(0)
        out = {name: torch.randn(5, 3, generator=generator) for name in ("logits", "localiser_logits")}
        weights = torch.tensor([0.5, 1.0, 2.0])
        labels = batch([0, 2, 1, 1, 0])
        term = SelfTransferLoss(alpha=0.3)(out, labels, weights, ())
        first = slow_cross_entropy(out["logits"], labels.labels, weights)
        second = slow_cross_entropy(out["localiser_logits"], labels.labels, weights)
        assert float(term.value) == pytest.approx(0.7 * first + 0.3 * second, rel=1e-5)
        assert term.parts == pytest.approx({"alpha": 0.3, "classification": first, "localisation": second}, rel=1e-5)

    @pytest.mark.parametrize(("alpha", "trained", "idle"), [(0.0, "logits", "localiser_logits"),
                                                             (1.0, "localiser_logits", "logits")])  # fmt: skip
    def test_an_extreme_alpha_trains_one_branch_alone(self, alpha, trained, idle):
        out = {name: torch.randn(4, 3).requires_grad_() for name in ("logits", "localiser_logits")}
        SelfTransferLoss(alpha)(out, batch([0, 1, 2, 0]), torch.ones(3), ()).value.backward()
        assert out[trained].grad.abs().sum() > 0
        assert out[idle].grad is None or out[idle].grad.abs().sum() == 0

    def test_alpha_is_complemented_once_the_validation_loss_stops_falling(self):
        loss = SelfTransferLoss(alpha=0.3, patience=2)
        falling = [{"loss": 9.0, "val_loss": v} for v in (1.0, 0.9, 0.95)]
        assert loss.alpha_after([]) == 0.3
        assert loss.alpha_after(falling) == 0.3
        stalled = [*falling, {"loss": 8.0, "val_loss": 0.91}]
        assert loss.alpha_after(stalled) == pytest.approx(0.7)
        # a later fall does not switch it back
        assert loss.alpha_after([*stalled, {"loss": 7.0, "val_loss": 0.1}]) == pytest.approx(0.7)

    def test_without_validation_the_training_loss_decides(self):
        rows = [{"loss": 1.0, "val_loss": None}, {"loss": 1.1, "val_loss": None}]
        assert SelfTransferLoss(alpha=0.2, patience=1).alpha_after(rows) == pytest.approx(0.8)

    @pytest.mark.parametrize("alpha", [0.0, 1.0])
    def test_the_extremes_are_never_complemented(self, alpha):
        rows = [{"loss": 1.0, "val_loss": 1.0}] * 20
        assert SelfTransferLoss(alpha, patience=1).alpha_after(rows) == alpha

    def test_never_switching_is_an_option(self):
        rows = [{"loss": 1.0, "val_loss": 1.0}] * 20
        assert SelfTransferLoss(0.3, switch="never", patience=1).alpha_after(rows) == 0.3

    def test_a_network_without_a_second_branch_is_refused(self):
        with pytest.raises(RecipeError, match="branch"):
            SelfTransferLoss()({"logits": torch.zeros(2, 3)}, batch([0, 1]), torch.ones(3), ())

    @pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
    def test_shares_outside_0_to_1_are_refused(self, alpha):
        with pytest.raises(RecipeError, match="alpha"):
            SelfTransferLoss(alpha)


class TestBoxDistance:
    BOXES = ((0.5, 0.4, 0.2, 0.2), (0.1, 0.9, 0.3, 0.3))

    def test_is_half_the_squared_distance_of_centre_and_scale(self):
        said = torch.tensor([[0.6, 0.4, 0.3, 0.3], [0.1, 0.7, 0.3, 0.3]])
        term = BoxDistance()({"box": said}, batch([0, 1], [list(b) for b in self.BOXES]), torch.ones(3), ())
        by_hand = [0.5 * (0.1**2 + 0.1**2), 0.5 * 0.2**2]
        assert float(term.value) == pytest.approx(sum(by_hand) / 2, rel=1e-5)
        assert term.images == 2

    def test_pixels_and_fractions_pull_in_the_same_direction(self):
        generator = torch.Generator().manual_seed(1)
        gradients = []
        for units in ("fraction", "pixel"):
            said = torch.rand(2, 4, generator=generator.manual_seed(1)).requires_grad_()
            image = batch([0, 1], [list(b) for b in self.BOXES], (224, 224))
            BoxDistance(units)({"box": said}, image, torch.ones(3), ()).value.backward()
            gradients.append(said.grad.flatten())
        assert float(torch.cosine_similarity(*gradients, dim=0)) == pytest.approx(1.0, abs=1e-6)
        torch.testing.assert_close(gradients[1], gradients[0] * 224**2)

    @pytest.mark.parametrize("square", [True, False])
    def test_gradient_by_finite_differences(self, square):
        image = batch([0, 1], [list(b) for b in self.BOXES])
        said = torch.rand(2, 4, generator=torch.Generator().manual_seed(2))
        loss = BoxDistance(square=square)
        whole = said.clone().requires_grad_()
        loss({"box": whole}, image, torch.ones(3), ()).value.backward()
        step = 1e-2
        for row in range(2):
            for column in range(4):
                ends = []
                for sign in (1.0, -1.0):
                    moved = said.clone()
                    moved[row, column] += sign * step
                    ends.append(float(loss({"box": moved}, image, torch.ones(3), ()).value))
                # the loss is quadratic, so a wide central difference is exact but for rounding
                assert float(whole.grad[row, column]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-5)

    def test_images_without_a_box_count_for_nothing(self):
        said = torch.rand(2, 4).requires_grad_()
        term = BoxDistance()({"box": said}, batch([0, 1], [list(self.BOXES[0]), [math.nan] * 4]), torch.ones(3), ())
        term.value.backward()
        assert term.images == 1
        assert said.grad[1].abs().sum() == 0
        assert said.grad[0].abs().sum() > 0

    def test_no_box_at_all_is_no_nan(self):
        said = torch.rand(1, 4).requires_grad_()
        term = BoxDistance()({"box": said}, batch([0], [[math.nan] * 4]), torch.ones(3), ())
        term.value.backward()
        assert float(term.value.detach()) == 0.0
        assert term.images == 0
        assert said.grad.abs().sum() == 0

    def test_four_numbers_where_the_box_is_no_square(self):
        said = torch.tensor([[0.5, 0.5, 0.4, 0.2]])
        image = batch([0], [[0.5, 0.5, 0.2, 0.4]])
        assert float(BoxDistance(square=True)({"box": said}, image, torch.ones(3), ()).value) == pytest.approx(0.0)
        assert float(BoxDistance(square=False)({"box": said}, image, torch.ones(3), ()).value) == pytest.approx(0.04)

    def test_a_network_that_says_no_box_is_refused(self):
        with pytest.raises(RecipeError, match="boxes"):
            BoxDistance()({"logits": torch.zeros(1, 3)}, batch([0], [list(self.BOXES[0])]), torch.ones(3), ())
