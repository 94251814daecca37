"""timm backbones: shapes, strides, channels, frozen stages and weights from local files."""

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from support.paths import DATA

from sightline.errors import GeometryError, RecipeError, UnreadableFile
from sightline.explainers.cam import GradCAM
from sightline.explainers.gradients import InputGradient
from sightline.losses.attribution_priors import MapEnergy
from sightline.models import pretrained_weights as weights
from sightline.models.backbones import AlexNet, Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.necks import Fusion
from sightline.models.pooling import SoftmaxPool

GOOGLE = DATA / "weights" / "mobilenetv2_100.imagenet_google.safetensors"
needs_weights = pytest.mark.skipif(not GOOGLE.is_file(), reason="the MobileNetV2 weights are not here")


FAMILIES = {"resnet18": 512, "resnet50": 2048, "resnet101": 2048, "efficientnet_b0": 1280, "mobilenetv2_100": 1280}
# every family at the finest stride, one at all; resnet101 has more of the blocks of resnet50
QUICK = [("resnet18", 32), ("resnet18", 16), *((name, 8) for name in FAMILIES if name != "resnet101")]


@pytest.mark.parametrize(
    ("name", "channels", "stride"),
    [
        pytest.param(name, channels, stride, marks=() if (name, stride) in QUICK else pytest.mark.slow)
        for stride in (32, 16, 8)
        for name, channels in FAMILIES.items()
    ],
)
def test_backbones_at_three_strides(name, channels, stride):
    with torch.device("meta"):  # shapes without numbers
        trunk = Backbone(name, output_stride=stride).build().eval()
        assert (trunk.channels_out, trunk.stride) == (channels, stride)
        assert trunk(torch.rand(1, 1, 512, 768)).shape == (1, channels, 512 // stride, 768 // stride)


def test_channel_last_networks_give_maps_too():
    with torch.device("meta"):
        trunk = Backbone("swin_tiny_patch4_window7_224").build()
    assert (trunk.channels_out, trunk.stride) == (768, 32)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_one_to_three_channels(channels):
    trunk = Backbone("resnet18", channels=channels).build()
    assert trunk(torch.rand(2, channels, 64, 64)).shape == (2, 512, 2, 2)
    assert trunk.mean.shape == (1, channels, 1, 1)


def test_grey_is_replicated_and_normalised_as_timm_says():
    trunk = Backbone("resnet18").build().eval()
    grey = torch.rand(2, 1, 64, 64)
    assert torch.equal(trunk(grey), trunk(grey.expand(2, 3, 64, 64)))
    seen = trunk.normalise(torch.full((1, 1, 2, 2), 0.5))[0, :, 0, 0]
    expected = torch.tensor([(0.5 - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)])
    torch.testing.assert_close(seen, expected)
    assert "mean" in trunk.state_dict()


def test_own_normalisation_wins():
    trunk = Backbone("resnet18", mean=(0.1,), std=(0.2,)).build()
    assert trunk.mean.flatten().tolist() == pytest.approx([0.1] * 3)
    with pytest.raises(RecipeError, match="2 values for 3"):
        Backbone("resnet18", mean=(0.1, 0.2)).build()


@pytest.mark.parametrize(
    ("name", "stages", "channels", "stride"),
    [("mobilenetv2_100", 4, 96, 16), ("mobilenetv2_100", 3, 32, 8), ("resnet18", 4, 256, 16)],
)
def test_a_backbone_cut_after_a_stage_gives_that_stage(name, stages, channels, stride):
    torch.manual_seed(0)
    whole = Backbone(name).build().eval()
    torch.manual_seed(0)
    cut = Backbone(name, stages=stages).build().eval()
    assert (cut.channels_out, cut.stride) == (channels, stride)
    images = torch.rand(1, 1, 64, 96)
    torch.testing.assert_close(cut(images), whole.levels(images)[1][stages - 1])
    assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in whole.parameters())
    assert Backbone(name, stages=stages, weights=None).without_weights().stages == stages


@needs_weights
def test_a_cut_backbone_reads_the_weights_of_the_whole():
    cut = Backbone("mobilenetv2_100", weights=str(GOOGLE), stages=4, frozen_stages=3).build().eval()
    whole = Backbone("mobilenetv2_100", weights=str(GOOGLE)).build().eval()
    images = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(cut(images), whole.levels(images)[1][3])


def test_stages_that_are_not_there():
    with pytest.raises(RecipeError, match="at least one"):
        Backbone("resnet18", stages=0)
    with pytest.raises(RecipeError, match="5 feature stages"):
        Backbone("resnet18", stages=6).build()


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100"])
def test_frozen_stages_do_not_learn_and_stay_at_inference(name):
    net = ClassMapModel(Backbone(name, frozen_stages=2)).build(2)
    net.train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    images = torch.rand(2, 1, 64, 64, requires_grad=True)
    net(images).logits.square().sum().backward()
    torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1).step()
    changed = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    stages = (
        ("conv1", "bn1", "layer1", "layer2") if name == "resnet18" else ("conv_stem", "bn1", "blocks.0", "blocks.1")
    )
    later = ("layer3", "layer4") if name == "resnet18" else ("blocks.2", "blocks.6", "conv_head")
    assert not [key for key in changed if key.startswith(tuple(f"trunk.net.{stage}." for stage in stages))]
    for stage in later:
        assert [key for key in changed if key.startswith(f"trunk.net.{stage}.")]
    # what the image did can still be asked
    assert bool((images.grad != 0).any())


def test_freezing_everything_is_refused():
    with pytest.raises(RecipeError, match="leaves nothing to train"):
        Backbone("resnet18", frozen_stages=9).build()


def stored(tmp_path, change=lambda state: state, name="resnet18.mine.safetensors"):
    torch.manual_seed(3)
    state = timm.create_model("resnet18", num_classes=10).state_dict()
    path = tmp_path / name
    save_file({k: v.contiguous() for k, v in change(dict(state)).items()}, path)
    return path


def test_weights_from_file_and_folder(tmp_path):
    path = stored(tmp_path, lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()})
    state = load_file(path)
    for place in (path, tmp_path):
        trunk = Backbone("resnet18", weights=str(place)).build()
        assert trunk.net.conv1.weight.dtype == torch.float32
        assert torch.equal(trunk.net.layer4[1].conv2.weight, state["layer4.1.conv2.weight"].float())


def test_colour_weights_serve_one_channel(tmp_path):
    path = stored(tmp_path)
    colour = Backbone("resnet18", weights=str(path), mean=(0.5,), std=(0.25,)).build().eval()
    grey = Backbone("resnet18", weights=str(path), channels=1, mean=(0.5,), std=(0.25,)).build().eval()
    images = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(grey(images), colour(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "layer1.0.conv1.weight"}, "lacks layer1.0.conv1.weight"),
        (lambda s: {**s, "layer9.weight": torch.zeros(1)}, "unknown layer9.weight"),
        (lambda s: {**s, "layer4.0.bn1.bias": torch.zeros(3)}, r"layer4.0.bn1.bias \[3\] instead of \[512\]"),
    ],
)
def test_weights_of_another_network_are_named(tmp_path, change, words):
    path = stored(tmp_path, change)
    with pytest.raises(RecipeError, match=words) as caught:
        Backbone("resnet18", weights=str(path)).build()
    assert path.name in str(caught.value)


def test_broken_and_missing_weights(tmp_path):
    nan = stored(tmp_path, lambda s: {**s, "bn1.weight": torch.full((64,), float("nan"))})
    with pytest.raises(UnreadableFile, match=r"bn1\.weight"):
        Backbone("resnet18", weights=str(nan)).build()
    text = tmp_path / "text.safetensors"
    text.write_text("not a tensor in sight")
    with pytest.raises(UnreadableFile, match="text"):
        Backbone("resnet18", weights=str(text)).build()
    pickled = tmp_path / "resnet18.pth"
    torch.save({}, pickled)
    for place, words in ((pickled, "no .safetensors"), (tmp_path / "gone", "neither a file"), (tmp_path, "found none")):
        with pytest.raises(RecipeError, match=words):
            Backbone("resnet50" if place == tmp_path else "resnet18", weights=str(place)).build()
    stored(tmp_path, name="resnet18.other.safetensors")
    with pytest.raises(RecipeError, match=r"resnet18\.mine\.safetensors, resnet18\.other\.safetensors"):
        Backbone("resnet18", weights=str(tmp_path)).build()


def test_download_that_fails_says_what_to_do(monkeypatch):
    def offline(*_args, **_keywords):
        raise OSError("no route to the hub")

    monkeypatch.setattr(weights, "hf_hub_download", offline)
    with pytest.raises(RecipeError, match="no route to the hub") as caught:
        Backbone("resnet18", weights="imagenet").build()
    assert "local .safetensors" in caught.value.remedy


def test_download_is_read_as_safetensors_and_with_its_normalisation(monkeypatch, tmp_path):
    asked = []

    def hub(repository, filename):
        asked.append((repository, filename))
        return str(stored(tmp_path))

    monkeypatch.setattr(weights, "hf_hub_download", hub)
    trunk = Backbone("resnet18", weights="imagenet").build()
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors")]
    assert torch.equal(trunk.net.conv1.weight, load_file(stored(tmp_path))["conv1.weight"])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (lambda: Backbone("resnet_18").build(), "resnet18"),
        (lambda: Backbone("resnet18", options={"wings": 2}).build(), "wings"),
        (lambda: Backbone("mixer_s32_224").build(), "instead of a map"),
        (lambda: Backbone("test_resnet.a1").build(), "Write 'test_resnet'"),
        (lambda: Backbone("test_resnet", options={"layers": (0, 0)}).build(), "no attribute 'layer3'"),
        (lambda: Backbone("test_resnet", options={"features_only": True}).build(), "gives list"),
        (lambda: Backbone("test_resnet", options={"drop_rate": "x"}).build(), "timm cannot build"),
        (
            lambda: Backbone("test_resnet", options={"drop_path_rate": 2}).build(),
            "drop_path_rate of",
        ),
        (lambda: Backbone("test_vit", options={"patch_size": 0}).build(), "timm cannot build"),
        (lambda: Backbone("vit_tiny_patch16_224", frozen_stages=3, frozen_precision="bf16"), "not kept"),
        (lambda: ClassMapModel(Backbone("test_vit"), fusion=Fusion(8)).build(2), "same grid"),
        (lambda: Backbone("resnet18", output_stride=7), "8, 16 or 32"),
        (lambda: Backbone("resnet18", channels=4), "1 to 3 channels"),
    ],
)
def test_what_timm_cannot_build_is_refused(config, words):
    with pytest.raises(RecipeError, match=words):
        config()


@needs_weights
@pytest.mark.parametrize("option", [{"pretrained": True}, {"checkpoint_path": "stranger.pth"}])
def test_no_option_loads_weights_past_the_recipe(option):
    config = Backbone("test_resnet", options=option)
    with pytest.raises(RecipeError, match="loads weights"):
        config.build()
    # a run of an earlier version opens: its own weights replace all of it
    assert not config.without_weights().options and config.without_weights().build()


def test_google_weights_bring_their_padding_and_normalisation():
    trunk = Backbone("mobilenetv2_100", weights=str(GOOGLE)).build().eval()
    whole = timm.create_model("mobilenetv2_100", pad_type="same", num_classes=1001).eval()
    whole.load_state_dict({k: v.float() for k, v in load_file(GOOGLE).items()}, strict=False)
    images = torch.rand(2, 1, 96, 96)
    with torch.no_grad():
        expected = whole.forward_features(images.expand(-1, 3, -1, -1) * 255 / 127.5 - 1)
        torch.testing.assert_close(trunk(images), expected, atol=1e-4, rtol=1e-4)


@needs_weights
def test_google_weights_dilated_agree_with_the_strided_network_up_to_its_last_stride():
    coarse = Backbone("mobilenetv2_100", weights=str(GOOGLE)).build().eval()
    fine = Backbone("mobilenetv2_100", weights=str(GOOGLE), output_stride=16).build().eval()
    images = torch.rand(1, 1, 128, 128)
    with torch.no_grad():
        features, stages = coarse.levels(images)
        fine_features, fine_stages = fine.levels(images)
    assert (features.shape[-1], fine_features.shape[-1]) == (4, 8)
    for a, b in zip(stages[:4], fine_stages[:4], strict=True):
        torch.testing.assert_close(a, b)


@needs_weights
@pytest.mark.parametrize(
    ("name", "stages", "channels"),
    [("tf_efficientnet_lite0", 5, 320), ("tf_efficientnet_lite2", 5, 352), ("tf_efficientnet_lite0", 4, 112)],
)
def test_lite_weights_serve_guided_maps_with_kept_features(name, stages, channels):
    """One stage trained after five frozen ones, or (4) none: kept features say what pictures say."""
    folder = GOOGLE.parent
    if not list(folder.glob(f"{name}*.safetensors")):
        pytest.skip(f"the weights of {name} are not here")
    backbone = Backbone(name, weights=str(folder), frozen_stages=5, stages=stages, frozen_precision="bf16")
    torch.manual_seed(0)
    net = ClassMapModel(backbone, fusion=Fusion(8, 16), one_map=True).build(2).eval()
    assert (net.trunk.channels_out, net.stride) == (channels, 8)
    assert float(net.trunk.mean.flatten()[0]) == float(net.trunk.std.flatten()[0]) == 0.5
    images = torch.rand(2, 1, 64, 64)
    packed = net.trunk.frozen_features(images)
    assert packed.ndim == 2 and packed.dtype == torch.bfloat16
    kept, seen = net(packed), net(images)
    torch.testing.assert_close(kept.logits, seen.logits)
    targets = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    targets[:, :, 8:24, 8:24] = 1
    MapEnergy("softplus")(kept.maps, targets, torch.ones(2, 2, dtype=torch.bool)).value.backward()
    assert net.fusion.top.weight.grad.any() and all(not p.requires_grad for p in net.trunk.net.conv_stem.parameters())
    assert Backbone(name, weights=str(folder), frozen_stages=5).without_weights().weights is None


@needs_weights
def test_trained_run_reopens_without_the_weights_file():
    model = ClassMapModel(Backbone("mobilenetv2_100", weights=str(GOOGLE)))
    bare = model.without_weights()
    assert bare.backbone.weights is None
    assert dict(bare.backbone.options) == {"pad_type": "same"}
    assert bare.without_weights() == bare
    trained, reopened = model.build(2).eval(), bare.build(2).eval()
    reopened.load_state_dict(trained.state_dict())
    images = torch.rand(1, 1, 64, 64)
    assert torch.equal(reopened(images).logits, trained(images).logits)


def test_sizes_that_do_not_work_are_named_with_those_that_do():
    narrow = {"embed_dim": 24}
    trunk = Backbone(name="swin_tiny_patch4_window7_224", options=narrow).build()
    with pytest.raises(GeometryError, match="cannot take images of 96 x 96 px") as caught:
        trunk(torch.zeros(1, 3, 96, 96))
    assert "--size 224" in caught.value.remedy
    other = Backbone(name="swin_tiny_patch4_window7_224", options={**narrow, "img_size": 96}).build()
    assert other(torch.zeros(1, 3, 96, 96)).shape == (1, 192, 3, 3)
    with pytest.raises(GeometryError, match="at least 63 px; it was given 48") as caught:
        AlexNet().build()(torch.zeros(1, 1, 48, 48))
    assert "1.32 times" in caught.value.remedy


def test_patch_tokens_lie_on_their_grid():
    """A map of a transformer is its patch tokens: as timm's own intermediates, at any size its patch divides."""
    torch.manual_seed(0)
    trunk = Backbone("test_vit").build().eval()
    assert (trunk.channels_out, trunk.stride) == (64, 16)
    images = torch.rand(2, 1, 64, 96)
    with torch.no_grad():
        features = trunk(images)
        final, _ = trunk.net.forward_intermediates(trunk.normalise(images), indices=1)
        wanted = final[:, trunk.net.num_prefix_tokens :]
    assert features.shape == (2, 64, 4, 6)
    for row in range(4):
        for column in range(6):
            torch.testing.assert_close(features[:, :, row, column], wanted[:, row * 6 + column])
    with pytest.raises(GeometryError, match="divisible"):
        trunk(torch.rand(1, 1, 60, 64))


def test_transformer_weights_from_a_file_freeze_with_their_tokens(tmp_path):
    """DINO's weights have the keys of timm's `vit_*`: an encoder that is frozen to its last norm."""
    torch.manual_seed(0)
    stored = timm.create_model("test_vit", num_classes=0).state_dict()
    save_file(stored, tmp_path / "test_vit.dino.safetensors")
    trunk = Backbone("test_vit", weights=str(tmp_path), frozen_stages=6).build()
    assert all(torch.equal(trunk.net.state_dict()[key], value) for key, value in stored.items())
    assert {name for name, p in trunk.net.named_parameters() if p.requires_grad} == set()
    trunk.train()
    assert not any(module.training for module in trunk.net.blocks.modules())
    with pytest.raises(RecipeError, match="nothing to train"):
        Backbone("test_vit", frozen_stages=7).build()


def test_explainers_of_a_transformer_can_be_trained_through_or_say_why_not():
    torch.manual_seed(0)
    net = ClassMapModel(Backbone("test_vit"), pool=SoftmaxPool()).build(2).eval()
    images = torch.rand(2, 1, 64, 64)
    for explainer, size in ((GradCAM(), 4), (InputGradient(reduce="square_sum"), 64)):
        maps = explainer(net, images, [1], create_graph=True)
        assert maps.shape == (2, 1, size, size)
        net.zero_grad()
        maps.sum().backward()
        assert net.trunk.net.blocks[0].attn.qkv.weight.grad.isfinite().all()
        torch.testing.assert_close(explainer(net, images, [1]), maps.detach(), rtol=1e-3, atol=1e-5)
    guided = InputGradient(rule="guided")(net, images, [1])
    assert bool((guided >= 0).all()) and bool(guided.any())


def test_networks_of_one_size_are_fused_and_kept_at_that_size():
    network = ClassMapModel(Backbone("test_coatnet"), fusion=Fusion(channels=4)).build(2).eval()
    assert network.trunk.fixed_px == 160
    with torch.no_grad():
        assert network(torch.rand(1, 3, 160, 160)).maps.shape == (1, 2, 20, 20)
        with pytest.raises(GeometryError, match="64 x 64 px"):
            network(torch.rand(1, 3, 64, 64))
    kept = Backbone("test_maxvit", frozen_stages=1, frozen_precision="bf16").build().frozen_stages
    assert [level.stride for level in kept.levels] == [2, 4]


@pytest.mark.parametrize(
    ("name", "fields", "remedy"),
    [
        ("test_mambaout", {}, "stages to 4"),
        ("test_mambaout", {"frozen_stages": 1, "frozen_precision": "bf16"}, "frozen_precision to 32"),
        ("test_vit_relpos", {"frozen_stages": 1, "frozen_precision": "bf16"}, "frozen_precision to 32"),
        ("poolformer_s12", {"frozen_stages": 1}, "frozen_stages to 0"),
        ("hrnet_w18_small", {"stages": 2}, "resnet50"),
    ],
)
def test_networks_whose_stages_cannot_be_fused_or_kept_are_refused(name, fields, remedy):
    with torch.device("meta"), pytest.raises(RecipeError) as refused:
        ClassMapModel(Backbone(name, **fields), fusion=Fusion(channels=4)).build(2)
    assert remedy in refused.value.remedy


def test_a_map_that_leaves_out_the_rim_of_the_picture_is_refused():
    """VGG's last layer, 7 x 7 without padding: its first cell lies 3.5 cells inside, and would be shown at the rim."""
    with torch.device("meta"):
        with pytest.raises(RecipeError, match=r"1 of 2 cells a side"):
            Backbone("vgg11").build()
        assert Backbone("vgg11", stages=6).build().stride == 32


def test_alexnet_weights_that_are_no_numbers_are_refused(tmp_path):
    with torch.device("meta"):
        shapes = {f"features.{key}": value.shape for key, value in AlexNet().build().net.state_dict().items()}
    stored = {key: torch.zeros(shape, dtype=torch.float16) for key, shape in shapes.items()}
    stored["features.0.bias"][3] = torch.nan
    save_file(stored, tmp_path / "alexnet.safetensors")
    with torch.device("meta"), pytest.raises(UnreadableFile, match=r"not finite in features\.0\.bias"):
        AlexNet(weights=str(tmp_path)).build()
