"""The page of the site that tells of every call, made of the service's own description."""

import re

import pytest

from openapi_page import http_reference, table, type_of
from service.app import create_app
from service.settings import Settings


@pytest.fixture(scope="module")
def page() -> str:
    return http_reference()


def test_every_call_has_a_heading(page: str) -> None:
    calls = create_app(Settings()).openapi()["paths"].items()
    headings = {f"### {method.upper()} {path}" for path, methods in calls for method in methods}
    assert headings <= set(page.splitlines())


def test_every_group_has_one_heading(page: str) -> None:
    groups = re.findall(r"^## .+$", page, re.MULTILINE)
    assert len(groups) == len(set(groups))


def test_every_document_that_is_named_is_on_the_page(page: str) -> None:
    named = set(re.findall(r"\]\(#(\w+)\)", page))
    assert named <= {heading.lower() for heading in re.findall(r"^### (\w+)$", page, re.MULTILINE)}


def test_a_type_that_may_be_left_out_is_told_as_the_type() -> None:
    schema = {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}]}
    assert type_of(schema) == "number, 0 to 1"


def test_a_bar_in_a_text_does_not_end_its_cell() -> None:
    assert table(("a", "b"), iter([("x|y", "z")])).splitlines()[2] == r"| x\|y | z |"
