"""Phantom spines: VerSe's layout, heights that agree with the grades, masks that say what was drawn."""

import csv
import json

import nibabel
import numpy as np
import pytest

from sightline.data.datasets.verse import reader as verse
from sightline.data.phantoms.spine.plan import LOSSES
from sightline.data.phantoms.spine.verse_layout import write_spines, write_subject
from sightline.data.spine.vertebrae import FINDINGS, LABELS, SUBREGIONS
from sightline.errors import CohortError, LayoutError
from sightline.io.ct import read_ct

SUBJECTS = 3


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spines") / "phantom"
    return folder, write_spines(folder, subjects=SUBJECTS, seed=18, spacing=1.25, prevalence=0.45)


@pytest.fixture(scope="module")
def spines(phantom):
    found, rejects = verse.read(phantom[0])
    assert not rejects
    return {one.series: one for one in found}


def volume(path):
    image = nibabel.load(path)
    return np.asanyarray(image.dataobj), image.affine


def measured_heights(mask, affine, truth):
    """Anterior, middle and posterior height: length of bone on lines along the body's axis, sampled every 0.1 mm."""
    axes, origin, half_depth = np.array(truth["axes"]), np.array(truth["origin_mm"]), truth["depth_mm"] / 2.0
    z = np.arange(-24.0, 24.0, 0.1)
    heights = []
    for place in (0.75, 0.0, -0.75):
        lines = []
        for x in (-2.0, -1.0, 0.0, 1.0, 2.0):
            points = np.column_stack([np.full_like(z, x), np.full_like(z, place * half_depth), z]) @ axes.T + origin
            voxels = np.rint(nibabel.affines.apply_affine(np.linalg.inv(affine), points)).astype(int)
            inside = ((voxels >= 0) & (voxels < mask.shape)).all(axis=1)
            lines.append(0.1 * (mask[tuple(voxels[inside].T)] == truth["label"]).sum())
        heights.append(np.mean(lines))
    return heights


def test_heights_in_the_masks_are_those_drawn_and_agree_with_the_grades(phantom, spines):
    apart, graded = [], 0
    for name, series in phantom[1]["series"].items():
        mask, affine = volume(spines[name].vertebra_mask)
        for one in series["vertebrae"].values():
            front, middle, back = measured_heights(mask, affine, one)
            apart.append(np.array([front, middle, back]) - one["heights_mm"])
            lost = {
                "wedge": 1 - front / back,
                "biconcave": 1 - middle / back,
                "crush": 1 - back / one["expected_mm"][2],
            }
            if one["grade"]:
                graded += 1
                low, high = LOSSES[one["grade"]]
                assert low <= one["loss"] <= high
                assert lost[one["deformity"]] == pytest.approx(one["loss"], abs=0.055)
            else:
                assert max(lost.values()) < 0.22
    assert graded >= 5
    assert np.abs(np.mean(apart, axis=0)).max() < 0.4
    assert np.abs(apart).max() < 1.3


def test_verse_reader_finds_series_grades_and_splits(phantom, spines):
    folder, truth = phantom
    assert set(spines) == set(truth["series"])
    assert {one.split for one in spines.values()} == {"train", "val", "test"}
    assert {one.source for one in spines.values()} == {"phantom"}
    for name, series in truth["series"].items():
        spine = spines[name]
        assert spine.subregion_mask is not None
        assert spine.finding_mask is not None
        assert spine.facts["orientation"] == series["orientation"]
        assert [(v.level, v.grade, v.deformity) for v in spine.vertebrae] == [
            (level, one["grade"], one["deformity"]) for level, one in series["vertebrae"].items()
        ]
        mask, _ = volume(spine.vertebra_mask)
        for vertebra in spine.vertebrae:
            voxel = tuple(np.floor(vertebra.centre).astype(int))
            assert mask[voxel] == vertebra.label
        # a CT that its reader takes for Hounsfield units
        assert read_ct(spine.image).values.shape == mask.shape
    with (folder / "fractures.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == sum(len(one["vertebrae"]) for one in truth["series"].values())


def test_findings_are_in_deformed_bodies_only_and_in_each(phantom, spines):
    for name, series in phantom[1]["series"].items():
        found, _ = volume(spines[name].finding_mask)
        mask, _ = volume(spines[name].vertebra_mask)
        regions, _ = volume(spines[name].subregion_mask)
        assert set(np.unique(found)) <= {0, *FINDINGS}
        for one in series["vertebrae"].values():
            inside = found[mask == one["label"]]
            assert (np.count_nonzero(inside) > 60) == (one["grade"] > 0)
        assert not found[mask == 0].any()
        # of the body, not of the arch
        assert np.isin(regions[found > 0], [49, 50, 101, 102]).all()


def test_subregions_are_named_and_left_is_left(phantom, spines):
    for name in phantom[1]["series"]:
        regions, affine = volume(spines[name].subregion_mask)
        mask, _ = volume(spines[name].vertebra_mask)
        assert set(np.unique(regions)) <= {0, *SUBREGIONS}
        assert not mask[regions == 100].any()
        assert (regions[mask > 0] > 0).all()

        def right_mm(number, regions=regions, affine=affine):
            return nibabel.affines.apply_affine(affine, np.argwhere(regions == number))[:, 0].mean()

        for left in (43, 45, 47):
            assert right_mm(left) < right_mm(left + 1) - 15.0
        # front to back: body, pedicles, arch, spinous process
        front = [
            nibabel.affines.apply_affine(affine, np.argwhere(regions == n))[:, 1].mean() for n in (50, 103, 41, 42)
        ]
        assert front == sorted(front, reverse=True)


def test_spongy_bone_is_softer_than_the_shell_and_poorer_in_the_frail(phantom, spines):
    spongy = {}
    for name, series in phantom[1]["series"].items():
        regions, _ = volume(spines[name].subregion_mask)
        ct, _ = volume(spines[name].image)
        assert ct.dtype == np.int16
        assert np.median(ct[regions == 101]) > np.median(ct[regions == 50]) + 40
        spongy[series["frailty"]] = np.median(ct[regions == 50])
    order = [spongy[frailty] for frailty in sorted(spongy)]
    assert order[0] > order[-1] + 30


@pytest.mark.slow
def test_same_bytes_whatever_the_workers_and_the_number_of_subjects(tmp_path):
    settings = {"seed": 3, "spacing": 3.0, "prevalence": 0.2}
    write_spines(tmp_path / "two", subjects=1, workers=2, **settings)
    first = write_subject(tmp_path / "one", 0, seed=3, spacing=3.0, prevalence=0.2)
    truth = json.loads((tmp_path / "two" / "truth.json").read_text(encoding="utf-8"))
    for path in sorted((tmp_path / "one").rglob("*.*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path
    for name, series in json.loads(json.dumps(first.truth)).items():
        assert truth["series"][name] == series


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"subjects": 0}, "one subject"),
        ({"prevalence": 0.9}, "prevalence"),
        ({"prevalence": float("nan")}, "prevalence"),
        ({"spacing": 0.1}, "0.5 to 4 mm"),
    ],
)
def test_arguments_that_make_no_phantom_are_refused(tmp_path, wrong, words):
    with pytest.raises(CohortError, match=words):
        write_spines(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(LayoutError, match="not an empty folder"):
        write_spines(tmp_path, subjects=1)


def test_labels_are_those_of_verse():
    assert LABELS["T13"] == 28
