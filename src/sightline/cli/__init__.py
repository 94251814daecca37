"""What a person types: one small dataclass a command, with `run()`. Heavy imports happen inside `run()`."""

from sightline.cli.main import main

__all__ = ["main"]
