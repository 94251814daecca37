"""Which images belong together where a data set has no patient ids: the union of every grouping a table offers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sightline.cohorts.tables import read_table
from sightline.errors import LayoutError


def read_groups(path: Path, key: str, columns: Sequence[str] | None = None) -> dict[str, str]:
    """Group per image: images that share a value in any column, directly or through others, are one group.

    Args:
        path: CSV table with one row an image.
        key: the column that names the image.
        columns: grouping columns; default every other column. Empty cells join nothing.

    Returns:
        Image -> the group, called after its first image in sorted order.

    Raises:
        LayoutError: a missing table or column, or no grouping column at all.
    """
    rows = read_table(path, [key, *(columns or [])], key=key)
    columns = columns or [column for column in (rows[0].cells if rows else {}) if column != key]
    if not columns:
        raise LayoutError(f"{path} has no column that groups images.", f"Add a column beside {key!r}, e.g. patient_id.")
    return join_groups({row[key]: [(column, row[column]) for column in columns if row[column]] for row in rows})


def join_groups(memberships: dict[str, list[tuple[str, str]]]) -> dict[str, str]:
    """Connected components of images that share a (column, value) pair; see `read_groups`."""
    parent: dict[object, object] = {}

    def top(node: object) -> object:
        while parent.setdefault(node, node) != node:
            parent[node] = node = parent[parent[node]]
        return node

    for image, marks in memberships.items():
        for mark in marks:
            parent[top(mark)] = top((image,))
    named: dict[object, str] = {}
    return {image: named.setdefault(top((image,)), image) for image in sorted(memberships)}


def group_of(groups: dict[str, str] | None, images: Sequence[str], path: Path) -> dict[str, str]:
    """The group of each image; without groups every image is its own.

    Raises:
        LayoutError: images that the table does not name.
    """
    if groups is None:
        return {image: image for image in images}
    missing = [image for image in images if image not in groups]
    if missing:
        raise LayoutError(
            f"{path} does not name {len(missing)} images, e.g. {missing[:3]}.", "Give every image a row and a group."
        )
    return {image: groups[image] for image in images}
