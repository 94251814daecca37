"""The conformance page says what the code does."""

import re

from support.conformance import KINDS, PAGE, PRIMITIVES, text
from support.dicom_sources import radiograph, whole_result
from support.paths import ROOT

from sightline.io.dicom_results.header import source_image
from sightline.io.dicom_results.objects import make_objects


def test_the_page_is_that_of_the_code():
    assert PAGE.read_text(encoding="utf-8") == text(), "write it again: cd tests && python -m support.conformance"


def test_objects_are_of_the_classes_that_the_page_names():
    made = make_objects(whole_result(source_image(radiograph())))
    assert [(o.SOPClassUID, int(o.SeriesNumber) - 9001) for o in made] == [
        (uid, place) for place, uid in enumerate(KINDS.values())
    ]


def test_every_named_test_exists():
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "io" / "dicom_results").glob("*.py"))
    for _, _, test in PRIMITIVES:
        assert re.search(rf"^def {test}\(", tests, re.MULTILINE), test
