"""Small sound inputs of every kind, made by code; what a mutation starts from.

A seed is a folder in memory: relative path -> bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Seed = dict[str, bytes]
ROWS, COLUMNS = 20, 16


def shades(kind: Any = np.uint8, channels: int = 0) -> Any:
    """Smooth numbers that fill the range of a type."""
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    plane = (rows * 7 + columns * 3) / (7 * ROWS + 3 * COLUMNS)
    whole = (plane * np.iinfo(kind).max).astype(kind)
    return whole if not channels else np.stack([np.roll(whole, n, axis=0) for n in range(channels)], axis=-1)


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@lru_cache
def png() -> list[Seed]:
    """PNG: grey of 8 and 16 bits, colour, a palette, alpha, one bit, with a density and an EXIF turn."""
    grey = Image.fromarray(shades())
    turned = Image.Exif()
    turned[274] = 6
    images = [
        _saved(grey, "PNG"), _saved(grey, "PNG", dpi=(254, 508)), _saved(grey, "PNG", exif=turned),
        _saved(Image.fromarray(shades(np.uint16)), "PNG"), _saved(Image.fromarray(shades(channels=3)), "PNG"),
        _saved(Image.fromarray(shades(channels=4)), "PNG"), _saved(grey.convert("P"), "PNG"),
        _saved(grey.convert("1"), "PNG"), _saved(grey.convert("LA"), "PNG"),
        _saved(Image.fromarray(shades(channels=3)).quantize(16), "PNG", transparency=3),
    ]  # fmt: skip
    return [{"a.png": data} for data in images]


@lru_cache
def tiff() -> list[Seed]:
    """TIFF: grey of 8, 16 and 32 bits, colour, packed four ways, two pages, white is zero."""
    grey, deep = Image.fromarray(shades()), Image.fromarray(shades(np.uint16))
    images = [_saved(grey, "TIFF", compression=c) for c in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")]
    images += [_saved(deep, "TIFF"), _saved(deep, "TIFF", compression="tiff_lzw"), _saved(deep, "TIFF", big_tiff=True)]
    images += [
        _saved(Image.fromarray(shades(channels=3)), "TIFF"),
        _saved(grey.convert("1"), "TIFF", compression="group4"),
    ]
    images += [_saved(Image.fromarray(shades(np.int32)), "TIFF"), _saved(grey.convert("P"), "TIFF")]
    images += [
        _saved(grey, "TIFF", save_all=True, append_images=[grey]),
        _saved(deep, "TIFF", tiffinfo={262: 0, 274: 6}),
    ]
    images += [_saved(Image.fromarray(shades(channels=3)), "TIFF", compression="jpeg", quality=90)]
    return [{"a.tif": data} for data in images]


@lru_cache
def jpeg() -> list[Seed]:
    """JPEG: grey, colour, progressive, CMYK, with an EXIF turn."""
    turned = Image.Exif()
    turned[274] = 8
    grey, colour = Image.fromarray(shades()), Image.fromarray(shades(channels=3))
    images = [_saved(grey, "JPEG"), _saved(colour, "JPEG"), _saved(colour, "JPEG", progressive=True)]
    images += [_saved(grey, "JPEG", exif=turned), _saved(colour.convert("CMYK"), "JPEG")]
    return [{"a.jpg": data} for data in images]


def radiograph(**changes: Any) -> Any:
    """A sound radiograph as a pydicom data set; `changes` set elements."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.9.1"
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SpecificCharacterSet = "ISO_IR 100"
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.826.0.1.9.2", "1.2.826.0.1.9.3"
    data.PatientID, data.PatientName, data.Modality, data.ViewPosition = "P1", "A^B", "DX", "PA"
    data.ImageType, data.SeriesNumber, data.InstanceNumber = ["ORIGINAL", "PRIMARY"], 1, 1
    data.PixelSpacing, data.ImagerPixelSpacing = [0.2, 0.25], [0.22, 0.27]
    data.Rows, data.Columns, data.SamplesPerPixel = ROWS, COLUMNS, 1
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PhotometricInterpretation = "MONOCHROME2"
    data.WindowCenter, data.WindowWidth = 2000, 3000
    data.PixelData = (shades(np.uint16) >> 4).tobytes()
    for name, value in changes.items():
        setattr(data, name, value)
    return data


def _table(*values: int) -> Any:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    item = Dataset()
    item.LUTDescriptor = [len(values), 0, 16]
    item.LUTData = np.array(values, dtype=np.uint16).tobytes()
    return Sequence([item])


def _dicom(data: Any, syntax: str | None = None) -> bytes:
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

    out = io.BytesIO()
    if syntax is not None:
        data.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    form = {"implicit_vr": syntax == ImplicitVRLittleEndian, "little_endian": syntax != ExplicitVRBigEndian}
    pydicom.dcmwrite(out, data, enforce_file_format=True, **({} if syntax is None else form))
    return out.getvalue()


@lru_cache
def dicom() -> list[Seed]:
    """DICOM radiographs: every byte order, packed five ways, with windows, tables and modality steps."""
    import pydicom
    from pydicom.encaps import encapsulate

    plain = [
        radiograph(), radiograph(PhotometricInterpretation="MONOCHROME1"),
        radiograph(RescaleSlope=1.5, RescaleIntercept=-10, RescaleType="US"),
        radiograph(VOILUTSequence=_table(*range(0, 65536, 16))),
        radiograph(ModalityLUTSequence=_table(*range(0, 4096, 2))),
        radiograph(VOILUTFunction="SIGMOID"), radiograph(WindowCenter=[100, 200], WindowWidth=[300, 400]),
        radiograph(PixelPaddingValue=0, PixelRepresentation=1, BitsStored=16, HighBit=15),
        radiograph(
            BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=shades().tobytes(), WindowCenter=128, WindowWidth=256
        ),
    ]  # fmt: skip
    found = [_dicom(data) for data in plain]
    found += [
        _dicom(radiograph(), syntax)
        for syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
    ]
    for syntax in ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80"):
        wide = np.kron(shades(np.uint16) >> 4, np.ones((2, 2), dtype=np.uint16))  # JPEG 2000 wants 32 pixels a side
        packed = radiograph(Rows=2 * ROWS, Columns=2 * COLUMNS, PixelData=wide.tobytes())
        packed.compress(syntax, generate_instance_uid=False)
        found.append(_dicom(packed))
    lossy = radiograph(
        BitsAllocated=8, BitsStored=8, HighBit=7, WindowCenter=128, WindowWidth=256, LossyImageCompression="01",
        PixelData=encapsulate([_saved(Image.fromarray(shades()), "JPEG")]),
    )  # fmt: skip
    lossy["PixelData"].is_undefined_length = True
    found.append(_dicom(lossy, str(pydicom.uid.JPEGBaseline8Bit)))
    return [{"a.dcm": data} for data in found]


@lru_cache
def ct() -> list[Seed]:
    """CTs of a body with air, soft tissue and bone: a series of four slices, the same as NIfTI."""
    rows, columns = np.mgrid[:32, :32]
    body = np.where((rows - 16) ** 2 + (columns - 16) ** 2 < 160, 40, -1000)
    body = np.where((rows - 20) ** 2 + (columns - 16) ** 2 < 16, 700, body)
    body = np.where((rows - 10) ** 2 + (columns - 10) ** 2 < 12, -90, body).astype(np.int16)
    series: Seed = {}
    for k in range(4):
        data = radiograph(
            SOPClassUID="1.2.840.10008.5.1.4.1.1.2", SOPInstanceUID=f"1.2.826.0.1.8.{k + 1}", Modality="CT", Rows=32,
            Columns=32, BitsStored=16, HighBit=15, RescaleIntercept=-1024, RescaleSlope=1, RescaleType="HU",
            ImagePositionPatient=[-16, -16, 2.0 * k], ImageOrientationPatient=[1, 0, 0, 0, 1, 0], SliceThickness=2.0,
            FrameOfReferenceUID="1.2.826.0.1.7", InstanceNumber=k + 1, PixelSpacing=[1, 1],
            PixelData=(body + 1024 + k).astype(np.uint16).tobytes(),
        )  # fmt: skip
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        series[f"{k}.dcm"] = _dicom(data)
    return [series]


@lru_cache
def nifti() -> list[Seed]:
    """NIfTI: both versions, packed and plain, whole numbers, fractions and labels, either orientation, a scale."""
    import nibabel

    values = (np.arange(6 * 5 * 4).reshape(6, 5, 4) * 9 - 400).astype(np.int16)
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    found: list[Seed] = []
    for make in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        for kind in (np.int16, np.float32, np.uint8, np.float64):
            image = make((values % 5 if kind is np.uint8 else values).astype(kind), affine)
            image.set_sform(affine, code=1)
            image.set_qform(affine, code=0 if kind is np.float32 else 1)
            if kind is np.int16:
                image.header["scl_slope"], image.header["scl_inter"] = 2.0, -1.0
            data = image.to_bytes()
            found += [{"a.nii": data}, {"a.nii.gz": gzip.compress(data, 1, mtime=0)}]
    return found


@lru_cache
def cohorts() -> list[Seed]:
    """Cohorts in our layout with every kind of mark: pictures with boxes, masks, gaze; one with masks by name alone."""
    from sightline.data.datasets.folder.writer import write_cohort
    from sightline.structures.case import Case, Cohort
    from sightline.structures.gaze import Gaze
    from sightline.structures.regions import Box, Mask, Polygon, Scribble
    from sightline.structures.tag import Tag

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        cases = []
        for i in range(4):
            path = root / f"{i}.png"
            path.write_bytes(_saved(Image.fromarray(np.roll(shades(), i, axis=0)), "PNG"))
            label = ("a", "b")[i % 2]
            inside = np.zeros((ROWS, COLUMNS), dtype=bool)
            inside[3:9, 4:8] = True
            marks: list[Any] = [
                Box((2.0, 3.5), (9, 12), Tag("finding", label, "r1")),
                Polygon((((1.0, 1.0), (1.0, 9.0), (9.0, 9.0)), ((12, 2), (12, 6), (15, 6))), Tag("focus")),
                Scribble((((2.0, 2.0), (10.0, 11.0)),), 2.0, Tag("organ", None, "", "bone")),
                Mask(inside, Tag("focus", label)),
            ]
            places = np.array([[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
            marks.append(Gaze(places, np.array([0.0, 0.2, 0.5]), np.full(3, 0.2), "fixations", 30.0, 12.0, Tag("gaze")))
            split: Any = ("train", "train", "val", "test")[i]
            facts = {"device": "x", "kv": str(60 + i)}
            cases.append(
                Case(
                    f"c{i}",
                    f"s{i}",
                    f"p{i}",
                    path,
                    label,
                    tuple(marks),
                    split,
                    "PA",
                    (ROWS, COLUMNS),
                    (0.2, 0.2),
                    facts,
                )
            )
        write_cohort(Cohort("seed", ("a", "b"), tuple(cases), root, {"licence": "ours"}), root / "out")
        full = _folder(root / "out")
    bare = {name: data for name, data in full.items() if name != "regions.json" and "gaze" not in name}
    return [full, bare]


def _folder(root: Path) -> Seed:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@lru_cache
def coco() -> list[Seed]:
    """A COCO data set with boxes, polygons and both kinds of run lengths."""
    images = [{"id": i, "file_name": f"{i}.png", "width": COLUMNS, "height": ROWS} for i in range(4)]
    shapes: list[Any] = [
        [[2.0, 3.0, 9.0, 3.0, 9.0, 8.0]], {"size": [ROWS, COLUMNS], "counts": [50, 6, 14, 6, ROWS * COLUMNS - 76]},
        {"size": [ROWS, COLUMNS], "counts": "b16X8"}, [],
    ]  # fmt: skip
    marks = [
        {"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": [2, 3, 7, 5], "area": 35.0,
         "iscrowd": int(i in (1, 2)), "segmentation": shape}
        for i, shape in enumerate(shapes)
    ]  # fmt: skip
    document = {
        "images": images,
        "annotations": marks[:3],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    pictures = {f"images/{i}.png": _saved(Image.fromarray(shades()), "PNG") for i in range(4)}
    groups = b"file_name,patient\n" + b"".join(b"%d.png,p%d\n" % (i, i) for i in range(4))
    return [{"annotations.json": json.dumps(document).encode(), "groups.csv": groups, **pictures}]


@lru_cache
def recipes() -> list[Seed]:
    """Every recipe that can be named."""
    from sightline.papers.catalogue import CATALOGUE
    from sightline.papers.recipes import RECIPES
    from sightline.training.recipe import format_recipe_json

    return [{"recipe.json": format_recipe_json(make(), CATALOGUE).encode()} for _, make in RECIPES.values()]


@lru_cache
def runs() -> list[Seed]:
    """A finished run of the smallest network, with boxes.json and predictions."""
    from sightline.papers.catalogue import CATALOGUE
    from sightline.papers.recipes import RECIPES
    from sightline.training.recipe import format_recipe_json
    from sightline.training.run import finish_run, save_weights
    from sightline.training.serialization import to_plain

    recipe = RECIPES["small-guided"][1]()
    about: dict[str, Any] = {
        "run_identity": "0123456789ab",
        "name": "seed",
        "classes": ["a", "b"],
        "fingerprint": "00",
        "about": {},
    }
    about |= {"cases": 2, "counts": {}, "split": {"c0": "train", "c1": "val"}}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "recipe.json").write_text(format_recipe_json(recipe, CATALOGUE))
        (root / "cohort.json").write_text(json.dumps(about))
        save_weights(recipe.model.without_weights().build(2).state_dict(), root / "weights.safetensors")
        finish_run(root, "trained")
        sealed = _folder(root)
        sealed["boxes.json"] = json.dumps(to_plain(recipe.boxes, CATALOGUE)).encode()
        sealed["calibration.json"] = json.dumps(
            {"run": "0123456789ab", "classes": ["a", "b"], "fitted": None, "points": [], "abstention": None,
             "sets": None, "about": {}}
        ).encode()  # fmt: skip
    loose = {name: data for name, data in sealed.items() if name != "SHA256SUMS"}
    return [loose, sealed]


@lru_cache
def predictions() -> list[Seed]:
    """Tables of predictions: softmax and independent classes."""
    from sightline.metrics.predictions import Predictions

    found: list[Seed] = []
    for independent in (False, True):
        table = Predictions(
            ("a", "b"), ("c0", "c1", "c2"), ("s0", "s1", "s1"), ("p0", "p1", "p1"), np.array([0, 1, 1]),
            np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]]), "image", independent,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as name:
            table.write(Path(name) / "test.csv")
            found.append({"test.csv": (Path(name) / "test.csv").read_bytes()})
    return found


@lru_cache
def pictures() -> list[Seed]:
    """A folder of pictures and a table of labels."""
    rows = "file,label,patient_id,view,device\n" + "".join(f"x/{i}.png,{'ab'[i % 2]},p{i},PA,d{i}\n" for i in range(3))
    return [{"labels.csv": rows.encode(), **{f"x/{i}.png": _saved(Image.fromarray(shades()), "PNG") for i in range(3)}}]


@lru_cache
def bodies() -> list[Seed]:
    """Bodies of a STOW request with two objects."""
    image = dicom()[0]["a.dcm"]
    part = b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + image + b"\r\n"
    return [{"body": part * 2 + b"--edge--\r\n"}]


SEEDS: dict[str, Callable[[], list[Seed]]] = {
    "dicom": dicom, "ct": ct, "png": png, "tiff": tiff, "jpeg": jpeg, "nifti": nifti, "cohort": cohorts, "coco": coco,
    "recipe": recipes, "run": runs, "predictions": predictions, "pictures": pictures, "stow": bodies,
}  # fmt: skip
