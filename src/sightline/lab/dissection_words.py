"""What a dissection found, in words and in numbers as they are written out."""

from __future__ import annotations

from dataclasses import dataclass

from sightline.lab.dissection import By, Dissection, UnitRow
from sightline.lab.dissection_numbers import FEW, Band
from sightline.lab.unit_figures import AgreementRow, CallRow

BY_WORDS: dict[By, str] = {"c": "by c", "contrast": "by contrast", "auc": "by AUC of r"}


@dataclass(frozen=True, eq=False)
class Found:
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
    agreement: tuple[AgreementRow, ...]
    without_agreement: str
    calls: tuple[CallRow, ...]
    true_calls: int
    false_alarms: int
    shown: tuple[int, ...]
    by: By
    n_against: int
    notes: tuple[str, ...] = ()


def over_words(dissection: Dissection) -> str:
    """What c is a share of, in words."""
    return {
        "positives": f"cases of {dissection.positive}",
        "true_positives": f"true calls of {dissection.positive}",
        "false_positives": f"false alarms for {dissection.positive}",
    }[dissection.over]


def summary(dissection: Dissection, found: Found) -> list[str]:
    """What was found, in plain language: paragraphs."""
    units = dissection.units
    clear = [row for row in units if row.p is not None and row.p < 0.05 and (row.contrast or 0) > 0]
    first = dissection.ranked[0]
    text = [
        f"{len(units)} units of layer {dissection.layer} on {dissection.about['cases']} cases of "
        f"{dissection.about['cohort']} ({dissection.about['split']}): {first.n_pos} {over_words(dissection)}, "
        f"{found.n_against} negatives. A unit is above its threshold on {dissection.about['top']} of all places."
    ]
    said = (
        f"{len(clear)} units are enabled more often in {over_words(dissection)} than in negatives beyond chance "
        "(p < 0.05, corrected)."
        if clear
        else f"No unit is enabled more often in {over_words(dissection)} than in negatives beyond chance."
    )
    if first.ties > 1:
        said += (
            f" The highest c, {first.c:.3f}, is shared by {first.ties} units, so that rank alone says little: read "
            "contrast and AUC of r beside it. A coarser layer (--layer), or units chosen by --by auc, may tell more."
        )
    dead = sum(row.dead for row in units)
    if dead:
        said += f" {dead} units are dead: silent nearly everywhere, any response of theirs counts."
    text.append(said)
    if found.agreement:
        above = {row.unit for row in found.agreement if beyond(row)}
        surely = [row for row in found.agreement if beyond(row)]
        best = max(surely or found.agreement, key=lambda row: row.iou_cells)
        line = f"chance stays below {max(best.shuffled_95, best.moved_95):.3f} 95 times in 100"
        text.append(
            f"{len(above)} units agree with a mask beyond chance of either kind; the best of them is unit {best.unit} "
            f"on {best.mask}, IoU {best.iou_cells:.3f}, where {line}."
            if surely
            else "No unit agrees with a mask beyond chance of both kinds; the nearest is unit "
            f"{best.unit} on {best.mask}, IoU {best.iou_cells:.3f}, where {line}."
        )
    text.append(calls_words(found))
    names = len(dissection.concepts)
    text.append(
        f"{names} units have been named by experts." if names else "Nobody has named a unit yet: see the last section."
    )
    return [*text, *found.notes]


def beyond(row: AgreementRow) -> bool:
    """Whether a unit agrees with a mask beyond both kinds of chance, corrected."""
    return row.p_shuffled < 0.05 and row.p_moved < 0.05


def calls_words(found: Found) -> str:
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
    said = f"{head}: {len(clear)} units differ beyond chance (p < 0.05, corrected)"
    return said + (
        f"; more often in false alarms: {', '.join(more[:8])}." if more else ", all more often in true calls."
    )


def contrast_words(row: UnitRow) -> str:
    """A contrast with its interval."""
    if row.contrast_low is None or row.contrast_high is None:
        return signed(row.contrast)
    return f"{signed(row.contrast)} [{signed(row.contrast_low)}, {signed(row.contrast_high)}]"


def signed(value: float | None) -> str:
    """A number with its sign, or a dash."""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def p_words(value: float | None) -> str:
    """A p-value, or a dash."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
