"""Radiographs a person points at: which files, and what is read of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sightline.errors import RunError, UnreadableFile
from sightline.io.dicom import require_radiograph
from sightline.io.image import Picture, find_images, read_image
from sightline.io.picture import require_content
from sightline.lab.ct_inputs import is_ct_input
from sightline.lab.sheet import SOFTWARE


def radiograph_files(inputs: Sequence[Path], out: Path) -> list[Path]:
    """The files of a command, each once, in order; what an earlier call drew into `out` is none of them.

    Raises:
        RunError: an input does not exist or is a CT, or there is no file at all.
    """
    absent = [str(path) for path in inputs if not path.exists()]
    if absent:
        raise RunError(f"{', '.join(absent)} does not exist.", "Check the path.")
    cts = [str(path) for path in inputs if is_ct_input(path)]
    if cts:
        raise RunError(
            f"{', '.join(cts)} is a CT; this run was trained on radiographs.",
            "Give radiographs, or a run that was trained on patches of CTs.",
        )
    # realpath bears links that lead round in circles
    ours = [(out / name).resolve() for name in ("overlays", "maps")]
    found = (file for path in inputs for file in find_images(path))
    files = list(dict.fromkeys(file for file in found if not set(ours) & set(Path(os.path.realpath(file)).parents)))
    if not files:
        raise RunError("There is no file in what was given.", "Point at pictures, DICOM files or folders of them.")
    return files


def read_radiograph(path: Path) -> Picture:
    """A picture that can be a radiograph.

    Raises:
        UnreadableFile: as `read_image`; another modality, one value throughout, or a page that was drawn here: an
            overlay of an earlier prediction has a caption and colours that a network must not judge.
    """
    picture = read_image(path)
    require_radiograph(picture, path)
    require_content(picture, path)
    if picture.facts.get("software") == SOFTWARE:
        raise UnreadableFile(
            f"{path}: drawn by sightline (an overlay or a panel), not a radiograph.", "Give the radiograph itself."
        )
    return picture
