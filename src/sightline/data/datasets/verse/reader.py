"""VerSe: CTs of spines with vertebra masks, centroids and fracture gradings, in its published layouts.

Löffler et al. 2020, Liebl et al. 2021, Sekuboyina et al. 2021. Trouble with one series becomes a Reject, so that the
rest goes on; trouble with the grading table stops everything, because a grade on the wrong vertebra is worse than none.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sightline.data.datasets.verse.centroids import Centroids, place_vertebrae, read_centroids
from sightline.data.datasets.verse.gradings import Grading, read_gradings
from sightline.data.spine.vertebrae import LEVELS, Spine
from sightline.errors import GeometryError, LayoutError, SightlineError, count_noun
from sightline.io.nifti import VolumeHeader, read_volume_header
from sightline.io.picture import Reject
from sightline.structures.case import SPLITS, Split

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
            spine, skipped = _read_spine(one)
        except SightlineError as error:
            rejects.append(Reject(one.first_file, error.message, error.remedy))
            lost[one.subject] |= {one.name, one.scan}
        else:
            spines.append(spine)
            unplaced |= {(spine.series, label) for label in skipped}
    spines, straddling = _keep_one_split_each(spines)
    for spine, reject in straddling:
        rejects.append(reject)
        lost[spine.subject] |= {spine.series, spine.facts["scan"]}
    if table:
        spines, idle = _add_all_grades(spines, rows, lost, unplaced, table)
        if idle:
            named = ", ".join(row.place for row in idle[:3])
            graded = count_noun(len(idle), "row grades", "rows grade")
            reason = f"{graded} vertebrae of series left out or without centroid, e.g. {named}."
            rejects.append(Reject(table, reason, "Fix those series, or leave it so."))
    return tuple(spines), tuple(rejects)


def _read_spine(one: SeriesFiles) -> tuple[Spine, tuple[int, ...]]:
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
    vertebrae = place_vertebrae(centroids, header.shape, header.orientation, header.spacing_mm)
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
        _collect_facts(one, header, centroids),
    )
    return spine, centroids.skipped


def _collect_facts(one: SeriesFiles, header: VolumeHeader, centroids: Centroids) -> dict[str, str]:
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


def _keep_one_split_each(spines: Sequence[Spine]) -> tuple[list[Spine], list[tuple[Spine, Reject]]]:
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


def _add_all_grades(
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
    gradings: dict[tuple[str, int], Grading] = {}
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
            earlier = gradings.setdefault((spine.series, row.label), row)
            if earlier.verdict != row.verdict:
                raise LayoutError(f"{table}: {row.place} contradicts {earlier.place}.", "Keep the row that holds.")
    if unmatched:
        named = "; ".join(row.place for row in unmatched[:8])
        raise LayoutError(
            f"{table}: {len(unmatched)} of {len(rows)} rows match no vertebra of the data: {named}"
            f"{'; ...' if len(unmatched) > 8 else ''}.",
            "Check the column map and the subjects' names, or remove rows whose CT is not there.",
        )
    return [_add_grades(spine, gradings) for spine in spines], idle


def _add_grades(spine: Spine, gradings: Mapping[tuple[str, int], Grading]) -> Spine:
    vertebrae = []
    for vertebra in spine.vertebrae:
        row = gradings.get((spine.series, vertebra.label))
        if row is not None:
            grade, deformity, foreign, excluded = row.verdict
            vertebra = replace(vertebra, grade=grade, deformity=deformity, foreign=foreign, excluded=excluded)
        vertebrae.append(vertebra)
    return replace(spine, vertebrae=tuple(vertebrae))


_SPLIT = re.compile(
    r"(?:dataset-)?(?:verse\d\d|phantom)?[_-]?(?:\d\d_)?(train|val|test)(?:ing|idation)?", re.IGNORECASE
)
_ARCHIVE = re.compile(r"verse-?(?:20)?(19|20)(?!\d)", re.IGNORECASE)
_ID = r"(?:verse|gl)\d+"
_CHALLENGE = re.compile(rf"({_ID})(?:[_-]({_ID}))?(?:_ct-[a-z]+)?")
# what a name ends with, and what the file then is; the first that fits counts
_ENDINGS = (
    (re.compile(r"_seg-subreg_msk\.nii(\.gz)?$"), "subregions"),
    (re.compile(r"_seg-finding_msk\.nii(\.gz)?$"), "finding"),
    (re.compile(r"_seg-vert_msk\.nii(\.gz)?$"), "labels"),
    (re.compile(r"(?:_seg-[a-z]+)?_ctd\.json$"), "centroids"),
    (re.compile(r"[_-]iso-ctd\.json$"), "centroids"),
    (re.compile(r"_ct\.nii(\.gz)?$"), "ct"),
)
_BARE_ENDINGS = ((re.compile(r"_seg\.nii(\.gz)?$"), "labels"), (re.compile(r"\.nii(\.gz)?$"), "ct"))


@dataclass(frozen=True)
class SeriesFiles:
    """One series as it lies in the tree.

    Attributes:
        subject: e.g. `verse401`.
        name: the series, e.g. `verse401_split-verse253`.
        scan: the challenge's number of the scan where the name holds one (`verse253`), else the subject.
        root: the folder above `rawdata` and `derivatives`, or the one that holds the files.
        archive: `verse19`, `verse20` or empty, from the folders' names.
        challenge: whether the files are named as in the challenge's copy.
        split: from the folders' names.
        files: by what they are: `ct`, `centroids`, `labels`, `subregions`, `finding`.
    """

    subject: str
    name: str
    scan: str
    root: Path
    archive: str
    challenge: bool
    split: Split | None
    files: Mapping[str, Path]

    @property
    def source(self) -> str:
        """`verse19` for ids below 500 and `verse20` from there on; else the archive, or the id's letters."""
        number = re.fullmatch(r"(verse|gl)(\d+)", self.subject)
        if number:
            return "verse19" if number.group(1) == "verse" and int(number.group(2)) < 500 else "verse20"
        return self.archive or re.sub(r"[^a-z].*", "", self.subject)

    @property
    def first_file(self) -> Path:
        """The CT, or whatever there is."""
        return self.files.get("ct") or next(iter(self.files.values()))


def find_series(source: Path) -> list[SeriesFiles]:
    """All series of a tree by subject and name; the same series of two archives stands there twice."""
    groups: dict[tuple[Path, str], SeriesFiles] = {}
    for path in sorted(source.rglob("*")):
        found = _parse_path(path, source)
        if found is not None:
            earlier = groups.setdefault((found.root, found.name), found)
            groups[found.root, found.name] = replace(earlier, files={**found.files, **earlier.files})
    series = _join_files(list(groups.values()))
    # a scan that one archive lists under its own number belongs to the patient that another archive names
    patients = {one.scan: one.subject for one in series if one.scan != one.subject}
    series = [replace(one, subject=patients.get(one.subject, one.subject)) for one in series]
    return sorted(series, key=lambda one: (one.subject, one.name, str(one.root)))


def merge_archives(series: Iterable[SeriesFiles]) -> tuple[list[SeriesFiles], list[tuple[SeriesFiles, SeriesFiles]]]:
    """Keep one copy of each scan: that of its own year's archive, subject-based rather than the challenge's.

    Returns:
        the series kept, in order, and (left out, kept instead) for the others.
    """
    copies: dict[tuple[str, str], list[SeriesFiles]] = defaultdict(list)
    for one in series:
        copies[one.subject, one.scan].append(one)
    kept: list[SeriesFiles] = []
    dropped: list[tuple[SeriesFiles, SeriesFiles]] = []
    for group in copies.values():
        archives: dict[tuple[bool, bool, str], list[SeriesFiles]] = defaultdict(list)
        for one in sorted(group, key=lambda one: str(one.root)):
            archives[one.archive != one.source, one.challenge, one.archive].append(one)
        # an archive without the CT or its centroids serves nobody
        best = min(archives, key=lambda rank: (not any(map(_is_complete, archives[rank])), *rank))
        names: dict[str, SeriesFiles] = {}
        for one in archives.pop(best):
            # one archive may hold several series of a patient (`dir-ax`, `dir-sag`): those are no copies
            if one.name in names:
                dropped.append((one, names[one.name]))
            else:
                names[one.name] = one
        kept += names.values()
        first = next(iter(names.values()))
        dropped += [(one, names.get(one.name, first)) for ones in archives.values() for one in ones]
    return sorted(kept, key=lambda one: (one.subject, one.name)), dropped


def _is_complete(one: SeriesFiles) -> bool:
    return "ct" in one.files and "centroids" in one.files


def _parse_path(path: Path, source: Path) -> SeriesFiles | None:
    name = path.name.lower()
    if path.name.startswith(".") or not name.endswith((".nii", ".nii.gz", ".json")) or not path.is_file():
        return None
    # the challenge writes both CT-ax and CT_ax
    name = re.sub(r"_ct_(ax|sag|cor|iso)(?=[_.-])", r"_ct-\1", name)
    what, stem = "", ""
    for ending, kind in _ENDINGS:
        if ending.search(name):
            what, stem = kind, ending.sub("", name)
            break
    stem = stem.removeprefix("sub-")
    if not what:
        bare = next(((kind, end.sub("", name)) for end, kind in _BARE_ENDINGS if end.search(name)), None)
        if bare is None or _CHALLENGE.fullmatch(bare[1]) is None:
            return None
        what, stem = bare
    challenge = None if name.startswith("sub-") else _CHALLENGE.fullmatch(stem)
    if challenge:
        subject, scan = challenge.group(1), challenge.group(2) or challenge.group(1)
    else:
        subject = stem.split("_")[0]
        split = re.search(r"_split-([a-z0-9]+)", stem)
        scan = split.group(1) if split else subject
    parts = path.relative_to(source).parts[:-1]
    halves = [i for i, part in enumerate(parts) if part.lower() in ("rawdata", "derivatives")]
    root = source.joinpath(*parts[: halves[-1]]) if halves else path.parent
    # only names that are nothing but a split count for the folder itself: it may stand anywhere
    places = (source.resolve().name, *parts)
    splits = [match.group(1).lower() for part in places if (match := _SPLIT.fullmatch(part))]
    archives = [f"verse{match.group(1)}" for part in places if (match := _ARCHIVE.search(part))]
    return SeriesFiles(
        subject,
        stem,
        scan,
        root,
        archives[-1] if archives else "",
        challenge is not None,
        splits[-1] if splits else None,  # type: ignore[arg-type]
        {what: path},
    )


def _join_files(series: list[SeriesFiles]) -> list[SeriesFiles]:
    """Give a CT the files of its own that lie elsewhere in the tree, or whose name lacks the CT's `dir-`."""
    images = [one for one in series if "ct" in one.files]
    others = [one for one in series if "ct" not in one.files]
    for same in (lambda one: one.name, lambda one: re.sub(r"_(dir|ct)-[a-z0-9]+", "", one.name)):
        waiting, others = others, []
        for other in waiting:
            fits = [i for i, one in enumerate(images) if same(one) == same(other) and not {*one.files} & {*other.files}]
            nearer = [i for i in fits if images[i].root == other.root]
            fits = nearer or fits
            if len(fits) == 1:
                images[fits[0]] = replace(images[fits[0]], files={**images[fits[0]].files, **other.files})
            else:
                others.append(other)
    return images + others
