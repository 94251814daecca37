"""Trainings that a capsule holds, taken over into a table in place of training them again.

A capsule has everything that a table's numbers are computed from (predictions, scores, recipe, history), and neither
weights nor pictures. So a table can go on where another machine's ended, with more seeds, rows or sizes: a training of
the same recipe on the same cases has the same name there as here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from sightline.errors import count_noun
from sightline.evaluation.evidence.capsule import make_temporary_folder, unpack_capsule
from sightline.io.files import write_new_folder, write_text
from sightline.training.run import FROM_CAPSULE


def take_over_runs(
    capsules: Sequence[Path],
    wanted: Mapping[Path, Sequence[Path]],
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Path, ...]:
    """Put the runs that are wanted and that a capsule holds into their folders; which ones.

    A folder that is there already is left as it is. The first capsule that holds a run gives it. A run whose weights
    another one needs that is not held itself (a part, a teacher) is not taken: it has to be trained here.

    Args:
        capsules: files that `sightline capsule` wrote.
        wanted: run folders, named by what is trained on which cases, each with the folders whose weights it needs.
        say: told how many came from each capsule.

    Raises:
        RunError: no capsule, or a damaged one.

    Example:
        >>> take_over_runs((), {Path("out/runs/0123456789ab"): ()})
        ()
    """
    taken: list[Path] = []
    with ExitStack() as places:
        unpacked = []
        for path in capsules:
            place = Path(places.enter_context(make_temporary_folder(path)))
            unpacked.append((unpack_capsule(path, place), place / "runs"))
        held = {folder.name for _, runs in unpacked for folder in runs.glob("*") if (folder / "cohort.json").is_file()}
        trained = _list_weights_needed(wanted, held)
        for capsule, runs in unpacked:
            here = [
                folder
                for folder in wanted
                if folder not in trained and not folder.exists() and (runs / folder.name / "cohort.json").is_file()
            ]
            for folder in here:
                with write_new_folder(folder) as whole:
                    shutil.copytree(runs / folder.name, whole, dirs_exist_ok=True)
                    write_text(whole / FROM_CAPSULE, f"{capsule.digest}\n")
            taken += here
            count = count_noun(len(here), "training")
            say(f"{capsule.path.name} (digest {capsule.digest[:12]}): {count} taken over")
    return tuple(taken)


def _list_weights_needed(wanted: Mapping[Path, Sequence[Path]], held: set[str]) -> set[Path]:
    """The runs that must be trained here, because one that no capsule holds is made of them or taught by them."""
    asking = [folder for folder in wanted if folder.name not in held and not (folder / "DONE").is_file()]
    found: set[Path] = set()
    while asking:
        needed = set(wanted.get(asking.pop(), ())) - found
        found |= needed
        asking += needed
    return found
