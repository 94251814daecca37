"""What a run says of a cohort, and how well that lies on what experts marked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sightline.errors import RunError, SightlineError
from sightline.inference.network_output import ExtraMaps, Maps, NetworkOutput, read_shown, write_extra_maps
from sightline.io.files import make_safe_name, write_text
from sightline.metrics.boxes.table import BoxScores
from sightline.metrics.calibration.record import CalibrationRecord
from sightline.metrics.maps.gaze import GazeScores
from sightline.metrics.maps.localisation import MapScores
from sightline.metrics.predictions import Predictions
from sightline.structures.case import Cohort
from sightline.structures.tag import Role
from sightline.training.run import FROM_CAPSULE


@dataclass(frozen=True)
class Evaluation:
    """What a run says of a cohort.

    Attributes:
        predictions: one row an image.
        maps: class maps, or None where the network has none.
        map_scores: how well the maps lie on what experts marked, or None where nothing was marked.
        box_scores: the network's boxes beside the experts', as chosen on validation; None where nothing was marked.
        printed_box_scores: the same as the recipe says, where that is another way to read them off the maps.
        boxes: float64 [n, 4], the boxes the network itself says (`NetworkOutput.boxes`), or None.
        shown: maps that a decoder paints or an explainer says (`NetworkOutput.shown`).
        gaze_scores: how well maps lie where readers looked, or None where no gaze is known.
        energies: float64 [n], log sum exp of the logits, or None.
        features: float32 [n, c], what class maps are computed from (`NetworkOutput.features`), or None.
    """

    predictions: Predictions
    maps: Maps | None = None
    map_scores: MapScores | None = None
    box_scores: BoxScores | None = None
    printed_box_scores: BoxScores | None = None
    boxes: NDArray[np.float64] | None = None
    shown: ExtraMaps = field(default_factory=dict)
    gaze_scores: GazeScores | None = None
    energies: NDArray[np.float64] | None = None
    features: NDArray[np.float32] | None = None

    @property
    def said(self) -> NetworkOutput:
        """What the network said."""
        return NetworkOutput(self.predictions, self.maps, self.boxes, self.shown, self.energies, self.features)

    @property
    def has_maps(self) -> bool:
        """Whether there are class maps to draw; of maps from a capsule it is only known where they lay."""
        return self.maps is not None and self.maps.maps.size > 0

    def scores_for(self, role: Role, *, around: bool = False) -> MapScores | None:
        """The map scores against regions of a role, or (organs) one cell `around` it; None where there are none."""
        if self.map_scores is None:
            return None
        rows = tuple(r for r in self.map_scores.rows if r.role == role and ("around" in r.style) is around)
        return MapScores(rows) if rows else None


T = TypeVar("T")
# beside predictions in a capsule: where maps lay
WINDOWS = "windows.csv"


class EvaluationFiles:
    """The files of an evaluation: each is made from predictions, maps and boxes, and read instead of made again."""

    def __init__(self, folder: Path, name: str) -> None:
        self.stamp = folder / f"{name}.json"
        self.predictions = folder / f"{name}.csv"
        self.maps = folder / f"{name}_maps.npz"
        self.map_scores = folder / f"{name}_map_scores.csv"
        self.boxes = folder / f"{name}_said_boxes.csv"
        self.box_scores = folder / f"{name}_boxes.csv"
        self.printed_box_scores = folder / f"{name}_boxes_as_recipe.csv"
        self.shown = folder / f"{name}_shown.npz"
        self.gaze_scores = folder / f"{name}_gaze_scores.csv"
        self.energies = folder / f"{name}_energies.csv"
        self.features = folder / f"{name}_features.npz"

    @property
    def made(self) -> tuple[Path, ...]:
        """Every file but the stamp."""
        return (
            self.predictions, self.maps, self.map_scores, self.boxes, self.box_scores, self.printed_box_scores,
            self.shown, self.gaze_scores, self.energies, self.features,
        )  # fmt: skip

    def write(self, evaluation: Evaluation, stamp: Mapping[str, object]) -> None:
        """Write what there is; the stamp last, so that its presence says that all is there."""
        for old in (self.stamp, *self.made):
            old.unlink(missing_ok=True)
        evaluation.predictions.write(self.predictions)
        if evaluation.boxes is not None:
            np.savetxt(self.boxes, evaluation.boxes, fmt="%.17g", delimiter=",", header="row,column,height,width",
                       comments="")  # fmt: skip
        if evaluation.energies is not None:
            np.savetxt(self.energies, evaluation.energies, fmt="%.17g", header="energy", comments="")
        for path, part in (
            (self.maps, evaluation.maps),
            (self.map_scores, evaluation.map_scores),
            (self.box_scores, evaluation.box_scores),
            (self.printed_box_scores, evaluation.printed_box_scores),
            (self.gaze_scores, evaluation.gaze_scores),
        ):
            if part is not None:
                part.write(path)
        if evaluation.features is not None:
            write_extra_maps({"features": evaluation.features}, self.features)
        if evaluation.shown:
            write_extra_maps(evaluation.shown, self.shown)
        files = [path.name for path in self.made if path.is_file()]
        write_text(self.stamp, json.dumps({**stamp, "files": files}) + "\n")

    def read(self, stamp: Mapping[str, object], *, but: str = "") -> Evaluation | None:
        """The evaluation as saved, or None: another run or cohort made it, or a file is missing or damaged.

        Args:
            stamp: what it must have been made of.
            but: a word of the stamp that may say something else.
        """
        try:
            old = json.loads(self.stamp.read_text(encoding="utf-8"))
            names = old.pop("files")
            old.setdefault("content", stamp.get("content"))  # kept before the stamp had it
            same = {**old, but: ""} == {**stamp, but: ""}
            if not same or not all((self.stamp.parent / name).is_file() for name in names):
                return None

            def read_kept(path: Path, reader: Callable[[Path], T]) -> T | None:
                return reader(path) if path.name in names else None

            return Evaluation(
                predictions=Predictions.read(self.predictions),
                maps=read_kept(self.maps, Maps.read),
                map_scores=read_kept(self.map_scores, MapScores.read),
                box_scores=read_kept(self.box_scores, BoxScores.read),
                printed_box_scores=read_kept(self.printed_box_scores, BoxScores.read),
                boxes=read_kept(self.boxes, _read_boxes),
                shown=read_kept(self.shown, read_shown) or {},
                gaze_scores=read_kept(self.gaze_scores, GazeScores.read),
                energies=read_kept(self.energies, _read_energies),
                features=(read_kept(self.features, read_shown) or {}).get("features"),
            )
        except (OSError, ValueError, TypeError, AttributeError, KeyError, SightlineError):
            return None


def name_evaluation_folder(run: Path, cohort: str, split: str) -> Path:
    """Where a run keeps its evaluation on a split of a cohort: RUN/evaluation/COHORT-SPLIT.

    Example:
        >>> name_evaluation_folder(Path("run"), "wrists", "test").as_posix()
        'run/evaluation/wrists-test'
    """
    return run / "evaluation" / make_safe_name(f"{cohort}-{split}")


def describe_replaced(folder: Path, name: str, cohort: Cohort) -> str:
    """What an evaluation is about to replace: that of another cohort of the same name; empty where there is none.

    Args:
        folder: where it is written.
        name: what its files are called: `test`.
        cohort: its cases.
    """
    earlier = read_evaluated_cohort(folder, name)
    if earlier in (None, cohort.fingerprint()):
        return ""
    return (
        f"{folder} holds the evaluation of another cohort called {cohort.name!r}, or of this one before it was changed "
        f"(fingerprint {earlier}): it is replaced. --out writes beside it."
    )


def read_evaluated_cohort(folder: Path, name: str) -> str | None:
    """The fingerprint of the cases that an evaluation was made of; None where there is none, or it does not say."""
    try:
        return str(json.loads(EvaluationFiles(folder, name).stamp.read_text(encoding="utf-8"))["cohort"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _read_boxes(path: Path) -> NDArray[np.float64]:
    return np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)


def _read_energies(path: Path) -> NDArray[np.float64]:
    return np.loadtxt(path, skiprows=1, ndmin=1)


def read_evaluation(run: Path, test: str, *, calibrated: bool = True) -> Evaluation:
    """An evaluation from its tables; of maps, where their windows lay.

    Raises:
        RunError, LayoutError: a file that is missing or does not read.
    """
    files = EvaluationFiles(run / "predictions", test)
    predictions = Predictions.read(files.predictions)
    windows = run / "predictions" / f"{test}_{WINDOWS}"
    maps = None
    if windows.is_file():
        places = np.loadtxt(windows, delimiter=",", ndmin=2).reshape(len(predictions), 2, 3)
        nothing = np.zeros((len(predictions), 0), dtype=np.int64)
        empty = np.zeros((len(predictions), 0, 1, 1), dtype=np.float32)
        maps = Maps(predictions.case_ids, nothing, empty, empty, places)
    found = Evaluation(
        predictions,
        maps,
        MapScores.read(files.map_scores) if files.map_scores.is_file() else None,
        BoxScores.read(files.box_scores) if files.box_scores.is_file() else None,
        BoxScores.read(files.printed_box_scores) if files.printed_box_scores.is_file() else None,
        gaze_scores=GazeScores.read(files.gaze_scores) if files.gaze_scores.is_file() else None,
    )
    record = CalibrationRecord.read(run) if calibrated else None
    return found if record is None else replace(found, predictions=record.apply(predictions))


def read_capsule_digest(run: Path) -> str | None:
    """The digest of the capsule that a run was taken from; None of a run with weights of its own.

    Raises:
        RunError: the file that says it cannot be read.
    """
    if (run / "weights.safetensors").is_file():
        return None
    try:
        return (run / FROM_CAPSULE).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{run / FROM_CAPSULE} is damaged ({error}).", f"Delete {run} and begin again.") from None


def read_taken_evaluation(run: Path, test: str, cohort: Cohort, *, calibrated: bool = True) -> Evaluation | None:
    """What a run that was taken from a capsule says of a cohort; None of a run that has weights or is to get them.

    Args:
        run: its folder.
        test: what the evaluation is called.
        cohort: the cases, as the recipe sees them.
        calibrated: as `evaluate` has it.

    Raises:
        RunError: the capsule held no such predictions, or of other cases.
    """
    if read_capsule_digest(run) is None:
        return None
    remedy = f"Use the cohort that the capsule was made with; or delete {run} and train it here."
    if not EvaluationFiles(run / "predictions", test).predictions.is_file():
        raise RunError(f"{run} was taken from a capsule, which holds no predictions called {test!r}.", remedy)
    found = read_evaluation(run, test, calibrated=calibrated)
    of = found.predictions
    truth = [of.classes[label] for label in of.labels]
    tested = list(zip(of.case_ids, of.study_ids, of.patient_ids, truth, strict=True))
    here = [(case.case_id, case.study_id, case.patient_id, case.label) for case in cohort]
    if tested != here:
        odd = next((f"{a[0]} and {b[0]}" for a, b in zip(tested, here, strict=False) if a != b), "")
        raise RunError(
            f"{run} was taken from a capsule, and was tested on {len(tested)} {test} cases that are not these "
            f"{len(here)}{f' (first difference: {odd})' if odd else ''}.",
            remedy,
        )
    return found
