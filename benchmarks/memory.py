"""Peak memory of each side of `step` and `maps`, each in a process of its own."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.timing import Result, Row

MIB = 1024**2
SIDES = ("guided step", "plain step", "class maps", "grad-cam")


@dataclass(frozen=True)
class Settings:
    """What is measured: one backbone, image sizes and batches of the two benchmarks, repeats a side."""

    backbone: str = "resnet50"
    step_size: int = 512
    step_batch: int = 4
    maps_size: int = 224
    maps_batch: int = 16
    repeats: int = 3
    device: str = "cpu"


def settings(device: str, toy: bool) -> Settings:
    """The settings for a device, or tiny ones."""
    if toy:
        return Settings("test_resnet", 64, 2, 64, 2, repeats=1, device=device)
    return Settings(step_batch=16, maps_size=512, device=device) if device == "cuda" else Settings(device=device)


def measure(chosen: Settings) -> Result:
    """Ratios of peaks: of the whole process, and of what was added to it by the work."""
    rows: list[Row] = []
    for ours, theirs, size, batch in (
        ("guided step", "plain step", chosen.step_size, chosen.step_batch),
        ("class maps", "grad-cam", chosen.maps_size, chosen.maps_batch),
    ):
        pairs = [(in_process(ours, chosen), in_process(theirs, chosen)) for _ in range(chosen.repeats)]
        label = f"{ours} / {theirs}, {chosen.backbone}, batch {batch}, {size} px"
        kinds = (
            (("peak", "peak of the GPU's tensors"),)
            if chosen.device == "cuda"
            else (
                ("peak", "peak of the process"),
                ("added", "above what it held before the work"),
            )
        )
        for key, what in kinds:
            a, b = (tuple(pair[side][key] / MIB for pair in pairs) for side in (0, 1))
            rows.append(Row(f"{what}: {label}", a, b, "MiB", "ours / theirs", None, "low"))
    return Result(
        "memory",
        asdict(chosen),
        tuple(rows),
        notes=(
            "Every value is from a fresh process that does the work three times. On the processor: the highest "
            "resident set size, imports and weights included; on the GPU: `torch.cuda.max_memory_allocated`.",
        ),
    )


def in_process(side: str, chosen: Settings) -> dict[str, int]:
    """Peak and added bytes of one side in a fresh process."""
    root = Path(__file__).parents[1]
    paths = os.pathsep.join(dict.fromkeys([str(root), *(str(Path(p).resolve()) for p in sys.path if p)]))
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", side, json.dumps(asdict(chosen))],
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        raise RuntimeError(f"The process of {side!r} ended with {run.returncode}:\n{run.stderr[-2000:]}")
    found: dict[str, int] = json.loads(run.stdout.splitlines()[-1])
    return found


def work(side: str, chosen: Settings) -> Callable[[], object]:
    """The call whose memory is measured, everything it needs made beforehand."""
    # imported by the side that needs them: libraries of the other side are no part of its memory
    if side in ("guided step", "plain step"):
        from benchmarks import step

        how = step.Settings((chosen.backbone,), chosen.step_size, chosen.step_batch, device=chosen.device)
        batch = step.make_batch(how)
        network = step.make_network(chosen.backbone, guided=True).to(chosen.device)
        if side == "guided step":
            return step.guided_step(network, batch, how, "32-true")
        images = network.trunk.normalise(batch.images)
        return step.plain_step(step.make_plain(network), images, batch.labels, how, "32-true")
    if side in ("class maps", "grad-cam"):
        from benchmarks import maps

        seen = maps.Settings(chosen.backbone, (chosen.maps_size,), chosen.maps_batch, device=chosen.device)
        network, images = maps.make(seen, chosen.maps_size)
        return (lambda: maps.class_maps(network, images)) if side == "class maps" else maps.grad_cam_of(network, images)
    raise ValueError(f"A side is one of {', '.join(SIDES)}; got {side!r}.")


def peak_of(side: str, chosen: Settings) -> dict[str, int]:
    """Do the work of a side in this process and report bytes."""
    call = work(side, chosen)
    if chosen.device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    else:
        before = resident("VmRSS")
    for _ in range(3):
        call()
    peak = torch.cuda.max_memory_allocated() if chosen.device == "cuda" else resident("VmHWM")
    return {"peak": peak, "added": max(0, peak - before)}


def resident(what: str) -> int:
    """VmRSS (now) or VmHWM (highest) of this process in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        # ru_maxrss of a child also counts the parent it was forked from; these fields do not
        found = re.search(rf"^{what}:\s+(\d+) kB", status.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    print(json.dumps(peak_of(sys.argv[1], Settings(**json.loads(sys.argv[2])))))
