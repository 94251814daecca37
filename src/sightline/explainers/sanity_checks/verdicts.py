"""Numbers of the pre-flight checks put into words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline.explainers.sanity_checks.findings import (
    NEARLY_SAME_FOR_ALL_CLASSES,
    NEARLY_SAME_FOR_ALL_IMAGES,
    NEARLY_SAME_WITHOUT_HEAD,
    NEARLY_SAME_WITHOUT_WEIGHTS,
    SAME_FOR_ALL_CLASSES,
    SAME_FOR_ALL_IMAGES,
    SAME_WITHOUT_WEIGHTS,
    CheckResult,
    Kind,
    Severity,
)
from sightline.explainers.sanity_checks.similarity import (
    Array,
    average_known,
    compute_rank_correlation,
    correlate,
    measure_blankness,
)


def judge_blankness(flat: Array, classes: Sequence[int], asked: bool) -> CheckResult:
    """Maps [b, n, cells] that show nothing. Wrong if numbers are not finite, or a class has no map on any image.

    Of classes that nobody asked for, one may be blank on all images (the normal class of a network with one map).
    """
    found = [measure_blankness(flat[:, j]) for j in range(flat.shape[1])]
    everywhere = measure_blankness(flat.reshape(-1, flat.shape[2]))
    numbers = {
        "zero": everywhere.zero,
        "constant": everywhere.constant,
        "not_finite": everywhere.not_finite,
        "cells": float(flat.shape[2]),
    }
    if everywhere.total == 0:
        return CheckResult(
            "blank", "ok", f"All maps show something ({flat.shape[0] * flat.shape[1]} looked at).", "", numbers
        )
    parts = [
        f"of class {c}, {_format_percent(b.zero)} are zero everywhere, "
        f"{_format_percent(b.constant)} have one value everywhere, "
        f"{_format_percent(b.not_finite)} hold numbers that are not finite"
        for c, b in zip(classes, found, strict=True)
        if b.total > 0
    ]
    lost = [b.total == 1 for b in found]
    wrong = everywhere.not_finite > 0 or all(lost) or (asked and any(lost))
    message = "Maps show nothing: " + "; ".join(parts) + "."
    if flat.shape[2] == 1:
        message += " They have a single cell, which cannot say where."
        remedy = "Use larger images or an earlier layer."
    elif everywhere.not_finite > 0:
        remedy = "Look for overflow: half precision, or a network that diverged."
    else:
        remedy = "A blank map means that no place speaks for this class, not that the picture is normal."
        remedy += " Show another class, or keep both signs." if wrong else ""
    return CheckResult("blank", "wrong" if wrong else "note", message, remedy, numbers)


@dataclass(frozen=True)
class ImageLikeness:
    """Correlations and relative differences, averaged; NaN where unknown.

    Attributes:
        maps: between maps of different pictures.
        maps_apart: their difference.
        noise: between maps of pictures and of the same grey values in random order.
        noise_apart: their difference.
        pictures: between the pictures themselves.
    """

    maps: float
    maps_apart: float
    noise: float
    noise_apart: float
    pictures: float

    @property
    def told(self) -> str:
        """In words."""
        message = f"with the grey values in random order a map keeps a correlation of {self.noise:.3f} "
        message += f"(difference {_format_percent(self.noise_apart)})"
        if not math.isnan(self.maps):
            message += f"; maps of different pictures correlate by {self.maps:.3f} (difference "
            message += f"{_format_percent(self.maps_apart)}), the pictures themselves by {self.pictures:.2f}"
        return message + ". 1 is the same."


def judge_image(like: ImageLikeness, blind: bool) -> CheckResult:
    """Whether maps differ between images, and between images and noise.

    Args:
        like: how much they are alike.
        blind: deconvolution without max-pooling: no way from image to map but gates.
    """
    numbers = {
        "between_images": like.maps,
        "difference_between_images": like.maps_apart,
        "image_and_noise": like.noise,
        "difference_image_and_noise": like.noise_apart,
        "between_images_themselves": like.pictures,
    }
    known = [value for value in (like.maps, like.noise) if not math.isnan(value)]
    if not known:
        return _build_empty_result("image", numbers)
    # similar pictures may well have similar maps, but noise may not have them too
    least = min(known)
    if least > SAME_FOR_ALL_IMAGES or (blind and max(known) > NEARLY_SAME_FOR_ALL_IMAGES):
        remedy = "It says nothing about this patient: do not show it and do not train on it. Use another explainer."
        if blind:
            remedy = f"{_BLIND} {_INSTEAD}"
        return CheckResult("image", "wrong", f"Every picture gets the same map: {like.told}", remedy, numbers)
    if blind:
        return CheckResult(
            "image", "note", f"The map follows the picture a little: {like.told}", _BLIND + " " + _INSTEAD, numbers
        )
    if least > NEARLY_SAME_FOR_ALL_IMAGES:
        remedy = "Expected of a network that is not trained; from a trained one, compare with another explainer."
        return CheckResult("image", "note", f"The map hardly depends on the picture: {like.told}", remedy, numbers)
    if like.maps > max(NEARLY_SAME_FOR_ALL_IMAGES, like.pictures):
        remedy = "Show pictures that differ more; if their maps stay alike, the map says little about a patient."
        message = f"These pictures get nearly the same map, more alike than they are: {like.told}"
        return CheckResult("image", "note", message, remedy, numbers)
    return CheckResult("image", "ok", f"The map follows the picture: {like.told}", "", numbers)


_BLIND = (
    "Deconvolution sees the picture through max-pooling only, and this network has none; gates let a little through."
)
_INSTEAD = "Use the rule guided or vanilla, or Grad-CAM."


def judge_weights(cascade: Sequence[float], whole: Sequence[float]) -> CheckResult:
    """Likeness to maps of shuffled networks: from the head downwards, ending with all; and all, each time anew."""
    least = min(whole)
    numbers = {"head": cascade[0], "all": least, "shuffles_of_all": float(len(whole))}
    if len(cascade) > 2:
        numbers["upper_half"] = cascade[1]
    if math.isnan(least):
        return _build_empty_result("weights", numbers)
    steps = ("the last layer", "the upper half", "all layers")
    shown = list(zip(steps if len(cascade) == 3 else (steps[0], steps[2]), (*cascade[:-1], least), strict=False))
    message = "with the weights shuffled, maps keep a correlation (1: unchanged) of "
    message += ", ".join(f"{r:.2f} ({name})" for name, r in shown) + "."
    if least > SAME_WITHOUT_WEIGHTS:
        return CheckResult(
            "weights",
            "wrong",
            f"The map does not depend on what the network has learned: {message}",
            "It shows the picture's own edges or the network's grid, or an explainer that does not use the network it "
            "is given. Use another explainer.",
            numbers,
        )
    if least > NEARLY_SAME_WITHOUT_WEIGHTS:
        return CheckResult(
            "weights",
            "note",
            f"Much of the map is there without anything learned: {message}",
            "Compare with Grad-CAM before reading detail into it.",
            numbers,
        )
    if cascade[0] > NEARLY_SAME_WITHOUT_HEAD:
        return CheckResult(
            "weights",
            "note",
            f"The map hardly depends on the last layer, the one that tells classes apart: {message}",
            "It shows what the network sees rather than what it decides on.",
            numbers,
        )
    return CheckResult("weights", "ok", f"The map depends on the network's weights: {message}", "", numbers)


def judge_class(flat: Array, classes: Sequence[int]) -> CheckResult:
    """Likeness of an image's maps [b, n, cells] for different classes."""
    if flat.shape[1] < 2:
        return CheckResult("class", "ok", "There is only one class.")
    first, second = np.triu_indices(flat.shape[1], k=1)
    likeness = [average_known(correlate(flat[:, i], flat[:, j])) for i, j in zip(first, second, strict=True)]
    ranks = [
        average_known(compute_rank_correlation(flat[:, i], flat[:, j])) for i, j in zip(first, second, strict=True)
    ]
    known = [r for r in likeness if not math.isnan(r)]
    numbers = {"between_classes": min(known, default=math.nan), "ranks_between_classes": min(ranks)}
    if not known:
        return _build_empty_result("class", numbers)
    r = min(known)
    more = " or more" if len(known) > 1 else ""
    message = (
        f"an image's maps for classes {', '.join(map(str, classes))} correlate by {r:.3f}{more}; 1 is the same map."
    )
    severity: Severity = "ok"
    if r > SAME_FOR_ALL_CLASSES:
        severity, lead = "wrong", "Every class gets the same map"
    elif r > NEARLY_SAME_FOR_ALL_CLASSES:
        severity, lead = "note", "The map hardly depends on the class"
    else:
        lead = "The map depends on the class"
    remedy = "" if severity == "ok" else "It must not be read as evidence for one finding rather than another."
    return CheckResult("class", severity, f"{lead}: {message}", remedy, numbers)


def judge_traces(left: Sequence[str]) -> CheckResult:
    """What an explainer left on the network."""
    if not left:
        return CheckResult("traces", "ok", "The explainer leaves the network as it was.")
    return CheckResult(
        "traces",
        "wrong",
        f"The explainer leaves the network changed: {', '.join(left)}.",
        "Later predictions, maps or training steps may be spoilt. Undo the changes in `finally`.",
        {"changes": float(len(left))},
    )


def _build_empty_result(kind: Kind, numbers: dict[str, float]) -> CheckResult:
    return CheckResult(kind, "note", "Could not be judged: the maps show nothing.", "", numbers)


def _format_percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.095 or share == 0 else f"{100 * share:.2g}%"
