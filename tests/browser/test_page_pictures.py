"""The page in a real browser: ways in, what is drawn, and what is said when something goes wrong."""

import base64
import json
import re
from collections.abc import Callable
from io import BytesIO
from urllib.parse import urlsplit

import httpx
from PIL import Image
from playwright.sync_api import Route, expect

from visiting import Visit

FIRST_COLOR, SECOND_COLOR = (0xFF, 0x4D, 0x5E), (0x2F, 0xB8, 0xFF)

Open = Callable[..., Visit]
Scene = Callable[..., Image.Image]
Encode = Callable[..., bytes]


def transfer(visit: Visit, data: bytes, event: str) -> None:
    """Drop or paste a picture, with the events that a browser makes of it."""
    visit.page.evaluate(
        """([content, event]) => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "scene.png", { type: "image/png" }));
            const options = { bubbles: true, cancelable: true };
            document.body.dispatchEvent(event === "paste"
                ? new ClipboardEvent("paste", { ...options, clipboardData: data })
                : new DragEvent("drop", { ...options, dataTransfer: data }));
        }""",
        [base64.b64encode(data).decode(), event],
    )


def problem(route: Route, status: int, title: str, detail: str, **headers: str) -> None:
    """Answer a call of the page as the service would."""
    body = json.dumps({"type": "urn:heatquery:problem:test", "title": title, "status": status, "detail": detail})
    route.fulfill(status=status, body=body, headers={"Content-Type": "application/problem+json", **headers})


def test_a_picture_from_the_file_dialog_gets_boxes_in_colours_of_classes(visit: Open, scores_png: bytes) -> None:
    page = visit()
    with page.page.expect_file_chooser() as chooser:
        page.page.click("#choose")
    chooser.value.set_files({"name": "scene.png", "mimeType": "image/png", "buffer": scores_png})
    expect(page.page.locator("#shown")).to_have_text("3")
    assert page.pixels_like(FIRST_COLOR) > 200
    assert page.pixels_like(SECOND_COLOR) > 100


def test_a_box_is_drawn_around_its_object(visit: Open, scores_png: bytes) -> None:
    page = visit()
    page.send(scores_png)
    page.page.click("#list li >> nth=0")  # brings the object to the middle of the canvas
    page.page.uncheck("#labels")
    middle = page.page.evaluate(
        """() => {
            const canvas = document.getElementById("canvas");
            return [...canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data];
        }"""
    )
    assert middle in ([255, 0, 0, 255], [0, 0, 255, 255])


def test_a_picture_can_be_dropped_anywhere(visit: Open, scores_png: bytes) -> None:
    page = visit()
    transfer(page, scores_png, "drop")
    expect(page.page.locator("#shown")).to_have_text("3")


def test_a_picture_can_be_pasted(visit: Open, scores_png: bytes) -> None:
    page = visit()
    transfer(page, scores_png, "paste")
    expect(page.page.locator("#shown")).to_have_text("3")


def test_a_second_picture_takes_the_place_of_the_first(
    visit: Open, scores_png: bytes, draw_scene: Scene, encode: Encode
) -> None:
    page = visit()
    page.send(scores_png)
    page.send(encode(draw_scene(320, 240)))
    assert page.text("#shown") == "0"
    assert page.pixels_like(FIRST_COLOR) == 0


def test_boxes_lie_on_a_picture_that_exif_turns(visit: Open, draw_scene: Scene, encode: Encode) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise: stored (x, y) is shown at (height - y, x)
    page = visit()
    page.send(encode(draw_scene(320, 240, (0, 48, 64, "red")), "JPEG", quality=95, exif=exif), "turned.jpg")
    facts = page.page.text_content("#facts") or ""
    assert re.search(r"240 . 320 px", facts)
    page.page.click("#list li")
    assert "at 160, 32" in page.text("#selected-size")
    assert page.pixels_like((254, 0, 0)) > 1000, "the square is not where its box was brought to"
    assert page.calls("/heatmap") == 0, "the browser's own picture should do"


def test_a_tiff_is_shown_as_the_service_sees_it(visit: Open, draw_scene: Scene, encode: Encode) -> None:
    page = visit()
    page.send(encode(draw_scene(320, 240, (64, 64, 64, "red")), "TIFF"), "scene.tif")
    assert "service's view" in page.text("#notes")
    assert page.pixels_like((255, 0, 0)) + page.pixels_like((254, 0, 0)) > 1000
    assert page.text("#shown") == "1"


def test_a_text_file_is_refused_with_the_reason(visit: Open) -> None:
    page = visit()
    page.choose(b"no picture at all", "notes.txt")
    expect(page.page.locator("#problem-title")).to_have_text("Not a supported image type")
    assert "JPEG" in page.text("#problem-detail")
    assert page.page.is_hidden("#retry")
    assert page.page.is_visible("#choose")


def test_a_busy_service_is_asked_again_after_the_time_it_named(visit: Open, scores_png: bytes) -> None:
    page = visit()
    full = "16 calls are waiting"
    page.page.route("**/detect?*", lambda route: problem(route, 429, "Too many", full, **{"Retry-After": "1"}), times=1)
    page.choose(scores_png)
    expect(page.page.locator("#problem-detail")).to_have_text(full)
    assert page.page.is_disabled("#retry")
    page.page.click("#retry")  # waits until it can be clicked
    expect(page.page.locator("#shown")).to_have_text("3")
    assert page.page.is_hidden("#problem")


def test_a_service_that_wants_a_key_gets_it_from_then_on(visit: Open, scores_png: bytes) -> None:
    def gate(route: Route) -> None:
        if route.request.headers.get("x-api-key") == "a secret":
            route.continue_()
        else:
            problem(route, 401, "An API key is needed", "send X-API-Key", **{"WWW-Authenticate": "Bearer"})

    page = visit()
    page.page.route("**/detect?*", gate)
    page.choose(scores_png)
    page.page.fill("#key", "a secret")
    page.page.press("#key", "Enter")
    expect(page.page.locator("#shown")).to_have_text("3")
    assert page.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_sending_can_be_cancelled(visit: Open, scores_png: bytes) -> None:
    page = visit()
    page.page.route("**/detect?*", lambda route: None)  # never answered
    page.choose(scores_png)
    page.page.click("#cancel")
    expect(page.page.locator("#busy")).to_be_hidden()
    assert page.page.is_hidden("#problem")


def test_words_from_outside_stay_words(visit: Open, scores_png: bytes) -> None:
    page = visit()
    name = "<img src=x onerror=alert(1)>.png"

    def answer(route: Route) -> None:
        answer = route.fetch()
        body = answer.json() | {"notes": [name]}
        body["detections"] = [item | {"label": name} for item in body["detections"]]
        route.fulfill(response=answer, json=body)

    page.page.route("**/detect?*", answer)
    page.send(scores_png, name)
    assert page.text("#notes") == name
    assert name in page.text("#legend")
    assert page.page.locator("main img").count() == 0


def test_a_whole_visit_raises_no_complaint_and_leaves_the_origin_never(
    visit: Open, client: httpx.Client, scores_png: bytes
) -> None:
    page = visit()
    page.send(scores_png)
    for kind in ("mixed", "density"):
        page.page.click(f"label:has(input[value={kind}])")
        expect(page.page.locator("#status")).to_contain_text(f"Showing {kind} heat")
    page.page.keyboard.press("Tab")
    with page.page.expect_download():
        page.page.click("#save-png")
    assert page.complaints == []
    origins = {urlsplit(request.url)[:2] for request in page.requests if not request.url.startswith("blob:")}
    assert origins == {("http", urlsplit(str(client.base_url)).netloc)}


def test_the_picture_is_saved_with_its_boxes_at_its_own_size(visit: Open, scores_png: bytes) -> None:
    page = visit()
    page.send(scores_png)
    with page.page.expect_download() as download:
        page.page.click("#save-png")
    saved = Image.open(BytesIO(download.value.path().read_bytes())).convert("RGB")
    assert saved.size == (320, 240)
    assert FIRST_COLOR in {color for _, color in saved.getcolors(1 << 20) or []}
    assert download.value.suggested_filename == "scene.boxes.png"
