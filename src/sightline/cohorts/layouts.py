"""Every layout a data set may come in, by the word `sightline cohort import` takes: one line a layout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sightline.case import Cohort
from sightline.cohorts import chest_lungs, coco, cub200, dicom, egd_cxr, folder, fracatlas
from sightline.cohorts.split import split_cohort
from sightline.errors import LayoutError
from sightline.io.image import Reject

Layout = Literal["fracatlas", "coco", "cub200", "dicom", "egd_cxr", "chest_lungs", "folder"]


def read_layout(
    layout: Layout,
    source: Path,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    labels: Path | None = None,
    groups: Path | None = None,
    per_class: int | None = None,
    gaze: Literal["samples", "fixations"] | None = None,
    images: Path | None = None,
    id_list: Path | None = None,
) -> tuple[Cohort, tuple[Reject, ...]]:
    """Read a data set; files that could not be read come back beside the cohort.

    Args:
        layout: how the source is laid out.
        source: its folder.
        seed: of the split, and of the draw of `per_class`.
        fractions: shares of patients in train, val and test, for layouts that publish no split.
        labels: dicom: csv that names the label of each study, image or file.
        groups: coco: csv of image and group.
        per_class: cub200: training images a class.
        gaze: egd_cxr: raw samples (the default) or fixations.
        images: egd_cxr: folder of the images, where they are not in the tree.
        id_list: egd_cxr: csv of the ids to keep.

    Raises:
        LayoutError: an option of another layout, or a source that does not follow the layout.
    """
    for option, given, owner in (
        ("labels", labels, "dicom"),
        ("groups", groups, "coco"),
        ("per-class", per_class, "cub200"),
        ("gaze", gaze, "egd_cxr"),
        ("images", images, "egd_cxr"),
        ("id-list", id_list, "egd_cxr"),
    ):
        if given is not None and layout != owner:
            raise LayoutError(f"--{option} belongs to the layout {owner}; got {layout}.", "Leave the option out.")
    rejects: tuple[Reject, ...] = ()
    if layout == "fracatlas":
        cohort = fracatlas.read(source, fractions=fractions, seed=seed)
    elif layout == "coco":
        cohort = coco.read(source, groups=groups, fractions=fractions, seed=seed)
    elif layout == "cub200":
        cohort = cub200.read(source, per_class=per_class, seed=seed)
    elif layout == "egd_cxr":
        cohort = egd_cxr.read(
            source, gaze=gaze or "samples", images=images, id_list=id_list, fractions=fractions, seed=seed
        )
    elif layout == "chest_lungs":
        cohort = chest_lungs.read(source)
    elif layout == "dicom":
        cohort, rejects = dicom.read(source, labels)
        if len(cohort.classes) > 1:
            cohort = split_cohort(cohort, fractions, seed)
    else:
        cohort = folder.read(source)
    return cohort, rejects
