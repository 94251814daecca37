"""The history of a training as TensorBoard events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Events:
    """TensorBoard events; a resumed run purges what the killed one wrote past its state."""

    def __init__(self, folder: Path, step: int) -> None:
        """Events of a folder from a step on."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, row: Mapping[str, Any], step: int) -> None:
        """Every number of an epoch's row."""
        for name, value in row.items():
            if isinstance(value, (int, float)) and name not in ("epoch", "step"):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is not written yet."""
        self._writer.close()
