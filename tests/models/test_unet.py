"""The U-Net that classifies: consistent maps, any size, a decoder or none, weights from a file."""

import pytest
import torch
from safetensors.torch import save_file
from support.paths import DATA
from torch import nn

from sightline.errors import RecipeError
from sightline.explainers.cam import GradCAM
from sightline.explainers.gradients import InputGradient
from sightline.models.backbones import Backbone
from sightline.models.unet import UNet

TINY = Backbone("test_resnet")


def tiny(decoder=True, **more):
    torch.manual_seed(0)
    widths = (16, 8, 8, 8, 4)
    return UNet(TINY, decoder=decoder, widths=widths, **more).build(3)


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
        with pytest.raises(RecipeError, match="the decoder has 2 widths"):
            UNet(TINY, widths=(8, 8)).build(3)
        with pytest.raises(RecipeError, match="dropout"):
            UNet(TINY, dropout=1.0)

    def test_the_way_to_the_logits_leaves_the_decoder_out(self):
        network, images = tiny().eval(), torch.rand(2, 3, 64, 64)
        painted: list[int] = []
        network.paint.register_forward_hook(lambda *_: painted.append(1))
        whole, short = network(images), network.classify(images)
        assert torch.equal(whole.logits, short.logits) and torch.equal(whole.maps, short.maps) and not short.extras
        assert len(painted) == 1
        # a gradient of the image neither runs the decoder nor counts its activations
        _, met = InputGradient("guided").explain_by_rule(network, images, [0])
        assert len(painted) == 1
        encoder = sum(isinstance(m, nn.ReLU) for m in network.trunk.modules())
        assert met.activations["relu"] == encoder

    def test_grad_cam_of_the_deepest_features_is_the_class_map(self):
        """Selvaraju 2017: with mean pooling and a linear layer Grad-CAM is the class map, without bias, by cells."""
        network, images = tiny().eval(), torch.rand(2, 3, 64, 64)
        evidence = network(images)
        maps = GradCAM("attention", relu=False)(network, images, [0, 1, 2])
        bare = evidence.maps - network.head.linear.bias.view(1, -1, 1, 1)
        assert torch.allclose(maps * maps[0, 0].numel(), bare, atol=1e-4)

    def test_dropout_changes_logits_in_training_alone(self):
        network, images = tiny(dropout=0.9), torch.rand(2, 3, 64, 64)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        assert not torch.allclose(network(images).logits, network(images).logits)
        network.eval()
        assert torch.equal(network(images).logits, network(images).logits)

    def test_images_are_normalised_inside(self):
        network = tiny().eval()
        assert network.trunk.mean.shape == (1, 3, 1, 1) and "trunk.mean" in network.state_dict()
        grey = torch.rand(1, 1, 64, 64)
        assert torch.allclose(network(grey).logits, network(grey.expand(1, 3, 64, 64)).logits, atol=1e-6)
        other = UNet(Backbone("test_resnet", channels=1), widths=(8, 8, 8, 8, 4)).build(2).eval()
        assert other(grey).extras["decoder"].shape == (1, 1, 64, 64)

    def test_weights_come_from_a_file_and_are_not_needed_again(self, tmp_path):
        file = tmp_path / "test_resnet.safetensors"
        save_file({k: v.contiguous() for k, v in tiny().trunk.net.state_dict().items()}, file)
        config = UNet(Backbone("test_resnet", weights=str(file)), widths=(16, 8, 8, 8, 4))
        network = config.build(3).eval()
        bare = config.without_weights()
        file.unlink()
        assert bare.encoder.weights is None
        reopened = bare.build(3).eval()
        reopened.load_state_dict(network.state_dict())
        images = torch.rand(1, 3, 64, 64)
        assert torch.equal(network(images).logits, reopened(images).logits)

    def test_of_what_is_not_named_nothing_is_fetched(self):
        assert UNet().encoder.weights is None

    @pytest.mark.skipif(not (DATA / "weights").is_dir(), reason="no shared data")
    def test_a_real_encoder_with_its_weights(self):
        file = DATA / "weights" / "mobilenetv2_100.imagenet_google.safetensors"
        network = UNet(Backbone("mobilenetv2_100", weights=str(file)), widths=(32, 16, 8, 8, 4)).build(2).eval()
        evidence = network(torch.rand(1, 3, 64, 64))
        assert evidence.maps.shape == (1, 2, 2, 2) and evidence.extras["decoder"].isfinite().all()
