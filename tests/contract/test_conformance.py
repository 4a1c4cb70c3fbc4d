"""Answers are what /openapi.json says they are, for calls that schemathesis makes up from it."""

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def calls(client: httpx.Client) -> st.SearchStrategy[schemathesis.Case]:
    """Calls of every operation, parameters and bodies as described."""
    schema = schemathesis.openapi.from_url(str(client.base_url.join("/openapi.json")))
    return st.one_of([found.ok().as_strategy() for found in schema.get_all_operations() if isinstance(found, Ok)])


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_answers_are_as_described(calls: st.SearchStrategy[schemathesis.Case], data: st.DataObject) -> None:
    data.draw(calls).call_and_validate(checks=CHECKS)
