"""A phantom chest cohort in the very layout of EGD-CXR 1.0.0 (Karargyris 2021), with the traps the real one has.

Planted: newlines inside quoted fields of the master sheet; calibration pictures under the previous image's id with its
last five characters cut; ids in upper case in the gaze tables of every other session; padding columns under two
spellings; samples off the image with negative coordinates; closed lids, with nonsense for a place; a tracker that is
off for a whole session; sessions whose last image must not be lost; patients with two images.
`truth.json`, beside the published files, says what is true and how much of each was planted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.random import Generator
from PIL import Image

from sightline.data.phantoms.chest.draw import Chest, Label, draw_chest
from sightline.data.phantoms.chest.reader import HEIGHT_DEG, RATE_HZ, ReaderStyle, Scanpath, read_chest
from sightline.data.phantoms.chest.table_writer import (
    BOX_COLUMNS,
    GAZE_COLUMNS,
    SCREEN,
    ChestTable,
    build_box_rows,
    build_fixation_rows,
    build_master_row,
    build_sample_rows,
    compute_pads,
    find_samples_inside,
    list_master_columns,
    measure_extent,
)
from sightline.data.phantoms.radiographs.dicom_writer import RadiographHeader, write_dicom
from sightline.errors import CohortError
from sightline.io.files import mark_whole, require_empty

CALIBRATION_EVERY = 20
SESSION_IMAGES = 28
SHAPE = (512, 420)
MASKS = ("left_lung", "right_lung", "mediastinum", "aortic_knob")
_OFFSET_DEG = 0.3
_WORDS = {"Normal": "No acute process.", "CHF": "Heart is enlarged.", "pneumonia": "Opacity, likely pneumonia."}


@dataclass(frozen=True)
class _Item:
    dicom_id: str
    patient: str
    study: str
    label: Label
    contrast: float
    person: int
    number: int


def write_chests(
    destination: Path,
    *,
    images: int = 300,
    seed: int = 0,
    shape: tuple[int, int] = SHAPE,
    contrast: tuple[float, float] = (0.05, 0.9),
    clutter: float = 1.0,
    skill: float = 0.8,
    pads: Literal["image_left_pad", "image_left"] = "image_left_pad",
    calibrations: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Draw chests, read them, and write images, masks and tables.

    Args:
        destination: an empty or new folder.
        images: how many; a third of each class, about one patient in twelve with two.
        seed: of everything; the first n images of a larger phantom are those of a phantom of n.
        shape: (rows, columns) of an image.
        contrast: range of how plain findings are (uniform), within 0 and 1.
        clutter: how much lies on the pictures that is no finding; 1 as usual, 0 nothing.
        skill: how much of a reading goes to what the picture asks for.
        pads: spelling of the padding columns in the master sheet.
        calibrations: plant calibration pictures.
        progress: called with (done, of how many).

    Returns:
        What is true, as written to truth.json.

    Raises:
        CohortError: the folder holds something, fewer than three images, or options out of range.
    """
    _refuse(destination, images, shape, contrast, clutter, skill)
    items = _plan_items(images, seed, contrast)
    planted = dict.fromkeys(
        ("samples", "invalid", "off_image", "kept", "fixations", "calibration_pictures", "calibration_rows",
         "calibration_fixations"), 0)  # fmt: skip
    truth: dict[str, Any] = {"images": {}, "last_of_session": [], "session_offset_px": {}, "upper_case_sessions": []}
    require_empty(destination)
    bars = compute_pads(shape)
    with (
        ChestTable(destination / "master_sheet.csv", list_master_columns(pads)) as master,
        ChestTable(destination / "bounding_boxes.csv", BOX_COLUMNS) as boxes,
        ChestTable(destination / "eye_gaze.csv", GAZE_COLUMNS) as samples,
        ChestTable(destination / "fixations.csv", GAZE_COLUMNS) as fixations,
    ):
        for n, item in enumerate(items):
            chest = draw_chest(
                item.label, np.random.default_rng([seed, 1, n]), shape=shape, contrast=item.contrast,
                person=np.random.default_rng([seed, 2, item.person]), clutter=clutter,
            )  # fmt: skip
            path = _write_image(destination, item, chest, seed)
            _write_masks(destination, item, chest)
            someone = np.random.default_rng([seed, 7, item.person])
            master.rows([build_master_row(item.dicom_id, path, item.study, item.patient, item.label, bars, someone,
                                    np.random.default_rng([seed, 8, n]))])  # fmt: skip
            boxes.rows(build_box_rows(item.dicom_id, chest))
            session, place = divmod(n, SESSION_IMAGES)
            day = np.random.default_rng([seed, 6, session])
            style, offset = ReaderStyle.draw(day, skill), day.normal(0.0, _OFFSET_DEG, 2)
            reading = read_chest(
                chest, np.random.default_rng([seed, 3, n]), style=style, offset_deg=(offset[0], offset[1])
            )
            # some sessions' tables have the ids in upper case
            written = item.dicom_id.upper() if session % 2 else item.dicom_id
            name = (f"session_{session}", f"media_{place}", written)
            samples.rows(build_sample_rows(reading, name, shape, bars))
            fixations.rows(build_fixation_rows(reading, name, shape, bars))
            if place == 0:
                truth["session_offset_px"][name[0]] = (offset * shape[0] / HEIGHT_DEG).round(4).tolist()
                truth["upper_case_sessions"] += [name[0]] if session % 2 else []
            if calibrations and n % CALIBRATION_EVERY == CALIBRATION_EVERY - 1:
                # the next picture shown is a dot on a blank page, filed under this image's id cut short
                dot = _simulate_calibration(np.random.default_rng([seed, 4, n]), shape, offset)
                name = (name[0], f"calibration_{place}", written[:-5])
                samples.rows(build_sample_rows(dot, name, shape, bars))
                fixations.rows(build_fixation_rows(dot, name, shape, bars))
                planted["calibration_pictures"] += 1
                planted["calibration_rows"] += len(dot.samples)
                planted["calibration_fixations"] += len(dot.fixations)
            if place == SESSION_IMAGES - 1 or n == images - 1:
                truth["last_of_session"].append(item.dicom_id)
            on = find_samples_inside(reading, shape, bars)
            for key, count in (("samples", len(on)), ("invalid", (~reading.valid).sum()),
                               ("off_image", (reading.valid & ~on).sum()), ("kept", (reading.valid & on).sum()),
                               ("fixations", len(reading.fixations))):  # fmt: skip
                planted[key] += int(count)
            truth["images"][item.dicom_id] = _describe_truth(item, chest, reading, on)
            if progress is not None:
                progress(n + 1, images)
    truth["sessions"] = len(truth["last_of_session"])
    truth["calibration_rows"] = planted["calibration_rows"]
    truth["planted"] = planted
    truth["id_list"] = _write_rest(destination, items)
    (destination / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    mark_whole(destination)
    return truth


def _refuse(
    destination: Path, images: int, shape: tuple[int, int], contrast: tuple[float, float], clutter: float, skill: float
) -> None:
    if images < 3:
        raise CohortError(f"A phantom chest cohort needs three images or more; got {images}.", "Ask for 300.")
    if min(shape) < 96 or not 0.7 <= shape[1] / shape[0] <= 1.3:
        raise CohortError(
            f"A chest needs at least 96 pixels a side and 0.7 to 1.3 times as many columns as rows; got {shape}.",
            "Ask for 512 and 420.",
        )
    if not (0.0 <= contrast[0] <= contrast[1] <= 1.0 and 0.0 <= skill <= 1.0 and 0.0 <= clutter <= 2.0):
        raise CohortError(
            f"Contrast is a range within 0 and 1, skill lies in 0..1, clutter in 0..2; got {contrast}, {skill} and "
            f"{clutter}.",
            "Leave them out for the usual difficulty.",
        )


def _plan_items(images: int, seed: int, contrast: tuple[float, float]) -> list[_Item]:
    items: list[_Item] = []
    person = -1
    for n in range(images):
        rng = np.random.default_rng([seed, 0, n])
        if not items or rng.random() > 1 / 12 or (len(items) > 1 and items[-1].person == items[-2].person):
            person += 1
        block = np.random.default_rng([seed, 5, n // 3]).permutation(3)
        label: Label = ("Normal", "CHF", "pneumonia")[block[n % 3]]
        groups = "-".join("".join(rng.choice(list("0123456789abcdef"), 8)) for _ in range(5))
        items.append(
            _Item(groups, f"{10000000 + 37 * person}", f"{50000000 + 11 * n}", label,
                  float(rng.uniform(*contrast)), person, n)
        )  # fmt: skip
    return items


def _write_image(destination: Path, item: _Item, chest: Chest, seed: int) -> str:
    path = f"files/p{item.patient[:2]}/p{item.patient}/s{item.study}/{item.dicom_id}.dcm"
    file = destination / path
    file.parent.mkdir(parents=True, exist_ok=True)
    header = RadiographHeader(
        seed, item.patient, item.study, item.dicom_id, 1, "PA", "", "CHEST", round(420.0 / chest.picture.shape[0], 4)
    )
    write_dicom(chest.picture, file, header=header, inverted=False)
    return path


def _write_masks(destination: Path, item: _Item, chest: Chest) -> None:
    folder = destination / "audio_segmentation_transcripts" / item.dicom_id
    folder.mkdir(parents=True)
    for name in MASKS:
        Image.fromarray((chest.organs[name] * 255).astype(np.uint8)).save(folder / f"{name}.png", compress_level=1)
    (folder / "transcript.json").write_text(json.dumps({"full_text": _WORDS[item.label]}) + "\n", encoding="utf-8")


def _simulate_calibration(rng: Generator, shape: tuple[int, int], offset_deg: Any) -> Scanpath:
    """Eyes on the dot of a calibration picture: the middle of the screen, as far off as the session's tracker is."""
    n = int(rng.integers(60, 120))
    degree = shape[0] / HEIGHT_DEG
    _, _, left, right = compute_pads(shape)
    # the bars may differ by a screen pixel; the dot is on the screen's middle
    middle = np.array([shape[0] / 2.0, shape[1] / 2.0 + (right - left) / 2.0 * shape[1] / (SCREEN[1] - left - right)])
    seen = middle + np.asarray(offset_deg) * degree
    samples = seen + rng.normal(0.0, 0.06 * degree, (n, 2))
    return Scanpath(
        np.array([[*seen, 0.1, n / RATE_HZ]]), samples, np.zeros(n, dtype=np.int64), np.ones(n, dtype=bool),
        float("nan"),
    )  # fmt: skip


def _describe_truth(item: _Item, chest: Chest, reading: Scanpath, on: Any) -> dict[str, Any]:
    return {
        "label": item.label, "contrast": round(item.contrast, 4), "patient": item.patient,
        "cardiothoracic_ratio": round(chest.cardiothoracic_ratio, 4),
        "finding": None if chest.finding is None else measure_extent(chest.finding),
        "samples": len(reading.samples), "valid_inside": int((on & reading.valid).sum()),
        "fixations": len(reading.fixations),
        "on_finding": None if np.isnan(reading.on_finding) else round(reading.on_finding, 4),
    }  # fmt: skip


def _write_rest(destination: Path, items: list[_Item]) -> list[str]:
    """The lists by class, and a published list of ids; returns the latter."""
    folder = destination / "inclusion_exclusion_criteria_outputs"
    folder.mkdir()
    for name, file in (("CHF", "CHF"), ("Normal", "normals"), ("pneumonia", "pneumonia")):
        with ChestTable(folder / f"{file}.csv", ("dicom_id", "study_id", "patient_id")) as table:
            table.rows((item.dicom_id, item.study, item.patient) for item in items if item.label == name)
    # as Watanabe 2022 releases one: byte order mark, header ",filename"
    ids = [item.dicom_id for item in items if item.number % 16 != 5]
    text = "\ufeff,filename\n" + "".join(f"{n},{name}\n" for n, name in enumerate(ids))
    (destination / "filenames.csv").write_text(text, encoding="utf-8")
    return ids
