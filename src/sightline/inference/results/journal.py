"""What a command has predicted so far, so that the same command goes on where it was stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline import __version__
from sightline.inference.network_output import RunFacts
from sightline.io.files import mark_of_file
from sightline.structures.regions import ScoredBox

NAME = ".predicted.jsonl"


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
    """

    row: tuple[str, ...]
    boxes: tuple[ScoredBox, ...]
    shape: tuple[int, int]
    study_uid: str
    probabilities: NDArray[np.float64] | None
    energy: float
    overlay: str
    remark: str = ""

    def as_json(self) -> dict[str, Any]:
        """The same in JSON; numbers keep every digit."""
        said = None if self.probabilities is None else self.probabilities.tolist()
        boxes = [[box.label, box.score, list(box.corners)] for box in self.boxes]
        return {**vars(self), "row": list(self.row), "boxes": boxes, "probabilities": said}

    @classmethod
    def of_json(cls, data: dict[str, Any]) -> PredictedFile:
        """What `as_json` made."""
        boxes = tuple(ScoredBox(label, score, tuple(corners)) for label, score, corners in data["boxes"])
        said = None if data["probabilities"] is None else np.array(data["probabilities"], dtype=np.float64)
        shape = (int(data["shape"][0]), int(data["shape"][1]))
        return cls(**{**data, "row": tuple(data["row"]), "boxes": boxes, "shape": shape, "probabilities": said})


class Journal:
    """Predictions of a command, a line each, on disk as soon as they are made; gone when the command is done."""

    def __init__(self, out: Path, run: RunFacts) -> None:
        """Go on with what another call of the same run left in `out`; what another run left is thrown away."""
        self.path = out / NAME
        # the run, what was fixed on validation since, and the code
        weights = (run.folder / name for name in ("weights.safetensors", "model.onnx"))
        papers = [*sorted(run.folder.glob("*.json")), *(path for path in weights if path.is_file())]
        stamp = {
            "run": run.identity,
            "engine": run.engine,
            "version": __version__,
            "papers": [mark_of_file(paper) for paper in papers],
        }
        self.known: dict[str, tuple[str, PredictedFile]] = {}
        lines = self._read(stamp)
        self._file = self.path.open("w", encoding="ascii")
        for line in (json.dumps(stamp), *lines):
            self._write(line)

    def _read(self, stamp: dict[str, Any]) -> list[str]:
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
                self.known[entry["file"]] = entry["mark"], PredictedFile.of_json(entry["said"])
            except (ValueError, KeyError, TypeError, IndexError):
                break  # cut off while it was written
            whole.append(line)
        return whole

    def find(self, file: Path) -> PredictedFile | None:
        """What was said of a file before, if it is still the same file and its overlay is there."""
        mark, said = self.known.get(str(file), ("", None))
        if said is None or mark != mark_of_file(file):
            return None
        return said if not said.overlay or (self.path.parent / said.overlay).is_file() else None

    def add(self, file: Path, said: PredictedFile) -> None:
        """Keep what was said of a file."""
        self._write(json.dumps({"file": str(file), "mark": mark_of_file(file), "said": said.as_json()}))

    def close(self, *, done: bool) -> None:
        """End; a command that is done leaves no journal."""
        self._file.close()
        if done:
            self.path.unlink(missing_ok=True)

    def _write(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()
