"""What a person types: one small dataclass a command, with `run()`. Heavy imports happen inside `run()`."""

import sys

try:
    from sightline.cli.main import main
except KeyboardInterrupt:  # Ctrl-C while the commands are still being read
    print("sightline: stopped; nothing was begun.", file=sys.stderr)
    sys.exit(130)

__all__ = ["main"]
