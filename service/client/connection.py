"""How both clients connect, and how they ask whether the service is ready."""

from typing import TypedDict

import httpx

from service.client.problems import HeatqueryError, ProblemError, UnreachableError
from service.client.retries import RetryPolicy

_NOT_READY = 503
_READY_PAUSE = 1.0  # asking is cheap, and a model loads in about a second: Retry-After would be too polite


class ConnectionOptions(TypedDict):
    """Arguments that httpx.Client and httpx.AsyncClient share."""

    base_url: str
    headers: dict[str, str]
    limits: httpx.Limits


def client_options(base_url: str, api_key: str | None) -> ConnectionOptions:
    """How to talk to the service at an address.

    Raises:
        ValueError: the address is not one of HTTP.
    """
    if httpx.URL(base_url).scheme not in ("http", "https"):
        raise ValueError(f"base_url is {base_url!r}; give it as http://HOST:PORT or https://HOST")
    headers = {"User-Agent": "heatquery-client"}
    if api_key is not None:
        headers["X-API-Key"] = api_key
    # Concurrency is bounded by the caller and by the service, so that no call waits for a connection here.
    return {"base_url": base_url, "headers": headers, "limits": httpx.Limits(max_connections=None)}


def ready_policy(timeout: float) -> RetryPolicy:
    """Ask again and again for `timeout` seconds."""
    return RetryPolicy(timeout, None, longest_wait=_READY_PAUSE, heed_retry_after=False)


def said_not_ready(error: HeatqueryError) -> bool:
    """False, for an error that means "not ready (yet)".

    Raises:
        HeatqueryError: `error` means something else.
    """
    if isinstance(error, UnreachableError) or (isinstance(error, ProblemError) and error.status == _NOT_READY):
        return False
    raise error
