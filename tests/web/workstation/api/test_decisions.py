"""What an adjudicator decides: what is looked at is what is stored, and what is stored is what is exported."""

import numpy as np
import pytest
from support.workstation import box, open_studio

from sightline.io.nifti import write_volume
from sightline.structures.case import Case, Cohort
from sightline.web.workstation.exchange.cohort_export import merge_regions_by_image
from sightline.web.workstation.exchange.readings import list_finished_reads
from sightline.web.workstation.reading.outcomes import decide, letter_reads


class Adjudicator:
    """The client of whoever decides the one study that ada and ben have submitted."""

    def __init__(self, studio, name, ada, ben):
        self.studio, self.client, self.task = studio, studio.client(name), studio.tasks["first"]
        reads = {name: studio.reads(name, task=self.task)[0]["read"] for name in ("ada", "ben")}
        for name, marks in (("ada", ada), ("ben", ben)):
            assert studio.finish(name, reads[name], marks).status_code == 200
        self.study = self.client.get("/api/v1/adjudicate", params={"task": self.task}).json()["rows"][0]["study"]
        self.image = self.look()["images"][0]["key"]

    def look(self):
        return self.client.get(f"/api/v1/adjudicate/{self.study}", params={"task": self.task}).json()

    def merge(self, how):
        body = {"task": self.task, "image": self.image, "how": how}
        return self.client.post(f"/api/v1/adjudicate/{self.study}/merge", json=body)

    def decide(self, how, marks=(), **more):
        last = self.look()["outcome"]
        body = {"task": self.task, "study": self.study, "how": how, "marks": list(marks), **more}
        etag = "*" if last is None else last["etag"]
        return self.client.post("/api/v1/outcomes", json=body, headers={"If-Match": etag})

    def export(self, whose):
        """Role, class and marked pixels of what an export holds of the image."""
        with self.studio.desk.database.reading() as connection:
            reads = list_finished_reads(connection)
            found = merge_regions_by_image(self.studio.desk, connection, reads, whose)[self.image]
        return [(one.tag.role, one.tag.label, one.pixels().tolist()) for one in found]


ORGANS = [box((0.0, 0.0), (30.0, 40.0), role="organ"), box((5.0, 5.0), (9.0, 9.0), role="finding", label="fracture")]
OTHERS = [box((2.0, 0.0), (32.0, 40.0), role="organ"), box((6.0, 5.0), (10.0, 9.0), role="finding", label="fracture")]


@pytest.mark.parametrize("how", ["union", "intersection", "majority", "staple"])
def test_a_merge_keeps_roles_and_classes_apart_and_is_the_exports(studio, how):
    jo = Adjudicator(studio, "ada2", ORGANS, OTHERS)
    marks = jo.merge(how).json()["marks"]
    assert [(mark["role"], mark["label"]) for mark in marks] == [("organ", None), ("finding", "fracture")]
    assert jo.decide(how, [mark | {"image": jo.image} for mark in marks]).status_code == 201
    assert jo.export("consensus") == jo.export(how)


def test_studies_that_wait_for_ones_own_read_are_counted(studio):
    for name in ("ada", "ben"):
        studio.finish(name, studio.reads(name)[0]["read"])
    studio.plan("first", ["lea"])
    ask = {"task": studio.tasks["first"]}
    assert studio.client("lea").get("/api/v1/adjudicate", params=ask).json() == {"rows": [], "hidden": 1}
    studio.finish("lea", studio.reads("lea")[0]["read"])
    found = studio.client("lea").get("/api/v1/adjudicate", params=ask).json()
    assert (len(found["rows"]), found["hidden"]) == (1, 0)


def test_what_is_taken_is_stored_and_exported(studio):
    jo = Adjudicator(studio, "ada2", ORGANS, [box((1.0, 1.0), (4.0, 4.0))])
    wanted = jo.look()["marks"][0]
    assert jo.decide("take").json()["field"] == "letter"
    found = jo.decide("take", letter="A").json()
    assert found["letter"] == "A"
    assert [mark["id"] for mark in found["marks"]] == [mark["id"] for mark in wanted["marks"]]

    def count():
        with studio.desk.database.reading() as connection:
            reads = list_finished_reads(connection)
            return len(merge_regions_by_image(studio.desk, connection, reads, "consensus")[jo.image])

    assert count() == len(wanted["marks"])
    # older stores say no more than whose read was taken; what became of the read since does not matter
    with studio.desk.database.writing() as connection:
        read_id = letter_reads(connection, jo.task, jo.study, studio.desk.row["salt"])["A"]
        decide(
            connection, jo.task, jo.study, how="take", from_read=read_id, marks=[], label=None, comment="",
            if_match=found["etag"], who="test",
        )  # fmt: skip
    assert count() == len(wanted["marks"])
    back = {"task": jo.task, "letter": "A", "comment": "again"}
    assert jo.client.post(f"/api/v1/adjudicate/{jo.study}/return", json=back).status_code == 200
    assert count() == len(wanted["marks"])
    assert jo.look()["outcome"]["letter"] is None


def test_readers_marks_are_never_decided_away_by_an_empty_merge(studio):
    jo = Adjudicator(studio, "ada2", [box((0.0, 0.0), (4.0, 4.0))], [box((20.0, 20.0), (30.0, 30.0))])
    assert jo.merge("intersection").json() == {"marks": []}
    refused = jo.decide("intersection")
    assert (refused.status_code, refused.json()["field"]) == (422, "marks")
    # that there is nothing is said in so many words
    assert jo.decide("drawn").json()["field"] == "nothing"
    assert jo.decide("drawn", [box() | {"image": jo.image}], nothing=True).json()["field"] == "nothing"
    assert jo.decide("drawn", nothing=True).status_code == 201
    assert jo.export("consensus") == []


def test_readers_who_saw_nothing_can_be_merged(studio):
    jo = Adjudicator(studio, "ada2", [], [])
    assert jo.merge("union").json() == {"marks": []}
    assert jo.decide("union").status_code == 201


def test_marks_on_a_volume_are_taken_not_merged(tmp_path):
    shape, path = (6, 8, 10), tmp_path / "ct.nii.gz"
    write_volume(path, np.zeros(shape, np.int16), np.eye(4))
    case = Case("ct", "s", "p", path, "a", (), None, "CT", shape, (1.0, 1.0, 1.0))
    studio = open_studio(tmp_path, Cohort("ct", ("a", "b"), (case,), tmp_path))
    for name, role in (("ada", "reader"), ("ben", "reader"), ("jo", "adjudicator")):
        studio.add(name, role)
    studio.plan("first", ["ada", "ben"])
    deep = [box((1.0, 1.0, 1.0), (3.0, 3.0, stop)) for stop in (3.0, 4.0)]
    jo = Adjudicator(studio, "jo", deep[:1], deep[1:])
    for refused in (jo.merge("union"), jo.decide("union")):
        assert refused.status_code == 422
        assert "volume" in refused.json()["message"]
    assert len(jo.decide("take", letter="B").json()["marks"]) == 1
    studio.desk.close()
