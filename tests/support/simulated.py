"""Predictions that are drawn from a known model, so that what is true is known."""

import numpy as np
from scipy.special import expit

from sightline.metrics.predictions import Predictions


def drawn(random, patients=200, images=1, slope=1.0, intercept=0.0, spread=1.5, prevalence_shift=0.0, shared=0.0):
    """Two classes: outcomes follow the true log odds; those said are such that slope and intercept are as given."""
    ids = np.repeat(np.arange(patients), images)
    odds = prevalence_shift + spread * random.normal(size=ids.size) + shared * random.normal(size=patients)[ids]
    labels = (random.random(ids.size) < expit(odds)).astype(np.int64)
    said = expit((odds - intercept) / slope)
    return predictions_of(labels, said, ids)


def predictions_of(labels, positive, patient=None, studies=None):
    """A table of two classes from labels [n] and probabilities of the second class [n]."""
    n = len(labels)
    names = tuple(f"c{i}" for i in range(n))
    patients = names if patient is None else tuple(f"p{i}" for i in patient)
    return Predictions(
        ("normal", "fracture"),
        names,
        names if studies is None else tuple(f"s{i}" for i in studies),
        patients,
        np.asarray(labels, dtype=np.int64),
        np.stack([1.0 - np.asarray(positive, dtype=float), positive], axis=1),
    )


def binormal(random, positives=50, negatives=100, separation=1.5, per_patient=1):
    """Scores of two normal groups as probabilities; AUC Phi(separation / sqrt 2)."""
    labels = np.r_[np.ones(positives, int), np.zeros(negatives, int)]
    scores = random.normal(size=labels.size) + separation * labels
    return predictions_of(labels, expit(scores - separation / 2), np.arange(labels.size) // per_patient)
