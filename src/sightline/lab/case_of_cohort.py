"""The case panel of a cohort's own volume: what a network says of it, and which of its units respond."""

from __future__ import annotations

import torch

from sightline.case import Case
from sightline.cohorts.volume_view import VolumeView
from sightline.errors import RunError
from sightline.frame import Frame
from sightline.io.nifti import read_volume
from sightline.lab.case_panel import CasePanel
from sightline.lab.case_units import units_of, weights_digest
from sightline.lab.dissection import Dissection
from sightline.lab.engine import Engine
from sightline.lab.planes import cube_shown, facing_of
from sightline.lab.predict import laid_out, probabilities_of
from sightline.lab.run import Run

FACTS = ("level", "grade", "deformity", "foreign")


def panel_of_case(run: Run, case: Case, dissection: Dissection, engine: Engine | None = None) -> CasePanel:
    """A case of a cohort of volumes as `sightline predict` shows a vertebra of a CT (Engstler 2022, table 3).

    Args:
        run: the run that was dissected.
        case: of a cohort with the run's classes.
        dissection: of this run.
        engine: the device.

    Raises:
        RunError: the run sees pictures, or the dissection is of other weights.
    """
    view = run.recipe.view
    if not isinstance(view, VolumeView):
        raise RunError(f"{run.folder} sees pictures; a case panel shows volumes.", "Use sightline explain.")
    device = (engine or Engine()).fabric("32-true").device
    network = laid_out(run.network().to(device))
    units = units_of(weights_digest(run), network, dissection)
    volume = read_volume(case.image)
    planes, frame = view.test(volume.values)
    evidence, activations = units.look(torch.from_numpy(planes)[None].to(device))
    probabilities = probabilities_of(evidence.logits, independent=run.recipe.independent)[0]
    looked_for, said = run.classes.index(dissection.positive), int(probabilities.argmax())
    facing = facing_of(volume.affine)
    stated = [f"{name}: {case.facts[name]}" for name in FACTS if case.facts.get(name)]
    return CasePanel(
        title=case.case_id,
        said=run.classes[said],
        probability=float(probabilities[looked_for]),
        looked_for=dissection.positive,
        called=said == looked_for,
        cube=cube_shown(planes, Frame(frame.shape, frame.to_source, volume.spacing_mm), facing, view),
        units=units.strongest(activations, facing),
        facts=(f"truth: {case.label}", ", ".join(stated)) if stated else (f"truth: {case.label}",),
        without_units="No unit is above its threshold here.",
    )
