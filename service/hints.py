"""The way out of a refused call, in words for a person: what the framework's own texts leave out."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.routing import BaseRoute
from starlette.types import Scope

_WHOLE_BODY = "body"


def nearest(name: str, known: Sequence[str]) -> str:
    """Ask whether the name that is most like it was meant, or tell them all."""
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there is {', '.join(known) or 'none'}"


def describe_fault(item: dict[str, Any], scope: Scope) -> dict[str, str]:
    """One fault of a call's parameters or JSON body.

    Args:
        item: as pydantic tells it.
        scope: of the call, for the names of the parameters that it could have had.
    Returns:
        parameter, message, value.
    """
    where = ".".join(str(part) for part in item["loc"][1:]) or _WHOLE_BODY
    return {"parameter": where, "message": _message(item, where, scope), "value": str(item.get("input"))[:200]}


def _message(item: dict[str, Any], where: str, scope: Scope) -> str:
    match item["type"]:
        case "extra_forbidden" if item["loc"][0] == "query":
            return f"no such parameter; {nearest(where, query_parameters(scope.get('route')))}"
        case "missing":
            return "is missing"
        case "value_error":
            return str(item["msg"]).removeprefix("Value error, ")
        case _:
            return item["msg"]


def query_parameters(route: BaseRoute | None) -> list[str]:
    """Names of the parameters that a route takes behind the question mark."""
    if not isinstance(route, APIRoute):
        return []
    names: list[str] = []
    for field in route.dependant.query_params:
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += kind.model_fields
        else:
            names.append(field.alias)
    return names


def describe_path(scope: Scope, allowed: str) -> str:
    """Where a call should go whose path is not there, or does not take its method.

    Args:
        allowed: the methods that the path takes; "" where there is no such path.
    """
    path = scope["path"][:200]
    if allowed:
        return f"{path} does not take {scope['method'][:20]}, but {allowed}"
    return f"there is no {path} here; /docs lists every call"
