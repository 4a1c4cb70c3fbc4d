"""Scenes on the page in a real browser: sent, followed, drawn, saved, cancelled, found again."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Route, expect

from toy_service import wait_until
from visiting import Visit

FIRST_COLOR, SECOND_COLOR = (0xFF, 0x4D, 0x5E), (0x2F, 0xB8, 0xFF)
NO_SCENE = "0" * 32

Open = Callable[..., Visit]
Scene = Callable[..., Image.Image]
Encode = Callable[..., bytes]


@pytest.fixture
def service(make_client: Callable[..., httpx.Client], tmp_path: Path) -> httpx.Client:
    """A service that takes little in one call, so that small pictures are scenes."""
    return make_client(scenes=tmp_path / "scenes", max_pixels=100_000)


@pytest.fixture
def visitor(visit: Open, service: httpx.Client) -> Visit:
    """The page of that service."""
    return visit(service)


@pytest.fixture(scope="session")
def picture(draw_scene: Scene, encode: Encode) -> bytes:
    """600 x 400: red squares on cells of the toy model that score about 1 and 0.6, and a blue one of about 1."""
    return encode(draw_scene(600, 400, (32, 32, 32, "#ff0000"), (32, 256, 32, "#990000"), (384, 256, 32, "#0000ff")))


@pytest.fixture(scope="session")
def long_picture(draw_scene: Scene, encode: Encode) -> bytes:
    """So many tiles that there is time to look on."""
    return encode(draw_scene(5000, 4000, (32, 32, 32, "red")))


def saved(page: Visit, kind: str) -> bytes:
    """The file behind a download button."""
    with page.page.expect_download() as download:
        page.page.click(f"#scene-downloads [value={kind}]")
    return download.value.path().read_bytes()


def only_job(service: httpx.Client) -> dict[str, Any]:
    [job] = service.get("/scenes").json()
    return job


def test_a_picture_too_large_for_one_call_becomes_a_scene_with_boxes(visitor: Visit, picture: bytes) -> None:
    visitor.send(picture, "harbour.png")
    assert (visitor.text("#shown"), visitor.text("#found"), visitor.text("#megapixels")) == ("3", "3", "0.24")
    assert visitor.pixels_like(FIRST_COLOR) > 100
    assert visitor.pixels_like(SECOND_COLOR) > 50
    assert visitor.calls("/scenes") == 2  # the list, and the upload


def test_a_large_tiff_is_a_scene_without_a_first_try(
    visit: Open, make_client: Callable[..., httpx.Client], tmp_path: Path, draw_scene: Scene, encode: Encode
) -> None:
    page = visit(make_client(scenes=tmp_path / "scenes"))
    page.send(encode(draw_scene(1300, 1100, (1056, 32, 32, "red")), "TIFF"), "mosaic.tif")
    assert (page.calls("/detect"), page.text("#shown")) == (0, "1")
    page.page.click("#list li")
    assert page.text("#selected-size").endswith("32 px at 1072, 48")
    assert page.pixels_like((254, 0, 0)) > 200, "the square is not where its box was brought to"


def test_the_slider_changes_the_boxes_of_a_scene_without_a_call(visitor: Visit, picture: bytes) -> None:
    visitor.send(picture)
    calls = len(visitor.requests)
    visitor.set_slider("#threshold", 0.8)
    assert visitor.text("#shown") == "2"
    visitor.page.click("#own-threshold")
    assert visitor.text("#shown") == "3"
    assert len(visitor.requests) == calls


def test_progress_is_told_in_tiles_objects_speed_and_time(visitor: Visit, long_picture: bytes) -> None:
    visitor.choose(long_picture, "long.png")
    expect(visitor.page.locator("#busy-text")).to_have_text(re.compile(r"Looking for objects in long.png, \d+ %"))
    words = r"[\d,]+ of [\d,]+ tiles · [\d,]+ objects so far · [\d.e+]+ megapixels/s · about \d+ (s|min) left"
    expect(visitor.page.locator("#busy-figures")).to_have_text(re.compile(words))
    assert float(visitor.page.get_attribute("#progress", "value") or "nan") < 1


def test_a_reload_finds_the_scene_again(visitor: Visit, service: httpx.Client, long_picture: bytes) -> None:
    visitor.choose(long_picture, "long.png")
    expect(visitor.page.locator("#busy-text")).to_contain_text("Looking for objects in")
    assert visitor.page.url.endswith(f"#scene={only_job(service)['id']}")
    visitor.page.reload()
    expect(visitor.page.locator("#busy-text")).to_contain_text("Looking for objects in long.png")


def test_a_cancelled_scene_goes_on_when_it_is_tried_again(
    visitor: Visit, service: httpx.Client, long_picture: bytes
) -> None:
    visitor.choose(long_picture)
    expect(visitor.page.locator("#busy-figures")).to_contain_text("tiles")
    visitor.page.click("#cancel")
    expect(visitor.page.locator("#problem-title")).to_have_text("The scene was cancelled")
    assert "tiles are finished and kept" in visitor.text("#problem-detail")
    assert only_job(service)["state"] == "cancelled"
    visitor.page.click("#retry")
    expect(visitor.page.locator("#busy-text")).to_contain_text("Looking for objects")
    assert only_job(service)["state"] == "running"


def test_an_upload_that_is_cancelled_leaves_nothing(visitor: Visit, service: httpx.Client, picture: bytes) -> None:
    visitor.page.route("**/scenes?*", lambda route: None)  # never answered
    visitor.choose(picture)
    expect(visitor.page.locator("#busy-text")).to_have_text(re.compile("Sending scene.png"))
    visitor.page.click("#cancel")
    expect(visitor.page.locator("#busy")).to_be_hidden()
    assert service.get("/scenes").json() == []


def test_a_failed_scene_says_why_and_can_be_tried_again(visit: Open, service: httpx.Client) -> None:
    job = service.post("/scenes", files={"file": ("notes.tif", b"no picture at all" * 100, "image/tiff")}).json()
    wait_until(lambda: only_job(service)["state"] == "failed")
    page = visit(service, f"/#scene={job['id']}")
    expect(page.page.locator("#problem-title")).to_have_text("The scene failed")
    assert page.text("#problem-detail").lower() == only_job(service)["error"].lower()
    with page.page.expect_response(re.compile("/retry")) as answer:
        page.page.click("#retry")
    assert answer.value.status == 202


@pytest.mark.parametrize(
    ("status", "title", "detail"),
    [(429, "Too many scenes are waiting", "8 scenes are waiting"), (507, "Nothing can be kept", "the disk is full")],
)
def test_a_scene_that_is_not_taken_is_told_in_words(
    visitor: Visit, picture: bytes, status: int, title: str, detail: str
) -> None:
    def refuse(route: Route) -> None:
        body = {"type": "urn:heatquery:problem:test", "title": title, "status": status, "detail": detail}
        route.fulfill(status=status, body=json.dumps(body), headers={"Content-Type": "application/problem+json"})

    visitor.page.route("**/scenes?*", refuse)
    visitor.choose(picture)
    expect(visitor.page.locator("#problem-title")).to_have_text(title)
    assert visitor.text("#problem-detail").lower() == detail.lower()


def test_a_scene_that_is_gone_is_told_in_words(visit: Open, service: httpx.Client) -> None:
    page = visit(service, f"/#scene={NO_SCENE}")
    expect(page.page.locator("#problem-title")).to_have_text("No such scene")
    assert page.page.is_visible("#choose")


@pytest.mark.parametrize(
    ("kind", "ending"), [("geojson", "geojson"), ("coco", "coco"), ("csv", "csv"), ("gpkg", "gpkg")]
)
def test_what_is_saved_is_what_is_shown(
    visitor: Visit, service: httpx.Client, picture: bytes, kind: str, ending: str
) -> None:
    visitor.send(picture)
    visitor.set_slider("#threshold", 0.8)
    visitor.page.locator("#legend li", has_text="blue square").locator("input").uncheck()
    query = {"format": kind, "threshold": 0.8, "classes": "red square"}
    assert saved(visitor, kind) == service.get(f"/scenes/{only_job(service)['id']}/result", params=query).content


def test_heat_is_kept_where_it_was_asked_for(visitor: Visit, picture: bytes) -> None:
    visitor.page.check("#keep-heat")
    visitor.send(picture)
    assert saved(visitor, "heat")[:4] == b"II*\0"


def test_heat_that_was_not_kept_is_not_offered(visitor: Visit, picture: bytes) -> None:
    visitor.send(picture)
    assert visitor.page.is_hidden("#scene-downloads [value=heat]")


def test_a_scene_is_listed_opened_and_deleted(visit: Open, service: httpx.Client, picture: bytes) -> None:
    service.post("/scenes", files={"file": ("<b>harbour.png", picture, "image/png")})
    wait_until(lambda: only_job(service)["state"] == "done")
    page = visit(service)
    expect(page.page.locator("#scene-list")).to_contain_text("3 objects")
    page.page.click("#scene-list a:has-text('harbour')")
    expect(page.page.locator("#shown")).to_have_text("3")
    page.page.click("#delete-scene")
    expect(page.page.locator("#empty")).to_be_visible()
    assert service.get("/scenes").json() == []


def test_the_way_back_leads_from_a_scene_to_the_list(visitor: Visit, picture: bytes) -> None:
    visitor.send(picture)
    visitor.page.go_back()
    expect(visitor.page.locator("#scene-list")).to_contain_text("3 objects")
    visitor.page.go_forward()
    expect(visitor.page.locator("#shown")).to_have_text("3")


def test_more_objects_than_can_be_drawn_are_counted(visitor: Visit, service: httpx.Client, picture: bytes) -> None:
    def many(route: Route) -> None:
        answer = route.fetch()
        events = answer.text().replace('"objects":3', '"objects":34567')
        route.fulfill(response=answer, body=events)

    visitor.page.route("**/events?*", many)
    visitor.send(picture)
    assert visitor.text("#found") == "34,567"
    assert "up to 20,000 objects" in visitor.text("#notes")
    assert visitor.page.is_hidden("#threshold")
    assert saved(visitor, "csv").count(b"\n") == 4


def test_a_scene_that_cannot_be_shown_still_has_its_boxes(visitor: Visit, picture: bytes) -> None:
    visitor.page.route("**/preview?*", lambda route: route.fulfill(status=400, body='{"detail": "it is damaged"}'))
    visitor.send(picture)
    assert "it is damaged" in visitor.text("#notes")
    assert visitor.pixels_like(SECOND_COLOR) > 50


def test_a_service_with_keys_gets_them_in_every_call_about_a_scene(
    visit: Open, make_client: Callable[..., httpx.Client], tmp_path: Path, picture: bytes
) -> None:
    key = "a" * 16
    page = visit(make_client(scenes=tmp_path / "scenes", max_pixels=100_000, api_keys=key), wait=False)
    page.page.fill("#key", key)
    page.page.press("#key", "Enter")
    page.page.wait_for_selector("#classes-hint:not([hidden])")
    page.send(picture)
    assert page.text("#shown") == "3"
    assert saved(page, "csv").count(b"\n") == 4


def test_a_whole_visit_with_a_scene_raises_no_complaint(visitor: Visit, picture: bytes) -> None:
    visitor.send(picture)
    saved(visitor, "png")
    refused = [text for text in visitor.complaints if "413" not in text]  # of the one call, which Chromium logs
    assert refused == []


def test_a_phone_shows_a_scene_without_scrolling_sideways(visit: Open, service: httpx.Client, picture: bytes) -> None:
    page = visit(service, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page.send(picture)
    assert page.page.evaluate("document.documentElement.scrollWidth") == 360
