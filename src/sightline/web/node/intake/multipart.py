"""A multipart/related body taken apart while it streams: each part goes to a file, nothing stays in memory."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from sightline.errors import SightlineError

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")


class BodyError(SightlineError):
    """A body that is refused, with the HTTP status that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class MessagePart:
    """One part of a body: its file and its stated media type in lower case, empty where none is stated."""

    file: Path
    media_type: str


def read_boundary(content_type: str) -> str:
    """The boundary of a `multipart/related; type="application/dicom"` header.

    Raises:
        BodyError: 415, another media type; 400, no boundary or an impossible one.

    Example:
        >>> read_boundary('multipart/related; type="application/dicom"; boundary=abc')
        'abc'
    """
    message = Message()
    message["Content-Type"] = content_type.replace("\r", " ").replace("\n", " ")
    if message.get_content_type() != "multipart/related":
        raise BodyError(415, 'the body must be multipart/related; type="application/dicom"')
    kind = message.get_param("type", "application/dicom")
    if not isinstance(kind, str) or kind.lower() != "application/dicom":
        raise BodyError(415, "only parts of application/dicom are taken")
    boundary = message.get_param("boundary", "")
    if not isinstance(boundary, str) or not _BOUNDARY.fullmatch(boundary):
        raise BodyError(400, "the header names no boundary of 1 to 70 characters")
    return boundary


class PartWriter:
    """Writes the parts of one body into files.

    Args:
        boundary: as `read_boundary` gives it.
        folder: of the files; whoever makes the writer removes them.
        most_bytes: of the whole body.
        most_parts: of the body.
    """

    def __init__(self, boundary: str, folder: Path, most_bytes: int, most_parts: int) -> None:
        self.parts: list[MessagePart] = []
        self._folder, self._most_bytes, self._most_parts = folder, most_bytes, most_parts
        self._size = 0
        self._file: IO[bytes] | None = None
        self._name, self._value, self._type = b"", b"", ""
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_part_data": self._on_data,
                "on_part_end": self._end,
                "on_header_field": self._on_field,
                "on_header_value": self._on_field_value,
                "on_header_end": self._on_header_end,
                "on_end": self._on_end,
            },
        )

    def write(self, piece: bytes) -> None:
        """Take the next piece of the body.

        Raises:
            BodyError: 413 too long or too many parts, 400 not multipart.
        """
        self._size += len(piece)
        if self._size > self._most_bytes:
            raise BodyError(413, f"a body of more than {self._most_bytes} bytes")
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise BodyError(400, f"the body is no multipart ({' '.join(str(error).split())[:80]})") from None

    def finish(self) -> list[MessagePart]:
        """The parts.

        Raises:
            BodyError: 400, the body ended before its last boundary, or has no part.
        """
        if not self._ended or not self.parts:
            raise BodyError(400, "the body ended before its last boundary" if not self._ended else "no part")
        return self.parts

    def close(self) -> None:
        """Close and remove what is left of the files."""
        if self._file is not None:
            self._file.close()
            Path(self._file.name).unlink(missing_ok=True)
            self._file = None
        for part in self.parts:
            part.file.unlink(missing_ok=True)

    def _begin(self) -> None:
        if len(self.parts) >= self._most_parts:
            raise BodyError(413, f"more than {self._most_parts} parts")
        self._type = ""
        file: Any = tempfile.NamedTemporaryFile(dir=self._folder, suffix=".dcm", delete=False)  # noqa: SIM115
        self._file = file

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        assert self._file is not None
        self._file.write(memoryview(data)[start:end])

    def _end(self) -> None:
        assert self._file is not None
        self._file.close()
        self.parts.append(MessagePart(Path(self._file.name), self._type))
        self._file = None

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_field_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._name.lower() == b"content-type":
            self._type = self._value.decode("latin-1").split(";")[0].strip().lower()
        self._name = self._value = b""

    def _on_end(self) -> None:
        self._ended = True
