"""Activations that a rule did not reach: read off the graph that autograd kept."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import Tensor

# autograd's name of an activation's backward -> kind
_KINDS = {
    "Relu": "relu", "Hardtanh": "hardtanh", "Silu": "silu", "Gelu": "gelu", "Hardswish": "hardswish", "Mish": "mish",
    "Elu": "elu", "Celu": "elu", "LeakyRelu": "leaky_relu", "Softplus": "softplus", "PreluKernel": "prelu",
    "RreluWithNoise": "rrelu", "Threshold": "threshold", "Softshrink": "softshrink", "Hardshrink": "hardshrink",
    "LogSigmoid": "log_sigmoid",
}  # fmt: skip
# autograd has one backward for these
_FAMILY = {"relu6": "hardtanh", "selu": "elu", "celu": "elu"}
_GATES = ("Sigmoid", "Hardsigmoid", "Tanh", "Erf", "Hardtanh", "Softplus", "_ActivationByRule")
_STEPS = (*_GATES, "Mul", "Add", "Div", "Sub", "Neg", "Clamp", "ClampMin", "Clone")
_OWN = re.compile(r"swish|silu|gelu|mish|relu|activ", re.IGNORECASE)
_SEALED = re.compile(r"DifferentiableGraph|CompiledFunction|Checkpoint", re.IGNORECASE)


def find_unruled(logits: Tensor, gates: Counter[str]) -> Counter[str]:
    """Activations between logits and image that follow no rule, by kind.

    Counts autograd's own activations other than those within squeeze gates; a map times an elementwise function of
    itself (a SiLU or Mish written out); functions with a backward of their own whose name says activation; and parts
    that cannot be looked into (scripted, compiled, recomputed by checkpoints).

    Args:
        logits: with the graph.
        gates: calls that were left on purpose, by kind (`Rewired.gates`).
    """
    found: Counter[str] = Counter()
    for node in _iterate_steps(logits):
        name = _name(node)
        if name in _KINDS:
            found[_KINDS[name]] += 1
        elif name == "Mul" and _is_written_out(node):
            found["product with itself"] += 1
        elif _SEALED.search(name) or (not name.endswith("ByRule") and _OWN.search(name)):
            found[name] += 1
    for name, calls in gates.items():
        kind = _FAMILY.get(name, name)
        # x * sigmoid(x) within a gate has no backward of its own name
        written = max(0, calls - found[kind]) if kind == "silu" else 0
        found[kind] -= calls - written
        found["product with itself"] -= written
    return +found


def has_step(logits: Tensor, name: str) -> bool:
    """Whether a step of this name lies between logits and image."""
    return any(_name(node) == name for node in _iterate_steps(logits))


def _iterate_steps(logits: Tensor) -> Iterator[Any]:
    """Every step of the graph once."""
    waiting, seen = [logits.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += [following for following, _ in node.next_functions]


def _name(node: Any) -> str:
    return re.sub(r"Backward\d*$", "", str(node.name()))


def _is_written_out(node: Any) -> bool:
    """Whether a product is of a map and an elementwise, bending function of the same map."""
    ends = node.next_functions
    if len(ends) != 2 or ends[0][0] is None or ends[1][0] is None:
        return False
    return _is_reached(ends[0], ends[1]) or _is_reached(ends[1], ends[0])


def _is_reached(gate: Any, whole: Any) -> bool:
    bent, at = False, gate
    while at[0] is not None and _name(at[0]) in _STEPS:
        bent = bent or _name(at[0]) in _GATES
        following = [end for end in at[0].next_functions if end[0] is not None]
        if len(following) != 1:
            return False
        at = following[0]
        if at == whole:
            return bent
    return False
