"""Studies as the examples of a training: what one network says of a study's views, joined and differentiable."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sightline.structures.case import is_normal
from sightline.structures.joined_views import JoinViews


def find_normal_class(classes: tuple[str, ...]) -> int | None:
    """Position of the class without a finding, or None."""
    return next((k for k, name in enumerate(classes) if is_normal(name)), None)


def join_logits(logits: Tensor, studies: Tensor, how: JoinViews, normal: int | None = None) -> Tensor:
    """Every view's logits replaced by those of its study (`structures/joined_views.py`).

    All views of a study get the same gradient as one answer: with `maximum` it goes to the view that says most.

    Args:
        logits: [b, k].
        studies: int64 [b]; views of one study share a number.
        how: not `none`.
        normal: position of the class without a finding, or None.

    Returns:
        [b, k], equal in all rows of a study; the logit of the normal class is 0.
    """
    evidence = logits if normal is None else logits - logits[:, [normal]]
    found, index = torch.unique(studies, return_inverse=True)
    return torch.stack([_join_evidence(evidence[index == i], how) for i in range(len(found))])[index]


def _join_evidence(views: Tensor, how: JoinViews) -> Tensor:
    if how == "maximum":
        return views.amax(dim=0)
    if how == "mean":
        return views.mean(dim=0)
    return torch.logsumexp(views, dim=0) - torch.log(views.new_tensor(float(len(views))))


def compute_study_loss(joined: Tensor, labels: Tensor, studies: Tensor, class_weights: Tensor) -> tuple[Tensor, int]:
    """Cross-entropy of studies, each counted once however many views it has, and how many they are.

    Args:
        joined: what `join_logits` made, [b, k].
        labels: int64 [b], the same for all views of a study.
        studies: int64 [b].
        class_weights: [k].
    """
    _, index, views = torch.unique(studies, return_inverse=True, return_counts=True)
    losses = cross_entropy(joined, labels, reduction="none") * class_weights[labels] / views[index]
    return losses.sum() / len(views), len(views)


def select_one_view_each(studies: Tensor) -> Tensor:
    """Positions of the first view of every study, in order of the studies' first views: int64 [s]."""
    seen: dict[int, int] = {}
    for place, study in enumerate(studies.tolist()):
        seen.setdefault(study, place)
    return torch.tensor(list(seen.values()), dtype=torch.int64)
