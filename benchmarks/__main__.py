"""`python -m benchmarks [NAME ...] [--device cpu|cuda] [--toy]`: measure, print, and write docs/benchmarks.md.

`python -m benchmarks coverage [--small]` simulates instead: do the intervals hold the truth? Its tables stand in
docs/statistics.md.

`python -m benchmarks evidence [--small]` simulates what docs/evidence.md promises; its tables stand in
docs/statistics.md too.

`python -m benchmarks audit` times `sightline cohort check` on up to 100,000 pictures; its table stands in
docs/cohorts.md.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

ROOT = Path(__file__).parents[1]
Name = Literal[
    "step", "explained_step", "maps", "explain", "boxes", "reading", "memory", "patches", "dissect", "coverage",
    "onnx", "workstation", "evidence", "audit",
]  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """Ratios against plain libraries, measured side by side."""

    names: Annotated[tuple[Name, ...], tyro.conf.Positional] = field(default_factory=tuple)
    """What to measure; everything but coverage when none is named."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks run; auto takes the GPU where there is one."""
    machine: str | None = None
    """What this machine's section is called; its processor or GPU when not given."""
    results: Path = ROOT / "benchmarks" / "results"
    """Folder of the numbers, one file a machine."""
    page: Path = ROOT / "docs" / "benchmarks.md"
    """The page that is drawn from them."""
    toy: bool = False
    """Tiny sizes, to see that everything runs; prints only."""
    small: bool = False
    """Of coverage: some cells and 200 simulations each, printed only; the whole takes about an hour and a half. Of
    evidence: 6 to 40 simulations of each promise, printed only."""
    parts: tuple[str, ...] = ()
    """Of evidence: beginnings of the titles of the parts to simulate, e.g. subgroups; of coverage: of the kinds, AUC,
    sensitivity, pointing game and energy. All when none is named; the others' numbers stay."""
    render: bool = False
    """Draw the page from the stored numbers without measuring."""

    def run(self) -> int:
        """Measure; the exit status."""
        if "coverage" in self.names:
            self._simulate_coverage()
            if set(self.names) == {"coverage"}:
                return 0
        if "evidence" in self.names:
            # promises, not times: their tables stand in docs/statistics.md
            from benchmarks import evidence

            page = ROOT / "docs" / "statistics.md"
            return 0 if evidence.run(page, small=self.toy or self.small, parts=self.parts) else 1
        if "audit" in self.names:
            from benchmarks import audit

            print(audit.HEAD, flush=True)
            for row in audit.measure(1_000 if self.toy else audit.SIZES[-1]):
                print(row, flush=True)
            return 0
        from benchmarks.page import keep, render, summary

        if not self.render:
            import torch

            from benchmarks import (
                boxes,
                dissect,
                explain,
                explained_step,
                machine,
                maps,
                memory,
                onnx,
                patches,
                reading,
                step,
                workstation,
            )

            device = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
            if device == "cuda" and not torch.cuda.is_available():
                print("This torch finds no CUDA device. Remedy: use --device cpu.", file=sys.stderr)
                return 2
            rooms = {"step": step, "explained_step": explained_step, "maps": maps, "explain": explain, "boxes": boxes}
            rooms |= {"reading": reading, "memory": memory, "patches": patches, "dissect": dissect}
            rooms |= {"onnx": onnx, "workstation": workstation}
            facts = machine.facts(device)
            if self.machine is not None:
                facts["machine"] = self.machine
            if os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1):
                print(f"Other work keeps this machine busy (load {os.getloadavg()[0]:.1f}): expect wide spreads.")
            for name in self.names or tuple(rooms):
                if name == "coverage":
                    continue
                if name == "workstation" and not self.names and not workstation.CHROMIUM.exists():
                    print("No chromium here: the workstation's page is not measured.")
                    continue
                room = rooms[name]
                result = room.measure(room.settings(device, self.toy))
                print(summary(result), flush=True)
                if not self.toy:
                    # each as soon as it is there: an interrupted run keeps what it measured
                    keep(self.results, facts, [result])
            if self.toy:
                return 0
        self.page.parent.mkdir(parents=True, exist_ok=True)
        self.page.write_text(render(self.results), encoding="utf-8")
        print(f"Wrote {self.page}.")
        return 0

    def _simulate_coverage(self) -> None:
        from benchmarks.coverage import measure, read_cells, tables, write_cells

        path = ROOT / "benchmarks" / "coverage.csv"
        # what is not simulated again stays
        kept = [cell for cell in read_cells(path) if not cell.kind.startswith(self.parts)] if self.parts else []
        cells = []
        for cell in measure(simulations=200 if self.small else 2000, small=self.small, parts=self.parts):
            print(cell, flush=True)
            cells.append(cell)
            if not self.small:
                write_cells([*kept, *cells], path)
        print(tables(cells if self.small else [*kept, *cells]))


if __name__ == "__main__":
    sys.exit(tyro.cli(Bench, prog="python -m benchmarks").run())
