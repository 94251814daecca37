"""What is kept within a budget, against a slow restatement."""

import numpy as np

from sightline.data.lru_cache import LRUCache


def test_the_least_recently_used_leaves_first():
    rng = np.random.default_rng(0)
    cache, kept, made = LRUCache(20, lambda value: value), [], []
    for key in rng.integers(0, 12, 500).tolist():
        asked = len(made)
        assert cache.get(key, lambda key=key: made.append(key) or key + 1) == key + 1
        assert (len(made) > asked) == (key not in kept)
        kept = [*(k for k in kept if k != key), key]
        while sum(k + 1 for k in kept) > 20 and len(kept) > 1:
            kept.pop(0)
        assert [k for k in range(12) if k in cache] == sorted(kept) and cache.held_bytes == sum(k + 1 for k in kept)
    assert 20 < len(made) < 500


def test_a_value_larger_than_the_budget_is_kept_alone():
    cache = LRUCache(1, len)
    assert cache.get("a", lambda: "long") is cache.get("a", lambda: "new") and len(cache) == 1
