"""Predict what a person points at: files or folders, DICOM or pictures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sightline.cohorts.transforms import reduce_picture, sample
from sightline.errors import RunError, SightlineError
from sightline.io.dicom import require_radiograph
from sightline.io.image import Reject, find_images, read_image, write_rejects
from sightline.lab.gallery import safe_name
from sightline.lab.panels import draw_overlay
from sightline.lab.predict import evidence_of
from sightline.lab.progress import progress
from sightline.lab.run import Run
from sightline.lab.train import Engine


def predict_files(run: Run, inputs: Sequence[Path], out: Path, engine: Engine | None = None) -> tuple[int, int]:
    """Write predictions.csv, rejects.csv and overlays/NAME.png; returns how many were predicted and rejected.

    A file that cannot be a radiograph is listed with reason and remedy, and the rest goes on. Rows are written as
    they are made: what was predicted before an interruption is kept.

    Raises:
        RunError: the run is not finished, or an input does not exist.
    """
    import torch

    engine = engine or Engine()
    if not run.done:
        raise RunError(f"{run.folder} is not finished.", "Run the same train command again: it resumes.")
    absent = [str(path) for path in inputs if not path.exists()]
    if absent:
        raise RunError(f"{', '.join(absent)} does not exist.", "Check the path.")
    # overlays of an earlier call may lie inside what was given
    ours = (out / "overlays").resolve()
    found = (file for path in inputs for file in find_images(path))
    files = list(dict.fromkeys(file for file in found if ours not in file.resolve().parents))
    if not files:
        raise RunError("There is no file in what was given.", "Point at pictures, DICOM files or folders of them.")
    fabric = engine.fabric("32-true")
    network = run.network().to(fabric.device)
    view, classes = run.recipe.view, run.classes
    (out / "overlays").mkdir(parents=True, exist_ok=True)
    rejects: list[Reject] = []
    names: set[str] = set()
    predicted = 0
    with (out / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["file", "predicted", *(f"p({name})" for name in classes), "look_row", "look_column", "overlay"]
        )
        with progress("predict", len(files), quiet=engine.quiet) as advance:
            for path in files:
                try:
                    picture = read_image(path)
                    require_radiograph(picture, path)
                    frame = view.test_frame(picture.frame)
                    planes = sample(reduce_picture(picture.pixels, picture.frame, view.size), frame)
                except SightlineError as error:
                    rejects.append(Reject(path, error.message.removeprefix(f"{path}: "), error.remedy))
                    advance(1)
                    continue
                evidence = evidence_of(network, torch.from_numpy(planes)[None], fabric.device)
                probabilities = evidence.logits.double().softmax(dim=1)[0].numpy()
                best = int(probabilities.argmax())
                row: list[str] = [str(path), classes[best], *(repr(float(p)) for p in probabilities)]
                if evidence.maps is not None:
                    attention = evidence.extras.get("attention", evidence.maps)[0, best].numpy().astype(np.float64)
                    # where the network looked most, in pixels of the file
                    cell = np.array(np.unravel_index(int(attention.argmax()), attention.shape)) + 0.5
                    look = frame.map_points(cell / np.array(attention.shape) * np.array(frame.shape))
                    name = _unique(safe_name(path.stem), names)
                    pixels = planes[0] if len(planes) == 1 else np.moveaxis(planes, 0, -1)
                    caption = f"{classes[best]} {probabilities[best]:.0%}"
                    png = draw_overlay(pixels, attention, (), frame, caption)
                    (out / "overlays" / f"{name}.png").write_bytes(png)
                    row += [f"{look[0]:.1f}", f"{look[1]:.1f}", f"overlays/{name}.png"]
                else:
                    row += ["", "", ""]
                writer.writerow(row)
                file.flush()
                predicted += 1
                advance(1)
    write_rejects(out / "rejects.csv", rejects)
    return predicted, len(rejects)


def _unique(name: str, taken: set[str]) -> str:
    candidate, n = name, 1
    while candidate in taken:
        n += 1
        candidate = f"{name}_{n}"
    taken.add(candidate)
    return candidate
