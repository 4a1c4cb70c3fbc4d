"""/openapi.json: sound, complete, and with examples that are true."""

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import httpx
import pytest
import schemathesis

from service.schemas import DetectResponse, Format


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    return client.get("/openapi.json").json()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_it_is_sound(document: dict[str, Any]) -> None:
    schemathesis.openapi.from_dict(document).validate()


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    names = set(re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document)))
    assert names - set(document["components"]["schemas"]) == set()


def test_the_error_body_of_the_framework_is_not_in_it(document: dict[str, Any]) -> None:
    assert "ValidationError" not in json.dumps(document)


def test_every_parameter_is_explained_by_an_example(document: dict[str, Any]) -> None:
    bare = [
        f"{name} {parameter['name']}"
        for name, operation in operations(document)
        for parameter in operation.get("parameters", [])
        if not (parameter.get("description") and parameter["schema"].get("examples"))
    ]
    assert bare == []


def test_every_format_of_detect_has_an_example_under_its_media_type(document: dict[str, Any]) -> None:
    content = document["paths"]["/detect"]["post"]["responses"]["200"]["content"]
    assert {kind: media for media, one in content.items() for kind in one["examples"]} == {
        kind: {"geojson": "application/geo+json", "yolo": "text/plain"}.get(kind, "application/json")
        for kind in get_args(Format)
    }


def test_the_example_of_detect_is_an_answer(document: dict[str, Any]) -> None:
    content = document["paths"]["/detect"]["post"]["responses"]["200"]["content"]
    DetectResponse.model_validate(content["application/json"]["examples"]["json"]["value"])


def test_every_problem_has_an_example_with_its_status(document: dict[str, Any]) -> None:
    problems = [
        (status, example["value"]["status"])
        for _, operation in operations(document)
        for status, answer in operation["responses"].items()
        if int(status) >= 400
        for example in answer["content"]["application/problem+json"]["examples"].values()
    ]
    assert len(problems) > 50
    assert [pair for pair in problems if pair[0] != str(pair[1])] == []


@pytest.mark.parametrize("path", ["/detect", "/heatmap?format=npy"])
def test_answers_have_the_headers_that_are_written(
    client: httpx.Client, document: dict[str, Any], scene_png: bytes, path: str
) -> None:
    written = document["paths"][path.partition("?")[0]]["post"]["responses"]["200"]["headers"]
    answer = client.post(path, content=scene_png)
    assert [name for name in written if name not in answer.headers] == []
