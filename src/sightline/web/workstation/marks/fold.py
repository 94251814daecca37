"""Operations, in the server's order, to the marks and answers they add up to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sightline.web.workstation.marks.operations import OperationRefused

# a change of shape takes the fields of the old one away
_SHAPE_FIELDS = ("start", "stop", "parts", "lines", "stroke_px", "size", "counts")
_FIELDS_OF = {
    "box": ("start", "stop"),
    "polygon": ("parts",),
    "scribble": ("lines", "stroke_px"),
    "mask": ("size", "counts"),
}


@dataclass
class StudyAnswers:
    """What a reader said of a study besides marks."""

    label: str | None = None
    nothing: bool = False
    confidence: float | None = None
    quality: tuple[str, ...] = ()
    comment: str = ""
    image_labels: dict[str, str] = field(default_factory=dict)


class Fold:
    """The state of one read.

    Attributes:
        marks: by id, in the order they were made; each with its image and whether it was taken away.
        answers: of the study.
        proposals: what came of each proposal.
        submitted: whether the last submit was not followed by a reopening.
    """

    def __init__(self) -> None:
        self.marks: dict[str, dict[str, Any]] = {}
        self.answers = StudyAnswers()
        self.proposals: dict[str, str] = {}
        self.submitted = False

    def apply(self, op: Mapping[str, Any]) -> None:
        """Take one operation in.

        Raises:
            OperationRefused: it is about a mark that is not there, or not as it says; nothing is changed then.
        """
        kind, body = op["kind"], op["body"]
        if kind in ("add", "copy", "accept"):
            self._add(op, body["mark"])
            if kind == "accept":
                self.proposals[body["proposal"]] = "edited" if body["mark"].get("source") == "edited" else "accepted"
        elif kind == "change":
            self._change(self._get_mark(body["mark"], op), body["set"])
        elif kind in ("remove", "restore"):
            mark = self._get_mark(body["mark"], op)
            if mark["removed"] is (kind == "remove"):
                there = "taken away already" if kind == "remove" else "there already"
                raise OperationRefused(f"The mark is {there}.", "Load the study again.", field="mark")
            mark["removed"] = kind == "remove"
            proposal = mark.get("from")
            if proposal in self.proposals:
                self.proposals[proposal] = "rejected" if kind == "remove" else _find_origin(mark)
        elif kind == "reject":
            self.proposals[body["proposal"]] = "rejected"
        elif kind == "label" and op.get("image"):
            if body.get("label") is None:
                self.answers.image_labels.pop(op["image"], None)
            else:
                self.answers.image_labels[op["image"]] = body["label"]
        elif kind == "label":
            self.answers.label = body.get("label")
        elif kind == "nothing":
            self.answers.nothing = body["value"]
        elif kind == "confidence":
            self.answers.confidence = body.get("value")
        elif kind == "quality":
            self.answers.quality = tuple(body["flags"])
        elif kind == "comment":
            self.answers.comment = body["text"]
        elif kind in ("submit", "reopen"):
            self.submitted = kind == "submit"

    def _add(self, op: Mapping[str, Any], mark: Mapping[str, Any]) -> None:
        if mark["id"] in self.marks:
            raise OperationRefused("There is a mark of this id already.", "Give every mark its own.", field="mark")
        self.marks[mark["id"]] = {**mark, "image": op["image"], "removed": False}

    def _get_mark(self, mark_id: str, op: Mapping[str, Any]) -> dict[str, Any]:
        mark = self.marks.get(mark_id)
        if mark is None or mark["image"] != op["image"]:
            raise OperationRefused("There is no such mark on this image.", "Load the study again.", field="mark")
        return mark

    def _change(self, mark: dict[str, Any], change: Mapping[str, Any]) -> None:
        if mark["removed"]:
            raise OperationRefused("The mark was taken away.", "Bring it back first.", field="mark")
        kind = change.get("kind", mark["kind"])
        shape = [name for name in _SHAPE_FIELDS if name in change]
        if any(name not in _FIELDS_OF[kind] for name in shape) or (kind != mark["kind"] and not shape):
            raise OperationRefused(f"This is no shape of a {kind}.", "State kind and shape together.", field="set")
        if kind != mark["kind"]:
            for name in _SHAPE_FIELDS:
                mark.pop(name, None)
        mark.update(change)

    @property
    def live(self) -> list[dict[str, Any]]:
        """The marks that are there."""
        return [mark for mark in self.marks.values() if not mark["removed"]]

    def to_json(self) -> dict[str, Any]:
        """The state as the page gets it."""
        answers = self.answers
        return {
            "marks": self.live,
            "removed": [mark for mark in self.marks.values() if mark["removed"]],
            "answers": {
                "label": answers.label,
                "nothing": answers.nothing,
                "confidence": answers.confidence,
                "quality": list(answers.quality),
                "comment": answers.comment,
                "image_labels": dict(answers.image_labels),
            },
            "proposals": dict(self.proposals),
        }


def _find_origin(mark: Mapping[str, Any]) -> str:
    return "edited" if mark.get("source") == "edited" else "accepted"


def fold_operations(ops: Iterable[Mapping[str, Any]]) -> Fold:
    """The state that stored operations add up to."""
    state = Fold()
    for op in ops:
        state.apply(op)
    return state


def require_submittable(state: Fold, *, label: bool, confidence: bool, marks: bool) -> None:
    """Refuse to submit what is not finished.

    Args:
        state: of the read.
        label: whether the task asks for a label.
        confidence: whether it asks for a confidence.
        marks: whether it has tools to mark with.

    Raises:
        OperationRefused: 422 with the field that is missing.
    """
    unusable = bool(state.answers.quality)
    if label and state.answers.label is None and not unusable:
        raise OperationRefused("The study has no label yet.", "Choose a class.", field="label")
    if confidence and state.answers.confidence is None and not unusable:
        raise OperationRefused("How sure you are is missing.", "Give a confidence from 0 to 100.", field="confidence")
    if marks and not state.live and not state.answers.nothing and not unusable:
        raise OperationRefused(
            "There is no mark.", "Mark something, or say that there is nothing to mark.", field="nothing"
        )
