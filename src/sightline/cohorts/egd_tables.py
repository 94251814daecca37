"""The tables of EGD-CXR 1.0.0 that are not gaze: who was imaged, ids to keep, boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sightline.errors import LayoutError

SCREEN = (1080, 1920)
_SIDES = ("top", "bottom", "left", "right")


@dataclass(frozen=True)
class Record:
    """One row of the master sheet.

    Attributes:
        dicom_id: lower case.
        path: of the image, relative to the tree.
        study_id: of the study.
        patient_id: of the patient.
        marks: the columns that hold 1 among the classes.
        pads: grey bars on the screen: top, bottom, left, right in screen pixels.
        facts: sex and age as written.
    """

    dicom_id: str
    path: str
    study_id: str
    patient_id: str
    marks: tuple[str, ...]
    pads: tuple[float, float, float, float]
    facts: Mapping[str, str]


def read_master(path: Path, classes: Sequence[str]) -> tuple[list[Record], int]:
    """Every record of the master sheet, and how many lines the file has (more: fields hold newlines).

    Raises:
        LayoutError: no file, no such columns, a repeated id, or pads that are no numbers.
    """
    frame = _table(path)
    columns = {column.strip().lower(): column for column in frame.columns}
    spelled = [tuple(f"image_{side}{end}" for side in _SIDES) for end in ("_pad", "")]
    pads = next((names for names in spelled if all(name in columns for name in names)), None)
    needed = ["dicom_id", "path", "study_id", "patient_id", *(name.lower() for name in classes)]
    missing = [name for name in needed if name not in columns]
    if missing or pads is None:
        what = ", ".join([*missing, *([] if pads else ["image_top_pad (or image_top), ..."])])
        raise LayoutError(f"{path} has no column {what}; its columns are {', '.join(frame.columns)[:300]}.",
                          "Point at EGD-CXR 1.0.0 with its master_sheet.csv.")  # fmt: skip
    records = []
    for number, row in enumerate(frame.to_dict("records"), start=1):
        cells = {name: str(row[column]).strip() for name, column in columns.items()}
        try:
            top, bottom, left, right = (float(cells[name] or 0.0) for name in pads)
        except ValueError:
            raise LayoutError(
                f"{path}, record {number}: the pads {[cells[name] for name in pads]} are no numbers.",
                "Restore the published file: a reader that splits it at line ends shifts its columns.",
            ) from None
        if not (min(top, bottom, left, right) >= 0.0 and top + bottom < SCREEN[0] and left + right < SCREEN[1]):
            raise LayoutError(
                f"{path}, record {number}: the pads {top:g}, {bottom:g}, {left:g}, {right:g} leave no image on "
                f"a screen of {SCREEN[1]} x {SCREEN[0]}.",
                "Restore the published file: top, bottom, left, right in screen pixels.",
            )
        marks = tuple(name for name in classes if cells[name.lower()] in ("1", "1.0"))
        facts = {name: cells[name] for name in ("gender", "anchor_age") if cells.get(name)}
        records.append(
            Record(
                cells["dicom_id"].lower(),
                cells["path"],
                cells["study_id"],
                cells["patient_id"],
                marks,
                (top, bottom, left, right),
                facts,
            )
        )
    repeated = len(records) - len({record.dicom_id for record in records})
    if repeated:
        raise LayoutError(f"{path} names {repeated} images twice.", "Restore the published file.")
    with path.open("rb") as file:
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    return records, lines - 1


def read_ids(path: Path) -> set[str]:
    """The ids of a list as the authors of Watanabe 2022 publish one: byte order mark, columns `,filename`.

    Raises:
        LayoutError: no such column.
    """
    frame = _table(path)
    if "filename" not in frame.columns and frame.shape[1] != 1:
        raise LayoutError(
            f"{path} has no column filename; it has {', '.join(frame.columns)}.", "Name ids in one column."
        )
    column = frame["filename"] if "filename" in frame.columns else frame.iloc[:, 0]
    return {str(text).strip().lower().removesuffix(".dcm") for text in column if str(text).strip()}


def read_boxes(path: Path, name: str) -> dict[str, tuple[float, float, float, float]]:
    """Boxes of one name by dicom id: row start, column start, row stop, column stop.

    The file's order of columns is x1, x2, y1, y2.
    """
    frame = _table(path)
    missing = [c for c in ("dicom_id", "bbox_name", "x1", "x2", "y1", "y2") if c not in frame.columns]
    if missing:
        raise LayoutError(f"{path} has no column {', '.join(missing)}.", "Restore the published file.")
    boxes = {}
    for row in frame[frame["bbox_name"] == name].to_dict("records"):
        try:
            r0, r1, c0, c1 = (float(row[c]) for c in ("y1", "y2", "x1", "x2"))
        except ValueError:
            raise LayoutError(f"{path}: a box of {row['dicom_id']} is no number.", "Restore the file.") from None
        boxes[str(row["dicom_id"]).lower()] = (r0, c0, r1, c1)
    return boxes


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise LayoutError(f"{path} does not exist.", "Point at the folder of EGD-CXR 1.0.0.") from None
    except (OSError, ValueError) as error:
        raise LayoutError(f"{path} does not parse as CSV ({error}).", "Restore the published file.") from None
