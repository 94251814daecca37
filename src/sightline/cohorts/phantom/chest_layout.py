"""A phantom chest cohort in the very layout of EGD-CXR 1.0.0 (Karargyris 2021), with the traps the real one has.

Planted: newlines inside quoted fields of the master sheet; calibration pictures under the previous image's id with its
last five characters cut; ids in upper case in the gaze tables of every other session; padding columns under two
spellings; samples off the image with negative coordinates; closed lids; sessions whose last image must not be lost.
`truth.json`, beside the published files, says what is true.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.random import Generator
from PIL import Image

from sightline.cohorts.phantom.chest import CHEST_CLASSES, Chest, Label, draw_chest
from sightline.cohorts.phantom.chest_reader import RATE_HZ, Scanpath, read_chest
from sightline.cohorts.phantom.dicom import write_dicom
from sightline.errors import CohortError

SCREEN = (1080, 1920)
CALIBRATION_EVERY = 20
SESSION_IMAGES = 28
GAZE_COLUMNS = (
    "SESSION_ID", "MEDIA_ID", "DICOM_ID", "CNT", "Time (in secs)", "TIMETICK(f=10000000)", "FPOGX", "FPOGY", "FPOGS",
    "FPOGD", "FPOGID", "FPOGV", "BPOGX", "BPOGY", "BPOGV", "LPMM", "LPMMV", "RPMM", "RPMMV", "X_ORIGINAL", "Y_ORIGINAL",
)  # fmt: skip
MASKS = ("left_lung", "right_lung", "mediastinum", "aortic_knob")


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
    shape: tuple[int, int] = (320, 276),
    contrast: tuple[float, float] = (0.05, 0.9),
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
        contrast: range of how plain findings are (uniform).
        skill: how much of a reading goes to what the label asks for.
        pads: spelling of the padding columns in the master sheet.
        calibrations: plant calibration pictures.
        progress: called with (done, of how many).

    Returns:
        What is true, as written to truth.json.

    Raises:
        CohortError: the folder holds something, or fewer than three images.
    """
    if destination.exists() and any(destination.iterdir()):
        raise CohortError(f"{destination} is not empty.", "Name a new folder.")
    if images < 3:
        raise CohortError(f"A phantom chest cohort needs three images or more; got {images}.", "Ask for 300.")
    items = _planned(images, seed, contrast)
    truth: dict[str, Any] = {"images": {}, "calibration_rows": 0, "sessions": 0, "last_of_session": []}
    destination.mkdir(parents=True, exist_ok=True)
    master = _Table(destination / "master_sheet.csv", _master_columns(pads))
    boxes = _Table(destination / "bounding_boxes.csv", ("dicom_id", "bbox_name", "x1", "x2", "y1", "y2"))
    with (
        _Table(destination / "eye_gaze.csv", GAZE_COLUMNS) as samples,
        _Table(destination / "fixations.csv", GAZE_COLUMNS) as fixations,
        master,
        boxes,
    ):
        for n, item in enumerate(items):
            chest = draw_chest(
                item.label, np.random.default_rng([seed, 1, n]), shape=shape, contrast=item.contrast,
                person=np.random.default_rng([seed, 2, item.person]),
            )  # fmt: skip
            path = _write_image(destination, item, chest, seed)
            _write_masks(destination, item, chest)
            left = _pads(shape)
            master.row(_master_row(item, path, pads, left))
            for row in _box_rows(item, chest):
                boxes.row(row)
            reading = read_chest(chest, np.random.default_rng([seed, 3, n]), skill=skill)
            session, place = divmod(n, SESSION_IMAGES)
            # some sessions' tables have the ids in upper case
            written = item.dicom_id.upper() if session % 2 else item.dicom_id
            rows = _gaze_rows(reading, written, shape, f"session_{session}", f"media_{place}", left)
            for row in rows[0]:
                samples.row(row)
            for row in rows[1]:
                fixations.row(row)
            if calibrations and n % CALIBRATION_EVERY == CALIBRATION_EVERY - 1:
                # the next picture shown is a dot on a blank page, filed under this image's id cut short
                dot = _gaze_rows(
                    _dot(np.random.default_rng([seed, 4, n]), shape), written[:-5], shape,
                    f"session_{session}", f"calibration_{place}", left,
                )  # fmt: skip
                for row in dot[0]:
                    samples.row(row)
                for row in dot[1]:
                    fixations.row(row)
                truth["calibration_rows"] += len(dot[0])
            if place == SESSION_IMAGES - 1 or n == images - 1:
                truth["last_of_session"].append(item.dicom_id)
            truth["sessions"] = session + 1
            truth["images"][item.dicom_id] = _truth_of(item, chest, reading)
            if progress is not None:
                progress(n + 1, images)
    _write_rest(destination, items)
    (destination / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return truth


def _planned(images: int, seed: int, contrast: tuple[float, float]) -> list[_Item]:
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
    write_dicom(
        chest.picture, file, seed=seed, patient_id=item.patient, study_id=item.study, case_id=item.dicom_id, number=1,
        view="PA", side="", body_part="CHEST", pixel_mm=round(420.0 / chest.picture.shape[0], 4), inverted=False,
    )  # fmt: skip
    return path


def _write_masks(destination: Path, item: _Item, chest: Chest) -> None:
    folder = destination / "audio_segmentation_transcripts" / item.dicom_id
    folder.mkdir(parents=True)
    for name in MASKS:
        Image.fromarray((chest.organs[name] * 255).astype(np.uint8)).save(folder / f"{name}.png")
    words = {"Normal": "No acute process.", "CHF": "Heart is enlarged.", "pneumonia": "Opacity, likely pneumonia."}
    (folder / "transcript.json").write_text(json.dumps({"full_text": words[item.label]}) + "\n", encoding="utf-8")


def _pads(shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Grey bars around an image fitted to the screen: top, bottom, left, right in screen pixels."""
    scale = min(SCREEN[0] / shape[0], SCREEN[1] / shape[1])
    tall, wide = round(shape[0] * scale), round(shape[1] * scale)
    top, left = (SCREEN[0] - tall) // 2, (SCREEN[1] - wide) // 2
    return top, SCREEN[0] - tall - top, left, SCREEN[1] - wide - left


def _master_columns(pads: str) -> tuple[str, ...]:
    end = "_pad" if pads.endswith("_pad") else ""
    sides = tuple(f"image_{side}{end}" for side in ("top", "bottom", "left", "right"))
    return (
        "dicom_id", "path", "study_id", "patient_id", "stay_id", "gender", "anchor_age", *sides, "dx1", "dx1_icd",
        "normal_reports", "Normal", "CHF", "pneumonia", "pulmonary_edema__hazy_opacity", "cxr_exam_indication",
    )  # fmt: skip


def _master_row(item: _Item, path: str, pads: str, left: tuple[int, int, int, int]) -> dict[str, Any]:
    end = "_pad" if pads.endswith("_pad") else ""
    sides = dict(zip((f"image_{s}{end}" for s in ("top", "bottom", "left", "right")), left, strict=True))
    rng = np.random.default_rng([7, item.number])
    said = 'EXAMINATION:  CHEST (PA)\n\nINDICATION:  Cough, "r/o" pneumonia'
    return {
        "dicom_id": item.dicom_id, "path": path, "study_id": item.study, "patient_id": item.patient,
        "stay_id": item.number, "gender": "F" if rng.random() < 0.5 else "M", "anchor_age": "60 - 70", **sides,
        "dx1": "phantom", "dx1_icd": "R05",
        "normal_reports": int(item.label == "Normal"), **{name: int(item.label == name) for name in CHEST_CLASSES},
        "pulmonary_edema__hazy_opacity": int(item.label == "CHF"),
        "cxr_exam_indication": said if rng.random() < 0.3 else "Dyspnea",
    }  # fmt: skip


def _box_rows(item: _Item, chest: Chest) -> list[dict[str, Any]]:
    rows = []
    parts = {
        "cardiac silhouette": chest.heart, "left lung": _extent(chest.organs["left_lung"]),
        "right lung": _extent(chest.organs["right_lung"]), "aortic knob": _extent(chest.organs["aortic_knob"]),
    }  # fmt: skip
    for name, (r0, c0, r1, c1) in parts.items():
        rows.append({"dicom_id": item.dicom_id, "bbox_name": name, "x1": c0, "x2": c1, "y1": r0, "y2": r1})
    return rows


def _extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _dot(rng: Generator, shape: tuple[int, int]) -> Scanpath:
    """Eyes on the dot of a calibration picture: the middle of the screen."""
    n = int(rng.integers(60, 120))
    middle = np.array(shape) / 2.0
    samples = middle + rng.normal(0.0, 2.0, (n, 2))
    fixation = np.array([[*middle, 0.1, n / RATE_HZ]])
    return Scanpath(fixation, samples, np.zeros(n, dtype=int), np.ones(n, dtype=bool), float("nan"))


def _gaze_rows(
    reading: Scanpath, dicom_id: str, shape: tuple[int, int], session: str, media: str, pads: tuple[int, int, int, int]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of eye_gaze.csv and fixations.csv."""
    top, bottom, left, right = pads

    def row(place: Any, n: int, seconds: float, start: float, length: float, owner: int, valid: bool) -> dict[str, Any]:
        y = (top + place[0] / shape[0] * (SCREEN[0] - top - bottom)) / SCREEN[0]
        x = (left + place[1] / shape[1] * (SCREEN[1] - left - right)) / SCREEN[1]
        inside = 0 <= place[0] < shape[0] and 0 <= place[1] < shape[1]
        original = (int(place[1]), int(place[0])) if inside else (-1 - int(abs(place[1])), -1 - int(abs(place[0])))
        return {
            "SESSION_ID": session, "MEDIA_ID": media, "DICOM_ID": dicom_id, "CNT": n,
            "Time (in secs)": f"{seconds:.5f}", "TIMETICK(f=10000000)": round(seconds * 1e7),
            "FPOGX": f"{x:.5f}", "FPOGY": f"{y:.5f}", "FPOGS": f"{start:.5f}", "FPOGD": f"{length:.5f}",
            "FPOGID": owner + 1, "FPOGV": int(valid), "BPOGX": f"{x:.5f}", "BPOGY": f"{y:.5f}", "BPOGV": int(valid),
            "LPMM": 3.1, "LPMMV": int(valid), "RPMM": 3.2, "RPMMV": int(valid),
            "X_ORIGINAL": original[0], "Y_ORIGINAL": original[1],
        }  # fmt: skip

    samples = [
        row(
            place,
            n,
            n / RATE_HZ,
            reading.fixations[owner, 2],
            n / RATE_HZ - reading.fixations[owner, 2],
            int(owner),
            ok,
        )
        for n, (place, owner, ok) in enumerate(zip(reading.samples, reading.fixation, reading.valid, strict=True))
    ]
    fixations = [row(f[:2], n, f[2] + f[3], f[2], f[3], n, True) for n, f in enumerate(reading.fixations)]
    return samples, fixations


def _truth_of(item: _Item, chest: Chest, reading: Scanpath) -> dict[str, Any]:
    inside = ((reading.samples >= 0) & (reading.samples < np.array(chest.picture.shape))).all(axis=1)
    return {
        "label": item.label, "contrast": item.contrast, "patient": item.patient,
        "cardiothoracic_ratio": round(chest.cardiothoracic_ratio, 4),
        "finding": None if chest.finding is None else _extent(chest.finding),
        "samples": len(reading.samples), "valid_inside": int((inside & reading.valid).sum()),
        "fixations": len(reading.fixations),
        "on_finding": None if np.isnan(reading.on_finding) else round(reading.on_finding, 4),
    }  # fmt: skip


def _write_rest(destination: Path, items: list[_Item]) -> None:
    folder = destination / "inclusion_exclusion_criteria_outputs"
    folder.mkdir()
    for name, file in (("CHF", "CHF"), ("Normal", "normals"), ("pneumonia", "pneumonia")):
        with _Table(folder / f"{file}.csv", ("dicom_id", "study_id", "patient_id")) as table:
            for item in items:
                if item.label == name:
                    table.row({"dicom_id": item.dicom_id, "study_id": item.study, "patient_id": item.patient})
    # a published list of ids, as Watanabe 2022 releases one: byte order mark, header ",filename"
    ids = [item.dicom_id for item in items if item.number % 16 != 5]
    text = "\ufeff,filename\n" + "".join(f"{n},{name}\n" for n, name in enumerate(ids))
    (destination / "filenames.csv").write_text(text, encoding="utf-8")


class _Table:
    """A csv that is written row by row."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, columns)
        self._writer.writeheader()

    def row(self, row: dict[str, Any]) -> None:
        self._writer.writerow(row)

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
