"""What a command has predicted so far, so that the same command goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sightline import __version__
from sightline.inference.network_output import RunFacts
from sightline.io.files import fingerprint_file, write_text
from sightline.structures.regions import ScoredBox

NAME = ".predicted.jsonl"
Said = TypeVar("Said")


@dataclass(frozen=True)
class PredictedFile:
    """One file, predicted: all that the tables of a command say of it.

    Attributes:
        row: of predictions.csv.
        boxes: found on it.
        shape: rows and columns of the picture.
        study_uid: of its header, or empty.
        probabilities: float64 [k], or None from a network that only locates.
        energy: log sum exp of its logits.
        overlay: file of its overlay below the output folder, or empty.
        remark: what a person should know of how it was shown, or empty.
        patient: digest of the patient's id in its header and, where stated, of its issuer; or empty.
        pixels: digest of its pixels, which tells a picture that was given twice.
        sop_uid: SOPInstanceUID of its header, or empty.
        uncalibrated: float64 [k], the probabilities before any calibration: what joined views are made of; or None.
    """

    row: tuple[str, ...]
    boxes: tuple[ScoredBox, ...]
    shape: tuple[int, int]
    study_uid: str
    probabilities: NDArray[np.float64] | None
    energy: float
    overlay: str
    remark: str = ""
    patient: str = ""
    pixels: str = ""
    sop_uid: str = ""
    uncalibrated: NDArray[np.float64] | None = None

    def to_json(self) -> dict[str, Any]:
        """The same in JSON; numbers keep every digit."""
        probabilities = None if self.probabilities is None else self.probabilities.tolist()
        boxes = [[box.label, box.score, list(box.corners)] for box in self.boxes]
        uncalibrated = None if self.uncalibrated is None else self.uncalibrated.tolist()
        return {
            **vars(self),
            "row": list(self.row),
            "boxes": boxes,
            "probabilities": probabilities,
            "uncalibrated": uncalibrated,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PredictedFile:
        """What `as_json` made."""
        boxes = tuple(ScoredBox(label, score, tuple(corners)) for label, score, corners in data["boxes"])
        probabilities = None if data["probabilities"] is None else np.array(data["probabilities"], dtype=np.float64)
        uncalibrated = None if data.get("uncalibrated") is None else np.array(data["uncalibrated"], dtype=np.float64)
        shape = (int(data["shape"][0]), int(data["shape"][1]))
        arrays = {"probabilities": probabilities, "uncalibrated": uncalibrated}
        return cls(**{**data, "row": tuple(data["row"]), "boxes": boxes, "shape": shape, **arrays})


def build_stamp(run: RunFacts, **more: Any) -> dict[str, Any]:
    """What a journal is of: the run, what was fixed on validation since, the code, and what else decides.

    Args:
        run: what predicts.
        more: options that change what is said or written; JSON.
    """
    weights = (run.folder / name for name in ("weights.safetensors", "model.onnx"))
    papers = [*sorted(run.folder.glob("*.json")), *(path for path in weights if path.is_file())]
    stamp = {"run": run.identity, "engine": run.engine, "version": __version__}
    return {**stamp, "papers": [fingerprint_file(paper) for paper in papers], **more}


def fingerprint_input(path: Path) -> str:
    """What says that a file, or every file of a folder, is still what it was: size, ends, and time of writing."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    try:
        marks = [f"{file.relative_to(path)} {fingerprint_file(file)} {file.stat().st_mtime_ns}" for file in files]
    except OSError:
        return ""
    return hashlib.sha256("\n".join(marks).encode(errors="backslashreplace")).hexdigest()[:24]


class Journal(Generic[Said]):
    """Predictions of a command, a line each, on disk as soon as they are made; gone when the command is done.

    Attributes:
        known: what another call of the same command left, by what was predicted: its mark and what was said.
    """

    def __init__(self, out: Path, stamp: dict[str, Any], parse: Callable[[Any], Said]) -> None:
        """Go on with what another call left in `out`; what was left under another stamp is thrown away.

        Args:
            out: the command's folder.
            stamp: see `build_stamp`.
            parse: what was said, from JSON.
        """
        self.path = out / NAME
        self.known: dict[str, tuple[str, Said]] = {}
        lines = self._read(stamp, parse)
        # whole before it takes the place of the old one: a full disk must not cost what was said before
        write_text(self.path, "".join(f"{line}\n" for line in (json.dumps(stamp), *lines)))
        self._file = self.path.open("a", encoding="ascii")

    def _read(self, stamp: dict[str, Any], parse: Callable[[Any], Said]) -> list[str]:
        try:
            first, *rest = self.path.read_text(encoding="ascii").splitlines()
            if json.loads(first) != stamp:
                return []
        except (OSError, ValueError):
            return []
        whole = []
        for line in rest:
            try:
                entry = json.loads(line)
                self.known[entry["file"]] = entry["mark"], parse(entry["said"])
            except (ValueError, KeyError, TypeError, IndexError):
                break  # cut off while it was written
            whole.append(line)
        return whole

    def find(self, name: str, mark: str) -> Said | None:
        """What was said before, if it is still the same input."""
        before, entry = self.known.get(name, ("", None))
        return entry if mark and before == mark else None

    def add(self, name: str, mark: str, entry: Any) -> None:
        """Keep what was said, as JSON."""
        self._file.write(json.dumps({"file": name, "mark": mark, "said": entry}) + "\n")
        self._file.flush()

    def close(self, *, done: bool) -> None:
        """End; a command that is done leaves no journal."""
        self._file.close()
        if done:
            self.path.unlink(missing_ok=True)
