"""`python -m sightline.web.workstation COHORT`: the workstation for whoever has not installed the command."""

from __future__ import annotations

import sys

import tyro

from sightline.errors import SightlineError
from sightline.web.workstation.launch import Start, serve


def main() -> int:
    """Start a workstation as the command line says."""
    try:
        return serve(tyro.cli(Start, prog="python -m sightline.web.workstation"))
    except SightlineError as error:
        print(f"error: {error.message}\n{error.remedy}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
