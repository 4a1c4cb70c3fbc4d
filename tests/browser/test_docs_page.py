"""/docs in a browser: drawn from this server alone, under its policy."""

import httpx
from playwright.sync_api import Browser


def test_docs_are_drawn_and_a_call_can_be_tried(browser: Browser, client: httpx.Client) -> None:
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{client.base_url}/docs")
    page.click("text=/livez")
    page.click("button:has-text('Try it out')")
    page.click("button:has-text('Execute')")
    assert "live" in page.inner_text(".live-responses-table .response >> nth=0")
    context.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith((str(client.base_url), "data:", "blob:"))] == []
