"""The folder a training leaves, and how it is opened again.

`recipe.json  environment.json  cohort.json  history.csv  weights.safetensors  state/  events/  predictions/
model_card.md  SHA256SUMS  DONE`
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sightline import __version__
from sightline.errors import CohortError, RunError, count_noun
from sightline.explainers.localisation.protocols import MapBoxes
from sightline.io.files import contains_files, digest_file, fingerprint_file, hold_folder, read_json, write_text
from sightline.metrics.calibration.record import CalibrationRecord
from sightline.structures.case import Cohort
from sightline.structures.evidence import has_bfloat16
from sightline.training.recipe import (
    Recipe,
    digest_texts,
    format_identity_json,
    format_recipe_json,
    name_weights_by_content,
    read_recipe,
)
from sightline.training.serialization import Catalogue, build_from_plain, to_plain


def require_same_classes(ours: Sequence[str], theirs: Sequence[str], where: str) -> None:
    """Refuse a cohort whose classes differ from the network's."""
    if tuple(ours) != tuple(theirs):
        raise CohortError(
            f"{where} has the classes {list(theirs)}; the run was trained on {list(ours)}.",
            "Use one with the same labels in the same order: `cohort import` takes --classes (coco: --normal).",
        )


PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "lightning-fabric",
    "numpy",
    "scipy",
    "scikit-learn",
    "scikit-image",
    "pillow",
)


@dataclass(frozen=True)
class Run:
    """An opened run folder: a recipe trained on a cohort.

    Attributes:
        folder: the run folder.
        recipe: what was trained.
        classes: class names in the order of the logits.
        cohort: facts about the training cohort: name, fingerprint, counts, split by case id.
        done: whether the training is finished.
        boxes: how boxes are read off its class maps: as chosen on validation (`boxes.json`), else as in the recipe.

    Example:
        >>> sl.load_run(run_folder).done
        True
    """

    folder: Path
    recipe: Recipe
    classes: tuple[str, ...]
    cohort: Mapping[str, Any]
    done: bool
    boxes: MapBoxes

    def __repr__(self) -> str:
        """Folder, recipe and state, in a line."""
        return f"Run({str(self.folder)!r}, {self.recipe.title!r}, {'finished' if self.done else 'not finished'})"

    def network(self) -> nn.Module:
        """The trained network, in evaluation mode, on the CPU.

        Raises:
            RunError: the weights are missing, damaged, or do not fit the recipe's network.
        """
        path = self.folder / "weights.safetensors"
        if not path.is_file():
            raise RunError(f"{self.folder} has no weights yet.", "Let the training finish: run the same train command.")
        # the initial weights are about to be overwritten: no need for their file to be on this machine
        network = self.recipe.model.without_weights().build(len(self.classes))
        load_weights(network, path)
        return network.eval()

    @property
    def identity(self) -> str:
        """Digest of recipe, cohort and seed."""
        return str(self.cohort["run_identity"])

    @property
    def calibration(self) -> CalibrationRecord | None:
        """The calibration that `sightline calibrate` fitted on validation, or None.

        Raises:
            RunError: the record is damaged, or belongs to another run.
        """
        return CalibrationRecord.read(self.folder, self.identity)


# what is chosen on validation cases of a run whose weights are there, such as how boxes are read off its maps
Conclude = Callable[[Run], object]


def require_each_once(runs: Sequence[Run]) -> None:
    """Refuse trainings of a method among which one is named twice.

    Raises:
        RunError: naming them.
    """
    if len({run.identity for run in runs}) < len(runs):
        raise RunError(
            f"A run is named twice among {', '.join(str(run.folder) for run in runs)}.",
            "Each training counts once: one that is named twice would weigh double, or make intervals too short.",
        )


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a safetensors file into a network, strictly."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is damaged ({error}).", "Restore the file or train again.") from None
    wanted = network.state_dict()
    missing, strange = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing or strange:
        raise RunError(
            f"{path} does not fit the recipe's network: {count_noun(len(missing), 'tensor')} missing "
            f"(e.g. {missing[:2]}), {len(strange)} unknown (e.g. {strange[:2]}).",
            "The recipe or the weights were exchanged; restore the run folder.",
        )
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise RunError(
                f"{path}: {name} is {tuple(tensor.shape)}; the network needs {tuple(wanted[name].shape)}.",
                "The recipe or the weights were exchanged; restore the run folder.",
            )
    network.load_state_dict(tensors)


def save_weights(tensors: Mapping[str, Tensor], path: Path, about: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors in one atomic step: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    flat = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        save_file(flat, partial, metadata=dict(about or {}))
    except (SafetensorError, OSError) as error:
        # half a file would only fill the disk further
        partial.unlink(missing_ok=True)
        raise RunError(
            f"{path} cannot be written ({' '.join(str(error).split())[:200]}).",
            "Make room on the disk, or fix its permissions; the same command resumes.",
        ) from None
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def compute_run_identity(
    recipe: Recipe,
    cohort: Cohort,
    catalogue: Catalogue,
    parts: Mapping[str, str] | None = None,
    *,
    as_typed: bool = False,
) -> str:
    """The identity of a run: digest of recipe (with seed), cohort, and the identities of the runs it is made of.

    Files of initial weights count by their content; `as_typed` by their path, as in runs of earlier versions.
    """
    return digest_identity(format_recipe_json(recipe, catalogue, as_typed=as_typed), cohort.fingerprint(), parts)


def digest_identity(recipe: str, fingerprint: str, parts: Mapping[str, str] | None = None) -> str:
    """The same from a recipe's JSON text and a cohort's fingerprint."""
    return digest_texts(
        format_identity_json(recipe), fingerprint, *([json.dumps(sorted(parts.items()))] if parts else [])
    )


def find_identity(
    runs: Path, recipe: Recipe, cohort: Cohort, catalogue: Catalogue, parts: Mapping[str, str] | None = None
) -> str:
    """The name of a run in a folder of runs: its identity, or the one of earlier versions where it lies under that."""
    name, former = (compute_run_identity(recipe, cohort, catalogue, parts, as_typed=typed) for typed in (False, True))
    return former if not (runs / name).exists() and (runs / former / "cohort.json").is_file() else name


def start_run(
    folder: Path,
    recipe: Recipe,
    cohort: Cohort,
    catalogue: Catalogue,
    parts: Mapping[str, str] | None = None,
    before_marks: str | None = None,
) -> None:
    """Write a new run's papers, or check that an existing folder is the same run.

    Args:
        folder: the run folder.
        recipe: what is trained.
        cohort: as the recipe sees it.
        catalogue: words for the recipe's parts.
        parts: of a run that is put together from or taught by others, their identities by submodule or `teacher`.
        before_marks: fingerprint of the cohort before a teacher marked it, by which a taught run is named.

    Raises:
        RunError: the folder holds another run, or something that is no run.
    """
    fingerprint = before_marks or cohort.fingerprint()
    texts = [format_recipe_json(recipe, catalogue, as_typed=typed) for typed in (False, True)]
    identity = digest_identity(texts[0], fingerprint, parts)
    if (folder / "cohort.json").is_file():
        old = read_json(folder / "cohort.json")
        if "run_identity" not in old:
            raise RunError(f"{folder} is not empty and holds no run.", "Choose an empty or new folder for --out.")
        # as earlier versions noted a run: with the recipe as typed, a taught one by its marks alone
        known = [digest_identity(text, fingerprint, parts) for text in texts]
        known += [digest_identity(text, cohort.fingerprint()) for text in texts if before_marks]
        if old["run_identity"] not in known:
            raise RunError(
                f"{folder} holds another run (identity {old['run_identity']}, this one is {identity}): recipe, "
                "seed or cohort differ.",
                "Choose another --out, or delete the folder if it is not needed.",
            )
        return
    if folder.exists() and contains_files(folder) and not (folder / "recipe.json").is_file():
        raise RunError(f"{folder} is not empty and holds no run.", "Choose an empty or new folder for --out.")
    write_text(folder / "recipe.json", format_recipe_json(recipe, catalogue))
    files: dict[str, str] = {}
    name_weights_by_content(to_plain(recipe, catalogue), files)
    noted = {**describe_environment(), **({"weights": files} if files else {})}
    write_text(folder / "environment.json", json.dumps(noted, indent=2) + "\n")
    facts = {
        "run_identity": identity,
        **({"parts": dict(parts)} if parts else {}),
        "name": cohort.name,
        "classes": list(cohort.classes),
        "fingerprint": fingerprint,
        **({"fingerprint_with_marks": cohort.fingerprint()} if before_marks else {}),
        "about": dict(cohort.about),
        "cases": len(cohort),
        "counts": {s: cohort.split(s).counts() for s in ("train", "val", "test")},
        "split": {case.case_id: case.split for case in cohort},
        # what a later evaluation knows its cases by, whatever they are called there; ids of patients stay unsaid
        "pictures": {case.case_id: fingerprint_file(Path(case.image)) for case in cohort},
        "patients": {case.case_id: hash_patient_id(case.patient_id) for case in cohort},
    }
    # last: its presence marks the papers as complete
    write_text(folder / "cohort.json", json.dumps(facts, indent=1) + "\n")


def hash_patient_id(patient_id: str) -> str:
    """A digest of a patient's id."""
    return hashlib.blake2b(patient_id.encode(), digest_size=6).hexdigest()


def open_run(folder: Path, catalogue: Catalogue) -> Run:
    """Open a run folder, also a stranger's: nothing in it is executed.

    Raises:
        RunError, RecipeError: not a run, or a damaged one.
    """
    if not (folder / "recipe.json").is_file() or not (folder / "cohort.json").is_file():
        raise RunError(
            f"{folder} is not a run: recipe.json or cohort.json is missing.", "Point at a folder that train wrote."
        )
    cohort = read_json(folder / "cohort.json")
    classes = cohort.get("classes")
    if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes) or "run_identity" not in cohort:
        raise RunError(f"{folder / 'cohort.json'} does not name the run's classes.", "Restore the run folder.")
    recipe = read_recipe(folder / "recipe.json", catalogue)
    boxes = _read_boxes(folder / "boxes.json", recipe, catalogue)
    # without weights it is to be trained again, whatever DONE says
    done = (folder / "DONE").is_file() and (folder / "weights.safetensors").is_file()
    if done:
        require_whole(folder)
    return Run(folder, recipe, tuple(classes), cohort, done, boxes)


def choose_on_validation(folder: Path, catalogue: Catalogue, conclude: Conclude | None) -> None:
    """Choose what is chosen on validation, of a run whose weights are there, before anything takes it for done."""
    if conclude is not None:
        conclude(replace(open_run(folder, catalogue), done=True))


def finish_run(folder: Path, words: str) -> None:
    """Seal the run and say that it is done, in words that end in the time."""
    write_text(folder / SEAL, seal_text(folder))
    # last: its presence marks the run as complete
    write_text(folder / "DONE", f"{words}, {datetime.now(UTC).isoformat(timespec='seconds')}\n")


def _read_boxes(path: Path, recipe: Recipe, catalogue: Catalogue) -> MapBoxes:
    if not path.is_file():
        return recipe.boxes
    try:
        boxes = build_from_plain(read_json(path), catalogue, "boxes")
    except RecursionError:
        raise RunError(f"{path} holds parts inside each other without end.", "Delete it, or train again.") from None
    if not isinstance(boxes, MapBoxes):
        raise RunError(f"{path} says no way to read boxes off maps.", "Delete it, or train again.")
    return boxes


def describe_environment() -> dict[str, Any]:
    """Versions and machine: what a result depends on besides recipe and cohort."""
    return {
        "sightline": __version__,
        "code": compute_code_digest(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _name_processor(),
        "threads": torch.get_num_threads(),
        "bfloat16": has_bfloat16(torch.device("cpu")),
        "cuda": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "packages": {name: _find_version(name) for name in PACKAGES},
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


@cache
def _find_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


@lru_cache(maxsize=1)
def compute_code_digest() -> str:
    """Digest of this package's source files: the same digest, the same code, whatever its version says."""
    root = Path(__file__).parents[1]
    digest_of_all = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest_of_all.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest_of_all.hexdigest()[:16]


def _name_processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    except OSError:
        pass
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


SEAL, LOCK = "SHA256SUMS", "LOCK"
# in the folder of a run that a table took from a capsule: the capsule's digest
FROM_CAPSULE = "from_capsule.txt"
_remarked: set[Path] = set()
_SEALED = ("recipe.json", "cohort.json", "weights.safetensors", "objective.safetensors")


def seal_text(folder: Path) -> str:
    """Checksums of what decides a run's answers, a line a file."""
    return "".join(f"{digest_file(folder / name)}  {name}\n" for name in _SEALED if (folder / name).is_file())


def require_whole(folder: Path) -> None:
    """Refuse a finished run whose files are not those that the training left; of one without a seal that is said.

    Raises:
        RunError: naming the file.
    """
    if not (folder / SEAL).is_file():
        if folder not in _remarked:
            _remarked.add(folder)
            print(f"{folder} has no {SEAL}: nothing says whether it changed after its training.", file=sys.stderr)
        return
    try:
        lines = (folder / SEAL).read_text(encoding="utf-8").splitlines()
        sums = {name: wanted for wanted, _, name in (line.partition("  ") for line in lines)}
        changed = [name for name, wanted in sums.items() if name in _SEALED and digest_file(folder / name) != wanted]
    except (OSError, ValueError) as error:
        raise RunError(f"{folder} cannot be compared with its {SEAL} ({error}).", "Restore the run folder.") from None
    if not sums.keys() & set(_SEALED):
        raise RunError(f"{folder / SEAL} names no file of the run: it is damaged.", "Restore the run folder.")
    if changed:
        raise RunError(
            f"{folder}: {', '.join(changed)} changed after the training ({SEAL}): damaged, edited or exchanged.",
            "Restore the run folder; or delete its DONE and run the same train command to train again.",
        )


def hold_run(folder: Path) -> AbstractContextManager[None]:
    """Hold the lock of a run folder; the system lets go of it when a process dies, however it dies.

    Raises:
        RunError: another process trains into the folder just now.
    """
    return hold_folder(folder, "trained", LOCK)
