"""The workstation behind its HTTP interface: cohort, store, pixels, and who may come in."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select, update

from sightline.errors import RunError, SightlineError
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.gaze import Gaze
from sightline.web.workstation.accounts.passwords import Pauses
from sightline.web.workstation.accounts.readers import (
    ALONE,
    Person,
    add_reader,
    build_person,
    find_reader,
    has_accounts,
)
from sightline.web.workstation.marks.operations import MarkContext
from sightline.web.workstation.pictures.maps import MapQueue, RunState
from sightline.web.workstation.pictures.pixels import PixelCache, digest_file
from sightline.web.workstation.pictures.scores import find_report, read_results
from sightline.web.workstation.reading.plans import Plan, deal
from sightline.web.workstation.reading.tasks import add_task, build_spec
from sightline.web.workstation.store.cohort_rows import take_cohort
from sightline.web.workstation.store.database import Database, read_all_rows, read_first_row, read_one_row
from sightline.web.workstation.store.tables import image, read, reader, study, task

if TYPE_CHECKING:
    from sightline.dissection.results import Dissection

MARKING = "Mark"
# the class of pictures that nobody has labelled: the first, where a folder of pictures was opened
UNREAD = "not labelled"


class NotFound(SightlineError):
    """Something that does not exist, or that one may not know of."""


@dataclass(frozen=True)
class WorkstationOptions:
    """How a workstation is opened.

    Attributes:
        keep: folder of the store.
        database: a database URL, or None for SQLite in `keep`.
        alone: one person, no accounts: whoever has the printed address; None: where nobody has an account.
        adopt: take over a cohort to which studies were added.
        runs: folders of trained runs whose maps are compared.
        dissection: folder of a dissection whose units are named, or None.
        hosts: names by which the server may be asked, with port.
        origins: where requests that change something may come from.
        secure: whether the browser speaks TLS with us.
    """

    keep: Path
    database: str | None = None
    alone: bool | None = False
    adopt: bool = False
    runs: Sequence[Path] = ()
    dissection: Path | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    secure: bool = False


class Workstation:
    """One cohort open for reading.

    Args:
        cohort: as read from its folder.
        options: how it is opened.

    Attributes:
        database: the store.
        cohort: the studies.
        options: as given.
        pixels: packed pixels.
        pauses: after failed sign-ins.
        alone: whether there is one person, without accounts.
        unlabelled: whether the cohort is a folder of pictures without labels.
        classes: what readers may choose among.
        row: of the table `workstation`.
        maps: of the runs, as far as they are computed.
    """

    def __init__(self, cohort: Cohort, options: WorkstationOptions) -> None:
        self.cohort, self.options = cohort, options
        self.database = Database(options.keep, options.database)
        self.row: Mapping[str, Any] = take_cohort(self.database, cohort, adopt=options.adopt)
        self.pixels = PixelCache(options.keep / "pixels")
        self.pauses = Pauses()
        self.token: str | None = None
        # pictures that could not be shown, by key: why
        self.failures: dict[str, dict[str, str]] = {}
        # mean Dice of a study's readers, by their reads and how far these went
        self.overlaps: dict[tuple[tuple[str, int], ...], float | None] = {}
        self._digests: dict[tuple[str, int, int], str] = {}
        self._dissection: Dissection | None = None
        self._views: dict[str, Any] = {}
        self._cases: dict[str, Case] = {case.case_id: case for case in cohort}
        self.alone = not has_accounts(self.database) if options.alone is None else options.alone
        self.unlabelled = cohort.classes[0] == UNREAD
        # what readers may choose among
        self.classes = cohort.classes[1:] if self.unlabelled and len(cohort.classes) > 1 else cohort.classes
        self.maps = MapQueue(
            self.database, options.keep, options.runs, cohort=cohort.root or Path(), classes=cohort.classes[1:],
            unlabelled=self.unlabelled,
        )  # fmt: skip
        if self.alone:
            self._prepare_alone()

    def _prepare_alone(self) -> None:
        """One person who may do everything, with a task of all studies; made on first use."""
        self.token = secrets.token_urlsafe(32)
        with self.database.writing() as connection:
            row = find_reader(connection, ALONE)
            if row is None:
                who = add_reader(connection, ALONE, display="Me", role="lead", password=None, who="server")
            else:
                who = row["id"]
            if connection.execute(select(task.c.id).limit(1)).first() is None:
                spec = build_spec(
                    {"shows_ids": True, "ask": {"label": self.unlabelled and len(self.classes) > 1}}, self.classes
                )
                add_task(connection, MARKING, "mark", spec, who="server")
            # studies that were adopted since join the queue
            for task_id in connection.execute(select(task.c.id).where(task.c.name == MARKING)).scalars().all():
                deal(connection, task_id, Plan((who,)), who="server")

    def renew_token(self) -> str | None:
        """The one-time token of `--alone` is used: the next one."""
        self.token = secrets.token_urlsafe(32) if self.alone else None
        return self.token

    def alone_person(self) -> Person:
        """The one person of `--alone`."""
        with self.database.reading() as connection:
            row = read_one_row(connection, select(reader).where(reader.c.name == ALONE))
        return build_person(row)

    def close(self) -> None:
        """End what runs beside, let go of the store."""
        self.maps.stop()
        self.database.close()

    def case_of(self, image_row: Mapping[str, Any]) -> Case:
        """The case of an image's row."""
        return self._cases[image_row["image_id"]]

    def has_gaze(self, image_row: Mapping[str, Any]) -> bool:
        """Whether eyes were followed on an image."""
        return any(isinstance(region, Gaze) for region in self.case_of(image_row).regions)

    def image_row(self, connection: Connection, key: str) -> Mapping[str, Any]:
        """The row of an image.

        Raises:
            NotThere: no image has this key.
        """
        row = read_first_row(connection, select(image).where(image.c.key == key))
        if row is None:
            raise NotFound("There is no such picture.", "Go back to the worklist.")
        return row

    def study_row(self, connection: Connection, key: str) -> Mapping[str, Any]:
        """The row of a study.

        Raises:
            NotThere: no study has this key.
        """
        row = read_first_row(connection, select(study).where(study.c.key == key))
        if row is None:
            raise NotFound("There is no such study.", "Go back to the worklist.")
        return row

    def images_of(self, connection: Connection, study_key: str) -> list[Mapping[str, Any]]:
        """The images of a study, as the cohort lists them."""
        rows: list[Mapping[str, Any]] = []
        rows += read_all_rows(connection, select(image).where(image.c.study == study_key).order_by(image.c.ordinal))
        return rows

    def own_read(self, connection: Connection, read_id: str, person: Person) -> Mapping[str, Any]:
        """A read of the person who asks, with its task's spec.

        Raises:
            NotThere: there is none, or it is another's.
        """
        found = (
            select(read, task.c.spec, task.c.kind.label("task_kind"), study.c.study_id)
            .join(task, task.c.id == read.c.task)
            .join(study, study.c.key == read.c.study)
            .where(read.c.id == read_id, read.c.reader == person.id)
        )
        row = read_first_row(connection, found)
        if row is None:
            raise NotFound("There is no such read in your queue.", "Go back to the worklist.")
        return row

    def build_mark_context(self, connection: Connection, study_key: str, spec: Mapping[str, Any]) -> MarkContext:
        """What operations on a study are checked against."""
        shapes = {row["key"]: tuple(json.loads(row["shape"])) or None for row in self.images_of(connection, study_key)}
        return MarkContext(shapes, spec["classes"], spec["roles"], spec["ask"]["quality"])

    def compare_with_first_look(self, row: Mapping[str, Any]) -> tuple[str, bool]:
        """The digest of an image's file now, and whether it differs from when it was first opened here.

        The digest of the first opening is kept; the size, where the cohort did not state it, as well.

        Raises:
            UnreadableFile: the file is gone.
        """
        digest = self._digest_file(self.case_of(row).image)
        if row["sha256"] is None:
            with self.database.writing() as connection:
                first = update(image).where(image.c.key == row["key"], image.c.sha256.is_(None))
                connection.execute(first.values(sha256=digest))
            return digest, False
        return digest, digest != row["sha256"]

    def _digest_file(self, path: Path) -> str:
        """The digest of a file, counted again when its time or size changes."""
        try:
            status = path.stat()
        except OSError:
            return digest_file(path)
        key = (str(path), status.st_mtime_ns, status.st_size)
        if key not in self._digests:
            self._digests[key] = digest_file(path)
        return self._digests[key]

    def runs_json(self) -> list[dict[str, Any]]:
        """The runs whose maps are compared, and how far their maps are."""
        return [run.to_json() for run in self.maps.runs]

    @property
    def dissection(self) -> Dissection | None:
        """The dissection whose units are named; read when it is first asked for, with what reads it."""
        if self.options.dissection is not None and self._dissection is None:
            from sightline.dissection.results import open_dissection

            self._dissection = open_dissection(self.options.dissection)
        return self._dissection

    def dissection_json(self) -> dict[str, Any] | None:
        """Whether there are units to name."""
        return None if self.options.dissection is None else {"folder": self.options.dissection.name}

    def network_view(self, state: RunState, row: Mapping[str, Any]) -> tuple[NDArray[np.float32], Frame]:
        """A picture as a run's network sees it, float32 [planes, rows, columns] in 0..1, and its frame.

        Raises:
            RunError: the run cannot be opened, or sees volumes.
        """
        from sightline.data.views.volume_view import VolumeView
        from sightline.io.image import read_image
        from sightline.papers.catalogue import CATALOGUE
        from sightline.training.run import open_run

        if state.key not in self._views:
            self._views[state.key] = open_run(state.folder, CATALOGUE).recipe.view
        view, case = self._views[state.key], self.case_of(row)
        if isinstance(view, VolumeView):
            raise RunError("This network sees volumes.", "Look at its slices.")
        picture = read_image(case.image)
        planes, frame = view.show(picture.pixels, picture.frame, view.around(case))
        return planes, frame

    def results_json(self) -> dict[str, Any]:
        """Tables and reports of the runs."""
        tables: list[dict[str, Any]] = []
        reports: list[dict[str, Any]] = []
        for run in self.maps.runs:
            own = read_results(run.folder, run.key, run.title)
            tables, reports = tables + own[0], reports + own[1]
        return {"tables": tables, "reports": reports}

    def report_of(self, key: str) -> Path | None:
        """The report of a run."""
        run = self.maps.run_of(key)
        return None if run is None else find_report(run.folder)

    def keep_shape(self, row: Mapping[str, Any], shape: Sequence[int]) -> None:
        """Note the size of a picture whose cohort does not state it."""
        if json.loads(row["shape"]):
            return
        two = list(shape) if len(shape) == 2 else [None, None]
        with self.database.writing() as connection:
            values = {"shape": json.dumps(list(shape)), "rows": two[0], "columns": two[1]}
            connection.execute(update(image).where(image.c.key == row["key"]).values(**values))

    def counts(self, connection: Connection) -> dict[str, int]:
        """How many studies, images and volumes there are."""
        studies = connection.execute(select(func.count()).select_from(study)).scalar() or 0
        shapes = connection.execute(select(image.c.shape, image.c.path)).all()
        volumes = sum(is_volume_row(shape, path) for shape, path in shapes)
        return {"studies": studies, "images": len(shapes) - volumes, "volumes": volumes}


def is_volume_row(shape: str, path: str) -> bool:
    """Whether an image of the store is a volume."""
    return len(json.loads(shape)) == 3 or path.lower().endswith((".nii", ".nii.gz"))
