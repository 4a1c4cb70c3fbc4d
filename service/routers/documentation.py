"""What /openapi.json says beyond what FastAPI derives: bodies that handlers read or write themselves, with examples."""

import json
from typing import Any, get_args

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.format_schemas import CocoDocument, FeatureCollection, LabelStudioTask, SupervisionDetections
from service.formats import JSON_TYPE, write_answer
from service.labelstudio import PredictRequest, SetupRequest
from service.schemas import DETECT_EXAMPLE, DetectResponse, Format, HeatmapValues, ProblemBody

_PLACE = "#/components/schemas/"
_REQUESTS = (SetupRequest, PredictRequest)
_ANSWERS = (
    DetectResponse,
    FeatureCollection,
    CocoDocument,
    SupervisionDetections,
    LabelStudioTask,
    HeatmapValues,
    ProblemBody,
)
_FRAMEWORK_ERROR = "HTTPValidationError"
_TEXT = {"type": "string"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_HEADERS = {
    "X-Image-ID": {"description": "For GET /heatmap.", "schema": _TEXT},
    "X-Model": {"description": "Name and version of the model, percent-encoded.", "schema": _TEXT},
    "X-Model-SHA256": {"description": "Of its model.json, which names every other file's.", "schema": _TEXT},
}

Responses = dict[int | str, dict[str, Any]]


def reference(model: type[BaseModel]) -> dict[str, str]:
    """Where the schema of a model is found, once `install_documentation` has put it there."""
    return {"$ref": _PLACE + model.__name__}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Request body of a handler that reads its JSON itself."""
    return {"requestBody": {"required": True, "content": {JSON_TYPE: {"schema": reference(model)}}}}


def detect_answers() -> Responses:
    """Every format of POST /detect, with the same two objects as an example in each."""
    answer = DetectResponse.model_validate(DETECT_EXAMPLE)
    content: dict[str, Any] = {
        JSON_TYPE: {
            "schema": {
                "anyOf": [
                    reference(DetectResponse),
                    reference(CocoDocument),
                    reference(SupervisionDetections),
                    reference(LabelStudioTask),
                ]
            }
        },
        "application/geo+json": {"schema": reference(FeatureCollection)},
        "text/plain": {"schema": _TEXT},
    }
    for kind in get_args(Format):
        body, media_type = write_answer(answer, ("airplane", "ship"), kind)
        value = body if media_type == "text/plain" else json.loads(body)
        content[media_type].setdefault("examples", {})[kind] = {"summary": f"format={kind}", "value": value}
    return {200: {"description": "The objects found, best first.", "content": content, "headers": _HEADERS}}


def heatmap_answers() -> Responses:
    """Every format of /heatmap."""
    content = {
        "image/png": _BINARY,
        "image/webp": _BINARY,
        "application/x-npy": _BINARY,
        JSON_TYPE: {"schema": reference(HeatmapValues)},
    }
    affine = {"description": "With format=npy: as `affine` of format=json.", "schema": _TEXT}
    headers = {**_HEADERS, "X-Heatmap-Affine": affine}
    return {200: {"description": "The heat map.", "content": content, "headers": headers}}


def scene_answers() -> Responses:
    """Every format of a scene's result; files that are written as they are read, so only their kind is described."""
    json_object = {"schema": {"type": "object"}}
    content = {
        "application/geo+json": json_object,
        "application/geopackage+sqlite3": _BINARY,
        JSON_TYPE: json_object,
        "text/csv": {"schema": _TEXT},
    }
    return {200: {"description": "The objects found.", "content": content}}


def heat_raster_answer() -> Responses:
    """The heat of a scene."""
    return {200: {"description": "Two bands: density and mixed heat.", "content": {"image/tiff": _BINARY}}}


def preview_answer() -> Responses:
    """The whole of a scene."""
    return {200: {"description": "The whole scene, shrunk.", "content": {"image/jpeg": _BINARY}}}


NOT_MODIFIED: Responses = {304: {"description": "The caller has this very heat map: If-None-Match names its ETag."}}


def install_documentation(app: FastAPI) -> None:
    """Add the schemas that handlers refer to, and drop the error body of the framework, which is never sent."""
    derive = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = derive()
            schemas = document["components"]["schemas"]
            schemas.update(_schemas())
            for name in (_FRAMEWORK_ERROR, "ValidationError"):
                schemas.pop(name, None)
            for operations in document["paths"].values():
                for operation in operations.values():
                    _drop_framework_error(operation["responses"])
                    _describe_events(operation["responses"])
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi


def _schemas() -> dict[str, Any]:
    _, requests = models_json_schema([(model, "validation") for model in _REQUESTS], ref_template=_PLACE + "{model}")
    _, answers = models_json_schema([(model, "serialization") for model in _ANSWERS], ref_template=_PLACE + "{model}")
    return {**requests["$defs"], **answers["$defs"]}


def _describe_events(responses: dict[str, Any]) -> None:
    """FastAPI tells events by `itemSchema`, which OpenAPI has from 3.2 on, in a document that says 3.1."""
    content = responses.get("200", {}).get("content", {})
    if "text/event-stream" in content:
        content["text/event-stream"] = {"schema": _TEXT}


def _drop_framework_error(responses: dict[str, Any]) -> None:
    """FastAPI writes a 422 of its own on every path with a parameter, also where all values are taken."""
    schema = responses.get("422", {}).get("content", {}).get(JSON_TYPE, {}).get("schema", {})
    if schema.get("$ref") == _PLACE + _FRAMEWORK_ERROR:
        del responses["422"]
