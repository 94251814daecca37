"""Words burnt into pictures are listed for a person; marks of the side are not."""

import csv

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont

from sightline.data.phantoms.radiographs.cohort import write_radiographs
from sightline.io.deidentification.folder import Wishes, deidentify_folder
from sightline.io.deidentification.keys import SiteKey
from sightline.io.deidentification.text import find_text, text_finder

KEY = SiteKey(bytes(32))
NAMES = ("SMITH JOHN", "Garcia, Ana", "MUELLER^JOERG", "Yamada T 1975", "O'BRIEN PAT", "ID 4471-223", "Kowalska E.")
needs_finder = pytest.mark.skipif(not text_finder(), reason="neither rapidocr (sightline[deid]) nor tesseract is here")


def burnt(pixels, words, place, *, size, grey):
    """A copy of a picture with words drawn into it: grey from 0 to 1 of its range, -1 for black on a white label."""
    picture = Image.fromarray(pixels.astype(np.int32), mode="I")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=size)
    low, high = int(pixels.min()), int(pixels.max())
    box = pen.textbbox(place, words, font=font)
    if grey < 0:
        pen.rectangle((box[0] - 6, box[1] - 4, box[2] + 6, box[3] + 4), fill=high)
    pen.text(place, words, fill=low if grey < 0 else int(low + grey * (high - low)), font=font)
    return np.asarray(picture).astype(pixels.dtype)


@needs_finder
def test_a_name_on_a_flat_picture_is_found():
    flat = np.full((120, 400), 30, np.uint16)
    flat[0, 0] = 200
    pixels = burnt(flat, "SMITH JOHN", (40, 40), size=28, grey=1.0)
    found = find_text(pixels)
    assert any("SMITH" in text.text.upper() for text in found)
    top, left, bottom, right = found[0].box
    assert 20 < top < 60 and 20 < left < 60 and bottom > top and right > 150


@needs_finder
@pytest.mark.slow
def test_burnt_in_names_are_listed_and_marks_are_not(tmp_path):
    cohort = write_radiographs(tmp_path / "phantom", studies=12, save_as="dicom", seed=3)
    cases = list(cohort)[:20]
    assert len(cases) == 20
    rng = np.random.default_rng(0)
    for folder in ("named", "clean"):
        (tmp_path / folder).mkdir()
    for n, case in enumerate(cases):
        data = pydicom.dcmread(case.image)
        data.save_as(tmp_path / "clean" / f"{n:02d}.dcm")
        size, grey = (16, 20, 28, 40)[n % 4], (0.75, 1.0, -1.0)[n % 3]
        pixels = data.pixel_array
        if data.PhotometricInterpretation == "MONOCHROME1":
            pixels = pixels.max() - pixels
        words = NAMES[n % len(NAMES)]
        room = max(2, pixels.shape[1] - int(0.62 * size * len(words)))
        place = (int(rng.integers(0, room)), int(rng.integers(5, pixels.shape[0] - 50)))
        pixels = burnt(pixels, words, place, size=size, grey=grey)
        if data.PhotometricInterpretation == "MONOCHROME1":
            pixels = pixels.max() - pixels
        data.PixelData = pixels.astype(np.uint16).tobytes()
        data.save_as(tmp_path / "named" / f"{n:02d}.dcm")
    listed = {}
    for folder in ("named", "clean"):
        home = tmp_path / f"{folder}-home"
        deidentify_folder(tmp_path / folder, tmp_path / f"{folder}-out", home, KEY, Wishes())
        listed[folder] = {row["name"] for row in csv.DictReader((home / "look_at.csv").open())}
    assert len(listed["named"]) >= 19, sorted(listed["named"])
    assert len(listed["clean"]) <= 2, sorted(listed["clean"])
    assert len(list((tmp_path / "named-home" / "look_at").iterdir())) >= 19
