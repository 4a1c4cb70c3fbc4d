"""Read the body of POST /scenes, raw bytes or a form, straight into a file; little of it is ever in memory."""

import asyncio
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from service.errors import InvalidParameterError, MalformedBodyError
from service.scenes.storage import storage_errors
from service.uploads import FIELD, media_type_of, require_raw_type

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_CHUNK = 1024**2  # bytes that one write takes
_MAX_PARTS = 16
_MAX_HEADER_BYTES = 8 * 1024
_MAX_NAME = 120
UNNAMED = "scene"


async def receive_scene(request: Request, path: Path) -> str:
    """Write the picture of the request to `path`; returns what the caller calls it.

    Raises:
        UnsupportedTypeError, InvalidParameterError, MalformedBodyError: as `read_upload`.
        StorageError: the disk is full.
    """
    media_type = media_type_of(request.headers.get("content-type"))
    with storage_errors(), path.open("xb") as file:
        sink = _Sink(file)
        try:
            if media_type == "multipart/form-data":
                name = await _receive_form(request, sink)
            else:
                require_raw_type(media_type)
                name = UNNAMED
                async for data in request.stream():
                    await sink.write(data)
            await sink.flush()
        except ClientDisconnect as error:
            raise MalformedBodyError("the client went away while sending") from error
    if not sink.size:
        raise MalformedBodyError("the body holds no bytes of a picture")
    return name


class _Sink:
    """Writes off the event loop, in large pieces."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._waiting: list[bytes] = []
        self._held = 0
        self.size = 0

    async def write(self, data: bytes) -> None:
        self._waiting.append(data)
        self._held += len(data)
        self.size += len(data)
        if self._held >= _CHUNK:
            await self.flush()

    async def flush(self) -> None:
        data = b"".join(self._waiting)
        self._waiting, self._held = [], 0
        await asyncio.to_thread(self._file.write, data)
        await asyncio.to_thread(self._file.flush)


async def _receive_form(request: Request, sink: _Sink) -> str:
    _, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if not boundary:
        raise MalformedBodyError("Missing boundary in multipart.")
    form = _Form()
    parser = MultipartParser(boundary, form.callbacks())
    try:
        async for data in request.stream():
            parser.write(data)
            for piece in form.take():
                await sink.write(piece)
        parser.finalize()
    except FormParserError as error:
        raise MalformedBodyError(str(error)) from error
    if form.name is None or not form.complete:
        raise InvalidParameterError(
            f"the form needs a file part named {FIELD!r}; found {sorted(form.fields) or 'no parts'}"
        )
    return form.name


class _Form:
    """What the parser says of a form: the bytes of its one file part, and nothing of the others but their names."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.fields: set[str] = set()
        self.complete = False
        self._parts, self._in_file = 0, False
        self._header, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_header,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
        }

    def take(self) -> list[bytes]:
        """The bytes of the file that came since the last call."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def _begin_part(self) -> None:
        self._parts += 1
        self._headers = {}
        if self._parts > _MAX_PARTS:
            raise MalformedBodyError(f"Too many parts. Maximum number of parts is {_MAX_PARTS}.")

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._bound()

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._bound()

    def _bound(self) -> None:
        if len(self._header) + len(self._value) > _MAX_HEADER_BYTES:
            raise MalformedBodyError(f"A header of a part is over {_MAX_HEADER_BYTES:,} bytes.")

    def _end_header(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        field = options.get(b"name", b"").decode("utf-8", "replace")
        self.fields.add(field[:80])
        self._in_file = field == FIELD and b"filename" in options
        if self._in_file:
            if self.name is not None:
                raise MalformedBodyError(f"Too many files. The form has more than one part named {FIELD!r}.")
            require_raw_type(media_type_of(self._headers.get(b"content-type", b"").decode("latin-1")))
            self.name = display_name(options[b"filename"].decode("utf-8", "replace"))

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._pieces.append(data[start:end])

    def _end_part(self) -> None:
        self.complete = self.complete or self._in_file
        self._in_file = False


def display_name(name: str) -> str:
    """What results call the file: its last part, without what does not print."""
    last = PurePosixPath(name.replace("\\", "/")).name
    return "".join(letter for letter in last if letter.isprintable())[:_MAX_NAME].strip() or UNNAMED
