"""Whether a rule for activations reaches the network's activations, and whether it changes anything."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from sightline.errors import GeometryError
from sightline.explainers.backprop_rules.network_activations import NetworkActivations
from sightline.explainers.backprop_rules.rules import RuleRecord
from sightline.explainers.cam import ClassActivationMap, GradCAM, GradCAMPlusPlus
from sightline.explainers.gradients import InputGradient
from sightline.explainers.sanity_checks.findings import PLAIN_GRADIENT, PLAIN_GRADIENT_IN_RANKS, CheckResult
from sightline.explainers.sanity_checks.similarity import average_known, compute_rank_correlation, correlate
from sightline.structures.protocols import Explainer, find_inner_explainer, find_rule

# how people join the channels of an image's gradient [b, n, c, *s]
_REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean of positive parts": lambda g: g.clamp(min=0).mean(2),
    "greatest positive part": lambda g: g.clamp(min=0).amax(2),
    "sum of absolute values": lambda g: g.abs().sum(2),
    "greatest absolute value": lambda g: g.abs().amax(2),
    "sum": lambda g: g.sum(2),
    "positive part of the sum": lambda g: g.sum(2).clamp(min=0),
    "absolute value of the sum": lambda g: g.sum(2).abs(),
    "sum of squares": lambda g: g.square().sum(2),
}


def check_about_activations(
    explainer: Explainer, network: nn.Module, images: Tensor, classes: Sequence[int], has: NetworkActivations
) -> CheckResult | None:
    """How many activations the rule changed, by kind, and which it left alone. None for maps without a rule."""
    inner = unwrap_explainer(explainer)
    if isinstance(inner, ClassActivationMap | GradCAM | GradCAMPlusPlus):
        return None
    listed = _list_counts(has.on_maps + has.own) or "none"
    rule = find_rule(inner)
    if rule == "vanilla":
        return CheckResult("activations", "ok", f"No rule is asked for; the network's activations: {listed}.")
    rewired = _run_rewired(inner, network, images[:1], classes[:1])
    if rewired is None:
        message = f"The explainer does not say which activations it changes; the network's are: {listed}."
        return CheckResult("activations", "ok", message, "", _prefix_counts(has.on_maps + has.own, "has_"))
    left = rewired.escaped
    numbers = (
        _prefix_counts(rewired.activations, "rewired_")
        | _prefix_counts(left, "unreached_")
        | _prefix_counts(rewired.gates, "gates_")
    )
    gated = f" In squeeze gates, {_list_counts(rewired.gates)} pass gradients as they are." if rewired.gates else ""
    if rewired.total == 0:
        return CheckResult(
            "activations",
            "wrong",
            f"The rule {rule} changed no activation; the network's are: {listed}.",
            "The map is the plain gradient. Choose the rule vanilla and call it that, or use Grad-CAM.",
            numbers,
        )
    sentence = f"The rule {rule} changed {rewired.total} activations: {_list_counts(rewired.activations)}."
    if not left:
        return CheckResult("activations", "ok", sentence + gated, "", numbers)
    return CheckResult(
        "activations",
        "wrong",
        f"{sentence} It does not reach {_list_counts(left)}, which pass gradients as they are.{gated}",
        "The map lies between the rule's and the plain gradient, and is refused elsewhere. Use torch's own "
        "activations, unscripted, or the rule vanilla, or Grad-CAM.",
        numbers,
    )


def compare_plain_gradient(
    explainer: Explainer, network: nn.Module, images: Tensor, classes: Sequence[int], maps: Tensor
) -> CheckResult | None:
    """Whether a map is the plain gradient under another name. None for maps on a grid of their own."""
    inner = unwrap_explainer(explainer)
    plain = find_rule(inner) == "vanilla"
    if plain:
        return CheckResult("plain gradient", "ok", "The map is the plain gradient, as asked.")
    if maps.shape[2:] != images.shape[2:]:
        return None
    try:
        gradients, _ = InputGradient().gradients(network, images, classes)
    except GeometryError:
        return None
    own = maps if inner is explainer else inner(network, images, classes)
    likeness, ranks, how = -math.inf, -math.inf, ""
    for name, reduction in _REDUCTIONS.items():
        a, b = _flatten_cells(own), _flatten_cells(reduction(gradients))
        r, rank = average_known(correlate(a, b)), average_known(compute_rank_correlation(a, b))
        if max(r, rank) > max(likeness, ranks):
            likeness, ranks, how = r, rank, name
    if not how:
        return None
    numbers = {"correlation": likeness, "rank_correlation": ranks}
    if likeness <= PLAIN_GRADIENT and ranks <= PLAIN_GRADIENT_IN_RANKS:
        message = f"The map is not the plain gradient in disguise (correlation {likeness:.3f} at most)."
        return CheckResult("plain gradient", "ok", message, "", numbers)
    return CheckResult(
        "plain gradient",
        "wrong",
        f"The map is the plain gradient (over channels: {how}; correlation {likeness:.4f}), whatever it is called: no "
        "rule reaches the network's activations.",
        "Guided back-propagation and deconvolution need a rule for this network's activations: "
        "InputGradient(rule='guided') has one for SiLU and others. If the plain gradient is meant, give the explainer "
        "an attribute rule = 'vanilla'.",
        numbers,
    )


def is_blind_deconvolution(explainer: Explainer, has: NetworkActivations) -> bool:
    """Whether the map is deconvolution's on a network without max-pooling.

    Its rule looks at gradients only, so that nothing but the places of maxima, and gates, brings the image in.
    """
    inner = unwrap_explainer(explainer)
    sloped = isinstance(inner, InputGradient) and inner.deconvolution_slope
    keeps_slope = sloped and has.on_maps.keys() - {"relu", "relu6", "hardtanh"}
    return find_rule(inner) == "deconvolution" and not keeps_slope and has.max_pools == 0


def unwrap_explainer(explainer: Explainer) -> Any:
    """The explainer within averages over noise and the like, which hold it as `explainer`."""
    inner: Any = explainer
    while (held := find_inner_explainer(inner)) is not None:
        inner = held
    return inner


def _run_rewired(explainer: Any, network: nn.Module, images: Tensor, classes: Sequence[int]) -> RuleRecord | None:
    if isinstance(explainer, InputGradient):
        return explainer.explain_by_rule(network, images, classes)[1]
    rule = find_rule(explainer)
    if type(explainer).__module__.startswith("sightline.") and rule in ("guided", "deconvolution"):
        return InputGradient(rule).explain_by_rule(network, images, classes)[1]
    return None


def _list_counts(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))


def _prefix_counts(counts: Counter[str], prefix: str) -> dict[str, float]:
    return {prefix + kind: float(n) for kind, n in sorted(counts.items())}


def _flatten_cells(maps: Tensor) -> Any:
    return maps.detach().flatten(2).flatten(0, 1).double().cpu().numpy()
