"""A reporting checklist, filled from a run: each filled item with its file, the others left to the author, counted."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from sightline.errors import LayoutError, RunError, count_noun
from sightline.evaluation.checklists.facts import GROUPS, Fact, RunRecord
from sightline.evaluation.checklists.guidelines import GUIDELINES, Guideline, GuidelineItem
from sightline.io.files import write_text
from sightline.io.tables import read_table
from sightline.training.run import Run

COLUMNS = ("item", "section", "asked", "state", "from the run", "sources", "still to be said", "author")
FILLED, PART, BLANK = "filled", "in part", "for the author"


@dataclass(frozen=True)
class ItemAnswer:
    """An item and what the run says to it.

    Attributes:
        item: what is asked.
        facts: what answers it.
        author: what its author wrote into the table before.
        unknown: groups of facts that would answer it and are not in the run's files.
    """

    item: GuidelineItem
    facts: tuple[Fact, ...]
    author: str = ""
    unknown: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """`filled`, `in part` (something is lacking), or `for the author`."""
        if not self.facts:
            return BLANK
        return PART if self.lacks else FILLED

    @property
    def lacks(self) -> str:
        """What the author must still say."""
        if not self.facts:
            return "all"
        unknown = f"not in the run's files: {', '.join(self.unknown)}" if self.unknown else ""
        return "; ".join(words for words in (self.item.lacks, unknown) if words)


@dataclass(frozen=True)
class Checklist:
    """A guideline, item by item.

    Attributes:
        guideline: which one.
        answers: to its items, in its order.
    """

    guideline: Guideline
    answers: tuple[ItemAnswer, ...]

    def counts(self) -> dict[str, int]:
        """How many items are filled, filled in part, and left to the author."""
        return {state: sum(each.state == state for each in self.answers) for state in (FILLED, PART, BLANK)}

    def summary(self) -> str:
        """The counts, in a line."""
        counted = ", ".join(f"{n} {state}" for state, n in self.counts().items())
        return f"{self.guideline.title}: {count_noun(len(self.answers), 'item')}, {counted}"

    def csv(self) -> str:
        """A table, a row an item; the column `author` is the author's and is kept."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for each in self.answers:
            answer = "; ".join(fact.text() for fact in each.facts)
            sources = "; ".join(fact.source for fact in each.facts)
            writer.writerow(
                [
                    each.item.number,
                    each.item.section,
                    each.item.words,
                    each.state,
                    answer,
                    sources,
                    each.lacks,
                    each.author,
                ]
            )
        return out.getvalue()

    def markdown(self, title: str) -> str:
        """A page."""
        lines = [f"# {self.guideline.title}: {title}", "", f"{self.summary()}.", ""]
        lines += [f"{self.guideline.citation}. Item numbers are the guideline's, the words are not: read it.", ""]
        lines += ["What stands here is what the run's own files say; read whether it answers the item. Write your own "
                  "words into the column `author` of the csv file: they are kept and shown here.", ""]  # fmt: skip
        section = ""
        for each in self.answers:
            if each.item.section != section:
                section = each.item.section
                lines += [f"## {section}", ""]
            lines += [f"**{each.item.number}. {each.item.words}** ({each.state})", ""]
            lines += [f"- {_escape_cell(fact.text())} (`{fact.source}`)" for fact in each.facts]
            if each.author:
                lines.append(f"- author: {_escape_cell(each.author)}")
            elif each.lacks:
                lines.append(f"- to be said by the author: {each.lacks}")
            lines.append("")
        return "\n".join(lines)


def _escape_cell(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;")


def fill_checklist(run: Run, name: str, authors: dict[str, str] | None = None) -> Checklist:
    """Fill a guideline's checklist from a finished run, its calibration and the evaluations in its folder.

    Args:
        run: the run.
        name: `CLAIM`, `TRIPOD+AI` or `STARD-AI`.
        authors: what the author has said, by item.

    Raises:
        RunError: an unfinished run, or no such guideline.
    """
    if name not in GUIDELINES:
        raise RunError(f"There is no checklist {name!r}.", f"Known: {', '.join(GUIDELINES)}.")
    record = RunRecord(run)
    known = {group: tuple(read(record)) for group, read in GROUPS.items()}
    answers = []
    for item in GUIDELINES[name].items:
        facts = dict.fromkeys(fact.source for group in item.facts for fact in known[group])
        by_source = {fact.source: fact for group in item.facts for fact in known[group]}
        unknown = tuple(group for group in item.facts if not known[group])
        found_facts = tuple(by_source[source] for source in facts)
        answers.append(ItemAnswer(item, found_facts, (authors or {}).get(item.number, ""), unknown))
    return Checklist(GUIDELINES[name], tuple(answers))


def write_checklist(run: Run, name: str, out: Path) -> Checklist:
    """Write `NAME.md` and `NAME.csv`; what an author wrote into the table's column `author` before is kept.

    Args:
        run: a finished run.
        name: of the guideline.
        out: folder to write.

    Raises:
        RunError: an unfinished run, no such guideline, or a table of before that does not read.
    """
    path = out / f"{name}.csv"
    found = fill_checklist(run, name, _read_authors(path))
    write_text(path, found.csv())
    write_text(out / f"{name}.md", found.markdown(run.recipe.title))
    return found


def _read_authors(path: Path) -> dict[str, str]:
    # an empty file holds nobody's words
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        return {}
    try:
        return {row["item"]: row["author"] for row in read_table(path, ("item", "author")) if row["author"]}
    except LayoutError as error:
        raise RunError(f"{error.message} An author's words may stand in it.", "Mend it, or move it away.") from None
