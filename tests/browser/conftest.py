"""A headless Chromium, and the page of a service with the toy model in it."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from visiting import Visit

FLAGS = [
    "--headless",
    "--no-sandbox",  # tests run as root where CI does
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# Not for the whole session: while the browser runs, Playwright's event loop counts as running in this thread, and
# tests elsewhere start loops of their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium of the system; Playwright downloads nothing."""
    path = shutil.which("chromium")
    if path is None and os.environ.get("CI") == "true":
        pytest.fail("chromium is absent, and .ci/run should have installed it")
    if path is None:
        pytest.skip("chromium is absent; install the package of that name to test the page")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, client: httpx.Client) -> Iterator[Callable[..., Visit]]:
    """Open the page in a tab of its own, of the shared service or another; keywords are Playwright's for a context."""
    contexts = []

    def make(service: httpx.Client = client, path: str = "/", wait: bool = True, **options: Any) -> Visit:
        options = {"viewport": {"width": 1200, "height": 800}, "reduced_motion": "reduce", **options}
        contexts.append(browser.new_context(**options))
        visit = Visit(contexts[-1].new_page())
        visit.page.set_default_timeout(15_000)
        visit.page.on("request", lambda request: visit.requests.append(request))
        visit.page.on("console", lambda message: visit.complaints.append(f"{message.type}: {message.text}"))
        visit.page.on("pageerror", lambda error: visit.complaints.append(f"error: {error}"))
        visit.page.goto(f"{service.base_url}{path}")
        if wait:  # until the model is there
            visit.page.wait_for_selector("#classes-hint:not([hidden])", state="attached")
        return visit

    yield make
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def scores_png(draw_scene: Callable[..., Image.Image], encode: Callable[..., bytes]) -> bytes:
    """Three red squares that the toy model scores about 1, 0.6 and 0.2, and a blue one of about 1."""
    reds = [(0, 0, 64, "#ff0000"), (128, 0, 64, "#990000"), (64, 128, 64, "#330000")]
    return encode(draw_scene(320, 240, *reds, (192, 128, 64, "#0000ff")))
