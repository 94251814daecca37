"""The tables of EGD-CXR 1.0.0 that are not gaze: who was imaged, ids to keep, boxes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from sightline.data.datasets.gaze.recordings import compute_time_until_next, require_seconds
from sightline.errors import LayoutError, count_noun
from sightline.io.tables import find_dialect, find_text_encoding, require_even_rows
from sightline.structures.frame import FloatArray
from sightline.structures.gaze import LONGEST_DWELL_S
from sightline.structures.identifiers import normalise_form

SCREEN = (1080, 1920)
_SIDES = ("top", "bottom", "left", "right")
_MARKED, _UNMARKED = ("1", "1.0"), ("0", "0.0", "")


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
    frame = _read_table(path, "dicom_id")
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
        strange = [name for name in classes if cells[name.lower()] not in _MARKED + _UNMARKED]
        if strange:
            raise LayoutError(
                f"{path}, record {number}: {strange[0]} is {cells[strange[0].lower()]!r}, expected 1 or 0.",
                "Restore the published file.",
            )
        unnamed = next((name for name in ("dicom_id", "study_id", "patient_id") if not cells[name]), None)
        if unnamed:
            raise LayoutError(f"{path}, record {number}: {unnamed} is empty.", "Restore the published file.")
        marks = tuple(name for name in classes if cells[name.lower()] in _MARKED)
        facts = {name: cells[name] for name in ("gender", "anchor_age") if cells.get(name)}
        records.append(
            Record(
                _parse_id(cells["dicom_id"]),
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
        raise LayoutError(f"{path} names {count_noun(repeated, 'image')} twice.", "Restore the published file.")
    with path.open("rb") as file:
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    return records, lines - 1


def read_ids(path: Path) -> set[str]:
    """The ids of a list as the authors of Watanabe 2022 publish one: byte order mark, columns `,filename`.

    Raises:
        LayoutError: no such column.
    """
    frame = _read_table(path, "filename")
    if "filename" not in frame.columns and frame.shape[1] != 1:
        raise LayoutError(
            f"{path} has no column filename; it has {', '.join(frame.columns)}.", "Name ids in one column."
        )
    column = frame["filename"] if "filename" in frame.columns else frame.iloc[:, 0]
    return {_parse_id(str(text)).removesuffix(".dcm") for text in column if str(text).strip()}


def read_organ_boxes(path: Path, name: str) -> dict[str, tuple[float, float, float, float]]:
    """Boxes of one name by dicom id: row start, column start, row stop, column stop.

    The file's order of columns is x1, x2, y1, y2.
    """
    frame = _read_table(path, "dicom_id")
    missing = [c for c in ("dicom_id", "bbox_name", "x1", "x2", "y1", "y2") if c not in frame.columns]
    if missing:
        raise LayoutError(f"{path} has no column {', '.join(missing)}.", "Restore the published file.")
    boxes: dict[str, tuple[float, float, float, float]] = {}
    for row in frame[frame["bbox_name"] == name].to_dict("records"):
        try:
            r0, r1, c0, c1 = (float(row[c]) for c in ("y1", "y2", "x1", "x2"))
            if not np.isfinite([r0, r1, c0, c1]).all():
                raise ValueError
        except ValueError:
            raise LayoutError(f"{path}: a box of {row['dicom_id']} is no number.", "Restore the file.") from None
        box = boxes.setdefault(_parse_id(str(row["dicom_id"])), (r0, c0, r1, c1))
        if box != (r0, c0, r1, c1):
            raise LayoutError(f"{path}: {row['dicom_id']} has two boxes of the {name}.", "Restore the published file.")
    return boxes


def _parse_id(text: str) -> str:
    """An id of an image in the form in which the tables are joined."""
    return normalise_form(text).lower()


def _read_table(path: Path, column: str) -> pd.DataFrame:
    dialect = find_dialect(path, (column,))
    require_even_rows(path, dialect["sep"], short=True, columns=(column,))
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, **dialect)
    except FileNotFoundError:
        raise LayoutError(f"{path} does not exist.", "Point at the folder of EGD-CXR 1.0.0.") from None
    except (OSError, ValueError) as error:
        raise LayoutError(f"{path} does not parse as CSV ({error}).", "Restore the published file.") from None


CUT = 5
CHUNK_ROWS = 250_000
# calculated places and the table's own may differ by rounding, and by the last digit of FPOGX on a large picture
AGREE_PX = 3.0
_GAZE = (
    "DICOM_ID",
    "SESSION_ID",
    "Time (in secs)",
    "FPOGX",
    "FPOGY",
    "FPOGS",
    "FPOGD",
    "FPOGV",
    "X_ORIGINAL",
    "Y_ORIGINAL",
)


@dataclass
class Gazes:
    """What a gaze table holds for the images asked for, and what was left out of it.

    Attributes:
        places: (row, column) in source pixels, by dicom id.
        start_s: seconds since the image's first row.
        dwell_s: seconds each place counts for.
        counts: rows read, by what became of them.
        calibration_ids: the cut ids met.
        per_session: mean over calibration pictures of the last place on the screen, 0..1 (x, y), by session.
        disagreeing: rows whose own X_ORIGINAL, Y_ORIGINAL say another place.
    """

    places: dict[str, FloatArray] = field(default_factory=dict)
    start_s: dict[str, FloatArray] = field(default_factory=dict)
    dwell_s: dict[str, FloatArray] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    calibration_ids: set[str] = field(default_factory=set)
    per_session: dict[str, tuple[float, float]] = field(default_factory=dict)
    disagreeing: int = 0


def read_gaze(
    path: Path,
    records: Mapping[str, Record],
    shapes: Mapping[str, tuple[int, int]],
    kind: Literal["samples", "fixations"],
    *,
    correct_drift: bool = False,
) -> Gazes:
    """The gaze of images, in source pixels.

    Dropped, and counted: calibration pictures (stored under the previous image's id with its last characters cut, and
    never matched by what is left of it), other ids, closed lids (FPOGV 0) and places off the image.

    Args:
        path: eye_gaze.csv or fixations.csv.
        records: all records of the master sheet by dicom id.
        shapes: (rows, columns) of the images wanted.
        kind: samples count the time to the next one, fixations their FPOGD.
        correct_drift: shift each session by how far its calibration gaze lay from the middle of the screen.

    Raises:
        LayoutError: missing columns, numbers that are none, or places that disagree with the table's own.
    """
    gazes = Gazes(counts=dict.fromkeys(("read", "calibration", "unknown id", "invalid", "off image", "kept"), 0))
    parts: dict[str, list[pd.DataFrame]] = {}
    calibration: dict[tuple[str, str], tuple[float, float, float]] = {}
    ends = {dicom_id[:-CUT] for dicom_id in records}
    for chunk in _iterate_chunks(path):
        ids = chunk["DICOM_ID"].astype(str)
        ids = ids.map({text: _parse_id(text) for text in ids.unique()})
        gazes.counts["read"] += len(chunk)
        known = ids.isin(records.keys())
        cut = ~known & ids.isin(ends)
        gazes.counts["calibration"] += int(cut.sum())
        gazes.counts["unknown id"] += int((~known & ~cut).sum())
        gazes.calibration_ids |= set(ids[cut])
        dots = chunk[cut & (chunk["FPOGV"] == 1)]
        for (session, dot), rows in dots.groupby(["SESSION_ID", ids[dots.index]]):
            # the eyes have come to rest on the dot at its end
            last = rows.loc[rows["Time (in secs)"].idxmax()]
            seen = (float(last["Time (in secs)"]), float(last["FPOGX"]), float(last["FPOGY"]))
            calibration[str(session), str(dot)] = max(seen, calibration.get((str(session), str(dot)), seen))
        wanted = chunk[known & ids.isin(shapes.keys())].drop(columns="DICOM_ID")
        wanted["SESSION_ID"] = wanted["SESSION_ID"].astype("category")
        for dicom_id, rows in wanted.groupby(ids[wanted.index]):
            parts.setdefault(str(dicom_id), []).append(rows)
    for name in {session for session, _ in calibration}:
        places = [seen[1:] for (session, _), seen in calibration.items() if session == name]
        gazes.per_session[name] = (sum(x for x, _ in places) / len(places), sum(y for _, y in places) / len(places))
    for dicom_id in list(parts):
        rows = pd.concat(parts.pop(dicom_id))
        absent = [name for name in _list_needed_columns(kind) if not np.isfinite(rows[name]).all()]
        if absent:
            raise LayoutError(f"{path}: rows of {dicom_id} have no {', '.join(absent)}.", "Restore the published file.")
        if kind == "fixations" and not (rows["FPOGD"] <= LONGEST_DWELL_S).all():
            raise LayoutError(
                f"{path}: a fixation of {dicom_id} lasts {rows['FPOGD'].max():g} s; at most {LONGEST_DWELL_S:g} s can "
                "be.",
                "Restore the published file.",
            )
        _add_places(gazes, path, dicom_id, rows, records[dicom_id], shapes[dicom_id], kind, correct_drift)
    if gazes.disagreeing > 0.02 * max(1, gazes.counts["kept"]):
        raise LayoutError(
            f"{path}: {gazes.disagreeing} of {gazes.counts['kept']} places lie more than {AGREE_PX:g} px from "
            "the table's own X_ORIGINAL, Y_ORIGINAL.",
            "The images have another size than those that were read, or the pads belong to another screen.",
        )
    return gazes


def _list_needed_columns(kind: Literal["samples", "fixations"]) -> tuple[str, ...]:
    return ("Time (in secs)", "FPOGV") if kind == "samples" else ("FPOGS", "FPOGD", "FPOGV")


def _add_places(
    gazes: Gazes,
    path: Path,
    dicom_id: str,
    rows: pd.DataFrame,
    record: Record,
    shape: tuple[int, int],
    kind: Literal["samples", "fixations"],
    correct_drift: bool,
) -> None:
    """One image's places from its rows."""
    top, bottom, left, right = record.pads
    x, y = (rows[name].to_numpy(np.float64) for name in ("FPOGX", "FPOGY"))
    if correct_drift:
        middles = rows["SESSION_ID"].astype(str).map(lambda s: gazes.per_session.get(s, (0.5, 0.5)))
        x, y = x + 0.5 - np.array([m[0] for m in middles]), y + 0.5 - np.array([m[1] for m in middles])
    column = (x * SCREEN[1] - left) * shape[1] / (SCREEN[1] - left - right)
    row = (y * SCREEN[0] - top) * shape[0] / (SCREEN[0] - top - bottom)
    places = np.stack([row, column], axis=1)
    start_name = "Time (in secs)" if kind == "samples" else "FPOGS"
    start = rows[start_name].to_numpy(np.float64)
    order = np.argsort(start, kind="stable")
    places, start, rows = places[order], start[order], rows.iloc[order]
    if kind == "fixations":
        dwell = np.clip(rows["FPOGD"].to_numpy(np.float64), 0.0, None)
    else:
        dwell = compute_time_until_next(start)
    require_seconds(path, dwell, kind)
    valid = rows["FPOGV"].to_numpy(np.float64) == 1
    inside = ((places > 0.0) & (places < np.array(shape))).all(axis=1)
    gazes.counts["invalid"] += int((~valid).sum())
    gazes.counts["off image"] += int((valid & ~inside).sum())
    keep = valid & inside
    gazes.counts["kept"] += int(keep.sum())
    if not correct_drift and {"X_ORIGINAL", "Y_ORIGINAL"} <= set(rows.columns):
        own = rows[["Y_ORIGINAL", "X_ORIGINAL"]].to_numpy(np.float64)[keep]
        gazes.disagreeing += int((np.abs(own + 0.5 - places[keep]).max(axis=1) > AGREE_PX).sum())
    gazes.places[dicom_id] = places[keep]
    gazes.start_s[dicom_id] = (start - start[0])[keep]
    gazes.dwell_s[dicom_id] = dwell[keep]


def _require_whole_end(path: Path, columns: int, separator: str) -> None:
    """Refuse a table whose last row is shorter than its header: a download that broke off."""
    if find_text_encoding(path) == "utf-16":
        return  # not as it was published: whoever saved it again has read it to its end
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 65536))
        tail = file.read().decode("utf-8", errors="replace").splitlines()
    last = next((line for line in reversed(tail) if line.strip()), "")
    cells = len(next(csv.reader([last], delimiter=separator), []))
    if cells < columns:
        raise LayoutError(
            f"{path} breaks off: its last row has {cells} of {count_noun(columns, 'cell')}.",
            "Download it again (SHA256SUMS.txt).",
        )


def _iterate_chunks(path: Path) -> Any:
    """The gaze table piece by piece: the published one has a million and a half rows."""
    dialect = find_dialect(path, _GAZE)
    try:
        header = pd.read_csv(path, nrows=0, index_col=False, **dialect).columns
        missing = [name for name in _GAZE if name not in header]
        if missing:
            raise LayoutError(f"{path} has no column {', '.join(missing)}.", "Restore the published file.")
        _require_whole_end(path, len(header), dialect["sep"])
        require_even_rows(path, dialect["sep"], short=True, columns=_GAZE)
        numbers = {name: "float64" for name in _GAZE if name not in ("DICOM_ID", "SESSION_ID")}
        yield from pd.read_csv(
            path, usecols=list(_GAZE), dtype={**numbers, "DICOM_ID": str, "SESSION_ID": str}, chunksize=CHUNK_ROWS,
            index_col=False, **dialect,
        )  # fmt: skip
    except FileNotFoundError:
        raise LayoutError(f"{path} does not exist.", "Point at the folder of EGD-CXR 1.0.0.") from None
    except (OSError, ValueError) as error:
        raise LayoutError(f"{path} does not parse ({error}).", "Restore the published file.") from None
