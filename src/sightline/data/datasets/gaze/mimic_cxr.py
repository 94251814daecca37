"""Images of MIMIC-CXR, which EGD-CXR and REFLACX name but do not hold: found by path or by dicom id."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sightline.errors import LayoutError, count_noun

SUFFIXES = (".dcm", ".png", ".jpg", ".jpeg")


def find_images(root: Path, wanted: Mapping[str, str]) -> dict[str, Path]:
    """The image of each dicom id, in the order asked for; ids without one are left out.

    An image stands at MIMIC-CXR's path under `root`, as DICOM or exported to PNG or JPEG, or anywhere under `root` with
    the id as its name.

    Args:
        root: folder of images.
        wanted: the path a table states (from `files/` on counts; may be empty), by dicom id in lower case.

    Raises:
        LayoutError: no image at all.
    """
    found: dict[str, Path] = {}
    for dicom_id, stated in wanted.items():
        path = _find_at_stated_path(root, stated)
        if path is not None:
            found[dicom_id] = path
    if len(found) < len(wanted):
        for path in sorted(root.rglob("*")):
            dicom_id = path.stem.lower()
            if dicom_id in wanted and dicom_id not in found and path.suffix.lower() in SUFFIXES and path.is_file():
                found[dicom_id] = path
    if not found:
        raise LayoutError(
            f"None of {count_noun(len(wanted), 'image')} is under {root}.",
            "Put MIMIC-CXR's files/ there, or name a folder of DICOM, PNG or JPEG files called by dicom id.",
        )
    return {dicom_id: found[dicom_id] for dicom_id in wanted if dicom_id in found}


def _find_at_stated_path(root: Path, stated: str) -> Path | None:
    parts = stated.replace("\\", "/").split("/")
    if not stated or ".." in parts:
        return None
    # PhysioNet's mirrors put folders of their own before files/
    start = len(parts) - 1 - parts[::-1].index("files") if "files" in parts else 0
    path = root.joinpath(*parts[start:])
    return next((p for suffix in SUFFIXES if (p := path.with_suffix(suffix)).is_file()), None)
