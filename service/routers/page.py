"""GET /: the page for people, in plain files that are read once, when the app is built."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parents[1] / "ui"
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, but asked about each time: a new release shows at once
}


@dataclass(frozen=True)
class PageFile:
    """One file of the page; the etag follows its content."""

    content: bytes
    media_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> "PageFile":
        """Read a file from the package."""
        content = path.read_bytes()
        return cls(content, _MEDIA_TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


Page = dict[str, PageFile]


def read_page() -> Page:
    """Every file of the page by its name; no other name can be asked for."""
    return {path.name: PageFile.read(path) for path in sorted(FOLDER.iterdir()) if path.suffix in _MEDIA_TYPES}


def get_page(request: Request) -> Page:
    """The files that the app factory read."""
    return request.app.state.page


PageDep = Annotated[Page, Depends(get_page)]


@router.head("/")
@router.get("/")
async def page(request: Request, files: PageDep) -> Response:
    """The page itself."""
    return _answer(request, files["index.html"])


@router.head("/ui/{name}")
@router.get("/ui/{name}")
async def page_file(name: str, request: Request, files: PageDep) -> Response:
    """What the page loads: styles, scripts, the icon."""
    if name not in files:
        raise HTTPException(404)
    return _answer(request, files[name])


def _answer(request: Request, file: PageFile) -> Response:
    headers = {**_HEADERS, "ETag": file.etag}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
