"""How far readers agree: each pair, each reader with themselves, all together; with intervals over patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from sightline.metrics.agreement.icc import (
    FORMS,
    Form,
    collect_patient_sums,
    compute_correlation_of_sums,
    intraclass_correlation,
)
from sightline.metrics.agreement.kappa import Weighting, cohen_kappa, fleiss_kappa, krippendorff_alpha
from sightline.metrics.agreement.masks import dice, iou, measure_rim_distances
from sightline.metrics.agreement.staple import staple
from sightline.metrics.estimate import Estimate, FloatArray
from sightline.metrics.statistics.bootstrap import Resample, compute_interval

GRID = 64
_MASK_MEASURES = ("Dice", "IoU", "Hausdorff", "Hausdorff 95", "mean rim distance")


@dataclass(frozen=True, eq=False)
class Reading:
    """What one reader said of one study.

    Attributes:
        reader: who.
        number: of the pass, from 1.
        study: which.
        patient: whose.
        label: class name, or None where none was asked.
        confidence: 0 to 100, or None.
        masks: by image, the union of the reader's marks on the image's grid; an image without a mark is all False.
        spacing_mm: of each image, where known.
    """

    reader: str
    number: int
    study: str
    patient: str
    label: str | None = None
    confidence: float | None = None
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    spacing_mm: Mapping[str, tuple[float, ...] | None] = field(default_factory=dict)


@dataclass(frozen=True)
class AgreementRow:
    """One number of the table.

    Attributes:
        pair: the readers, e.g. `ada, ben`; `ada 1, ada 2` of two passes; `all`.
        what: of what: `label`, `confidence`, `marks`.
        estimate: the number, its interval over patients, its counts.
    """

    pair: str
    what: str
    estimate: Estimate


def build_agreement_table(
    readings: Sequence[Reading], classes: Sequence[str], *, replicates: int = 2000, seed: int = 0
) -> list[AgreementRow]:
    """All numbers of agreement that readings allow.

    Between readers the first pass counts; within a reader the first against the second.

    Args:
        readings: of all readers, each study once a reader and pass.
        classes: class names in order (of distance, for weighted kappa).
        replicates: of the bootstrap.
        seed: of the draws.
    """
    by_key = {(r.reader, r.number, r.study): r for r in readings}
    readers = sorted({r.reader for r in readings})
    rows: list[AgreementRow] = []
    for first, second in combinations(readers, 2):
        pairs = _pair_readings(by_key, (first, 1), (second, 1))
        rows += _pair_rows(f"{first}, {second}", pairs, classes, replicates, seed)
    for reader in readers:
        pairs = _pair_readings(by_key, (reader, 1), (reader, 2))
        rows += _pair_rows(f"{reader} 1, {reader} 2", pairs, classes, replicates, seed)
    rows += _build_joint_rows(by_key, readers, classes, replicates, seed)
    return rows


def compute_study_dice(readings: Sequence[Reading]) -> dict[str, float]:
    """Mean Dice of all pairs of readers and images of each study (first pass): what studies are sorted by."""
    found: dict[str, list[float]] = {}
    studies = sorted({r.study for r in readings})
    for study in studies:
        own = [r for r in readings if r.study == study and r.number == 1]
        for a, b in combinations(own, 2):
            values = [dice(a.masks[key], b.masks[key]) for key in a.masks if key in b.masks]
            found.setdefault(study, []).extend(values)
    return {study: float(np.mean(values)) for study, values in found.items() if values}


def estimate_over_patients(
    name: str, patients: Sequence[str], value: Callable[[FloatArray], float], n: Mapping[str, int], *,
    replicates: int = 2000, seed: int = 0, method: str = "",
) -> Estimate:  # fmt: skip
    """A number with its bootstrap interval over patients.

    Args:
        name: what it is called.
        patients: patient of each row.
        value: the number under weights of rows [n].
        n: counts to report.
        replicates: of the bootstrap.
        seed: of the draws.
        method: how the number itself is made.
    """
    counts = dict(n) | {"patients": len(set(patients))}
    if not patients:
        return Estimate(name, None, n=counts, method=method, why="not defined: no study was read by both")
    own = value(np.ones(len(patients)))
    if not np.isfinite(own):
        return Estimate(name, None, n=counts, method=method, why="not defined: there is nothing to tell apart")
    resample = Resample.draw(patients, replicates, seed)
    drawn = np.array([value(row[resample.patient].astype(np.float64)) for row in resample.counts])
    found = compute_interval(float(own), drawn, resample.patients, seed)
    words = ", ".join(word for word in (method, found.method) if word)
    return Estimate(name, float(own), found.low, found.high, counts, words, found.why)


def _pair_readings(
    by_key: Mapping[tuple[str, int, str], Reading], first: tuple[str, int], second: tuple[str, int]
) -> list[tuple[Reading, Reading]]:
    studies = sorted(study for reader, number, study in by_key if (reader, number) == first)
    return [(by_key[(*first, s)], by_key[(*second, s)]) for s in studies if (*second, s) in by_key]


def _pair_rows(
    pair: str, pairs: Sequence[tuple[Reading, Reading]], classes: Sequence[str], replicates: int, seed: int
) -> list[AgreementRow]:
    rows: list[AgreementRow] = []
    index = {name: i for i, name in enumerate(classes)}
    labelled = [(a, b) for a, b in pairs if a.label in index and b.label in index]
    if labelled:
        first, second = (np.array([index[str(r.label)] for r in side]) for side in zip(*labelled, strict=True))
        weightings: tuple[Weighting, ...] = ("none", "linear", "quadratic") if len(classes) > 2 else ("none",)
        for weighting in weightings:
            name = "Cohen's kappa" + ("" if weighting == "none" else f", {weighting} weights")

            def compute_kappa(w: FloatArray, weighting: Weighting = weighting) -> float:
                return cohen_kappa(first, second, len(classes), weighting=weighting, weights=w)

            patients = [a.patient for a, _ in labelled]
            estimate = estimate_over_patients(
                name, patients, compute_kappa, {"studies": len(labelled)}, replicates=replicates, seed=seed
            )
            rows.append(AgreementRow(pair, "label", estimate))
    sure = [(a, b) for a, b in pairs if a.confidence is not None and b.confidence is not None]
    if len(sure) > 1:
        numbers = np.array([[float(r.confidence or 0.0) for r in both] for both in sure])
        rows.append(
            _build_icc_row(pair, "confidence", numbers, [a.patient for a, _ in sure], "ICC(2,1)", replicates, seed)
        )
    return rows + _build_mask_rows(pair, pairs, replicates, seed)


def _build_mask_rows(
    pair: str, pairs: Sequence[tuple[Reading, Reading]], replicates: int, seed: int
) -> list[AgreementRow]:
    """Overlap and distances over images; both empty counts 1 and is counted apart.

    Distances are in mm where the spacing of every image with both marks is known, else all of them are in pixels.
    """
    values: dict[str, list[float]] = {name: [] for name in _MASK_MEASURES}
    patients: dict[str, list[str]] = {name: [] for name in _MASK_MEASURES}
    empty = one_empty = images = 0
    without = _count_without_spacing(pairs)
    for a, b in pairs:
        for key in sorted(a.masks.keys() & b.masks.keys()):
            first, second = a.masks[key], b.masks[key]
            images += 1
            empty += not (first.any() or second.any())
            one_empty += bool(first.any()) != bool(second.any())
            found = {"Dice": dice(first, second), "IoU": iou(first, second)}
            if first.any() and second.any():
                rims = measure_rim_distances(first, second, None if without else a.spacing_mm.get(key))
                found |= dict(zip(_MASK_MEASURES[2:], (rims.hausdorff, rims.hausdorff_95, rims.mean), strict=True))
            for name, value in found.items():
                values[name].append(value)
                patients[name].append(a.patient)
    if images == 0:
        return []
    rows = []
    counts = {"images": images, "both empty": empty, "one empty": one_empty}
    for name in _MASK_MEASURES:
        numbers = np.array(values[name])
        if numbers.size == 0:
            continue

        def average(w: FloatArray, numbers: FloatArray = numbers) -> float:
            return float(w @ numbers / w.sum()) if w.sum() > 0 else float("nan")

        title, n = name, counts | {"counted": int(numbers.size)}
        if name not in ("Dice", "IoU"):
            title = f"{name} ({'px' if without else 'mm'})"
            n |= {"without spacing": without} if without else {}
        estimate = estimate_over_patients(title, patients[name], average, n, replicates=replicates, seed=seed)
        rows.append(AgreementRow(pair, "marks", estimate))
    return rows


def _count_without_spacing(pairs: Sequence[tuple[Reading, Reading]]) -> int:
    """How many images that both marked have no known spacing."""
    both = [
        (a, key)
        for a, b in pairs
        for key in a.masks.keys() & b.masks.keys()
        if a.masks[key].any() and b.masks[key].any()
    ]
    return sum(a.spacing_mm.get(key) is None for a, key in both)


def _build_joint_rows(
    by_key: Mapping[tuple[str, int, str], Reading], readers: Sequence[str], classes: Sequence[str], replicates: int,
    seed: int,
) -> list[AgreementRow]:  # fmt: skip
    if len(readers) < 2:
        return []
    studies = sorted({study for _, number, study in by_key if number == 1})
    index = {name: i for i, name in enumerate(classes)}
    grid = [[by_key.get((reader, 1, study)) for reader in readers] for study in studies]
    rows: list[AgreementRow] = []
    labels = np.array([[index.get(str(r.label), np.nan) if r else np.nan for r in line] for line in grid], dtype=float)
    patients = [next(r.patient for r in line if r is not None) for line in grid]
    several = np.isfinite(labels).sum(axis=1) > 1
    if several.any():
        chosen = labels[several]
        own = [p for p, keep in zip(patients, several, strict=True) if keep]

        def compute_alpha(w: FloatArray) -> float:
            return krippendorff_alpha(chosen.T, weights=w)

        n = {"studies": int(several.sum()), "readers": len(readers)}
        estimate = estimate_over_patients(
            "Krippendorff's alpha", own, compute_alpha, n, replicates=replicates, seed=seed
        )
        rows.append(AgreementRow("all", "label", estimate))
        whole = chosen[np.isfinite(chosen).all(axis=1)].astype(int)
        if len(whole) and len(readers) > 2:
            counts = np.stack([(whole == k).sum(axis=1) for k in range(len(classes))], axis=1)
            everybody = np.isfinite(labels).all(axis=1)
            theirs = [p for p, keep in zip(patients, everybody, strict=True) if keep]

            def compute_fleiss(w: FloatArray) -> float:
                return fleiss_kappa(counts, weights=w)

            n = {"studies": len(whole), "readers": len(readers)}
            estimate = estimate_over_patients(
                "Fleiss' kappa", theirs, compute_fleiss, n, replicates=replicates, seed=seed
            )
            rows.append(AgreementRow("all", "label", estimate))
    return rows + _build_density_rows(grid, replicates, seed) + _build_staple_rows(grid, readers, replicates, seed)


def _build_density_rows(grid: Sequence[Sequence[Reading | None]], replicates: int, seed: int) -> list[AgreementRow]:
    """ICC of how much of each cell of a coarse grid readers marked; cells of images that all of them read."""
    cells: list[FloatArray] = []
    patients: list[str] = []
    for line in grid:
        if any(r is None for r in line):
            continue
        there = [r for r in line if r is not None]
        for key in sorted(set.intersection(*(set(r.masks) for r in there))):
            if not any(r.masks[key].any() for r in there) or there[0].masks[key].ndim != 2:
                continue
            block = np.stack([compute_density_grid(r.masks[key]).ravel() for r in there], axis=1)
            cells.append(block)
            patients += [there[0].patient] * len(block)
    if not cells:
        return []
    numbers = np.concatenate(cells)
    return [_build_icc_row("all", "marks", numbers, patients, form, replicates, seed) for form in FORMS]


def compute_density_grid(mask: NDArray[np.bool_], side: int = GRID) -> FloatArray:
    """Share of each cell that is marked, on a grid of at most `side` cells a side."""
    rows, columns = (min(side, n) for n in mask.shape)
    sums = mask.astype(np.float64)
    for axis, count in ((0, rows), (1, columns)):
        n = sums.shape[axis]
        edges = np.linspace(0.0, n, count + 1)
        total = np.concatenate([np.zeros_like(np.take(sums, [0], axis)), np.cumsum(sums, axis=axis)], axis=axis)
        whole = np.minimum(edges.astype(int), n - 1)
        part = (edges - whole).reshape(-1, *([1] * (sums.ndim - axis - 1)))
        upto = np.take(total, whole, axis) + part * np.take(sums, whole, axis)
        sums = np.diff(upto, axis=axis) / (n / count)
    return sums


def _build_icc_row(
    pair: str, what: str, numbers: FloatArray, patients: Sequence[str], form: Form, replicates: int, seed: int
) -> AgreementRow:
    found = intraclass_correlation(numbers, form)
    n = {"targets": found.targets, "readers": found.readers}
    title = form if what == "confidence" else f"{form} of marks on a grid"
    if not np.isfinite(found.value):
        n |= {"patients": len(set(patients))}
        return AgreementRow(pair, what, Estimate(title, None, n=n, why=f"not defined: {found.why}"))
    # cells of a picture and studies of a patient are no independent targets: patients are drawn
    sums = collect_patient_sums(numbers, patients)
    estimate = estimate_over_patients(
        title, list(dict.fromkeys(patients)), lambda w: compute_correlation_of_sums(w @ sums, form), n,
        replicates=replicates, seed=seed, method="Shrout and Fleiss 1979",
    )  # fmt: skip
    return AgreementRow(pair, what, replace(estimate, value=found.value))


def _build_staple_rows(
    grid: Sequence[Sequence[Reading | None]], readers: Sequence[str], replicates: int, seed: int
) -> list[AgreementRow]:
    """Each reader's sensitivity and specificity by STAPLE, image by image, as means over images."""
    values: dict[tuple[str, str], list[float]] = {}
    patients: list[str] = []
    for line in grid:
        if any(r is None for r in line):
            continue
        there = [r for r in line if r is not None]
        for key in sorted(set.intersection(*(set(r.masks) for r in there))):
            votes = np.stack([r.masks[key] for r in there])
            if not votes.any() or votes.all():
                continue
            found = staple(votes)
            patients.append(there[0].patient)
            for i, reader in enumerate(readers):
                values.setdefault((reader, "sensitivity"), []).append(float(found.sensitivity[i]))
                values.setdefault((reader, "specificity"), []).append(float(found.specificity[i]))
    rows = []
    for (reader, name), numbers in values.items():
        array = np.array(numbers)

        def average(w: FloatArray, array: FloatArray = array) -> float:
            return float(w @ array / w.sum()) if w.sum() > 0 else float("nan")

        n = {"images": len(array)}
        estimate = estimate_over_patients(f"STAPLE {name}", patients, average, n, replicates=replicates, seed=seed)
        rows.append(AgreementRow(reader, "marks", estimate))
    return rows
