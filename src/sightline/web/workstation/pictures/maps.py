"""Maps of runs: computed once by a child process, kept, given out; a run that fails is said, the rest goes on."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from sightline.errors import SightlineError, count_noun
from sightline.structures.identifiers import separate_names
from sightline.web.workstation.store.audit import format_now
from sightline.web.workstation.store.database import Database, read_all_rows
from sightline.web.workstation.store.tables import image, map_, proposal


@dataclass
class RunState:
    """One run and how far its maps are.

    Attributes:
        folder: of the run.
        key: for addresses.
        title: of its recipe, once it was opened; with the folder's name where several runs are called the same.
        recipe: title of its recipe, once it was opened.
        classes: of its maps.
        state: waiting, computing, ready or failed.
        done: images.
        of: images there are.
        message: why it failed, or what was left out.
    """

    folder: Path
    key: str
    title: str
    classes: list[str] = field(default_factory=list)
    state: str = "waiting"
    done: int = 0
    of: int = 0
    message: str | None = None
    recipe: str = ""

    def to_json(self) -> dict[str, Any]:
        """As the page gets it."""
        names = ("key", "title", "classes", "state", "done", "of", "message")
        return {name: getattr(self, name) for name in names}


class MapQueue:
    """Computes the maps of several runs one after the other.

    Args:
        database: the store.
        keep: its folder.
        runs: folders of runs.
        cohort: folder of the cohort.
        classes: given for pictures without labels.
        unlabelled: whether the pictures have no labels.
    """

    def __init__(
        self, database: Database, keep: Path, runs: Sequence[Path], *, cohort: Path, classes: Sequence[str],
        unlabelled: bool,
    ) -> None:  # fmt: skip
        self.database, self.keep, self.cohort = database, keep, cohort
        self.classes, self.unlabelled = list(classes), unlabelled
        self.runs = [RunState(run, digest_run(run), run.name) for run in runs]
        self._child: subprocess.Popen[str] | None = None
        self._stopped = False

    def start(self) -> None:
        """Begin in a thread of its own."""
        if self.runs:
            threading.Thread(target=self._compute_all, daemon=True).start()

    def stop(self) -> None:
        """End the child process."""
        self._stopped = True
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            self._child.wait(10)

    def run_of(self, key: str) -> RunState | None:
        """The run of a key."""
        return next((run for run in self.runs if run.key == key), None)

    def _compute_all(self) -> None:
        for run in self.runs:
            if self._stopped:
                return
            try:
                self._compute_one(run)
            except (OSError, SightlineError) as error:
                run.state, run.message = "failed", f"The maps were not computed ({type(error).__name__})."

    def _compute_one(self, run: RunState) -> None:
        with self.database.reading() as connection:
            known = set(connection.execute(select(map_.c.image).where(map_.c.run == run.key)).scalars())
            rows = read_all_rows(connection, select(image.c.key, image.c.image_id))
            old = read_all_rows(connection, select(map_).where(map_.c.run == run.key).limit(1))
        keys = {row["image_id"]: row["key"] for row in rows if row["key"] not in known}
        run.of, run.done = len(rows), len(known)
        if old:
            run.classes = json.loads(old[0]["classes"])
        if not keys:
            run.state = "ready"
            return
        run.state = "computing"
        orders = {
            "run": str(run.folder), "cohort": str(self.cohort), "classes": self.classes, "keys": keys,
            "unlabelled": self.unlabelled, "out": str(self.keep / "maps" / run.key),
        }  # fmt: skip
        command = [sys.executable, "-m", "sightline.web.workstation.pictures.map_worker"]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(json.dumps(orders) + "\n")
        self._child.stdin.close()
        weights, left_out = "", 0
        for line in self._child.stdout:
            words = json.loads(line)
            if words["kind"] == "run":
                run.recipe, run.classes, weights = words["title"], list(words["classes"]), words["weights"]
                self._name_runs()
            elif words["kind"] == "failed":
                run.message = f"{words['message']} {words['remedy']}"
            elif words["kind"] == "left out":
                left_out += 1
                run.message = (
                    f"{count_noun(left_out, 'image was', 'images were')} left out: {words['message'].split(': ')[-1]}"
                )
            else:
                self._store(run, weights, words)
                run.done += 1
        run.state = "ready" if self._child.wait() == 0 else "failed"

    def _name_runs(self) -> None:
        """Titles that tell the runs apart."""
        names = [run.recipe or run.folder.name for run in self.runs]
        for run, title in zip(self.runs, separate_names(names, [run.folder for run in self.runs]), strict=True):
            run.title = title

    def _store(self, run: RunState, weights: str, words: Mapping[str, Any]) -> None:
        found = words["map"] or {"shape": [], "frame": [], "classes": [], "ranges": []}
        row = {
            "run": run.key, "image": words["image"], "file": f"maps/{run.key}/{words['image']}.npz",
            "classes": json.dumps(run.classes), "shape": json.dumps(found["shape"]),
            "frame": json.dumps({"affine": found["frame"], "classes": found["classes"]}),
            "ranges": json.dumps(found["ranges"]), "probabilities": json.dumps(words["probabilities"]),
        }  # fmt: skip
        made = [
            {"id": str(uuid.uuid4()), "run": run.key, "weights": weights, "image": words["image"],
             "mark": json.dumps(one["mark"]), "score": one["score"], "how": "box read off the map, as the run reads it",
             "made_at": format_now()}
            for one in words["proposals"]
        ]  # fmt: skip
        with self.database.writing() as connection:
            connection.execute(map_.insert().values(**row))
            if made:
                connection.execute(proposal.insert(), made)


def digest_run(folder: Path) -> str:
    """A key of a run that stays while its answers do: a digest of its identity, weights and calibration.

    A folder that holds no run has a key of its path; computing says what is wrong with it.
    """
    digest = hashlib.sha256()
    try:
        digest.update((folder / "cohort.json").read_bytes())
        digest.update((folder / "weights.safetensors").read_bytes())
        if (folder / "calibration.json").is_file():
            digest.update((folder / "calibration.json").read_bytes())
    except OSError:
        digest.update(str(folder.absolute()).encode())
    return digest.hexdigest()[:16]


def build_map_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of maps as the page gets it."""
    frame, names = json.loads(row["frame"]), json.loads(row["classes"])
    ranges = json.loads(row["ranges"])
    classes = [
        {"index": index, "name": names[index], "low": low, "high": high}
        for index, (low, high) in zip(frame["classes"], ranges, strict=True)
    ]
    whole = [bound for pair in ranges for bound in pair]
    bounds = {"low": min(whole, default=0.0), "high": max(whole, default=0.0)}
    return {
        "run": row["run"], "classes": classes, "shape": json.loads(row["shape"]), "frame": frame["affine"], **bounds
    }  # fmt: skip


def read_map(keep: Path, row: Mapping[str, Any], index: int) -> NDArray[np.float32] | None:
    """The map of one class, exactly as stored, or None where it was not kept."""
    with np.load(keep / row["file"], allow_pickle=False) as data:
        where = np.flatnonzero(data["classes"] == index)
        if not len(where):
            return None
        cells: NDArray[np.float32] = data["maps"][int(where[0])].astype(np.float32)
        return cells
