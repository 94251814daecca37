"""All objects of a result: one series a kind, the same result with the same UIDs and bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from sightline.errors import LayoutError, UnreadableFile, count_noun
from sightline.io.dicom_results.header import require_one_study
from sightline.io.dicom_results.identity import (
    SERIES_FROM,
    encode_dicom,
    format_series_description,
    list_result_words,
    make_uid,
)
from sightline.io.dicom_results.parametric_map import write_map
from sightline.io.dicom_results.picture import Syntax, write_picture
from sightline.io.dicom_results.regions import write_regions
from sightline.io.dicom_results.reports import add_evidence, write_findings, write_marks_report
from sightline.io.dicom_results.results import KINDS, ImageResult, Kind, StudyResult
from sightline.io.dicom_results.states import write_state


@dataclass(frozen=True)
class ObjectOptions:
    """Which objects are made, and how.

    Attributes:
        kinds: of KINDS.
        map_on_image: the map on the image's own pixels instead of on its cells.
        picture_syntax: how the picture is encoded.
    """

    kinds: tuple[Kind, ...] = KINDS
    map_on_image: bool = False
    picture_syntax: Syntax = "plain"

    def __post_init__(self) -> None:
        """Refuse kinds that nothing here makes."""
        strange = [kind for kind in self.kinds if kind not in KINDS]
        if strange:
            raise LayoutError(f"{', '.join(strange)} is none of {', '.join(KINDS)}.", "Choose among these.")


def make_objects(result: StudyResult, wanted: ObjectOptions = ObjectOptions()) -> list[Dataset]:
    """The objects of a study's result, reports first; kinds that there is nothing for are left out.

    Raises:
        UnreadableFile: no image, images of several studies or patients, or a header that no result can be made from.
    """
    require_one_study([image.source for image in result.images])
    try:
        return _make_objects(result, wanted)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # highdicom asks for more than a standard's header, or another library's, may say
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnreadableFile(
            f"No results can be written as DICOM for study {result.images[0].source.header.StudyInstanceUID}: its "
            f"header lacks or contradicts what they need ({reason}).",
            "Give the images as the modality stored them, or predict without --as dicom; if their headers are sound, "
            "report this with the text in brackets.",
        ) from error


def _make_objects(result: StudyResult, wanted: ObjectOptions) -> list[Dataset]:
    maker = result.maker
    made_by = (maker.run, maker.weights, maker.version, *maker.parameters)
    words = list_result_words([image.source for image in result.images], made_by)
    finding = _name_finding(result)

    def describe_series(kind: Kind) -> tuple[str, int, str]:
        return (
            make_uid("series", kind, *words),
            SERIES_FROM + KINDS.index(kind),
            format_series_description(finding, kind),
        )

    drawn: list[Dataset] = []
    for kind in wanted.kinds:
        maker_of = _OF_AN_IMAGE.get(kind)
        if maker_of is not None:
            number = 0
            for image in result.images:
                made = maker_of(result, image, words, describe_series(kind), number + 1, wanted)
                if made is not None:
                    drawn.append(made)
                    number += 1
    reports: list[Dataset] = []
    if "findings" in wanted.kinds and any(image.said for image in result.images):
        reports.append(write_findings(result, words, describe_series("findings")))
    if "marks" in wanted.kinds and any(image.boxes for image in result.images):
        reports.append(write_marks_report(result, words, describe_series("marks")))
    for report in reports:
        add_evidence(report, [other for other in (*reports, *drawn) if other is not report])
    return [*reports, *drawn]


def write_objects(objects: Sequence[Dataset], folder: Path) -> list[Path]:
    """Write objects as `KIND_NUMBER_END-OF-UID.dcm`, each in one step; nothing in a name comes from a patient.

    Args:
        objects: as `make_objects` gives them.
        folder: to write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for dataset in objects:
        kind = (
            KINDS[int(dataset.SeriesNumber) - SERIES_FROM] if _is_numbered(dataset) else str(dataset.Modality).lower()
        )
        path = folder / f"{kind}_{int(dataset.InstanceNumber):02d}_{str(dataset.SOPInstanceUID)[-12:]}.dcm"
        partial = path.with_name(path.name + ".partial")
        with partial.open("wb") as file:
            file.write(encode_dicom(dataset))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        paths.append(path)
    return paths


def _is_numbered(dataset: Dataset) -> bool:
    return 0 <= int(dataset.SeriesNumber) - SERIES_FROM < len(KINDS)


def _name_finding(result: StudyResult) -> str:
    """What the series are called after: the one finding that is looked for, or how many there are."""
    labels = list(dict.fromkeys(finding.label for image in result.images for finding in image.said))
    labels = labels or list(dict.fromkeys(box.label for image in result.images for box in image.boxes)) or ["finding"]
    return labels[0] if len(labels) == 1 else count_noun(len(labels), "finding")


_Words = tuple[str, ...]
_Series = tuple[str, int, str]


def _make_regions(
    result: StudyResult, image: ImageResult, words: _Words, series: _Series, number: int, wanted: ObjectOptions
) -> Dataset | None:
    if not any(region.mask.any() for region in image.regions):
        return None
    return write_regions(
        image.source, image.regions, result.maker, result.codes, result.made, words, series, number=number
    )


def _make_states(
    result: StudyResult, image: ImageResult, words: _Words, series: _Series, number: int, wanted: ObjectOptions
) -> Dataset | None:
    return write_state(image.source, image.said, image.boxes, result.maker, result.made, words, series, number=number)


def _make_picture(
    result: StudyResult, image: ImageResult, words: _Words, series: _Series, number: int, wanted: ObjectOptions
) -> Dataset | None:
    if image.picture is None:
        return None
    return write_picture(
        image.source, image.picture, result.maker, result.made, words, series,
        number=number, syntax=wanted.picture_syntax,
    )  # fmt: skip


def _make_map(
    result: StudyResult, image: ImageResult, words: _Words, series: _Series, number: int, wanted: ObjectOptions
) -> Dataset | None:
    if image.map is None:
        return None
    return write_map(
        image.source, image.map, result.maker, result.made, words, series,
        number=number, on_image=wanted.map_on_image,
    )  # fmt: skip


_Make = Callable[[StudyResult, ImageResult, _Words, _Series, int, ObjectOptions], Dataset | None]
_OF_AN_IMAGE: dict[Kind, _Make] = {
    "regions": _make_regions,
    "states": _make_states,
    "picture": _make_picture,
    "map": _make_map,
}
