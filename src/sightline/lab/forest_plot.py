"""Differences from a reference with their intervals, a line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sightline.errors import RunError
from sightline.lab.chart import PALETTE, chart, headed, require, require_finite
from sightline.lab.sheet import png_of


@dataclass(frozen=True)
class ForestRow:
    """A difference with its 95% interval; no interval where `low` and `high` are None. `note` carries n."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""


def forest(
    rows: Sequence[ForestRow],
    *,
    title: str = "Difference from the unguided network",
    xlabel: str = "difference (95% interval)",
    better: tuple[str, str] = ("worse", "better"),
    decimals: int = 3,
) -> bytes:
    """Differences with 95% intervals about a line at zero; filled where the interval leaves out zero.

    Raises:
        RunError: no rows, a value that is not finite, or an interval that does not hold its ends in order.
    """
    require(rows, "rows")
    require_finite(title, [v for row in rows for v in (row.value, row.low, row.high)])
    for row in rows:
        if (row.low is None) != (row.high is None) or (
            row.low is not None and row.high is not None and row.low > row.high
        ):
            raise RunError(f"{row.name}: an interval needs a low end below its high end; got {row.low}, {row.high}.")
    figure, axes = chart(9.2, 1.75 + 0.36 * len(rows))
    axes.axvline(0.0, color="#222222", linewidth=1.1)
    for y, row in enumerate(rows):
        clear = row.low is not None and row.high is not None and (row.low > 0 or row.high < 0)
        words = _signed(row.value, decimals)
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [y, y], color=PALETTE[0], linewidth=2.2, solid_capstyle="butt")
            words += f"  [{_signed(row.low, decimals)}, {_signed(row.high, decimals)}]"
        axes.plot(row.value, y, "o", color=PALETTE[0], markerfacecolor=PALETTE[0] if clear else "white", markersize=7)
        words += f"   {row.note}" if row.note else ""
        axes.text(1.02, y, words, transform=axes.get_yaxis_transform(), va="center", fontsize=9.5, parse_math=False)
    ends = [abs(v) for row in rows for v in (row.value, row.low, row.high) if v is not None]
    reach = 1.1 * max(ends) or 1.0
    axes.set(
        xlim=(-reach, reach), ylim=(len(rows) - 0.4, -0.6), xlabel=f"←  {better[0]}      {xlabel}      {better[1]}  →"
    )
    axes.set_yticks(range(len(rows)), [row.name for row in rows], parse_math=False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    headed(axes, title)
    return png_of(figure)


def _signed(value: float, decimals: int) -> str:
    return f"{value:+.{decimals}f}".replace("-", "−")
