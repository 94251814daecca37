"""Digests as they were when identities were written out: old runs, caches and results must keep their names.

A pin that changes says that every run, evaluation or result of that kind made so far is a stranger. Change the
notation only with a new version of what it names, never these numbers.
"""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from sightline.data.views.crops import Crop, RegionJitter
from sightline.data.views.image_view import View
from sightline.data.views.patches import Patches
from sightline.errors import SightlineError
from sightline.evaluation.tables.engines.row_training import RowTraining
from sightline.evaluation.tables.engines.self_training import Teaching
from sightline.evaluation.tables.grids.grid import change_recipe
from sightline.explainers.localisation.protocols import MapBoxes
from sightline.io.dicom_results.marks import _digest_lines, _list_lines
from sightline.metrics.calibration.recalibration import FittedRecalibration
from sightline.metrics.calibration.record import CalibrationRecord
from sightline.metrics.calibration.scaling import Isotonic, Temperature
from sightline.metrics.decision.abstention import Abstention
from sightline.metrics.decision.conformal import PredictionSets
from sightline.metrics.decision.operating_points import OperatingPoint
from sightline.models.frozen_stages import Level
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.overrides import Changes
from sightline.papers.recipes import RECIPES, find_recipe, find_table
from sightline.structures.case import Case, Cohort
from sightline.structures.gaze import Gaze
from sightline.structures.notation import write_fields
from sightline.structures.regions import Box, Mask, Polygon, Scribble
from sightline.structures.tag import Tag
from sightline.training.engine import Engine
from sightline.training.recipe import digest_texts, format_identity_json, format_recipe_json, read_recipe
from sightline.training.serialization import mention_former_word, restore_former_words

RECIPES_TODAY = {
    "unguided": "0b5ac3158dbe",
    "attended": "e09d204eff1b",
    "guided": "de5fa1c5b283",
    "l1": "7182f5acc0c8",
    "l2": "802e88ae96d2",
    "residual": "77ee5954f929",
    "self": "9cab0286a5c8",
    "pyramid": "9822ad2924cc",
    "small-unguided": "63c4dee7829d",
    "small-guided": "60ea81a3709f",
    "fracture-unguided": "91dc8c5401f3",
    "fracture-guided": "1dc5e67e16e5",
    "fracture-patches": "cb71c7971ffc",
    "fracture-labels": "cfda253524d8",
    "lbm": "a4c99519b40d",
    "ubm": "cd4e34604845",
    "box-regression": "f396d35864cc",
    "a-stn": "2f0c5e23c078",
    "aff-stn": "18faf82ce9a7",
    "clamped-stn": "477eec1de83f",
    "sampled-window-stn": "575c24709b90",
    "self-transfer": "d33b781109b9",
    "global-pooling": "320e2f12b8d4",
    "cam-layer": "45b5c5b93586",
    "gg-cam": "7962e642655d",
    "gaze-unet": "0cbecd64f4ee",
    "gaze-set3": "d1833ca8ea96",
    "spine": "79adcdd97633",
    "spine-small": "36998a840b4d",
    "spine-maps": "213314d3ab72",
    "spine-guided": "8bf24b5bac5d",
}
MARKS_TODAY = {
    "box": "9bc3e27715a2627c",
    "volume box": "6f3467c557e01f2a",
    "polygon": "3742b4689b67cc48",
    "scribble": "45eb839ac17d2085",
    "mask file": "0580b6b19fc68768",
    "plain mask file": "fc036db332ae8aee",
    "absent mask file": "31e1ff85ec001962",
    "mask array": "126f46e885fa9518",
    "gaze": "6d603aae07cb9f4e",
    "all": "2d6caa8109170b93",
}
ROWS_TODAY = {
    "mean pooling": "de0726574e4d",
    "top 2%, self-trained": "ed1f79445134",
    "image labels, committee": "b27bf947cf39",
}

MARKS_IN_DICOM = {"box": "73f6bfd25945", "polygon": "603e14c2ee23", "scribble": "6680d708735e"}


def marks(place):
    (place / "mask.png").write_bytes(b"12345")
    return {
        "box": Box((1, 2.5), (3.25, 4.0000004), Tag("finding", "fracture", "reader 1", "distal radius")),
        "volume box": Box((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
        "polygon": Polygon((((0, 0), (0, 8), (8, 8.5)), ((9, 9), (9, 12), (12, 9))), Tag("focus", None, "it's")),
        "scribble": Scribble((((4.5, 2.0), (4.5, 12.0)),), 1.5, Tag("focus")),
        "mask file": Mask(place / "mask.png", Tag("organ", "fracture", "reader 2", "lung"), 3),
        "plain mask file": Mask(place / "mask.png"),
        "absent mask file": Mask(place / "none.png", Tag("focus")),
        "mask array": Mask(np.eye(4, dtype=bool), Tag("finding", None, "r", "x"), None),
        "gaze": Gaze(
            np.array([[8.0, 8.0], [8.0, 9.5]]),
            np.array([0.0, 0.5]),
            np.array([0.5, 0.25]),
            "fixations",
            30.5,
            2.0,
            Tag("gaze", None, "reader 3"),
        ),
    }


def cohort_of(place, *regions):
    case = Case("i1", "s1", "p1", place / "absent.png", "fracture", regions, "test")
    return Cohort("hands", ("no fracture", "fracture"), (case,))


def test_cohorts_with_each_kind_of_mark(tmp_path):
    made = marks(tmp_path)
    found = {name: cohort_of(tmp_path, region).fingerprint() for name, region in made.items()}
    found["all"] = cohort_of(tmp_path, *made.values()).fingerprint()
    assert found == MARKS_TODAY


def test_recipes_of_every_paper():
    assert {
        name: digest_texts(format_identity_json(format_recipe_json(make(), CATALOGUE)))
        for name, (_, make) in RECIPES.items()
    } == RECIPES_TODAY


def test_rows_of_a_table(tmp_path):
    cohort = cohort_of(tmp_path, *marks(tmp_path).values())
    rows = {row.name: row for row in find_table("localisers/fracatlas", "recommended", Changes()).rows}
    for name, wanted in ROWS_TODAY.items():
        assert RowTraining(rows[name], 7, cohort, {}, tmp_path, CATALOGUE, Engine(), rows).identity == wanted, name


TEMPERATURE = FittedRecalibration(Temperature(1.5), {"cohort": "hands", "n": 12}, {"as said": 0.5}, "few cases")
RECORD = CalibrationRecord(
    "abc",
    ("n", "y"),
    TEMPERATURE,
    (OperatingPoint("y", 0.25, "youden", None, {"split": "val"}),),
    Abstention("top", 0.5, 0.9),
    PredictionSets(("n", "y"), (0.1, float("inf")), 0.1, False),
    {"command": "x"},
)


@pytest.mark.parametrize(
    ("noun", "wanted"),
    [
        (MapBoxes(), "fd79846a871e"),
        (MapBoxes(keep="band", regions="hull", low=12.5), "6d6753737e51"),
        (Teaching(0.5), "e8ca5e3434cf"),
        (View(), "2a3db8d12aa4"),
        (View(crop=Crop()), "861801e33da5"),
        (View(jitter=RegionJitter(), draws=4), "0d4c182622e4"),
        (View(patches=Patches()), "882e850c3037"),
        (CalibrationRecord("abc", ("n", "y")), "968d699780db"),
        (RECORD, "fffc659768e8"),
        (replace(RECORD, fitted=FittedRecalibration(Isotonic(((0.0, 1.0),), ((0.25, 0.75),)))), "18bacdb8ea0f"),
    ],
)
def test_settings_that_names_are_made_of(noun, wanted):
    assert hashlib.sha256(noun.notation().encode()).hexdigest()[:12] == wanted


def test_no_field_is_left_out_of_a_notation():
    framed = View(centre_crop=0.875, crop_ratio=(0.75, 1.25))
    patches = Patches(around=0.0, labels="picture")
    for noun in (MapBoxes(), Teaching(), framed, Crop(), RegionJitter(), patches, Level("layer1", 64, 4), RECORD):
        for name in vars(noun):
            assert f"{name}=" in noun.notation(), (noun, name)


def test_marks_of_readers_in_dicom(tmp_path):
    for name, wanted in MARKS_IN_DICOM.items():
        words = _digest_lines(_list_lines(marks(tmp_path)[name]))
        assert hashlib.sha256(words.encode()).hexdigest()[:12] == wanted, name
    # numpy writes the middle of a long line as three dots: two such marks must not have one UID
    long = [[(float(i % 7), float(i)) for i in range(600)] for _ in range(2)]
    long[1][300] = (3.5, 300.0)
    assert len({_digest_lines(_list_lines(Scribble((tuple(line),)))) for line in long}) == 2


def test_what_has_no_notation_is_refused():
    with pytest.raises(SightlineError, match="has no notation"):
        write_fields("View", crop=Crop())
    assert write_fields("A", b=(1, write_fields("C", d="e"), None)) == "A(b=(1, C(d='e'), None))"


def test_words_of_earlier_versions(tmp_path, capsys):
    """An old recipe opens, says the new word, and is the same run; a table may still change a field by its old name."""
    for name in ("trying-stn", "sampled-window-stn"):
        assert (
            digest_texts(format_identity_json(format_recipe_json(find_recipe(name), CATALOGUE)))
            == RECIPES_TODAY["sampled-window-stn"]
        )
    old = json.dumps(restore_former_words(json.loads(format_recipe_json(find_recipe("sampled-window-stn"), CATALOGUE))))
    assert '"kind": "trying_transformer"' in old and '"tries": {"kind": "tries"' in old and "sampl" not in old
    (tmp_path / "recipe.json").write_text(old)
    assert read_recipe(tmp_path / "recipe.json", CATALOGUE) == find_recipe("sampled-window-stn")
    changed = change_recipe(find_recipe("sampled-window-stn"), {"model.tries.windows": 2}, CATALOGUE)
    assert changed.model.sampling.windows == 2
    mention_former_word.cache_clear()
    averaged = change_recipe(find_recipe("small-guided"), {"average": 0.9}, CATALOGUE)
    assert averaged.ema_decay == 0.9 and "average is called ema_decay now" in capsys.readouterr().err
    find_recipe("trying-stn")
    assert "trying-stn is called sampled-window-stn now" in capsys.readouterr().err


def test_a_committee_is_the_ensemble_of_today(tmp_path):
    """An ensemble that an earlier version made, titled in its words, opens and is the same run."""
    today = replace(find_recipe("small-guided"), title="ensemble of 3", ema_decay=0.9)
    text = format_recipe_json(today, CATALOGUE)
    former = text.replace("ensemble of 3", "committee of 3").replace('"ema_decay"', '"average"')
    assert former != text and format_identity_json(former) == format_identity_json(text) == former
    (tmp_path / "recipe.json").write_text(former)
    assert read_recipe(tmp_path / "recipe.json", CATALOGUE) == today
    own = replace(today, title="ensemble of two readers")
    assert '"title": "ensemble of two readers"' in format_identity_json(format_recipe_json(own, CATALOGUE))
