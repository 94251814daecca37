"""The conformance page says what the code does."""

import re

from support.conformance import KINDS, PAGE, PRIMITIVES, text
from support.conformance_network import routes
from support.dicom_sources import radiograph, whole_result
from support.paths import ROOT

from sightline.io.dicom_results.header import build_source_image
from sightline.io.dicom_results.objects import make_objects
from sightline.web.node.delivery.senders import STATUSES, read_status
from sightline.web.node.intake import dicomweb, storage_scp


def test_the_page_is_that_of_the_code():
    assert PAGE.read_text(encoding="utf-8") == text(), "write it again: cd tests && python -m support.conformance"


def test_objects_are_of_the_classes_that_the_page_names():
    made = make_objects(whole_result(build_source_image(radiograph())))
    assert [(o.SOPClassUID, int(o.SeriesNumber) - 9001) for o in made] == [
        (uid, place) for place, uid in enumerate(KINDS.values())
    ]


def test_every_named_test_exists():
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "io" / "dicom_results").glob("*.py"))
    for _, _, test in PRIMITIVES:
        assert re.search(rf"^def {test}\(", tests, re.MULTILINE), test


def test_the_endpoints_of_the_page_are_the_routes():
    assert routes() == {(method, path) for method, path, *_ in dicomweb.ENDPOINTS}


def test_every_http_status_of_the_page_is_answered_and_no_other():
    folder = ROOT / "src" / "sightline" / "web" / "node" / "intake"
    code = "".join((folder / name).read_text(encoding="utf-8") for name in ("dicomweb.py", "multipart.py"))
    code = code.replace(code[code.index("HTTP_STATUSES") : code.index("}", code.index("HTTP_STATUSES"))], "")
    raised = {
        int(x) for x in re.findall(r"(?:HTTPException|BodyError)\((\d{3})|status_code=(\d{3})", code) for x in x if x
    }
    (stored,) = re.findall(r"return answer, (\d+) if not failed else (\d+) if stored else (\d+)", code)
    assert raised | set(map(int, stored)) == set(dicomweb.HTTP_STATUSES)


def test_every_status_of_a_store_is_in_the_page_and_all_answers_have_a_meaning():
    assert {storage_scp.OUT_OF_RESOURCES, storage_scp.WRONG_CLASS, storage_scp.CANNOT_UNDERSTAND, 0} == set(
        storage_scp.STORE_STATUSES
    )
    assert {read_status(status).outcome for status in range(0x10000)} == {outcome for *_, outcome, _ in STATUSES}
    assert [read_status(x).outcome for x in (0, 0x0111, 0xB006, 0x0122, 0xA700, 0xC001)] == [
        "sent", "sent", "sent", "not taken", "failed", "failed",
    ]  # fmt: skip
