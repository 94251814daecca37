"""Networks that look before they classify: transformers, box regression, cascades, self-transfer, global pooling."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision.models import alexnet

from sightline.errors import GeometryError, RecipeError, UnreadableFile
from sightline.models.backbones import AlexNet, Backbone
from sightline.models.box_regression import BoxRegression
from sightline.models.cam_classifiers import ClassMapModel, GlobalPooling, Transition
from sightline.models.ensembles import MultiScale
from sightline.models.pooling import LogSumExpPool, MaxPool, MeanPool, SoftmaxPool
from sightline.models.self_transfer import SelfTransfer
from sightline.models.spatial_transformer import Cascade, SpatialTransformer, crop_windows
from sightline.structures.evidence import Evidence, build_window

TINY = Backbone("test_resnet")
CLASSIFIER = ClassMapModel(backbone=TINY)
EVERY = {
    "a-STN": SpatialTransformer(CLASSIFIER, TINY, localiser_px=48, roi_px=64),
    "aff-STN": SpatialTransformer(GlobalPooling(TINY, Transition(16)), TINY, "affine"),
    "clamped": SpatialTransformer(CLASSIFIER, TINY, clamped=True),
    "box regression": BoxRegression(TINY, hidden=16),
    "AlexNet": BoxRegression(AlexNet(), hidden=16),
    "cascade": Cascade(BoxRegression(TINY, hidden=16), CLASSIFIER, margin=0.1, roi_px=64),
    "self-transfer": SelfTransfer(TINY, hidden=16),
    "global pooling": GlobalPooling(TINY, Transition(16, 3), LogSumExpPool()),
    "multi-scale": MultiScale(CLASSIFIER),
}


def build(config, n_classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return config.build(n_classes).eval()


def stirred(network: nn.Module) -> nn.Module:
    """Last layers that start at zero, given something to say."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "head" in name:
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return network


def overlap(a: list[float], b: list[float]) -> float:
    """IoU of two boxes of centre and sides."""
    sides = [
        max(0.0, min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2) - max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2))
        for i in (0, 1)
    ]
    both = sides[0] * sides[1]
    return both / (a[2] * a[3] + b[2] * b[3] - both)


@pytest.fixture
def features_alone(monkeypatch):
    """AlexNet without the 59 million weights of torchvision's classifier, which are drawn and dropped."""

    def build_features(weights=None):
        with torch.device("meta"):
            features = alexnet(weights=weights).features
        features.to_empty(device="cpu")
        for layer in features:
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()
        return SimpleNamespace(features=features)

    monkeypatch.setattr("sightline.models.backbones.alexnet", build_features)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 1, 96, 96, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.usefixtures("features_alone")
class TestEveryNetwork:
    def test_its_evidence_fits(self, name, images):
        evidence = build(EVERY[name])(images)
        assert evidence.logits.shape == (3, 3)
        assert all(torch.isfinite(t).all() for t in (evidence.logits, *evidence.extras.values()))
        if "box" in evidence.extras:
            assert evidence.extras["box"].shape == (3, 4)

    def test_in_evaluation_an_image_does_not_depend_on_its_batch(self, name, images):
        network = stirred(build(EVERY[name]))
        together, alone = network(images), network(images[1:2])
        torch.testing.assert_close(together.logits[1:2], alone.logits, atol=1e-4, rtol=1e-4)
        for extra, values in together.extras.items():
            torch.testing.assert_close(values[1:2], alone.extras[extra], atol=1e-4, rtol=1e-4)

    def test_it_trains_and_every_weight_can_learn(self, name, images):
        network = stirred(build(EVERY[name])).train()
        evidence = network(images)
        parts = [evidence.logits, *evidence.extras.values()] + ([] if evidence.maps is None else [evidence.maps])
        sum(part.square().mean() for part in parts).backward()
        idle = [n for n, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
        assert not idle

    def test_it_is_rebuilt_from_its_own_weights(self, name, images):
        network = stirred(build(EVERY[name]))
        again = EVERY[name].without_weights().build(3).eval()
        again.load_state_dict(network.state_dict())
        torch.testing.assert_close(again(images).logits, network(images).logits)

    def test_bfloat16_keeps_maps_and_boxes_in_single_precision(self, name, images):
        with torch.autocast("cpu", torch.bfloat16):
            evidence = stirred(build(EVERY[name]))(images)
        assert evidence.maps is None or evidence.maps.dtype == torch.float32
        assert all(torch.isfinite(t).all() for t in (evidence.logits, *evidence.extras.values()))


class TestTransformer:
    @pytest.mark.parametrize("parameters", ["similarity", "affine"])
    def test_at_the_beginning_the_classifier_sees_the_whole_image(self, parameters, images):
        network = build(SpatialTransformer(CLASSIFIER, TINY, parameters))
        evidence = network(images)
        identity = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).expand(3, 2, 3)
        torch.testing.assert_close(evidence.window, identity, atol=1e-6, rtol=0)
        torch.testing.assert_close(evidence.extras["box"], torch.tensor([[0.5, 0.5, 1.0, 1.0]]).expand(3, 4))
        torch.testing.assert_close(evidence.logits, network.classifier(images).logits, atol=1e-4, rtol=1e-4)

    def test_the_clamped_variant_starts_near_the_whole_and_cannot_leave(self, images):
        network = build(SpatialTransformer(CLASSIFIER, TINY, clamped=True))
        assert network(images).extras["box"][0].tolist() == pytest.approx([0.5, 0.5, 0.982, 0.982], abs=1e-3)
        with torch.no_grad():
            network.localiser.head[-1].bias.copy_(torch.tensor([50.0, 50.0, -50.0]))
        row, column, height, _ = network(images).extras["box"][0].tolist()
        assert height <= 1.0 and 0.0 <= row <= 1.0 and 0.0 <= column <= 1.0

    def test_three_numbers_are_scale_and_shift_without_a_turn(self, images):
        network = build(SpatialTransformer(CLASSIFIER, TINY))
        with torch.no_grad():
            network.localiser.head[-1].bias.copy_(torch.tensor([-0.5, 0.2, -0.4]))
        # theta = [[s, 0, t_r], [0, s, t_c]] between -1 and 1: centre (t + 1) / 2, side s
        evidence = network(images)
        assert evidence.extras["box"][0].tolist() == pytest.approx([0.6, 0.3, 0.5, 0.5])
        seen = crop_windows(images, build_window(torch.tensor([[0.6, 0.3, 0.5, 0.5]]).expand(3, 4)), (96, 96))
        torch.testing.assert_close(evidence.logits, network.classifier(seen).logits, atol=1e-4, rtol=1e-4)

    def test_the_box_of_a_turned_window_holds_it(self, images):
        network = build(SpatialTransformer(CLASSIFIER, TINY, "affine"))
        with torch.no_grad():
            network.localiser.head[-1].bias.copy_(torch.tensor([-0.6, -0.3, 0.0, 0.3, -0.6, 0.0]))
        evidence = network(images)
        assert evidence.extras["box"][0].tolist() == pytest.approx([0.5, 0.5, 0.7, 0.7])
        assert float(evidence.window[0, 0, 1].detach()) == pytest.approx(-0.3)

    def test_the_window_is_sampled_from_the_full_image(self):
        config = SpatialTransformer(CLASSIFIER, TINY, localiser_px=32, roi_px=40)
        network = build(config)
        assert network(torch.rand(2, 1, 160, 160)).maps.shape == build(CLASSIFIER)(torch.rand(2, 1, 40, 40)).maps.shape

    def test_the_class_alone_moves_the_window_to_what_tells(self):
        """A bright or dark spot says the class: gradient descent on one window for all images finds it."""
        generator = torch.Generator().manual_seed(0)
        network = build(SpatialTransformer(ClassMapModel(TINY, pool=MeanPool()), TINY, localiser_px=32), 2)

        class Spot(nn.Module):
            def forward(self, seen: torch.Tensor) -> Evidence:
                # mean brightness about the middle: larger the better the spot is centred
                middle = seen[:, :, 16:32, 16:32].mean(dim=(1, 2, 3))
                return Evidence(torch.stack([-middle, middle], dim=1) * 20)

        network.classifier = Spot()
        network.train()
        # nothing but the window learns, and gradients of the rest are not computed
        window = network.requires_grad_(False).localiser.head[-1].bias.requires_grad_(True)
        optimiser = torch.optim.Adam([window], lr=0.04)
        for _ in range(75):
            labels = torch.randint(0, 2, (8,), generator=generator)
            images = torch.zeros(8, 1, 48, 48)
            images[:, :, 28:36, 26:34] = (2.0 * labels - 1.0)[:, None, None, None]
            loss = torch.nn.functional.cross_entropy(network(images).logits, labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        moved = network(images).extras["box"].mean(dim=0).tolist()
        # it closes in on the spot at (0.67, 0.625), from the whole image at (0.5, 0.5)
        assert overlap(moved, [32 / 48, 30 / 48, 8 / 48, 8 / 48]) > 1.1 / 36
        assert moved[0] > 0.55 and moved[1] > 0.55 and moved[2] < 0.95

    def test_a_clamped_affine_transformer_is_refused(self):
        with pytest.raises(RecipeError, match="three parameters"):
            SpatialTransformer(CLASSIFIER, TINY, "affine", clamped=True)


class TestBoxRegression:
    def test_it_starts_in_the_middle_and_says_no_class(self, images):
        evidence = build(BoxRegression(TINY))(images)
        torch.testing.assert_close(evidence.extras["box"], torch.full((3, 4), 0.5))
        assert not evidence.logits.any() and not BoxRegression(TINY).classifies

    def test_places_survive(self):
        """Two images that differ only in where the spot is get different boxes: no global mean."""
        network = stirred(build(BoxRegression(TINY, grid=3)))
        images = torch.zeros(2, 1, 96, 96)
        images[0, :, 10:30, 10:30], images[1, :, 60:80, 60:80] = 1.0, 1.0
        boxes = network(images).extras["box"]
        assert (boxes[0] - boxes[1]).abs().max() > 1e-4

    def test_a_square_has_one_side(self, images):
        box = stirred(build(BoxRegression(TINY)))(images).extras["box"]
        torch.testing.assert_close(box[:, 2], box[:, 3])
        free = stirred(build(BoxRegression(TINY, square=False)))(images).extras["box"]
        assert (free[:, 2] - free[:, 3]).abs().max() > 1e-4

    def test_alexnet_has_its_published_shape(self):
        trunk = AlexNet().build()
        assert trunk(torch.rand(1, 1, 224, 224)).shape == (1, 256, 6, 6)
        assert sum(p.numel() for p in trunk.parameters()) == 2_469_696
        with pytest.raises(GeometryError, match="63 px"):
            trunk(torch.rand(1, 1, 40, 40))

    def test_alexnets_weights_come_from_a_file(self, tmp_path, monkeypatch, features_alone):
        from safetensors.torch import save_file

        with torch.device("meta"):
            # its classifier has 59 million weights, which nothing here reads
            features = {n: v for n, v in alexnet(weights=None).state_dict().items() if n.startswith("features.")}
        generator = torch.Generator().manual_seed(0)
        features = {name: torch.randn(value.shape, generator=generator) for name, value in features.items()}
        save_file(features, tmp_path / "alexnet.safetensors")
        trunk = AlexNet(str(tmp_path / "alexnet.safetensors")).build()
        torch.testing.assert_close(trunk.net[0].weight.detach(), features["features.0.weight"])
        assert AlexNet(str(tmp_path)).build().net[0].weight.equal(trunk.net[0].weight)
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
        with pytest.raises(RecipeError, match="ImageNet weights are not there") as refused:
            AlexNet("imagenet").build()
        assert "--weights none" in str(refused.value)
        (tmp_path / "hub").mkdir()
        (tmp_path / "hub" / "checkpoints").symlink_to(tmp_path)
        assert AlexNet("imagenet").build().net[0].weight.equal(trunk.net[0].weight)
        save_file({"features.0.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
        with pytest.raises(RecipeError, match="not those of"):
            AlexNet(str(tmp_path / "other.safetensors")).build()
        (tmp_path / "text.safetensors").write_text("no weights")
        with pytest.raises(UnreadableFile):
            AlexNet(str(tmp_path / "text.safetensors")).build()


class TestCascade:
    def said(self, box: list[float], margin: float = 0.0) -> Evidence:
        network = build(Cascade(BoxRegression(TINY, square=False), CLASSIFIER, margin=margin, roi_px=48))
        with torch.no_grad():
            network.localiser.head[-1].bias.copy_(torch.tensor(box))
        return network(torch.rand(1, 1, 96, 96))

    def test_its_parts_hold_exactly_the_parts_weights(self):
        config = EVERY["cascade"]
        names = set(build(config).state_dict())
        parts = {f"localiser.{n}" for n in build(config.localiser).state_dict()}
        assert names == parts | {f"classifier.{n}" for n in build(config.classifier).state_dict()}

    def test_the_square_about_the_box_is_seen_and_the_box_is_said(self):
        evidence = self.said([0.4, 0.6, 0.2, 0.3], margin=0.1)
        assert evidence.extras["box"][0].tolist() == pytest.approx([0.4, 0.6, 0.2, 0.3])
        expected = build_window(torch.tensor([[0.4, 0.6, 0.36, 0.36]]))
        torch.testing.assert_close(evidence.window, expected)

    @pytest.mark.parametrize("box", [[0.5, 0.5, -1.0, -1.0], [9.0, -9.0, 0.3, 0.3], [0.5, 0.5, 1e6, 1e6]])
    def test_a_box_without_sense_is_still_a_window(self, box):
        evidence = self.said(box)
        assert torch.isfinite(evidence.logits).all()
        sides = evidence.window[0, [0, 1], [0, 1]]
        assert (sides >= 0.05 - 1e-6).all() and (sides <= 2.0 + 1e-6).all()


class TestSelfTransfer:
    def test_the_localisation_branch_is_the_pooled_map(self, images):
        evidence = build(SelfTransfer(TINY, hidden=16))(images)
        torch.testing.assert_close(evidence.extras["localiser_logits"], evidence.maps.flatten(2).mean(-1))
        assert (evidence.logits - evidence.extras["localiser_logits"]).abs().max() > 1e-4

    def test_both_branches_share_the_convolutions(self, images):
        for branch in ("logits", "localiser"):
            network = build(SelfTransfer(TINY, hidden=16, dropout=0.0))
            evidence = network(images)
            (evidence.logits if branch == "logits" else evidence.extras["localiser_logits"]).square().sum().backward()
            assert all(p.grad is not None for p in network.trunk.parameters())


class TestGlobalPooling:
    @pytest.mark.parametrize(
        "pool", [MeanPool(), MaxPool(), LogSumExpPool(), SoftmaxPool()], ids=lambda p: type(p).__name__
    )
    def test_the_attention_of_every_pool_sums_to_the_logit(self, pool, images):
        evidence = build(GlobalPooling(TINY, Transition(16), pool))(images)
        torch.testing.assert_close(
            evidence.extras["attention"].flatten(2).sum(-1), evidence.logits, atol=1e-4, rtol=1e-4
        )

    def test_with_the_mean_logits_are_the_means_of_the_maps(self, images):
        evidence = build(GlobalPooling(TINY, Transition(16)))(images)
        torch.testing.assert_close(evidence.maps.flatten(2).mean(-1), evidence.logits, atol=1e-4, rtol=1e-4)

    def test_maps_are_the_prediction_layer_on_the_transitions_maps(self, images):
        network = build(GlobalPooling(TINY, Transition(16), MaxPool()))
        features, maps = network.features(images), network(images).maps
        slow = torch.stack(
            [(features * w[None, :, None, None]).sum(dim=1) + b for w, b in zip(network.head.linear.weight,
             network.head.linear.bias, strict=True)], dim=1)  # fmt: skip
        torch.testing.assert_close(maps, slow, atol=1e-4, rtol=1e-4)

    def test_log_sum_exp_runs_from_the_mean_to_the_maximum(self):
        """Golden check 7."""
        maps = torch.randn(2, 3, 5, 5, dtype=torch.float64)
        torch.testing.assert_close(LogSumExpPool(1e-6)(maps), maps.flatten(2).mean(-1), atol=1e-4, rtol=0)
        torch.testing.assert_close(LogSumExpPool(1e6)(maps), maps.flatten(2).amax(-1), atol=1e-4, rtol=0)
        assert torch.isfinite(LogSumExpPool(10.0)(maps.float() * 1e4)).all()

    def test_a_transition_is_optional(self, images):
        network = build(GlobalPooling(TINY, None))
        assert isinstance(network.transition, nn.Identity)
        assert network(images).logits.shape == (3, 3)


class TestMultiScale:
    def test_in_training_it_is_the_network_itself(self, images):
        network = build(MultiScale(CLASSIFIER)).train()
        plain = build(CLASSIFIER).train()
        torch.testing.assert_close(network(images).logits, plain(images).logits)

    def test_one_scale_is_the_network_itself(self, images):
        one, plain = build(MultiScale(CLASSIFIER, (1.0,)))(images), build(CLASSIFIER)(images)
        torch.testing.assert_close(one.maps, plain.maps)
        torch.testing.assert_close(one.logits, plain.logits)

    def test_maps_and_logits_are_means_and_attention_sums_to_the_logit(self, images):
        network, plain = build(MultiScale(CLASSIFIER, (1.0, 0.5))), build(CLASSIFIER)
        half = torch.nn.functional.interpolate(images, size=(48, 48), mode="bilinear", antialias=True)
        seen, first, second = network(images), plain(images), plain(half)
        torch.testing.assert_close(seen.logits, (first.logits + second.logits) / 2)
        grown = torch.nn.functional.interpolate(second.maps, size=first.maps.shape[2:], mode="bilinear")
        torch.testing.assert_close(seen.maps, (first.maps + grown) / 2)
        torch.testing.assert_close(seen.extras["attention"].flatten(2).sum(-1), seen.logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BoxRegression(grid=0),
        lambda: SelfTransfer(dropout=1.0),
        lambda: Transition(0),
        lambda: MultiScale(scales=()),
        lambda: Cascade(margin=-0.6),
        lambda: Cascade(roi_px=0),
        lambda: BoxRegression(input_px=0),
        lambda: SpatialTransformer(localiser_px=0),
        lambda: SpatialTransformer(roi_px=-1),
        lambda: SpatialTransformer(hidden=-1),
        lambda: replace(EVERY["global pooling"]).build(0),
        lambda: SelfTransfer(TINY).build(0),
    ],
)
def test_settings_that_mean_nothing_are_refused(make):
    with pytest.raises(RecipeError):
        make()
