"""Tiny data sets in published layouts."""

from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.io.nifti import write_volume
from sightline.structures.case import Case, Cohort
from sightline.structures.regions import Mask
from sightline.structures.tag import Tag


def write_tiny(root: Path, classes: int = 3, train: int = 6, test: int = 2, shape: tuple[int, int] = (60, 90)) -> Path:
    """A cohort in the published layout; part 1 is visible at x 40, y 20 everywhere, part 2 never."""
    tables: dict[str, list[str]] = {
        name: [] for name in ("images", "classes", "image_class_labels", "train_test_split", "parts/part_locs")
    }
    image_id = 0
    for c in range(1, classes + 1):
        name = f"{c:03d}.Bird_{c}"
        tables["classes"].append(f"{c} {name}")
        (root / "images" / name).mkdir(parents=True)
        for i in range(train + test):
            image_id += 1
            picture = f"Bird_{c}_{i:04d}.jpg"
            Image.fromarray(np.full((*shape, 3), 30 * c, np.uint8)).save(root / "images" / name / picture)
            tables["images"].append(f"{image_id} {name}/{picture}")
            tables["image_class_labels"].append(f"{image_id} {c}")
            tables["train_test_split"].append(f"{image_id} {int(i < train)}")
            tables["parts/part_locs"] += [f"{image_id} 1 40.0 20.0 1", f"{image_id} 2 0.0 0.0 0"]
    (root / "parts").mkdir()
    for table, lines in tables.items():
        (root / f"{table}.txt").write_text("\n".join(lines) + "\n")
    return root


def radiograph(path, sop, *, study="1.1", patient="P1", modality="CR", view="PA", size=(6, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = sop or "9.9"
    data = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.Modality, data.PatientID, data.ViewPosition = (
        ComputedRadiographyImageStorage,
        modality,
        patient,
        view,
    )
    data.StudyInstanceUID, data.SOPInstanceUID = study, sop
    data.Rows, data.Columns = size
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelSpacing, data.ManufacturerModelName = [0.2, 0.1], "X-1"
    data.PixelData = np.arange(size[0] * size[1], dtype=np.uint16).tobytes()
    data.save_as(path, enforce_file_format=True)
    return path


SIDE = 24
AFFINE = np.array([[0, 0, -1.0, 40], [0, -1.0, 0, 30], [-1.0, 0, 0, 20], [0, 0, 0, 1.0]])


def make_spines(tmp_path, cases_wanted=16):
    """Patches of 24 voxels: a vertebra is bright, or fractured and dark; masks of it and of its endplate."""
    rng = np.random.default_rng(0)
    cases = []
    for n in range(cases_wanted):
        label = ("intact", "fractured")[n % 2]
        values = rng.normal(-200, 40, (SIDE,) * 3).astype(np.int16)
        values[8:16, 8:16, 8:16] = 400 if label == "intact" else -600
        labels = np.zeros((SIDE,) * 3, dtype=np.uint8)
        labels[8:16, 8:16, 8:16] = 20
        labels[8:10, 8:16, 8:16] = 101
        if label == "fractured":
            labels[10, 8:16, 8:16] = 1
        image, mask = tmp_path / "patches" / f"s{n}.nii", tmp_path / "masks" / f"s{n}.nii.gz"
        write_volume(image, values, AFFINE)
        write_volume(mask, labels, AFFINE)
        regions = (
            Mask(mask, Tag("focus", name="vertebra"), 20),
            Mask(mask, Tag("organ", name="superior endplate"), 101),
        )
        if label == "fractured":
            regions += (Mask(mask, Tag("finding", "fractured", name="deformed bone"), 1),)
        split = ("train", "train", "train", "train", "val", "val", "test", "test")[n % 8]
        cases.append(
            Case(f"s{n}", f"s{n}", f"p{n}", image, label, regions, split, "rigid", (SIDE,) * 3, (1.0, 1.0, 1.0),
                 {"level": "L1"})
        )  # fmt: skip
    cohort = Cohort("spines", ("intact", "fractured"), tuple(cases), tmp_path)
    write_cohort(cohort, tmp_path)
    return read_cohort(tmp_path)
