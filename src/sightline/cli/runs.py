"""Commands that train, combine and evaluate runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from sightline.cli.options import DeviceOptions, Precision, RecipeOptions, collect_changes, hold_folder, make_engine


@dataclass(frozen=True)
class Train:
    """Train a recipe on a cohort into a run folder; run the same command again to resume."""

    recipe: Annotated[Positional[str], arg(metavar="RECIPE")]
    """Name of a recipe (see `sightline recipes`), or a recipe.json."""
    cohort: Path
    """Cohort folder in our layout."""
    out: Path
    """Run folder to write."""
    changes: OmitArgPrefixes[RecipeOptions] = field(default_factory=RecipeOptions)
    weight: float | None = None
    """Weight of the guidance (lambda)."""
    style: Literal["scribble", "box", "mask"] | None = None
    """Style of the regions used for guidance."""
    role: Literal["focus", "finding"] | None = None
    """Regions used for guidance: focus (where to look) or finding."""
    readers: str | None = None
    """Whose marks, where several readers marked: union, intersection, majority, staple, soft (shares), or a name."""
    rate: float | None = None
    """First learning rate of the schedule."""
    select: Literal["last", "auc", "f1", "loss"] | None = None
    """Which epoch's weights are kept."""
    precision: Precision | None = None
    """Fabric's precision."""
    seed: int | None = None
    """Seed of initialisation, order and augmentation."""
    mlflow: str | None = None
    """Tracking server (or sqlite:///FILE) that is told every epoch."""
    deterministic: bool = False
    """Deterministic algorithms where torch has them; at the end the operations that have none are named."""
    on: OmitArgPrefixes[DeviceOptions] = field(default_factory=DeviceOptions)

    def run(self) -> int:
        """Train."""
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.evaluation.evaluate import choose_boxes
        from sightline.papers.catalogue import CATALOGUE
        from sightline.papers.overrides import apply_changes
        from sightline.papers.recipes import find_recipe
        from sightline.training.engine import is_first_process
        from sightline.training.model_card import write_model_card
        from sightline.training.preconditions import require_regions
        from sightline.training.train import train

        recipe = apply_changes(find_recipe(self.recipe), collect_changes(self, self.changes))
        cohort = read_cohort(self.cohort)
        require_regions(recipe, recipe.see(cohort))
        engine = replace(make_engine(self.on), mlflow=self.mlflow, deterministic=self.deterministic)
        choose = partial(choose_boxes, cohort=cohort, catalogue=CATALOGUE, engine=make_engine(self.on))
        run = train(recipe, cohort, self.out, CATALOGUE, engine, conclude=choose)
        if not is_first_process():
            return 0
        write_model_card(choose(run))
        print(f"{self.out}: {(self.out / 'DONE').read_text(encoding='utf-8').strip()}")
        return 0


@dataclass(frozen=True)
class Assemble:
    """Combine a trained localiser with a classifier trained on experts' crops; the result is a run like any other."""

    localiser: Annotated[Positional[Path], arg(metavar="LOCALISER")]
    """Run folder of a box regression."""
    classifier: Annotated[Positional[Path], arg(metavar="CLASSIFIER")]
    """Run folder of a classifier trained on crops (recipe ubm)."""
    cohort: Path
    """Cohort folder that both were trained on."""
    out: Path
    """Run folder to write."""
    size: int | None = None
    """Side in pixels of the image from which boxes are cropped; default: twice the classifier's."""

    @hold_folder(lambda command: command.out)
    def run(self) -> int:
        """Put together."""
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.papers.catalogue import CATALOGUE
        from sightline.papers.combined import build_cascade_recipe
        from sightline.training.assemble import assemble
        from sightline.training.model_card import write_model_card
        from sightline.training.run import open_run

        parts = {"localiser": open_run(self.localiser, CATALOGUE), "classifier": open_run(self.classifier, CATALOGUE)}
        recipe = build_cascade_recipe(parts["localiser"].recipe, parts["classifier"].recipe, self.size)
        write_model_card(assemble(recipe, read_cohort(self.cohort), parts, self.out, CATALOGUE))
        print(f"{self.out}: {(self.out / 'DONE').read_text(encoding='utf-8').strip()}")
        return 0


@dataclass(frozen=True)
class MakeEnsemble:
    """Combine finished runs (for example the seeds of one row) into an ensemble; the result is a run like any other."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN [RUN ...]")]
    """Run folders; one is enough for test-time flips or smoother maps."""
    cohort: Path
    """Cohort folder that they were trained on."""
    out: Path
    """Run folder to write."""
    mirrored: bool = False
    """Test-time augmentation: average over the image and its left-right flip."""
    smooth: float = 0.0
    """Standard deviation, in cells of the map, of a Gaussian over the mean map."""
    maps_of: tuple[int, ...] = ()
    """Runs whose maps are shown, by their place from 0 (the guided one's, say); default: the mean map of all."""
    on: OmitArgPrefixes[DeviceOptions] = field(default_factory=DeviceOptions)

    @hold_folder(lambda command: command.out)
    def run(self) -> int:
        """Put together, and choose on validation where boxes are cut from its maps."""
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.evaluation.evaluate import choose_boxes
        from sightline.papers.catalogue import CATALOGUE
        from sightline.papers.combined import build_ensemble_recipe
        from sightline.training.assemble import assemble
        from sightline.training.model_card import write_model_card
        from sightline.training.run import open_run

        parts = {f"members.{place}": open_run(path, CATALOGUE) for place, path in enumerate(self.runs)}
        recipe = build_ensemble_recipe(
            [run.recipe for run in parts.values()], mirrored=self.mirrored, smooth=self.smooth, maps_of=self.maps_of
        )
        cohort = read_cohort(self.cohort)
        choose = partial(choose_boxes, cohort=cohort, catalogue=CATALOGUE, engine=make_engine(self.on))
        run = assemble(recipe, cohort, parts, self.out, CATALOGUE, conclude=choose)
        write_model_card(choose(run))
        print(f"{self.out}: {(self.out / 'DONE').read_text(encoding='utf-8').strip()}")
        return 0


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a run on a cohort: metrics.json, metrics.md, predictions, maps and panels."""

    folder: Annotated[Positional[Path], arg(name="run", metavar="RUN")]
    """Run folder."""
    cohort: Path
    """Cohort folder with the run's classes; may come from another hospital."""
    split: Literal["test", "val", "train", "all"] = "test"
    """Which cases."""
    out: Path | None = None
    """Folder to write; default: RUN/evaluation/COHORT-SPLIT."""
    panels: int = 8
    """Number of pictures to draw; 0 draws none."""
    replicates: int = 2000
    """Bootstrap samples over patients."""
    prevalence: tuple[float, ...] = ()
    """Prevalences for which PPV and NPV are computed."""
    faithfulness: bool = False
    """Remove pixels, or put them back, in the order of each map: deletion, insertion and ROAD beside a random
    order, a Gaussian at the centre and an untrained network's map (pictures only)."""
    explainers: tuple[str, ...] = ("cam", "grad_cam")
    """Explainers for --faithfulness: cam, grad_cam, grad_cam_pp, gradient, guided, deconvolution, guided_grad_cam,
    smooth_grad."""
    faithfulness_images: int = 24
    """Number of images for --faithfulness, balanced over the classes."""
    on: OmitArgPrefixes[DeviceOptions] = field(default_factory=DeviceOptions)

    def run(self) -> int:
        """Evaluate and print the metrics."""
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.errors import RunError
        from sightline.evaluation.evidence.figures import write_figures
        from sightline.evaluation.gallery import write_panels
        from sightline.evaluation.measure import measure_run
        from sightline.evaluation.result import describe_replaced, name_evaluation_folder
        from sightline.io.files import hold_folder
        from sightline.papers.catalogue import CATALOGUE
        from sightline.training.run import open_run

        # before the work of an hour, not after it
        if self.panels < 0 or self.replicates < 1 or self.faithfulness_images < 1:
            raise RunError(
                f"panels must be 0 or more, replicates and faithfulness images 1 or more; got {self.panels}, "
                f"{self.replicates}, {self.faithfulness_images}.",
                "--panels 0 draws none; try --replicates 2000 and --faithfulness-images 24.",
            )
        run = open_run(self.folder, CATALOGUE)
        whole = read_cohort(self.cohort)
        cohort = run.recipe.see(whole.part(self.split))
        out = self.out or name_evaluation_folder(self.folder, whole.name, self.split)
        engine = make_engine(self.on)
        with hold_folder(out):
            if replaced := describe_replaced(out, self.split, cohort):
                print(replaced, file=sys.stderr)
            report = measure_run(
                run,
                cohort,
                self.split,
                out,
                name=whole.name,
                engine=engine,
                replicates=self.replicates,
                prevalences=self.prevalence,
                explainers=self.explainers if self.faithfulness else None,
                images=self.faithfulness_images,
            )
            if run.recipe.classifies:
                write_figures(report.evaluation.predictions, out / "figures", title=f"{whole.name}, {self.split}")
            write_panels(report.evaluation, cohort, run.recipe.view, out / "panels", most=self.panels)
        for line in report.lines():
            print(line)
        print(f"written to {out}")
        return 0
