"""A workstation in memory of one test: a small cohort, accounts, and clients that are signed in."""

import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from sightline.structures.case import Case, Cohort
from sightline.structures.regions import Box
from sightline.structures.tag import Tag
from sightline.web.workstation.accounts.readers import add_reader
from sightline.web.workstation.api.app import create_app
from sightline.web.workstation.reading.plans import Plan, deal
from sightline.web.workstation.reading.tasks import add_task, build_spec
from sightline.web.workstation.service import Workstation, WorkstationOptions

HOST = "127.0.0.1:8765"
BASE = f"http://{HOST}"
HEADERS = {"X-Sightline": "1", "Origin": BASE}
PASSWORD = "four words of nonsense {}"
CLASSES = ("no fracture", "fracture")


def small_cohort(place: Path, studies: int = 4, views: int = 2, size: tuple[int, int] = (40, 48)) -> Cohort:
    """Noise, two views a study, 16 bits in the first view; one box of a reader in the cohort itself."""
    rng = np.random.default_rng(0)
    (place / "images").mkdir(parents=True, exist_ok=True)
    cases = []
    for s in range(studies):
        for v in range(views):
            path = place / "images" / f"S{s:02d}-{v}.png"
            pixels = rng.integers(0, 65535, size, dtype=np.uint16) if v == 0 else rng.integers(0, 255, size, np.uint8)
            Image.fromarray(pixels).save(path)
            regions = (Box((2.0, 3.0), (9.0, 11.0), Tag("focus", None, "earlier")),) if s == 0 and v == 0 else ()
            ids = (f"S{s:02d}-{v}", f"S{s:02d}", f"P{s:02d}")
            view, facts = ("PA", "LAT")[v % 2], {"laterality": "L"}
            cases.append(Case(*ids, path, CLASSES[s % 2], regions, None, view, size, (0.2, 0.2), facts))
    return Cohort("small", CLASSES, tuple(cases), place)


@dataclass
class Studio:
    """A workstation and clients of its people.

    Attributes:
        desk: the workstation.
        ids: of the accounts, by name.
        tasks: ids of tasks, by name.
    """

    desk: Workstation
    ids: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)
    clients: dict[str, TestClient] = field(default_factory=dict)

    def add(self, name: str, role: str = "reader") -> str:
        """An account with a password."""
        with self.desk.database.writing() as connection:
            self.ids[name] = add_reader(
                connection, name, display=name.title(), role=role, password=PASSWORD.format(name), who="test"
            )
        return self.ids[name]

    def plan(self, task: str, readers, *, kind="mark", passes=1, order="given", seed=0, warm_up=0, **spec) -> str:
        """A task dealt to readers."""
        with self.desk.database.writing() as connection:
            if task not in self.tasks:
                whole = build_spec(spec, self.desk.cohort.classes)
                self.tasks[task] = add_task(connection, task, kind, whole, who="test")
            plan = Plan([self.ids[r] for r in readers], passes, order, seed, warm_up)
            deal(connection, self.tasks[task], plan, who="test")
        return self.tasks[task]

    def client(self, name: str | None = None) -> TestClient:
        """A client of a person, signed in; of nobody without a name."""
        key = name or ""
        if key not in self.clients or name is None:
            made = TestClient(create_app(self.desk), base_url=BASE, headers=HEADERS, raise_server_exceptions=False)
            if name is not None:
                answer = made.post("/api/v1/session", json={"name": name, "password": PASSWORD.format(name)})
                assert answer.status_code == 200, answer.text
            self.clients[key] = made
        return self.clients[key]

    def reads(self, name: str, **query) -> list[dict]:
        """The rows of a reader's queue."""
        return self.client(name).get("/api/v1/worklist", params={"limit": 200, **query}).json()["rows"]

    def finish(self, name: str, read: str, marks=(), *, label=None, confidence=None, extra=()):
        """Mark (the first image) and submit a read; gives the answer to the submission."""
        client = self.client(name)
        image = client.get(f"/api/v1/reads/{read}").json()["study"]["images"][0]["key"]
        page = Page()
        ops = [page.op("add", image, {"mark": mark}) for mark in marks]
        ops += [] if marks else [page.op("nothing", None, {"value": True})]
        ops += [page.op("label", None, {"label": label})] if label else []
        ops += [page.op("confidence", None, {"value": confidence})] if confidence is not None else []
        ops += [page.op(kind, None, body) for kind, body in extra]
        ops.append(page.op("submit", None, {}))
        return page.send(client, read, ops)


@dataclass
class Page:
    """What a page counts: its client id and the numbers of its operations."""

    client: str = field(default_factory=lambda: str(uuid.uuid4()))
    n: int = 0

    def op(self, kind: str, image: str | None, body: dict, **more) -> dict:
        """An operation as the page makes it."""
        self.n += 1
        times = {"at_ms": time.time() * 1000.0, "mono_ms": 100.0 * self.n}
        own = {"id": str(uuid.uuid4()), "client": self.client, "n": self.n, "kind": kind, "image": image, "body": body}
        return own | times | more

    def send(self, client: TestClient, read: str, ops: list[dict]):
        """Post operations."""
        body = {"ops": ops, "sent_mono_ms": 100.0 * self.n + 50.0, "sent_at_ms": time.time() * 1000.0}
        return client.post(f"/api/v1/reads/{read}/ops", json=body)


def box(start=(2.0, 3.0), stop=(10.0, 12.0), **more) -> dict:
    """A box as a page draws it."""
    own = {"id": str(uuid.uuid4()), "kind": "box", "role": "focus", "label": None, "source": "drawn"}
    return own | {"start": list(start), "stop": list(stop)} | more


def scribble(lines=(((5.25, 6.5), (20.125, 30.0)),), stroke_px=3.0, **more) -> dict:
    """A scribble as a page draws it."""
    own = {"id": str(uuid.uuid4()), "kind": "scribble", "role": "focus", "label": None, "source": "drawn"}
    strokes = [{"pointer": "pen", "t0_ms": 0, "points": [[p[0], p[1], 10.0 * i, 0.5] for i, p in enumerate(lines[0])]}]
    lines = [[list(p) for p in line] for line in lines]
    return own | {"lines": lines, "stroke_px": stroke_px, "strokes": strokes} | more


def open_studio(place: Path, cohort: Cohort | None = None, **options) -> Studio:
    """A workstation on a small cohort."""
    cohort = cohort or small_cohort(place / "cohort")
    options = {"keep": place / "keep", "hosts": (HOST,), "origins": (BASE,), **options}
    return Studio(Workstation(cohort, WorkstationOptions(**options)))
