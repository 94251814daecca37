"""The child process that computes a run's maps: the one part of the workstation that needs torch.

Started as `python -m sightline.web.workstation.pictures.map_worker`; reads one JSON line of orders from its input and
writes one JSON line an image to its output, so that the server only ever copies numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sightline.errors import SightlineError
from sightline.structures.case import Case, Cohort

AT_ONCE = 4


def main() -> int:
    """Compute the maps that the orders name; exit code 1 where the run cannot be used."""
    orders = json.loads(sys.stdin.readline())
    try:
        _compute(orders)
    except SightlineError as error:
        _print_words({"kind": "failed", "message": error.message, "remedy": error.remedy})
        return 1
    except BrokenPipeError:  # the server has ended, and wants nothing any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception:
        _print_words(
            {"kind": "failed", "message": "The run's maps could not be computed.", "remedy": "See the server's log."}
        )
        traceback.print_exc()
        return 1
    return 0


def _print_words(words: Mapping[str, Any]) -> None:
    print(json.dumps(words), flush=True)


def _compute(orders: Mapping[str, Any]) -> None:
    from sightline.papers.catalogue import CATALOGUE
    from sightline.training.run import open_run
    from sightline.web.workstation.launch import read_studies

    folder = Path(orders["run"])
    run = open_run(folder, CATALOGUE)
    if not run.done:
        raise SightlineError("The training of this run is not finished.", "Run the same train command again.")
    weights = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    _print_words(
        {"kind": "run", "identity": run.identity, "weights": weights, "title": run.recipe.title, "classes": run.classes}
    )
    cohort = read_studies(Path(orders["cohort"]), tuple(orders["classes"]))
    if orders["unlabelled"]:
        # pictures without labels have none that a run could contradict
        cohort = Cohort(cohort.name, run.classes, tuple(replace(c, label=run.classes[0]) for c in cohort), cohort.root)
    else:
        cohort = run.recipe.see(cohort)
        from sightline.training.run import require_same_classes

        require_same_classes(run.classes, cohort.classes, "The cohort")
    answer_pictures(run, run.network(), cohort, orders["keys"], Path(orders["out"]))


def answer_pictures(run: Any, network: Any, cohort: Cohort, keys: Mapping[str, str], out: Path) -> None:
    """Print the answers to pictures, a line each; one that cannot be read does not take the others along.

    Args:
        run: recipe, classes, calibration and boxes.
        network: the run's.
        cohort: all pictures there are.
        keys: of those that are wanted.
        out: folder of the maps.
    """
    whole_studies = run.recipe.join_views != "none"
    for part in list_parts(cohort, keys, whole_studies=whole_studies):
        pictures = replace(cohort, cases=tuple(part))
        try:
            _compute_some(run, network, pictures, keys, out)
        except SightlineError as error:
            for rest in _list_rest(pictures, run.recipe.view, error, keys, whole_studies=whole_studies):
                try:
                    _compute_some(run, network, rest, keys, out)
                except SightlineError as worse:
                    _leave_out(rest, worse, keys)


def list_parts(cohort: Cohort, keys: Mapping[str, str], *, whole_studies: bool) -> list[list[Case]]:
    """The cases to be asked together: some at a time, or whole studies where the network has one answer for each.

    Args:
        cohort: all there is.
        keys: of the cases that are wanted; a study that was left half done is asked whole again.
        whole_studies: the answer is the study's.
    """
    if not whole_studies:
        wanted = [case for case in cohort if case.case_id in keys]
        return [wanted[start : start + AT_ONCE] for start in range(0, len(wanted), AT_ONCE)]
    studies: dict[str, list[Case]] = {}
    for case in cohort:
        studies.setdefault(case.study_id, []).append(case)
    return [cases for cases in studies.values() if any(case.case_id in keys for case in cases)]


def _list_rest(
    pictures: Cohort, view: Any, error: SightlineError, keys: Mapping[str, str], *, whole_studies: bool
) -> list[Cohort]:
    """What is asked again of pictures that could not be asked together: each alone, of a study those that read."""
    from sightline.data.loader import CohortItems, iterate_test_batches

    each = [replace(pictures, cases=(case,)) for case in pictures]
    if not whole_studies:
        return each
    readable = []
    for alone in each:
        try:
            # only read: the network is asked once, for all that are left
            list(iterate_test_batches(CohortItems(alone, view), batch_size=1))
            readable.append(alone)
        except SightlineError as unread:
            _leave_out(alone, unread, keys)
    if len(readable) == len(each):
        _leave_out(pictures, error, keys)
        return []
    return [replace(pictures, cases=tuple(case for alone in readable for case in alone))] if readable else []


def _leave_out(pictures: Cohort, error: SightlineError, keys: Mapping[str, str]) -> None:
    for case in pictures:
        if case.case_id in keys:
            _print_words({"kind": "left out", "image": keys[case.case_id], "message": error.message})


def _compute_some(run: Any, network: Any, cohort: Cohort, keys: Mapping[str, str], out: Path) -> None:
    from sightline.data.views.frames import find_case_frame, find_source_frame
    from sightline.inference.boxes import read_map_boxes
    from sightline.inference.predict import join_output, predict
    from sightline.structures.joined_views import find_showing_views

    view, recipe = run.recipe.view, run.recipe
    output = predict(network, cohort, view, batch_size=AT_ONCE, independent=recipe.independent)
    output = join_output(output, recipe.join_views)
    predictions = output.predictions
    probabilities = predictions.probabilities
    if run.calibration is not None:
        probabilities = run.calibration.probabilities(probabilities, independent=recipe.independent)
    frames = [find_case_frame(case, view) for case in cohort]
    boxes: Any = None
    named = probabilities.argmax(axis=1)
    shows = np.ones(len(named), dtype=bool)
    if predictions.alone is not None:
        shows = find_showing_views(predictions.alone, predictions.probabilities, predictions.study_ids)
    if output.maps is not None and output.maps.maps.ndim == 4:
        boxes = read_map_boxes(output.maps, named, frames, run.boxes)
    for row, case in enumerate(cohort):
        if case.case_id not in keys:
            continue
        p = [float(x) for x in probabilities[row]]
        words: dict[str, Any] = {"kind": "image", "image": keys[case.case_id], "probabilities": p, "map": None}
        if output.maps is not None:
            words["map"] = _write_map(output.maps, row, frames[row], out / f"{keys[case.case_id]}.npz")
        words["proposals"] = []
        if boxes is not None and shows[row] and _has_proposal(p, int(named[row])):
            shape = find_source_frame(case).shape
            for corners, score in zip(boxes[0][row], boxes[1][row], strict=True):
                found = _build_proposal(corners, float(score), shape, run.classes[int(named[row])])
                words["proposals"] += [found] if found else []
        _print_words(words)


def _has_proposal(probabilities: list[float], top: int) -> bool:
    """Whether a run proposes anything: not for the first class, which is that of nothing to see."""
    return top > 0 and probabilities[top] >= 0.5


def _build_proposal(corners: Any, score: float, shape: tuple[int, ...], label: str) -> dict[str, Any] | None:
    low = [float(np.clip(x, 0, n)) for x, n in zip(corners[:2], shape, strict=True)]
    high = [float(np.clip(x, 0, n)) for x, n in zip(corners[2:], shape, strict=True)]
    if any(b <= a for a, b in zip(low, high, strict=True)):
        return None
    mark = {"kind": "box", "start": low, "stop": high, "role": "finding", "label": label}
    return {"mark": mark, "score": score}


def _write_map(maps: Any, row: int, view: Any, path: Path) -> dict[str, Any]:
    """One image's maps as float16, with where they lie in the picture."""
    cells = maps.maps[row].astype(np.float16)
    frame = maps.frame(row, view)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial.npz")
    np.savez(partial, maps=cells, classes=maps.classes[row])
    partial.replace(path)
    exact = cells.astype(np.float32)
    ranges = [[float(one.min()), float(one.max())] for one in exact]
    affine = [float(x) for x in np.asarray(frame.to_source)[:-1].ravel()]
    return {"shape": list(cells.shape[1:]), "frame": affine, "classes": maps.classes[row].tolist(), "ranges": ranges}


if __name__ == "__main__":
    sys.exit(main())
