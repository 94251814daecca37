"""Errors a user can act on: what was got, what was expected, how to mend it."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

_SINGULAR = {f"{noun}s": noun for noun in ("image", "patient", "case", "training", "seed", "picture", "reader", "box")}
_SINGULAR |= {"studies": "study", "boxes": "box", "classes": "class"}


def _escape(text: str) -> str:
    """The text with control characters, half letters and marks of direction as their escapes."""
    if text.isprintable():
        return text
    # lines of our own lists are set in by two blanks; other breaks came with a stranger's text
    text = re.sub(r"\n(?!  )(?=.)", r"\\n", text, flags=re.DOTALL)
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def count_noun(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun, for messages: `1 patient`, `3 patients`.

    Example:
        >>> count_noun(1, "study", "studies"), count_noun(1_200, "patient")
        ('1 study', '1200 patients')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def count_words(counts: Mapping[str, int]) -> str:
    """What was counted, in words; the nouns are plural where there are several of a thing.

    Example:
        >>> count_words({"images": 9, "studies": 3, "patients": 2, "patients with fracture": 1})
        '9 images, 3 studies, 2 patients, 1 patient with fracture'
    """
    words = []
    for name, number in counts.items():
        noun, *rest = name.replace("_", " ").split(" ")
        words.append(" ".join([str(number), _SINGULAR.get(noun, noun) if number == 1 else noun, *rest]))
    return ", ".join(words)


def quote_command(*words: object) -> str:
    """A command to copy into a shell; a path with blanks or quotes in it stays one word.

    Example:
        >>> quote_command("sightline", "gate", Path("my runs/a"), "--cohort", "DIR")
        "sightline gate 'my runs/a' --cohort DIR"
    """
    return shlex.join(map(str, words))


class SightlineError(Exception):
    """Something the user can mend.

    Args:
        message: what was got and what was expected, naming the file or field.
        remedy: how to mend it, in one sentence; may be empty.

    Example:
        >>> import sightline as sl
        >>> try:
        ...     sl.load_recipe("gided")
        ... except sl.SightlineError as error:
        ...     error.message
        "There is no recipe 'gided'."
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        # names and headers of strangers stand in messages: what would move a cursor or turn a line round is escaped
        self.message, self.remedy = _escape(message), _escape(remedy)
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


class FolderHeld(RunError):
    """A folder that another process writes into just now."""


def require_folder(folder: object, what: str) -> Path:
    """A path that a person gave, as a Path.

    Raises:
        SightlineError: no text and no path.
    """
    if not isinstance(folder, (str, Path)):
        raise SightlineError(f"A {what} was expected; got a {type(folder).__name__}.", "Give its path.")
    return Path(folder)


def require_numbers(name: str, given: object, *, whole: bool = False) -> tuple[Any, ...]:
    """What a person gave for an option, one number or several, as a tuple.

    Raises:
        RecipeError: something else, or a fraction where whole numbers are meant.
    """
    numbers = tuple(map(make_plain, _list(given)))
    if any(isinstance(number, bool) or not isinstance(number, int if whole else (int, float)) for number in numbers):
        words, such = ("whole numbers", "1") if whole else ("numbers", "0.1")
        raise RecipeError(f"{name} is {given!r}; expected {words}.", f"Give for example {name}={such}.")
    return numbers


def require_whole_number(name: str, given: object, *, least: float = -math.inf) -> int:
    """The one whole number that a person gave for an option.

    Raises:
        RecipeError: something else, several, or less than the least.
    """
    numbers = require_numbers(name, given, whole=True)
    if len(numbers) != 1:
        raise RecipeError(f"{name} is {given!r}; expected one whole number.", f"Give for example {name}=1.")
    if numbers[0] < least:
        raise RecipeError(f"{name} is {given!r}; expected {least} or more.", f"Give for example {name}={least}.")
    return int(numbers[0])


def make_plain(value: Any) -> Any:
    """A number of another library (`numpy.int64`, as in `np.arange(3)`) as Python's own; anything else as it is.

    Example:
        >>> import numpy as np
        >>> make_plain(np.int64(3)), make_plain("3")
        (3, '3')
    """
    if isinstance(value, (bool, int, float)) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def require_texts(name: str, given: object) -> tuple[Any, ...]:
    """What a person gave for an option, one text or path or several, as a tuple.

    Raises:
        RecipeError: something else.
    """
    texts = _list(given)
    if not all(isinstance(text, (str, Path)) for text in texts):
        raise RecipeError(f"{name} is {given!r}; expected texts.", f'Give for example {name}=["..."].')
    return texts


def _list(given: object) -> tuple[object, ...]:
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
