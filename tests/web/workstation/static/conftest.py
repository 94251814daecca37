from pathlib import Path

import pytest

from tests.support.workstation_page import ARGUMENTS, BROWSER, require_chromium, running, sign_in

HERE = Path(__file__).parent
PEOPLE = {"ada": "reader", "ben": "reader", "cyd": "reader", "lea": "lead", "jo": "adjudicator"}
TASKS = {
    "mark": {"readers": ["ada", "ben", "cyd", "lea"], "ask": {"label": False}},
    "label": {"readers": ["ada", "ben"], "ask": {"label": True, "confidence": True}},
}


def pytest_collection_modifyitems(items):
    """A browser that lost its driver or came too late is asked once more; an assertion that failed is never."""
    from playwright.sync_api import Error

    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.flaky(reruns=1, only_rerun=Error))


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests of the page."""
    require_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(BROWSER), args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="module")
def station(tmp_path_factory):
    """A workstation for the tests of one file."""
    with running(tmp_path_factory.mktemp("station"), PEOPLE, TASKS) as made:
        yield made


@pytest.fixture
def enter(chromium, station):
    """Sign somebody in; at the end no console may have shown a fault that was not expected."""
    people = []

    def come(name="ada", **context):
        person = sign_in(chromium, station, name, **context)
        people.append(person)
        return person

    yield come
    faults = [fault for person in people for fault in person.faults]
    for person in people:
        person.page.context.close()
    assert faults == []
