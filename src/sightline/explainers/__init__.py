"""From a network to a map, a box or the reading of a unit; every map can be trained through (`create_graph=True`)."""

from sightline.explainers.cam import ClassActivationMap, GradCAM, GradCAMPlusPlus
from sightline.explainers.gradients import GuidedGradCAM, InputGradient, SmoothGrad

__all__ = ["ClassActivationMap", "GradCAM", "GradCAMPlusPlus", "GuidedGradCAM", "InputGradient", "SmoothGrad"]
