"""The one table that turns errors into RFC 9457 problem details; only this file knows their statuses."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from service.body_limits import BodyLimits
from service.errors import (
    BodyTooLargeError,
    DeadlineError,
    EngineError,
    HeadTooLargeError,
    InvalidParameterError,
    MalformedBodyError,
    MalformedRequestError,
    NotReadyError,
    OutOfMemoryError,
    PictureTooLargeError,
    QueueFullError,
    RateLimitError,
    SceneQueueFullError,
    SceneStateError,
    ServiceError,
    SlowBodyError,
    SlowHeadError,
    StorageError,
    StoreUnavailableError,
    TooManyConnectionsError,
    UnauthorizedError,
    UndecodableImageError,
    UnknownImageError,
    UnknownModelError,
    UnknownSceneError,
    UnsupportedTypeError,
)
from service.hints import describe_fault, describe_path

PROBLEM_TYPE = "application/problem+json"
logger = logging.getLogger("heatquery")


class Problem(NamedTuple):
    """How one kind of error is answered."""

    status: int
    code: str
    title: str
    headers: Mapping[str, str] = {}


PROBLEMS: dict[type[ServiceError], Problem] = {
    UndecodableImageError: Problem(400, "undecodable-image", "The image cannot be decoded"),
    MalformedRequestError: Problem(400, "malformed-request", "Not a valid HTTP request", {"Connection": "close"}),
    MalformedBodyError: Problem(400, "malformed-body", "The request body cannot be read"),
    UnauthorizedError: Problem(401, "unauthorized", "An API key is needed", {"WWW-Authenticate": "Bearer"}),
    UnknownImageError: Problem(404, "unknown-image", "No such image"),
    UnknownModelError: Problem(404, "unknown-model", "No such model"),
    UnknownSceneError: Problem(404, "unknown-scene", "No such scene"),
    SlowHeadError: Problem(408, "slow-head", "The request head came too slowly", {"Connection": "close"}),
    SlowBodyError: Problem(408, "slow-body", "The request body came too slowly", {"Connection": "close"}),
    SceneStateError: Problem(409, "scene-state", "The scene is in another state"),
    BodyTooLargeError: Problem(413, "body-too-large", "The request body is too large", {"Connection": "close"}),
    PictureTooLargeError: Problem(413, "picture-too-large", "The picture has too many pixels"),
    UnsupportedTypeError: Problem(
        415, "unsupported-type", "Not a supported image type", {"Accept-Encoding": "identity"}
    ),
    InvalidParameterError: Problem(422, "invalid-parameter", "A parameter is not valid"),
    QueueFullError: Problem(429, "queue-full", "Too many calls are waiting", {"Retry-After": "1"}),
    SceneQueueFullError: Problem(429, "scene-queue-full", "Too many scenes are waiting", {"Retry-After": "60"}),
    RateLimitError: Problem(429, "rate-limit", "Too many calls"),
    HeadTooLargeError: Problem(431, "head-too-large", "The request head is too large", {"Connection": "close"}),
    EngineError: Problem(500, "engine-failed", "The model failed"),
    NotReadyError: Problem(503, "not-ready", "The service is not ready", {"Retry-After": "5"}),
    TooManyConnectionsError: Problem(
        503, "too-many-connections", "Too many connections are open", {"Connection": "close", "Retry-After": "1"}
    ),
    StoreUnavailableError: Problem(503, "store-unavailable", "The store cannot be asked", {"Retry-After": "1"}),
    OutOfMemoryError: Problem(503, "out-of-memory", "Out of memory", {"Retry-After": "1"}),
    DeadlineError: Problem(504, "deadline", "The call took too long"),
    StorageError: Problem(507, "no-storage", "Nothing can be kept"),
}


class ProblemResponse(JSONResponse):
    """A problem on its way out, which leaves its code for the metrics and the log."""

    def __init__(self, *arguments: Any, code: str, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.code = code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["problem"] = self.code
        await super().__call__(scope, receive, send)


def problem_response(
    status: int,
    code: str,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **members: object,
) -> ProblemResponse:
    """Answer with an RFC 9457 body; `members` are extension members."""
    body = problem_body(status, code, title, detail, **members)
    return ProblemResponse(body, status, dict(headers or {}), media_type=PROBLEM_TYPE, code=code)


def problem_body(status: int, code: str, title: str, detail: str, **members: object) -> dict[str, object]:
    """The members of an RFC 9457 body."""
    return {
        "type": f"urn:heatquery:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        **members,
    }


def service_error_response(error: ServiceError, /, **members: object) -> ProblemResponse:
    """Answer an error as its row of `PROBLEMS` says; `members` are extension members."""
    problem = _problem_of(error)
    return problem_response(problem.status, problem.code, problem.title, str(error), problem.headers, **members)


def _problem_of(error: ServiceError) -> Problem:
    return next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)


async def _on_service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    logged_once = isinstance(error, NotReadyError | StoreUnavailableError)  # where the cause was met
    if _problem_of(error).status >= 500 and not logged_once:
        _log_failure(request, error)
    members = {"error": str(error)} if request.url.path.startswith("/v2/") else {}  # as the inference protocol wants
    return service_error_response(error, **members)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Errors of the framework: unknown path, wrong method, body over the native limit."""
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        limits = BodyLimits.of(request.app.state.runtime.settings, request.url.path)
        return service_error_response(limits.too_large())
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "-")
    detail = str(error.detail)
    if error.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
        detail = describe_path(request.scope, (error.headers or {}).get("Allow", ""))
    return problem_response(error.status_code, code, phrase, detail, error.headers)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = [describe_fault(item, request.scope) for item in error.errors()]
    detail = "; ".join(f"{item['parameter']}: {item['message']} (got {item['value']!r})" for item in errors)
    problem = PROBLEMS[InvalidParameterError]
    return problem_response(problem.status, problem.code, problem.title, detail, errors=errors)


def failure_response(scope: Scope, error: Exception) -> JSONResponse:
    """Answer what nobody foresaw: the caller learns nothing of the inside, the traceback is in the log."""
    if isinstance(error, ServiceError):
        return service_error_response(error)
    request = Request(scope)
    _log_failure(request, error)
    detail = "An error of ours; the log has it under this request id."
    return problem_response(500, "internal", "Internal error", detail, request_id=_request_id(request))


def _log_failure(request: Request, error: Exception) -> None:
    """Write the traceback, causes included, under the id that the caller got; the server's own log has no id."""
    where = f"{request.method} {request.url.path!r}"
    logger.error("request %s: %s failed: %s", _request_id(request), where, error, exc_info=error)


def _request_id(request: Request) -> str:
    return request.scope.get("state", {}).get("request_id", "")


def install_error_handlers(app: FastAPI) -> None:
    """Make every foreseen error of the app a problem+json body; `FaultBarrierMiddleware` answers the rest."""
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
