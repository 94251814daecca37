"""Every layout a data set may come in, by the word `sightline cohort import` takes: one line a layout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sightline.data.datasets import chest_lungs, coco, cub200, fracatlas, grazpedwri, verse
from sightline.data.datasets import dicom_folder as dicom
from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.gaze import egd_cxr, reflacx
from sightline.data.datasets.gaze import eye_tracker as tracker
from sightline.data.datasets.grazpedwri import LabelFrom
from sightline.data.spine.patch_cohort import Bar, write_patch_cohort
from sightline.data.spine.placement import Mode
from sightline.data.split import split_cohort
from sightline.errors import LayoutError
from sightline.io.picture import Reject
from sightline.io.tables import read_json
from sightline.structures.case import Cohort

Layout = Literal[
    "fracatlas",
    "grazpedwri",
    "coco",
    "cub200",
    "dicom",
    "egd_cxr",
    "reflacx",
    "tracker",
    "chest_lungs",
    "verse",
    "folder",
]


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
    heart: Literal["mediastinum", "cardiac_silhouette"] | None = None,
    correct_drift: bool | None = None,
    screen_width_mm: float | None = None,
    distance_mm: float | None = None,
    findings: tuple[str, ...] | None = None,
    certainty: int | None = None,
    destination: Path | None = None,
    gradings: Path | None = None,
    columns: Path | None = None,
    positive_if: int | None = None,
    mode: Mode | None = None,
    anti_alias: bool | None = None,
    workers: int | None = None,
    progress: Bar | None = None,
    label_from: LabelFrom | None = None,
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
        gaze: egd_cxr, tracker: raw samples (the default) or fixations; reflacx: fixations (the default) or samples.
        images: egd_cxr, reflacx: folder of the images, where they are not in the tree.
        id_list: egd_cxr: csv of the ids to keep.
        heart: egd_cxr: what stands for the heart, the mediastinum's mask (the default) or the silhouette's box.
        correct_drift: egd_cxr: shift sessions by their calibration pictures.
        screen_width_mm: egd_cxr: width of the screen, for degrees.
        distance_mm: egd_cxr: from the eyes to the screen.
        findings: reflacx: columns to tell apart.
        certainty: reflacx: from which on a finding counts, 1 to 5.
        destination: verse: the cohort folder, where patches are cut into.
        gradings: verse: table of Genant grades.
        columns: verse: json of field and column, where the table's columns have other names.
        positive_if: verse: grade from which a vertebra counts as fractured (1).
        mode: verse: `rigid` (the default) or `straightened` patches.
        anti_alias: verse: smooth CTs that are finer than the patches.
        workers: verse: processes that cut (1).
        progress: verse: what shows progress.
        label_from: grazpedwri: the column that says the label (`fracture_visible`).

    Raises:
        LayoutError: an option of another layout, or a source that does not follow the layout.
    """
    for option, given, owners in (
        ("labels", labels, ("dicom",)),
        ("groups", groups, ("coco",)),
        ("per-class", per_class, ("cub200",)),
        ("gaze", gaze, ("egd_cxr", "reflacx", "tracker")),
        ("images", images, ("egd_cxr", "reflacx")),
        ("id-list", id_list, ("egd_cxr",)),
        ("heart", heart, ("egd_cxr",)),
        ("correct-drift", correct_drift or None, ("egd_cxr",)),
        ("screen-width-mm", screen_width_mm, ("egd_cxr",)),
        ("distance-mm", distance_mm, ("egd_cxr",)),
        ("findings", findings, ("reflacx",)),
        ("certainty", certainty, ("reflacx",)),
        ("gradings", gradings, ("verse",)),
        ("columns", columns, ("verse",)),
        ("positive-if", positive_if, ("verse",)),
        ("mode", mode, ("verse",)),
        ("anti-alias", anti_alias or None, ("verse",)),
        ("workers", workers, ("verse",)),
        ("label-from", label_from, ("grazpedwri",)),
    ):
        if given is not None and layout not in owners:
            raise LayoutError(
                f"--{option} belongs to the layout {' or '.join(owners)}; got {layout}.", "Leave the option out."
            )
    rejects: tuple[Reject, ...] = ()
    if layout == "fracatlas":
        cohort = fracatlas.read(source, fractions=fractions, seed=seed)
    elif layout == "grazpedwri":
        cohort, rejects = grazpedwri.read(
            source, label_from=label_from or "fracture_visible", fractions=fractions, seed=seed
        )
    elif layout == "coco":
        cohort = coco.read(source, groups=groups, fractions=fractions, seed=seed)
    elif layout == "cub200":
        cohort = cub200.read(source, per_class=per_class, seed=seed)
    elif layout == "egd_cxr":
        cohort = egd_cxr.read(
            source, gaze=gaze or "samples", images=images, id_list=id_list, heart=heart or "mediastinum",
            correct_drift=bool(correct_drift), screen_width_mm=screen_width_mm, distance_mm=distance_mm,
            fractions=fractions, seed=seed,
        )  # fmt: skip
    elif layout == "reflacx":
        cohort = reflacx.read(
            source, gaze=gaze or "fixations", images=images, findings=findings or (), certainty=certainty or 3
        )
    elif layout == "tracker":
        cohort = tracker.read(source, gaze=gaze or "samples", fractions=fractions, seed=seed)
    elif layout == "verse":
        if destination is None:
            raise LayoutError("verse is cut into patches and needs a destination.", "Name the folder to write.")
        spines, unread = verse.read(source, gradings=gradings, columns=_column_map(columns))
        cohort, uncut = write_patch_cohort(
            spines, destination, mode=mode or "rigid", anti_alias=bool(anti_alias), positive_if=positive_if or 1,
            workers=workers or 1, progress=progress, seed=seed, fractions=fractions, name=source.resolve().name,
        )  # fmt: skip
        rejects = (*unread, *uncut)
    elif layout == "chest_lungs":
        cohort = chest_lungs.read(source)
    elif layout == "dicom":
        cohort, rejects = dicom.read(source, labels)
        if len(cohort.classes) > 1:
            cohort = split_cohort(cohort, fractions, seed)
    else:
        cohort = read_cohort(source)
    return cohort, rejects


def _column_map(path: Path | None) -> dict[str, str] | None:
    if path is None:
        return None
    named = read_json(path)
    if not isinstance(named, dict) or not all(isinstance(column, str) for column in named.values()):
        raise LayoutError(
            f"{path}: a map of fields to columns was expected.", 'Write {"label": "level", "grade": "fx-grade"}.'
        )
    return named
