"""Pictures explained: every map that was asked for side by side, each checked before it is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sightline.data.targets.gaze_choice import GazeChoice
from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.errors import RecipeError, RunError, SightlineError, count_noun
from sightline.explainers.cam import ClassActivationMap, GradCAM, GradCAMPlusPlus
from sightline.explainers.gradients import GuidedGradCAM, InputGradient, SmoothGrad
from sightline.explainers.sanity_checks.findings import Preflight
from sightline.explainers.sanity_checks.preflight import run_preflight
from sightline.inference.radiographs import list_radiograph_files, read_radiograph
from sightline.inference.results.found_files import write_remarks
from sightline.io.files import make_safe_name, make_unique_name, write_text
from sightline.io.image import read_image
from sightline.io.picture import Reject, write_rejects
from sightline.io.progress import show_progress
from sightline.plots.map_rows import ShownMap, draw_map_row, draw_volume_map_row
from sightline.plots.planes import Facing, find_facing, turn_cube
from sightline.structures.case import Cohort
from sightline.structures.evidence import compute_probabilities, forward_evidence
from sightline.structures.frame import Frame
from sightline.structures.gaze import Gaze
from sightline.structures.protocols import Explainer
from sightline.structures.regions import Region
from sightline.training.engine import Engine
from sightline.training.preconditions import require_finished
from sightline.training.run import Run

EXPLAINERS: Mapping[str, tuple[str, Explainer]] = {
    "cam": ("class map", ClassActivationMap()),
    "grad_cam": ("Grad-CAM", GradCAM()),
    "grad_cam_pp": ("Grad-CAM++", GradCAMPlusPlus()),
    "gradient": ("image gradient", InputGradient()),
    "guided": ("guided back-propagation", InputGradient("guided")),
    "deconvolution": ("deconvolution", InputGradient("deconvolution")),
    "guided_grad_cam": ("guided Grad-CAM", GuidedGradCAM()),
    "smooth_grad": ("SmoothGrad", SmoothGrad()),
}
CHECKED = 4


@dataclass(frozen=True)
class _Picture:
    """One picture or volume as the network sees it, with what is known of it; `facing` of volumes alone."""

    name: str
    planes: NDArray[np.float32]
    frame: Frame
    label: str | None = None
    regions: tuple[Region, ...] = ()
    gaze: NDArray[np.float32] | None = field(default=None)
    facing: Facing | None = None


def explain_files(
    run: Run, inputs: Sequence[Path], out: Path, names: Sequence[str], engine: Engine | None = None
) -> tuple[int, int]:
    """Explain pictures a person points at: `maps/NAME.png`, `preflight.md`; how many were explained and rejected.

    Args:
        run: a finished run.
        inputs: files or folders, DICOM or pictures.
        out: folder to write.
        names: explainers, keys of `EXPLAINERS`.
        engine: device.

    Raises:
        RunError: nothing to read, or the run is not finished or trained on experts' crops.
        RecipeError: no such explainer.
    """
    pictures: list[_Picture] = []
    rejects: list[Reject] = []
    remarks: list[tuple[Path, str]] = []
    view = run.recipe.view
    if isinstance(view, VolumeView):
        raise RunError(
            f"{run.folder} was trained on patches of CTs, one a vertebra, which files do not hold.",
            "Explain cases of a cohort (give its folder), or use `sightline predict` with --centroids on a CT.",
        )
    if view.crop is not None:
        raise RunError(f"{run.folder} was trained on squares around experts' boxes.", "Explain cases of its cohort.")
    taken: set[str] = set()
    for path in list_radiograph_files(inputs, out):
        try:
            picture = read_radiograph(path)
            planes, frame = view.show(picture.pixels, picture.frame)
        except SightlineError as error:
            rejects.append(Reject(path, error.message.removeprefix(f"{path}: "), error.remedy))
            continue
        pictures.append(_Picture(make_unique_name(path.stem, taken), planes, frame))
        if picture.facts.get("remark"):
            remarks.append((path, picture.facts["remark"]))
    out.mkdir(parents=True, exist_ok=True)
    if remarks:
        write_remarks(out, remarks)
    write_rejects(out / "rejects.csv", rejects)
    if pictures:
        _explain(run, pictures, out, names, engine or Engine())
    return len(pictures), len(rejects)


def explain_cases(
    run: Run, cohort: Cohort, out: Path, names: Sequence[str], *, most: int = 12, engine: Engine | None = None
) -> int:
    """Explain cases of a cohort, as many of each class as can be, with readers' gaze and experts' marks beside.

    Args:
        run: a finished run.
        cohort: the cases to choose among.
        out: folder to write.
        names: explainers, keys of `EXPLAINERS`.
        most: pictures.
        engine: device.

    Returns:
        How many were explained.
    """
    from sightline.data.loader import CohortItems, Key

    if most < 1:
        raise RunError(f"At least one case is explained; got {most}.", "Give --most 12.")
    cohort = run.recipe.see(cohort)
    if len(cohort) == 0:
        raise RunError(f"Cohort {cohort.name!r} has no case to explain.", "Choose another split.")
    volumes = isinstance(run.recipe.view, VolumeView)
    from sightline.io.nifti import read_volume

    # eyes were followed on pictures alone
    items = CohortItems(cohort, run.recipe.view, None if volumes else GazeChoice())
    pictures = []
    for index in _choose_by_turns(cohort, most):
        item, case = items[Key(index, -1)], cohort[index]
        gaze = None if item.target is None or not item.guided.any() else np.asarray(item.target[0], dtype=np.float32)
        marks = tuple(region for region in case.regions if region.tag.role in ("finding", "focus"))
        facing = find_facing(read_volume(case.image).affine) if volumes else None
        pictures.append(
            _Picture(
                case.case_id, np.asarray(item.image, dtype=np.float32), item.frame, case.label, marks, gaze, facing
            )
        )
    out.mkdir(parents=True, exist_ok=True)
    _explain(run, pictures, out, names, engine or Engine())
    return len(pictures)


def draw_gaze_over_time(
    cohort: Cohort, out: Path, *, parts: int = 5, seconds: float | None = None, most: int = 12, size: int = 512
) -> list[Path]:
    """Where readers looked, part by part of their time and in all: `CASE.png`; of several readers `CASE__READER.png`.

    The temporal and the static heat maps of Karargyris 2021 and Watanabe 2022 (figure 2). Each map is scaled by its own
    maximum; how much of the reader's looking lies in it stands in its name.

    Args:
        cohort: cases; those without gaze are left out.
        out: folder to write.
        parts: equal parts of the time from the first place looked at to the last.
        seconds: length of a part instead.
        most: cases.
        size: longest side of the picture in pixels.

    Raises:
        RunError: numbers that ask for nothing, or no case has gaze.
    """
    if parts < 1 or most < 1 or (seconds is not None and not 0.0 < seconds < math.inf):
        raise RunError(f"Gaze is drawn in 1 part or more, of seconds above 0; got {parts}, {seconds}, most {most}.")
    written: list[Path] = []
    view = View(size=size)
    having = [case for case in cohort if any(isinstance(r, Gaze) and len(r) for r in case.regions)]
    if not having:
        raise RunError(f"No case of {cohort.name!r} has gaze.", "Choose another split, or import gaze.")
    out.mkdir(parents=True, exist_ok=True)
    for case in having[:most]:
        picture = read_image(case.image)
        planes, frame = view.show(picture.pixels, picture.frame)
        pixels = planes[0] if len(planes) == 1 else np.moveaxis(planes, 0, -1)
        marks = [region for region in case.regions if region.tag.role in ("finding", "focus")]
        readings = [region for region in case.regions if isinstance(region, Gaze) and len(region)]
        for n, gaze in enumerate(readings):
            shown = [_draw_gaze_part(gaze, start, stop, frame) for start, stop in split_gaze(gaze, parts, seconds)]
            shown.append(ShownMap(f"all, {gaze.dwell_s.sum():.1f} s looked", gaze.draw(frame)))
            reader = gaze.tag.reader or f"reader {n + 1}"
            name = case.case_id if len(readings) == 1 else f"{case.case_id}__{reader}"
            path = out / f"{make_safe_name(name)}.png"
            caption = f"{case.case_id}: {case.label}, {reader}"
            path.write_bytes(
                draw_map_row(pixels, frame, marks, shown, caption, "Colour shows where the reader looked.")
            )
            written.append(path)
    return written


def split_gaze(gaze: Gaze, parts: int, seconds: float | None = None) -> list[tuple[float, float]]:
    """Start and stop of each part of a reading, in seconds; together they hold every place."""
    first, last = float(gaze.start_s.min()), float(gaze.start_s.max())
    count = parts if seconds is None else int((last - first) // seconds) + 1
    length = (last - first) / count if seconds is None else seconds
    # the last part reaches past the last place, which begins at its end
    edges = [first + k * length for k in range(count)] + [math.nextafter(max(last, first + count * length), math.inf)]
    return list(pairwise(edges))


def _draw_gaze_part(gaze: Gaze, start: float, stop: float, frame: Frame) -> ShownMap:
    part = gaze.between(start, stop)
    return ShownMap(f"{start:.1f} to {stop:.1f} s, {part.dwell_s.sum():.1f} s looked", part.draw(frame))


def _choose_by_turns(cohort: Cohort, most: int) -> list[int]:
    """Positions of cases, the classes by turns."""
    turns = [[i for i, case in enumerate(cohort) if case.label == name] for name in cohort.classes]
    longest = max(len(turn) for turn in turns)
    return [turn[n] for n in range(longest) for turn in turns if n < len(turn)][:most]


def _explain(run: Run, pictures: Sequence[_Picture], out: Path, names: Sequence[str], engine: Engine) -> None:
    require_finished(run)
    names = tuple(dict.fromkeys(names))
    unknown = [name for name in names if name not in EXPLAINERS]
    if unknown or not names:
        no = ", ".join(unknown) or "(none given)"
        raise RecipeError(f"There is no explainer {no}.", f"Known: {', '.join(EXPLAINERS)}.")
    device = engine.find_device()
    network = run.network().to(device).eval()
    checks = _check_explainers(network, pictures, names, device)
    lines = [
        "# Before these maps are believed",
        "",
        f"{run.recipe.title}, {count_noun(min(len(pictures), CHECKED), 'picture')}.",
        "",
    ]
    for name in names:
        lines += [f"## {EXPLAINERS[name][0]}", "", *_describe_check(checks[name]), ""]
    write_text(out / "preflight.md", "\n".join(lines))
    (out / "maps").mkdir(exist_ok=True)
    with show_progress("explain", len(pictures), quiet=engine.quiet) as advance:
        for picture in pictures:
            shown = _compute_maps(run, network, picture, names, checks, device)
            page = _draw_page(run, picture, shown, _write_caption(run, network, picture, device))
            (out / "maps" / f"{make_safe_name(picture.name)}.png").write_bytes(page)
            advance(1)


def _draw_page(run: Run, picture: _Picture, shown: Sequence[ShownMap], caption: str) -> bytes:
    if picture.facing is not None and isinstance(run.recipe.view, VolumeView):
        cube = turn_cube(picture.planes, picture.frame, picture.facing, run.recipe.view)
        return draw_volume_map_row(cube, picture.regions, shown, f"{picture.name}: {caption}")
    pixels = picture.planes[0] if len(picture.planes) == 1 else np.moveaxis(picture.planes, 0, -1)
    return draw_map_row(pixels, picture.frame, picture.regions, shown, caption)


def _check_explainers(
    network: nn.Module, pictures: Sequence[_Picture], names: Sequence[str], device: torch.device
) -> dict[str, Preflight | SightlineError]:
    """What pre-flight finds of each explainer; an explainer that cannot work here gives its reason."""
    images = torch.from_numpy(np.stack([_repeat_channels(p.planes) for p in pictures[:CHECKED]])).to(device)
    found: dict[str, Preflight | SightlineError] = {}
    for name in names:
        try:
            found[name] = run_preflight(network, images, EXPLAINERS[name][1])
        except SightlineError as error:
            found[name] = error
    return found


def _describe_check(found: Preflight | SightlineError) -> list[str]:
    if isinstance(found, SightlineError):
        return [f"- **not shown**: {found.message} {found.remedy}"]
    return [f"- **{f.severity}**, {f.kind}: {f.message} {f.remedy}".rstrip() for f in found.findings]


def _compute_maps(
    run: Run,
    network: nn.Module,
    picture: _Picture,
    names: Sequence[str],
    checks: Mapping[str, Preflight | SightlineError],
    device: torch.device,
) -> list[ShownMap]:
    """Gaze, what a decoder paints, and every explainer's map of the predicted class."""
    image = torch.from_numpy(picture.planes)[None].to(device)
    evidence = forward_evidence(network, image, device)
    predicted = int(evidence.logits[0].argmax())
    shown = [] if picture.gaze is None else [ShownMap("gaze (reader)", picture.gaze)]
    for name in names:
        found = checks[name]
        if isinstance(found, SightlineError):
            continue
        cells = EXPLAINERS[name][1](network, image, [predicted])[0, 0]
        wrong = [finding.message for finding in found.findings if finding.severity == "wrong"]
        window = None
        if evidence.window is not None and tuple(cells.shape) != tuple(image.shape[2:]):
            window = evidence.window[0].double().numpy()
        shown.append(ShownMap(EXPLAINERS[name][0], _convert_to_array(cells), wrong[0] if wrong else "", window))
    if "decoder" in evidence.extras:
        shown.append(ShownMap("decoder", _convert_to_array(evidence.extras["decoder"][0, 0].sigmoid())))
    return shown


def _write_caption(run: Run, network: nn.Module, picture: _Picture, device: torch.device) -> str:
    logits = forward_evidence(network, torch.from_numpy(picture.planes)[None].to(device), device).logits
    p = compute_probabilities(logits, independent=run.recipe.independent)[0]
    answer = f"network says {run.classes[int(p.argmax())]} ({p.max():.0%})"
    return answer if picture.label is None else f"{answer}; label {picture.label}"


def _convert_to_array(cells: Tensor) -> NDArray[np.float64]:
    return np.asarray(cells.detach().double().cpu().numpy())


def _repeat_channels(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.broadcast_to(planes, (3, *planes.shape[1:])) if len(planes) == 1 and planes.ndim == 3 else planes
