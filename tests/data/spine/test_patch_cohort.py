"""CTs to a cohort of patches: what is cut, what is left out and said, resumed, in parallel, around broken files."""

import gzip
import json
import os
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from support.paths import DATA as DATA_ROOT

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.data.datasets.layouts import read_layout
from sightline.data.datasets.verse.centroids import place_vertebrae, read_centroids, write_centroids
from sightline.data.datasets.verse.patches import Options
from sightline.data.phantoms.spine import verse_layout as phantom
from sightline.data.spine import series_patches as spine_series
from sightline.data.spine.patch_cohort import write_patch_cohort
from sightline.data.spine.placement import read_placement
from sightline.data.spine.series_patches import Cutting
from sightline.data.spine.vertebrae import FINDINGS, LABELS, Spine, Vertebra, find_centres_from_mask
from sightline.errors import CohortError, LayoutError, SightlineError
from sightline.io.ct import read_ct
from sightline.io.nifti import read_volume, write_volume

DATA = DATA_ROOT / "spine_ct"
real = pytest.mark.skipif(not DATA.is_dir(), reason="no real CTs here")
SHAPE = (40, 50, 36)
# to the back, to the feet, to the right, as VerSe's example; 2 x 2 x 2.5 mm
AFFINE = np.array([[0, 0, 2.5, -45.0], [-2.0, 0, 0, 40.0], [0, -2.0, 0, 50.0], [0, 0, 0, 1.0]])
LEVELS = ("C7", "T1", "T12", "T13", "L1", "L6")
PATCH = Cutting(side=16, spacing_mm=1.5)


def write_series(place, seed=0):
    """A CT of bony blocks in fat and air, with masks; its centres."""
    rng = np.random.default_rng(seed)
    hu = rng.normal(-60, 40, SHAPE)
    hu[:3] = -1000
    labels, parts, findings = (np.zeros(SHAPE, np.uint8) for _ in range(3))
    vertebrae = []
    for row, level in enumerate(LEVELS):
        middle = np.array([20 + row % 2, 5 + 8 * row, 18])
        block = tuple(slice(c - 3, c + 3) for c in middle)
        hu[block] = 400 + 20 * row
        labels[block], parts[block] = LABELS[level], 49
        parts[middle[0] - 3 : middle[0] + 3, middle[1] - 3, block[2]] = 101
        parts[middle[0] - 3 : middle[0] + 3, middle[1] + 4, block[2]] = 100
        findings[middle[0] - 3, block[1], block[2]] = 1
        vertebrae.append(Vertebra(LABELS[level], tuple(float(c) for c in middle)))
    place.mkdir(parents=True, exist_ok=True)
    write_volume(place / "ct.nii.gz", hu.astype(np.int16), AFFINE)
    for name, values in (("vert", labels), ("subreg", parts), ("finding", findings)):
        write_volume(place / f"{name}.nii.gz", values, AFFINE)
    return tuple(vertebrae)


def a_spine(place, name="s1", subject="p1", grades=(0, 0, 2, 1, None, 3), masks=True, **more):
    vertebrae = write_series(place / name, seed=len(name) + sum(map(ord, name)))
    vertebrae = tuple(replace(v, grade=g) for v, g in zip(vertebrae, grades, strict=True))
    files = [place / name / f"{what}.nii.gz" for what in ("vert", "subreg", "finding")] if masks else [None] * 3
    return Spine(subject, name, place / name / "ct.nii.gz", vertebrae, *files, source="verse19", **more)


def files_of(place):
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_graded_vertebrae_from_t1_are_cases(tmp_path):
    spine = a_spine(tmp_path / "in", facts={"orientation": "PIR"})
    t13 = replace(spine.vertebrae[3], deformity="wedge", foreign=True)
    l6 = replace(spine.vertebrae[5], excluded=True)
    spine = replace(spine, vertebrae=(*spine.vertebrae[:3], t13, spine.vertebrae[4], l6))
    cohort, rejects = write_patch_cohort([spine], tmp_path / "out", cutting=PATCH)
    assert rejects == ()
    assert [case.case_id for case in cohort] == ["s1__T1", "s1__T12", "s1__T13"]
    assert cohort.classes == ("intact", "fractured")
    assert [case.label for case in cohort] == ["intact", "fractured", "fractured"]
    case = cohort[2]
    assert case.study_id == case.case_id and case.patient_id == "p1" and case.view == "rigid"
    assert case.image == tmp_path / "out" / "patches" / "s1" / "T13.nii"
    assert case.shape == (16, 16, 16) and case.spacing_mm == (1.5, 1.5, 1.5)
    expected = {"orientation": "PIR", "level": "T13", "grade": "1", "deformity": "wedge", "foreign": "yes",
                "source": "verse19", "series": "s1", "ct_spacing_mm": "2.00 2.00 2.50",
                "outside_ct": "0.00"}  # fmt: skip
    assert dict(case.facts) == expected
    assert cohort.about["counts"] == (
        "6 vertebrae of 1 series read, 5 graded; left out: 1 cervical, 1 excluded, 1 without grade, "
        "0 in rejected series; 3 cut, 2 fractured"
    )
    stricter, _ = write_patch_cohort([spine], tmp_path / "out", cutting=PATCH, positive_if=2)
    assert [case.label for case in stricter] == ["intact", "fractured", "intact"]


def test_a_patch_is_the_ct_around_the_centroid(tmp_path):
    spine = a_spine(tmp_path / "in")
    ct = read_ct(spine.image)
    cohort, _ = write_patch_cohort([spine], tmp_path / "out", cutting=PATCH)
    for case in cohort:
        patch = read_volume(case.image)
        assert patch.orientation == ("I", "P", "L") and patch.values.dtype == np.int16
        # through the file's own affine alone
        world = patch.world_of(np.moveaxis(np.indices((16, 16, 16)), 0, -1) + 0.5)
        at = np.moveaxis(ct.place_of(world) - 0.5, -1, 0)
        exact = map_coordinates(ct.values.astype(float), at, order=1, mode="grid-constant", cval=-1024)
        assert np.abs(patch.values - exact).max() <= 0.5 + 1e-3  # the affine of a file has single precision
        centre = next(v.centre for v in spine.vertebrae if v.level == case.facts["level"])
        np.testing.assert_allclose(ct.place_of(patch.world_of([8.5, 8.5, 8.5])), centre, atol=1e-4)
        # and through the record
        np.testing.assert_allclose(read_placement(case).to_ct([8.5, 8.5, 8.5]), centre, atol=1e-9)
        np.testing.assert_allclose(read_placement(case).affine, patch.affine, atol=1e-4)


def test_masks_are_regions_of_this_vertebra(tmp_path):
    spine = a_spine(tmp_path / "in")
    spine = replace(spine, vertebrae=tuple(replace(v, deformity="crush") for v in spine.vertebrae))
    cohort, _ = write_patch_cohort([spine], tmp_path / "out", cutting=PATCH)
    case = {case.facts["level"]: case for case in cohort}["T12"]
    found = {(region.tag.role, region.tag.label, region.tag.name): region for region in case.regions}
    assert set(found) == {
        ("focus", None, "vertebra"),
        ("organ", None, "body border"),
        ("organ", None, "superior endplate"),
        ("organ", None, "disc"),
        ("finding", "fractured", "crush"),
        ("finding", "fractured", "depressed superior endplate"),
    }
    bone = found["focus", None, "vertebra"].pixels()
    assert bone[8, 8, 8] and 0.3 < bone.sum() / (6**3 * 2 * 2 * 2.5 / 1.5**3) < 1.2
    # the neighbours' labels stay in the file, their sub-regions do not
    assert set(np.unique(read_volume(found["focus", None, "vertebra"].source, labels=True).values)) >= {0, 19}
    for key, region in found.items():
        assert region.pixels().any()
        if key[2] not in ("vertebra", "disc"):
            assert not (region.pixels() & ~bone).any()
    assert (found["organ", None, "disc"].pixels() & ~bone).any()
    # an intact vertebra has no finding
    intact = {case.facts["level"]: case for case in cohort}["T1"]
    assert "finding" not in {region.tag.role for region in intact.regions}


def test_without_masks_and_with_other_names_of_findings(tmp_path):
    cohort, _ = write_patch_cohort([a_spine(tmp_path / "in", masks=False)], tmp_path / "out", cutting=PATCH)
    assert all(case.regions == () for case in cohort) and not (tmp_path / "out" / "masks").exists()
    assert phantom.FINDINGS == FINDINGS


def test_a_centre_in_the_wrong_vertebra_is_said(tmp_path):
    spine = a_spine(tmp_path / "in")
    moved = tuple(replace(v, label=LABELS["T11"]) if v.level == "T12" else v for v in spine.vertebrae)
    cohort, _ = write_patch_cohort([replace(spine, vertebrae=moved)], tmp_path / "out", cutting=PATCH)
    assert cohort.about["warning centres"].startswith("1 centre lies in another vertebra's mask, e.g. s1 T11")


def test_our_layout_gives_the_cohort_back(tmp_path):
    cohort, _ = write_patch_cohort([a_spine(tmp_path / "in")], tmp_path / "out", cutting=PATCH)
    write_cohort(cohort, tmp_path / "out")
    again = read_cohort(tmp_path / "out")
    # the name of a mark is part of the record, if not of a tag's text
    assert replace(again, root=cohort.root) == cohort
    assert [r.tag.name for c in again for r in c.regions] == [r.tag.name for c in cohort for r in c.regions]
    assert read_placement(again[0]).at_mm == read_placement(cohort[0]).at_mm
    # and is written over when more is cut
    more, _ = write_patch_cohort(
        [a_spine(tmp_path / "in"), a_spine(tmp_path / "in", "s2", "p2")], tmp_path / "out", cutting=PATCH
    )
    write_cohort(more, tmp_path / "out")
    assert len(read_cohort(tmp_path / "out")) == 2 * len(cohort)


def test_a_finished_series_is_not_cut_again(tmp_path, monkeypatch):
    spines = [a_spine(tmp_path / "in", name, name) for name in ("s1", "s2")]
    first, _ = write_patch_cohort(spines, tmp_path / "out", cutting=PATCH)
    before = files_of(tmp_path / "out")
    done = []
    really = spine_series.sample_hu
    monkeypatch.setattr(spine_series, "sample_hu", lambda ct, p, **k: done.append(1) or really(ct, p, **k))
    again, _ = write_patch_cohort(spines, tmp_path / "out", cutting=PATCH)
    assert again == first and not done
    # grades and splits are read afresh without cutting
    regraded = replace(spines[0], vertebrae=tuple(replace(v, grade=v.grade and 3) for v in spines[0].vertebrae))
    assert [c.facts["grade"] for c in write_patch_cohort([regraded], tmp_path / "out", cutting=PATCH)[0]] == [
        "0",
        "3",
        "3",
        "3",
    ]
    assert not done
    # what is missing, of other settings, another centre or another file is cut again
    (tmp_path / "out" / "patches" / "s2" / "L6.nii").unlink()
    write_patch_cohort(spines, tmp_path / "out", cutting=PATCH)
    assert len(done) == 4 and files_of(tmp_path / "out") == before
    write_patch_cohort(spines, tmp_path / "out", cutting=replace(PATCH, mode="straightened"))
    assert len(done) == 12
    back, _ = write_patch_cohort(spines, tmp_path / "out", cutting=PATCH)
    assert len(done) == 20 and back == first and files_of(tmp_path / "out") == before
    shifted = replace(spines[0], vertebrae=(replace(spines[0].vertebrae[0], centre=(21.0, 5.0, 18.0)),
                                            *spines[0].vertebrae[1:]))  # fmt: skip
    write_patch_cohort([shifted], tmp_path / "out", cutting=PATCH)  # a cervical centre bends the curve too
    assert len(done) == 24
    os.utime(spines[0].image, ns=(0, 0))
    write_patch_cohort([shifted], tmp_path / "out", cutting=PATCH)
    assert len(done) == 28


def test_a_death_half_way_leaves_no_half_series(tmp_path, monkeypatch):
    spines = [a_spine(tmp_path / "in", name, name) for name in ("s1", "s2")]
    out = tmp_path / "out"
    really, count = spine_series.sample_hu, []

    def dies(ct, placement, **more):
        count.append(1)
        if len(count) == 6:
            raise KeyboardInterrupt
        return really(ct, placement, **more)

    monkeypatch.setattr(spine_series, "sample_hu", dies)
    with pytest.raises(KeyboardInterrupt):
        write_patch_cohort(spines, out, cutting=PATCH)
    assert sorted(p.name for p in (out / "spines").iterdir()) == ["s1.json"]
    assert not (out / "patches" / "s2").exists() and not (out / "masks" / "s2").exists()
    # a power cut leaves what no handler removes
    (out / ".cutting" / "s2" / "patches").mkdir(parents=True)
    (out / "patches" / "s2").mkdir()
    (out / "patches" / "s2" / "L6.nii").write_bytes(b"half")
    cohort, _ = write_patch_cohort(spines, out, cutting=PATCH)
    assert len(cohort) == 8 and len(count) == 6 + 4
    assert read_volume(out / "patches" / "s2" / "L6.nii").values.shape == (16, 16, 16)
    assert not (out / ".cutting").exists()
    write_cohort(cohort, out)


@pytest.mark.slow
def test_processes_give_the_same_files(tmp_path):
    spines = [a_spine(tmp_path / "in", name, name) for name in ("s1", "s2")]
    broken = replace(spines[0], series="s3", image=tmp_path / "in" / "s1" / "vert.nii.gz")
    seen = []

    def bar(title, total):
        from contextlib import nullcontext

        seen.append((title, total))
        return nullcontext(lambda steps=1, note="": seen.append(steps))

    alone, rejects_alone = write_patch_cohort([*spines, broken], tmp_path / "a", cutting=PATCH)
    shared, rejects = write_patch_cohort([*spines, broken], tmp_path / "b", cutting=PATCH, workers=2, progress=bar)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert [c.case_id for c in alone] == [c.case_id for c in shared] and rejects == rejects_alone and len(rejects) == 1
    assert seen == [("cutting series", 3), 1, 1, 1]


def test_splits_are_published_or_made_by_patient(tmp_path):
    spines = [a_spine(tmp_path / "in", f"s{n}", f"p{n // 2}") for n in range(6)]
    own, _ = write_patch_cohort(spines, tmp_path / "out", cutting=PATCH, fractions=(0.4, 0.3, 0.3))
    assert {case.split for case in own} == {"train", "val", "test"}
    assert len({(case.patient_id, case.split) for case in own}) == 3
    published = [replace(s, split=("train", "val", "test")[n // 2]) for n, s in enumerate(spines)]
    cohort, _ = write_patch_cohort(published, tmp_path / "out", cutting=PATCH)
    assert [case.split for case in cohort] == [s for s in ("train", "val", "test") for _ in range(8)]
    assert cohort.about["split"] == "as published"
    with pytest.raises(CohortError, match="more than one split"):
        write_patch_cohort([replace(published[0], split="test"), *published[1:]], tmp_path / "out", cutting=PATCH)
    partly, _ = write_patch_cohort([replace(published[0], split=None), *published[1:]], tmp_path / "out", cutting=PATCH)
    assert "20 of 24 vertebrae had a published split" in partly.about["warning splits"]
    assert len({(case.patient_id, case.split) for case in partly}) == 3
    few, _ = write_patch_cohort(spines[:2], tmp_path / "out", cutting=PATCH)
    assert {case.split for case in few} == {None} and "too few" in few.about["warning patients"]


def test_what_cannot_be_cut_at_all_is_refused(tmp_path):
    spine = a_spine(tmp_path / "in")
    ungraded = replace(spine, vertebrae=tuple(replace(v, grade=None) for v in spine.vertebrae))
    with pytest.raises(CohortError, match=r"None of the 6 vertebrae of 1 series has a grade.*--gradings"):
        write_patch_cohort([ungraded], tmp_path / "out", cutting=PATCH)
    with pytest.raises(CohortError, match="grade 1, 2 or 3"):
        write_patch_cohort([spine], tmp_path / "out", cutting=PATCH, positive_if=0)
    with pytest.raises(LayoutError, match="called 's1'"):
        write_patch_cohort([spine, replace(spine, series="S1")], tmp_path / "out", cutting=PATCH)
    assert not (tmp_path / "out").exists()
    cohort, rejects = write_patch_cohort(
        [replace(spine, image=tmp_path / "gone.nii.gz")], tmp_path / "out", cutting=PATCH
    )
    assert len(cohort) == 0 and "does not exist" in rejects[0].reason
    assert "4 in rejected series" in cohort.about["counts"]


# -- the layout ------------------------------------------------------------------------------------------------------


def write_verse(place, names):
    rows = ["subject,label,grade"]
    for name in names:
        scratch = place.parent / "scratch" / name
        vertebrae = write_series(scratch, seed=len(rows))
        raw, derived = place / "rawdata" / f"sub-{name}", place / "derivatives" / f"sub-{name}"
        for folder_ in (raw, derived):
            folder_.mkdir(parents=True)
        (scratch / "ct.nii.gz").rename(raw / f"sub-{name}_ct.nii.gz")
        (scratch / "vert.nii.gz").rename(derived / f"sub-{name}_seg-vert_msk.nii.gz")
        write_centroids(derived / f"sub-{name}_seg-subreg_ctd.json", vertebrae, ("P", "I", "R"))
        rows += [f"{name},{level},{int(level in ('T12', 'L6'))}" for level in LEVELS if level != "C7"]
    (place / "fractures.csv").write_text("\n".join(rows) + "\n")


def spoil(path, how):
    image = nibabel.load(path)
    values, affine = np.asarray(image.dataobj), image.affine
    if how == "4D":
        nibabel.save(nibabel.Nifti1Image(np.stack([values] * 2, -1), affine), path)
    elif how == "truncated":
        whole = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(whole[: len(whole) // 2]))
    else:
        nibabel.save(nibabel.Nifti1Image(values, affine @ np.diag([1e-4, 1, 1, 1]) if how == "spacing" else None), path)


def test_broken_series_are_listed_and_the_rest_goes_on(tmp_path):
    from sightline.cli.cohorts import run_import

    names = [f"verse{n}" for n in range(601, 609)]
    write_verse(tmp_path / "verse", names)
    ct = {name: tmp_path / "verse" / "rawdata" / f"sub-{name}" / f"sub-{name}_ct.nii.gz" for name in names}
    for name, how in zip(names, ("4D", "truncated", "spacing", "orientation"), strict=False):
        spoil(ct[name], how)
    (tmp_path / "verse" / "derivatives" / "sub-verse605" / "sub-verse605_seg-subreg_ctd.json").unlink()
    assert run_import("verse", tmp_path / "verse", tmp_path / "out", Options(fractions=(0.4, 0.3, 0.3))) == 0
    cohort = read_cohort(tmp_path / "out")
    assert {case.facts["series"] for case in cohort} == set(names[5:])
    assert cohort.counts() == {"intact": 9, "fractured": 6} and cohort.name == "verse"
    assert cohort[0].shape == (96, 96, 96)
    rejects = (tmp_path / "out" / "rejects.csv").read_text()
    said = {
        "verse601": "4D data of shape", "verse602": "truncated", "verse603": "spacing", "verse604": "orientation",
        "verse605": "no centroid file",
    }  # fmt: skip
    for name, words in said.items():
        line = next(line for line in rejects.splitlines() if f"sub-{name}" in line)
        assert words in line, line


def test_options_of_the_layout(tmp_path):
    write_verse(tmp_path / "verse", ["verse601"])
    with pytest.raises(LayoutError, match="needs a destination"):
        read_layout("verse", tmp_path / "verse")
    with pytest.raises(LayoutError, match="were given for the layout folder"):
        read_layout("folder", tmp_path / "verse", Options(positive_if=2))
    (tmp_path / "map.json").write_text(json.dumps({"grade": "fx"}))
    table = (tmp_path / "verse" / "fractures.csv").read_text().replace("grade", "fx")
    (tmp_path / "verse" / "fractures.csv").unlink()
    (tmp_path / "other.csv").write_text(table)
    plain = Options(gradings=tmp_path / "other.csv")
    with pytest.raises(SightlineError, match="lacks the columns"):
        read_layout("verse", tmp_path / "verse", plain, tmp_path / "out")
    chosen = replace(plain, columns=tmp_path / "map.json", mode="straightened")
    cohort, _ = read_layout("verse", tmp_path / "verse", chosen, tmp_path / "out")
    assert len(cohort) == 5 and {case.view for case in cohort} == {"straightened"}
    (tmp_path / "map.json").write_text("[1]")
    with pytest.raises(LayoutError, match="a map of fields"):
        read_layout("verse", tmp_path / "verse", chosen, tmp_path / "out")


# -- real data -------------------------------------------------------------------------------------------------------


@real
def test_a_real_ct_with_its_masks(tmp_path):
    files = DATA / "tptbox"
    ct = read_ct(files / "sub-ct_label-22_ct.nii.gz")
    mask = files / "sub-ct_seg-vert_label-22_msk.nii.gz"
    vertebrae, _ = find_centres_from_mask(read_volume(mask, labels=True), ct, "mask")
    spine = Spine("a", "a", files / "sub-ct_label-22_ct.nii.gz", tuple(replace(v, grade=0) for v in vertebrae),
                  mask, files / "sub-ct_seg-subreg_label-22_msk.nii.gz")  # fmt: skip
    cohort, rejects = write_patch_cohort([spine], tmp_path, cutting=Cutting(side=64))
    assert rejects == () and [case.facts["level"] for case in cohort] == ["L2", "L3", "L4"]
    case = cohort[1]
    regions = {region.tag.name: region.pixels() for region in case.regions}
    centroid = {name: np.argwhere(pixels).mean(axis=0) for name, pixels in regions.items()}
    # IPL: the arch lies behind the body, the left process to the left, the upper joints above the lower ones
    assert centroid["arch"][1] > centroid["body"][1] + 10
    assert centroid["left transverse process"][2] > centroid["right transverse process"][2] + 20
    assert centroid["left superior articular process"][0] < centroid["left inferior articular process"][0] - 10
    hu = read_volume(case.image).values
    assert hu[regions["body border"]].mean() > hu[regions["body"]].mean() > -50
    assert regions["body"][32, 32, 32]


@real
def test_real_centroids_lie_in_the_middle_of_their_patch(tmp_path):
    mask = read_volume(DATA / "verse" / "sub-verse004_seg-vert_msk.nii.gz", labels=True)
    centroids = read_centroids(DATA / "verse" / "sub-verse004_seg-subreg_ctd.json")
    vertebrae = place_vertebrae(centroids, mask.values.shape, mask.orientation, mask.spacing_mm)
    # the CT itself is not here: one is drawn from its mask
    hu = np.where(mask.values > 0, 300, -80).astype(np.int16)
    hu[:2] = -1000
    write_volume(tmp_path / "ct.nii.gz", hu, mask.affine)
    spine = Spine("verse004", "verse004", tmp_path / "ct.nii.gz", tuple(replace(v, grade=0) for v in vertebrae),
                  DATA / "verse" / "sub-verse004_seg-vert_msk.nii.gz")  # fmt: skip
    cohort, rejects = write_patch_cohort([spine], tmp_path / "out", cutting=Cutting(side=48))
    assert rejects == () and len(cohort) == 9 and "warning centres" not in cohort.about
    for case in cohort:
        (bone,) = (region.pixels() for region in case.regions)
        assert bone[24, 24, 24]
        # a body: about as far to the left as to the right, and upper and lower plate along axis 0
        row = np.flatnonzero(bone[24, 24])
        assert abs(row.mean() - 24) < 4
        column = np.flatnonzero(bone[:, 24, 24])
        assert abs(column.mean() - 24) < 3 and 6 < np.ptp(column) < 36  # L1 is crushed
