"""Tiny data sets in every published layout that `sightline cohort import` reads, and a CT as a DICOM series.

They are written here with plain libraries, never with sightline: what is imported must not change with it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FRACATLAS = ["hand", "leg", "hip", "shoulder", "mixed", "hardware", "multiscan", "fractured", "fracture_count"]
FRACATLAS += ["frontal", "lateral", "oblique"]
GRAZPEDWRI = (
    ("a_front", "1", "1", "1", "23r-M/2.1", "1"),
    ("a_side", "1", "1", "2", "23r-M/2.1", ""),
    ("b_front", "2", "1", "1", "", ""),
    ("b_side", "2", "1", "2", "", ""),
    ("c_front", "3", "1", "1", "23r-M/3.1; 23u-M/2.1", "1"),
    ("c_side", "3", "1", "2", "23r-M/3.1; 23u-M/2.1", "1"),
    ("d_front", "4", "2", "1", "", "1"),
    ("e_front", "5", "1", "1", "", ""),
    ("not_here", "6", "1", "3", "", ""),
)
CHEST_LUNGS = (
    'a.png,1,COVID-19,PA,F,40,Here,,http://x/a,CC BY 4.0,40,50,"[2, 4.5, 15, 40]","[20, 5, 18.5, 38]"',
    'b.png,2,No Finding,AP Supine,M,,,,http://x/b,CC BY 3.0,40,50,"[-0.4, 0, 16, 50.3]","[20, 5, 20, 38]"',
    'c.png,2,todo,PA,,,,,http://x/c,CC BY 3.0,40,50,"[2, 4, 15, 40]","[20, 5, 18, 38]"',
    'd.png,3,COVID-19,L,,,,,http://x/d,CC BY 3.0,40,50,"[2, 4, 15, 40]","[20, 5, 18, 38]"',
)


def write_table(path: Path, rows: Iterable[Mapping[str, Any]], encoding: str = "utf-8") -> None:
    """Rows as a csv file; columns are those of the first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = list(rows)
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, tuple(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_picture(path: Path, seed: int, shape: tuple[int, ...] = (60, 48)) -> None:
    """A grey gradient with noise: no two pictures alike, which `cohort check` would call duplicates."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    slope = np.linspace(20, 180, shape[0])[:, None] + rng.uniform(-20, 60, shape[:2])
    pixels = slope.clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels if len(shape) == 2 else np.repeat(pixels[..., None], 3, axis=2)).save(path)


def coco(root: Path) -> None:
    """Eight images in five groups: boxes and polygons of nodules, run-length masks of cysts, the others normal."""
    images, annotations = [], []
    for i in range(1, 9):
        name = f"sub/{i}.png" if i % 2 else f"{i}.png"
        write_picture(root / "images" / name, i, (8, 6))
        images.append({"id": i, "file_name": name, "width": 6, "height": 8})
        if i % 4 == 1:
            ring = [1, 2, 3, 2, 3, 6]
            annotations.append({"image_id": i, "category_id": 3, "bbox": [1, 2.5, 3, 4], "segmentation": [ring]})
        elif i % 4 == 2:
            mask = {"size": [8, 6], "counts": [8, 8, 32]}
            annotations.append({"image_id": i, "category_id": 7, "bbox": [1, 0, 1, 8], "segmentation": mask})
            annotations[-1]["iscrowd"] = 1
    document = {
        "images": images,
        "categories": [{"id": 3, "name": "nodule"}, {"id": 7, "name": "cyst"}],
        "annotations": [{"id": n, **one} for n, one in enumerate(annotations, start=1)],
    }
    (root / "labels.json").write_text(json.dumps(document))
    write_table(root / "groups.csv", ({"file_name": o["file_name"], "patient": o["id"] // 2} for o in images))


def cub200(root: Path) -> None:
    """Three birds, five training and two test images each; part 1 is visible, part 2 never."""
    tables: dict[str, list[str]] = {
        name: [] for name in ("images", "classes", "image_class_labels", "train_test_split", "parts/part_locs")
    }
    image_id = 0
    for c in range(1, 4):
        folder = f"{c:03d}.Bird_{c}"
        tables["classes"].append(f"{c} {folder}")
        for i in range(7):
            image_id += 1
            name = f"{folder}/Bird_{c}_{i:04d}.jpg"
            write_picture(root / "images" / name, image_id, (60, 90, 3))
            tables["images"].append(f"{image_id} {name}")
            tables["image_class_labels"].append(f"{image_id} {c}")
            tables["train_test_split"].append(f"{image_id} {int(i < 5)}")
            tables["parts/part_locs"] += [f"{image_id} 1 40.0 {20 + i}.0 1", f"{image_id} 2 0.0 0.0 0"]
    (root / "parts").mkdir()
    for table, lines in tables.items():
        (root / f"{table}.txt").write_text("\n".join(lines) + "\n")


def fracatlas(root: Path) -> None:
    """Twelve images; odd ones are fractured. Neighbours 1-2, 3-4, ... share a block."""
    rows, images, marks = [], [], []
    for i in range(1, 13):
        name, fractured = f"IMG{i:07d}.jpg", i % 2
        write_picture(root / "images" / ("Non_fractured", "Fractured")[fractured] / name, i, (30, 20))
        cells = (1, 0, 0, 0, 0, 0, 0, fractured, fractured, 1, 0, int(i == 4))
        rows.append({"image_id": name, **dict(zip(FRACATLAS, cells, strict=True))})
        if fractured:
            images.append({"id": 100 + i, "width": 20, "height": 30, "file_name": name})
            ring = [1.5, 2.0, 5.0, 2.5, 3.0, 8.25]
            marks.append({"id": i, "image_id": 100 + i, "category_id": 0, "bbox": [1.5, 2, 3.5, 6.25]})
            marks[-1] |= {"segmentation": [ring], "iscrowd": 0}
    write_table(root / "dataset.csv", rows)
    document = {"images": images, "annotations": marks, "categories": [{"id": 0, "name": "fractured"}]}
    path = root / "Annotations" / "COCO JSON" / "COCO_fracture_masks.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document))
    names = [row["image_id"] for row in rows]
    write_table(
        root / "groups.csv",
        ({"image_id": name, "dup_group": name, "id_block": i // 2} for i, name in enumerate(names)),
    )


def grazpedwri(root: Path) -> None:
    """Nine projections of wrists with AO codes and boxes; one image is missing."""
    rows = []
    for n, (stem, patient, study, projection, code, visible) in enumerate(GRAZPEDWRI):
        rows.append(
            {
                "filestem": stem, "patient_id": patient, "study_number": study, "timehash": "", "gender": "F",
                "age": "12", "laterality": "L", "projection": projection, "initial_exam": "",
                "ao_classification": code, "cast": "1", "diagnosis_uncertain": "", "osteopenia": "",
                "fracture_visible": visible, "metal": "", "pixel_spacing": "0.144",
                "device_manufacturer": "Siemens",
            }
        )  # fmt: skip
        if stem != "not_here":
            (root / "images_part1").mkdir(parents=True, exist_ok=True)
            pixels = (np.arange(40 * 60, dtype=np.uint16) * (n + 3)).reshape(60, 40)
            Image.fromarray(pixels).save(root / "images_part1" / f"{stem}.png")
    write_table(root / "dataset.csv", rows, "utf-8-sig")
    labels = root / "yolov5" / "labels"
    labels.mkdir(parents=True)
    (labels / "a_front.txt").write_text("3 0.5 0.25 0.2 0.1\n8 0.1 0.9 0.1 0.1\n")
    (labels / "b_front.txt").write_text("")
    (labels / "c_front.txt").write_text("3 0.5 0.5 0.5 0.5\n3 0.25 0.25 0.1 0.1\n")
    (labels / "d_front.txt").write_text("3 0.0999995 0.5 0.2 0.2\n")


def chest_lungs(root: Path) -> None:
    """Four chests with lung boxes, one of them lateral."""
    for n, name in enumerate("abcd"):
        write_picture(root / "images" / f"{name}.png", n, (50, 40))
    header = "file,patientid,finding,view,sex,age,location,doi,url,license,w,h,right_lung_xywh,left_lung_xywh"
    (root / "manifest.csv").write_text("\n".join([header, *CHEST_LUNGS]) + "\n", encoding="utf-8")


def dicom(root: Path) -> None:
    """Six radiographs of four patients; one that is damaged, one copy."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

    views = (("1", "P1", "PA"), ("1", "P1", "LATERAL"), ("2", "P1", "PA"), ("3", "P2", "PA"), ("4", "P3", "PA"))
    views += (("5", "P4", "PA"),)
    for n, (study, patient, view) in enumerate(views):
        path = root / f"study{study}" / f"{n}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.{study}.{n}"
        data = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
        data.SOPClassUID, data.SOPInstanceUID = ComputedRadiographyImageStorage, meta.MediaStorageSOPInstanceUID
        data.Modality, data.PatientID, data.ViewPosition = "CR", patient, view
        data.StudyInstanceUID = f"1.2.{study}"
        data.Rows, data.Columns = 36, 30
        data.SamplesPerPixel, data.PixelRepresentation = 1, 0
        data.PhotometricInterpretation = "MONOCHROME1" if n % 2 else "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
        data.PixelSpacing, data.ManufacturerModelName = [0.2, 0.1], "X-1"
        data.PixelData = np.random.default_rng(n).integers(0, 4096, 36 * 30).astype(np.uint16).tobytes()
        data.save_as(path, enforce_file_format=True)
    whole = (root / "study1" / "0.dcm").read_bytes()
    (root / "damaged.dcm").write_bytes(whole[:-7])
    (root / "copy.dcm").write_bytes(whole)
    labels = ({"study_uid": f"1.2.{s}", "label": ("none", "fracture")[s % 2]} for s in range(1, 6))
    write_table(root.with_name("dicom_labels.csv"), labels)


def write_samples(path: Path, n: int) -> None:
    """At 1000 Hz: 100 ms in one place, 50 ms of a blink, 50 ms in another place."""
    rows = []
    for i in range(200):
        row, column = (10 + n, 20) if i < 100 else (30, 40)
        seen: dict[str, object] = {
            "x_position": column, "y_position": row, "pupil_area_normalized": 1.0, "window_level": 0.5,
            "angular_resolution_x_pixels_per_degree": 30, "angular_resolution_y_pixels_per_degree": 30,
            "xmin_shown_from_image": 0,
        }  # fmt: skip
        if 100 <= i < 150:
            seen |= {name: "" for name in seen if name.startswith(("x_pos", "y_pos", "pupil", "angular"))}
        rows.append({"timestamp_sample": round(7.0 + i / 1000, 3), **seen})
    write_table(path, rows)


def reflacx(root: Path) -> None:
    """Image aa: read by three in phase 1; bb and cc: once each in phase 3; dd: its gaze was discarded."""
    early = ("Pneumothorax", "Pleural effusion", "Atelectasis")
    late = ("Pneumothorax", "Pleural abnormality", "Atelectasis")
    readings = (
        ("P102R1", "aa", "train", (5, 0, 1)),
        ("P102R2", "aa", "train", (3, 0, 4)),
        ("P102R3", "aa", "train", (1, 5, 0)),
        ("P102R4", "dd", "train", (0, 0, 0)),
        ("P300R5", "bb", "validate", (0, 3, 0)),
        ("P300R6", "cc", "test", (4, 0, 5)),
    )
    phases: dict[str, list[dict[str, Any]]] = {"1": [], "3": []}
    for n, (reading, image, split, certainties) in enumerate(readings):
        names = early if reading.startswith("P1") else late
        place = f"files/p1{image[0]}/p1000{image}/s5{ord(image[0]):03d}/{image}"
        phases[reading[1]].append(
            {
                "id": reading, "split": split, "eye_tracking_data_discarded": image == "dd",
                "image": f"physionet.org/files/mimic-cxr/2.0.0/{place}.dcm", "dicom_id": image,
                "subject_id": f"1000{image}", "image_size_x": 90, "image_size_y": 120,
                **dict(zip(names, certainties, strict=True)), "Support devices": True, "Other": "a|b",
            }
        )  # fmt: skip
        write_picture(root / f"{place}.png", ord(image[0]), (120, 90))
        folder = root / "main_data" / reading
        ellipses = [
            {"xmin": 20, "ymin": 30, "xmax": 60, "ymax": 90, "certainty": 4, **{k: k == names[0] for k in names}},
            {"xmin": 5, "ymin": 5, "xmax": 9, "ymax": 9, "certainty": 1, **dict.fromkeys(names, True)},
        ]
        write_table(folder / "anomaly_location_ellipses.csv", ellipses)
        write_table(folder / "chest_bounding_box.csv", [{"xmin": 4, "ymin": 6, "xmax": 80, "ymax": 110}])
        if image == "dd":
            continue
        seen = ((1.5, 1.75, 40 + n, 50, 30), (2.0, 3.0, 60, 70, 60), (3.0, 3.5, 60, 95, 30))
        write_table(
            folder / "fixations.csv",
            (
                {
                    "timestamp_start_fixation": start, "timestamp_end_fixation": stop, "x_position": column,
                    "y_position": row, "pupil_area_normalized": 1.0, "window_level": 0.5,
                    "angular_resolution_x_pixels_per_degree": degree,
                    "angular_resolution_y_pixels_per_degree": degree, "xmin_shown_from_image": 0,
                }
                for start, stop, row, column, degree in seen
            ),
        )  # fmt: skip
        write_samples(root / "gaze_data" / reading / "gaze.csv", n)
    for phase, rows in phases.items():
        write_table(root / "main_data" / f"metadata_phase_{phase}.csv", rows)


def tracker(root: Path) -> None:
    """Two pictures and a tracker's own table of samples, once for each."""
    shown, pictures = [], []
    for n, name in enumerate("abcd"):
        write_picture(root / "images" / f"{name}.png", n, (100, 80))
        rng = np.random.default_rng(n)
        aims = rng.uniform((8, 8), (92, 72), (240, 2))[np.arange(240) // 30 * 30] + rng.normal(0, 0.2, (240, 2))
        rows = (
            {"time": f"{i / 60:.9f}", "x": f"{c * 10.8 + 528:.6f}", "y": f"{r * 10.8:.6f}"}
            for i, (r, c) in enumerate(aims)
        )
        write_table(root / "r" / f"{name}.csv", rows)
        place = {"x0": 528, "y0": 0, "x1": 1392, "y1": 1080}
        shown.append({"recording": f"r/{name}.csv", "reader": "r1", "image_id": name, **place})
        pictures.append({"image_id": name, "path": f"images/{name}.png", "label": ("well", "sick")[n % 2]})
    (root / "tracker.json").write_text(
        json.dumps({"screen_px": [1080, 1920], "screen_width_mm": 520, "distance_mm": 650})
    )
    write_table(root / "shown.csv", shown)
    write_table(root / "pictures.csv", pictures)


def ct_series(volume: Path, folder: Path) -> None:
    """A CT in NIfTI as the slices of one DICOM series."""
    import nibabel
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    image = nibabel.load(volume)
    values = np.rint(image.get_fdata()).astype(int)
    # DICOM's axes lead to the left, the back and the head; NIfTI's to the right, the front and the head
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = affine[:3, :3] / spacing
    folder.mkdir(parents=True)
    for k in range(values.shape[2]):
        path = folder / f"IM{k:04d}"
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.3.{k + 1}"
        data = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.Modality, data.PatientID = "CT", "phantom"
        data.StudyInstanceUID, data.SeriesInstanceUID = "1.2", "1.2.3"
        data.ImageType, data.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], k + 1
        data.ImagePositionPatient = [round(float(x), 6) for x in (affine @ [0, 0, k, 1])[:3]]
        data.ImageOrientationPatient = [round(float(x), 6) for axis in (0, 1) for x in cosines[:, axis]]
        data.PixelSpacing, data.SliceThickness = [float(spacing[1]), float(spacing[0])], float(spacing[2])
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        slice_ = values[:, :, k].T + 1024
        data.Rows, data.Columns = slice_.shape
        data.PixelData = slice_.clip(0, 65535).astype(np.uint16).tobytes()
        data.save_as(path, enforce_file_format=True)


SOURCES: dict[str, Callable[[Path], None]] = {
    "coco": coco,
    "cub200": cub200,
    "fracatlas": fracatlas,
    "grazpedwri": grazpedwri,
    "chest_lungs": chest_lungs,
    "dicom": dicom,
    "reflacx": reflacx,
    "tracker": tracker,
}
