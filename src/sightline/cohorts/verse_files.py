"""Which files of a VerSe tree belong to one series, by their names, in both published layouts.

Subject-based: `rawdata/sub-verse401/sub-verse401_split-verse253_ct.nii.gz` with `derivatives/sub-verse401/..._seg-vert_
msk.nii.gz, ..._seg-subreg_ctd.json`. The challenge's copy (MICCAI): `verse401_verse253_CT-sag.nii.gz, ..._seg.nii.gz,
..._iso-ctd.json` side by side, with the patient before the scan where a patient has several.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sightline.case import Split

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
        found = _parsed(path, source)
        if found is not None:
            earlier = groups.setdefault((found.root, found.name), found)
            groups[found.root, found.name] = replace(earlier, files={**found.files, **earlier.files})
    series = _joined(list(groups.values()))
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


def _parsed(path: Path, source: Path) -> SeriesFiles | None:
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


def _joined(series: list[SeriesFiles]) -> list[SeriesFiles]:
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
