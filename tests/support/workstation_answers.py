# ruff: noqa: E501
"""Answers as the workstation's contract has them, for screens whose pictures need runs, gaze or several readers."""

import json
import math
import re

import numpy as np

SHAPE = (7, 6)
KINDS = {np.dtype("float32"): "f4", np.dtype("uint16"): "u2", np.dtype("uint8"): "u1"}


def raw(route, array, frame):
    """An array as the server sends it."""
    route.fulfill(
        status=200, body=np.ascontiguousarray(array).tobytes(), content_type="application/octet-stream",
        headers={
            "X-Shape": ",".join(map(str, array.shape)), "X-Dtype": KINDS[array.dtype],
            "X-Frame": ",".join(str(v) for v in frame),
        },
    )  # fmt: skip


def map_of(run: str, index: int) -> np.ndarray:
    """A network's map of 7 x 6 cells: a hill whose place depends on run and class."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    centre = (2 + index, 3) if run == "one" else (4, 2 + index)
    return np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / 4.0).astype(np.float32)


def gaze_samples(rows: int, columns: int, n: int = 400) -> list[list[float]]:
    """A gaze that wanders over a picture."""
    return [
        [rows * (0.5 + 0.3 * math.sin(k / 25)), columns * (0.5 + 0.3 * math.cos(k / 40)), k / 60, 1 / 60]
        for k in range(n)
    ]


def stand_in(person, read: str, classes=("no fracture", "fracture")) -> dict:
    """Answer for runs, gaze, agreement, adjudication, units, results and exports from here.

    Args:
        person: somebody before the page.
        read: a read whose pictures are shown.
        classes: of the task.

    Returns:
        What was sent by the page, by path.
    """
    whole = person.api(f"/reads/{read}")
    images = [{**image, "has_gaze": True} for image in whole["study"]["images"]]
    task = whole["task"]
    rows, columns = images[0]["rows"], images[0]["columns"]
    frame = [rows / SHAPE[0], 0, 0, 0, columns / SHAPE[1], 0]
    sent: dict[str, list] = {}

    def box(k, image):
        start = [rows * (0.3 + 0.05 * k), columns * (0.3 + 0.06 * k)]
        stop = [rows * (0.6 + 0.05 * k), columns * (0.55 + 0.06 * k)]
        return {"id": f"00000000-0000-4000-8000-00000000000{k}", "kind": "box", "role": "finding", "label": classes[1],
                "image": image["key"], "start": start, "stop": stop}  # fmt: skip

    def run(key, title, share):
        number = {
            "class": classes[1], "role": "finding", "style": "box", "pointing": 1.0, "pointing_chance": 0.12,
            "energy": share, "energy_chance": 0.1, "iou": 0.31, "iou_chance": 0.08,
        }  # fmt: skip
        maps = [
            {"index": i, "name": name, "low": float(map_of(key, i).min()), "high": float(map_of(key, i).max())}
            for i, name in enumerate(classes)
        ]
        return {
            "key": key, "title": title, "label": classes[1], "probabilities": [1 - share, share],
            "images": {image["key"]: {"classes": maps, "shape": SHAPE, "frame": frame, "numbers": [number]} for image in images},
        }  # fmt: skip

    study = whole["study"]["key"]
    listed = [{"study": study, "title": whole["study"]["title"], "views": ["PA", "LAT"], "images": len(images)}]
    estimates = [
        {"name": "Fleiss' kappa", "pair": None, "class": None, "value": 0.71, "low": 0.55, "high": 0.84, "n": {"patients": 40, "readers": 3}, "method": "", "why": ""},
        {"name": "Dice", "pair": ["A", "B"], "class": classes[1], "value": 0.64, "low": 0.58, "high": 0.7, "n": {"studies": 40}, "method": "", "why": ""},
        {"name": "ICC(2,1)", "pair": None, "class": None, "value": 0.8, "low": None, "high": None, "n": {"patients": 4}, "method": "", "why": "fewer than 5 patients"},
    ]  # fmt: skip
    answers = {
        r"/studies(\?.*)?$": {"rows": listed, "next": None},
        rf"/studies/{study}": {"study": study, "title": whole["study"]["title"], "images": images},
        r"/compare/.*": {
            "study": study, "title": whole["study"]["title"], "images": images,
            "marks": [{"who": "A", "read": None, "marks": [box(0, images[0])], "label": classes[1]}],
            "runs": [run("one", "guided", 0.81), run("two", "unguided", 0.64)],
        },
        r"/gaze/[^/]*$": {"recordings": [
            {"id": "g1", "reader": "A", "kind": "samples", "px_per_deg": 20.0, "spread_px": 20.0, "samples": gaze_samples(rows, columns)},
            {"id": "g2", "reader": "B", "kind": "fixations", "px_per_deg": None, "spread_px": 20.0,
             "samples": [[rows * 0.4, columns * (0.3 + k / 20), k * 0.6, 0.5] for k in range(10)]},
        ]},
        r"/agreement.*": {
            "task": task["id"], "readers": ["A", "B", "C"], "estimates": estimates,
            "matrix": {"measure": "dice", "values": [[1, 0.64, 0.7], [0.64, 1, 0.6], [0.7, 0.6, 1]]},
            "studies": [{"study": study, "title": whole["study"]["title"], "dice": 0.2, "labels": ["fracture", "no fracture", None], "disagreement": 0.8}],
        },
        r"/adjudicate\?.*": {"rows": [{"study": study, "title": whole["study"]["title"], "disagreement": 0.8, "state": "open"}]},
        r"/adjudicate/[^/]*/merge": {"marks": [{**box(0, images[0]), "image": None, "id": "00000000-0000-4000-8000-0000000000aa"}]},
        r"/adjudicate/[^/]*/return": {},
        r"/adjudicate/[^/?]*\?.*": {
            "images": images, "outcome": None,
            "marks": [{"letter": letter, "marks": [box(k, images[0])], "label": classes[k % 2], "confidence": 70, "comment": "seen <b>twice</b>"} for k, letter in enumerate("AB")],
        },
        r"/outcomes": {"etag": "1"},
        r"/units$": {"layer": "block4", "weights": "abc", "units": [
            {"unit": n, "rank": k, "numbers": {"c": 0.4 - k / 20, "p": 0.01}, "gallery": None, "names": [] if k else [{"text": "endplate", "author": "Lea", "date": "2026-11-20", "mine": True}]}
            for k, n in enumerate((41, 7, 230))]},
        r"/results$": {
            "tables": [{"run": "one", "title": "guided", "split": "test", "columns": ["metric", "value", "low", "high"], "rows": [["AUC", 0.91, 0.86, 0.95], ["sensitivity", 0.84, 0.7, 0.93]]}],
            "reports": [],
        },
        r"/exports$": {"rows": [{"id": "e1", "state": "done", "path_name": "marks-folder-1", "counts": {}, "left_out": 2, "message": "", "remedy": "", "command": "sightline marks export KEEP DEST --as folder"}]},
    }  # fmt: skip

    def answer(route):
        path = route.request.url.split("/api/v1", 1)[1]
        if route.request.method != "GET":
            data = route.request.post_data
            sent.setdefault(path, []).append(json.loads(data) if data else None)
        found = re.fullmatch(r"/images/[^/]+/maps/(\w+)/(\d+)", path)
        if found:
            raw(route, map_of(found[1], int(found[2])), frame)
            return
        if re.match(r"/gaze/[^/]+/density", path):
            size = {name: int(value) for name, value in re.findall(r"(rows|columns)=(\d+)", path)}
            grid = np.random.default_rng(0).random((size["rows"], size["columns"]), dtype=np.float32)
            raw(route, grid, [1, 0, 0, 0, 1, 0])
            return
        if path == "/me" and route.request.method == "GET":
            me = person.api("/me")
            runs = [{"key": key, "title": title, "classes": list(classes), "state": "ready", "done": 1, "of": 1, "message": None} for key, title in (("one", "guided"), ("two", "unguided"))]  # fmt: skip
            route.fulfill(json={**me, "runs": runs, "dissection": {"layer": "block4", "units": 3}})
            return
        for pattern, given in answers.items():
            if re.fullmatch(pattern, path):
                route.fulfill(json=given)
                return
        route.fallback()

    person.page.route("**/api/v1/**", answer)
    return sent
