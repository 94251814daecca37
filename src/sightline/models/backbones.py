"""A timm network without its classifier: images in [0, 1] to features, with the normalisation its weights expect."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models import alexnet

from sightline.errors import GeometryError, RecipeError
from sightline.models.frozen_stages import FrozenStages, freeze_stages
from sightline.models.pretrained_weights import (
    Facts,
    download,
    drop_loading_options,
    find_weight_facts,
    read_alexnet_weights,
    read_weights,
    read_weights_tag,
    refuse_odd_options,
)
from sightline.structures.evidence import has_bfloat16
from sightline.structures.identifiers import find_weights

GREY_MEAN, GREY_STD = 0.5, 0.5
_ELSE = "Choose a convolutional backbone such as resnet50."
Option = str | int | float | bool


@dataclass(frozen=True)
class Backbone:
    """Any timm image network that yields a feature map.

    Attributes:
        name: timm's name, e.g. `resnet50` (He 2016), `efficientnet_b0` (Tan 2019), `mobilenetv2_100` (Sandler 2018);
            of vision transformers (`vit_small_patch16_224`, Dosovitskiy 2021) the features are the patch tokens on
            their grid, and images of any size that the patch divides are taken (position embeddings are resampled).
        channels: channels of the first convolution, 1 to 3. With 3, grey images are replicated in `forward`.
        output_stride: image pixels per feature cell; 16 and 8 trade strides for dilation where timm offers it.
        weights: None for random weights, `imagenet` for timm's download, else a `.safetensors` file or a folder
            of them. Loaded without pickle.
        frozen_stages: 0 trains everything; n > 0 fixes the stem and the first n stages (weights and batch statistics).
        stages: keep only the first n of timm's feature stages (those at strides 2, 4, 8, 16, 32), or None for the whole
            network. Each cell then sees less of the image, so that what it says has to be near it (Brendel and Bethge
            2019, BagNet), and training costs less.
        mean, std: input normalisation per channel; None takes what the weights expect.
        frozen_precision: in what the frozen stages compute, in training and ever after: `bf16` (float32 where
            the processor has none) takes half the time and lets their features be kept (`models/frozen_stages.py`).
        options: further arguments of `timm.create_model`, e.g. `{"drop_path_rate": 0.1}`.
    """

    name: str = "resnet50"
    channels: int = 3
    output_stride: int = 32
    weights: str | None = None
    frozen_stages: int = 0
    stages: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    options: Mapping[str, Option] = field(default_factory=dict, hash=False)
    # recipes written before this field existed do without it, and so does their identity
    frozen_precision: Literal["32", "bf16"] = field(default="32", metadata={"since": "0.2"})

    def __post_init__(self) -> None:
        """Refuse what no network has."""
        if self.frozen_precision != "32" and _is_transformer(self.name):
            raise RecipeError(
                "Features of a vision transformer's frozen blocks are not kept.", "Set frozen_precision to 32."
            )
        if self.frozen_precision != "32" and self.frozen_stages == 0:
            raise RecipeError("frozen_precision is of frozen stages: there are none.", "Set frozen_stages to 1.")
        if self.channels not in (1, 2, 3):
            raise RecipeError(f"A backbone takes 1 to 3 channels; got {self.channels}.")
        if self.output_stride not in (8, 16, 32):
            raise RecipeError(f"output_stride is 8, 16 or 32; got {self.output_stride}.")
        if self.frozen_stages < 0:
            raise RecipeError(f"frozen_stages is 0 or more; got {self.frozen_stages}.")
        if self.stages is not None and self.stages < 1:
            raise RecipeError(f"A backbone keeps at least one stage; got {self.stages}.", "Try 4: strides 2 to 16.")
        if self.std is not None and any(s <= 0 for s in self.std):
            raise RecipeError(f"std must be positive; got {self.std}.")

    def without_weights(self) -> Backbone:
        """The same architecture with nothing to load: what the weights file implies is written into the fields.

        For reopening a trained run, whose own weights replace all of it, where the file need not exist.
        """
        bare = replace(self, options=drop_loading_options(self.options))
        if self.weights is None:
            return bare
        facts = self._find_facts()
        return replace(
            bare,
            weights=None,
            mean=self._choose_per_channel(self.mean, facts.mean, "mean"),
            std=self._choose_per_channel(self.std, facts.std, "std"),
            options={**facts.options, **bare.options},
        )

    def build(self) -> Trunk:
        """The network, with weights loaded.

        Raises:
            RecipeError: unknown name, unsupported option, or weights that do not belong to it.
            UnreadableFile: a weights file that is none.
        """
        facts = self._find_facts()
        keywords = self._choose_keywords(facts)
        with refuse_odd_options("timm", self.name, keywords):
            net: nn.Module = timm.create_model(
                self.name, in_chans=self.channels, num_classes=0, global_pool="", **keywords
            )
            if self.weights is not None:
                path = download(self.name) if self.weights == "imagenet" else find_weights(self.weights, self.name)
                read_weights(path, net, self.name, self.channels)
            if self.stages is not None:
                _cut_stages(net, self.stages, self.name)
            mean = self._choose_per_channel(self.mean, facts.mean, "mean")
            std = self._choose_per_channel(self.std, facts.std, "std")
            return Trunk(net, self, mean, std)

    def _find_facts(self) -> Facts:
        if not timm.is_model(self.name.split(".")[0]):
            near = difflib.get_close_matches(self.name, timm.list_models(), n=3)
            raise RecipeError(
                f"timm has no backbone {self.name!r}.", f"Did you mean {' or '.join(near) or 'resnet50'}?"
            )
        if self.weights is None:
            return Facts(mean=(GREY_MEAN,), std=(GREY_STD,)) if self.channels != 3 else find_weight_facts(self.name, "")
        if self.weights == "imagenet":
            return find_weight_facts(self.name, "")
        return find_weight_facts(self.name, read_weights_tag(self.weights, self.name))

    def _choose_keywords(self, facts: Facts) -> dict[str, Any]:
        keywords: dict[str, Any] = {**facts.options, **self.options}
        if self.output_stride != 32:
            keywords["output_stride"] = self.output_stride
        if _is_transformer(self.name) and "img_size" not in keywords:
            keywords = {"dynamic_img_size": True, **keywords}
        return keywords

    def _choose_per_channel(
        self, own: tuple[float, ...] | None, default: tuple[float, ...], what: str
    ) -> tuple[float, ...]:
        values = own if own is not None else default
        if len(values) == self.channels:
            return tuple(values)
        if len(values) == 1 or own is None:
            return (sum(values) / len(values),) * self.channels
        raise RecipeError(f"{what} has {len(values)} values for {self.channels} channels.", "Give one per channel.")


class Trunk(nn.Module):
    """A backbone's network: `forward(images [b, c, h, w] in [0, 1])` gives features [b, channels_out, h', w'].

    Attributes:
        channels_out: feature channels.
        stride: image pixels per feature cell.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, config: Backbone, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Wrap a timm network made without classifier and pooling."""
        super().__init__()
        self.net: Any = net
        self.channels = config.channels
        self.name, self.fixed_px = config.name, _find_fixed_px(net, config)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.last = getattr(net, "output_fmt", "NCHW") == "NHWC"
        self._frozen = freeze_stages(net, config.frozen_stages)
        self.frozen_stages: FrozenStages | None = None
        if config.frozen_precision != "32":
            if self.last:
                raise RecipeError(f"Maps of {self.name!r}, channels last, are not kept.", "Set frozen_precision to 32.")
            self.frozen_stages = FrozenStages(net, self._frozen, config.channels, (mean, std), self.fixed_px)
        self.train(self.training)
        self.channels_out, self.stride = self._measure_output(config)

    def normalise(self, images: Tensor) -> Tensor:
        """Images in [0, 1] to what the weights expect; one grey channel becomes as many as the network has."""
        if images.ndim != 4 or images.shape[1] not in (1, self.channels):
            wanted = "1" if self.channels == 1 else f"1 or {self.channels}"
            raise GeometryError(f"Images must be [b, {wanted}, h, w] for this backbone; got {tuple(images.shape)}.")
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Features [b, channels_out, h', w'] of images [b, c, h, w], or of packed features of the frozen stages."""
        with self._translate_size_errors(images):
            if self.frozen_stages is not None:
                with self.frozen_stages.replace_by(self.frozen_features(images)) as given:
                    features: Tensor = self.net(given)
            else:
                features = self.net(self.normalise(images))
        return self._shape_as_map(features, images)

    def _shape_as_map(self, features: Tensor, images: Tensor) -> Tensor:
        """Features with channels after the batch; patch tokens on their grid, without class and register tokens."""
        if self.last:
            return features.movedim(-1, 1)
        if not isinstance(self.net, VisionTransformer) or features.ndim != 3:
            return features
        height, width = self.net.patch_embed.dynamic_feat_size((int(images.shape[2]), int(images.shape[3])))
        patches = features[:, self.net.num_prefix_tokens :].transpose(1, 2)
        return patches.reshape(len(patches), -1, height, width)

    @contextmanager
    def _translate_size_errors(self, images: Tensor) -> Iterator[None]:
        """Say in words what timm asserts of the size of images."""
        try:
            yield
        except (AssertionError, RuntimeError) as error:
            fits = self.fixed_px is None or set(images.shape[2:]) == {self.fixed_px}
            if fits and isinstance(error, RuntimeError):
                raise
            size = " x ".join(map(str, images.shape[2:]))
            message = f"The backbone {self.name!r} cannot take images of {size} px: {error}".rstrip(". ")
            remedy = "Choose another size, or a convolutional backbone such as resnet50."
            if self.fixed_px is not None:
                remedy = (
                    f"Train with --size {self.fixed_px}, build it for another one (options of the backbone: "
                    '{"img_size": 192}), or choose a convolutional backbone such as resnet50.'
                )
            raise GeometryError(f"{message}.", remedy) from None

    def levels(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The features, and those of every earlier stage from fine to coarse.

        Raises:
            RecipeError: timm does not expose the stages of this network.
        """
        if not hasattr(self.net, "forward_intermediates"):
            raise RecipeError("timm does not expose the stages of this backbone.", "Leave fusion out.")
        if isinstance(self.net, VisionTransformer):
            raise RecipeError(
                "A vision transformer has the same grid at every depth: there is nothing finer to fuse.",
                "Leave fusion out; larger pictures (--size), or smaller patches, make finer maps.",
            )
        with self._translate_size_errors(images):
            if self.frozen_stages is not None:
                with self.frozen_stages.replace_by(self.frozen_features(images)) as given:
                    features, stages = self.net.forward_intermediates(given, output_fmt="NCHW")
            else:
                features, stages = self.net.forward_intermediates(self.normalise(images), output_fmt="NCHW")
        return self._shape_as_map(features, images), list(stages)

    def frozen_features(self, images: Tensor) -> Tensor:
        """Packed features [b, n] of the frozen stages, in bfloat16 (computed so where it exists); packed ones stay.

        Raises:
            RecipeError: the backbone computes its frozen stages as it does the others.
        """
        if self.frozen_stages is None:
            raise RecipeError(
                "Only frozen stages with a precision of their own are kept.", "Set frozen_precision to bf16."
            )
        if images.ndim == 2:
            return images
        with torch.autocast(images.device.type, torch.bfloat16, enabled=has_bfloat16(images.device)):
            return self.frozen_stages.of_images(self.normalise(images))

    def train(self, mode: bool = True) -> Trunk:
        """Training mode, except for frozen stages, which stay as they are at inference."""
        super().train(mode)
        # without trainable weights autograd keeps no graph for these stages, yet input gradients can still pass
        for name in self._frozen:
            self.net.get_submodule(name).eval()
        return self

    @torch.no_grad()
    def _measure_output(self, config: Backbone) -> tuple[int, int]:
        training = self.training
        # a transformer takes what its patch divides
        patch = self.net.patch_embed.patch_size[0] if isinstance(self.net, VisionTransformer) else 16
        size = self.fixed_px or 4 * patch
        try:
            features = self.eval()(torch.zeros(1, self.channels, size, size))
        except RuntimeError as error:
            raise RecipeError(f"{self.name!r} takes no image of {size} px: {error}.", _ELSE) from error
        self.train(training)
        if not isinstance(features, Tensor) or features.ndim != 4:
            what = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise RecipeError(f"{self.name!r} gives {what} instead of a map [b, c, h, w].", _ELSE)
        stages = getattr(self.net, "feature_info", [])
        reduction = stages[(config.stages or len(stages)) - 1].get("reduction") if stages else None
        if reduction and features.shape[-1] < size // reduction:
            # layers without padding (VGG's last one) do not see the rim: spread over the picture the map is misplaced
            cells = f"{features.shape[-1]} of {size // reduction} cells a side at {size} px"
            message = f"The map of {self.name!r} leaves out the rim of the picture ({cells})."
            raise RecipeError(message, f"Keep its stages alone (set stages to {len(stages)}), or another backbone.")
        return int(features.shape[1]), size // int(features.shape[-1])


def _find_fixed_px(net: Any, config: Backbone) -> int | None:
    """The one side of images that a network was built for; None where any will do."""
    facts = net.pretrained_cfg
    if not facts.get("fixed_input_size") or (isinstance(net, VisionTransformer) and net.dynamic_img_size):
        return None
    asked = config.options.get("img_size")
    if isinstance(asked, int):
        return asked
    return int(asked[-1] if isinstance(asked, (list, tuple)) else facts["input_size"][-1])


def _is_transformer(name: str) -> bool:
    """Whether timm's network of that name is a plain vision transformer (ViT, DINO, DINOv2)."""
    kind = name.split(".")[0]
    return timm.is_model(kind) and timm.model_entrypoint(kind).__module__ == VisionTransformer.__module__


def _cut_stages(net: nn.Module, n: int, name: str) -> None:
    """Leave out everything after the first n feature stages."""
    if not hasattr(net, "prune_intermediate_layers") or not hasattr(net, "feature_info"):
        raise RecipeError(f"timm cannot cut {name!r} after a stage.", "Leave stages out or choose mobilenetv2_100.")
    there = len(net.feature_info)  # type: ignore[arg-type]
    if n > there:
        raise RecipeError(f"{name!r} has {there} feature stages; got stages {n}.", f"Ask for 1 to {there}.")
    net.prune_intermediate_layers([n - 1])  # type: ignore[operator]


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class AlexNet:
    """torchvision's AlexNet without its classifier: 256 channels, 32 image pixels a cell.

    Attributes:
        weights: None for random ones, or a .safetensors file of torchvision's AlexNet, a folder that holds one, or
            `imagenet`: `alexnet*.safetensors` in torch's folder of checkpoints. Loaded without pickle, which is the
            only form that torchvision publishes them in: convert them once.
    """

    weights: str | None = None

    def without_weights(self) -> AlexNet:
        """The same with random weights."""
        return replace(self, weights=None)

    def build(self) -> AlexNetTrunk:
        """The network.

        Raises:
            RecipeError: weights that are not AlexNet's.
            UnreadableFile: a weights file that is none.
        """
        trunk = AlexNetTrunk()
        if self.weights is not None:
            read_alexnet_weights(Path(_find_alexnet_file(self.weights)), trunk.net)
        return trunk


class AlexNetTrunk(nn.Module):
    """`forward(images [b, c, h, w] in [0, 1])` gives features [b, 256, h', w']; images of at least 63 px."""

    channels = 3
    channels_out = 256
    stride = 32
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        """Random weights, drawn as torchvision draws them."""
        super().__init__()
        self.net = alexnet(weights=None).features
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def normalise(self, images: Tensor) -> Tensor:
        """Images in [0, 1] to what the weights expect; one grey channel becomes three."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise GeometryError(f"Images must be [b, 1 or 3, h, w] for AlexNet; got {tuple(images.shape)}.")
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Features [b, 256, h', w'].

        Raises:
            GeometryError: images too small for its five reductions.
        """
        if min(images.shape[2:]) < 63:
            least = min(images.shape[2:])
            raise GeometryError(
                f"AlexNet needs images of at least 63 px; it was given {least}.",
                f"Make the input (--size) at least {math.ceil(100 * 63 / least) / 100:g} times as large.",
            )
        features: Tensor = self.net(self.normalise(images))
        return features


def _find_alexnet_file(place: str) -> str:
    """Where AlexNet's weights lie.

    Raises:
        RecipeError: they are asked for by the word `imagenet`, and nobody has converted them.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints" if place == "imagenet" else Path(place).expanduser()
    if place != "imagenet" and not folder.is_dir():
        return place
    try:
        return str(find_weights(str(folder), "alexnet"))
    except RecipeError as error:
        raise RecipeError(
            f"AlexNet's ImageNet weights are not there: {error.message.rstrip('.')}.",
            "torchvision publishes them as a pickle, which is never opened here. Convert them once (docs/models.md, "
            "Weights) and give --weights their folder, or --weights none for random ones.",
        ) from None
