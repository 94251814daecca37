"""One answer for a study of several views: how what each view says is put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sightline.structures.case import is_normal

JoinViews = Literal["none", "mean", "maximum", "log_sum_exp"]
FloatArray = NDArray[np.float64]

# log of a probability of nought
_LEAST = 1e-300


def join_answers(
    probabilities: FloatArray, studies: Sequence[str], how: JoinViews, normal: int | None = None
) -> FloatArray:
    """Every view's answer replaced by that of its study.

    With d_c = log p_c - log p_normal, the evidence of one view for finding c, the study's is the `mean` of its views,
    their `maximum` (one view that shows the finding is enough: the standard assumption of multiple-instance learning,
    Dietterich 1997), or between both `log_sum_exp`, log(mean(exp(d_c))): the mean of the odds (Ramon 2000). A study's
    probabilities are the softmax of its evidence. Missing views, and any number of them, change no formula.

    Args:
        probabilities: [n, k], of one view a row; rows sum to 1.
        studies: n names; views of one study share one.
        how: `none` leaves every view its own answer.
        normal: position of the class without a finding, or None: evidence is then the log probability itself.

    Returns:
        [n, k], equal in all rows of a study.

    Example:
        >>> join_answers(np.array([[0.9, 0.1], [0.2, 0.8]]), ["a", "a"], "maximum", 0).round(3).tolist()
        [[0.2, 0.8], [0.2, 0.8]]
    """
    if how == "none":
        return probabilities
    evidence = np.log(probabilities.clip(_LEAST))
    if normal is not None:
        evidence = evidence - evidence[:, [normal]]
    index = np.unique(np.asarray(studies), return_inverse=True)[1]
    joined = np.empty_like(evidence)
    order = np.argsort(index, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(index[order])) + 1):
        joined[rows] = _join_evidence(evidence[rows], how)
    shares = np.exp(joined - joined.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def find_showing_views(alone: FloatArray, joined: FloatArray, studies: Sequence[str]) -> NDArray[np.bool_]:
    """Views on which what is called of a study is to be marked.

    These are the views that call the same class by themselves; where none does (evidence that only adds up), the view
    with the most for it.

    Args:
        alone: [n, k], what each view says.
        joined: [n, k], what its study says (`join_answers`).
        studies: n names.

    Returns:
        bool [n].

    Example:
        >>> find_showing_views(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.2, 0.8]] * 2), ["a", "a"]).tolist()
        [False, True]
    """
    called = joined.argmax(axis=1)
    showing = np.asarray(alone.argmax(axis=1) == called)
    index = np.unique(np.asarray(studies), return_inverse=True)[1]
    for study in range(int(index.max(initial=-1)) + 1):
        rows = np.flatnonzero(index == study)
        if not showing[rows].any():
            showing[rows[alone[rows, called[rows]].argmax()]] = True
    return showing


def find_normal_class(classes: Sequence[str]) -> int | None:
    """Position of the class without a finding, or None."""
    return next((k for k, name in enumerate(classes) if is_normal(name)), None)


def _join_evidence(views: FloatArray, how: JoinViews) -> FloatArray:
    """Of a study, [k], from that of its views, [v, k]."""
    highest: FloatArray = views.max(axis=0)
    if how == "maximum":
        return highest
    if how == "mean":
        return np.asarray(views.mean(axis=0))
    return np.asarray(highest + np.log(np.exp(views - highest).mean(axis=0)))
