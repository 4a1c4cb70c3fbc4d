"""API keys: who may call. Checked before a byte of the body is read."""

from base64 import b64decode
from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import UnauthorizedError
from service.problems import service_error_response

# Probes and metrics come from machines without a key. The pages hold no data, and a browser opens them without headers.
OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/health", "/metrics", "/docs", "/openapi.json", "/favicon.ico"})
OPEN_FOLDERS = ("/v2/health/", "/docs/", "/ui/")


class ApiKeys:
    """A set of keys that never tells, by the time it takes, how near a wrong one came."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Keep digests, which all have the same length."""
        self._digests = [sha256(key.encode()).digest() for key in keys]

    def find(self, presented: str) -> str | None:
        """A name for the key that is safe to log and to count by; None for a wrong key."""
        digest = sha256(presented.encode("latin-1")).digest()  # as headers are decoded
        found = None
        for known in self._digests:  # all of them, whichever fits
            if compare_digest(known, digest):
                found = known
        return found.hex()[:12] if found else None


class ApiKeyMiddleware:
    """Answer 401 to whoever has no key; names the caller in the request's state as `caller`."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_open(scope["path"]):
            await self.app(scope, receive, send)
            return
        presented = presented_key(Headers(scope=scope))
        caller = None if presented is None else self.keys.find(presented)
        if caller is None:
            wrong = "no key came" if presented is None else "the key is not known"
            error = UnauthorizedError(f"{wrong}; send one as X-API-Key, or as Authorization: Bearer")
            await service_error_response(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        await self.app(scope, receive, send)


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)


def presented_key(headers: Headers) -> str | None:
    """The key that a request carries; as password, for clients that know nothing else (Label Studio)."""
    if "x-api-key" in headers:
        return headers["x-api-key"]
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            return credentials.strip()
        case "basic":
            try:
                return b64decode(credentials, validate=True).decode("latin-1").partition(":")[2]
            except ValueError:
                return ""
        case _:
            return None
