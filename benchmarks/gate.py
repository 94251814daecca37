"""`python -m benchmarks.gate RUN COHORT`: how many pictures of each kind a run's gate refuses, and by which check.

Good ones are the test pictures of the run's cohort. Wrong ones are made of them (negatives, turned, noise, ...), drawn
(phantoms of other body parts), or real where `--data` has them: chests, limbs, CT slices, photographs. Prints a table
with Wilson's intervals; then counts headers of wrong modalities, body parts and kinds, which need no picture.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import tyro
from scipy.stats import binomtest

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.phantoms.chest.egd_cxr_layout import write_chests
from sightline.data.phantoms.radiographs.cohort import write_radiographs
from sightline.errors import SightlineError
from sightline.inference.gate.features import FeatureLimits, read_feature_limits, score_features
from sightline.inference.gate.gate_file import Gate, read_gate
from sightline.inference.gate.header import check_header, normalise_body_part, read_header_facts
from sightline.inference.gate.layout import LayoutLimits, check_layout, read_layout_limits
from sightline.inference.gate.picture import check_picture
from sightline.inference.network_output import Ask, RunFacts, collect_facts
from sightline.inference.onnx.exported_run import open_export
from sightline.inference.onnx.model_file import find_export
from sightline.inference.radiographs import read_radiograph
from sightline.io.picture import Picture
from sightline.structures.frame import Frame

Header = dict[str, Any]
# name, what the header of such images says besides a good one's, and the images
Kinds = Iterator[tuple[str, Header, Iterable[Picture]]]
# what PS3.16 calls body parts, modalities and kinds that no run for plain radiographs of one body part may be asked
PARTS = (
    "ABDOMEN", "ANKLE", "BREAST", "CHEST", "CLAVICLE", "CSPINE", "ELBOW", "FEMUR", "FOOT", "HAND", "HIP", "HUMERUS",
    "KNEE", "LEG", "LSPINE", "PELVIS", "RIB", "SHOULDER", "SKULL", "TSPINE", "WRIST", "", "THORAX", "BECKEN", "LWS",
    "Schädel lateral", "Knie links", "HAND WRIST",
)  # fmt: skip
MODALITIES = ("CT", "MR", "US", "MG", "XA", "RF", "NM", "PT", "OT", "SC", "IO", "PX", "ES", "XC", "")
DOORS = ("picture", "layout", "features")
KINDS_OF_HEADER: tuple[Header, ...] = (
    {"PresentationIntentType": "FOR PROCESSING"},
    {"NumberOfFrames": 12},
    {"Rows": 0, "Columns": 0},
    {"Manufacturer": "sightline"},
    {"SeriesDescription": "AI RESEARCH: FRACTURE, PICTURE"},
)


@dataclass(frozen=True)
class Asked:
    """A run and its gate."""

    facts: RunFacts
    network: Ask
    gate: Gate
    limits: FeatureLimits | None
    layout: LayoutLimits | None

    def check(self, picture: Picture) -> str:
        """The check that refuses a picture, or an empty text."""
        try:
            if check_picture(picture, self.gate.picture, Path("picture")):
                return "picture"
        except SightlineError:
            return "picture"
        if check_layout(picture, self.layout):
            return "layout"
        planes, _ = self.facts.picture_view().show(picture.pixels, picture.frame)
        answers = self.network(planes[None])
        features = None if answers.features is None else answers.features[0]
        score = score_features(self.limits, features, float(answers.energies[0]))
        return "features" if score is not None and score > 1.0 else ""


def open_asked(folder: Path) -> Asked:
    """A run with torch, or with onnxruntime where it was exported."""
    gate = read_gate(folder)
    if find_export(folder) is not None:
        exported = open_export(folder)
        return Asked(
            exported.facts, exported.network, gate, read_feature_limits(gate.features), read_layout_limits(gate.layout)
        )
    from sightline.inference.predict import TorchNetwork
    from sightline.papers.catalogue import CATALOGUE
    from sightline.training.run import open_run

    run = open_run(folder, CATALOGUE)
    return Asked(
        collect_facts(run), TorchNetwork(run), gate, read_feature_limits(gate.features), read_layout_limits(gate.layout)
    )


def changed(pictures: Sequence[Picture], rng: np.random.Generator) -> Kinds:
    """What is made of good pictures."""

    def made(change: Any) -> Iterator[Picture]:
        return (
            Picture(np.ascontiguousarray(change(one.pixels)), Frame.of_image(one.pixels.shape[:2])) for one in pictures
        )

    def top(pixels: Any) -> int:
        return int(np.iinfo(pixels.dtype).max)

    yield "negatives of test pictures", {}, made(lambda p: top(p) - p)
    yield "noise", {}, made(lambda p: rng.integers(0, top(p) + 1, p.shape, dtype=p.dtype))
    yield "flat fields", {}, made(lambda p: np.full(p.shape, top(p) // 2, p.dtype))
    yield "thumbnails (a twelfth of the size)", {}, made(lambda p: p[::12, ::12])
    yield "strips (a tenth of the width)", {}, made(lambda p: p[:, : max(1, p.shape[1] // 10)])
    yield "test pictures rotated by 90 degrees", {}, made(np.rot90)
    yield "test pictures rotated by 270 degrees", {}, made(lambda p: np.rot90(p, 3))
    yield "test pictures upside down", {}, made(lambda p: p[::-1, ::-1])
    yield "test pictures mirrored upside down", {}, made(lambda p: p[::-1])
    yield "test pictures at a third of their contrast", {}, made(lambda p: (top(p) // 3 + p // 3).astype(p.dtype))


def photographs(count: int, rng: np.random.Generator) -> Iterator[Picture]:
    """Windows of the two photographs that come with scikit-learn, in colour and grey by turns."""
    from sklearn.datasets import load_sample_images

    pictures = load_sample_images().images
    for n in range(count):
        whole = pictures[n % 2]
        side = int(rng.integers(200, 420))
        row, column = (int(rng.integers(0, extent - side)) for extent in whole.shape[:2])
        pixels = np.ascontiguousarray(whole[row : row + side, column : column + side])
        if n % 4 > 1:
            pixels = pixels.mean(axis=2).astype(np.uint8)
        yield Picture(pixels, Frame.of_image(pixels.shape[:2]))


def slices(folder: Path, count: int) -> Iterator[Picture]:
    """Slices of a CT in a bone window, as a screenshot of a viewer shows them."""
    for file in sorted(one for one in folder.iterdir() if one.is_file())[:count]:
        data = pydicom.dcmread(file)
        values = data.pixel_array * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
        grey = (np.clip((values + 400) / 1600, 0, 1) * 255).astype(np.uint8)
        yield Picture(grey, Frame.of_image(grey.shape))


def files(folder: Path, count: int, rng: np.random.Generator) -> Iterator[Picture]:
    """Pictures of a folder, drawn at random."""
    found = sorted(one for one in folder.rglob("*") if one.suffix.lower() in (".png", ".jpg", ".jpeg", ".dcm"))
    for file in rng.permutation(np.array(found, dtype=object))[:count]:
        try:
            yield read_radiograph(file)
        except SightlineError as error:
            print(f"left out: {error}", file=sys.stderr)


def kinds(good: Sequence[Picture], data: Path | None, count: int, scratch: Path) -> Kinds:
    """Every kind, one after the other."""
    rng = np.random.default_rng(0)
    yield "**test pictures (good)**", {}, good
    yield from changed(good[:count], rng)
    femurs = write_radiographs(scratch / "femurs", anatomy="femur", studies=count, seed=5)
    drawn = [read_radiograph(case.image) for case in list(femurs)[:count]]
    yield "phantom femurs", {"BodyPartExamined": "FEMUR"}, drawn
    write_chests(scratch / "chests", images=count, seed=5)
    yield "phantom chests", {"BodyPartExamined": "CHEST"}, files(scratch / "chests" / "files", count, rng)
    yield "photographs (windows of two)", {"Modality": "XC"}, photographs(count, rng)
    if data is None:
        return
    real = {
        "real chests (chest_lungs)": ("CHEST", "chest_lungs/images"),
        "real hands, legs, hips, shoulders (FracAtlas)": ("LEG", "fracatlas/images"),
        "real hip and tibia (DICOM, in seven encodings)": ("HIP", "dicom/radiographs"),
    }
    for name, (part, folder) in real.items():
        yield name, {"BodyPartExamined": part}, files(data / folder, count, rng)
    ct = data / "spine_ct" / "totalsegmentator" / "example_ct_dicom"
    yield "slices of one CT", {"Modality": "CT"}, slices(ct, count)


def header_refuses(gate: Gate, change: Header) -> bool:
    """Whether the first check refuses a good header that is changed in some elements."""
    data = pydicom.Dataset()
    data.Modality, data.Rows, data.Columns = (gate.header.modality or ("DX",))[0], 10, 10
    data.BodyPartExamined = (gate.header.body_part or ("WRIST",))[0]
    for keyword, value in change.items():
        setattr(data, keyword, value)
    return bool(check_header(read_header_facts(data), gate.header))


def headers(gate: Gate) -> tuple[int, int]:
    """Headers that the run must not be asked about, and how many of them are refused."""
    parts = {normalise_body_part(word) for word in gate.header.body_part or PARTS}
    modalities = gate.header.modality or MODALITIES
    wrong = [{"Modality": one} for one in MODALITIES if one not in modalities]
    wrong += [{"BodyPartExamined": one} for one in PARTS if normalise_body_part(one) not in parts]
    wrong += KINDS_OF_HEADER
    return len(wrong), sum(header_refuses(gate, change) for change in wrong)


def row(name: str, told: bool, found: Sequence[str]) -> str:
    """A row of the table."""
    refused = [one for one in found if one]
    interval = binomtest(len(refused), len(found)).proportion_ci(method="wilson")
    doors = (
        ", ".join(f"{door} {refused.count(door)}" for door in ("picture", "layout", "features") if door in refused)
        or "none"
    )
    share, told_as = f"{len(refused) / len(found):.1%} ({len(refused)})", "refused" if told else "fits"
    return f"| {name} | {len(found)} | {share} | {interval.low:.1%} to {interval.high:.1%} | {doors} | {told_as} |"


def main(
    run: tyro.conf.Positional[Path], cohort: tyro.conf.Positional[Path], data: Path | None = None, most: int = 60
) -> int:
    """Measure.

    Args:
        run: run folder with its gate.json.
        cohort: cohort folder; its test split is good.
        data: folder of real pictures; default: SIGHTLINE_DATA.
        most: pictures of each kind that is not good.
    """
    warnings.simplefilter("ignore")  # pydicom's, of words that hospitals write and the standard has not
    asked = open_asked(run)
    if data is None and "SIGHTLINE_DATA" in os.environ:
        data = Path(os.environ["SIGHTLINE_DATA"])
    good = [read_radiograph(case.image) for case in read_cohort(cohort).split("test")]
    print("| pictures | n | refused without header check | 95% interval | by | header |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for name, header, pictures in kinds(good, data, most, Path(scratch)):
            found = [asked.check(one) for one in pictures]
            if found:
                print(row(name, header_refuses(asked.gate, header), found), flush=True)
    print("\nheaders that say what is wrong: {1} of {0} refused".format(*headers(asked.gate)))
    return 0


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
