"""Programs of Debian that judge DICOM objects, as fixtures: skipped with a reason where absent, never in CI."""

import os
import shutil
import subprocess
from dataclasses import dataclass

import pytest

PACKAGES = {"dciodvfy": "dicom3tools", "dcmpschk": "dcmtk", "storescu": "dcmtk", "Orthanc": "orthanc"}


def require_program(name):
    """The program's path; without it the test is skipped, or fails where CI says that everything is installed."""
    # Debian's first: pynetdicom brings programs of its own under the same names
    found = shutil.which(name, path=f"/usr/bin:/usr/sbin:{os.environ.get('PATH', '')}")
    if found is None:
        reason = f"{name} is not installed (apt-get install {PACKAGES.get(name, name)})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@dataclass(frozen=True)
class Verdict:
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def dciodvfy(path) -> Verdict:
    """What dciodvfy says of a file."""
    done = subprocess.run([require_program("dciodvfy"), "-new", str(path)], capture_output=True, text=True, timeout=60)
    lines = done.stderr.splitlines()
    errors = tuple(line for line in lines if line.startswith("Error"))
    assert bool(done.returncode) == bool(errors), done.stderr
    return Verdict(errors, tuple(line for line in lines if line.startswith("Warning")))


def dcmpschk(path) -> bool:
    """Whether dcmtk finds a presentation state whole."""
    done = subprocess.run([require_program("dcmpschk"), str(path)], capture_output=True, text=True, timeout=60)
    return "Test passed" in done.stderr + done.stdout
