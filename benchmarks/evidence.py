"""`python -m benchmarks evidence`: promises of docs/evidence.md by simulation: coverage, misses, gaps, false alarms.

Each row is a promise, what was promised, what came out of so many simulated studies, and the band that chance allows.
The table goes into docs/statistics.md between its marks. Metrics only; planted shortcuts draw pictures, and tampered
capsules come from a table that takes seconds to train.
"""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit
from scipy.stats import binom, norm

from benchmarks.tampering import KINDS, SmallCapsule
from sightline.metrics.calibration.report import compute_calibration_estimates
from sightline.metrics.classification.estimates import compare_scores
from sightline.metrics.classification.scores import AUC
from sightline.metrics.decision.conformal import choose_miss_rate_point, fit_prediction_sets
from sightline.metrics.decision.operating_points import OperatingPoint, compute_point_estimates
from sightline.metrics.decision.subgroups import compute_subgroup_report
from sightline.metrics.predictions import Predictions
from sightline.metrics.readers.anova import analyse_readers
from sightline.metrics.readers.pseudovalues import analyse_pseudovalues
from sightline.metrics.readers.simulation import RoeMetz
from sightline.metrics.statistics.noninferiority import assess_noninferiority

BEGIN, END = "<!-- evidence: begin -->", "<!-- evidence: end -->"
CLASSES = ("normal", "fracture")
# patients from which a gap of .10 is found in 80%
ENOUGH = 1200
SMALL = 40


@dataclass(frozen=True)
class Promise:
    """One promise and what became of it."""

    what: str
    promised: str
    found: float
    studies: int
    low: float
    high: float
    low_is_fine: bool = False

    @property
    def kept(self) -> bool:
        """Whether what was found lies in the band that chance allows (or below it, where less is no harm)."""
        return self.found <= self.high and (self.low_is_fine or self.found >= self.low)


def table_of(labels: np.ndarray, said: np.ndarray, patient: np.ndarray | None = None) -> Predictions:
    """Predictions of two classes."""
    names = tuple(str(i) for i in range(len(labels)))
    patients = names if patient is None else tuple(f"p{i}" for i in patient)
    return Predictions(CLASSES, names, names, patients, labels.astype(np.int64), np.stack([1 - said, said], axis=1))


def band(share: float, studies: int) -> tuple[float, float]:
    """The 99.8% binomial band of a share."""
    return float(binom.ppf(0.001, studies, share)) / studies, float(binom.ppf(0.999, studies, share)) / studies


def site(random: np.random.Generator, patients: int, prevalence: float, separation: float = 1.5) -> Predictions:
    """One site: scores of two normal groups as probabilities."""
    labels = (random.random(patients) < prevalence).astype(int)
    return table_of(labels, expit(random.normal(size=patients) + separation * (labels - 0.5)))


def miss_rates(random: np.random.Generator, sites: int) -> list[Promise]:
    """The promised rate at new sites: as calibrated, after shifts, and after 50 local studies."""
    counts = {name: [0, 0] for name in ("same", "hard", "hard local", "all", "all shifted", "all local", "sets")}

    def fresh(name: str, threshold: float, table: Predictions, everyone: bool) -> None:
        """One new patient of a site: with the disease, or whoever comes."""
        sick = table.labels == 1
        who = 0 if everyone else int(np.flatnonzero(sick)[0])
        counts[name][0] += int(sick[who] and table.probabilities[who, 1] < threshold)
        counts[name][1] += 1

    for _ in range(sites):
        home = site(random, 150, 0.3)
        point = choose_miss_rate_point(home, 0.05)
        fresh("same", point.threshold, site(random, 60, 0.3), False)
        fresh("hard", point.threshold, site(random, 60, 0.3, separation=0.9), False)
        local = site(random, 50, 0.7, separation=0.9)
        fresh("hard local", choose_miss_rate_point(local, 0.05).threshold, site(random, 60, 0.7, separation=0.9), False)
        of_all = choose_miss_rate_point(home, 0.05, of="all")
        fresh("all", of_all.threshold, site(random, 1, 0.3), True)
        fresh("all shifted", of_all.threshold, site(random, 1, 0.7), True)
        fresh(
            "all local",
            choose_miss_rate_point(site(random, 50, 0.7), 0.05, of="all").threshold,
            site(random, 1, 0.7),
            True,
        )
        one = site(random, 1, 0.3)
        counts["sets"][0] += int(not fit_prediction_sets(home, 0.05).members(one.probabilities)[0, one.labels[0]])
        counts["sets"][1] += 1
    words = {
        "same": "missed positives, threshold from 150 studies of the same kind (prevalence .3)",
        "hard": "the same threshold where the disease is harder to see (no promise: shift)",
        "hard local": "there, threshold from 50 local studies (prevalence .7)",
        "all": "missed share of all studies, threshold from 150 studies, prevalence .3",
        "all shifted": "the same threshold at prevalence .7 (no promise: shift)",
        "all local": "there, threshold from 50 local studies",
        "sets": "prediction sets without the true class, from 150 studies",
    }
    found = []
    for name, (missed, tried) in counts.items():
        low, high = band(0.05, tried)
        promised = "none" if "no promise" in words[name] else "at most 5%"
        found.append(
            Promise(words[name], promised, missed / tried, tried, low, 1.0 if promised == "none" else high, True)
        )
    return found


def subgroups(random: np.random.Generator, studies: int) -> list[Promise]:
    """False claims without a gap, and planted gaps of .10 in the AUC."""

    def study(patients: int, gap: float) -> tuple[bool, bool]:
        labels = (random.random(patients) < 0.4).astype(int)
        other = random.random(patients) < 1 / 3
        d = np.where(other, norm.ppf(0.9 - gap), norm.ppf(0.9)) * np.sqrt(2)
        table = table_of(labels, expit(random.normal(size=patients) + d * (labels - 0.5)))
        facts = {"group": np.where(other, "y", "x").tolist()}
        facts |= {f"fact {i}": random.choice(list("abc"), patients).tolist() for i in range(3)}
        report = compute_subgroup_report(table, facts)
        right = any(g.claimed for g in report if g.fact == "group")
        return any(g.claimed for g in report), right

    promises = []
    for patients in (300, 1200):
        claims = np.mean([study(patients, 0.0)[0] for _ in range(studies)])
        low, high = band(0.05, studies)
        words = f"a gap is claimed where there is none, {patients} patients, 4 facts"
        promises.append(Promise(words, "at most 5%", float(claims), studies, low, high, True))
    claims = np.mean([small_group(random) for _ in range(studies)])
    words = "a gap is claimed where there is none, 20 of 300 patients in the group, AUC .95, one fact"
    promises.append(Promise(words, "at most 5%", float(claims), studies, low, high, True))
    for patients in (300, 400, 600, 800, ENOUGH):
        seen = np.mean([study(patients, 0.10)[1] for _ in range(studies)])
        promised = "at least 80%" if patients >= ENOUGH else "none"
        low = band(0.8, studies)[0] if patients >= ENOUGH else 0.0
        words = f"a planted gap of .10 in the AUC is found, a third of {patients} patients, 4 facts"
        promises.append(Promise(words, promised, float(seen), studies, low, 1.0))
    return promises


def small_group(random: np.random.Generator) -> bool:
    """Whether a gap of a small group with an AUC near 1 is claimed where there is none."""
    while True:
        labels = (random.random(300) < 0.4).astype(int)
        group = random.random(300) < 1 / 15
        # fewer than five patients of a class have no test
        if min((labels[group] == 1).sum(), (labels[group] == 0).sum()) >= 5:
            break
    table = table_of(labels, expit(random.normal(size=300) + norm.ppf(0.95) * np.sqrt(2) * (labels - 0.5)))
    return any(g.claimed for g in compute_subgroup_report(table, {"group": np.where(group, "y", "x").tolist()}))


def intervals(random: np.random.Generator, studies: int) -> list[Promise]:
    """Coverage of calibration slope and intercept, of likelihood ratios and predictive values."""
    point = OperatingPoint("fracture", 0.5, "stated", 0.5)
    sensitivity = float(norm.cdf(0.75))
    odds = sensitivity / (1 - sensitivity)
    truths = {
        "LR+": odds,
        "LR−": 1 / odds,
        "PPV at prevalence .1": 1 / (1 + 9 / odds),
        "NPV at prevalence .1": 1 / (1 + 1 / 9 / odds),
    }
    held = dict.fromkeys(("calibration slope", "calibration intercept", *truths), 0)
    for _ in range(studies):
        patient = np.repeat(np.arange(150), 2)
        true = 1.5 * random.normal(size=150)[patient]
        labels = (random.random(300) < expit(true)).astype(int)
        for name, estimate, truth in zip(
            held, compute_calibration_estimates(table_of(labels, expit(true), patient)), (1.0, 0.0), strict=False
        ):
            held[name] += estimate.low is not None and estimate.low <= truth <= (estimate.high or 0.0)
        labels = (np.arange(150) < 50).astype(int)
        said = expit(random.normal(size=150) + 1.5 * (labels - 0.5))
        found = compute_point_estimates(table_of(labels, said), point, prevalences=(0.1,))
        for (name, truth), estimate in zip(truths.items(), [found[2], found[3], found[6], found[7]], strict=True):
            held[name] += estimate.low is not None and estimate.low <= truth <= (estimate.high or 0.0)
    low, high = band(0.95, studies)
    return [
        Promise(f"interval of the {name} holds the truth", "95%", k / studies, studies, low, max(high, 0.985))
        for name, k in held.items()
    ]


def readers(random: np.random.Generator, studies: int) -> list[Promise]:
    """Type-1 error of both analyses on Roe & Metz's structures, 5 readers, 50 + 50 cases."""
    structures = {
        "HL": RoeMetz(), "LL": RoeMetz(case=0.1, modality_case=0.1, reader_case=0.2, noise=0.6),
        "HH": RoeMetz(reader=0.03), "LH": RoeMetz(reader=0.03, case=0.1, modality_case=0.1, reader_case=0.2, noise=0.6),
    }  # fmt: skip
    promises = []
    for name, model in structures.items():
        drawn = [model.draw(random, readers=5, negative=50, positive=50) for _ in range(studies)]
        low, high = band(0.05, studies)
        for analysis, of in (("Obuchowski-Rockette", analyse_readers), ("Dorfman-Berbaum-Metz", analyse_pseudovalues)):
            share = float(np.mean([of(study).p_value < 0.05 for study in drawn]))
            words = f"Roe-Metz {name}, equal modalities at AUC .855: {analysis} claims a difference"
            promises.append(Promise(words, "4 to 6%", share, studies, min(low, 0.04), max(high, 0.06)))
    return promises


def margins(random: np.random.Generator, studies: int) -> list[Promise]:
    """Non-inferiority claimed although the loss is the whole margin, and where there is no loss; 300 patients."""

    def claimed(loss: float) -> bool:
        labels = (random.random(300) < 0.4).astype(int)
        shared = random.normal(size=300)
        tables = []
        for area in (0.85 - loss, 0.85):
            own = np.sqrt(0.7) * shared + np.sqrt(0.3) * random.normal(size=300)
            tables.append(table_of(labels, expit(own + norm.ppf(area) * np.sqrt(2) * (labels - 0.5))))
        seed = int(random.integers(2**31))
        compared = compare_scores(tables[:1], tables[1:], AUC(1), swaps=999, seed=seed)
        return assess_noninferiority(compared, 0.05).verdict in ("non-inferior", "superior")

    promises = []
    for loss, promised in ((0.05, "at most 2.5%"), (0.0, "none")):
        low, high = band(0.025, studies) if loss else (0.0, 1.0)
        words = f"non-inferiority of an AUC at a margin of .05 is claimed where the loss is {loss:g}, 300 patients"
        share = float(np.mean([claimed(loss) for _ in range(studies)]))
        promises.append(Promise(words, promised, share, studies, low, high, True))
    return promises


def capsules(random: np.random.Generator, forgeries: int) -> list[Promise]:
    """Capsules of a table of two rows, two trainings each, tampered with in every way of `benchmarks.tampering`."""
    promises = []
    with SmallCapsule() as capsule:
        for words, (kind, promised, published) in KINDS.items():
            caught = sum(not capsule.holds_after(kind, random, published=published) for _ in range(forgeries))
            low = 0.0 if promised == "none" else 1.0
            promises.append(Promise(words, promised, caught / forgeries, forgeries, low, 1.0))
    return promises


def planted_arrows(random: np.random.Generator, phantoms: int) -> list[Promise]:
    """An arrow that nobody noted, tied to the label at .95 or not at all, looked for in the pixels of phantom wrists.

    A pool of 240 drawn studies (seed 0) has the arrow on half of them, whatever the label; each phantom is 80 of its
    pictures, drawn so that arrow and label agree in so many. Fewer than 100 phantoms: 90 studies, 60 pictures.
    """
    import tempfile

    from sightline.data.audit.objects import FoundObject, find_objects_in_files, group_recurring_objects
    from sightline.data.phantoms.radiographs.cohort import write_radiographs

    with tempfile.TemporaryDirectory() as place:
        many, side_of = (240, 40) if phantoms >= 100 else (90, 30)
        pool = write_radiographs(Path(place) / "pool", studies=many, shortcut=0.5, seed=0).split("train", "val")
        objects = find_objects_in_files([case.image for case in pool])
    positive = np.array([case.label == "fracture" for case in pool])
    arrow = np.array([case.facts["phantom_marker"] == "yes" for case in pool])
    promises = []
    for tie in (0.95, 0.5):
        named = 0
        for seed in range(phantoms):
            draw = np.random.default_rng(seed)
            chosen: list[int] = []
            for side in (0, 1):
                agree = int((draw.random(side_of) < tie).sum())
                for has, n in ((bool(side), agree), (not side, side_of - agree)):
                    cell = np.flatnonzero((positive == side) & (arrow == has))
                    chosen += draw.choice(cell, n, replace=False).tolist()
            place_of = {case: i for i, case in enumerate(chosen)}
            kept = [FoundObject(place_of[o.case], o.start, o.stop, o.features) for o in objects if o.case in place_of]
            labels = [pool[i].label for i in chosen]
            named += group_recurring_objects(kept, labels, [str(i) for i in chosen])[0].named
        tied = tie > 0.9
        low, high = (0.95, 1.0) if tied else (0.0, 0.05)
        if phantoms < 100:
            # so few say little: what chance allows at the promised rate
            low, high = (band(0.95, phantoms)[0], 1.0) if tied else (0.0, band(0.05, phantoms)[1])
        words = f"an arrow that agrees with the label on {tie:.0%} of pictures is named, from pixels alone"
        promised = "at least 95%" if tied else "at most 5%"
        promises.append(Promise(words, promised, named / phantoms, phantoms, low, high, not tied))
    return promises


PARTS: dict[str, tuple[Callable[[np.random.Generator, int], list[Promise]], int, int]] = {
    "Promised miss rates (conformal risk control at 5%)": (miss_rates, 1000, SMALL),
    "Subgroups (step-down max-T over all gaps)": (subgroups, 500, 20),
    "Intervals": (intervals, 1000, SMALL),
    "Reader studies": (readers, 2000, SMALL),
    "Margins of non-inferiority": (margins, 2000, SMALL),
    "Tampered capsules": (capsules, 100, 6),
    "Planted shortcuts": (planted_arrows, 100, 6),
}


def run(page: Path | None, *, small: bool = False, seed: int = 0, parts: tuple[str, ...] = ()) -> bool:
    """Simulate, print, and put each table into a page as soon as it is there; whether every promise was kept.

    Args:
        page: where the tables go; None: printed only.
        small: few simulations of each promise, printed only.
        seed: of the simulations.
        parts: beginnings of the titles of the parts to simulate; none: all. The others' tables stay as they are.
    """
    kept = True
    for number, (title, (part, studies, few)) in enumerate(PARTS.items()):
        if parts and not title.lower().startswith(tuple(p.lower() for p in parts)):
            continue
        begun = time.process_time()
        promises = part(np.random.default_rng([seed, number]), few if small else studies)
        lines = [
            f"**{title}**",
            "",
            "| promise | promised | found | studies | band of chance | kept |",
            "|---|---|---|---|---|---|",
        ]
        for p in promises:
            verdict = "–" if p.promised == "none" else "yes" if p.kept else "**no**"
            kept &= p.kept
            lines.append(
                f"| {p.what} | {p.promised} | {p.found:.1%} | {p.studies} | {p.low:.1%} to {p.high:.1%} | {verdict} |"
            )
        lines += ["", f"{time.process_time() - begun:.0f} s of processor time, {facts_line()}."]
        text = "\n".join(lines)
        print(text + "\n", flush=True)
        if page is not None and not small:
            page.write_text(with_part(page.read_text(encoding="utf-8"), title, text), encoding="utf-8")
    return kept


def with_part(page: str, title: str, text: str) -> str:
    """A page with the table of one part exchanged, in the order of the parts."""
    before, rest = page.split(BEGIN)
    inside, after = rest.split(END)
    blocks = re.split(r"(?m)^(?=\*\*[A-Z])", inside)
    named = {block.split("**")[1]: block.strip() for block in blocks if block.startswith("**")} | {title: text}
    return f"{before}{BEGIN}\n" + "\n\n".join(named[name] for name in PARTS if name in named) + f"\n\n{END}{after}"


def facts_line() -> str:
    """The machine and the versions that matter."""
    from importlib.metadata import version

    from benchmarks.machine import machine_name

    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "scikit-learn"))
    return f"{machine_name('cpu')} (shared, one thread); Python {platform.python_version()}, {versions}"
