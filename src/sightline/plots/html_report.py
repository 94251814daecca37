"""A report that is one file: text, tables and pictures in a page that needs no network, no script and no viewer.

Plain language first, then numbers with their n and intervals, then pictures, and at the end what the numbers were
made from. The same arguments give the same bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path

from PIL import Image

from sightline.errors import RunError

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

WIDE_PX = 860
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
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    published: tuple[str, ...] = ()
    strong: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse rows of another length and published columns that do not exist."""
        for n, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise RunError(f"{self.caption}: row {n + 1} has {len(row)} cells for {len(self.columns)} columns.")
        unknown = [name for name in self.published if name not in self.columns]
        if unknown:
            raise RunError(f"{self.caption}: no column is called {unknown[0]!r}; there are {list(self.columns)}.")


@dataclass(frozen=True)
class ReportPicture:
    """A PNG with its caption, and what it shows in words for whoever cannot see it."""

    png: bytes
    caption: str
    alt: str


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
    """The page that `write_report` writes, as text."""
    style = resources.files("sightline.plots").joinpath("report_style.css").read_text(encoding="utf-8")
    headings = [section.title for section in sections] + ["Provenance"]
    contents = [f'<li><a href="#section-{n}">{escape(name)}</a></li>' for n, name in enumerate(headings, start=1)]
    paragraphs = [summary] if isinstance(summary, str) else summary
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        # the page may load nothing: patients' pictures in it can neither call home nor run anything
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
        f"<title>{escape(title)}</title>",
        f"<style>\n{style}</style>",
        "</head>",
        "<body>",
        "<header>",
        f"<h1>{escape(title)}</h1>",
        *[f'<p class="summary">{escape(text)}</p>' for text in paragraphs],
        "</header>",
        '<aside class="box" aria-labelledby="how-to-read">',
        '<h2 id="how-to-read">How to read this</h2>',
        "<dl>",
        *[f"<div><dt>{escape(term)}</dt><dd>{escape(text)}</dd></div>" for term, text in how_to_read],
        "</dl>",
        "</aside>",
        '<nav aria-label="Contents">',
        "<strong>Contents</strong>",
        "<ol>",
        *contents,
        "</ol>",
        "</nav>",
        "<main>",
    ]
    for n, section in enumerate(sections, start=1):
        parts += [f'<section id="section-{n}">', f"<h2>{escape(section.title)}</h2>"]
        parts += [f"<p>{escape(text)}</p>" for text in section.paragraphs]
        for table in section.tables:
            parts += _table(table)
        for picture in section.pictures:
            parts += _picture(picture)
        parts.append("</section>")
    parts += [
        f'<section id="section-{len(headings)}" class="provenance">',
        "<h2>Provenance</h2>",
        "<table>",
        "<tbody>",
        *[f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in provenance.items()],
        "</tbody>",
        "</table>",
        "</section>",
        "</main>",
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(parts)


def _table(table: ReportTable) -> Iterable[str]:
    yield '<figure class="table">'
    # above the scrolling box and not a <caption> in it: on a phone the words stay while the columns move
    yield f"<figcaption>{escape(table.caption)}</figcaption>"
    yield f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.caption)}">'
    yield "<table>"
    yield "<thead>"
    heads = [
        f'<th scope="col" class="published">{escape(name)}<small>printed in the paper, not measured here</small></th>'
        if name in table.published
        else f'<th scope="col">{escape(name)}</th>'
        for name in table.columns
    ]
    yield "<tr>" + "".join(heads) + "</tr>"
    yield "</thead>"
    yield "<tbody>"
    for r, row in enumerate(table.rows):
        cells = []
        for c, text in enumerate(row):
            classes = {
                "published": table.columns[c] in table.published,
                "strong": (r, c) in table.strong,
                "short": len(text) <= SHORT,
            }
            names = [name for name, holds in classes.items() if holds]
            attribute = f' class="{" ".join(names)}"' if names else ""
            head = "th" if c == 0 else "td"
            scope = ' scope="row"' if c == 0 else ""
            cells.append(f"<{head}{scope}{attribute}>{escape(text)}</{head}>")
        yield "<tr>" + "".join(cells) + "</tr>"
    yield "</tbody>"
    yield "</table>"
    yield "</div>"
    if table.notes:
        yield '<ul class="notes">' + "".join(f"<li>{escape(note)}</li>" for note in table.notes) + "</ul>"
    yield "</figure>"


def _picture(picture: ReportPicture) -> Iterable[str]:
    try:
        with Image.open(io.BytesIO(picture.png), formats=["PNG"]) as image:
            width, height = image.size
            mime, content = _smallest(image, picture.png)
    except (OSError, SyntaxError):
        raise RunError(f"{picture.caption}: a picture of a report must be a PNG.") from None
    data = base64.b64encode(content).decode("ascii")
    breadth = "wide" if width > WIDE_PX else "narrow"
    yield "<figure>"
    yield '<div class="scroll">'
    yield (
        f'<img class="{breadth}" width="{width}" height="{height}" alt="{escape(picture.alt)}" '
        f'src="data:image/{mime};base64,{data}">'
    )
    yield "</div>"
    yield f"<figcaption>{escape(picture.caption)}</figcaption>"
    yield "</figure>"


def _smallest(image: Image.Image, png: bytes) -> tuple[str, bytes]:
    """The picture as the page holds it: radiographs as WebP at a quality at which no eye tells them apart.

    What is small as PNG, drawings of lines above all, stays as it is. The files beside the page are PNG in any case.
    """
    if len(png) < SMALL_BYTES:
        return "png", png
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="WEBP", quality=90, method=4)
    content = buffer.getvalue()
    return ("webp", content) if len(content) < len(png) / 2 else ("png", png)
