"""COCO detection data: labels by rule, boxes, polygons and run-length masks."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from sightline.data.datasets import coco
from sightline.data.datasets.coco import decode
from sightline.errors import LayoutError
from sightline.structures.regions import Box, Mask, Polygon
from sightline.structures.tag import Tag


def runs_of(mask: np.ndarray) -> list[int]:
    """Run lengths in column order, one pixel at a time."""
    runs, value = [0], 0
    for pixel in mask.T.reshape(-1):
        if int(pixel) != value:
            runs.append(0)
            value = int(pixel)
        runs[-1] += 1
    return runs


def compress(runs: list[int]) -> str:
    """The text form, written from its description: differences from the fourth run on, five bits a character."""
    text = ""
    for i, run in enumerate(runs):
        x = run - runs[i - 2] if i > 2 else run
        while True:
            low, x = x & 31, x >> 5
            done = (x == -1 and low & 16) or (x == 0 and not low & 16)
            text += chr(48 + (low if done else low | 32))
            if done:
                break
    return text


@given(arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))))
@settings(max_examples=60, deadline=None)
def test_run_lengths_come_back_as_the_mask(mask):
    runs, size = runs_of(mask), list(mask.shape)
    assert np.array_equal(decode({"size": size, "counts": runs}), mask)
    assert np.array_equal(decode({"size": size, "counts": compress(runs)}), mask)


def test_long_runs_and_negative_differences():
    mask = np.zeros((300, 200), bool)
    mask[10:250, 20:180] = True
    assert np.array_equal(decode({"size": [300, 200], "counts": compress(runs_of(mask))}), mask)


def test_a_known_text():
    # 2 x 3: runs 1, 2, 3 are the characters '1', '2', '3'; column order
    expected = np.array([[0, 1, 0], [1, 0, 0]], bool)
    assert np.array_equal(decode({"size": [2, 3], "counts": "123"}), expected)


@pytest.mark.parametrize("counts", [[1, 2], [7, -1], "12", "1P", "\x7f", []])
def test_runs_that_do_not_fit_are_refused(counts):
    with pytest.raises(ValueError, match="run lengths"):
        decode({"size": [2, 3], "counts": counts})


def write_tiny(root: Path) -> dict:
    """Six images: 1 box and polygon of a nodule, 2 a run-length mask of a cyst, the others normal."""
    (root / "images" / "sub").mkdir(parents=True)
    names = ["1.png", "sub/2.png", "3.png", "4.png", "5.png", "6.png"]
    for name in names:
        Image.fromarray(np.zeros((8, 6), np.uint8)).save(root / "images" / name)
    mask = {"size": [8, 6], "counts": [8, 8, 32]}
    document = {
        "images": [{"id": i, "file_name": n, "width": 6, "height": 8} for i, n in enumerate(names, start=1)],
        "categories": [{"id": 3, "name": "nodule"}, {"id": 7, "name": "cyst"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2.5, 3, 4], "segmentation": [[1, 2, 3, 2, 3, 6]]},
            {"id": 2, "image_id": 2, "category_id": 7, "bbox": [1, 0, 1, 8], "segmentation": mask, "iscrowd": 1},
        ],
    }
    (root / "labels.json").write_text(json.dumps(document))
    (root / "groups.csv").write_text("file_name,patient\n" + "".join(f"{n},{i // 2}\n" for i, n in enumerate(names)))
    return document


def test_a_tiny_data_set(tmp_path):
    write_tiny(tmp_path)
    cohort = coco.read(tmp_path)
    assert cohort.classes == ("normal", "nodule", "cyst")
    assert [case.label for case in cohort] == ["nodule", "cyst", *["normal"] * 4]
    nodule = Tag("finding", "nodule")
    assert cohort[0].regions == (
        Box((2.5, 1.0), (6.5, 4.0), nodule),
        Polygon((((2.0, 1.0), (2.0, 3.0), (6.0, 3.0)),), nodule),
    )
    column = np.zeros((8, 6), bool)
    column[:, 1] = True
    # a crowd is neither found nor missed; its image still shows what it is of
    assert cohort[1].regions == (Mask(column, Tag("ignore", "cyst")),)
    assert cohort[1].case_id == "sub/2" and cohort[1].shape == (8, 6)
    assert cohort[0].patient_id == cohort[1].patient_id != cohort[2].patient_id
    assert {case.split for case in cohort} == {"train", "val", "test"}
    (tmp_path / "groups.csv").unlink()
    assert coco.read(tmp_path).about["patients"].startswith("WARNING")


def test_images_of_several_categories_need_a_priority(tmp_path):
    document = write_tiny(tmp_path)
    document["annotations"].append({"id": 3, "image_id": 1, "category_id": 7, "bbox": [1, 1, 1, 1]})
    (tmp_path / "labels.json").write_text(json.dumps(document))
    with pytest.raises(LayoutError, match=r"1 image shows several categories, e\.g\. \['1\.png'\]"):
        coco.read(tmp_path)
    assert coco.read(tmp_path, coco.Options(priority=["cyst", "nodule"]))[0].label == "cyst"
    assert coco.read(tmp_path, coco.Options(priority=["nodule", "cyst"]))[0].label == "nodule"
    with pytest.raises(LayoutError, match=r"leaves out the categories \['cyst'\]"):
        coco.read(tmp_path, coco.Options(priority=["nodule"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["images"][0].update(file_name="../1.png"), "not a file under"),
        (lambda d: d["images"][0].update(file_name="9.png"), "not a file under|does not name"),
        (lambda d: d["images"][1].update(id=1), "repeats the id 1"),
        (lambda d: d["images"][0].update(width="6"), "image 0 .*'width'"),
        (lambda d: d["images"][0].update(width=0), "has no size"),
        (lambda d: d["annotations"][0].update(image_id=99), "annotation 0 .* image 99"),
        (lambda d: d["annotations"][0].update(category_id=99), "annotation 1 of image .*category_id 99.*known: "),
        (lambda d: d["annotations"][0].update(bbox=[1, 2, 0, 4]), "annotation 1 is no region: A box needs"),
        (lambda d: d["annotations"][0].update(bbox=[1, 2, 3]), r"annotation 1 .*bbox is \[1, 2, 3\], expected four"),
        (lambda d: d["annotations"][0].update(bbox={"x": 1, "y": 2, "w": 3, "h": 4}), "annotation 1 .*expected four"),
        (lambda d: d["annotations"][0].update(bbox=[True, 2, 3, 4]), "annotation 1 is no region: True is no number"),
        (lambda d: d["annotations"][0].update(bbox=["1_0", 2, 3, 4]), "annotation 1 is no region: '1_0' is no number"),
        (lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3, False, 5, 6]]), "annotation 1 .*False is no"),
        (lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3, 4]]), "annotation 1 is no region: A polygon"),
        (lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3]]), "annotation 1 .*pairs"),
        (lambda d: d["annotations"][1]["segmentation"].update(counts=[1]), "annotation 2 .*run lengths"),
        (lambda d: d["categories"][0].update(name="normal"), "'normal' is a category"),
        (lambda d: d["categories"].append({"id": 77, "name": f" {d['categories'][0]['name']}"}), "77 are both called"),
        (lambda d: d.pop("categories"), "no list 'categories'"),
        (lambda d: d["annotations"].append(d["annotations"][0]), "annotations 0 and .* have the same id 1"),
        (lambda d: d["annotations"][0].update(iscrowd="1"), "annotation 1: iscrowd is '1'"),
        (lambda d: d["annotations"][0].update(segmentation=[1, 2, 3, 4]), "annotation 1 .*a list of rings"),
        (lambda d: d["categories"][0].update(name=" \u200b"), "category .* has an empty name"),
        (lambda d: d["categories"].append({"id": 78, "name": "n\u200bodule"}), "78 are both called"),
        (lambda d: d["images"][1].update(file_name="./" + d["images"][0]["file_name"]), "are one file"),
    ],
)
def test_documents_that_are_wrong_are_refused(tmp_path, change, message):
    document = write_tiny(tmp_path)
    change(document)
    (tmp_path / "labels.json").write_text(json.dumps(document))
    (tmp_path / "groups.csv").unlink()
    with pytest.raises(LayoutError, match=message):
        coco.read(tmp_path)


def test_the_document_must_be_clear(tmp_path):
    write_tiny(tmp_path)
    (tmp_path / "more.json").write_text("{}")
    with pytest.raises(LayoutError, match="2 JSON documents"):
        coco.read(tmp_path)
    with pytest.raises(LayoutError, match=r"labels\.json is a file.*Give the folder, and the file by --annotations"):
        coco.read(tmp_path / "labels.json")
    assert len(coco.read(tmp_path, coco.Options(annotations=tmp_path / "labels.json"))) == 6


class TestNamesAndGroups:
    """File names with dots and colons, categories that share an id, tables whose columns are no patients."""

    def make(self, root, names, **more):
        (root / "images").mkdir(parents=True)
        for name in names:
            Image.fromarray(np.zeros((8, 6), np.uint8)).save(root / "images" / name, format="PNG")
        document = {
            "images": [{"id": i, "file_name": n, "width": 6, "height": 8} for i, n in enumerate(names)],
            "categories": [{"id": 1, "name": "nodule"}],
            "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4]}],
            **more,
        }
        (root / "a.json").write_text(json.dumps(document))
        return root

    def test_names_are_whole_and_found(self, tmp_path):
        names = ["1.2.840.1", "1.2.840.2", "1.2.840.1.png", "12:30:01.png", "Mu\u0308ller.png"]
        root = self.make(tmp_path, names)
        # the document says the same letters in another form
        text = (root / "a.json").read_text().replace("Mu\\u0308ller", "M\\u00fcller")
        (root / "a.json").write_text(text)
        cohort = coco.read(root, coco.Options(fractions=None))
        found = [case.case_id for case in cohort]
        assert found == ["1.2.840.1", "1.2.840.2", "1.2.840.1.png", "12:30:01", "M\u00fcller"]
        assert all(case.image.is_file() for case in cohort)

    def test_categories_of_one_id_are_refused(self, tmp_path):
        root = self.make(tmp_path, ["a.png"], categories=[{"id": 1, "name": "nodule"}, {"id": 1, "name": "cyst"}])
        with pytest.raises(LayoutError, match="have the same id 1"):
            coco.read(root)

    def test_the_remedy_names_an_option_that_exists(self, tmp_path):
        root = self.make(tmp_path, ["a.png"])
        (root / "b.json").write_text("{}")
        with pytest.raises(LayoutError) as error:
            coco.read(root)
        assert "--annotations" in error.value.remedy
        assert "annotations" in coco.Options.__dataclass_fields__

    def test_only_columns_of_groups_join(self, tmp_path):
        names = [f"{i}.png" for i in range(6)]
        root = self.make(tmp_path, names)
        rows = [f"{name},P{i},{'FM'[i % 2]}" for i, name in enumerate(names)]
        (root / "groups.csv").write_text("\n".join(["file_name,patient_id,sex", *rows]))
        assert len({case.patient_id for case in coco.read(root)}) == 6
        by_sex = coco.read(root, coco.Options(group_by=("sex",), fractions=None))
        assert len({case.patient_id for case in by_sex}) == 2
        (root / "groups.csv").write_text("\n".join(["file_name,sex", *(f"{name},F" for name in names)]))
        with pytest.raises(LayoutError, match="no column that is known") as error:
            coco.read(root)
        assert "--group-by" in error.value.remedy

    def test_columns_and_names_of_groups_are_known_however_they_are_written(self, tmp_path):
        root = self.make(tmp_path, [f"\u00fc{i}.png" for i in range(6)])
        # a column of studies alone would let patients leak
        rows = [f".\\u\u0308{i}.png,P{i // 3},S{i}" for i in range(6)]
        (root / "groups.csv").write_text("\n".join(["file_name,Patient ID,study_id", *rows]), encoding="utf-8")
        patients = [case.patient_id for case in coco.read(root, coco.Options(fractions=None))]
        assert len(set(patients)) == 2 and patients[0] == patients[2] != patients[3]

    def test_what_stands_for_an_empty_cell_joins_no_strangers(self, tmp_path):
        names = [f"{i}.png" for i in range(8)]
        root = self.make(tmp_path, names)
        for empty in ("", "nan", "NaN", "None", "#N/A"):
            rows = [f"{name},{'P1' if i < 2 else empty}" for i, name in enumerate(names)]
            (root / "groups.csv").write_text("\n".join(["file_name,patient", *rows]))
            assert len({case.patient_id for case in coco.read(root)}) == 7, empty


def test_marks_of_pictures_in_another_size_than_stated(tmp_path):
    """EXIF turns the first by a quarter: its marks are of the picture upright, on its side, or nobody knows."""
    document = write_tiny(tmp_path)
    (tmp_path / "groups.csv").unlink()
    image, mark = tmp_path / "images" / "1.png", document["annotations"][0]
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(np.zeros((8, 6), np.uint8)).save(image, exif=exif)  # shown 8 x 6

    def read(**changes):
        mark.update(changes)
        (tmp_path / "labels.json").write_text(json.dumps(document))
        return coco.read(tmp_path)

    with pytest.raises(LayoutError, match=r"1 marked picture is stated in.*'1\.png' \(stated 6 x 8, shown 8 x 6\)"):
        read()
    del mark["segmentation"]
    with pytest.raises(LayoutError, match="before it is turned upright"):
        read(bbox=[1, 2, 3, 5.9])
    upright = read(bbox=[5, 1, 3, 4])
    assert upright[0].shape == (6, 8) and upright.about["stored on their side"].startswith("1.png: ")
    document["annotations"].pop(0)
    bare = read()
    assert bare[0].shape == (6, 8) and "1.png" in bare.about["sizes"] and "sizes" not in upright.about
    document["annotations"].append(mark)
    Image.fromarray(np.zeros((4, 3), np.uint8)).save(image)
    with pytest.raises(LayoutError, match=r"1 marked picture is not of the size that is stated: '1\.png'"):
        read()


def test_pictures_that_the_document_does_not_list_are_counted_and_named(tmp_path):
    document = write_tiny(tmp_path)
    assert "warning" not in coco.read(tmp_path).about
    document["images"] = [image for image in document["images"] if image["id"] < 3]
    (tmp_path / "labels.json").write_text(json.dumps(document))
    (tmp_path / "groups.csv").write_text("file_name,patient\n1.png,a\nsub/2.png,b\n")
    cohort = coco.read(tmp_path, coco.Options(fractions=None))
    assert len(cohort) == 2
    warning = cohort.about["warning"]
    assert warning.startswith("4 pictures are not listed") and warning.endswith(": 3.png, 4.png, 5.png, 6.png")
