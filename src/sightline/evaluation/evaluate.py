"""A run measured on a cohort: predictions and maps are saved first, every number is then computed from that."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sightline.data.views.frames import refuse_misfit_masks
from sightline.data.views.image_view import View, refuse_unmarked
from sightline.errors import CohortError
from sightline.evaluation.result import Evaluation, EvaluationFiles, read_taken_evaluation
from sightline.evaluation.scoring.boxes import score_boxes, tune_boxes
from sightline.evaluation.scoring.gaze import score_cohort_gaze
from sightline.evaluation.scoring.maps import iterate_map_rows
from sightline.inference.network_output import NetworkOutput
from sightline.inference.predict import join_output, predict
from sightline.io.files import digest_file
from sightline.metrics.maps.localisation import MapScores
from sightline.structures.case import PROPOSED_BY, Cohort
from sightline.structures.gaze import Gaze
from sightline.structures.protocols import find_heatmap
from sightline.structures.regions import Mask
from sightline.structures.resampling import cache_by_file
from sightline.training.engine import Engine, keep_freed_memory
from sightline.training.feature_cache import keep_features
from sightline.training.preconditions import require_finished
from sightline.training.run import Run, require_same_classes
from sightline.training.serialization import Catalogue

# raised whenever saved scores would come out differently
SCORING = 4


def evaluate(
    run: Run,
    cohort: Cohort,
    name: str,
    *,
    out: Path | None = None,
    engine: Engine | None = None,
    calibrated: bool = True,
) -> Evaluation:
    """Predict a cohort with a run and score the maps; kept under `predictions/`, reused when nothing changed.

    Args:
        run: a finished run.
        cohort: any cohort with the run's classes, also another hospital's.
        name: what the files are called: `test`, `external`.
        out: where to write; the run's own `predictions/` when None.
        engine: device and workers.
        calibrated: map the probabilities as `sightline calibrate` fitted them on validation, where it did. The files
            keep what the network said; boxes keep its scores.

    Raises:
        RunError: the run is not finished.
        CohortError: other classes, marks that are proposals of this very run, or masks of another size than the
            picture.
    """
    cohort = run.recipe.see(cohort)
    if not run.done:
        taken = read_taken_evaluation(run.folder, name, cohort, calibrated=calibrated)
        if taken is not None:
            return taken
    require_finished(run)
    require_same_classes(run.classes, cohort.classes, f"Cohort {cohort.name!r}")
    _refuse_own_proposals(run, cohort)
    view = run.recipe.view
    if isinstance(view, View):
        refuse_unmarked(cohort, view)
    refuse_misfit_masks(cohort)
    engine = engine or Engine()
    files = EvaluationFiles(out or run.folder / "predictions", name)
    stamp = {
        "run": run.identity,
        "cohort": cohort.fingerprint(),
        "content": _digest_content(cohort),
        "cases": len(cohort),
        "scoring": SCORING,
        "boxes": run.boxes.notation(),
    }
    kept = files.read(stamp) or _read_earlier_output(
        run, cohort, files, EvaluationFiles(run.folder / "predictions", name), stamp
    )
    if kept is not None:
        return _recalibrate(run, kept) if calibrated else kept
    device = engine.find_device()
    if device.type == "cpu":
        keep_freed_memory()
    network = run.network()
    keep_features(network, engine.features, view)
    output = predict(
        network,
        cohort,
        view,
        batch_size=max(16, run.recipe.batch_size),
        device=device,
        workers=engine.workers,
        quiet=engine.quiet,
        title=f"predict {name}",
        independent=run.recipe.independent,
        explainer=find_heatmap(run.recipe.objective),
    )
    evaluation = _measure_output(run, join_output(output, run.recipe.join_views), cohort)
    files.write(evaluation, stamp)
    return _recalibrate(run, evaluation) if calibrated else evaluation


def _digest_content(cohort: Cohort) -> str:
    """A digest of what is in the files of pictures and masks: the fingerprint knows their names and sizes alone, and
    pixels of an uncompressed file can change without either."""
    digest = hashlib.sha256()
    for case in cohort:
        masks = [r.source for r in case.regions if isinstance(r, Mask) and isinstance(r.source, Path)]
        for path in (case.image, *masks):
            digest.update(_digest_once(path).encode() if path.is_file() else b"-")
    return digest.hexdigest()[:16]


_digest_once = cache_by_file(maxsize=20_000)(digest_file)


def _refuse_own_proposals(run: Run, cohort: Cohort) -> None:
    """Refuse to test a run on marks that a reader took over from its own proposals: a circle."""
    proposed = cohort.about.get(PROPOSED_BY, "").split()
    if not proposed or not any(not isinstance(r, Gaze) for case in cohort for r in case.regions):
        return
    if hashlib.sha256((run.folder / "weights.safetensors").read_bytes()).hexdigest() in proposed:
        raise CohortError(
            f"Marks of {cohort.name!r} are proposals of {run.folder} that readers accepted or edited: a run cannot be "
            "tested on its own answers.",
            "Use the cohort it came from, or export the marks of a task that was not assisted.",
        )


def _read_earlier_output(
    run: Run, cohort: Cohort, files: EvaluationFiles, own: EvaluationFiles, stamp: Mapping[str, object]
) -> Evaluation | None:
    """What the run's own `predictions/` hold of the cohort, or what was said before boxes were chosen: the network need
    not be asked again, its words are scored anew and written."""
    output = own.read(stamp)
    if output is None:
        before = files.read(stamp, but="boxes") or own.read(stamp, but="boxes")
        output = None if before is None else _measure_output(run, before.said, cohort)
    if output is not None:
        files.write(output, stamp)
    return output


def _recalibrate(run: Run, evaluation: Evaluation) -> Evaluation:
    """The evaluation with the probabilities that validation says are meant."""
    record = run.calibration
    return evaluation if record is None else replace(evaluation, predictions=record.apply(evaluation.predictions))


def _measure_output(run: Run, output: NetworkOutput, cohort: Cohort) -> Evaluation:
    """What was said of a cohort, beside what experts marked; boxes and gaze are of pictures alone."""
    view, printed = run.recipe.view, run.recipe.boxes
    rows = () if output.maps is None else tuple(iterate_map_rows(cohort, output.maps, view))
    evaluation = Evaluation(
        predictions=output.predictions,
        maps=output.maps,
        map_scores=MapScores(rows) if rows else None,
        boxes=output.boxes,
        shown=output.shown,
        energies=output.energies,
        features=output.features,
    )
    if not isinstance(view, View):
        return evaluation
    return replace(
        evaluation,
        box_scores=score_boxes(output, cohort, view, run.boxes),
        printed_box_scores=None if printed == run.boxes else score_boxes(output, cohort, view, printed),
        gaze_scores=score_cohort_gaze(output, cohort, view),
    )


def choose_boxes(run: Run, cohort: Cohort, catalogue: Catalogue, *, engine: Engine | None = None) -> Run:
    """Choose on the validation cases of a cohort how boxes are read off a run's maps, once; the run that knows it.

    Args:
        run: a finished run.
        cohort: what it was trained on.
        catalogue: words of recipes.
        engine: device and workers.
    """
    validation = run.recipe.see(cohort).split("val")
    marked = any(region.tag.role == "finding" for case in validation for region in case.regions)
    flat = isinstance(run.recipe.view, View)
    if (run.folder / "boxes.json").is_file() or not marked or "val" in run.recipe.train_on or not flat:
        return run
    return tune_boxes(run, evaluate(run, validation, "val", engine=engine).said, validation, catalogue)
