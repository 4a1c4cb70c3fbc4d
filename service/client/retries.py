"""When a call is sent, and sent again: the rules alone, without any input, output or waiting of their own.

A call is repeated where the service asks for it (429 and 503), where no connection came about, and once where one
broke, if it may be sent twice without harm; nothing else is, because it would fail again.
"""

from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from itertools import count
from random import uniform
from time import monotonic
from time import time as wall_clock

import httpx

from service.client.problems import HeatqueryError, UnreachableError, read_problem

_NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout)
_BROKEN = (httpx.NetworkError, httpx.RemoteProtocolError)


@dataclass(frozen=True)
class RetryPolicy:
    """How long and how often a call is tried.

    Attributes:
        deadline: seconds from the start of a call within which its last try begins; it also bounds how long a try
            waits for the next bytes.
        tries: times that a call is sent at most; None for as often as the deadline allows.
        first_wait: seconds; the first wait is drawn evenly from 0 to this, and the range doubles with every wait ("full
            jitter"), so that callers who were refused together do not come back together.
        longest_wait: seconds at which the range stops to double.
        heed_retry_after: take the service's Retry-After as the least wait.
    """

    deadline: float = 60.0
    tries: int | None = 10
    first_wait: float = 0.2
    longest_wait: float = 10.0
    heed_retry_after: bool = True

    def __post_init__(self) -> None:
        for name in ("deadline", "tries", "first_wait", "longest_wait"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; it must be above 0")


@dataclass(frozen=True)
class Repeats:
    """After what a call is sent again.

    Attributes:
        statuses: of answers.
        if_broken: after a connection that broke, when nobody knows whether the service has carried it out.
    """

    statuses: tuple[int, ...] = (429, 503)
    if_broken: bool = True


@dataclass(frozen=True)
class Send:
    """Send the request, and wait at most `timeout` seconds for each next byte."""

    timeout: float


@dataclass(frozen=True)
class Wait:
    """Do nothing for some seconds."""

    seconds: float


@dataclass(frozen=True)
class Answered:
    """It is done: this is the answer."""

    response: httpx.Response


Outcome = httpx.Response | httpx.TransportError
Step = Send | Wait | Answered


def pursue(policy: RetryPolicy, repeats: Repeats) -> Generator[Step, Outcome | None, None]:
    """The steps of one call: its driver carries out each step, and sends in what came of a `Send`.

    Raises:
        ProblemError: the service said no for the last time.
        UnreachableError: no answer came.
    """
    begun = monotonic()
    breaks = 0
    for tried in count(1):
        left = policy.deadline - (monotonic() - begun)
        outcome = yield Send(max(left, 0.001))
        assert outcome is not None
        if isinstance(outcome, httpx.Response) and outcome.status_code < 400:
            yield Answered(outcome)
            return
        breaks += isinstance(outcome, _BROKEN) and not isinstance(outcome, _NOT_CONNECTED)
        error, wait = _failure(outcome), None if breaks > repeats.if_broken else _wait(policy, repeats, outcome, tried)
        spent = monotonic() - begun
        if wait is None or tried == policy.tries or spent + wait >= policy.deadline:
            _tell_effort(error, tried, spent, wait)
            raise error from (outcome if isinstance(outcome, Exception) else None)
        yield Wait(wait)


def _failure(outcome: Outcome) -> HeatqueryError:
    if isinstance(outcome, httpx.Response):
        return read_problem(outcome)
    url = outcome.request.url
    reason = str(outcome) or type(outcome).__name__
    address = f"{url.scheme}://{url.netloc.decode()}"
    return UnreachableError(f"no answer from {address}: {reason}; {_hint(outcome)}")


def _hint(failure: httpx.TransportError) -> str:
    if isinstance(failure, _NOT_CONNECTED):
        return "does the service run there?"
    if isinstance(failure, httpx.TimeoutException):
        return "it may be overloaded, or need a longer RetryPolicy.deadline"
    length = int(failure.request.headers.get("Content-Length", 0))
    return f"the connection broke, with {length:,} bytes to send; a service that takes fewer may end it like this"


def _wait(policy: RetryPolicy, repeats: Repeats, outcome: Outcome, tried: int) -> float | None:
    """Seconds to wait before the next try; None where there must be none."""
    jitter = uniform(0, min(policy.longest_wait, policy.first_wait * 2 ** min(tried - 1, 30)))
    if isinstance(outcome, httpx.Response):
        if outcome.status_code not in repeats.statuses:
            return None
        asked = read_retry_after(outcome.headers.get("Retry-After", "")) if policy.heed_retry_after else 0.0
        return asked + jitter
    return jitter if isinstance(outcome, _NOT_CONNECTED + _BROKEN) else None


def _tell_effort(error: HeatqueryError, tried: int, spent: float, wait: float | None) -> None:
    if tried > 1 or wait is not None:
        later = "" if wait is None else f"; another would begin {wait:.1f} s later"
        error.add_note(f"sent {tried} times in {spent:.1f} s{later} (see RetryPolicy)")


def read_retry_after(header: str) -> float:
    """Seconds from now, of either form in RFC 9110, 10.2.3: a number, or a date; 0 where it is neither."""
    if header.strip().isdecimal():
        return float(header)
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - wall_clock())
