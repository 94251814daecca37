"""Pre-flight: whether a map depends on what it should depend on, before anybody looks at it or trains on it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sightline.errors import GeometryError, RunError, SightlineError
from sightline.explainers.backprop_rules.network_activations import count_activations
from sightline.explainers.frozen_eval import fork_rng, unwrap_model
from sightline.explainers.gradients import InputGradient
from sightline.explainers.layer_gradients import get_images
from sightline.explainers.sanity_checks.findings import SAME_WITHOUT_WEIGHTS, CheckResult, Preflight
from sightline.explainers.sanity_checks.rule_checks import (
    check_about_activations,
    compare_plain_gradient,
    is_blind_deconvolution,
)
from sightline.explainers.sanity_checks.side_effects import StateSnapshot
from sightline.explainers.sanity_checks.similarity import Array, average_known, compute_relative_difference, correlate
from sightline.explainers.sanity_checks.verdicts import (
    ImageLikeness,
    judge_blankness,
    judge_class,
    judge_image,
    judge_traces,
    judge_weights,
)
from sightline.explainers.sanity_checks.weight_randomisation import list_layers_in_order, randomise_weights
from sightline.structures.evidence import Batch, get_logits
from sightline.structures.protocols import Explainer, find_scorer

# what bounds the cost
MOST_IMAGES = 8
MOST_CLASSES = 4
# a map that survives one shuffle of all weights may do so by chance (an untrained network's class map follows the grey
# values, upwards or downwards); one that survives all of so many does not
MOST_SHUFFLES = 5


def run_preflight(
    model: nn.Module,
    images: Batch | Tensor,
    explainer: Explainer,
    *,
    classes: Sequence[int] | None = None,
    seed: int = 0,
) -> Preflight:
    """Asks a map seven questions; docs/checks.md says what each means.

    Everything is done with copies of the network, in evaluation mode: the model's mode, weights, hooks, stored
    gradients, and all generators of random numbers are afterwards as they were, also after an exception. The explainer
    therefore has to take everything from the model that it is given.

    Cost: 5 explanations of the images (up to 9 where the map survives shuffled weights; one more, of a single sample,
    for averages over noise), one or two plain gradients, at most 10 forward passes without a graph, memory for one or
    two more networks.

    Args:
        model: gives Evidence for images.
        images: float [b, c, *s] or a batch; the first 8 are used. Two or more different ones tell more.
        explainer: ours, or any callable that follows the protocol.
        classes: whose maps, at most the first 4; None takes the two that are most probable over the images.
        seed: of shuffled pixels and weights, and of whatever random numbers the explainer draws.

    Raises:
        GeometryError: images or maps of a wrong shape, or no such class.
        RunError: the network cannot be copied, or the explainer fails.
    """
    given = get_images(images)
    if not isinstance(given, Tensor) or given.ndim < 3 or not given.is_floating_point() or len(given) == 0:
        shown = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise GeometryError(f"Images must be float [b, c, *s] with b at least 1; got {shown}.")
    with torch.inference_mode(False), torch.enable_grad(), fork_rng(seed, given.device):
        return _Checks(unwrap_model(model), given[:MOST_IMAGES].detach().clone(), explainer, seed).run(classes)


class _Checks:
    """One pre-flight: the network, the images and what they have in common."""

    def __init__(self, model: nn.Module, images: Tensor, explainer: Explainer, seed: int) -> None:
        self.original = model
        self.images = images
        self.explainer = explainer
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)
        self.noise = _shuffle_pixels(images, self.generator)

    def run(self, classes: Sequence[int] | None) -> Preflight:
        network = self.copy_network()
        looked_at = self.choose_classes(network, classes)
        traces = StateSnapshot(network)
        maps = self.explain(network, self.images, looked_at)
        left = judge_traces(traces.differences())
        # what an explainer leaves on a network shall not disturb the other checks
        network = self.copy_network()
        flat = _flatten_maps(maps)
        has = count_activations(network, self.images[:1])
        findings = [
            judge_blankness(flat, looked_at, classes is not None),
            self.image(network, flat, looked_at, is_blind_deconvolution(self.explainer, has)),
            self.weights(flat, looked_at),
            judge_class(flat, looked_at),
            check_about_activations(self.explainer, network, self.images, looked_at, has),
            compare_plain_gradient(self.explainer, network, self.images, looked_at, maps),
            left,
        ]
        if self.original.training:
            findings.append(
                CheckResult(
                    "mode",
                    "note",
                    "The network is in training mode; it was checked in evaluation mode, as it would be used.",
                    "Call eval() before maps are shown: else a map depends on the other images of its batch.",
                )
            )
        return Preflight(tuple(f for f in findings if f is not None), maps.detach(), tuple(looked_at))

    def copy_network(self) -> nn.Module:
        """A copy of the network, in evaluation mode."""
        try:
            return copy.deepcopy(self.original).eval()
        except (RuntimeError, TypeError) as error:
            raise RunError(
                f"The network cannot be copied: {error}",
                "Remove results of earlier calls, and other objects that cannot be copied, from its attributes.",
            ) from error

    def choose_classes(self, network: nn.Module, classes: Sequence[int] | None) -> list[int]:
        """The classes asked for and, beside a single one, the most probable other; or the two most probable."""
        with torch.no_grad():
            logits = get_logits(find_scorer(network)(self.images))
        likely = logits.float().softmax(1).mean(0).argsort(descending=True).tolist()
        asked = [int(c) for c in classes] if classes is not None else likely[:2]
        if not asked or min(asked) < 0 or max(asked) >= len(likely):
            raise GeometryError(f"Classes {asked} are not all among 0 to {len(likely) - 1}.")
        if len(asked) == 1:
            asked += [c for c in likely if c != asked[0]][:1]
        return asked[:MOST_CLASSES]

    def explain(self, network: nn.Module, images: Tensor, classes: Sequence[int]) -> Tensor:
        """Maps [b, n, *m], with random numbers that are the same at each call."""
        with fork_rng(self.seed, images.device):
            try:
                if isinstance(self.explainer, InputGradient):
                    # the same without refusing activations that the rule misses: they are a finding here
                    maps = self.explainer.explain_by_rule(network, images.clone(), list(classes))[0]
                else:
                    maps = self.explainer(network, images.clone(), list(classes))
            except SightlineError:
                raise
            except Exception as error:
                raise RunError(
                    f"The explainer failed: {type(error).__name__}: {error}",
                    "It is called with copies of the network, and has to take everything from the one it is given.",
                ) from error
        wanted = (len(images), len(classes))
        if not isinstance(maps, Tensor) or maps.ndim < 3 or maps.shape[:2] != wanted:
            shown = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
            raise GeometryError(f"The explainer must give maps [{wanted[0]}, {wanted[1]}, *m]; got {shown}.")
        return maps

    def image(self, network: nn.Module, flat: Array, classes: Sequence[int], blind: bool) -> CheckResult:
        """Maps of different images, and of images and the same grey values in random order."""
        noisy = _flatten_maps(self.explain(network, self.noise, classes))
        first, second = np.triu_indices(len(flat), k=1)
        n = flat.shape[1]
        pairs = [correlate(flat[first, j], flat[second, j]) for j in range(n)] if len(first) else []
        apart = [compute_relative_difference(flat[first, j], flat[second, j]) for j in range(n)] if len(first) else []
        pictures = self.images.flatten(1).double().cpu().numpy()
        return judge_image(
            ImageLikeness(
                maps=average_known(np.concatenate(pairs)) if pairs else float("nan"),
                maps_apart=average_known(np.concatenate(apart)) if apart else float("nan"),
                noise=average_known(np.concatenate([correlate(flat[:, j], noisy[:, j]) for j in range(n)])),
                noise_apart=average_known(
                    np.concatenate([compute_relative_difference(flat[:, j], noisy[:, j]) for j in range(n)])
                ),
                pictures=average_known(correlate(pictures[first], pictures[second])) if pairs else float("nan"),
            ),
            blind,
        )

    def weights(self, flat: Array, classes: Sequence[int]) -> CheckResult:
        """Shuffled weights: the head, the upper half of the layers, all (a cascade); all again if the map survives."""
        network = self.copy_network()
        order = list_layers_in_order(network, self.images)
        if not order:
            return CheckResult("weights", "note", "The network has no weights.")
        both = torch.cat([self.images, self.noise])
        likeness: list[float] = []
        done = len(order)
        for first in dict.fromkeys((len(order) - 1, len(order) // 2, 0)):
            randomise_weights(network, order[first:done], both, self.generator)
            done = first
            likeness.append(self.compare_with_original(network, flat, classes))
        cascade, whole = likeness, [likeness[-1]]
        while len(whole) < MOST_SHUFFLES and min(whole) > SAME_WITHOUT_WEIGHTS:
            network = self.copy_network()
            randomise_weights(network, order, both, self.generator)
            whole.append(self.compare_with_original(network, flat, classes))
        return judge_weights(cascade, whole)

    def compare_with_original(self, network: nn.Module, flat: Array, classes: Sequence[int]) -> float:
        """How much a network's maps are like the original ones."""
        maps = _flatten_maps(self.explain(network, self.images, classes))
        return average_known(np.concatenate([correlate(flat[:, j], maps[:, j]) for j in range(flat.shape[1])]))


def _flatten_maps(maps: Tensor) -> Array:
    """[b, n, cells] for numpy."""
    values: Array = maps.detach().flatten(2).double().cpu().numpy()
    return values


def _shuffle_pixels(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image's pixels in random order, channels together; uniform noise for an image of a single value."""
    flat = images.flatten(2).clone()
    for i, image in enumerate(flat):
        if bool((image == image[:, :1]).all()):
            flat[i] = torch.rand(image.shape, generator=generator, dtype=torch.float32).to(image)
        else:
            flat[i] = image[:, torch.randperm(image.shape[1], generator=generator).to(image.device)]
    return flat.view_as(images)
