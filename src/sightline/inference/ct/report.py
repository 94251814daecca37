"""One CT as a page: the spine, a table of its vertebrae, and the case panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.data.spine.vertebrae import Vertebra
from sightline.dissection.case_panel import CasePanel, describe_case, draw_case_panel
from sightline.errors import count_noun
from sightline.inference.boxes import list_finding_classes
from sightline.inference.network_output import RunFacts
from sightline.io.volume import Volume
from sightline.plots.html_report import ReportPicture, ReportTable, Section, write_report
from sightline.plots.spine_overview import MarkedVertebra, draw_overview
from sightline.training.run import describe_environment

LEAST_OUTSIDE = 0.005  # share of what the network saw beyond which it is said that it lies outside the CT
HOW_TO_READ: tuple[tuple[str, str], ...] = (
    (
        "Probability",
        "What the network says of one vertebra, by itself, as calibrated where the run is. It was trained on other "
        "patients and may be wrong, surely or unsurely.",
    ),
    (
        "Overview",
        "The CT reformed along the spine, head up: sagittal with the front to the left, coronal with the patient's "
        "right to the left. A filled mark is called, an open one is not.",
    ),
    (
        "Units",
        "A unit is one channel of the network's layer. r is how strongly it responds here; its rank, c and contrast "
        "say how often it responds in fractured vertebrae, and how much more often than in intact ones.",
    ),
    (
        "Names",
        "An expert looked at what a unit responds to in other vertebrae and put it into words. A name says what the "
        "unit usually sees, not that it is there.",
    ),
    ("What this is not", "Nothing here is a diagnosis, and nothing here has been cleared for clinical use."),
)


@dataclass(frozen=True, eq=False)
class ReadVertebra:
    """One vertebra as predicted.

    Attributes:
        vertebra: label and place.
        probability: of the class that is looked for.
        said: the most probable class.
        called: whether that is the class that is looked for.
        outside: share of what the network saw that lies outside the CT.
        panel: its case panel where one is drawn.
        finding: the class that is looked for.
        map: float32 [a, b, c], that class's map of the patch, or None.
        map_affine: [4, 4], from the map's indices to mm, RAS+.
    """

    vertebra: Vertebra
    probability: float
    said: str
    called: bool
    outside: float
    panel: CasePanel | None = None
    finding: str = "finding"
    map: NDArray[np.float32] | None = None
    map_affine: NDArray[np.float64] | None = None


def write_ct(
    folder: Path, name: str, ct: Volume, read: Sequence[ReadVertebra], run: RunFacts, centres: str, notes: Sequence[str]
) -> None:
    """Write `overview.png`, `panels/LEVEL.png` and `report.html` of one CT.

    Args:
        folder: of this CT.
        name: of the CT.
        ct: in Hounsfield units.
        read: its vertebrae from head to foot.
        run: that predicted them.
        centres: how the centres are known.
        notes: what was left out, in words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marked = []
    for one in read:
        x, y, z = ct.world_of(one.vertebra.centre).tolist()
        marked.append(MarkedVertebra(one.vertebra.level, (x, y, z), one.probability, one.called))
    lines = [f"Centres of the vertebral bodies are {centres}.", *(f"{note}." for note in notes)]
    # the picture goes to the PACS by itself, where no table stands beside it
    outside = ", ".join(f"{one.vertebra.level} ({one.outside:.0%})" for one in read if one.outside >= LEAST_OUTSIDE)
    ends = [f"Partly outside the CT, the answer a guess: {outside}."] if outside else []
    overview = draw_overview(ct, marked, name, [*lines, *ends])
    (folder / "overview.png").write_bytes(overview)
    pictures = [ReportPicture(overview, "The spine, with every vertebra's probability.", f"Overview of {name}")]
    sections = [Section("Overview", tuple(lines), (_build_table(read, run),), tuple(pictures))]
    panels = []
    for one in read:
        if one.panel is not None:
            (folder / "panels").mkdir(exist_ok=True)
            png = draw_case_panel(one.panel)
            (folder / "panels" / f"{one.vertebra.level}.png").write_bytes(png)
            panels.append(ReportPicture(png, describe_case(one.panel), f"Case panel of {one.vertebra.level}"))
    if panels:
        sections.append(Section("Vertebrae", pictures=tuple(panels)))
    called = [one.vertebra.level for one in read if one.called]
    found = (
        f"The network calls {', '.join(called)} fractured." if called else "The network calls no vertebra fractured."
    )
    machine = describe_environment()
    write_report(
        folder / "report.html",
        title=f"{name}: {count_noun(len(read), 'vertebra', 'vertebrae')}",
        summary=[found, "It is a network's output, for research; it is no diagnosis."],
        sections=sections,
        provenance={
            "run": f"{run.title}, identity {run.identity}",
            "trained on": f"{run.cohort['name']}, fingerprint {run.cohort['fingerprint']}",
            "command": machine["command"],
            "sightline": machine["sightline"],
        },
        how_to_read=HOW_TO_READ,
    )


def _build_table(read: Sequence[ReadVertebra], run: RunFacts) -> ReportTable:
    rows: list[tuple[str, ...]] = []
    findings = list_finding_classes(run.classes)
    looked_for = run.classes[findings[0]] if len(findings) == 1 else "the most probable finding"
    for one in read:
        place = ", ".join(f"{x - 0.5:.1f}" for x in one.vertebra.centre)
        seen = "whole" if one.outside < LEAST_OUTSIDE else f"{one.outside:.0%} outside the CT"
        # of several findings each vertebra has its own most probable one
        sure = f"{one.probability:.3f}" if len(findings) == 1 else f"{one.probability:.3f} {one.finding}"
        rows.append((one.vertebra.level, one.said, sure, place, seen))
    strong = tuple((r, c) for r, one in enumerate(read) if one.called for c in (1, 2))
    columns = ("vertebra", "network says", f"probability of {looked_for}", "CT voxel (from 0)", "seen")
    notes = ("Voxels count from 0 at the first voxel's centre, as in 3D Slicer; millimetres are in predictions.csv.",)
    return ReportTable("Vertebrae from head to foot", columns, tuple(rows), strong=strong, notes=notes)
