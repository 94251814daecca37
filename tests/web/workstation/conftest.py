import pytest
from support.workstation import open_studio


@pytest.fixture
def studio(tmp_path):
    """Two readers, a lead and an adjudicator, and a task dealt to the readers."""
    made = open_studio(tmp_path)
    for name, role in (
        ("ada", "reader"),
        ("ben", "reader"),
        ("lea", "lead"),
        ("ada2", "adjudicator"),
        ("vic", "viewer"),
    ):
        made.add(name, role)
    made.plan("first", ["ada", "ben"])
    yield made
    made.desk.close()
