"""Rows of EGD-CXR's tables for a phantom: the master sheet, boxes, and what the tracker wrote."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from sightline.data.phantoms.chest.anatomy import Bools
from sightline.data.phantoms.chest.draw import CHEST_CLASSES, Chest, Label
from sightline.data.phantoms.chest.reader import RATE_HZ, Scanpath
from sightline.structures.frame import FloatArray

SCREEN = (1080, 1920)
GAZE_COLUMNS = (
    "SESSION_ID", "MEDIA_ID", "DICOM_ID", "CNT", "Time (in secs)", "TIMETICK(f=10000000)", "FPOGX", "FPOGY", "FPOGS",
    "FPOGD", "FPOGID", "FPOGV", "BPOGX", "BPOGY", "BPOGV", "LPCX", "LPCY", "LPD", "LPS", "LPV", "RPCX", "RPCY", "RPD",
    "RPS", "RPV", "BKID", "BKDUR", "BKPMIN", "LPMM", "LPMMV", "RPMM", "RPMMV", "SACCADE_MAG", "SACCADE_DIR",
    "VID_FRAME", "X_ORIGINAL", "Y_ORIGINAL",
)  # fmt: skip
BOX_COLUMNS = ("dicom_id", "bbox_name", "x1", "x2", "y1", "y2")
Pads = tuple[int, int, int, int]

_FINDINGS = (
    "consolidation", "enlarged_cardiac_silhouette", "linear__patchy_atelectasis", "lobar__segmental_collapse",
    "not_otherwise_specified_opacity___pleural__parenchymal_opacity__", "pleural_effusion_or_thickening",
    "pulmonary_edema__hazy_opacity", "normal_anatomically", "elevated_hemidiaphragm", "hyperaeration",
    "vascular_redistribution",
)  # fmt: skip
_SHOWN = {
    "Normal": ("normal_anatomically",),
    "CHF": ("enlarged_cardiac_silhouette", "pulmonary_edema__hazy_opacity", "vascular_redistribution"),
    "pneumonia": ("consolidation",),
}
_CHEXPERT = (
    "atelectasis", "cardiomegaly", "consolidation", "edema", "enlarged_cardiomediastinum", "fracture", "lung_lesion",
    "lung_opacity", "no_finding", "pleural_effusion", "pleural_other", "pneumonia", "pneumothorax", "support_devices",
)  # fmt: skip
_SAID = {"Normal": "no_finding", "CHF": "cardiomegaly", "pneumonia": "pneumonia"}


class ChestTable:
    """A csv that is written row by row."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(columns)

    def rows(self, rows: Iterable[Sequence[Any]]) -> None:
        """Write rows in the order of the columns."""
        self._writer.writerows(rows)

    def __enter__(self) -> ChestTable:
        """The table itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()


def compute_pads(shape: tuple[int, int]) -> Pads:
    """Grey bars around an image fitted to the screen: top, bottom, left, right in screen pixels."""
    scale = min(SCREEN[0] / shape[0], SCREEN[1] / shape[1])
    tall, wide = round(shape[0] * scale), round(shape[1] * scale)
    top, left = (SCREEN[0] - tall) // 2, (SCREEN[1] - wide) // 2
    return top, SCREEN[0] - tall - top, left, SCREEN[1] - wide - left


def list_master_columns(pads: str) -> tuple[str, ...]:
    """Columns of the master sheet; `pads` is the spelling of those of the grey bars."""
    end = "_pad" if pads.endswith("_pad") else ""
    return (
        "dicom_id", "path", "study_id", "patient_id", "stay_id", "gender", "anchor_age",
        *(f"image_{side}{end}" for side in ("top", "bottom", "left", "right")),
        *(name for n in range(1, 10) for name in (f"dx{n}", f"dx{n}_icd")), "normal_reports", *CHEST_CLASSES,
        *_FINDINGS, *(f"{name}__chx" for name in _CHEXPERT), "cxr_exam_indication",
    )  # fmt: skip


def build_master_row(
    dicom_id: str, path: str, study: str, patient: str, label: Label, pads: Pads, person: Generator, rng: Generator
) -> tuple[Any, ...]:
    """A record of the master sheet; three in ten have an indication of several lines."""
    sex, age = "FM"[int(person.integers(2))], int(person.integers(2, 9)) * 10
    indication = (
        'EXAMINATION:  CHEST (PA)\n\nINDICATION:  Cough, "r/o" pneumonia\n' if rng.random() < 0.3 else "Dyspnea"
    )
    return (
        dicom_id, path, study, patient, int(rng.integers(30_000_000, 40_000_000)), sex, f"{age} - {age + 10}", *pads,
        "Shortness of breath", "R0602", *[""] * 16, int(label == "Normal"),
        *(int(label == name) for name in CHEST_CLASSES), *(int(name in _SHOWN[label]) for name in _FINDINGS),
        *("1.0" if name == _SAID[label] else "" for name in _CHEXPERT), indication,
    )  # fmt: skip


def measure_extent(mask: Bools) -> tuple[int, int, int, int]:
    """The tight box of a mask: row start, column start, row stop, column stop."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def build_box_rows(dicom_id: str, chest: Chest) -> list[tuple[Any, ...]]:
    """Boxes of the organs; the file's order of columns is x1, x2, y1, y2."""
    left, right = measure_extent(chest.organs["left_lung"]), measure_extent(chest.organs["right_lung"])
    boxes = {
        "cardiac silhouette": chest.heart, "left lung": left, "right lung": right,
        "aortic knob": measure_extent(chest.organs["aortic_knob"]),
        "mediastinum": measure_extent(chest.organs["mediastinum"]),
    }  # fmt: skip
    for side, (top, start, bottom, stop) in (("left", left), ("right", right)):
        thirds = np.linspace(top, bottom, 4).round().astype(int).tolist()
        for zone, a, b in zip(("upper", "mid", "lower"), thirds, thirds[1:], strict=False):
            boxes[f"{side} {zone} lung zone"] = (a, start, b, stop)
    return [(dicom_id, name, c0, c1, r0, r1) for name, (r0, c0, r1, c1) in boxes.items()]


def project_to_screen(places: FloatArray, shape: tuple[int, int], pads: Pads) -> FloatArray:
    """Source pixels [n, 2] as (FPOGY, FPOGX), shares of the screen, with the five digits of the table."""
    top, bottom, left, right = pads
    drawn = np.array([SCREEN[0] - top - bottom, SCREEN[1] - left - right])
    shares: FloatArray = np.round((places / shape * drawn + [top, left]) / SCREEN, 5)
    return shares


def project_to_image(shares: FloatArray, shape: tuple[int, int], pads: Pads) -> FloatArray:
    """What `project_to_screen` undoes."""
    top, bottom, left, right = pads
    drawn = np.array([SCREEN[0] - top - bottom, SCREEN[1] - left - right])
    places: FloatArray = (shares * SCREEN - [top, left]) * shape / drawn
    return places


def find_samples_inside(reading: Scanpath, shape: tuple[int, int], pads: Pads) -> Bools:
    """Which samples, as written, lie on the image."""
    places = project_to_image(project_to_screen(reading.samples, shape, pads), shape, pads)
    return np.asarray(((places > 0.0) & (places < np.array(shape))).all(axis=1))


def build_sample_rows(
    reading: Scanpath, name: tuple[str, str, str], shape: tuple[int, int], pads: Pads
) -> list[tuple[Any, ...]]:
    """Rows of eye_gaze.csv; `name` is session, media and DICOM_ID."""
    seconds = np.arange(len(reading.samples)) / RATE_HZ
    begun = np.minimum(reading.fixations[reading.fixation, 2], seconds)
    return _build_rows(
        reading.samples, seconds, begun, seconds - begun, reading.fixation, reading.valid, name, shape, pads
    )


def build_fixation_rows(
    reading: Scanpath, name: tuple[str, str, str], shape: tuple[int, int], pads: Pads
) -> list[tuple[Any, ...]]:
    """Rows of fixations.csv: the last sample of each fixation, as the tracker's program exports it."""
    begun, lasted = reading.fixations[:, 2], reading.fixations[:, 3]
    n = len(begun)
    valid = np.ones(n, dtype=bool)
    return _build_rows(reading.fixations[:, :2], begun + lasted, begun, lasted, np.arange(n), valid, name,
                 shape, pads)  # fmt: skip


def _build_rows(
    places: FloatArray, seconds: FloatArray, begun: FloatArray, lasted: FloatArray, owner: Any, valid: Bools,
    name: tuple[str, str, str], shape: tuple[int, int], pads: Pads,
) -> list[tuple[Any, ...]]:  # fmt: skip
    shares = project_to_screen(places, shape, pads)
    found = project_to_image(shares, shape, pads)
    whole = np.floor(found).astype(int)
    # the published table says minus something where the eyes were off the image
    off = ~((found >= 0.0) & (found < np.array(shape))).all(axis=1)
    whole[off] = -1 - np.abs(whole[off])
    blink = np.cumsum(~valid & np.concatenate([[True], valid[:-1]])) * ~valid
    leap = np.diff(shares * SCREEN, axis=0, prepend=shares[:1] * SCREEN)
    far, turn = np.hypot(leap[:, 0], leap[:, 1]), np.degrees(np.arctan2(-leap[:, 0], leap[:, 1])) % 360.0

    def format_numbers(values: FloatArray, digits: int = 5) -> list[str]:
        return [f"{value:.{digits}f}" for value in values.tolist()]

    n = len(places)
    x, y, ok = format_numbers(shares[:, 1]), format_numbers(shares[:, 0]), valid.astype(int).tolist()
    same = [[constant] * n for constant in name]
    columns: list[list[Any]] = [
        *same, list(range(n)), format_numbers(seconds), np.round(seconds * 1e7).astype(np.int64).tolist(), x, y,
        format_numbers(begun), format_numbers(lasted), (np.asarray(owner) + 1).tolist(), ok, x, y, ok,
        ["0.43"] * n, ["0.52"] * n, ["14.2"] * n, ["1.0"] * n, ok, ["0.58"] * n, ["0.51"] * n, ["14.4"] * n,
        ["1.0"] * n, ok, blink.tolist(), ["0.0"] * n, ["14"] * n, ["3.1"] * n, ok, ["3.2"] * n, ok,
        format_numbers(far, 2), format_numbers(turn, 2), [int(s * 30) for s in seconds.tolist()],
        whole[:, 1].tolist(), whole[:, 0].tolist(),
    ]  # fmt: skip
    return list(zip(*columns, strict=True))
