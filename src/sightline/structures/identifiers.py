"""Names that people and machines write differently and mean alike: ids of patients and studies, names of files.

A Mac writes `ü` as two letters, a spreadsheet adds a blank that has no width, a word processor makes a hyphen longer.
Ids are therefore compared in one form (Unicode NFKC, UAX 15, without what has no width, with one hyphen), and what
tables and file systems cannot hold is taken out of them at the start, so that what is written is what is read back.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from sightline.errors import RecipeError

# how recipes on disk name files of weights: `sha256:DIGEST/FILE`
BY_CONTENT = "sha256:"
# dashes that are not of Unicode's category for them: the minus sign, a hyphen bullet, a modifier
_DASHES = frozenset("\u2212\u2043\u02d7")
_PLACEHOLDERS = frozenset(("", "nan", "na", "n/a", "nat", "null", "nil", "inf", "value", "ref", "unk", "unknown"))
_PLACEHOLDERS |= frozenset(("not known", "not available", "anonymous", "anonymised", "anonymized", "anon"))
_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".dcm", ".dicom", ".dic", ".ima")
)
_SUFFIXES |= frozenset((".nii", ".gz", ".mha", ".nrrd", ".jp2", ".j2k", ".jls", ".npy"))


def clean_text(text: str) -> str:
    r"""A text as a cell of a table gives it back: no control letters, no half letters, no blanks around it.

    Bytes of a file's name that are no letters are written out.

    Example:
        >>> clean_text("IM0001 \0")
        'IM0001'
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text.strip()
    whole = text.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="backslashreplace")
    return "".join(" " if c in "\t\r\n" else c for c in whole if c in "\t\r\n" or not _is_control(c)).strip()


def _is_control(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cs")


def normalise_form(text: str) -> str:
    r"""The one form in which ids are compared; upper and lower case stay apart.

    Example:
        >>> same_form("Mu\u0308ller\u200b \u2011 7") == normalise_form("M\u00fcller - 7")
        True
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    letters = []
    for letter in unicodedata.normalize("NFKC", clean_text(text)):
        kind = unicodedata.category(letter)
        if kind == "Cf" or "\ufe00" <= letter <= "\ufe0f":
            continue  # no width: joiners, marks of direction, byte-order marks, soft hyphens, variation selectors
        letters.append("-" if kind == "Pd" or letter in _DASHES else letter)
    # a letter that was kept apart from its accent by one without width joins it now
    return unicodedata.normalize("NFKC", " ".join("".join(letters).split()))


def group_alike_names(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Names that differ in upper and lower case, marks between their letters, zeros before a number (which spreadsheets
    drop) or Unicode form alone, in groups.

    Example:
        >>> group_alike_names(["Normal", "fracture", "normal"])
        [('Normal', 'normal')]
        >>> group_alike_names(["AB 0012", "AB/12", "AB/1.2", "AB+", "AB-"])
        [('AB 0012', 'AB/12')]
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        form = normalise_form(name).casefold()
        form = re.sub(r"^(\d+)\.0+$", r"\1", form)  # a number that a spreadsheet took for a fraction
        sign = "+" * form.endswith("+")  # `HER2+` beside `HER2-`, `+` beside `-`
        form = re.sub(r"[^\w.]|_", " ", form)
        form = " ".join(re.sub(r"(?<![\d.])0+(?=\d)", "", form).split())
        groups.setdefault(f"{form}{sign}" or name, []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def find_placeholders(names: Iterable[str]) -> list[str]:
    """Names that programs write where a cell was empty or a formula failed, and people where they do not know.

    Example:
        >>> find_placeholders(["nan", "P1", "#N/A", "Anonymous"])
        ['nan', '#N/A', 'Anonymous']
    """
    every = list(names)
    signs = "+" in every  # beside it, `-` is a class of its own
    forms = {name: normalise_form(name).casefold().strip("#<>-?!.() ") for name in every}
    return [name for name, form in forms.items() if form in _PLACEHOLDERS and not (signs and name == "-")]


def blank_placeholders(values: Sequence[str]) -> list[str]:
    """Cells without blanks around them; empty where they stand for an empty one.

    Example:
        >>> blank_placeholders(["F", " M", "NaN", "n/a"])
        ['F', 'M', '', '']
    """
    plain = [str(value).strip() for value in values]
    empty = set(find_placeholders(set(plain)))
    return ["" if value in empty else value for value in plain]


def name_files(names: Iterable[str]) -> dict[str, str]:
    """An id for each file: its name without the suffix of a picture; whole where two would share one.

    What follows the last dot of `1.2.840.1` is no suffix.

    Example:
        >>> name_files(["a/1.2.840.1", "b.png", "c.png", "c.jpg"])
        {'a/1.2.840.1': 'a/1.2.840.1', 'b.png': 'b', 'c.png': 'c.png', 'c.jpg': 'c.jpg'}
    """
    every = list(dict.fromkeys(names))
    short = {name: _strip_suffix(name) for name in every}
    # a name that is whole already may be what another is shortened to
    counts: dict[str, int] = {}
    for name in every:
        counts[normalise_form(short[name])] = counts.get(normalise_form(short[name]), 0) + 1
    return {name: short[name] if counts[normalise_form(short[name])] == 1 else name for name in every}


def separate_names(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Names to be shown side by side: to those that occur twice, as much of the path is added as tells them apart.

    Args:
        names: titles, such as those of runs.
        paths: a path each; where the paths are one as well, a number is added.

    Example:
        >>> separate_names(["guided", "guided", "plain"], [Path("runs/0"), Path("runs/1"), Path("runs/2")])
        ['guided (0)', 'guided (1)', 'plain']
    """
    tails: dict[int, str] = {}
    for name in {name for name in names if names.count(name) > 1}:
        parts = {i: Path(path).absolute().parts for i, path in enumerate(paths) if names[i] == name}
        depths = range(1, max(map(len, parts.values())) + 1)
        ends = ({i: "/".join(one[-depth:]) for i, one in parts.items()} for depth in depths)
        found = next((end for end in ends if len(set(end.values())) == len(end)), None)
        tails |= found or {i: f"{parts[i][-1]}, {number}" for number, i in enumerate(parts, 1)}
    return [f"{name} ({tails[i]})" if i in tails else name for i, name in enumerate(names)]


def format_apart(numbers: Sequence[float], digits: int = 4, style: str = "g") -> list[str]:
    """Numbers to be shown side by side: with so many digits, or as many more as tell those apart that differ.

    Example:
        >>> format_apart([0.25, 0.49963, 0.49961]), format_apart([0.25, 0.5, 0.5])
        (['0.25', '0.49963', '0.49961'], ['0.25', '0.5', '0.5'])
    """
    for more in range(digits, 18):
        texts = [f"{number:.{more}{style}}" for number in numbers]
        if len(set(texts)) == len(set(numbers)):
            break
    return texts


def _strip_suffix(name: str) -> str:
    path = PurePosixPath(name)
    while path.suffix.lower() in _SUFFIXES and path.stem:
        path = path.with_suffix("")
    return path.as_posix()


def find_weights(place: str, name: str) -> Path:
    """The weights file: `place` itself, or the one in that folder named `<name>*.safetensors`.

    Raises:
        RecipeError: no such file, several, or one of another format; or a name by content, which says no place.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        found = sorted(path.glob(f"{name}*.safetensors"))
        found = [file for file in found if file.name.split(".")[0] == name.split(".")[0]] or found
        if len(found) != 1:
            what = ", ".join(file.name for file in found) or "none"
            raise RecipeError(
                f"Folder {path} must hold one {name}*.safetensors; found {what}.", "Name the file itself."
            )
        return found[0]
    if place.startswith(BY_CONTENT):
        raise RecipeError(
            f"No file on this machine is known to hold the weights {place}.",
            "Name a file with this content (its SHA-256 begins so): --weights FILE.",
        )
    if not path.is_file():
        raise RecipeError(
            f"Weights {place!r} are neither a file, a folder nor 'imagenet'.", "Give an existing .safetensors file."
        )
    if path.suffix != ".safetensors":
        raise RecipeError(
            f"Weights {path} are no .safetensors file.", "Convert them; pickled weights are never opened."
        )
    return path
