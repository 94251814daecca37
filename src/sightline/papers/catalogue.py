"""Every word a recipe may use, and what it builds: one line a part. Nothing else can be named in a recipe."""

from __future__ import annotations

from typing import Any

from sightline.cohorts.framing import Crop, RegionJitter
from sightline.cohorts.gaze_choice import GazeChoice
from sightline.cohorts.patches import Patches
from sightline.cohorts.regions import RegionChoice
from sightline.cohorts.task import Task
from sightline.cohorts.transforms import View
from sightline.cohorts.volume_view import VolumeView
from sightline.explain.cam import ClassActivationMap, GradCAM
from sightline.explain.captum_maps import DeepLift, IntegratedGradients, Lime
from sightline.explain.grad_cam_pp import GradCAMPlusPlus
from sightline.explain.guided_grad_cam import GuidedGradCAM
from sightline.explain.input_gradient import InputGradient
from sightline.explain.map_boxes import MapBoxes
from sightline.explain.smooth_grad import SmoothGrad
from sightline.guidance.box_distance import BoxDistance
from sightline.guidance.cell_focal import CellFocal
from sightline.guidance.gaze_guided import GazeGuided
from sightline.guidance.heatmap_match import HeatmapMatch
from sightline.guidance.map_norm import MapNorm
from sightline.guidance.self_transfer import SelfTransferLoss
from sightline.guidance.spatial_nll import SpatialNLL
from sightline.guidance.tried_windows import TriedWindows
from sightline.lab.optimise import Adagrad, Adam, AdamW, LayerRates, Sgd
from sightline.lab.recipe import Recipe
from sightline.lab.schedules import CosineDecay, LinearDecay, ReduceOnPlateau, Steady, StepDecay, TriangularCycles
from sightline.models.alexnet import AlexNet
from sightline.models.attention import PyramidAttention, ResidualAttention, SelfAttention
from sightline.models.backbones import Backbone
from sightline.models.box_regression import BoxRegression
from sightline.models.cam_layer import CamLayer
from sightline.models.cascade import Cascade
from sightline.models.class_maps import ClassMapModel
from sightline.models.committee import Committee
from sightline.models.fusion import Fusion
from sightline.models.global_pooling import GlobalPooling, Transition
from sightline.models.multi_scale import MultiScale
from sightline.models.pools import LogSumExpPool, MaxPool, MeanPool, SoftmaxPool, TopPool
from sightline.models.transfer import SelfTransfer
from sightline.models.transformer import SpatialTransformer
from sightline.models.tries import Tries
from sightline.models.trying_transformer import TryingTransformer
from sightline.models.unet import UNet
from sightline.models.volume_backbone import VolumeBackbone
from sightline.models.volume_unet import VolumeUNet

CATALOGUE: dict[str, type[Any]] = {
    "recipe": Recipe,
    # what the network sees and is guided by
    "view": View,
    "volume_view": VolumeView,
    "patches": Patches,
    "crop": Crop,
    "region_jitter": RegionJitter,
    "region_choice": RegionChoice,
    "gaze_choice": GazeChoice,
    "task": Task,
    # networks
    "backbone": Backbone,
    "fusion": Fusion,
    "alexnet": AlexNet,
    "class_map_model": ClassMapModel,
    "cam_layer": CamLayer,
    "transition": Transition,
    "global_pooling": GlobalPooling,
    "box_regression": BoxRegression,
    "spatial_transformer": SpatialTransformer,
    "trying_transformer": TryingTransformer,
    "tries": Tries,
    "cascade": Cascade,
    "committee": Committee,
    "self_transfer_model": SelfTransfer,
    "multi_scale": MultiScale,
    "unet": UNet,
    "volume_unet": VolumeUNet,
    "volume_backbone": VolumeBackbone,
    "mean_pool": MeanPool,
    "softmax_pool": SoftmaxPool,
    "max_pool": MaxPool,
    "log_sum_exp_pool": LogSumExpPool,
    "top_pool": TopPool,
    "residual_attention": ResidualAttention,
    "self_attention": SelfAttention,
    "pyramid_attention": PyramidAttention,
    # guidance
    "spatial_nll": SpatialNLL,
    "cell_focal": CellFocal,
    "map_norm": MapNorm,
    "self_transfer": SelfTransferLoss,
    "box_distance": BoxDistance,
    "tried_windows": TriedWindows,
    "gaze_guided": GazeGuided,
    "heatmap_match": HeatmapMatch,
    # maps
    "cam": ClassActivationMap,
    "grad_cam": GradCAM,
    "grad_cam_pp": GradCAMPlusPlus,
    "input_gradient": InputGradient,
    "guided_grad_cam": GuidedGradCAM,
    "smooth_grad": SmoothGrad,
    "integrated_gradients": IntegratedGradients,
    "deep_lift": DeepLift,
    "lime": Lime,
    # boxes
    "map_boxes": MapBoxes,
    # optimisation
    "sgd": Sgd,
    "adamw": AdamW,
    "adam": Adam,
    "adagrad": Adagrad,
    "linear_decay": LinearDecay,
    "cosine_decay": CosineDecay,
    "step_decay": StepDecay,
    "triangular_cycles": TriangularCycles,
    "reduce_on_plateau": ReduceOnPlateau,
    "steady": Steady,
    "layer_rates": LayerRates,
}
