"""Read the body of a request, a picture (multipart or raw) or JSON, into memory and nowhere else."""

import asyncio
from typing import TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from service.errors import InvalidParameterError, MalformedBodyError, UnsupportedTypeError

FIELD = "file"
RAW_TYPES = ("image/", "application/octet-stream")
_MAX_FIELDS, _MAX_FIELD_BYTES = 16, 64 * 1024
_MAX_ERRORS = 20  # as many faults of one body as a reader wants to hear of
AnyModel = TypeVar("AnyModel", bound=BaseModel)

# FastAPI cannot derive a body that is either a form or raw bytes, so the schema is said here.
_BINARY = {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP, BMP, TIFF or GIF."}
_FORM = {"type": "object", "required": [FIELD], "properties": {FIELD: _BINARY}}
REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _FORM},
            "application/octet-stream": {"schema": _BINARY},
            "image/*": {"schema": _BINARY},
        },
    }
}
_SCENE = {"type": "string", "format": "binary", "description": "GeoTIFF, JPEG or PNG of any size."}
SCENE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _FORM | {"properties": {FIELD: _SCENE}}},
            "application/octet-stream": {"schema": _SCENE},
            "image/*": {"schema": _SCENE},
        },
    }
}


class _InMemoryParser(MultiPartParser):
    """Starlette's parser without its temporary files: 0 means that a part never rolls over to disk.

    Memory stays bounded by the limit on the whole body.
    """

    spool_max_size = 0


async def read_upload(request: Request) -> bytes:
    """The bytes of the one picture of the request, not yet looked at.

    Raises:
        UnsupportedTypeError: neither a form nor an image type.
        InvalidParameterError: a form without the file part.
        MalformedBodyError: the form is broken or has too many parts, or the client went away.
    """
    media_type = media_type_of(request.headers.get("content-type"))
    try:
        if media_type == "multipart/form-data":
            return await _read_form(request)
        require_raw_type(media_type)
        return await request.body()
    except MultiPartException as error:
        raise MalformedBodyError(f"{error.message} Send a form as curl -F {FIELD}=@picture.jpg does") from error
    except ClientDisconnect as error:
        raise MalformedBodyError("the client went away while sending") from error


async def read_json(request: Request, schema: type[AnyModel]) -> AnyModel:
    """The JSON body of the request, parsed off the event loop, because it may hold pictures.

    Raises:
        UnsupportedTypeError: not JSON by its type.
        MalformedBodyError: not JSON by its content, or the client went away.
        RequestValidationError: not what the schema says.
    """
    media_type = media_type_of(request.headers.get("content-type"))
    if media_type not in ("application/json", ""):
        raise UnsupportedTypeError(f"the content type is {media_type[:80]!r}; send application/json")
    try:
        body = await request.body()
    except ClientDisconnect as error:
        raise MalformedBodyError("the client went away while sending") from error
    return await asyncio.to_thread(_parse_json, body, schema)


def _parse_json(body: bytes, schema: type[AnyModel]) -> AnyModel:
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        items = error.errors(include_url=False, include_context=False)[:_MAX_ERRORS]
        if items[0]["type"] == "json_invalid":
            raise MalformedBodyError(items[0]["msg"]) from error
        # the inputs may be as large as the body: what is said of them is cut off here, and not on the event loop
        cut = [{**item, "loc": ("body", *item["loc"]), "input": str(item["input"])[:200]} for item in items]
        raise RequestValidationError(cut) from error


async def _read_form(request: Request) -> bytes:
    parser = _InMemoryParser(
        request.headers,
        request.stream(),
        max_files=1,
        max_fields=_MAX_FIELDS,
        max_part_size=_MAX_FIELD_BYTES,
    )
    form = await parser.parse()
    try:
        part = form.get(FIELD)
        if isinstance(part, str):
            raise InvalidParameterError(f"{FIELD}: is a text; send a file: curl -F {FIELD}=@picture.jpg, with the @")
        if part is None:
            raise InvalidParameterError(
                f"the form needs a file part named {FIELD!r}; found {sorted(set(form)) or 'no parts'}"
            )
        require_raw_type(media_type_of(part.content_type))
        return await part.read()
    finally:
        await form.close()


def media_type_of(header: str | None) -> str:
    """The type without its parameters, in lower case; "" where there is none."""
    kind, _ = parse_options_header(header)
    return kind.decode("latin-1").strip().lower()


def require_raw_type(media_type: str) -> None:
    """A missing type is fine (RFC 9110, 8.3): the content decides in the end."""
    if media_type and not media_type.startswith(RAW_TYPES):
        raise UnsupportedTypeError(
            f"the content type is {media_type!r}; send a form with a file part named {FIELD!r}, "
            "or the bytes with Content-Type: image/jpeg (or the like)"
        )
