"""The patches of one CT series on disk: all of them and their record, or none.

A series is made in a folder of its own and moved into place; `spines/SERIES.json` is written last and says that the
series is finished, of which files and settings. Whoever finds another digest there, or a patch missing, cuts again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.data.spine.placement import SPINES, Mode, Placement, place_vertebrae
from sightline.data.spine.resampling import sample_hu, sample_labels
from sightline.data.spine.vertebrae import LABELS, SUBREGIONS, Spine, require_in_bone
from sightline.errors import GeometryError, SightlineError
from sightline.io.ct import read_ct
from sightline.io.files import make_file_name
from sightline.io.nifti import read_volume, write_volume
from sightline.io.volume import Volume

PATCHES, MASKS = "patches", "masks"
STAGING = ".cutting"
# changes when the same files and settings would give other patches
VERSION = 1
# kept where it belongs to no single vertebra
_DISC = next(number for number, name in SUBREGIONS.items() if name == "disc")

Document = dict[str, Any]


@dataclass(frozen=True)
class Cutting:
    """How patches are cut.

    Attributes:
        side: voxels along each axis.
        spacing_mm: of a voxel.
        mode: `rigid`: one oriented cube; `straightened`: axis 0 follows the spine, neighbours are bent straight.
        anti_alias: smooth CTs that are finer than the patch (`resampling`).
    """

    side: int = 96
    spacing_mm: float = 1.0
    mode: Mode = "rigid"
    anti_alias: bool = False

    def text(self) -> str:
        """As a cohort's `about` says it."""
        smoothed = ", anti-aliased" if self.anti_alias else ""
        return f"{self.side} voxels of {self.spacing_mm:g} mm, {self.mode}{smoothed}"


def digest_inputs(spine: Spine, levels: Sequence[str], cutting: Cutting) -> str:
    """Digest of what the patches of a series depend on; files count by name, size and time of change."""
    files = [
        [name, part.name, (stat := part.stat()).st_size, stat.st_mtime_ns]
        for name, path in _list_inputs(spine)
        for part in (sorted(path.iterdir()) if path.is_dir() else [path])
        if part.is_file()
    ]
    centres = [[vertebra.label, *map(float, vertebra.centre)] for vertebra in spine.vertebrae]
    what = [VERSION, asdict(cutting), files, centres, list(levels)]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]


def find_finished_series(destination: Path, spine: Spine, digest: str) -> Document | None:
    """The record of a series that was cut from the same files in the same way and is still whole, else None."""
    path = destination / SPINES / f"{make_file_name(spine.series)}.json"
    try:
        document: Document = json.loads(path.read_text(encoding="utf-8"))
        whole = document["digest"] == digest and all(
            (destination / name).stat().st_size == size for name, size in document["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return document if whole else None


def cut_series(spine: Spine, levels: Sequence[str], destination: Path, cutting: Cutting, digest: str) -> Document:
    """Cut the named vertebrae of a series, write patches, masks and record, and return the record.

    One CT, or one mask, is in memory at a time.

    Raises:
        SightlineError: the CT or a mask cannot be read, or the centres are no spine; nothing of the series is left.
    """
    series = make_file_name(spine.series)
    staging = destination / STAGING / series
    shutil.rmtree(staging, ignore_errors=True)
    try:
        document = _cut_spine(spine, levels, staging, cutting, digest)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    record = destination / SPINES / f"{series}.json"
    # from here until the record is there again the series counts as not cut
    record.unlink(missing_ok=True)
    for kind in (PATCHES, MASKS):
        shutil.rmtree(destination / kind / series, ignore_errors=True)
        if (staging / kind / series).exists():
            (destination / kind).mkdir(exist_ok=True)
            (staging / kind / series).replace(destination / kind / series)
    record.parent.mkdir(exist_ok=True)
    partial = record.with_name(f".{record.name}.new")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    partial.replace(record)
    shutil.rmtree(staging, ignore_errors=True)
    return document


def _cut_spine(spine: Spine, levels: Sequence[str], staging: Path, cutting: Cutting, digest: str) -> Document:
    series = make_file_name(spine.series)
    ct = read_ct(spine.image)
    require_in_bone(ct, spine.vertebrae, str(spine.image))
    placements = place_vertebrae(
        spine.vertebrae,
        ct.affine,
        ct.values.shape,
        side=cutting.side,
        spacing_mm=cutting.spacing_mm,
        mode=cutting.mode,
    )
    chosen = {level: placements[level] for level in levels}
    (staging / PATCHES / series).mkdir(parents=True)
    for level, placement in chosen.items():
        patch = sample_hu(ct, placement, anti_alias=cutting.anti_alias)
        write_volume(staging / PATCHES / series / f"{level}.nii", patch, placement.affine)
    document = _build_record(spine, ct, chosen, cutting, digest)
    del ct
    masks = _write_masks(spine, chosen, staging / MASKS / series)
    for one in document["vertebrae"]:
        one |= masks[one["level"]]
    files = [path for path in sorted(staging.rglob("*.nii*")) if path.is_file()]
    document["files"] = {path.relative_to(staging).as_posix(): path.stat().st_size for path in files}
    return document


def _build_record(spine: Spine, ct: Volume, chosen: Mapping[str, Placement], cutting: Cutting, digest: str) -> Document:
    centres = {vertebra.level: vertebra.centre for vertebra in spine.vertebrae}
    curve = next(iter(chosen.values())).curve
    return {
        "version": VERSION,
        "digest": digest,
        "subject": spine.subject,
        "series": spine.series,
        "cut": asdict(cutting),
        "ct": {
            "path": str(spine.image),
            "shape": list(ct.values.shape),
            "affine": ct.affine.tolist(),
            "spacing_mm": [round(size, 6) for size in ct.spacing_mm],
            "orientation": "".join(ct.orientation),
        },
        "curve": {"levels": list(centres), "knots_mm": curve.knots_mm.tolist()},
        "vertebrae": [
            {
                "level": level,
                "label": LABELS[level],
                "centre": list(centres[level]),
                "at_mm": placement.at_mm,
                "patch_to_ct": placement.frame.to_source.tolist(),
                "patch_to_mm": placement.affine.tolist(),
                "outside": round(placement.outside(), 4),
            }
            for level, placement in chosen.items()
        ],
    }


def _write_masks(spine: Spine, chosen: Mapping[str, Placement], folder: Path) -> dict[str, Document]:
    """Write the masks of every vertebra; by level, which numbers each holds, and what the centre lies in."""
    found: dict[str, Document] = {level: {"vertebra": False, "subregions": [], "findings": []} for level in chosen}
    if spine.vertebra_mask is None and spine.finding_mask is None:
        return found
    folder.mkdir(parents=True)
    own: dict[str, NDArray[np.bool_]] = {}
    if spine.vertebra_mask is not None:
        labels = read_volume(spine.vertebra_mask, labels=True)
        for level, placement in chosen.items():
            patch = sample_labels(labels, placement)
            own[level] = patch == LABELS[level]
            middle = placement.side // 2
            found[level] |= {"vertebra": bool(own[level].any()), "centre_in": int(patch[middle, middle, middle])}
            if patch.any():
                write_volume(folder / f"{level}_vert.nii.gz", patch, placement.affine)
    # whose sub-regions they are, only the vertebra's own mask says
    if spine.subregion_mask is not None and own:
        labels = read_volume(spine.subregion_mask, labels=True)
        for level, placement in chosen.items():
            patch = sample_labels(labels, placement)
            patch[~own[level] & (patch != _DISC)] = 0
            found[level]["subregions"] = [int(n) for n in np.unique(patch) if int(n) in SUBREGIONS]
            if patch.any():
                write_volume(folder / f"{level}_subreg.nii.gz", patch, placement.affine)
    if spine.finding_mask is not None:
        labels = read_volume(spine.finding_mask, labels=True)
        for level, placement in chosen.items():
            patch = sample_labels(labels, placement)
            if own:
                patch[~own[level]] = 0
            found[level]["findings"] = [int(n) for n in np.unique(patch) if n]
            if patch.any():
                write_volume(folder / f"{level}_finding.nii.gz", patch, placement.affine)
    return found


def _list_inputs(spine: Spine) -> list[tuple[str, Path]]:
    named = {
        "ct": spine.image,
        "vertebrae": spine.vertebra_mask,
        "subregions": spine.subregion_mask,
        "finding": spine.finding_mask,
    }
    inputs = [(name, path) for name, path in named.items() if path is not None]
    for _, path in inputs:
        if not path.exists():
            raise SightlineError(f"{path} of series {spine.series} does not exist.", "Restore the file.")
    if not spine.vertebrae:
        raise GeometryError(f"Series {spine.series} has no vertebrae.", "Check its centroid file.")
    return inputs
