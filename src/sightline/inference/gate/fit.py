"""A gate made from a run's training: what its pictures looked like, and what a person says the run is for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sightline.errors import RunError, SightlineError, count_noun
from sightline.inference.gate.features import fit_features
from sightline.inference.gate.gate_file import Gate
from sightline.inference.gate.header import HeaderLimits, normalise_body_part, normalise_view
from sightline.inference.gate.layout import fit_layout, reduce_picture
from sightline.inference.gate.picture import fit_limits, measure_picture
from sightline.inference.network_output import collect_facts
from sightline.inference.radiographs import read_radiograph
from sightline.io.picture import Picture
from sightline.io.progress import show_progress
from sightline.structures.case import Case, Cohort
from sightline.training.run import Run

MOST_PICTURES = 1000
# what stands in gate.json for drift to be measured against
MOST_REFERENCE = 300


def fit_gate(
    run: Run,
    cohort: Cohort,
    asked: Mapping[str, Sequence[str]],
    age: tuple[float, float] | None = None,
    *,
    quiet: bool = False,
) -> Gate:
    """The checks of a run: header and picture from its training cases, layout and features from those and the
    validation cases; where there is no layout or no features check, `about` says why.

    Args:
        run: finished.
        cohort: what it was trained on.
        asked: `modality`, `body_part`, `view`, `laterality`: what the run may be asked about, as a person says; where
            one is left out it is what the training cases say of themselves.
        age: youngest and oldest age, or None.
        quiet: no progress.

    Raises:
        RunError: another cohort than the run's, no picture that reads, or modality or body part that neither the cases
            nor the person say.
    """
    HeaderLimits(age=age)  # refused before any picture is read
    if cohort.fingerprint() != run.cohort["fingerprint"]:
        raise RunError(
            f"{cohort.root} is not the cohort that {run.folder} was trained on (fingerprint "
            f"{cohort.fingerprint()}, the run's is {run.cohort['fingerprint']}).",
            "Give the training cohort: the gate is what it looked like.",
        )
    training = run.recipe.see(cohort).split("train")
    cases = list(training)
    rng = np.random.default_rng(0)
    if len(cases) > MOST_PICTURES:
        cases = [cases[i] for i in sorted(rng.choice(len(cases), MOST_PICTURES, replace=False))]
    validation = list(run.recipe.see(cohort).split("val"))[:MOST_PICTURES]
    asking = _FeatureCollector(run)
    measures, unread = [], 0
    reduced: dict[str, list[Any]] = {"train": [], "val": []}
    with show_progress("gate", len(cases) + len(validation), quiet=quiet) as advance:
        for case in (*cases, *validation):
            try:
                picture = read_radiograph(case.image)
                if case.split == "train":
                    measures.append(measure_picture(picture))
                reduced["train" if case.split == "train" else "val"].append(reduce_picture(picture))
                asking.ask(picture, case.split == "train")
            except SightlineError:
                unread += 1
            advance(1)
    if not measures:
        raise RunError(
            f"{cohort.root}: none of {count_noun(len(cases), 'training picture')} reads.", "sightline cohort check DIR"
        )
    header = HeaderLimits(
        modality=_choose_words("modality", asked, (c.facts.get("modality", "") for c in cases)),
        body_part=_choose_words("body_part", asked, (normalise_body_part(c.facts.get("body_part", "")) for c in cases)),
        view=_choose_views("view", asked, cases),
        laterality=tuple(asked["laterality"]) if "laterality" in asked else None,
        age=age,
    )
    chosen = measures if len(measures) <= MOST_REFERENCE else [measures[i] for i in range(MOST_REFERENCE)]
    names = sorted({name for one in chosen for name in one})
    reference = {name: [round(one[name], 6) for one in chosen if name in one] for name in names}
    features, why = asking.fit()
    about = {"cohort": cohort.name, "fingerprint": cohort.fingerprint(), "pictures": len(measures), "unread": unread}
    if why:
        about["no features"] = why
    layout: Mapping[str, Any] = {}
    try:
        layout = fit_layout(np.array(reduced["train"]), np.array(reduced["val"])).to_plain()
    except RunError as error:
        about["no layout"] = error.message
    return Gate(header, fit_limits(measures), features, about, reference, layout)


class _FeatureCollector:
    """Features of training and validation pictures, gathered as they are read."""

    def __init__(self, run: Run) -> None:
        from sightline.inference.predict import TorchNetwork

        self.why, self.network = "", None
        self.known: list[Any] = []
        self.checked: list[Any] = []
        self.energies: list[float] = []
        try:
            self.view = collect_facts(run).picture_view()
            self.network = TorchNetwork(run)
        except RunError as error:
            self.why = error.message

    def ask(self, picture: Picture, training: bool) -> None:
        """Keep what the network sees in a picture."""
        if self.network is None:
            return
        answers = self.network(self.view.show(picture.pixels, picture.frame)[0][None])
        if answers.features is None:
            self.network, self.why = None, "the network has no part whose features could be held against each other"
            return
        (self.known if training else self.checked).append(answers.features[0])
        if not training:
            self.energies.append(float(answers.energies[0]))

    def fit(self) -> tuple[Mapping[str, Any], str]:
        """The features check, or why there is none."""
        if self.network is None:
            return {}, self.why
        try:
            return fit_features(np.array(self.known), np.array(self.checked), np.array(self.energies)).to_plain(), ""
        except RunError as error:
            return {}, error.message


def _choose_words(name: str, asked: Mapping[str, Sequence[str]], words_of_cases: Iterable[str]) -> tuple[str, ...]:
    """What a person says, else what training cases say; a word that a hundredth of them has is none of the run's."""
    if name in asked:
        return tuple(asked[name])
    counts = Counter(words_of_cases)
    total = sum(counts.values())
    frequent = tuple(sorted(word for word, count in counts.items() if word and count >= 0.01 * total))
    if not frequent:
        option = "--" + name.replace("_", "-")
        raise RunError(
            f"The training cases do not say their {name.replace('_', ' ')}, so nobody knows what the run may be asked.",
            f"Say it: {option} WORD ...",
        )
    return frequent


def _choose_views(name: str, asked: Mapping[str, Sequence[str]], cases: Sequence[Case]) -> tuple[str, ...] | None:
    """Views are limited where a person says so, or where every training case says its own."""
    if name in asked:
        return tuple(asked[name])
    views = {normalise_view(case.view) for case in cases}
    return None if "" in views or not all(view.isalpha() and len(view) <= 4 for view in views) else tuple(sorted(views))
