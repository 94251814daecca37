"""Every word a recipe may use, and what it builds: one line a part. Nothing else can be named in a recipe."""

from __future__ import annotations

from typing import Any

from sightline.data.hard_negatives import HardNegatives
from sightline.data.task import Task
from sightline.explainers.cam import ClassActivationMap, GradCAM, GradCAMPlusPlus
from sightline.explainers.captum import DeepLift, IntegratedGradients, Lime
from sightline.explainers.gradients import GuidedGradCAM, InputGradient, SmoothGrad
from sightline.losses.attribution_priors import AttributionPrior, MapEnergy
from sightline.losses.box_distance import BoxDistance
from sightline.losses.cell_focal import CellFocal
from sightline.losses.gg_cam import GazeGuided
from sightline.losses.heatmap_matching import HeatmapMatch
from sightline.losses.map_norm import MapNorm
from sightline.losses.normal_contrast import NormalContrast
from sightline.losses.sampled_windows import SampledWindowLoss
from sightline.losses.self_transfer import SelfTransferLoss
from sightline.losses.spatial_nll import SpatialNLL
from sightline.models.backbones import AlexNet, Backbone
from sightline.models.box_regression import BoxRegression
from sightline.models.cam_classifiers import CamLayer, ClassMapModel, GlobalPooling, Transition
from sightline.models.ensembles import Ensemble, MultiScale
from sightline.models.necks import Fusion, Pylon, PyramidAttention, ResidualAttention, SelfAttention
from sightline.models.pooling import LogSumExpPool, MaxPool, MeanPool, NoisyOrPool, SoftmaxPool, TopPool
from sightline.models.sampled_windows import SampledWindowTransformer, WindowSampling
from sightline.models.self_transfer import SelfTransfer
from sightline.models.spatial_transformer import Cascade, SecondLook, SpatialTransformer
from sightline.models.unet import UNet
from sightline.models.volume_networks import VolumeBackbone, VolumeUNet
from sightline.training.optimization import (
    Adagrad,
    Adam,
    AdamW,
    CosineDecay,
    LayerRates,
    LinearDecay,
    ReduceOnPlateau,
    Sgd,
    Steady,
    StepDecay,
    TriangularCycles,
    WeightRelease,
)
from sightline.training.recipe import Recipe
from sightline.training.serialization import INPUT_WORDS

CATALOGUE: dict[str, type[Any]] = {
    "recipe": Recipe,
    **INPUT_WORDS,
    "task": Task,
    "hard_negatives": HardNegatives,
    # networks
    "backbone": Backbone,
    "fusion": Fusion,
    "pylon": Pylon,
    "alexnet": AlexNet,
    "class_map_model": ClassMapModel,
    "cam_layer": CamLayer,
    "transition": Transition,
    "global_pooling": GlobalPooling,
    "box_regression": BoxRegression,
    "spatial_transformer": SpatialTransformer,
    "sampled_window_transformer": SampledWindowTransformer,
    "window_sampling": WindowSampling,
    "cascade": Cascade,
    "second_look": SecondLook,
    "ensemble": Ensemble,
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
    "noisy_or_pool": NoisyOrPool,
    "residual_attention": ResidualAttention,
    "self_attention": SelfAttention,
    "pyramid_attention": PyramidAttention,
    # guidance
    "spatial_nll": SpatialNLL,
    "cell_focal": CellFocal,
    "map_norm": MapNorm,
    "map_energy": MapEnergy,
    "attribution_prior": AttributionPrior,
    "self_transfer": SelfTransferLoss,
    "normal_contrast": NormalContrast,
    "box_distance": BoxDistance,
    "sampled_window_loss": SampledWindowLoss,
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
    "weight_release": WeightRelease,
}
