"""Our own layout: what is written reads back equal; bad tables are refused by file, row and column."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.data.datasets.folder import writer
from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.errors import CohortError, LayoutError
from sightline.io.files import AGAIN
from sightline.structures.case import Case, Cohort
from sightline.structures.regions import Box, Mask, Polygon, Scribble
from sightline.structures.tag import Tag


def picture(path: Path, shape=(12, 9), value=100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, np.uint8)).save(path)
    return path


def rich_cohort(root: Path) -> Cohort:
    """Every field of the nouns used at least once, with values that are awkward in text files."""
    pixels = np.zeros((12, 9), bool)
    pixels[3:5, 2] = True
    finding = Tag("finding", "fracture", 'Dr. "O", 2nd\nreader')
    marks = (
        Box((0.1 + 0.2, 1.0), (5.0, 1e-17 + 3.3), finding),
        Mask(pixels),
        Polygon((((0.1, 0.2), (1 / 3, 4.0), (5.0, 2.0)), ((7.0, 7.0), (8.0, 7.0), (8.0, 8.5)))),
        Mask(~pixels, Tag("focus", "fracture")),
        Mask(pixels, Tag("focus", "fracture", "b")),
        Scribble((((1.5, 2.5),), ((2.0, 2.0), (3.0, 7 / 3))), 3.5, Tag("focus", None, "a")),
        Box((1.0, 2.0, 3.0), (2.0, 3.0, 4.0)),
    )
    facts = {"hardware": "1", "device": "a,b\r\nc", "note\n2": ' " '}
    a = Case(
        "a/1",
        "s1",
        "p1",
        picture(root / "one" / "IM1.png"),
        "fracture",
        marks,
        "train",
        "PA",
        (12, 9),
        (0.1, 1 / 7),
        facts,
    )
    b = Case("a/2", "s1", "p1", picture(root / "two" / "IM1.png", value=7), "fracture", (), "train", "lateral")
    c = Case("ü 3", "s2", "p1", picture(root / "IM3.png"), "no fracture", split=None, facts={"device": "x"})
    return Cohort("rich", ("no fracture", "fracture"), (a, b, c), root, {"layout": "test", "licence": "CC0\nline"})


def moved(cohort: Cohort, root: Path, like: Cohort) -> Cohort:
    """The cohort with the picture paths and root of another: what remains must be equal."""
    cases = tuple(replace(c, image=other.image) for c, other in zip(cohort, like, strict=True))
    return replace(cohort, cases=cases, root=root)


def test_what_is_written_reads_back_equal(tmp_path):
    cohort = rich_cohort(tmp_path / "source")
    write_cohort(cohort, tmp_path / "out")
    back = read_cohort(tmp_path / "out")
    assert moved(cohort, tmp_path / "out", back) == back
    for before, after in zip(cohort, back, strict=True):
        assert after.image.is_relative_to(tmp_path / "out")
        assert before.image.read_bytes() == after.image.read_bytes()
        assert before.image.name == after.image.name
    assert len({case.image for case in back}) == 3
    # from here on every path lies inside: reading and writing changes nothing at all
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    write_cohort(back, tmp_path / "out")
    again = read_cohort(tmp_path / "out")
    assert again == back and again.fingerprint() == back.fingerprint()
    assert before == {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    write_cohort(back, tmp_path / "copy")
    copied = read_cohort(tmp_path / "copy")
    assert copied.fingerprint() == back.fingerprint()
    assert moved(back, tmp_path / "copy", copied) == copied


def test_views_of_a_study_may_differ_in_label_and_split(tmp_path):
    cohort = rich_cohort(tmp_path)
    cases = (cohort[0], replace(cohort[1], label="no fracture", split=None), cohort[2])
    cohort = replace(cohort, cases=cases)
    write_cohort(cohort, tmp_path / "out")
    back = read_cohort(tmp_path / "out")
    assert [c.label for c in back] == ["fracture", "no fracture", "no fracture"]
    assert [c.split for c in back] == ["train", None, None]


def test_pictures_may_already_lie_in_the_destination(tmp_path):
    cohort = Cohort("p", ("a",), (Case("1", "s", "p", picture(tmp_path / "images" / "1.png"), "a"),))
    write_cohort(cohort, tmp_path, copy_images=False)
    assert read_cohort(tmp_path)[0] == cohort[0]
    outside = Cohort("q", ("a",), (Case("1", "s", "p", picture(tmp_path / "images" / "1.png"), "a"),))
    with pytest.raises(LayoutError, match="does not lie under"):
        write_cohort(outside, tmp_path / "elsewhere", copy_images=False)
    assert not (tmp_path / "elsewhere").exists()


def test_a_foreign_folder_is_left_alone(tmp_path):
    cohort = rich_cohort(tmp_path / "source")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years")
    with pytest.raises(LayoutError, match=r"thesis\.txt"):
        write_cohort(cohort, tmp_path / "home")
    write_cohort(cohort, tmp_path / "out")
    with pytest.raises(LayoutError, match=r"already holds another cohort 'rich' \(3 images\)"):
        write_cohort(replace(cohort, name="other"), tmp_path / "out")
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["thesis.txt"]
    with pytest.raises(LayoutError, match="another cohort 'rich'"):  # one of the same name from elsewhere
        write_cohort(rich_cohort(tmp_path / "elsewhere"), tmp_path / "out")
    (tmp_path / "out" / "written.json").unlink()
    with pytest.raises(LayoutError, match="no record says what wrote it"):
        write_cohort(cohort, tmp_path / "out")


def test_what_a_cohort_no_longer_names_is_removed(tmp_path):
    cohort = rich_cohort(tmp_path / "source")
    write_cohort(cohort, tmp_path / "out")
    mine = picture(tmp_path / "out" / "images" / "mine.png")
    masks = tmp_path / "out" / "regions" / "mask"
    assert len(list(masks.iterdir())) == 3
    write_cohort(replace(cohort, cases=cohort.cases[1:]), tmp_path / "out")
    left = {case.image for case in read_cohort(tmp_path / "out")} | {mine}
    assert {path for path in (tmp_path / "out" / "images").rglob("*") if path.is_file()} == left
    assert list(masks.iterdir()) == [] and len(left) == 3


def test_a_missing_picture_is_refused_before_anything_is_written(tmp_path):
    cohort = rich_cohort(tmp_path / "source")
    cohort[2].image.unlink()
    with pytest.raises(LayoutError, match="ü 3"):
        write_cohort(cohort, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_writer_that_dies_leaves_the_old_cohort_and_can_be_started_again(tmp_path, monkeypatch):
    cohort = rich_cohort(tmp_path / "source")
    write_cohort(cohort, tmp_path / "out")
    old = read_cohort(tmp_path / "out")
    shorter = replace(cohort, cases=cohort.cases[:2])
    rename = Path.replace
    for allowed in range(3):
        done = []

        def dies(self, target, done=done, allowed=allowed):
            if self.name.endswith(".new") and not self.name.startswith("."):
                if len(done) == allowed:
                    raise KeyboardInterrupt
                done.append(target)
            return rename(self, target)

        monkeypatch.setattr(Path, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            write_cohort(shorter, tmp_path / "out")
        monkeypatch.undo()
        assert read_cohort(tmp_path / "out").fingerprint() == old.fingerprint()
        assert not [entry for entry in (tmp_path / "out").iterdir() if entry.name.startswith(".")]

    def dies_in_exchange(self, target):
        if self.name == "images.csv" and self.parent.name == AGAIN:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", dies_in_exchange)
    with pytest.raises(KeyboardInterrupt):
        write_cohort(shorter, tmp_path / "out")
    monkeypatch.undo()
    with pytest.raises(LayoutError, match=r"no cohort\.json"):
        read_cohort(tmp_path / "out")
    write_cohort(cohort, tmp_path / "out")
    assert read_cohort(tmp_path / "out").fingerprint() == old.fingerprint()


def test_pictures_of_a_finished_cohort_are_replaced_with_all_of_it_or_not_at_all(tmp_path, monkeypatch):
    cohort = rich_cohort(tmp_path / "source")
    write_cohort(cohort, tmp_path / "out")
    place = read_cohort(tmp_path / "out")[2].image
    old = place.read_bytes()
    picture(cohort[2].image, value=3)

    def refuse(*_):
        raise LayoutError("no")

    monkeypatch.setattr(writer, "_require_read_back", refuse)
    with pytest.raises(LayoutError):
        write_cohort(cohort, tmp_path / "out")
    assert place.read_bytes() == old
    monkeypatch.undo()
    write_cohort(cohort, tmp_path / "out")
    assert place.read_bytes() == cohort[2].image.read_bytes() != old


def test_tables_saved_by_a_spreadsheet_are_read(tmp_path):
    write_cohort(rich_cohort(tmp_path / "source"), tmp_path / "out")
    before = read_cohort(tmp_path / "out")
    for name in ("studies.csv", "images.csv"):
        path = tmp_path / "out" / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\r\n")
    assert read_cohort(tmp_path / "out") == before


def padded(name, cell):
    """Blanks around a cell; facts are free text, where a blank may mean something."""
    return cell if cell.startswith('"') or "fact:" in name else f" {cell}  "


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: "\n".join(";".join(row) for row in rows),
        lambda rows: "\n".join("\t".join(row) for row in rows),
        lambda rows: "\n".join(
            ",".join(padded(name, cell) for name, cell in zip(rows[0], r, strict=True)) for r in rows
        ),
        lambda rows: "\n".join(",".join(row) for row in [*rows[:2], [""] * len(rows[0]), *rows[2:], [""] * 7]),
        lambda rows: "\r\n".join(",".join(row) for row in rows),
    ],
    ids=["semicolons", "tabs", "blanks", "rows of commas", "Windows"],
)
def test_tables_as_other_programs_write_them(tmp_path, spoil):
    """A blank behind a patient's id would make two patients of one, and put them on both sides of a split."""
    write_cohort(rich_cohort(tmp_path / "source"), tmp_path / "out")
    before = read_cohort(tmp_path / "out")
    for name in ("studies.csv", "images.csv"):
        path = tmp_path / "out" / name
        with path.open(newline="", encoding="utf-8") as file:
            rows = [
                [cell if cell.isprintable() and "," not in cell else f'"{cell}"' for cell in r]
                for r in csv.reader(file)
            ]
        path.write_bytes(spoil(rows).encode())
    assert read_cohort(tmp_path / "out") == before


def test_a_table_with_zero_bytes_is_refused(tmp_path):
    write_cohort(rich_cohort(tmp_path / "source"), tmp_path / "out")
    path = tmp_path / "out" / "studies.csv"
    path.write_bytes(path.read_bytes()[:-2] + b"\0\n")
    with pytest.raises(LayoutError, match="zero bytes"):
        read_cohort(tmp_path / "out")


def test_masks_are_found_by_name_without_a_regions_document(tmp_path):
    write_cohort(rich_cohort(tmp_path / "source"), tmp_path / "out")
    (tmp_path / "out" / "regions.json").unlink()
    regions = read_cohort(tmp_path / "out")[0].regions
    assert {r.tag.label for r in regions} == {None, "fracture"}
    picture(tmp_path / "out" / "regions" / "mask" / "nobody.png")
    with pytest.raises(LayoutError, match=r"nobody\.png"):
        read_cohort(tmp_path / "out")


def test_masks_by_name_are_png_tiff_or_nifti_and_others_are_refused(tmp_path):
    write_cohort(rich_cohort(tmp_path / "source"), tmp_path / "out")
    (tmp_path / "out" / "regions.json").unlink()
    folder = tmp_path / "out" / "regions" / "mask"
    had = len(read_cohort(tmp_path / "out")[2].regions)
    picture(folder / "ü 3.PNG"), picture(folder / "ü 3__2.Tif"), picture(folder / ".ü 3.png")
    (folder / "ü 3.nii.GZ").touch(), (folder / "Thumbs.db").touch()
    assert len(read_cohort(tmp_path / "out")[2].regions) == had + 3
    (folder / "sub").mkdir()
    for name in ("ü 3.jpg", "sub/ü 3.png"):
        picture(folder / name)
        with pytest.raises(LayoutError, match=f"{name} is no mask that is read"):
            read_cohort(tmp_path / "out")
        (folder / name).unlink()


BAD = [
    ("images.csv", "view,path", "view,file", r"images\.csv lacks the columns \['path'\]"),
    ("images.csv", "IM3.png", "../IM3.png", r"row 4, column 'path' is 'images/\.\./IM3\.png', which leads out"),
    ("images.csv", "images/IM3.png", "C:/IM3.png", "row 4, column 'path' is 'C:/IM3.png', which leads out"),
    ("images.csv", "images/IM3.png", "/etc/passwd", "row 4, column 'path' is '/etc/passwd', which leads out"),
    ("images.csv", "IM3.png", "IM4.png", "row 4, column 'path' names 'images/IM4.png', which does not exist"),
    ("images.csv", "ü 3,", "a/2,", "row 4, column 'image_id' repeats 'a/2' of row 3"),
    ("images.csv", "ü 3,s2", "ü 3,s9", "row 4, column 'study_id' names 's9'"),
    ("images.csv", "ü 3,s2", "ü 3,s1", r"studies\.csv: row 3, column 'study_id' names 's2', which has no image"),
    ("images.csv", ",9,12,", ",nine,12,", "row 2, column 'width' is 'nine', expected a whole number"),
    ("images.csv", ",9,12,", ",9,,", "row 2, column 'height' is ''"),
    ("images.csv", ",9,12,", ",9,-12,", "row 2, column 'height' is '-12'"),
    ("images.csv", ",0.1,", ",nan,", "row 2, column 'row_spacing_mm' is 'nan', expected a finite number"),
    ("images.csv", ",0.1,", ",,", "row 2, column 'row_spacing_mm' is ''"),
    ("images.csv", "ü 3,s2,", "ü 3,", "row 4 has 10 cells, the header has 11"),
    ("studies.csv", "s1,p1", "s1,", "row 2, column 'patient_id' is empty"),
    ("studies.csv", "no fracture", "maybe", r"row 3, column 'label' is 'maybe', expected one of"),
    ("studies.csv", ",train", ",tarin", "row 2, column 'split' is 'tarin'"),
    ("studies.csv", "s2,", "s1,", "row 3, column 'study_id' repeats 's1' of row 2"),
    ("regions.json", '"kind": "box"', '"kind": "circle"', "region 0 .*kind is 'circle'"),
    ("regions.json", '"stop": [5.0', '"stop": [NaN', "region 0 .*finite"),
    ("regions.json", '"stop": [5.0', '"stop": [true', "region 0 .*True is no number"),
    ("regions.json", '"stop": [5.0', '"stop": ["5_0"', "region 0 .*'5_0' is no number"),
    ("regions.json", '"stop": [5.0', '"stop": [1e300', r"region 0 .*at most 1e\+09; got [^.]*\.[^.]*"),
    ("images.csv", ",0.1,", ",1e300,", "row 2, column 'row_spacing_mm' is '1e300', expected the size of a pixel"),
    ("regions.json", '"image_id": "a/1"', '"image_id": "zz"', "region 0 .*'zz' is not in images.csv"),
    ("regions.json", '"parts"', '"rings"', "region 2 .*misses the field 'parts'"),
    ("regions.json", '"path": "regions/', '"path": "../regions/', "region 1 .*not a file inside the folder"),
    ("regions.json", '"lines": [[[1.5, 2.5]]', '"lines": [[[1.5]]', r"region 5 .*\[row, column\]"),
    ("cohort.json", '"version": 1', '"version": 9', "layout version 9, expected 1"),
    ("cohort.json", '"sightline folder"', '"other"', "not a 'sightline folder' document"),
    ("cohort.json", '"fracture"', '"no fracture"', "expected distinct class names"),
    ("cohort.json", "{", "[", "cannot be read as JSON"),
    ("cohort.json", '"version"', '"classes": ["a"], "version"', "the name 'classes' stands twice"),
]


def test_labels_are_classes_in_whatever_unicode_form(tmp_path):
    """A spreadsheet on a Mac writes an umlaut as two letters, in tables and in documents alike."""
    cohort = rich_cohort(tmp_path / "source")
    named = Cohort(
        "c",
        ("Br\u00fcche", "no fracture"),
        tuple(
            replace(
                case,
                label="Br\u00fcche" if case.label == "fracture" else case.label,
                regions=tuple(
                    replace(r, tag=replace(r.tag, label=r.tag.label and "Br\u00fcche")) for r in case.regions
                ),
            )
            for case in cohort
        ),
    )
    write_cohort(named, tmp_path / "out")
    for file, old in (("studies.csv", "Br\u00fcche"), ("regions.json", r"Br\u00fcche")):
        text = (tmp_path / "out" / file).read_bytes().decode()
        assert old in text
        (tmp_path / "out" / file).write_bytes(text.replace(old, "Bru\u0308\u200bche").encode())
    read = read_cohort(tmp_path / "out")
    assert [case.label for case in read] == [case.label for case in named]
    assert {r.tag.label for case in read for r in case.regions} <= {None, *named.classes}
    with pytest.raises(CohortError, match="one has no name, or two have the same"):
        Cohort("c", ("Br\u00fcche", "Bru\u0308che"), ())


@pytest.mark.parametrize(("file", "old", "new", "message"), BAD)
def test_bad_tables_are_refused_by_name(tmp_path, file, old, new, message):
    write_cohort(rich_cohort(tmp_path / "source"), tmp_path / "out")
    path = tmp_path / "out" / file
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())
    with pytest.raises(LayoutError, match=message) as caught:
        read_cohort(tmp_path / "out")
    assert file in caught.value.message and caught.value.remedy


def test_long_ids_are_shortened_and_stay_apart(tmp_path):
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "a.png")
    inside = np.zeros((6, 8), bool)
    inside[2:4, 3] = True
    cases = tuple(
        Case("x" * 250 + str(n), f"s{n}", f"p{n}", tmp_path / "a.png", "a", (Mask(inside, Tag("focus")),))
        for n in range(3)
    )
    write_cohort(Cohort("c", ("a", "b"), cases), tmp_path / "out")
    again = read_cohort(tmp_path / "out")
    assert [case.case_id for case in again] == [case.case_id for case in cases]
    assert len({case.regions[0].source for case in again}) == 3
    assert all(np.array_equal(case.regions[0].pixels(), inside) for case in again)
