"""Every layout a data set may come in: one line a layout, by the word that `sightline cohort import` takes.

A layout is a module with a frozen dataclass `Options` and `read(source, options)`; the command line's options, its
help and the page on cohorts follow from them. Modules are imported on first use, so that help costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.data.datasets.folder.format import HEAD
from sightline.errors import LayoutError
from sightline.io.files import BEGUN, LOCK_NAME, mark_whole, require_empty, rewrite_folder

if TYPE_CHECKING:
    from sightline.io.picture import Reject
    from sightline.structures.case import Cohort

Bar = Callable[[str, int], AbstractContextManager[Callable[..., None]]]

LAYOUTS = {
    "folder": "sightline.data.datasets.folder.reader",
    "pictures": "sightline.data.datasets.pictures",
    "dicom": "sightline.data.datasets.dicom_folder",
    "dicom_ct": "sightline.data.datasets.ct_series",
    "coco": "sightline.data.datasets.coco",
    "fracatlas": "sightline.data.datasets.fracatlas",
    "grazpedwri": "sightline.data.datasets.grazpedwri",
    "cub200": "sightline.data.datasets.cub200",
    "chest_lungs": "sightline.data.datasets.chest_lungs",
    "egd_cxr": "sightline.data.datasets.gaze.egd_cxr",
    "reflacx": "sightline.data.datasets.gaze.reflacx",
    "tracker": "sightline.data.datasets.gaze.eye_tracker",
    "verse": "sightline.data.datasets.verse.patches",
}

# layouts whose files are searched for, so that what is not found is missed by no table
_SEARCHED = ("pictures", "dicom", "dicom_ct", "grazpedwri", "verse")


@dataclass(frozen=True)
class Layout:
    """A layout: its options and its reader.

    Attributes:
        word: what names it.
        about: its module's first line.
        options: the dataclass of its options.
        read: `(source, options)` to a cohort, or a cohort and rejects; None where volumes are written into a folder.
        cut: `(source, destination, options, progress)` to a cohort and rejects; None where nothing is written.
    """

    word: str
    about: str
    options: type[Any]
    read: Callable[..., Any] | None
    cut: Callable[..., Any] | None


def find_layout(word: str) -> Layout:
    """The layout a word names.

    Raises:
        LayoutError: no layout has that name.

    Example:
        >>> find_layout("verse").options().mode
        'rigid'
    """
    if word not in LAYOUTS:
        raise LayoutError(f"No layout is called {word!r}.", f"Choose one of {', '.join(LAYOUTS)}.")
    module = import_module(LAYOUTS[word])
    about = (module.__doc__ or "").strip().splitlines()[0]
    members = vars(module)
    return Layout(word, about, module.Options, members.get("read"), members.get("cut"))


@contextmanager
def _begin_volumes(destination: Path) -> Iterator[None]:
    """Mark a folder as begun while volumes are written into it; `write_cohort` takes the mark away.

    What fails before the first volume leaves nothing, what fails later a folder that the same call begins again.
    """
    if (destination / HEAD).exists():
        yield  # the copy of a finished cohort
        return
    new = not destination.exists()
    require_empty(destination)
    try:
        yield
    except BaseException:
        if not any(entry.name != BEGUN for entry in destination.iterdir() if not entry.name.endswith(LOCK_NAME)):
            mark_whole(destination)
            if new:
                destination.rmdir()
        raise


def may_stay_unsplit(word: str) -> bool:
    """Whether a layout splits by default, and does not with `--fractions None`."""
    split = find_layout(word).options.__dataclass_fields__.get("fractions")
    return split is not None and split.default is not None and "None" in str(split.type)


def import_layout(
    word: str, source: Path, destination: Path, options: Any = None, progress: Bar | None = None
) -> tuple[Cohort, tuple[Reject, ...]]:
    """Read a data set and write it as a cohort, with `rejects.csv` where files could not be read.

    A finished cohort is replaced only by a repeat of the import that wrote it (same layout, folder and name; other
    options, labels and files may be), and only as nobody changed it since. It is replaced as a whole once everything
    has succeeded; until then none of its files is touched, volumes among them.

    Raises:
        LayoutError: as `read_layout` and `write_cohort`; another cohort, and the source itself, are refused before
            anything is read.
    """
    # the readers of tables do without the writer
    from sightline.data.datasets.folder.origin import name_origin, require_repeat
    from sightline.data.datasets.folder.writer import write_cohort
    from sightline.io.picture import write_rejects

    origin = name_origin(source, word)
    if origin == name_origin(destination, word):
        raise LayoutError(f"{source} is read, and the cohort would be written over it.", "Name another folder.")
    finished = (destination / HEAD).exists()
    if finished:
        require_repeat(destination, origin)
    with rewrite_folder(destination, HEAD) if finished else nullcontext(destination) as place:
        cohort, rejects = read_layout(word, source, options, place, progress)
        write_cohort(cohort, place, origin=origin)
        (place / "rejects.csv").unlink(missing_ok=True)
        if rejects:
            write_rejects(place / "rejects.csv", rejects)
    return cohort, rejects


def read_layout(
    word: str,
    source: str | Path,
    options: Any = None,
    destination: str | Path | None = None,
    progress: Bar | None = None,
) -> tuple[Cohort, tuple[Reject, ...]]:
    """Read a data set; files that could not be read come back beside the cohort.

    Args:
        word: how the source is laid out (`LAYOUTS`).
        source: its folder.
        options: the layout's `Options`; its defaults when None.
        destination: the cohort's folder, for layouts whose volumes are written into it (verse, dicom_ct).
        progress: what shows progress where it takes long.

    Raises:
        LayoutError: no such layout, options of another one, or a source that does not follow the layout.
    """
    from sightline.data.split import split_cohort
    from sightline.io.picture import join_reasons, mention_rejects

    layout = find_layout(word)
    chosen = layout.options() if options is None else options
    if not isinstance(chosen, layout.options):
        raise LayoutError(
            f"Options of {type(chosen).__module__} were given for the layout {word}.", f"Use {LAYOUTS[word]}.Options."
        )
    if layout.cut is not None:
        if destination is None:
            raise LayoutError(f"{word} writes volumes and needs a destination.", "Name the folder to write.")
        with _begin_volumes(Path(destination)):
            cohort, rejects = layout.cut(Path(source), Path(destination), chosen, progress)
        return cohort, (*rejects, *_list_unsearched(word, Path(source), ()))
    assert layout.read is not None
    read = layout.read(Path(source), chosen)
    cohort, rejects = read if isinstance(read, tuple) else (read, ())
    rejects = (*rejects, *_list_unsearched(word, Path(source), [case.image for case in cohort]))
    if not len(cohort) and rejects:
        raise LayoutError(f"{source}: nothing was read as a case.{join_reasons(rejects)}", rejects[0].remedy)
    fractions = vars(chosen).get("fractions")
    if fractions is not None and len(cohort.classes) > 1 and all(case.split is None for case in cohort):
        with mention_rejects(rejects):
            cohort = split_cohort(cohort, fractions, chosen.seed)
    return cohort, tuple(rejects)


def _list_unsearched(word: str, source: Path, images: Sequence[Path]) -> list[Reject]:
    """Folders that a search of the source passes over: links to folders elsewhere of which no image was read, and
    cohorts in our layout, which would be second copies of what they were imported from.
    """
    if word not in _SEARCHED:
        return []
    from sightline.io.files import find_linked_folders
    from sightline.io.picture import Reject

    unread = (link for link in find_linked_folders(source) if not any(image.is_relative_to(link) for image in images))
    remedy = "Import that folder itself, or copy it here."
    rejects = [Reject(link, f"{link}: a link to a folder, which is not followed.", remedy) for link in unread]
    heads = sorted(source.rglob(HEAD)) if word in ("pictures", "dicom") else []
    hidden = {at for at in heads if any(part.startswith(".") for part in at.relative_to(source).parts)}
    inner = [head.parent for head in heads if head not in hidden and head.parent != source]
    return rejects + [Reject(at, f"{at}: a cohort in our layout, which is not searched.", remedy) for at in inner]
