"""Errors a user can act on: what was got, what was expected, how to mend it."""

from __future__ import annotations

import re


def _printable(text: str) -> str:
    """The text with control characters, half letters and marks of direction as their escapes."""
    if text.isprintable():
        return text
    # lines of our own lists are set in by two blanks; other breaks came with a stranger's text
    text = re.sub(r"\n(?!  )(?=.)", r"\\n", text, flags=re.DOTALL)
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class SightlineError(Exception):
    """Something the user can mend.

    Args:
        message: what was got and what was expected, naming the file or field.
        remedy: how to mend it, in one sentence; may be empty.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        # names and headers of strangers stand in messages: what would move a cursor or turn a line round is escaped
        self.message, self.remedy = _printable(message), _printable(remedy)
        super().__init__(self.message)

    def __str__(self) -> str:
        """The message, with the remedy after it."""
        return f"{self.message} Remedy: {self.remedy}" if self.remedy else self.message


class UnreadableFile(SightlineError):
    """A file that cannot be read as what it was expected to be."""


class LayoutError(SightlineError):
    """A folder or table that does not follow the layout it was read as."""


class GeometryError(SightlineError):
    """Shapes, frames or regions that do not fit each other."""


class CohortError(SightlineError):
    """A cohort that would spoil a result: leakage, a missing class, an empty split."""


class RecipeError(SightlineError):
    """A recipe that cannot be built or read."""


class RunError(SightlineError):
    """A run folder that is incomplete, foreign or contradicts what was asked of it."""
