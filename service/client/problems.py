"""What a call can end in, other than its result."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import httpx

_ABOUT_THE_PICTURE = frozenset({400, 413, 415, 500, 504})
"""Statuses that may be due to one picture, so that the next picture may well fare better."""
_LONGEST_TEXT = 500


class HeatqueryError(Exception):
    """Base of all errors of the client."""


class UnreachableError(HeatqueryError):
    """No answer came: no connection, or one that broke or fell silent."""


class UnexpectedAnswerError(HeatqueryError):
    """The answer is not what the service sends: another program, or a version that does not fit."""


class ProblemError(HeatqueryError):
    """The service refused or failed; the fields are those of its problem details (RFC 9457).

    Attributes:
        status: HTTP status.
        type: stable name of the kind of problem, `urn:heatquery:problem:...`; "about:blank" where there is none.
        title: the kind of problem, in words.
        detail: this case, with the way out.
        request_id: under which the service's log has the call; None where the answer names none.
        errors: of a 422, each bad parameter with `parameter`, `message` and `value`.
    """

    def __init__(
        self,
        status: int,
        type_: str,
        title: str,
        detail: str,
        request_id: str | None = None,
        errors: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(status, type_, title, detail, request_id, errors)
        self.status = status
        self.type = type_
        self.title = title
        self.detail = detail
        self.request_id = request_id
        self.errors = tuple(errors)

    def __str__(self) -> str:
        where = f" [request {self.request_id}]" if self.request_id else ""
        return f"{self.status} {self.title}: {self.detail}{where}"

    @property
    def concerns_picture(self) -> bool:
        """Whether another picture may well be answered."""
        return self.status in _ABOUT_THE_PICTURE


def read_problem(response: httpx.Response) -> ProblemError:
    """The error that an answer of 400 or above stands for, also where a proxy wrote it and not the service."""
    body = _problem_body(response)
    title = body.get("title") or _phrase(response.status_code)
    detail = body.get("detail") or response.text.strip()[:_LONGEST_TEXT] or "the answer says no more"
    return ProblemError(
        response.status_code,
        str(body.get("type", "about:blank")),
        str(title),
        str(detail),
        response.headers.get("X-Request-ID"),
        body.get("errors", ()),
    )


def _problem_body(response: httpx.Response) -> dict:
    if not response.headers.get("Content-Type", "").startswith("application/problem+json"):
        return {}
    try:
        body = response.json()
    except ValueError:  # cut off on the way
        return {}
    return body if isinstance(body, dict) else {}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "No standard status"
