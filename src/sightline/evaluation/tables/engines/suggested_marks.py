"""What marks to make next are worth: a first network chooses the pictures that an expert marks, a second one is trained
on those marks too.

All pictures of a training set have their label; few are marked. `sightline cohort suggest` says which to mark next; a
row of a table that is `Asking` does what an expert would then do, by showing the marks of just those pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from sightline.errors import CohortError, RecipeError, count_noun
from sightline.structures.case import Case, Cohort, is_normal
from sightline.structures.notation import Notation, write_fields
from sightline.training.engine import Engine
from sightline.training.run import Run


@dataclass(frozen=True)
class Asking:
    """How a first network chooses the pictures with a finding that are marked besides those it was shown.

    Attributes:
        strategy: of `suggest_cases`. Of every strategy but `random` each fifth picture is random, as by the command.
        n: pictures marked besides.

    Example:
        >>> Asking("uncertainty", 50).n
        50
    """

    strategy: str = "mixed"
    n: int = 50

    def __post_init__(self) -> None:
        """Refuse no picture; the strategy is looked at when it is used, or by `require_strategy`."""
        if self.n < 1:
            raise RecipeError(f"One picture or more is marked next; got {self.n}.", "Try 50.")

    def notation(self) -> Notation:
        """What the identity of a run holds of how its marks were chosen."""
        return write_fields("Asking", strategy=self.strategy, n=self.n)


def show_suggested_marks(
    run: Run, cohort: Cohort, asking: Asking, seed: int = 0, engine: Engine | None = None
) -> Cohort:
    """The cohort in which the training pictures keep their marks that a run was shown or asks for, and no others.

    What normal pictures hold, and validation and test pictures, stay as they are.

    Args:
        run: a finished run that was guided by some of the marks, or by none.
        cohort: the cohort it was trained on, with all marks.
        asking: how many further pictures are marked, and which.
        seed: of what is chosen at random.
        engine: device.

    Raises:
        CohortError: fewer pictures with marks are left than are asked for.
        RunError: as `suggest_cases`.
    """
    # a table whose rows ask for nothing does without
    from sightline.evaluation.suggestions import suggest_cases

    training = cohort.split(*run.recipe.train_on)
    # whose marks the run was shown: nobody's, some patients', or (None) everybody's
    shown = run.recipe.regions.patients(training) if run.recipe.guided_by_regions else frozenset()

    def is_hidden(case: Case) -> bool:
        marked = any(region.tag.role == "finding" for region in case.regions)
        return marked and not is_normal(case.label) and shown is not None and case.patient_id not in shown

    hidden = training.where(is_hidden)
    if len(hidden) < asking.n:
        raise CohortError(
            f"{count_noun(asking.n, 'picture is', 'pictures are')} to be marked next, and "
            f"{len(hidden)} are left that {run.folder.name} was not "
            "shown.",
            "Ask for fewer, or begin with a smaller share of the marks.",
        )
    strategy = cast(Any, asking.strategy)
    chosen = {one.case_id for one in suggest_cases(run, hidden, asking.n, strategy=strategy, seed=seed, engine=engine)}
    left = {case.case_id for case in hidden} - chosen
    return replace(
        cohort,
        cases=tuple(
            replace(case, regions=tuple(region for region in case.regions if region.tag.role != "finding"))
            if case.case_id in left
            else case
            for case in cohort
        ),
    )
