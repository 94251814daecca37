"""The key of a site: with it the same patient gets the same pseudonym again; without it nobody can go back."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from sightline.errors import SightlineError, quote_command

_BYTES = 32
# dates of a patient move back by one number of days, at most about ten years
_MOST_DAYS = 3650


@dataclass(frozen=True)
class SiteKey:
    """A secret that turns identifiers into pseudonyms.

    Attributes:
        secret: 32 random bytes.
    """

    secret: bytes

    def uid(self, original: str) -> str:
        """The UID that stands for another: `2.25.` and 128 bits of its HMAC."""
        return f"2.25.{int.from_bytes(self._digest_text('uid', original)[:16], 'big')}"

    def patient(self, patient_id: str) -> str:
        """`P` and 12 hexadecimal digits; the empty id stays empty: those without are not one patient."""
        return f"P{self._digest_text('patient', patient_id).hex()[:12]}" if patient_id.strip() else ""

    def move_day(self, day: date, person: str) -> date:
        """A day, moved back as all days of that patient are; `person` is the PatientID, or what stands for it."""
        days = 1 + int.from_bytes(self._digest_text("days", person)[:4], "big") % _MOST_DAYS
        # the empty date of some programs is the first day that there is, before which no other can be
        return max(day, date(1, 1, 2) + timedelta(days=days)) - timedelta(days=days)

    def _digest_text(self, kind: str, text: str) -> bytes:
        return hmac.new(self.secret, f"{kind}\0{text.strip()}".encode(), hashlib.sha256).digest()

    def __repr__(self) -> str:
        """Without the secret."""
        return "SiteKey(...)"


def read_site_key(path: Path) -> SiteKey:
    """Read a key, or make it once, readable by its owner alone.

    Raises:
        SightlineError: no key, or one that others may read.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(_BYTES) + "\n")
        except FileExistsError:
            pass  # another process was quicker: its key is the site's
    try:
        text, mode = path.read_text(encoding="ascii").strip(), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise SightlineError(f"{path}: the key cannot be read ({error}).", "Restore it from its backup.") from None
    if os.name == "posix" and mode & 0o077:
        raise SightlineError(
            f"{path}: others may read the key (mode {mode & 0o777:o}).", quote_command("chmod", "600", path)
        )
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != _BYTES:
        raise SightlineError(
            f"{path}: not a key of {_BYTES} bytes in hexadecimal digits.",
            "Restore it; with another key earlier patients get other pseudonyms.",
        )
    return SiteKey(secret)
