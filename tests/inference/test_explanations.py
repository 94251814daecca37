"""`sightline explain`: pictures with several maps, checked before they are shown, from files and from cohorts."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from PIL import Image
from support.cohorts import tiny_recipe
from support.layouts import radiograph

from sightline.errors import RecipeError, RunError
from sightline.inference.explanations import draw_gaze_over_time, explain_cases, explain_files, split_gaze
from sightline.models.backbones import Backbone
from sightline.models.unet import UNet
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.frame import Frame
from sightline.training.engine import Engine
from sightline.training.train import train

QUIET = Engine(device="cpu", quiet=True)
pytestmark = pytest.mark.usefixtures("coarse_pictures")


@pytest.fixture(scope="module")
def run(gazed_cohort, tmp_path_factory):
    recipe = tiny_recipe(guidance=None, weight=0.0, steps=2)
    recipe = replace(recipe, model=UNet(Backbone("test_resnet"), widths=(8, 8, 8, 8, 4)))
    return train(recipe, gazed_cohort, tmp_path_factory.mktemp("run") / "run", CATALOGUE, QUIET)


def test_cases_are_shown_with_gaze_maps_and_decoder(run, gazed_cohort, tmp_path):
    out = tmp_path / "out"
    n = explain_cases(run, gazed_cohort.split("test"), out, ("cam", "guided"), most=3, engine=QUIET)
    pages = sorted((out / "maps").glob("*.png"))
    assert n == len(pages) == 3
    with Image.open(pages[0]) as page:
        # picture, gaze, class map, guided back-propagation and decoder side by side
        assert page.width > 3.5 * page.height
    words = (out / "preflight.md").read_text()
    assert "## class map" in words and "## guided back-propagation" in words and "image" in words


@pytest.mark.parametrize("seconds", [None, 0.1])
def test_gaze_over_time_is_all_of_it_part_by_part(gazed_cohort, tmp_path, seconds):
    case = next(case for case in gazed_cohort if case.regions)
    gaze = case.regions[0]
    spans = split_gaze(gaze, 3, seconds)
    parts = [gaze.between(*span) for span in spans]
    # every sample lies in one part, and the static map is the sum of the temporal ones
    assert sum(len(part) for part in parts) == len(gaze) and len(parts) == (3 if seconds is None else 7)
    grid = Frame.of_image(case.shape)
    whole = sum(part.density(grid) for part in parts)
    np.testing.assert_allclose(whole, gaze.density(grid), rtol=1e-4, atol=1e-7)
    (page,) = draw_gaze_over_time(gazed_cohort, tmp_path, seconds=seconds, parts=3, most=1, size=96)
    with Image.open(page) as drawn:
        assert drawn.width > (len(parts) + 1.5) * 0.75 * drawn.height
    with pytest.raises(RunError):
        draw_gaze_over_time(gazed_cohort, tmp_path, parts=0)
    with pytest.raises(RunError, match="has gaze"):
        draw_gaze_over_time(gazed_cohort.where(lambda case: not case.regions), tmp_path)


def test_files_are_explained_and_what_is_no_picture_is_rejected(run, gazed_cohort, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for case in gazed_cohort.cases[:2]:
        (tmp_path / "in" / case.image.name).write_bytes(case.image.read_bytes())
    (tmp_path / "in" / "notes.png").write_bytes(b"not a picture")
    (tmp_path / "in" / "nothing.dcm").write_bytes(b"")
    odd = pydicom.dcmread(radiograph(tmp_path / "in" / "odd.dcm", "1.2.3"))
    odd.PixelSpacing = [1000, 1000]
    odd.save_as(tmp_path / "in" / "odd.dcm")
    read, rejects = explain_files(run, [tmp_path / "in"], tmp_path / "out", ("gradient",), QUIET)
    assert (read, rejects) == (3, 2)
    assert len(list((tmp_path / "out" / "maps").glob("*.png"))) == 3
    said = (tmp_path / "out" / "rejects.csv").read_text()
    assert "notes.png" in said and "nothing.dcm,the file is empty." in said
    # as predict says how a file was read
    assert "odd.dcm,PixelSpacing 1000" in (tmp_path / "out" / "remarks.csv").read_text()
    assert "remark: " in capsys.readouterr().err


def test_what_cannot_be_explained_is_refused(run, gazed_cohort, tmp_path):
    with pytest.raises(RecipeError, match="none given"):
        explain_files(run, [gazed_cohort[0].image], tmp_path / "out", ())
    with pytest.raises(RecipeError, match="no explainer tea_leaves"):
        explain_cases(run, gazed_cohort, tmp_path / "out", ("tea_leaves",), engine=QUIET)
    with pytest.raises(RunError, match="does not exist"):
        explain_files(run, [tmp_path / "nowhere"], tmp_path / "out", ("cam",), QUIET)
    with pytest.raises(RunError, match="no case"):
        explain_cases(run, gazed_cohort.where(lambda c: False), tmp_path / "out", ("cam",), engine=QUIET)
