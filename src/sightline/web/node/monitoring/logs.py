"""Logs as lines of JSON, in which no name, id or UID of a patient or study can stand.

Records carry numbers and fixed words. Whatever belongs to a study goes through `Pseudonyms`: an HMAC under a key of the
node's own, so that an operator can follow one study through the log and nobody can go back from it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import sys
import traceback
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

# what records may carry: numbers, or words that the code itself chose
FIELDS = (
    "study", "object", "job", "tries", "rule", "check", "listener", "destination", "caller", "error", "reason",
    "kind", "seconds", "bytes", "count", "port", "address",
)  # fmt: skip


class Pseudonyms:
    """Names of studies and objects for logs.

    Args:
        key_file: 32 random bytes; made with mode 0600 when absent.
    """

    def __init__(self, key_file: Path) -> None:
        if not key_file.exists():
            descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(32))
        self._key = key_file.read_bytes()

    def of(self, identity: str) -> str:
        """Twelve hexadecimal digits, always the same for the same UID."""
        return hmac.new(self._key, identity.encode(), hashlib.sha256).hexdigest()[:12]


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, message and the fields of FIELDS."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; of an exception its type and where it rose, never its text, which may quote a header."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line |= {name: record.__dict__[name] for name in FIELDS if name in record.__dict__}
        if record.exc_info and record.exc_info[0] is not None:
            frames = traceback.extract_tb(record.exc_info[2])
            line["exception"] = record.exc_info[0].__name__
            line["where"] = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-5:]]
        return json.dumps(line, ensure_ascii=True)


def start_logging(stream: TextIO | None = None) -> None:
    """Write the node's records, and warnings of everything else, to a stream (standard error)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.ERROR)
    logging.getLogger("sightline.node").setLevel(logging.INFO)
    # pydicom warns of values that are none of their kind, and quotes them
    warnings.showwarning = _write_warning
    # their messages quote what came in
    for name in ("pynetdicom", "pydicom", "dicomweb_client", "uvicorn", "urllib3", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _write_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    """A library's warning by its kind and place; its text may quote a header."""
    where = f"{Path(filename).name}:{lineno}"
    logging.getLogger("sightline.node").warning("a library warned", extra={"error": category.__name__, "reason": where})
