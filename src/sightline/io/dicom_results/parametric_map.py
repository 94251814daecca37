"""A class map as a DICOM parametric map: float numbers on the map's own cells, in their place on the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from sightline.io.dicom_results.codes import CodedConcept
from sightline.io.dicom_results.header import SourceImage
from sightline.io.dicom_results.identity import NOT_FOR_DIAGNOSIS, finish, make_uid, shorten
from sightline.io.dicom_results.plane import build_plane_of_cells, place_image_on_plane
from sightline.io.dicom_results.regions import build_code_sequence, describe_contributing_equipment, describe_equipment
from sightline.io.dicom_results.results import FoundMap, Maker
from sightline.io.picture import resample_to_pixels

PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
NO_UNITS = CodedConcept("1", "UCUM", "no units")
RESAMPLED = "Resampled to the image: its cells were sheared."


def write_map(
    source: SourceImage,
    found: FoundMap,
    maker: Maker,
    made: datetime,
    words: Sequence[str],
    series: tuple[str, int, str],
    *,
    number: int = 1,
    on_image: bool = False,
) -> Dataset:
    """A parametric map of a projection.

    Args:
        source: the image.
        found: the map.
        maker: what made it.
        made: time that is written.
        words: of the result, for UIDs.
        series: UID, number and description of the series.
        number: of the instance in its series.
        on_image: on the image's own pixels, for viewers that cannot lay one grid over another (large).
    """
    plane = None if on_image else build_plane_of_cells(source, found.to_source)
    says = NOT_FOR_DIAGNOSIS
    if plane is None:
        found = place_map_on_image(found, source.shape)
        plane = build_plane_of_cells(source, found.to_source)
        says = f"{NOT_FOR_DIAGNOSIS} {'On the pixels of the image.' if on_image else RESAMPLED}"
    assert plane is not None
    values = np.ascontiguousarray(found.values, dtype=np.float32)
    measures, orientation, positions = plane.sequences()
    made_of = ("map", source.uid, found.label, *words, *(["on image"] if on_image else []))
    dataset = hd.pm.ParametricMap(
        source_images=[place_image_on_plane(source, maker.run)],
        pixel_array=values[None],
        series_instance_uid=series[0],
        series_number=series[1],
        series_description=series[2],
        sop_instance_uid=make_uid(*made_of),
        instance_number=number,
        contains_recognizable_visual_features=False,
        **describe_value_range(values, found.label, f"Class map of {found.label}, before pooling"),
        content_label="CLASS_MAP",
        content_description=shorten(says, 64),
        pixel_measures=measures,
        plane_orientation=orientation,
        plane_positions=positions,
        contributing_equipment=describe_contributing_equipment(maker),
        **describe_equipment(maker),
    )
    dataset.PositionReferenceIndicator = ""
    return finish(dataset, source, made, made_of)


def describe_value_range(values: NDArray[np.float32], label: str, explanation: str) -> dict[str, Any]:
    """What a parametric map says of its numbers: they are as stored, without a unit, and shown from least to greatest.

    Args:
        values: of the map.
        label: of the mapping, at most 16 letters of it.
        explanation: at most 64 letters of it.
    """
    low, high = float(values.min()), float(values.max())
    mapping = hd.pm.RealWorldValueMapping(
        lut_label=shorten(label, 16),
        lut_explanation=shorten(explanation, 64),
        unit=build_code_sequence(NO_UNITS),
        # the range of values that the mapping holds for; a flat map still has one
        value_range=(low, high if high > low else low + 1.0),
        slope=1.0,
        intercept=0.0,
    )
    # plain LINEAR knows no window below 1
    window = hd.VOILUTTransformation(
        window_center=(low + high) / 2.0, window_width=max(high - low, 1e-3), voi_lut_function="LINEAR_EXACT"
    )
    return {"real_world_value_mappings": [mapping], "voi_lut_transformations": [window]}


def place_map_on_image(found: FoundMap, shape: tuple[int, int]) -> FoundMap:
    """A map on the pixels of its image: bilinear between the cells' centres, and its least value outside it.

    Args:
        found: on its own cells.
        shape: rows and columns of the image.
    """
    resampled, _ = resample_to_pixels(np.asarray(found.values, dtype=np.float32), found.to_source, shape)
    return replace(found, values=resampled, to_source=np.eye(3))
