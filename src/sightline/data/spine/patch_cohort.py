"""CTs of spines to a cohort of patches, one a vertebra (Engstler et al. 2022): in parallel, and resumed."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from sightline.data.spine.series_patches import (
    MASKS,
    PATCHES,
    STAGING,
    Cutting,
    Document,
    cut_series,
    digest_inputs,
    find_finished_series,
)
from sightline.data.spine.vertebrae import FINDINGS, LABELS, RANKS, SUBREGIONS, Spine, Vertebra
from sightline.data.split import refuse_leakage, split_cohort
from sightline.errors import CohortError, LayoutError, RunError, SightlineError, count_noun
from sightline.io.files import make_file_name
from sightline.io.picture import Reject
from sightline.io.progress import open_process_pool
from sightline.structures.case import Case, Cohort
from sightline.structures.regions import Mask
from sightline.structures.tag import Tag

CLASSES = ("intact", "fractured")
# the necks' vertebrae are no part of the study
FIRST = RANKS[LABELS["T1"]]

Bar = Callable[[str, int], AbstractContextManager[Callable[..., None]]]
Job = tuple[Spine, tuple[str, ...], Path, Cutting, str]


def write_patch_cohort(
    spines: Sequence[Spine],
    destination: Path,
    *,
    cutting: Cutting | None = None,
    positive_if: int = 1,
    workers: int = 1,
    progress: Bar | None = None,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    name: str = "spines",
) -> tuple[Cohort, tuple[Reject, ...]]:
    """Cut every graded vertebra from T1 to L6 (and T13) out of its CT.

    A series that was finished before, from the same files with the same settings, is not cut again. What cannot be read
    is rejected and the rest goes on. Grades and splits are read afresh each time: they change cases, not patches.

    Args:
        spines: CTs with the centres of their vertebrae and grades; the curve goes through all of them.
        destination: cohort folder; `patches/`, `masks/` and `spines/` are written there, the tables by `folder.write`.
        cutting: how patches are cut; its defaults when None.
        positive_if: Genant's grade from which a vertebra counts as fractured, 1 to 3 (Engstler: 1 or higher).
        workers: processes; each holds one CT.
        progress: what shows the progress of `(title, total)`, e.g. `lab.progress.progress`.
        seed: of the split.
        fractions: shares of patients in train, val and test, unless every series has a published split.
        name: of the cohort.

    Returns:
        the cohort, cases in the order of the spines and from head to feet, and what was left out and why.

    Raises:
        CohortError: no vertebra has a grade, or published splits divide a patient.
        LayoutError: two series of one name.
        RunError: a process died.
    """
    if positive_if not in (1, 2, 3):
        raise CohortError(f"A vertebra counts as fractured from grade 1, 2 or 3 on; got {positive_if}.", "Choose one.")
    repeated = [n for n, k in Counter(make_file_name(spine.series).casefold() for spine in spines).items() if k > 1]
    if repeated:
        raise LayoutError(f"Several series are called {repeated[0]!r}.", "Give every series its own name.")
    wanted = {spine.series: tuple(v for v in spine.vertebrae if _choose_kind(v) == "cut") for spine in spines}
    if spines and not any(wanted.values()):
        raise CohortError(
            f"None of the {sum(len(s.vertebrae) for s in spines)} vertebrae of {len(spines)} series has a grade.",
            "Give the table of gradings (--gradings FILE, with --columns where its columns have other names).",
        )
    cutting = cutting or Cutting()
    records, refused = _cut_all(spines, wanted, Path(destination), cutting, workers, progress)
    cases = [
        _build_case(spine, vertebra, entry, Path(destination), cutting, positive_if)
        for spine in spines
        if spine.series in records
        for vertebra, entry in _iterate_pairs(wanted[spine.series], records[spine.series])
    ]
    about = {
        "layout": "patches of vertebrae",
        "patches": cutting.text(),
        "fractured": f"Genant's grade {positive_if} or higher",
        "counts": _describe_counts(spines, cases),
    }
    about |= _collect_warnings(spines, records)
    cohort = Cohort(name, CLASSES, tuple(cases), Path(destination), about)
    rejects = tuple(refused[spine.series] for spine in spines if spine.series in refused)
    return _choose_splits(cohort, fractions, seed), rejects


def _choose_kind(vertebra: Vertebra) -> str:
    """What becomes of a vertebra."""
    if RANKS[vertebra.label] < FIRST:
        return "cervical"
    if vertebra.excluded:
        return "excluded"
    return "without grade" if vertebra.grade is None else "cut"


def _cut_all(
    spines: Sequence[Spine],
    wanted: Mapping[str, Sequence[Vertebra]],
    destination: Path,
    cutting: Cutting,
    workers: int,
    progress: Bar | None,
) -> tuple[dict[str, Document], dict[str, Reject]]:
    """The record of every series that is cut, now or before, and why the others are not, by series."""
    records: dict[str, Document] = {}
    refused: dict[str, Reject] = {}
    jobs: list[Job] = []
    for spine in spines:
        if not wanted[spine.series]:
            continue
        levels = tuple(vertebra.level for vertebra in wanted[spine.series])
        try:
            digest = digest_inputs(spine, levels, cutting)
        except SightlineError as error:
            refused[spine.series] = Reject(spine.image, error.message, error.remedy)
            continue
        record = find_finished_series(destination, spine, digest)
        if record is not None:
            records[spine.series] = record
        else:
            jobs.append((spine, levels, destination, cutting, digest))
    bar = progress or (lambda title, total: nullcontext(lambda steps=1, note="": None))
    if jobs:
        with bar("cutting series", len(jobs)) as advance:
            for series, outcome in _run_each(jobs, workers):
                if isinstance(outcome, Reject):
                    refused[series] = outcome
                else:
                    records[series] = outcome
                advance(1)
        shutil.rmtree(destination / STAGING, ignore_errors=True)
    return records, refused


def _run_each(jobs: Sequence[Job], workers: int) -> Iterator[tuple[str, Document | Reject]]:
    if workers < 2 or len(jobs) < 2:
        for job in jobs:
            yield job[0].series, _cut_one(job)
        return
    # forked copies of a process with threads may hang
    with open_process_pool(min(workers, len(jobs)), "spawn", torch.set_num_threads, (1,)) as pool:
        futures = {pool.submit(_cut_one, job): job[0].series for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise RunError(
                "A process that cut patches died; most likely there was not enough memory.",
                "Start again with fewer --workers: finished series are kept.",
            ) from error


def _cut_one(job: Job) -> Document | Reject:
    spine = job[0]
    try:
        return cut_series(*job)
    except SightlineError as error:
        return Reject(spine.image, error.message, error.remedy)
    except MemoryError:
        return Reject(spine.image, "The CT does not fit into memory.", "Use a machine with more, or fewer --workers.")


def _iterate_pairs(vertebrae: Sequence[Vertebra], record: Document) -> Iterator[tuple[Vertebra, Document]]:
    entries = {entry["level"]: entry for entry in record["vertebrae"]}
    for vertebra in vertebrae:
        yield vertebra, {**entries[vertebra.level], "ct": record["ct"]}


def _build_case(
    spine: Spine, vertebra: Vertebra, entry: Document, destination: Path, cutting: Cutting, positive_if: int
) -> Case:
    series, level = make_file_name(spine.series), vertebra.level
    label = CLASSES[int((vertebra.grade or 0) >= positive_if)]
    masks = destination / MASKS / series
    regions = []
    if entry["vertebra"]:
        regions.append(Mask(masks / f"{level}_vert.nii.gz", Tag("focus", name="vertebra"), vertebra.label))
    subregions = masks / f"{level}_subreg.nii.gz"
    regions += [Mask(subregions, Tag("organ", name=SUBREGIONS[number]), number) for number in entry["subregions"]]
    if entry["findings"] and label == CLASSES[1]:
        finding = masks / f"{level}_finding.nii.gz"
        # all of it by the deformity, and each kind of it where the mask tells them apart
        named = {None: vertebra.deformity or "deformity", **{n: FINDINGS.get(n) for n in entry["findings"]}}
        regions += [Mask(finding, Tag("finding", CLASSES[1], name=name), n) for n, name in named.items() if name]
    facts = {
        **spine.facts,
        "level": level,
        "grade": str(vertebra.grade),
        "deformity": vertebra.deformity,
        "foreign": "yes" if vertebra.foreign else "no",
        "source": spine.source,
        "series": spine.series,
        "ct_spacing_mm": " ".join(f"{size:.2f}" for size in entry["ct"]["spacing_mm"]),
        "outside_ct": f"{entry['outside']:.2f}",
    }
    facts = {what: value for what, value in facts.items() if value}
    case_id = f"{spine.series}__{level}"
    image = destination / PATCHES / series / f"{level}.nii"
    return Case(
        case_id,
        case_id,
        spine.subject,
        image,
        label,
        tuple(regions),
        spine.split,
        cutting.mode,
        (cutting.side,) * 3,
        (cutting.spacing_mm,) * 3,
        facts,
    )


def _choose_splits(cohort: Cohort, fractions: tuple[float, float, float], seed: int) -> Cohort:
    """Published splits where every case has one, else splits of whole patients where there are enough of them."""
    if not len(cohort):
        return cohort
    if all(case.split is not None for case in cohort):
        refuse_leakage(cohort)
        return replace(cohort, about={**cohort.about, "split": "as published"})
    without = replace(cohort, cases=tuple(replace(case, split=None) for case in cohort))
    about = dict(cohort.about)
    published = sum(case.split is not None for case in cohort)
    if published:
        about["warning splits"] = (
            f"{published} of {count_noun(len(cohort), 'vertebra', 'vertebrae')} had a published "
            "split, the rest none: all new"
        )
    patients, parts = len({case.patient_id for case in cohort}), sum(share > 0 for share in fractions)
    if patients < parts:
        about["warning patients"] = f"too few for {parts} splits ({count_noun(patients, 'patient')}): none is assigned"
        return replace(without, about=about)
    return split_cohort(replace(without, about=about), fractions, seed)


def _describe_counts(spines: Sequence[Spine], cases: Sequence[Case]) -> str:
    kinds = Counter(_choose_kind(v) for spine in spines for v in spine.vertebrae)
    total = sum(kinds.values())
    positive = sum(case.label == CLASSES[1] for case in cases)
    graded = sum(v.grade is not None for spine in spines for v in spine.vertebrae)
    lost = kinds["cut"] - len(cases)
    return (
        f"{count_noun(total, 'vertebra', 'vertebrae')} of {len(spines)} series read, {graded} "
        f"graded; left out: {kinds['cervical']} cervical, "
        f"{kinds['excluded']} excluded, {kinds['without grade']} without grade, {lost} in rejected series; "
        f"{len(cases)} cut, {positive} fractured"
    )


def _collect_warnings(spines: Sequence[Spine], records: dict[str, Document]) -> dict[str, str]:
    """Centres in the mask of another vertebra: the two files may not belong together."""
    odd = [
        f"{spine.series} {entry['level']}"
        for spine in spines
        if spine.series in records
        for entry in records[spine.series]["vertebrae"]
        if entry.get("centre_in", entry["label"]) not in (entry["label"], 0)
    ]
    if not odd:
        return {}
    named = ", ".join(odd[:5])
    return {
        "warning centres": f"{count_noun(len(odd), 'centre lies', 'centres lie')} in another vertebra's mask, "
        f"e.g. {named}: check the labels"
    }
