"""What was read lately, kept within a budget of memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LRUCache(Generic[K, V]):
    """Values by key up to so many bytes; the least recently used leaves first, the newest always stays.

    `cachetools.LRUCache` refuses a value larger than its whole budget. Here such a value is kept alone: a picture, a
    volume or a mask is asked for several times in a row (image, targets, maps), whatever the budget.

    Args:
        budget_bytes: of all values together.
        bytes_of: memory of a value.

    Example:
        >>> cache = LRUCache(budget_bytes=3, bytes_of=len)
        >>> [cache.get(key, lambda key=key: key) for key in ("ab", "c", "ab", "d")]
        ['ab', 'c', 'ab', 'd']
        >>> "c" in cache, "ab" in cache, cache.held_bytes
        (False, True, 3)
    """

    def __init__(self, budget_bytes: int, bytes_of: Callable[[V], int]) -> None:
        self.budget_bytes = budget_bytes
        self.bytes_of = bytes_of
        self.held_bytes = 0
        self._kept: OrderedDict[K, V] = OrderedDict()

    def __contains__(self, key: object) -> bool:
        """Whether a value is kept under a key."""
        return key in self._kept

    def __len__(self) -> int:
        """Number of values kept."""
        return len(self._kept)

    def __iter__(self) -> Iterator[K]:
        """The keys, the least recently used first."""
        return iter(self._kept)

    def values(self) -> list[V]:
        """The values, in the order of the keys."""
        return list(self._kept.values())

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value under a key; made, and kept, where there is none."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        value = self._kept[key] = make()
        self.held_bytes += self.bytes_of(value)
        while self.held_bytes > self.budget_bytes and len(self._kept) > 1:
            self.held_bytes -= self.bytes_of(self._kept.popitem(last=False)[1])
        return value
