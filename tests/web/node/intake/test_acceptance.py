"""Whose a study is: two patients are held, also after the first one's files were cleaned; spellings are not two."""

import json

import pytest
from sqlalchemy import update
from support.nodes import StillNode, image

from sightline.web.node.database import objects, studies

HELD, OPEN = ("held", "two patients in one study"), ("open", "")


@pytest.fixture
def node(tmp_path):
    return StillNode(tmp_path)


def receive(node, *changes):
    """Images of one study come in; the study's state and reason."""
    for number, words in enumerate(changes, 1):
        node.accept(image(number, **words))
    ((*_, state, reason, _),) = node.read(studies)
    return state, reason


@pytest.mark.parametrize(
    ("first", "second", "state"),
    [
        ({"patient": ""}, {"patient": "", "PatientName": "Beta^B"}, HELD),
        ({"patient": ""}, {"patient": "", "PatientBirthDate": "19500101"}, HELD),
        ({"patient": ""}, {"patient": "", "PatientName": "PLANTED ^name^^^"}, OPEN),
        ({"IssuerOfPatientID": "A"}, {"IssuerOfPatientID": "B"}, HELD),
        ({"IssuerOfPatientID": "A"}, {"IssuerOfPatientID": "a "}, OPEN),
        ({"IssuerOfPatientID": "A"}, {"PatientName": "Corrected^Name"}, OPEN),
    ],
)
def test_a_study_is_of_one_id_and_issuer_or_without_an_id_of_one_name_and_birth(node, first, second, state):
    assert receive(node, first, second) == state
    assert not any(word in row.facts for row in node.read(objects) for word in ("Planted", "planted", "1970"))


def test_rows_from_before_names_were_compared_still_work(node):
    receive(node, {"patient": ""})
    (row,) = node.read(objects)
    facts = json.loads(row.facts)
    del facts["person"], facts["issuer"]
    with node.store.change() as change:
        change.connection.execute(update(objects).values(facts=json.dumps(facts)))
    node.accept(image(2, patient="", IssuerOfPatientID="A"))
    assert node.read(studies)[0].state == "open"
    node.accept(image(3, patient="P2"))
    assert node.read(studies)[0].state == "held"


@pytest.mark.parametrize(
    ("words", "state"), [({"patient": "P3"}, HELD), ({"PatientName": "Corrected^Name"}, OPEN), ({"value": 7}, OPEN)]
)
def test_an_image_that_comes_again_under_another_patient_stops_what_is_not_sent_yet(node, words, state):
    node.accept(image(1))
    assert node.accept(image(1, **words)).result == "altered"
    ((*_, found, reason, _),) = node.read(studies)
    assert (found, reason) == state


def test_whose_a_study_is_outlives_its_files(node):
    node.receive(image(1))
    # the same image with a corrected id is kept apart, and is none of the study's patients
    node.accept(image(1, patient="P3"))
    assert node.clean() == 2 and [row.state for row in node.read(objects)] == ["cleaned"] * 2
    node.receive(image(2))
    assert node.read(studies)[0].state == "settled"
    assert node.clean() == 1
    node.accept(image(3, patient="P2"))
    assert node.read(studies)[0].state == "held"
