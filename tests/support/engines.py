"""An engine for tests."""

from sightline.training.engine import Engine

QUIET = Engine(device="cpu", quiet=True)
