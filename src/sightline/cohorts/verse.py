"""VerSe: CTs of spines with vertebra masks, centroids and fracture gradings, in its published layouts.

Löffler et al. 2020, Liebl et al. 2021, Sekuboyina et al. 2021. Trouble with one series becomes a Reject, so that the
rest goes on; trouble with the grading table stops everything, because a grade on the wrong vertebra is worse than none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sightline.case import SPLITS
from sightline.cohorts.spine import LEVELS, Spine
from sightline.cohorts.verse_centroids import Centroids, read_centroids, vertebrae_of
from sightline.cohorts.verse_files import SeriesFiles, find_series, merge_archives
from sightline.cohorts.verse_gradings import Grading, read_gradings
from sightline.errors import GeometryError, LayoutError, SightlineError
from sightline.io.image import Reject
from sightline.io.nifti import VolumeHeader, read_volume_header

# a table with the normalised names, beside the data: taken where no other is given
GRADINGS = "fractures.csv"


def read(
    source: Path, *, gradings: Path | None = None, columns: Mapping[str, str] | None = None
) -> tuple[tuple[Spine, ...], tuple[Reject, ...]]:
    """Read a VerSe data set, or several of its archives in one folder.

    Args:
        source: a folder above `rawdata` and `derivatives`, or above several such folders, or the challenge's copy.
        gradings: table of fracture gradings; without one, `fractures.csv` in `source` where it exists.
        columns: the table's names of subject, series, label, grade, deformity, foreign, excluded (`read_gradings`).

    Returns:
        spines by subject and series, and what was left out, why, and how to mend it.

    Raises:
        LayoutError: no series at all, a grading table that cannot be read, or rows of it that match no vertebra or
            contradict each other.
    """
    source = Path(source)
    if not source.is_dir():
        raise LayoutError(f"{source}: no such folder.", "Point at the folder that holds rawdata and derivatives.")
    found = find_series(source)
    if not found:
        raise LayoutError(
            f"{source}: no series was found (sub-..._ct.nii.gz, or verse..._seg.nii.gz of the challenge).",
            "Point at the folder that holds rawdata and derivatives.",
        )
    # read the table first: its mistakes are known at once
    table = gradings or (source / GRADINGS if (source / GRADINGS).is_file() else None)
    rows = read_gradings(table, columns) if table else ()
    kept, copies = merge_archives(found)
    rejects = [
        Reject(one.first_file, f"a copy: the series is read from {other.first_file}.", "Nothing to mend.")
        for one, other in copies
    ]
    spines: list[Spine] = []
    lost: dict[str, set[str]] = defaultdict(set)
    unplaced: set[tuple[str, int]] = set()
    for one in kept:
        try:
            spine, skipped = _spine(one)
        except SightlineError as error:
            rejects.append(Reject(one.first_file, error.message, error.remedy))
            lost[one.subject] |= {one.name, one.scan}
        else:
            spines.append(spine)
            unplaced |= {(spine.series, label) for label in skipped}
    spines, straddling = _one_split_each(spines)
    for spine, reject in straddling:
        rejects.append(reject)
        lost[spine.subject] |= {spine.series, spine.facts["scan"]}
    if table:
        spines, idle = _graded(spines, rows, lost, unplaced, table)
        if idle:
            named = ", ".join(row.place for row in idle[:3])
            reason = f"{len(idle)} rows grade vertebrae of series left out or without centroid, e.g. {named}."
            rejects.append(Reject(table, reason, "Mend those series, or leave it so."))
    return tuple(spines), tuple(rejects)


def _spine(one: SeriesFiles) -> tuple[Spine, tuple[int, ...]]:
    """The spine without grades, and the labels whose centroid has no numbers."""
    image, listed = one.files.get("ct"), one.files.get("centroids")
    if image is None:
        raise LayoutError(
            f"{one.first_file}: no CT belongs to it (sub-{one.name}_ct.nii.gz was expected in rawdata).",
            "Download the CT of this series, or remove what belongs to it.",
        )
    if listed is None:
        raise LayoutError(
            f"{image}: no centroid file belongs to it (sub-{one.name}_seg-subreg_ctd.json in derivatives).",
            "Download the derivatives of this series; its vertebrae cannot be found without.",
        )
    header = read_volume_header(image)
    centroids = read_centroids(listed)
    vertebrae = vertebrae_of(centroids, header.shape, header.orientation, header.spacing_mm)
    masks = {what: one.files.get(what) for what in ("labels", "subregions", "finding")}
    for mask in masks.values():
        if mask is not None:
            _require_same_grid(header, read_volume_header(mask), image, mask)
    spine = Spine(
        one.subject,
        one.name,
        image,
        vertebrae,
        masks["labels"],
        masks["subregions"],
        masks["finding"],
        one.split,
        one.source,
        _facts(one, header, centroids),
    )
    return spine, centroids.skipped


def _facts(one: SeriesFiles, header: VolumeHeader, centroids: Centroids) -> dict[str, str]:
    facts = {
        "scan": one.scan,
        "orientation": "".join(header.orientation),
        "orientation_from": header.facts["orientation_from"],
        "centroids": "1 mm, no direction" if centroids.in_mm else "".join(centroids.direction),
    }
    if centroids.skipped:
        facts["centroids_skipped"] = " ".join(LEVELS[label] for label in centroids.skipped)
    return facts


def _require_same_grid(ct: VolumeHeader, other: VolumeHeader, image: Path, mask: Path) -> None:
    far = np.array([np.ones(4), [*(n - 1 for n in ct.shape), 1]])
    moved = np.linalg.norm(far @ (ct.affine - other.affine)[:3].T, axis=1).max()
    if other.shape != ct.shape or moved > max(ct.spacing_mm):
        raise GeometryError(
            f"{mask}: shape {other.shape} ({''.join(other.orientation)}), while {image.name} has {ct.shape} "
            f"({''.join(ct.orientation)}); their corners lie {moved:.1f} mm apart.",
            "Give the mask on the CT's own grid.",
        )


def _one_split_each(spines: Sequence[Spine]) -> tuple[list[Spine], list[tuple[Spine, Reject]]]:
    """Leave out, of a patient in several splits, all but the series of the latest (test before val before train)."""
    latest: dict[str, int] = {}
    for spine in spines:
        if spine.split is not None:
            latest[spine.subject] = max(latest.get(spine.subject, 0), SPLITS.index(spine.split))
    kept: list[Spine] = []
    straddling: list[tuple[Spine, Reject]] = []
    for spine in spines:
        split = SPLITS[latest[spine.subject]] if spine.subject in latest else None
        if spine.split in (None, split):
            kept.append(replace(spine, split=split))
        else:
            reason = f"{spine.series}: its patient is in {split} too, and this series in {spine.split} would leak."
            straddling.append((spine, Reject(spine.image, reason, f"Move the series to {split} to use it.")))
    return kept, straddling


def _graded(
    spines: Sequence[Spine],
    rows: Sequence[Grading],
    lost: Mapping[str, set[str]],
    unplaced: set[tuple[str, int]],
    table: Path,
) -> tuple[list[Spine], list[Grading]]:
    """The spines with their grades, and the rows of vertebrae that are known to be left out."""
    by_subject: dict[str, list[Spine]] = defaultdict(list)
    for spine in spines:
        by_subject[spine.subject].append(spine)
    patients = {spine.facts["scan"]: spine.subject for spine in spines}
    patients |= {scan: subject for subject, scans in lost.items() for scan in scans}
    said: dict[tuple[str, int], Grading] = {}
    unmatched: list[Grading] = []
    idle: list[Grading] = []
    for row in rows:
        subject, series = row.subject, row.series
        if subject not in by_subject and subject not in lost and subject in patients:
            subject, series = patients[subject], subject  # the table names the scan, not the patient
        fitting = [s for s in by_subject.get(subject, ()) if not series or series in (s.series, s.facts["scan"])]
        placed = [s for s in fitting if any(v.label == row.label for v in s.vertebrae)]
        if not placed:
            excused = any((s.series, row.label) in unplaced for s in fitting)
            excused |= subject in lost and (not series or series in lost[subject])
            (idle if excused else unmatched).append(row)
        for spine in placed:
            earlier = said.setdefault((spine.series, row.label), row)
            if earlier.verdict != row.verdict:
                raise LayoutError(f"{table}: {row.place} contradicts {earlier.place}.", "Keep the row that holds.")
    if unmatched:
        named = "; ".join(row.place for row in unmatched[:8])
        raise LayoutError(
            f"{table}: {len(unmatched)} of {len(rows)} rows match no vertebra of the data: {named}"
            f"{'; ...' if len(unmatched) > 8 else ''}.",
            "Check the column map and the subjects' names, or remove rows whose CT is not there.",
        )
    return [_with_grades(spine, said) for spine in spines], idle


def _with_grades(spine: Spine, said: Mapping[tuple[str, int], Grading]) -> Spine:
    vertebrae = []
    for vertebra in spine.vertebrae:
        row = said.get((spine.series, vertebra.label))
        if row is not None:
            grade, deformity, foreign, excluded = row.verdict
            vertebra = replace(vertebra, grade=grade, deformity=deformity, foreign=foreign, excluded=excluded)
        vertebrae.append(vertebra)
    return replace(spine, vertebrae=tuple(vertebrae))
