"""Marks come out as a sound cohort, equal to the last digit; and what each mark cost stands beside it."""

import csv
import json

import numpy as np
import pytest
from support.workstation import box, open_studio, scribble

from sightline.data.audit.audit import audit
from sightline.data.datasets.folder.reader import read_cohort
from sightline.errors import LayoutError
from sightline.io.files import require_empty
from sightline.structures.regions import Box, Mask, Scribble
from sightline.web.workstation.exchange.cohort_export import export_folder
from sightline.web.workstation.exchange.imports import import_marks
from sightline.web.workstation.exchange.readings import list_finished_reads
from sightline.web.workstation.marks.regions import encode_runs
from sightline.web.workstation.reading.outcomes import decide, find_latest_outcomes


def marked(studio):
    """Two readers: three studies, boxes that overlap half; one scribble with digits; one mask with a hole."""
    studio.plan("all", ["ada", "ben"], ask={"label": True, "confidence": True})
    mask = np.zeros((40, 48), bool)
    mask[5:20, 6:21] = True
    mask[9:12, 9:12] = False
    size, counts = encode_runs(mask)
    hole = {**box(), "kind": "mask", "size": size, "counts": counts}
    del hole["start"], hole["stop"]
    third = scribble(lines=[[[0.1 + 0.2, 7.0], [20.123456789012345, 30.0]]])
    for name, rows in (("ada", (4, 14)), ("ben", (9, 19))):
        reads = studio.reads(name, task=studio.tasks["all"])
        studio.finish(name, reads[0]["read"], [box((rows[0], 10.0), (rows[1], 20.0))], label="fracture", confidence=70)
        studio.finish(name, reads[1]["read"], [hole] if name == "ada" else [], label="no fracture", confidence=20)
        mine = [{**third, "id": box()["id"]}] if name == "ada" else []
        studio.finish(name, reads[2]["read"], mine, label="no fracture", confidence=55)
    return mask


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_readers_marks_come_back_equal_and_the_cohort_is_sound(studio, tmp_path):
    mask = marked(studio)
    done = export_folder(studio.desk, tmp_path / "out")
    assert (done.images, done.marked, done.marks, done.left_out) == (8, 3, 4, ())
    cohort = read_cohort(tmp_path / "out")
    assert [f for f in audit(cohort) if f.severity == "error"] == []
    by_id = {case.case_id: case for case in cohort}
    first = by_id["S00-0"].regions
    assert [(r.tag.reader, r.start, r.stop) for r in first] == [
        ("ada", (4.0, 10.0), (14.0, 20.0)),
        ("ben", (9.0, 10.0), (19.0, 20.0)),
    ]
    line = by_id["S02-0"].regions[0]
    assert isinstance(line, Scribble)
    assert line.lines == (((0.1 + 0.2, 7.0), (20.123456789012345, 30.0)),)
    hole = by_id["S01-0"].regions[0]
    assert isinstance(hole, Mask)
    assert (hole.pixels() == mask).all()
    # a study that nobody marked keeps no mark of the old cohort
    assert by_id["S03-0"].regions == ()


def test_the_readings_say_what_each_mark_cost(studio, tmp_path):
    marked(studio)
    export_folder(studio.desk, tmp_path / "out")
    folder = tmp_path / "out" / "readings"
    reads = table(folder / "reads.csv")
    assert [(r["reader"], r["study"], r["label"], r["confidence"], r["marks"]) for r in reads][:2] == [
        ("ada", "S00", "fracture", "70", "1"),
        ("ben", "S00", "fracture", "70", "1"),
    ]
    strokes = [json.loads(line) for line in (folder / "strokes.jsonl").read_text().splitlines()]
    assert [s["reader"] for s in strokes] == ["ada"]
    assert strokes[0]["strokes"][0]["points"][1][:2] == [20.123456789012345, 30.0]
    dice = [r for r in table(folder / "agreement.csv") if r["measure"] == "Dice"]
    # halves overlap in one image of six; one mark alone in two; three pairs are both empty
    assert float(dice[0]["value"]) == pytest.approx((0.5 + 0 + 0 + 3) / 6)
    chain = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
    assert sum(row["what"] == "submit" for row in chain) == 6


@pytest.mark.parametrize(
    ("whose", "rows"),
    [
        ("union", (4, 19)),
        pytest.param("intersection", (9, 14), marks=pytest.mark.slow),
        pytest.param("majority", (9, 14), marks=pytest.mark.slow),
        ("consensus", None),
    ],
)
def test_several_readers_marks_become_one_as_the_rule_says(studio, tmp_path, whose, rows):
    marked(studio)
    export_folder(studio.desk, tmp_path / "out", whose)
    cohort = read_cohort(tmp_path / "out")
    regions = cohort[0].regions
    assert len(regions) == 1
    assert regions[0].tag.reader == whose
    assert whose in cohort.about["marks"]
    found = np.argwhere(regions[0].pixels())
    if rows:
        assert (found[:, 0].min(), found[:, 0].max() + 1) == rows


def test_a_label_that_is_decided_on_later_takes_no_decided_mark_away(studio, tmp_path):
    marked(studio)
    first = studio.reads("ada", task=studio.tasks["all"])[0]
    studio.plan("labels", ["ada", "ben"], tools=[], ask={"label": True})
    image = studio.client("ada").get(f"/api/v1/reads/{first['read']}").json()["study"]["images"][0]["key"]
    with studio.desk.database.writing() as connection:
        for task, marks, label in (
            ("all", [{**box((1.0, 2.0), (7.0, 9.0)), "image": image}], None),
            ("labels", [], "no fracture"),
        ):
            decide(
                connection, studio.tasks[task], first["study"], how="drawn", from_read=None, marks=marks, label=label,
                comment="", if_match="*", who="test",
            )  # fmt: skip
        latest = {of: find_latest_outcomes(connection, of=of)[first["study"]] for of in ("marks", "label")}
        assert [latest[of]["task"] for of in latest] == [studio.tasks["all"], studio.tasks["labels"]]
    export_folder(studio.desk, tmp_path / "out", "consensus")
    (region,) = read_cohort(tmp_path / "out")[0].regions
    assert (region.start, region.stop) == ((1.0, 2.0), (7.0, 9.0))


def test_one_readers_marks_alone(studio, tmp_path):
    marked(studio)
    done = export_folder(studio.desk, tmp_path / "out", "ben")
    assert done.marks == 1
    with pytest.raises(LayoutError, match="nobody"):
        export_folder(studio.desk, tmp_path / "other", "nobody")
    with pytest.raises(LayoutError, match="not an empty folder"):
        export_folder(studio.desk, tmp_path / "out", "ben")
    # what a stopped command of another kind left is no empty folder either
    require_empty(tmp_path / "begun")
    with pytest.raises(LayoutError, match="not an empty folder"):
        export_folder(studio.desk, tmp_path / "begun")


def test_an_import_of_the_export_is_equal_and_comes_in_once(studio, tmp_path):
    marked(studio)
    export_folder(studio.desk, tmp_path / "out")
    count, rejects = import_marks(studio.desk, tmp_path / "out", "folder", "foreign")
    assert (count, rejects) == (4, [])
    # into the task of those whom they are to be compared with
    joined = import_marks(studio.desk, tmp_path / "out", "folder", "published", task_name="all")
    assert joined == (4, [])
    with studio.desk.database.reading() as connection:
        readers = {one.row["reader_name"] for one in list_finished_reads(connection, task_id=studio.tasks["all"])}
    assert readers > {"published"}
    again, rejects = import_marks(studio.desk, tmp_path / "out", "folder", "foreign")
    assert again == 0
    assert len(rejects) == 3
    export_folder(studio.desk, tmp_path / "back", "foreign")
    before, after = read_cohort(tmp_path / "out"), read_cohort(tmp_path / "back")
    for a, b in zip(before, after, strict=True):
        for x, y in zip(a.regions, b.regions, strict=True):
            if isinstance(x, Mask):
                assert (x.pixels() == y.pixels()).all()
            elif isinstance(x, Box):
                assert (x.start, x.stop) == (y.start, y.stop)
            else:
                assert (x.lines, x.stroke_px) == (y.lines, y.stroke_px)


def test_a_picture_that_is_gone_or_changed_is_left_out_with_a_line(studio, tmp_path):
    marked(studio)
    cases = {case.case_id: case for case in studio.desk.cohort}
    cases["S03-1"].image.unlink()
    data = bytearray(cases["S00-0"].image.read_bytes())
    cases["S00-0"].image.write_bytes(bytes(data) + b"x")
    done = export_folder(studio.desk, tmp_path / "out")
    assert sorted(name for name, _ in done.left_out) == ["S00-0", "S03-1"]
    assert {row["what"] for row in table(tmp_path / "out" / "readings" / "left_out.csv")} == {"S00-0", "S03-1"}
    assert len(read_cohort(tmp_path / "out")) == 6


def test_labels_of_readers_become_those_of_pictures_that_had_none(tmp_path):
    from sightline.web.workstation.launch import read_studies

    (tmp_path / "pictures").mkdir()
    studio = open_studio(tmp_path)  # draws pictures
    cohort = read_studies(tmp_path / "cohort" / "images", ("no", "yes"))
    studio.desk.close()
    studio = open_studio(tmp_path / "second", cohort)
    for name in ("ada", "ben", "cyd"):
        studio.add(name)
    studio.plan("label", ["cyd", "ben", "ada"], ask={"label": True}, classes=["no", "yes"])
    # cyd says yes of each study, and first; ada and ben say no of every second one
    for name in ("cyd", "ben", "ada"):
        for n, row in enumerate(studio.reads(name)[: 7 if name == "ben" else 8]):
            label = "yes" if name == "cyd" or n % 2 == 0 else "no"
            assert studio.finish(name, row["read"], [], label=label).status_code == 200
            last = row["study"]
    with studio.desk.database.writing() as connection:
        decide(
            connection, studio.tasks["label"], studio.reads("ada")[1]["study"], how="drawn", from_read=None, marks=[],
            label="yes", comment="", if_match="*", who="test",
        )  # fmt: skip
        decide(
            connection, studio.tasks["label"], last, how="drawn", from_read=None, marks=[], label=None, comment="",
            if_match="*", who="test",
        )  # fmt: skip
    found = {}
    for whose in ("each", "consensus", "ada", "cyd"):
        export_folder(studio.desk, tmp_path / whose, whose)
        cohort = read_cohort(tmp_path / whose)
        assert cohort.classes == ("no", "yes")
        found[whose] = [case.label for case in cohort]
    # of the last study each label has one vote: the first one submitted counts
    assert found["each"] == ["yes", "no", "yes", "no", "yes", "no", "yes", "yes"]
    # what was decided stands before the vote, where a label was decided
    assert found["consensus"] == ["yes", "yes", *found["each"][2:]]
    assert found["ada"] == ["yes", "no"] * 4
    assert found["cyd"] == ["yes"] * 8
    studio.desk.close()
