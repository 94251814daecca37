"""A report that is one file: text, tables and pictures in a page that needs no network, no script and no viewer.

Plain language first, then numbers with their n and intervals, then pictures, and at the end what the numbers were
made from. The same arguments give the same bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from sightline.errors import RunError, count_noun

HOW_TO_READ: tuple[tuple[str, str], ...] = (
    (
        "Image-wise and study-wise",
        "Image-wise judges every radiograph by itself. Study-wise averages the probabilities over all views of a "
        "study first, as a reader looks at all views.",
    ),
    (
        "Intervals",
        "The two numbers in brackets hold the true value in about 95 of 100 repetitions with other patients. A "
        "difference whose interval holds zero may be chance.",
    ),
    (
        "Regions",
        "A dashed blue outline is the focus region (where an expert said to look), a solid green one the finding "
        "itself.",
    ),
    (
        "Class map",
        "From clear to orange: where a class scored lowest and highest within that picture. Each map has its own "
        "scale, so compare places, not colours, between two maps.",
    ),
    (
        "Attention",
        "Yellow pushes the class up, blue pushes it down, clear does neither. Within one panel equal colour is an "
        "equal push.",
    ),
    (
        "Chance level",
        "Beside each measure of where the network looked stands what a network looking anywhere would reach.",
    ),
    (
        "What this is not",
        "A map shows where the network looked, not what is there. Nothing here is a diagnosis, and nothing here has "
        "been cleared for clinical use.",
    ),
)

WIDE_PX, WIDER_PX = 860, 1280
SHORT = 26  # characters of a cell that is not broken over lines
SMALL_BYTES = 32_000


@dataclass(frozen=True)
class ReportTable:
    """A table of words and numbers that are already written out.

    Attributes:
        caption: what the table shows, above it.
        columns: headings; the first column names the rows.
        rows: cells as text, as many as there are columns.
        published: headings among `columns` that hold values printed in a paper, not measured here.
        strong: (row, column) positions to set in bold.
        notes: lines below the table: n, method of the intervals, what was left out.
        folded: only its caption is seen until a reader opens it; on paper it is open.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    published: tuple[str, ...] = ()
    strong: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()
    folded: bool = False

    def __post_init__(self) -> None:
        """Refuse rows of another length and published columns that do not exist."""
        for n, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise RunError(
                    f"{self.caption}: row {n + 1} has {count_noun(len(row), 'cell')} for "
                    f"{count_noun(len(self.columns), 'column')}."
                )
        unknown = [name for name in self.published if name not in self.columns]
        if unknown:
            raise RunError(f"{self.caption}: no column is called {unknown[0]!r}; there are {list(self.columns)}.")


@dataclass(frozen=True)
class ReportPicture:
    """A PNG with its caption, and what it shows in words for whoever cannot see it.

    `phone`: the same for a narrow screen, None where the picture is scaled or scrolls there.
    """

    png: bytes
    caption: str
    alt: str
    phone: bytes | None = None


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it, in this order."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    pictures: tuple[ReportPicture, ...] = ()


def write_report(
    path: Path,
    *,
    title: str,
    summary: str | Sequence[str],
    sections: Sequence[Section],
    provenance: Mapping[str, str],
    how_to_read: Sequence[tuple[str, str]] = HOW_TO_READ,
) -> None:
    """Write one self-contained HTML file; an older one is replaced only when the new one is complete.

    Args:
        path: the file; its folder is made where it is missing.
        title: of the page.
        summary: what was found, in plain language: one paragraph or several.
        sections: in reading order.
        provenance: versions, seeds, cohort fingerprint, commands: name -> text.
        how_to_read: term and explanation, the box under the summary.

    Raises:
        RunError: a picture that is no PNG, or a folder that cannot be written.
    """
    page = render_report(
        title=title, summary=summary, sections=sections, provenance=provenance, how_to_read=how_to_read
    )
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8", newline="\n")
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise RunError(f"{path}: the report cannot be written ({error.strerror}).", "Choose another folder.") from None


def render_report(
    *,
    title: str,
    summary: str | Sequence[str],
    sections: Sequence[Section],
    provenance: Mapping[str, str],
    how_to_read: Sequence[tuple[str, str]] = HOW_TO_READ,
) -> str:
    """The page that `write_report` writes, as text: answer and pictures first, then what explains them."""
    style = resources.files("sightline.plots").joinpath("report_style.css").read_text(encoding="utf-8")
    return (
        _build_environment()
        .get_template("report.html.jinja")
        .render(
            title=title,
            style=Markup(style),
            summary=[summary] if isinstance(summary, str) else list(summary),
            sections=[replace(s, pictures=tuple(_embed_picture(p) for p in s.pictures)) for s in sections],
            headings=[section.title for section in sections] + ["Provenance"],
            how_to_read=how_to_read,
            provenance=list(provenance.items()),
            cell_classes=_choose_cell_classes,
        )
    )


def _build_environment() -> Environment:
    """Templates of this folder; every value is escaped."""
    loader = PackageLoader("sightline", "plots")
    return Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)


def _choose_cell_classes(table: ReportTable, row: int, column: int) -> str:
    holds = {
        "published": table.columns[column] in table.published,
        "strong": (row, column) in table.strong,
        "short": len(table.rows[row][column]) <= SHORT,
    }
    return " ".join(name for name, true in holds.items() if true)


@dataclass(frozen=True)
class _EmbeddedPicture:
    """A picture as the page holds it."""

    caption: str
    alt: str
    breadth: str
    screen: _EmbeddedImage
    phone: _EmbeddedImage | None


@dataclass(frozen=True)
class _EmbeddedImage:
    width: int
    height: int
    address: str


def _embed_picture(picture: ReportPicture) -> Any:
    screen = _embed_image(picture.png, picture.caption)
    phone = None if picture.phone is None else _embed_image(picture.phone, picture.caption)
    breadth = "wide" if screen.width > WIDE_PX and phone is None else "narrow"
    if breadth == "wide" and screen.width > WIDER_PX:
        breadth = "wider"
    return _EmbeddedPicture(picture.caption, picture.alt, breadth, screen, phone)


def _embed_image(png: bytes, caption: str) -> _EmbeddedImage:
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            width, height = image.size
            mime, content = _encode_smallest(image, png)
    except (OSError, SyntaxError):
        raise RunError(f"{caption}: a picture of a report must be a PNG.") from None
    return _EmbeddedImage(width, height, f"data:image/{mime};base64,{base64.b64encode(content).decode('ascii')}")


def _encode_smallest(image: Image.Image, png: bytes) -> tuple[str, bytes]:
    """The picture as the page holds it: radiographs as WebP at a quality at which no eye tells them apart.

    What is small as PNG, drawings of lines above all, stays as it is. The files beside the page are PNG in any case.
    """
    if len(png) < SMALL_BYTES:
        return "png", png
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="WEBP", quality=90, method=4)
    content = buffer.getvalue()
    return ("webp", content) if len(content) < len(png) / 2 else ("png", png)
