"""What is fuzzed: how an input of each kind is spoilt, who reads it, and what must hold where it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzz.mutations import mend_png, spoil_bytes, spoil_json, spoil_table
from fuzz.seeds import SEEDS, Seed


class Wrong(AssertionError):
    """A reader gave something that cannot be right."""


def require(holds: object, what: str) -> None:
    """Raise `Wrong` where a property of a result does not hold."""
    if not holds:
        raise Wrong(what)


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        seeds: its name in `SEEDS`.
        share: of all inputs, in thousandths.
        spoil: the changed files of a seed.
        read: reads (folder of the input, folder for output) and checks what comes out.
    """

    seeds: str
    share: int
    spoil: Callable[[Seed, Random], Seed]
    read: Callable[[Path, Path], None]


def make_input(name: str, number: int, seed: int) -> Seed:
    """Input `number` of a kind: the same for the same seed, whatever else is run."""
    random = Random(f"{seed} {name} {number}")
    kind = KINDS[name]
    start = random.choice(SEEDS[kind.seeds]())
    return dict(start) if random.random() < 0.01 else kind.spoil(start, random)


# -- how inputs are spoilt ---------------------------------------------------------------------------------------------


def _other(name: str, random: Random) -> bytes:
    return next(iter(random.choice(SEEDS[name]()).values()))


def _spoil_one(seeds: str, head: int, mend: Callable[[bytes], bytes] | None = None) -> Callable[[Seed, Random], Seed]:
    def spoil(start: Seed, random: Random) -> Seed:
        name = random.choice(list(start))
        data = spoil_bytes(start[name], random, _other(seeds, random), head)
        return start | {name: mend(data) if mend is not None and random.random() < 0.8 else data}

    return spoil


def _spoil_nifti(start: Seed, random: Random) -> Seed:
    import gzip

    name, data = next(iter(start.items()))
    if name.endswith(".gz") and random.random() < 0.8:
        return {name: gzip.compress(spoil_bytes(gzip.decompress(data), random, b"", 352), 1, mtime=0)}
    return {name: spoil_bytes(data, random, _other("nifti", random), 352)}


def _spoil_texts(*names: str) -> Callable[[Seed, Random], Seed]:
    """Changes one or two of the named files: tables and JSON as what they are, others by bytes."""

    def spoil(start: Seed, random: Random) -> Seed:
        changed = dict(start)
        here = [name for name in changed if any(name == n or name.startswith(n + "/") for n in names)]
        for _ in range(random.choice((1, 1, 2))):
            name = random.choice(here or list(changed))
            data = start[name]
            if name.endswith(".json"):
                changed[name] = spoil_json(json.loads(data), random)
            elif name.endswith(".csv"):
                changed[name] = spoil_table(data.decode(), random)
            else:
                changed[name] = spoil_bytes(data, random)
        if random.random() < 0.03:
            del changed[random.choice(list(changed))]
        return changed

    return spoil


# -- who reads them ----------------------------------------------------------------------------------------------------


def _read_picture(source: Path, out: Path) -> None:
    from sightline.io.image import find_images, read_image, read_size

    for path in find_images(source):
        picture = read_image(path)
        pixels = picture.pixels
        require(pixels.dtype in (np.uint8, np.uint16), f"pixels of {pixels.dtype}")
        require(pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3), f"pixels of shape {pixels.shape}")
        require(picture.frame.shape == pixels.shape[:2], "frame and pixels differ")
        _require_lengths(picture.frame.spacing_mm)
        require(all(isinstance(v, str) for v in picture.facts.values()), "a fact that is no text")
        require(read_size(path) == pixels.shape[:2], "the header's size is not that of the pixels")


def _read_dicom(source: Path, out: Path) -> None:
    from sightline.io.dicom.radiograph import read_header

    for path in sorted(source.iterdir()):
        header = read_header(path)
        _require_lengths(header.spacing_mm)
    _read_picture(source, out)


def _require_lengths(lengths: Any) -> None:
    require(lengths is None or all(np.isfinite(v) and v > 0 for v in lengths), f"lengths {lengths}")


def _read_ct(source: Path, out: Path) -> None:
    from sightline.io.ct import read_ct

    volume = read_ct(source)
    require(volume.values.dtype == np.int16 and volume.values.ndim == 3, "no CT")
    require(np.isfinite(volume.affine).all(), "an affine that is no number")


def _read_nifti(source: Path, out: Path) -> None:
    from sightline.errors import UnreadableFile
    from sightline.io.nifti import read_volume, read_volume_header

    path = next(source.iterdir())
    header = read_volume_header(path)
    volume = read_volume(path)
    require(volume.values.shape == header.shape, "header and voxels differ")
    require(volume.values.dtype in (np.int16, np.float32), f"voxels of {volume.values.dtype}")
    require(np.isfinite(volume.values).all() and np.isfinite(volume.affine).all(), "numbers that are none")
    try:
        labels = read_volume(path, labels=True)
    except UnreadableFile:
        return  # numbers that are no labels
    require(labels.values.dtype in (np.uint8, np.uint16), "labels that are none")


def _read_cohort(source: Path, out: Path) -> None:
    from sightline.data.datasets.folder.reader import read_cohort

    _again(read_cohort(source), out)


def _again(cohort: Any, out: Path) -> None:
    """What is read can be looked at and written, and what was written reads back equal."""
    from sightline.data.audit.image_checks import look_at_cohort
    from sightline.data.datasets.folder.reader import read_cohort
    from sightline.data.datasets.folder.writer import write_cohort

    look = look_at_cohort(cohort)
    require(len(look.shapes) == len(cohort), "cases were lost")
    write_cohort(cohort, out / "cohort")
    again = read_cohort(out / "cohort")
    columns = ("case_id", "study_id", "patient_id", "label", "split", "view", "shape", "spacing_mm")
    for a, b in zip(cohort, again, strict=True):
        require(all(getattr(a, name) == getattr(b, name) for name in columns), f"{a.case_id} reads back different")
        require({k: v for k, v in a.facts.items() if v} == dict(b.facts), f"facts of {a.case_id} read back different")
        require([type(r) for r in a.regions] == [type(r) for r in b.regions], f"marks of {a.case_id} differ")
    require(tuple(again.classes) == tuple(cohort.classes), "classes read back different")


def _read_coco(source: Path, out: Path) -> None:
    from sightline.data.datasets import coco

    _again(coco.read(source, coco.Options(priority=("a", "b"), fractions=None)), out)


def _read_pictures(source: Path, out: Path) -> None:
    from sightline.data.datasets import pictures
    from sightline.io.picture import write_rejects

    cohort, rejects = pictures.read(source)
    write_rejects(out / "rejects.csv", rejects)
    _again(cohort, out)


def _read_marks(source: Path, out: Path) -> None:
    from sightline.web.workstation.exchange.coco import read_coco_marks
    from sightline.web.workstation.marks.operations import MarkContext, check_mark

    names = {f"{i}.png": f"key{i}" for i in range(4)}
    around = MarkContext({f"key{i}": (20, 16) for i in range(4)}, ("a", "b"), ("focus", "finding", "organ"), ())
    marks, rejects = read_coco_marks(source / "annotations.json", names, around, "finding")
    require(all(isinstance(word, str) for reject in rejects for word in reject), "a reject that is no text")
    for key, own in marks.items():
        for mark in own:
            check_mark(mark, around, around.shapes[key])
            json.dumps(mark, allow_nan=False)


def _read_recipe(source: Path, out: Path) -> None:
    from sightline.papers.catalogue import CATALOGUE
    from sightline.training.recipe import format_recipe_json, read_recipe

    recipe = read_recipe(source / "recipe.json", CATALOGUE)
    text = format_recipe_json(recipe, CATALOGUE)
    (out / "recipe.json").write_text(text, encoding="utf-8")
    require(read_recipe(out / "recipe.json", CATALOGUE) == recipe, "a recipe reads back different")
    repr(recipe)


def _read_run(source: Path, out: Path) -> None:
    from sightline.papers.catalogue import CATALOGUE
    from sightline.training.run import open_run

    run = open_run(source, CATALOGUE)
    require(len(run.identity) > 0 or run.identity == "", "no identity")
    record = run.calibration
    require(record is None or record.run == run.identity, "a calibration of another run")
    repr(run)
    if run.done and len(run.classes) == 2:
        run.network()


def _read_predictions(source: Path, out: Path) -> None:
    from sightline.metrics.predictions import Predictions

    table = Predictions.read(source / "test.csv")
    table.write(out / "test.csv")
    require(Predictions.read(out / "test.csv") == table, "predictions read back different")


def _read_body(source: Path, out: Path) -> None:
    from sightline.web.node.intake.multipart import PartWriter, read_boundary

    body = (source / "body").read_bytes()
    writer = PartWriter(read_boundary('multipart/related; type="application/dicom"; boundary=edge'), out, 10**6, 10)
    try:
        for start in range(0, len(body), 700):
            writer.write(body[start : start + 700])
        parts = writer.finish()
        require(sum(part.file.stat().st_size for part in parts) <= len(body), "parts larger than the body")
        for part in parts:
            require(part.file.parent == out, "a part outside its folder")
    finally:
        writer.close()
    require(not any(out.iterdir()), "files of a body were left")


KINDS: dict[str, Kind] = {
    "DICOM radiograph": Kind("dicom", 180, _spoil_one("dicom", 900), _read_dicom),
    "CT series": Kind("ct", 30, _spoil_one("ct", 900), _read_ct),
    "PNG": Kind("png", 120, _spoil_one("png", 100, mend_png), _read_picture),
    "TIFF": Kind("tiff", 120, _spoil_one("tiff", 400), _read_picture),
    "JPEG": Kind("jpeg", 60, _spoil_one("jpeg", 400), _read_picture),
    "NIfTI": Kind("nifti", 120, _spoil_nifti, _read_nifti),
    "cohort.json": Kind("cohort", 30, _spoil_texts("cohort.json"), _read_cohort),
    "regions.json": Kind("cohort", 40, _spoil_texts("regions.json"), _read_cohort),
    "tables of a cohort": Kind("cohort", 50, _spoil_texts("studies.csv", "images.csv"), _read_cohort),
    "masks and gaze of a cohort": Kind("cohort", 20, _spoil_texts("regions"), _read_cohort),
    "COCO": Kind("coco", 50, _spoil_texts("annotations.json", "groups.csv"), _read_coco),
    "COCO as marks": Kind("coco", 40, _spoil_texts("annotations.json"), _read_marks),
    "table of labels": Kind("pictures", 20, _spoil_texts("labels.csv"), _read_pictures),
    "predictions": Kind("predictions", 30, _spoil_texts("test.csv"), _read_predictions),
    "recipe.json": Kind("recipe", 50, _spoil_texts("recipe.json"), _read_recipe),
    "run folder": Kind(
        "run", 20, _spoil_texts("recipe.json", "cohort.json", "boxes.json", "calibration.json", "weights.safetensors",
                                "SHA256SUMS"), _read_run,
    ),
    "STOW body": Kind("stow", 20, _spoil_one("stow", 200), _read_body),
}  # fmt: skip
