"""Explainers: maps, boxes and unit activations of a network; every map is differentiable (`create_graph=True`).

`localisation` reads boxes off existing maps and does not need torch; the names below are imported on first use, so that
a node that predicts with onnxruntime has boxes without torch (decision 030).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sightline.explainers.cam import ClassActivationMap as ClassActivationMap
    from sightline.explainers.cam import GradCAM as GradCAM
    from sightline.explainers.cam import GradCAMPlusPlus as GradCAMPlusPlus
    from sightline.explainers.gradients import GuidedGradCAM as GuidedGradCAM
    from sightline.explainers.gradients import InputGradient as InputGradient
    from sightline.explainers.gradients import SmoothGrad as SmoothGrad

_PLACES = {
    **dict.fromkeys(("ClassActivationMap", "GradCAM", "GradCAMPlusPlus"), "cam"),
    **dict.fromkeys(("GuidedGradCAM", "InputGradient", "SmoothGrad"), "gradients"),
}

__all__ = ["ClassActivationMap", "GradCAM", "GradCAMPlusPlus", "GuidedGradCAM", "InputGradient", "SmoothGrad"]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
