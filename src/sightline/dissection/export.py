"""The pictures of a dissection: galleries and examples of its units, and NIfTI files or overlays for a viewer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sightline.data.views.frames import find_case_frame
from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.dissection.gallery import (
    STRONGEST,
    GalleryCase,
    GalleryHead,
    draw_collage,
    draw_strongest,
    draw_thumbnail,
)
from sightline.dissection.passes import Passes
from sightline.dissection.report import describe_over
from sightline.dissection.responses import compute_source_response, read_picture, write_overlay, write_unit_nifti
from sightline.dissection.results import EXAMPLES, Dissection
from sightline.dissection.top_cases import CaseCalls, CaseReader, Cells, compute_activations, rank_top_cases
from sightline.explainers.units.layer import UnitLayer
from sightline.io.files import make_safe_name
from sightline.io.progress import show_progress
from sightline.structures.case import Cohort
from sightline.training.engine import Engine


@dataclass(frozen=True, eq=False)
class UnitPictures:
    """What the pictures of a dissection are made from.

    Attributes:
        found: the dissection.
        passes: what was read.
        called: what the run says of the cases.
        cohort: the cases.
        view: the run's.
        layer: dissected, of a network on its device.
        engine: workers and progress.
    """

    found: Dissection
    passes: Passes
    called: CaseCalls
    cohort: Cohort
    view: View | VolumeView
    layer: UnitLayer
    engine: Engine

    def write(self, shown: Sequence[int], among: NDArray[np.int64]) -> None:
        """Galleries, examples, and NIfTI files or overlays of some units, of cases chosen `among` rows."""
        readings = self.passes.readings
        rows = {unit: rank_top_cases(readings.strength[:, unit], readings.mean[:, unit], among) for unit in shown}
        cells = self._read_activations(rows)
        reader = CaseReader(self.cohort, self.view, self.called)
        thresholds = {row.unit: row.threshold for row in self.found.units}
        with show_progress("draw units", len(shown), quiet=self.engine.quiet) as advance:
            for unit in shown:
                remove_earlier_pictures(self.found.folder, unit)
                cases = reader.gallery(unit, thresholds[unit], rows[unit], cells)
                self._write_gallery(unit, cases)
                self._write_examples(unit, cases[:EXAMPLES])
                for n, row in enumerate(rows[unit][:STRONGEST], start=1):
                    self._write_response(unit, thresholds[unit], n, row, cells)
                advance(1)

    def _read_activations(self, rows: Mapping[int, list[int]]) -> Cells:
        distinct = len({row for each in rows.values() for row in each})
        batch_size, workers = self.passes.batch_size, self.engine.workers
        with show_progress("read galleries", distinct, quiet=self.engine.quiet) as advance:
            return compute_activations(
                self.layer, self.cohort, self.view, rows, batch_size=batch_size, workers=workers, advance=advance
            )

    def _write_gallery(self, unit: int, cases: Sequence[GalleryCase]) -> None:
        concept = self.found.concepts.get(unit)
        standing = next(row.standing for row in self.found.units if row.unit == unit)
        head = GalleryHead(unit, standing, concept.text if concept else "", describe_over(self.found))
        folder = self.found.folder / "galleries"
        _write(folder / f"unit_{unit:03d}.png", draw_collage(head, cases))
        _write(folder / f"unit_{unit:03d}_strongest.png", draw_strongest(head, cases))

    def _write_examples(self, unit: int, cases: Sequence[GalleryCase]) -> None:
        folder = self.found.folder / "examples"
        folder.mkdir(parents=True, exist_ok=True)
        for n, case in enumerate(cases, start=1):
            picture = Image.fromarray(np.round(draw_thumbnail(case) * 255).astype(np.uint8))
            picture.save(folder / f"unit_{unit:03d}_{n}.png")

    def _write_response(self, unit: int, threshold: float, n: int, row: int, cells: Cells) -> None:
        """The unit's response to one case, for a viewer."""
        case, out = self.cohort[row], self.found.folder
        name = f"{n}_{make_safe_name(case.case_id)}"
        values, window = cells[unit, row]
        if isinstance(self.view, VolumeView):
            write_unit_nifti(out / "nifti" / f"unit_{unit:03d}", name, case, self.view, values, threshold)
        else:
            grey, grid = read_picture(case)
            seen = compute_source_response(values, threshold, find_case_frame(case, self.view), grid, window)
            write_overlay(out / "overlays" / f"unit_{unit:03d}" / f"{name}.png", grey, seen)


def remove_earlier_pictures(folder: Path, unit: int) -> None:
    """Take away one unit's examples and files for a viewer: those of another call may be of other cases."""
    name = f"unit_{unit:03d}"
    for below, known in (
        ("examples", rf"{name}_[0-9]+\.png"),
        (f"nifti/{name}", r"[0-9]+_.*_(ct|activation|masked)\.nii\.gz"),
        (f"overlays/{name}", r"[0-9]+_.*\.png"),
    ):
        for path in (folder / below).glob("*"):
            if re.fullmatch(known, path.name):
                path.unlink()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
