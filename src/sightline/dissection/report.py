"""`report.html` of a dissection: what the units of a layer respond to, what that is worth, how experts name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.dissection.figures import draw_agreement_strip, draw_calls, draw_ranked_curve
from sightline.dissection.results import By, CallRow, Dissection, UnitAgreementRow, UnitRow
from sightline.dissection.scoring import FEW, Band
from sightline.errors import count_noun
from sightline.plots.html_report import ReportPicture, ReportTable, Section, write_report

ON_PAGE = 10
IN_DETAIL = 3

HOW_TO_READ: tuple[tuple[str, str], ...] = (
    (
        "Unit",
        "One channel of the layer: a detector that gives a map of where, and how strongly, it responds. What to is not "
        "known beforehand; its gallery shows it.",
    ),
    (
        "Threshold, enabled",
        "A unit counts as responding where its activation is above its own threshold, which it exceeds on a small "
        "share of all places of all cases. It is enabled in a case when it responds anywhere in it.",
    ),
    (
        "c and contrast",
        "c is the share of the cases looked at in which a unit is enabled. Many units are enabled in nearly every "
        "case, positive or not: contrast is c less the same share of negative cases: what is special to positives.",
    ),
    (
        "p",
        "How often shuffled labels give a contrast as large, corrected for the number of units. Small p: the unit "
        "responds to something that goes with the class, not that it is the finding.",
    ),
    (
        "Agreement (IoU)",
        "Area where unit and mask overlap, divided by the area that either covers, over the cases that have the mask. "
        "Chance is drawn in two ways: masks shuffled between patients (beyond it, the unit follows the single case, "
        "not only a usual place), and masks moved to other places (beyond it, the unit follows the place).",
    ),
    (
        "Pictures",
        "Yellow contour: above threshold. Colour: how far, scaled within each picture, so compare places, not colours. "
        "A square is one cell of the layer, above threshold by so little that enlarging would hide it: its size says "
        "nothing. Solid green: the finding as an expert marked it.",
    ),
    (
        "Names",
        "Names of units are experts' words for what galleries show. They describe a network's habits in other "
        "patients; they are no finding in anyone.",
    ),
    (
        "What this is not",
        "Nothing here is a diagnosis, and nothing here has been cleared for clinical use.",
    ),
)


def write_dissection_report(path: Path, dissection: Dissection, found: DissectionSummary) -> None:
    """Write the page; pictures are taken from the dissection's folder."""
    sections = [
        _build_ranks(dissection, found),
        *_build_galleries(dissection, found),
        _build_agreement(dissection, found),
    ]
    sections += [_build_calls(dissection, found), _build_naming(dissection, found)]
    write_report(
        path,
        title=f"What {dissection.layer} responds to: {dissection.about['title']}",
        summary=summarise_dissection(dissection, found),
        sections=sections,
        provenance=dissection.about,
        how_to_read=HOW_TO_READ,
    )


def _build_ranks(dissection: Dissection, found: DissectionSummary) -> Section:
    ranked = dissection.ranked
    order = [row.unit for row in ranked]
    best = {unit: _name_best_mask(found.agreement, unit) for unit in found.shown}
    columns = ["rank", "unit", "concept", "c", "contrast", "p", "AUC of r", "threshold"]
    columns += ["best mask (IoU)"] if found.agreement else []
    rows = []
    at = {row.unit: row for row in ranked}
    for row in (at[unit] for unit in found.shown):
        cells = [
            str(row.rank) + ("" if row.ties == 1 else " (tie)"),
            f"{row.unit}" + (" dead" if row.dead else ""),
            _name(dissection, row.unit),
            f"{row.c:.3f}",
            describe_contrast(row),
            format_p(row.p),
            "–" if row.auc is None else f"{row.auc:.3f}",
            f"{row.threshold:.4g}",
        ]
        rows.append(tuple(cells + ([best.get(row.unit, "–")] if found.agreement else [])))
    table = _build_table(
        dissection,
        caption=f"{len(rows)} of {count_noun(len(ranked), 'unit')}, first {BY_WORDS[found.by]}; c: share of "
        f"{describe_over(dissection)}",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(
            f"n: {ranked[0].n_pos} {describe_over(dissection)}, "
            f"{count_noun(found.n_against, 'negative')}. p: labels shuffled, "
            f"corrected over {count_noun(len(ranked), 'unit')}. All units: units.csv.",
            "In brackets: 95% interval of the contrast over patients. Unlike p it is not corrected for the number "
            "of units, nor for their choice.",
            "AUC of r: how well the sum of a unit's activation above threshold alone tells positives from negatives.",
        ),
    )
    low, high = (None, None) if found.band is None else (found.band.low[order], found.band.high[order])
    curve = draw_ranked_curve(ranked, low, high, describe_over(dissection))
    picture = ReportPicture(
        curve,
        "c of every unit by rank. Thick orange: ties. Grey: where c stays 95 times in 100 when labels are shuffled.",
        f"Curve of c over {count_noun(len(ranked), 'ranked unit')}, from {ranked[0].c:.2f} to {ranked[-1].c:.2f}.",
    )
    return Section("Units by rank", tables=(table,), pictures=(picture,))


def _build_galleries(dissection: Dissection, found: DissectionSummary) -> list[Section]:
    rows = {row.unit: row for row in dissection.units}
    sections = []
    for n, unit in enumerate(found.shown[:ON_PAGE]):
        row = rows[unit]
        name = dissection.concepts.get(unit)
        sentence = f"{name.text} ({name.signed or 'not signed'})" if name else "Not named yet."
        pictures = [_link_file(dissection, f"unit_{unit:03d}.png", f"Cases that drive unit {unit} most.", row)]
        if n < IN_DETAIL:
            words = f"The strongest cases of unit {unit} in detail."
            pictures.append(_link_file(dissection, f"unit_{unit:03d}_strongest.png", words, row))
        title = f"Unit {unit}" + (f": {name.text}" if name else "")
        sections.append(
            Section(title, (sentence, row.standing[0].upper() + row.standing[1:] + "."), (), tuple(pictures))
        )
    return sections


def _link_file(dissection: Dissection, name: str, words: str, row: UnitRow) -> ReportPicture:
    caption = f"{words} File: galleries/{name}"
    return ReportPicture((dissection.folder / "galleries" / name).read_bytes(), caption, f"{words} {row.standing}.")


def _build_agreement(dissection: Dissection, found: DissectionSummary) -> Section:
    if not found.agreement:
        return Section("Agreement with masks", (found.without_agreement,))
    rows = []
    for mask in dict.fromkeys(row.mask for row in found.agreement):
        own = sorted((row for row in found.agreement if row.mask == mask), key=lambda row: -row.iou_cells)
        best = own[0]
        clear = sum(map(is_beyond_chance, own))
        rows.append(
            (mask, str(best.cases), f"{best.unit}", _name(dissection, best.unit), f"{best.iou_cells:.3f}",
             f"{best.shuffled_95:.3f} ({format_p(best.p_shuffled)})", f"{best.moved_95:.3f} ({format_p(best.p_moved)})",
             f"{best.iou:.3f}", f"{best.inside:.0%} ({best.chance:.1%})", f"{clear} of {len(own)}")
        )  # fmt: skip
    table = _build_table(
        dissection,
        "The best unit for each mask",
        ("mask", "cases", "unit", "concept", "IoU", "shuffled: 95% line (p)", "moved: 95% line (p)", "IoU on image",
         "inside (chance)", "units beyond both"),
        tuple(rows),
        notes=(
            "IoU: on the layer's cells, over the cases that have the mask; on image: of enlarged maps, over all cases.",
            "Shuffled: masks exchanged between patients, each in its own place. Moved: each mask at random places of "
            "its own case. p is corrected over units and masks.",
            "Inside: share of what is above threshold that lies in the mask; chance is the mask's share of the image. "
            "All pairs: agreement.csv.",
        ),
    )  # fmt: skip
    picture = ReportPicture(
        draw_agreement_strip(found.agreement, found.shown),
        "Agreement of the first units with every mask, and the best of all units for each mask beside chance. A frame "
        "holds for its pair alone; corrected for all of them, the table above says which are beyond chance.",
        f"Heat strip of {count_noun(len(rows), 'mask')} by {count_noun(len(found.shown), 'unit')}.",
    )
    return Section("Agreement with masks", (), (table,), (picture,))


def _build_calls(dissection: Dissection, found: DissectionSummary) -> Section:
    words = (
        "Which units respond in true calls, and which in false alarms: what a network relies on when it is right, and "
        "what misleads it.",
        describe_calls(found),
    )
    if not found.calls:
        return Section("True calls against false alarms", words)
    order = sorted(found.calls, key=lambda row: (-abs(row.difference), row.unit))[:ON_PAGE]
    table = _build_table(
        dissection,
        f"The {len(order)} units that differ most",
        ("unit", "concept", "true calls", "false alarms", "difference", "p"),
        tuple(
            (str(row.unit), _name(dissection, row.unit), f"{row.true_calls:.3f}", f"{row.false_alarms:.3f}",
             format_signed(row.difference), format_p(row.p))
            for row in order
        ),
        notes=(
            f"n: {found.true_calls} true calls, {found.false_alarms} false alarms. p: calls shuffled between the two, "
            "corrected over units; empty where a side has fewer than "
            f"{FEW} cases. All units: calls.csv.",
        ),
    )  # fmt: skip
    if min(found.true_calls, found.false_alarms) < FEW:
        # a chart of a handful of cases would look like a result
        return Section("True calls against false alarms", words, (table,))
    picture = ReportPicture(
        draw_calls(found.calls, found.true_calls, found.false_alarms),
        "Each dot is a unit: how often it is enabled in true calls and in false alarms. On the dashed line: alike. "
        "Diamonds: beyond chance.",
        "Scatter of units, true calls against false alarms.",
    )
    return Section("True calls against false alarms", words, (table,), (picture,))


def _build_naming(dissection: Dissection, found: DissectionSummary) -> Section:
    words = (
        "To name a unit, open its gallery, say what the contours have in common, and write it into concepts.yaml with "
        "your name and the date. Run the same command again: names appear here and in case panels. What stands in the "
        "file is never changed.",
        "Files: units.csv and units.json (all numbers), galleries/ (pictures of each unit shown), "
        + (
            "nifti/ (what the network saw, the unit's response and both together, in the CT's own space, for 3D Slicer "
            "or ITK-SNAP)."
            if (dissection.folder / "nifti").is_dir()
            else "overlays/ (the strongest cases at full size)."
        ),
    )
    named = [
        (str(row.unit), concept.text, concept.author or "–", concept.date or "–")
        for row in dissection.ranked
        if (concept := dissection.concepts.get(row.unit)) is not None
    ]
    tables = (ReportTable("Units that experts have named", ("unit", "concept", "author", "date"), tuple(named)),)
    return Section("Naming units", words, tables if named else ())


def _build_table(
    dissection: Dissection,
    caption: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, ...]],
    notes: tuple[str, ...],
) -> ReportTable:
    """A table, without its column of concepts where nobody has named a unit."""
    kept = [n for n, name in enumerate(columns) if name != "concept" or dissection.concepts]
    return ReportTable(
        caption, tuple(columns[n] for n in kept), tuple(tuple(row[n] for n in kept) for row in rows), notes=notes
    )


def _name(dissection: Dissection, unit: int) -> str:
    concept = dissection.concepts.get(unit)
    return concept.text if concept else "–"


def _name_best_mask(rows: Sequence[UnitAgreementRow], unit: int) -> str:
    own = [row for row in rows if row.unit == unit]
    if not own:
        return "–"
    best = max(own, key=lambda row: row.iou_cells)
    return f"{best.mask} ({best.iou_cells:.3f})"


BY_WORDS: dict[By, str] = {"c": "by c", "contrast": "by contrast", "auc": "by AUC of r"}


@dataclass(frozen=True, eq=False)
class DissectionSummary:
    """What a report shows besides the units themselves.

    Attributes:
        band: what shuffled labels keep c within, or None without negatives.
        agreement: a row a unit and mask; empty without masks.
        without_agreement: why there is none, in words.
        calls: a row a unit; empty where a side has no case.
        true_calls, false_alarms: how many cases.
        shown: units with galleries, in this order.
        by: what they were chosen by.
        n_against: cases that c is held against: negatives, or for false alarms the other negatives.
        notes: what a reader has to know of this network or cohort besides.
    """

    band: Band | None
    agreement: tuple[UnitAgreementRow, ...]
    without_agreement: str
    calls: tuple[CallRow, ...]
    true_calls: int
    false_alarms: int
    shown: tuple[int, ...]
    by: By
    n_against: int
    notes: tuple[str, ...] = ()


def describe_over(dissection: Dissection) -> str:
    """What c is a share of, in words."""
    return {
        "positives": f"cases of {dissection.positive}",
        "true_positives": f"true calls of {dissection.positive}",
        "false_positives": f"false alarms for {dissection.positive}",
    }[dissection.over]


def summarise_dissection(dissection: Dissection, found: DissectionSummary) -> list[str]:
    """What was found, in plain language: paragraphs."""
    units = dissection.units
    clear = [row for row in units if row.p is not None and row.p < 0.05 and (row.contrast or 0) > 0]
    first = dissection.ranked[0]
    text = [
        f"{count_noun(len(units), 'unit')} of layer {dissection.layer} on "
        f"{dissection.about['cases']} cases of "
        f"{dissection.about['cohort']} ({dissection.about['split']}): {first.n_pos} {describe_over(dissection)}, "
        f"{count_noun(found.n_against, 'negative')}. A unit is above its threshold on "
        f"{dissection.about['top']} of all places."
    ]
    sentence = (
        f"{count_noun(len(clear), 'unit is', 'units are')} enabled more often in "
        f"{describe_over(dissection)} than in negatives beyond chance "
        "(p < 0.05, corrected)."
        if clear
        else f"No unit is enabled more often in {describe_over(dissection)} than in negatives beyond chance."
    )
    if first.ties > 1:
        sentence += (
            f" The highest c, {first.c:.3f}, is shared by {count_noun(first.ties, 'unit')}, so "
            "that rank alone says little: read "
            "contrast and AUC of r beside it. A coarser layer (--layer), or units chosen by --by auc, may tell more."
        )
    dead = sum(row.dead for row in units)
    if dead:
        sentence += f" {count_noun(dead, 'unit is', 'units are')} dead: silent nearly everywhere, any response counts."
    text.append(sentence)
    if found.agreement:
        above = {row.unit for row in found.agreement if is_beyond_chance(row)}
        surely = [row for row in found.agreement if is_beyond_chance(row)]
        best = max(surely or found.agreement, key=lambda row: row.iou_cells)
        line = f"chance stays below {max(best.shuffled_95, best.moved_95):.3f} 95 times in 100"
        text.append(
            f"{count_noun(len(above), 'unit agrees', 'units agree')} with a mask beyond chance of "
            f"either kind; the best of them is unit {best.unit} "
            f"on {best.mask}, IoU {best.iou_cells:.3f}, where {line}."
            if surely
            else "No unit agrees with a mask beyond chance of both kinds; the nearest is unit "
            f"{best.unit} on {best.mask}, IoU {best.iou_cells:.3f}, where {line}."
        )
    text.append(describe_calls(found))
    names = len(dissection.concepts)
    text.append(
        f"{count_noun(names, 'unit has', 'units have')} been named by experts."
        if names
        else "Nobody has named a unit yet: see the last section."
    )
    return [*text, *found.notes]


def is_beyond_chance(row: UnitAgreementRow) -> bool:
    """Whether a unit agrees with a mask beyond both kinds of chance, corrected."""
    return row.p_shuffled < 0.05 and row.p_moved < 0.05


def describe_calls(found: DissectionSummary) -> str:
    """What can be said of true calls against false alarms."""
    if not found.true_calls or not found.false_alarms:
        missing = "true call" if not found.true_calls else "false alarm"
        return f"There is no {missing} among these cases, so concepts of right and wrong calls cannot be compared."
    head = f"{found.true_calls} true calls, {found.false_alarms} false alarms"
    if min(found.true_calls, found.false_alarms) < FEW:
        return f"{head}: too few to say which concepts go with wrong calls; the shares below are a description only."
    clear = [row for row in found.calls if row.p is not None and row.p < 0.05]
    if not clear:
        return f"{head}: no unit is enabled more often in the one than in the other beyond chance."
    more = [str(row.unit) for row in sorted(clear, key=lambda row: row.difference) if row.difference < 0]
    sentence = f"{head}: {count_noun(len(clear), 'unit differs', 'units differ')} beyond chance (p < 0.05, corrected)"
    return sentence + (
        f"; more often in false alarms: {', '.join(more[:8])}." if more else ", all more often in true calls."
    )


def describe_contrast(row: UnitRow) -> str:
    """A contrast with its interval."""
    if row.contrast_low is None or row.contrast_high is None:
        return format_signed(row.contrast)
    return f"{format_signed(row.contrast)} [{format_signed(row.contrast_low)}, {format_signed(row.contrast_high)}]"


def format_signed(value: float | None) -> str:
    """A number with its sign, or a dash."""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def format_p(value: float | None) -> str:
    """A p-value, or a dash."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
