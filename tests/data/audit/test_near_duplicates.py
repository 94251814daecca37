"""Near-duplicates found by bands are those of the plain rule, pair by pair; copies by the thousand are told shortly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.data.audit.near_duplicates import find_duplicates, find_near_pairs


def by_the_rule(differences, thumbnails):
    """Every pair held against every other, as docs/cohorts.md says it."""
    pairs = set()
    for i in range(len(differences)):
        for j in range(i + 1, len(differences)):
            few = int((differences[i] != differences[j]).sum()) <= 8
            empty = not thumbnails[i].any() and not thumbnails[j].any()
            if few and (empty or float(thumbnails[i] @ thumbnails[j]) >= 0.9):
                pairs.add((i, j))
    return pairs


def pictures(seed, n, families, constant=0.2):
    """Some families of pictures with up to 11 changed bits each, exact copies among them, and some empty ones."""
    random = np.random.default_rng(seed)
    family = random.integers(0, families, n)
    first = random.random((families, 256)) < random.choice([0.02, 0.5])
    differences = first[family].copy()
    for row in differences:
        row[random.permutation(256)[: random.integers(0, 12)]] ^= True
    shades = random.normal(size=(families, 256))
    thumbnails = shades[family] + random.choice([0.0, 0.3, 0.6], (n, 1)) * random.normal(size=(n, 256))
    thumbnails -= thumbnails.mean(axis=1, keepdims=True)
    thumbnails /= np.linalg.norm(thumbnails, axis=1, keepdims=True)
    thumbnails[random.random(n) < constant] = 0.0
    thumbnails = thumbnails.astype(np.float32)
    for _ in range(n // 3):
        a, b = random.integers(0, n, 2)
        differences[b], thumbnails[b] = differences[a], thumbnails[a]
    return differences, thumbnails


@given(st.integers(0, 10**6), st.integers(2, 70), st.integers(1, 12), st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=60, deadline=None)
def test_the_bands_miss_nothing_and_tell_no_pair_twice(seed, n, families, dense_share):
    differences, thumbnails = pictures(seed, n, families)
    found = [
        pair
        for i, j in find_near_pairs(differences, thumbnails, dense_share)
        for pair in zip(i.tolist(), j.tolist(), strict=True)
    ]
    assert len(found) == len(set(found))
    assert set(found) == by_the_rule(differences, thumbnails)


@given(st.integers(0, 10**6), st.integers(2, 60))
@settings(max_examples=30, deadline=None)
def test_kinds_counts_and_members_are_those_of_the_rule(seed, n):
    differences, thumbnails = pictures(seed, n, 4)
    random = np.random.default_rng(seed)
    labels, splits = random.integers(0, 2, n), random.integers(-1, 2, n)
    expected = {"labels": set(), "splits": set(), "within": set()}
    for i, j in by_the_rule(differences, thumbnails):
        opposite, across = labels[i] != labels[j], splits[i] != splits[j] and splits[i] >= 0 and splits[j] >= 0
        for kind, which in (("labels", opposite), ("splits", across), ("within", not opposite and not across)):
            if which:
                expected[kind].add((i, j))
    for kind, pairs in find_duplicates(differences, thumbnails, labels, splits).items():
        assert pairs.count == len(expected[kind])
        assert set(np.flatnonzero(pairs.members).tolist()) == {i for pair in expected[kind] for i in pair}
        assert {(e.first, e.second) for e in pairs.examples} <= expected[kind]
        assert pairs.listed >= len(pairs.examples) > 0 if expected[kind] else not pairs.examples


def test_copies_by_the_thousand_are_one_line():
    differences, thumbnails = pictures(0, 2, 2, constant=0.0)
    copies = np.repeat([0, 1], [4000, 1])
    found = find_duplicates(differences[copies], thumbnails[copies], [0] * 2000 + [1] * 2001, [0] * 4001)
    assert found["labels"].count == 2000 * 2000 and found["labels"].listed == 1
    assert found["within"].count == 2 * (2000 * 1999 // 2) and [e.alike for e in found["within"].examples] == [2000] * 2


def test_a_mass_of_nearly_empty_pictures_goes_through_blocks():
    random = np.random.default_rng(3)
    differences = np.zeros((700, 256), dtype=bool)
    differences[np.arange(700), random.integers(0, 256, 700)] = True
    found = find_duplicates(differences, np.zeros((700, 256), np.float32), [0] * 700, [0] * 700)
    assert found["within"].count == 700 * 699 // 2 and len(found["within"].examples) == 10


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_to_compare(n):
    assert list(find_near_pairs(np.zeros((n, 256), bool), np.zeros((n, 256), np.float32))) == []
