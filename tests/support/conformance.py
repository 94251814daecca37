# ruff: noqa: E501
"""docs/dicom_conformance.md, written from the code's own tables: `python -m support.conformance` in tests/.

The order is that of a conformance statement (PS3.2). What the code does not have is not claimed.
"""

import pydicom
from pydicom.uid import UID, ExplicitVRLittleEndian

from sightline.io.deidentification import table as deid
from sightline.io.dicom.pixels import BY_PYDICOM, DEEP_JPEG, NATIVE
from sightline.io.dicom.radiograph import PROJECTIONS
from sightline.io.dicom_results import codes, header, identity, picture, reports, results, states
from sightline.io.dicom_results.parametric_map import PARAMETRIC_MAP
from sightline.io.dicom_results.regions import SEGMENTATION
from support.conformance_network import network, rows, taken_classes
from support.paths import ROOT

PAGE = ROOT / "docs" / "dicom_conformance.md"
KINDS = {
    "findings": reports.COMPREHENSIVE_3D_SR,
    "marks": reports.COMPREHENSIVE_3D_SR,
    "regions": SEGMENTATION,
    "states": states.PRESENTATION_STATE,
    "picture": picture.SECONDARY_CAPTURE,
    "map": PARAMETRIC_MAP,
}
# each primitive of IHE AI Results as its public summary names it, what we write, and the test that shows it
PRIMITIVES = (
    ("qualitative finding", "findings: Presence in TID 1501", "test_read_back_by_value"),
    ("measurement", "findings: Certainty of Finding in TID 1501", "test_read_back_by_value"),
    ("location", "marks: SCOORD in TID 1410; a point in space of a vertebra", "test_segments_points_and_maps_are_where_they_were"),
    ("region", "regions: Segmentation, BINARY", "test_read_back_by_value"),
    ("parametric map", "map: Parametric Map, float", "test_read_back_by_value"),
    ("tracking identifier", "in findings, marks and regions alike", "test_the_same_findings_have_the_same_tracking_uids"),
    ("baseline display", "picture: Secondary Capture; states: GSPS", "test_every_kind_of_a_radiograph"),
)  # fmt: skip


def name(uid):
    return UID(uid).name


def syntaxes_of(kind):
    extra = [uid for uid in picture.SYNTAXES.values() if uid != ExplicitVRLittleEndian] if kind == "picture" else []
    return ", ".join(name(uid) for uid in (ExplicitVRLittleEndian, *extra))


def text():
    """The whole page."""
    own = [value for value in vars(codes).values() if isinstance(value, codes.CodedConcept)]
    lines = [
        "# DICOM conformance",
        "",
        "The conformance statement: which DICOM objects are written and read, and which network services the node offers.",
        "Generated from the code's own tables by `tests/support/conformance.py`; a test compares.",
        "",
        "Research software, not a medical device. Profiles of IHE are not claimed, because their full texts were not available.",
        "",
        "## What is written",
        "",
        *rows(
            ("kind", "SOP class", "UID", "transfer syntaxes", "series"),
            [
                (kind, name(uid), f"`{uid}`", syntaxes_of(kind), identity.SERIES_FROM + results.KINDS.index(kind))
                for kind, uid in KINDS.items()
            ],
        ),
        f"Character set {header.UTF8} (UTF-8). Manufacturer `{identity.MANUFACTURER}`. Series descriptions begin `{identity.RESEARCH}: `.",
        f"Implementation class UID `{identity.make_uid('sightline')}`, version name `SIGHTLINE`. UIDs are `2.25.` and 128 bits of a SHA-256.",
        "",
        "## What is read",
        "",
        f"Radiographs: modality {', '.join(PROJECTIONS)}, one frame, MONOCHROME1 or MONOCHROME2. CT: CT Image Storage, Enhanced CT.",
        "",
        *rows(
            ("transfer syntax", "UID"),
            [(name(uid), f"`{uid}`") for uid in sorted(NATIVE | BY_PYDICOM | DEEP_JPEG, key=lambda u: tuple(map(int, u.split("."))))],
        ),
        *network(KINDS),
        "## What is copied from the source image",
        "",
        f"Required, else the image is refused: {', '.join(header.NEEDED)}.",
        "",
        f"Checked and copied if valid: {', '.join(k for k in header.TAKEN_OVER if k not in header.NEEDED)}.",
        "",
        f"Never changed, even if they violate their type: {', '.join(header.IDENTIFIERS)}.",
        "",
        "## Codes",
        "",
        f"Classes without a code in the site's table: private scheme `{codes.PRIVATE}`.",
        "",
        *rows(("value", "scheme", "meaning"), sorted({*own, *codes.SITES.values(), *codes.LEVELS.values()}, key=lambda c: (c[1], c[2]))),
        "## Primitives of AI results",
        "",
        *rows(("primitive", "object", "test"), [(a, b, f"`{c}`") for a, b, c in PRIMITIVES]),
        "## De-identification",
        "",
        f"PS3.15 annex E, Basic Profile, edition {deid.EDITION}.",
        "",
        *rows(
            ("option", "code", "meaning"),
            [("always", *deid.BASIC), ("always", *deid.CLEAN_STRUCTURED), ("always", *deid.CLEAN_GRAPHICS),
             ("`--blank`", *deid.CLEAN_PIXELS), *((f"`--keep {word}`", *deid.OPTIONS[word]) for word in deid.KEEPS)],
        ),
        *taken_classes(),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    assert pydicom.__version__
    PAGE.write_text(text(), encoding="utf-8")
