"""How well facts about the acquisition, without the anatomy, predict the label: what a network could learn instead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.tree import DecisionTreeClassifier

from sightline.data.subset import STORAGE
from sightline.metrics.statistics.auc_intervals import compute_auc_interval
from sightline.structures.case import Case
from sightline.structures.identifiers import blank_placeholders

FOLDS = 5
RESAMPLES = 500
MIN_CASES = 40
MAX_CLASSES = 10
MAX_LEVELS = 20
LABEL_FACTS = frozenset({"grade", "deformity"})
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Shortcut:
    """Cross-validated AUC of predicting the label from `facts` alone, with its 95% interval."""

    facts: str
    auc: float
    low: float
    high: float


@dataclass(frozen=True)
class OneClassFact:
    """A value of a fact that was only ever seen with one class."""

    fact: str
    value: str
    label: str
    case_ids: tuple[str, ...]
    patients: int


def build_fact_columns(
    cases: Sequence[Case], measures: Mapping[str, FloatArray], storages: Sequence[str] = ()
) -> dict[str, FloatArray]:
    """Acquisition facts as number columns: name -> [n, columns].

    Args:
        cases: whose facts are told.
        measures: what was measured on their pictures: name -> [n, numbers].
        storages: how each picture is stored, where that is known.

    Texts become one column a value (the 20 most frequent); facts that are all numbers, with more than two values,
    stay numbers. Facts that never vary are left out.
    """
    columns = dict(measures)
    texts = {"view": [case.view for case in cases]} | ({STORAGE: [*storages]} if storages else {})
    texts |= {name: blank_placeholders([c.facts.get(name, "") for c in cases]) for name in list_fact_names(cases)}
    for name, values in texts.items():
        name = f"fact {name}" if name in columns or (name == "view" and "view" in columns) else name
        levels, counts = np.unique(values, return_counts=True)
        if len(levels) < 2:
            continue
        numbers = _parse_numbers(values) if len(levels) > 2 else None
        if numbers is not None:
            columns[name] = numbers[:, None]
        else:
            frequent = levels[np.argsort(-counts, kind="stable")][:MAX_LEVELS]
            columns[name] = (np.array(values)[:, None] == frequent[None, :]).astype(np.float64)
    return {name: values for name, values in columns.items() if (values != values[0]).any()}


def _parse_numbers(values: Sequence[str]) -> FloatArray | None:
    """The values as floats (-1 below all others where empty), or None where one is no number."""
    try:
        numbers = np.array([float(v) if v else np.nan for v in values])
    except ValueError:
        return None
    known = numbers[~np.isnan(numbers)]
    if not np.isfinite(known).all() or not len(known):
        return None
    return np.where(np.isnan(numbers), known.min() - 1.0, numbers)


def rank_shortcuts(
    columns: Mapping[str, FloatArray],
    labels: NDArray[np.int64],
    patients: Sequence[str],
    seed: int = 0,
    processes: int = 1,
) -> list[Shortcut]:
    """AUC of all facts together (random forest, called `all facts`) and of each alone (tree of depth 3).

    Five folds grouped by patient; AUC is one class against the rest on the pooled out-of-fold scores, averaged over
    the classes (the ten most frequent). The 95% interval of two classes is that of every AUC here (binormal, clustered
    by patient: `metrics.statistics.auc_intervals`); of more classes, the percentile bootstrap over patients of their
    mean, 500 resamples.
    Empty when there are fewer than 40 cases, or a class with fewer than five patients.
    """
    group = np.unique(np.asarray(patients), return_inverse=True)[1]
    classes, counts = np.unique(labels, return_counts=True)
    classes = np.sort(classes[np.argsort(-counts, kind="stable")][:MAX_CLASSES])
    few = any(len(np.unique(group[labels == c])) < FOLDS for c in classes)
    if len(labels) < MIN_CASES or len(classes) < 2 or few or not columns:
        return []
    folds = list(
        StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels, group)
    )
    # the sample itself, and resamples of patients where the mean of several AUCs needs them
    weights = _draw_patient_weights(group, seed) if len(classes) > 2 else np.ones((1, len(group)), dtype=np.uint16)
    found = []
    everything = {"all facts": np.concatenate(list(columns.values()), axis=1)} | dict(columns)
    for name, values in everything.items():
        scores = _predict_out_of_fold(
            values, labels, classes, folds, forest=name == "all facts", seed=seed, jobs=processes
        )
        if scores is None:
            return []
        shown = classes[-1:] if len(classes) == 2 else classes  # with two classes both say the same
        aucs = np.mean(
            [compute_weighted_auc(scores[:, list(classes).index(c)], labels == c, weights) for c in shown], axis=0
        )
        if len(classes) == 2:
            low, high = compute_auc_interval(scores[None, :, -1], labels == classes[-1], group)
        else:
            low, high = np.nanpercentile(aucs[1:], [2.5, 97.5])
        found.append(Shortcut(name, float(aucs[0]), float(low), float(high)))
    return found


def _predict_out_of_fold(
    values: FloatArray,
    labels: NDArray[np.int64],
    classes: NDArray[np.int64],
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    *,
    forest: bool,
    seed: int,
    jobs: int = 1,
) -> FloatArray | None:
    """Probabilities [n, classes] of each case from a model that saw no image of its patient; None if not possible."""
    scores = np.zeros((len(labels), len(classes)))
    leaf = max(5, len(labels) // 100)
    for fit, held in folds:
        model = (
            RandomForestClassifier(100, min_samples_leaf=leaf, random_state=seed, n_jobs=jobs)
            if forest
            else DecisionTreeClassifier(max_depth=3, min_samples_leaf=leaf, random_state=seed)
        )
        model.fit(values[fit], labels[fit])
        if not set(classes) <= set(model.classes_):
            return None
        if forest:
            model.set_params(n_jobs=1)  # threads would add up the trees in any order, and ties would fall otherwise
        scores[held] = model.predict_proba(values[held])[:, np.searchsorted(model.classes_, classes)]
    return scores


def _draw_patient_weights(group: NDArray[np.int64], seed: int) -> NDArray[np.uint16]:
    """How often each case counts: [1 + resamples, n]; the first row is the sample itself."""
    random = np.random.default_rng(seed)
    n = int(group.max()) + 1
    weights = np.ones((1 + RESAMPLES, len(group)), dtype=np.uint16)
    for row in weights[1:]:  # row by row: the draws of 100,000 patients at once would take 400 MB
        row[:] = random.multinomial(n, np.full(n, 1.0 / n))[group]
    return weights


def compute_weighted_auc(
    scores: FloatArray, positive: NDArray[np.bool_], weights: NDArray[np.number], rows: int = 16
) -> FloatArray:
    """Area under the ROC curve [r] of scores [n] under weights [r, n]; ties count half; NaN without both classes.

    Args:
        scores: float64 [n].
        positive: bool [n].
        weights: how often each case counts, [r, n].
        rows: how many rows of weights are worked on at a time; bounds the memory.
    """
    levels, level = np.unique(scores, return_inverse=True)
    order = np.argsort(level, kind="stable")
    starts = np.searchsorted(level[order], np.arange(len(levels)))
    mine = positive[order]
    found = []
    for start in range(0, len(weights), rows):
        sorted_weights = weights[start : start + rows][:, order].astype(np.float64)
        above = np.add.reduceat(sorted_weights * mine, starts, axis=1)  # positives at each level [r, levels]
        below = np.add.reduceat(sorted_weights * ~mine, starts, axis=1)
        wins = (above * (np.cumsum(below, axis=1) - below / 2.0)).sum(axis=1)
        total = above.sum(axis=1) * below.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(np.where(total > 0, wins / total, np.nan))
    return np.concatenate(found)


def list_fact_names(cases: Sequence[Case]) -> list[str]:
    """Names of acquisition facts.

    Those that start with `truth_` only the drawer of a phantom knows; Genant's grade and deformity of a vertebra are
    the label in finer words.
    """
    named = {name for case in cases for name in case.facts if not name.startswith("truth_")}
    return sorted(named - LABEL_FACTS)


def find_one_class_facts(
    cases: Sequence[Case], chance: float = 0.001, storages: Sequence[str] = ()
) -> list[OneClassFact]:
    """Values of facts seen with one class only, where that many patients would hardly agree by chance.

    How pictures are stored counts as a fact where it is given. Chance is the share of that class among all cases to
    the power of the number of patients with the value.
    """
    share = {label: n / len(cases) for label, n in Counter(case.label for case in cases).items()}
    found = []
    values_of = {name: [case.facts.get(name, "") for case in cases] for name in list_fact_names(cases)}
    for name, values in (values_of | ({STORAGE: [*storages]} if storages else {})).items():
        by_value: dict[str, list[Case]] = {}
        for value, case in zip(values, cases, strict=True):
            by_value.setdefault(value, []).append(case)
        if len(by_value) < 2:
            continue
        for value, holders in sorted(by_value.items()):
            seen = {case.label for case in holders}
            patients = len({case.patient_id for case in holders})
            if len(seen) == 1 and value and share[holders[0].label] ** patients < chance:
                ids = tuple(case.case_id for case in holders)
                found.append(OneClassFact(name, value, holders[0].label, ids, patients))
    return found
