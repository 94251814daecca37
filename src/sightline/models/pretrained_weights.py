"""Pretrained weights from local safetensors files, and what each expects of the network and its input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from sightline.errors import RecipeError, UnreadableFile
from sightline.structures.identifiers import find_weights

# arguments of timm and MONAI that fetch weights, or read a file by another name than the recipe's `weights`
LOADING_OPTIONS = ("pretrained", "checkpoint_path")


def drop_loading_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that say how a network is built, without those that would load something into it."""
    return {name: value for name, value in options.items() if name not in LOADING_OPTIONS}


@contextmanager
def refuse_odd_options(library: str, name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Build a network of another library inside: what it cannot build, or run, is said in words.

    Raises:
        RecipeError: naming the options.
    """
    if loading := [option for option in LOADING_OPTIONS if options.get(option)]:
        raise RecipeError(
            f"The option {loading[0]!r} of {name!r} loads weights, which no run would name.",
            "Take the option away, and name them in the field weights.",
        )
    for option, value in options.items():
        # the network is built with any of these, and fails in the middle of its first step
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if "drop" in option and number and not 0 <= value < 1:
            raise RecipeError(f"{option} of {name!r} is {value}; expected 0 to below 1.", "Try 0.1.")
    try:
        yield
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        why = str(error).rstrip(".") or type(error).__name__
        raise RecipeError(
            f"{library} cannot build {name!r} with {dict(options)}: {why}.", "Take the option away or choose resnet50."
        ) from error


@dataclass(frozen=True)
class Facts:
    """What a set of weights expects: input mean and std for images in [0, 1], and options of the architecture."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)


# Weights that timm does not list, by the tag in <backbone>.<tag>.safetensors. Google's TensorFlow networks pad like
# TensorFlow (more below and right than above and left) and see x / 127.5 - 1.
KNOWN: Mapping[str, Facts] = {
    "imagenet_google": Facts(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), options={"pad_type": "same"}),
}


def find_weight_facts(name: str, tag: str) -> Facts:
    """What weights of a backbone expect, by their tag: from `KNOWN`, else timm's record, else timm's default tag."""
    if tag in KNOWN:
        return KNOWN[tag]
    tagged = f"{name.split('.')[0]}.{tag}"
    try:
        record = timm.get_pretrained_cfg(tagged if timm.is_model_pretrained(tagged) else name)
    except RuntimeError as error:
        raise RecipeError(f"{name!r}: {error}", f"Write {name.split('.')[0]!r}, and name weights in weights.") from None
    return Facts(mean=tuple(record.mean), std=tuple(record.std))


def read_weights_tag(place: str, name: str) -> str:
    """The tag in `<name>.<tag>.safetensors`, which says what weights expect; the file itself need not be there."""
    path = Path(place) if place.endswith(".safetensors") else find_weights(place, name)
    return path.stem.partition(".")[2]


def download(name: str) -> Path:
    """The safetensors file that timm publishes for a backbone, from the hub or its local cache.

    timm's own loader would fall back to pickled files; this one does not.
    """
    record = timm.get_pretrained_cfg(name, allow_unregistered=True)
    try:
        if not record.hf_hub_id:
            raise FileNotFoundError("timm publishes no weights for it on the hub")
        return Path(hf_hub_download(record.hf_hub_id, "model.safetensors"))
    except Exception as error:
        # the hub raises several unrelated kinds when it cannot be reached or lacks the file
        raise RecipeError(
            f"The ImageNet weights of {name!r} could not be downloaded: {str(error).rstrip('.')}.",
            "Give weights a local .safetensors file or a folder of them, or null for random weights.",
        ) from error


def read_weights(path: Path, net: nn.Module, name: str, channels: int) -> None:
    """Load a file into a classifier-less timm network, in float32, every key accounted for.

    Raises:
        UnreadableFile: not a safetensors file, or values that are not finite.
        RecipeError: keys missing, left over or of another shape.
    """
    stored = read_stored(path)
    record = net.pretrained_cfg
    stored = {key: value for key, value in stored.items() if not _is_classifier(key, record)}  # type: ignore[arg-type]
    stem = f"{record['first_conv']}.weight"  # type: ignore[index]
    if stem in stored and stored[stem].shape[1] == 3 and channels != 3:
        stored[stem] = adapt_input_conv(channels, stored[stem])
    load_stored(stored, net, path, name)


def read_alexnet_weights(path: Path, net: nn.Module) -> None:
    """Load a file of torchvision's AlexNet into its features, in float32; its classifier is left out.

    Raises:
        UnreadableFile: not a safetensors file, or values that are not finite.
        RecipeError: weights that are not AlexNet's.
    """
    stored = read_stored(path)
    own = {key.removeprefix("features."): value for key, value in stored.items() if key.startswith("features.")}
    wanted = net.state_dict()
    if own.keys() != wanted.keys() or any(own[key].shape != wanted[key].shape for key in wanted):
        raise RecipeError(f"Weights {path} are not those of torchvision's AlexNet.", "Give its own file, or null.")
    net.load_state_dict(own)


def read_stored(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, in float32.

    Raises:
        UnreadableFile: not a safetensors file, or values that are not finite.
    """
    try:
        stored: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UnreadableFile(f"{path} is no readable safetensors file: {error}.", "Fetch it again.") from error
    stored = {key: value.float() if value.is_floating_point() else value for key, value in stored.items()}
    broken = sorted(key for key, value in stored.items() if not torch.isfinite(value).all())
    if broken:
        raise UnreadableFile(f"{path} holds values that are not finite in {_list_few(broken)}.", "Fetch it again.")
    return stored


def load_stored(
    stored: Mapping[str, Tensor],
    net: nn.Module,
    path: Path,
    name: str,
    remedy: str = "Name the backbone they were trained for, or give its own file.",
) -> None:
    """Give a network its weights, every key accounted for.

    Raises:
        RecipeError: keys missing, left over or of another shape.
    """
    wanted = net.state_dict()
    missing = sorted(key for key in wanted.keys() - stored.keys() if not key.endswith("num_batches_tracked"))
    spare = sorted(stored.keys() - wanted.keys())
    odd = sorted(
        f"{key} {list(stored[key].shape)} instead of {list(wanted[key].shape)}"
        for key in stored.keys() & wanted.keys()
        if stored[key].shape != wanted[key].shape
    )
    faults = [
        f"{what} {_list_few(keys)}" for what, keys in (("lacks", missing), ("has unknown", spare), ("has", odd)) if keys
    ]
    if faults:
        raise RecipeError(f"Weights {path} do not belong to {name!r}: the file {'; it '.join(faults)}.", remedy)
    net.load_state_dict(dict(stored), strict=False)


def _is_classifier(key: str, record: Mapping[str, str | tuple[str, ...] | None]) -> bool:
    heads = record.get("classifier") or ()
    return any(key.startswith(f"{head}.") for head in ((heads,) if isinstance(heads, str) else heads))


def _list_few(names: list[str], n: int = 4) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")
