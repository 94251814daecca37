"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("torch", "torchvision", "timm", "grad-cam", "lightning-fabric", "pillow", "numpy")


def machine_name(device: str) -> str:
    """Processor and cores, or the GPU: what a section is called."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{_processor()}, {_cores()} cores"


def facts(device: str) -> dict[str, str]:
    """Machine, versions and load at this moment."""
    found = {
        "machine": machine_name(device),
        "device": device,
        "processor": f"{_processor()}, {_cores()} cores, {torch.get_num_threads()} torch threads",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1024**3:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "sightline": _commit(),
        "measured": datetime.now(UTC).isoformat(timespec="minutes"),
        "load average at the start": f"{os.getloadavg()[0]:.1f}",
    }
    if device == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory / 1024**3
        found["gpu"] = f"{torch.cuda.get_device_name()}, {memory:.0f} GiB, CUDA {torch.version.cuda}"
        found["tensor cores"] = (
            f"TF32 in convolutions {'on' if torch.backends.cudnn.allow_tf32 else 'off'}, "
            f"in matrix products {'on' if torch.backends.cuda.matmul.allow_tf32 else 'off'} (torch's defaults)"
        )
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
        if named:
            return " ".join(named[1].split())
    return platform.processor() or platform.machine()


def _cores() -> int:
    # what this process may use, not what the machine has
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _commit() -> str:
    from sightline import __version__

    root = Path(__file__).parents[1]
    try:
        run = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}, commit {run.stdout.strip()}"
