"""Copies of a network's weights beside it: the best epoch's, and a moving average."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights that further training leaves alone."""
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


def average_in(average: dict[str, Tensor], network: nn.Module, keep: float, step: int) -> None:
    """Exponential moving average; the first steps average over fewer, so that the start is soon forgotten."""
    share = min(keep, (1.0 + step) / (10.0 + step))
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            average[name].mul_(share).add_(value.detach(), alpha=1.0 - share)
        else:
            average[name].copy_(value)


@contextmanager
def exchanged(network: nn.Module, weights: Mapping[str, Tensor] | None) -> Iterator[None]:
    """The network with other weights for a while; as it is where there are none."""
    if weights is None:
        yield
        return
    own = copied(network.state_dict())
    network.load_state_dict(weights)
    try:
        yield
    finally:
        network.load_state_dict(own)
