"""Does the network read the finding, or what goes with it? Shortcuts found by changing pictures and asking again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student
from sklearn.cluster import KMeans

from sightline.data.audit.objects import FoundObject, RecurringObject, find_objects_in_files, group_recurring_objects
from sightline.data.audit.shortcuts import list_fact_names
from sightline.errors import CohortError, count_noun
from sightline.evaluation.evidence.interventions import (
    Mask,
    Planes,
    SeenCase,
    draw_object_mask,
    erase,
    exchange_background,
    keep_only,
    paste_object,
    require_both_classes,
    require_view,
    see_case,
)
from sightline.inference.predict import build_predictions
from sightline.io.files import write_text
from sightline.io.progress import show_progress
from sightline.metrics.classification.estimates import estimate_score
from sightline.metrics.classification.report import to_markdown
from sightline.metrics.classification.scores import AUC
from sightline.metrics.decision.influence import FEWEST_PATIENTS, compute_reach, linearise_share
from sightline.metrics.estimate import Estimate
from sightline.metrics.predictions import Predictions
from sightline.structures.case import Cohort
from sightline.structures.evidence import compute_probabilities, forward_evidence
from sightline.training.engine import Engine
from sightline.training.run import Run

MOST_OBJECTS = 3
MAP_GROUPS = 5
MAP_SIDE = 12
_ERASED = "AUC, the mark erased"


@dataclass(frozen=True)
class ShortcutReport:
    """What changed pictures say.

    Attributes:
        objects: recurring small objects that go with the label, named ones first.
        estimates: AUC and mean probability under each change.
        maps: groups of places that the network looks at, in words.
        verdicts: what a reviewer would read out of it.
    """

    objects: tuple[RecurringObject, ...]
    estimates: tuple[Estimate, ...]
    maps: tuple[str, ...]
    verdicts: tuple[str, ...]

    def markdown(self, title: str) -> str:
        """A page."""
        lines = [f"# Shortcuts: {title}", "", *(f"- {verdict}" for verdict in self.verdicts), ""]
        lines += ["## Small objects that recur", ""]
        lines += [f"- {'**named** ' if o.named else ''}{o}" for o in self.objects[:MOST_OBJECTS]] or ["- none"]
        lines += ["", "## Pictures changed", "", to_markdown(self.estimates), "", "## Where it looks", ""]
        return "\n".join([*lines, *(f"- {line}" for line in self.maps), ""])


def find_shortcuts(run: Run, cohort: Cohort, *, engine: Engine | None = None) -> ShortcutReport:
    """Change the pictures of a cohort and ask a run again.

    Args:
        run: a finished run of two classes on radiographs.
        cohort: cases with marks (a finding, or where to look), e.g. its test cases.
        engine: device.

    Raises:
        RunError: a run of volumes, of crops, or of more than two classes.
        CohortError: no case is marked, or one class is missing.
    """
    view = require_view(run)
    cohort = run.recipe.see(cohort)
    require_both_classes(run, cohort)
    labels = [case.label for case in cohort]
    engine = engine or Engine()
    device = engine.find_device()
    network = run.network().to(device)
    seen: list[SeenCase] = []
    with show_progress("read", len(cohort), quiet=engine.quiet) as advance:
        for case in cohort:
            seen.append(see_case(case, view))
            advance(1)
    marks = _collect_marks(seen)
    looks: list[NDArray[np.float32] | None] = []

    def get_plain(i: int) -> Planes:
        return seen[i].planes

    def ask(change: Callable[[int], Planes | None]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Positions that a change applies to, and the probability of the last class after it."""
        rows, found = [], []
        for i in range(len(seen)):
            planes = change(i)
            if planes is None:
                continue
            evidence = forward_evidence(network, torch.from_numpy(np.ascontiguousarray(planes))[None], device)
            if change is get_plain:
                # the map of the positive class, for the groups of places
                looks.append(None if evidence.maps is None else evidence.maps[0, 1].clamp(min=0).numpy())
            rows.append(i)
            found.append(compute_probabilities(evidence.logits, independent=run.recipe.independent)[0, 1])
        return np.array(rows, dtype=np.int64), np.array(found)

    def erase_mark(i: int) -> Planes:
        # a background that kept its own finding would be read by it
        return erase(seen[i].planes, marks[i])

    plain = _build_table(cohort, ask(get_plain)[1])
    found: list[Estimate] = [estimate_score([plain], AUC(1, "AUC, pictures as they are"))]
    donors = _choose_donors(labels)
    fill = float(np.mean([s.planes.mean() for s in seen]))
    changes: dict[str, Callable[[int], Planes | None]] = {
        "AUC, all outside the mark erased": lambda i: keep_only(seen[i].planes, marks[i], fill),
        _ERASED: lambda i: erase(seen[i].planes, marks[i]),
        "AUC, the mark on a background of the other class": lambda i: exchange_background(
            seen[i].planes, marks[i], erase_mark(donors[i])
        ),
    }
    for name, change in changes.items():
        changed = _build_table(cohort, ask(change)[1])
        found.append(estimate_score([changed], AUC(1, name)))
        if name == _ERASED:
            bound = _estimate_bound_facts(cohort, changed)
    objects = group_recurring_objects(
        find_objects_in_files([case.image for case in cohort]), labels, [case.patient_id for case in cohort]
    )
    named = [o for o in objects if o.named][:MOST_OBJECTS]
    for number, o in enumerate(named, start=1):
        found += _estimate_object_effects(number, o, seen, plain, ask)
    found += bound
    return ShortcutReport(
        tuple(objects[: 2 * MOST_OBJECTS]), tuple(found), tuple(_cluster_maps(looks, seen, marks, labels)),
        tuple(_word_verdicts(found, named, bound)),
    )  # fmt: skip


def write_shortcuts(report: ShortcutReport, out: Path, title: str) -> None:
    """`shortcuts.md` and `shortcuts.json`."""
    write_text(out / "shortcuts.md", report.markdown(title))
    fields = {
        "verdicts": list(report.verdicts),
        "objects": [
            {"what": str(o), "named": o.named, "label": o.label, "share_with": o.share_with,
             "share_without": o.share_without, "p": o.p_value, "place": list(o.place)}
            for o in report.objects
        ],
        "estimates": [estimate.to_dict() for estimate in report.estimates],
        "maps": list(report.maps),
    }  # fmt: skip
    write_text(out / "shortcuts.json", json.dumps(fields, indent=1) + "\n")


def _collect_marks(seen: Sequence[SeenCase]) -> list[Mask]:
    """Each case's mark; a case without one borrows the next marked case's, so that both classes lose as much."""
    marked = [s.mark for s in seen if s.mark is not None]
    if not marked:
        raise CohortError(
            "No case is marked: nothing can be erased inside or outside of.", "Use a cohort with regions."
        )
    borrowed = iter(np.random.default_rng(0).permutation(len(seen)).tolist())
    return [s.mark if s.mark is not None else marked[next(borrowed) % len(marked)] for s in seen]


def _choose_donors(labels: Sequence[str]) -> list[int]:
    random = np.random.default_rng(1)
    others = {label: [i for i, x in enumerate(labels) if x != label] for label in set(labels)}
    return [int(random.choice(others[label])) for label in labels]


def _build_table(cohort: Cohort, positive: NDArray[np.float64]) -> Predictions:
    return build_predictions(cohort, np.stack([1.0 - positive, positive], axis=1))


def _estimate_object_effects(
    number: int,
    o: RecurringObject,
    seen: Sequence[SeenCase],
    plain: Predictions,
    ask: Callable[[Callable[[int], Planes | None]], tuple[NDArray[np.int64], NDArray[np.float64]]],
) -> list[Estimate]:
    """What erasing and pasting a named object does to the probability of the last class."""
    of_case: dict[int, list[FoundObject]] = {}
    for each in o.objects:
        of_case.setdefault(each.case, []).append(each)
    donor = seen[o.objects[0].case]

    def erase_object(i: int) -> Planes | None:
        return erase(seen[i].planes, draw_object_mask(seen[i], of_case[i])) if i in of_case else None

    def paste_object_elsewhere(i: int) -> Planes | None:
        return None if i in of_case else paste_object(seen[i], donor, [o.objects[0]])

    found = []
    for words, change in (("erased where it is", erase_object), ("pasted where it is not", paste_object_elsewhere)):
        rows, after = ask(change)
        name = f"change of p({plain.classes[1]}), object {number} {words}"
        found.append(_estimate_mean_change(name, plain, rows, after))
    return found


def _estimate_mean_change(
    name: str, plain: Predictions, rows: NDArray[np.int64], after: NDArray[np.float64]
) -> Estimate:
    patients = sorted({plain.patient_ids[i] for i in rows})
    n = {"images": len(rows), "patients": len(patients)}
    if len(patients) < 5:
        return Estimate(
            name, None, n=n, method="no mean", why=f"not defined: {count_noun(len(patients), 'patient')}, 5 needed"
        )
    change = after - plain.probabilities[rows, 1]
    owner = np.array([patients.index(plain.patient_ids[i]) for i in rows])
    of_patient = np.bincount(owner, weights=change) / np.bincount(owner)
    mean, error = float(np.mean(of_patient)), float(np.std(of_patient, ddof=1)) / math.sqrt(len(patients))
    half = float(student.ppf(0.975, len(patients) - 1)) * error
    return Estimate(name, mean, mean - half, mean + half, n, "mean over patients, t interval")


def _estimate_bound_facts(cohort: Cohort, erased: Predictions) -> list[Estimate]:
    """Facts that occur with one class only: what is said of their pictures once the mark is erased.

    A subgroup cannot tell whether such a fact is read as the class: it has no AUC. With the mark erased, pictures with
    the fact are compared with the other pictures of the same class: what is left of the answer is not the finding.
    """
    found = []
    of_positive = erased.probabilities[:, 1]
    for fact in list_fact_names(cohort.cases):
        values = [str(case.facts.get(fact, "")).strip() for case in cohort]
        known = {value for value in values if value}
        if not 2 <= len(known) <= MAP_GROUPS:
            continue
        for value in sorted(known):
            having = np.array([v == value for v in values])
            labels = set(erased.labels[having].tolist())
            if len(labels) != 1:
                continue
            label = labels.pop()
            others = (erased.labels == label) & ~having & np.array([bool(v) for v in values])
            with_fact, without = (linearise_share(of_positive, rows, erased.patient_ids) for rows in (having, others))
            if without.patients == 0:
                continue
            gap = with_fact - without
            name = (
                f"mark erased: p({erased.classes[1]}) where {fact} is {value} (only {erased.classes[label]}) "
                f"less other {erased.classes[label]}"
            )
            n = {"images": int(having.sum()), "patients": with_fact.patients, "images_of_others": int(others.sum())}
            method = "difference of means, patients' contributions, t interval"
            if not gap.defined:
                why = f"no interval: {count_noun(gap.patients, 'patient')}, {FEWEST_PATIENTS} needed"
                found.append(Estimate(name, gap.value, n=n, method=method, why=why))
                continue
            half = compute_reach(gap.error(erased.patient_ids), gap.freedom)
            found.append(Estimate(name, gap.value, gap.value - half, gap.value + half, n, method))
    return found


def _cluster_maps(
    looks: Sequence[NDArray[np.float32] | None],
    seen: Sequence[SeenCase],
    marks: Sequence[Mask],
    labels: Sequence[str],
) -> list[str]:
    """Groups of like attribution (SpRAy's idea, Lapuschkin 2019): how large, of which class, how much in the mark."""
    rows, inside = [], []
    for look, s, mark in zip(looks, seen, marks, strict=True):
        if look is None:
            return ["the network gives no class maps"]
        cells = torch.from_numpy(look)
        small = torch.nn.functional.adaptive_avg_pool2d(cells[None], MAP_SIDE)[0].numpy().astype(np.float64)
        total = float(small.sum())
        rows.append((small / total if total > 0 else np.full_like(small, 1 / small.size)).ravel())
        fine = torch.nn.functional.interpolate(cells[None, None], mark.shape, mode="bilinear")[0, 0].numpy()
        inside.append(float((fine * mark).sum() / fine.sum()) if fine.sum() > 0 and s.mark is not None else math.nan)
    groups = min(MAP_GROUPS, len(rows))
    which = KMeans(groups, n_init=5, random_state=0).fit_predict(np.array(rows))
    found = []
    for group in np.argsort(-np.bincount(which, minlength=groups)):
        members = np.flatnonzero(which == group).tolist()
        mean = np.array(rows)[members].mean(axis=0).reshape(MAP_SIDE, MAP_SIDE)
        peak = np.unravel_index(int(mean.argmax()), mean.shape)
        commoner = np.mean([labels[i] == max(set(labels), key=labels.count) for i in members])
        known = [inside[i] for i in members if not math.isnan(inside[i])]
        words = f"{np.mean(known):.0%} of it in the mark" if known else "no marks there"
        found.append(f"{len(members)} pictures look most near row {(peak[0] + 0.5) / MAP_SIDE:.2f}, column "
                     f"{(peak[1] + 0.5) / MAP_SIDE:.2f} ({commoner:.0%} of the commoner class; {words})")  # fmt: skip
    return found


def _excludes_zero(effect: Estimate, tests: int) -> bool:
    """Whether an effect differs from 0 after Bonferroni's correction: its 95% interval widened to 1 - 0.05 / tests."""
    if effect.value is None or effect.low is None or effect.high is None:
        return False
    wider = float(norm.isf(0.025 / max(1, tests)) / norm.isf(0.025))
    low, high = (effect.value + wider * (end - effect.value) for end in (effect.low, effect.high))
    return low > 0 or high < 0


def _word_verdicts(
    found: Sequence[Estimate], named: Sequence[RecurringObject], bound: Sequence[Estimate] = ()
) -> list[str]:
    by_name = {estimate.name: estimate for estimate in found}
    erased = by_name[_ERASED]
    words = []
    if erased.low is None:
        words.append(
            f"With the mark erased: {erased}; too few patients to say whether the classes are still told apart."
        )
    elif erased.low > 0.5:
        words.append(
            f"With the marked region erased the classes are still separated: {erased}. "
            "Something outside the mark predicts the label."
        )
    else:
        words.append(f"With the mark erased nothing clear is left: {erased}.")
    tests = sum(" object " in name for name in by_name)
    for number, o in enumerate(named, start=1):
        effects = [e for name, e in by_name.items() if f"object {number} " in name]
        # each effect of each object is another chance to be led astray by chance
        moved = [e for e in effects if _excludes_zero(e, tests)]
        verb = "the network's answer moves with it" if moved else "the network's answer does not clearly move with it"
        words.append(f"Object {number}: {o}; {verb}.")
    for estimate in bound:
        if estimate.low is None or estimate.high is None:
            read = "too few patients to say whether the network reads it"
        elif _excludes_zero(estimate, len(bound)):
            read = "the network's answer goes with this fact, or with what comes with it, even without the finding"
        else:
            read = "that the network's answer goes with this fact is not shown"
        words.append(f"{estimate}: {read}.")
    if not named:
        words.append("No small recurring object goes with the label clearly enough to be named.")
    return words
