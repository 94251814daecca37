"""Passwords: argon2id, long ones, none of the commonest, and a pause that grows with every failure."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from sightline.errors import SightlineError

SHORTEST, LONGEST = 12, 1024
FREE_FAILURES = 5
LONGEST_PAUSE_S = 300.0
# RFC 9106's second choice: 64 MiB, three passes, four lanes
_HASHER = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4)
# checked against when there is no such account, so that its absence takes as long as a wrong password
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$5Sl/nmLSy098SZyWSa9tPw$GbEgF4XJbRqM166JiQOgl8xsiorK0uZKEIgBwgmXIWU"


class PasswordRefused(SightlineError):
    """A new password that is too short or too common."""


def hash_password(password: str) -> str:
    """The argon2id hash of a new password.

    Raises:
        PasswordRefused: shorter than 12 characters, absurdly long, or among the commonest.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise PasswordRefused(
            f"A password has {SHORTEST} characters or more; this has {len(password)}.", "Use a sentence of four words."
        )
    from zxcvbn.frequency_lists import FREQUENCY_LISTS

    lowered = password.casefold()
    # a text that is found inside two of itself repeats a shorter one
    if lowered in FREQUENCY_LISTS["passwords"] or lowered in (lowered + lowered)[1:-1]:
        raise PasswordRefused("This password is among the commonest, or repeats itself.", "Use four words of your own.")
    return _HASHER.hash(password)


def check_password(stored: str | None, password: str) -> tuple[bool, str | None]:
    """Whether a password fits a hash, and a new hash where the old one was made with weaker settings.

    Args:
        stored: the hash, or None where there is no such account: that takes as long and says no.
        password: what was typed.
    """
    if len(password) > LONGEST:
        return False, None
    try:
        _HASHER.verify(stored or _NOBODY, password)
    except (VerifyMismatchError, VerificationError, InvalidHashError):
        return False, None
    if stored is None:
        return False, None
    return True, _HASHER.hash(password) if _HASHER.check_needs_rehash(stored) else None


@dataclass
class _Failures:
    count: int = 0
    free_at: float = 0.0
    last: float = 0.0


class Pauses:
    """Pauses after failed sign-ins, for each account and each address: 1 s after five failures, then twice as long."""

    def __init__(self) -> None:
        self._of: dict[str, _Failures] = {}
        self._lock = threading.Lock()

    def wait_s(self, *keys: str) -> float:
        """How long to wait before the next try; 0 where there is no need."""
        now = time.monotonic()
        with self._lock:
            return max((self._of[key].free_at - now for key in keys if key in self._of), default=0.0)

    def record_failure(self, *keys: str) -> None:
        """A try failed."""
        now = time.monotonic()
        with self._lock:
            if len(self._of) > 10_000:
                # names are made up by whoever tries: forget those that wait for nothing
                self._of = {k: f for k, f in self._of.items() if f.free_at > now or now - f.last < 600.0}
            for key in keys:
                found = self._of.setdefault(key, _Failures())
                found.count, found.last = found.count + 1, now
                if found.count >= FREE_FAILURES:
                    pause = min(2.0 ** (found.count - FREE_FAILURES), LONGEST_PAUSE_S)
                    found.free_at = now + pause

    def record_success(self, *keys: str) -> None:
        """A try worked: start anew."""
        with self._lock:
            for key in keys:
                self._of.pop(key, None)
