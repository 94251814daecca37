import pytest
from argon2 import PasswordHasher
from support.workstation import open_studio

from sightline.web.workstation.accounts import passwords


@pytest.fixture(autouse=True)
def quick_hashes(request, monkeypatch):
    """Half a second a hash is for people; tests that are about it ask for `real_hashes`."""
    if "real_hashes" not in request.fixturenames:
        quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        monkeypatch.setattr(passwords, "_HASHER", quick)
        monkeypatch.setattr(passwords, "_NOBODY", quick.hash("nobody"))


@pytest.fixture
def real_hashes():
    """Hashes as people get them."""


@pytest.fixture
def studio(tmp_path):
    """Two readers, a lead, an adjudicator and a viewer, and a task dealt to the readers."""
    made = open_studio(tmp_path)
    people = (("ada", "reader"), ("ben", "reader"), ("lea", "lead"), ("ada2", "adjudicator"), ("vic", "viewer"))
    for name, role in people:
        made.add(name, role)
    made.plan("first", ["ada", "ben"])
    yield made
    made.desk.close()
