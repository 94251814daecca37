"""Commands of the node: serve, and what a person does to it; and the gate, without which no run is served."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union

from tyro.conf import Positional, arg, subcommand

from sightline.cli.options import hold_empty_folder, hold_folder
from sightline.errors import count_noun


@dataclass(frozen=True)
class MakeGate:
    """Write gate.json into the run: which images it accepts, by header and by likeness to its training pictures."""

    run_folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run folder."""
    cohort: Path
    """Cohort folder that the run was trained on."""
    modality: tuple[str, ...] = ()
    """Accepted modalities; default: those of the training cases."""
    body_part: tuple[str, ...] = ()
    """Body parts, as BodyPartExamined names them; "" for images that do not say."""
    view: tuple[str, ...] = ()
    """View positions; default: those of the training cases, or any if some cases state none."""
    laterality: tuple[str, ...] = ()
    """Sides (L, R, B, U); default: any."""
    age: tuple[float, float] | None = None
    """Youngest and oldest age in years."""
    quiet: bool = False
    """No progress bar."""

    @hold_folder(lambda command: command.run_folder)
    def run(self) -> int:
        """Measure the training pictures and write gate.json."""
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.inference.gate.fit import fit_gate
        from sightline.inference.gate.gate_file import write_gate
        from sightline.papers.catalogue import CATALOGUE
        from sightline.training.run import open_run

        limits = {"modality": self.modality, "body_part": self.body_part, "view": self.view}
        asked = {name: words for name, words in (limits | {"laterality": self.laterality}).items() if words}
        run = open_run(self.run_folder, CATALOGUE)
        gate = fit_gate(run, read_cohort(self.cohort), asked, self.age, quiet=self.quiet)
        path = write_gate(self.run_folder, gate)
        print(
            f"{path}: {gate.header.to_plain()}, {count_noun(len(gate.picture), 'limit')} of "
            f"{count_noun(gate.about['pictures'], 'picture')}"
        )
        if gate.layout:
            refused = ", ".join(f"{share:.0%} at {turn} degrees" for turn, share in gate.layout["refused"].items())
            print(f"layout: refuses of {gate.layout['validation']} validation pictures, turned: {refused}")
        else:
            print(f"no layout check: {gate.about['no layout']}", file=sys.stderr)
        if gate.features:
            share, count = gate.features["accepted"], gate.features["validation"]
            print(f"features: limit for {share:.1%} of good pictures, from {count_noun(count, 'validation picture')}")
        else:
            print(f"no features check: {gate.about['no features']}", file=sys.stderr)
        return 0


@dataclass(frozen=True)
class Serve:
    """Serve runs to a hospital's network: C-STORE and STOW in, gate, predict, results to the PACS (docs/node.md)."""

    config: Annotated[Positional[Path], arg(metavar="CONFIG")]
    """NODE.yaml."""

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT."""
        from sightline.web.node.configuration import read_configuration
        from sightline.web.node.service import serve

        return serve(read_configuration(self.config))


@dataclass(frozen=True)
class Check:
    """Check the configuration and say what the node would do with given files; nothing is stored, predicted or sent."""

    config: Annotated[Positional[Path], arg(metavar="CONFIG")]
    """NODE.yaml."""
    inputs: Annotated[Positional[tuple[Path, ...]], arg(metavar="[INPUT [INPUT ...]]")] = ()
    """DICOM files or folders of them."""

    def run(self) -> int:
        """Print it."""
        from sightline.web.node.configuration import read_configuration
        from sightline.web.node.inspection import describe_configuration, foretell
        from sightline.web.node.service import read_gates

        configuration = read_configuration(self.config)
        gates = read_gates(configuration)
        for line in describe_configuration(configuration, gates):
            print(line)
        for line in foretell(configuration, gates, self.inputs):
            print(line)
        return 0


@dataclass(frozen=True)
class Show:
    """Show the queue, or the history of one study, object (UID) or job (number); exit code 1 if a person must look."""

    config: Annotated[Positional[Path], arg(metavar="CONFIG")]
    """NODE.yaml."""
    what: Annotated[Positional[str], arg(metavar="[WHAT]")] = ""
    """Study or SOP instance UID, or a job's number."""
    journal: bool = False
    """Check the journal's chain of hashes, too."""

    def run(self) -> int:
        """Print it."""
        from sightline.web.node.configuration import read_configuration
        from sightline.web.node.inspection import open_store, summarise, tell_way

        store = open_store(read_configuration(self.config))
        lines = list(tell_way(store, self.what) if self.what else summarise(store))
        if self.journal:
            lines.append(f"journal: {count_noun(store.verify_journal(), 'row')}, the chain holds")
        print("\n".join(lines))
        return int(any(line.startswith(("dead ", "held ")) for line in lines))


@dataclass(frozen=True)
class Retry:
    """Retry dead jobs, dead letters and held studies; lines say which letters and jobs stay, and why."""

    config: Annotated[Positional[Path], arg(metavar="CONFIG")]
    """NODE.yaml."""
    what: Annotated[Positional[str], arg(metavar="WHAT")]
    """`all`, a study or SOP instance UID, a job's number, or a destination."""

    def run(self) -> int:
        """Do it; 1 where nothing was dead or held."""
        from sightline.web.node.inspection import list_lost, retry

        return _mend(self.config, self.what, retry, "tried again", list_lost)


@dataclass(frozen=True)
class Drop:
    """Give up dead jobs, dead letters and held studies, so that they are cleaned."""

    config: Annotated[Positional[Path], arg(metavar="CONFIG")]
    """NODE.yaml."""
    what: Annotated[Positional[str], arg(metavar="WHAT")]
    """`all`, a study or SOP instance UID, a job's number, or a destination."""

    def run(self) -> int:
        """Do it; 1 where nothing was dead or held."""
        from sightline.web.node.inspection import drop

        return _mend(self.config, self.what, drop, "given up")


@dataclass(frozen=True)
class Report:
    """Write a report on a period: what came, what was refused and why, what was sent, and drift."""

    config: Annotated[Positional[Path], arg(metavar="CONFIG")]
    """NODE.yaml."""
    out: Path
    """HTML file to write (self-contained)."""
    days: float = 30.0
    """Length of the period that ends now."""
    answers: Path | None = None
    """csv of `study,label` from the radiology reports; adds sensitivity and specificity."""

    @hold_folder(lambda command: command.out, hold_empty_folder)
    def run(self) -> int:
        """Write it."""
        from sightline.web.node.configuration import read_configuration
        from sightline.web.node.inspection import open_store
        from sightline.web.node.monitoring.report import write_period_report
        from sightline.web.node.service import read_gates

        configuration = read_configuration(self.config)
        store = open_store(configuration)
        notes = write_period_report(configuration, store, read_gates(configuration), self.out, self.days, self.answers)
        for note in notes:
            print(f"sightline: {note}", file=sys.stderr)
        print(f"written to {self.out}")
        return 0


NodeCommand = Union[  # noqa: UP007  # tyro reads the annotations of a Union
    Annotated[Check, subcommand("check")],
    Annotated[Show, subcommand("show")],
    Annotated[Retry, subcommand("retry")],
    Annotated[Drop, subcommand("drop")],
    Annotated[Report, subcommand("report")],
]


def _mend(
    config: Path,
    what: str,
    mend: Callable[[Any, str], int],
    word: str,
    remark: Callable[[Any, str], Iterable[str]] = lambda *_: (),
) -> int:
    from sightline.web.node.configuration import read_configuration
    from sightline.web.node.inspection import open_store

    store = open_store(read_configuration(config))
    remarks = list(remark(store, what))
    count = mend(store, what)
    for line in remarks:
        print(line, file=sys.stderr)
    if not count:
        if not remarks:
            print(f"{what}: nothing dead or held", file=sys.stderr)
        return 1
    print(f"{count} {word}")
    return 0
