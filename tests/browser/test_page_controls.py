"""The page in a real browser: what its controls do with an answer, and that they ask for nothing new."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from visiting import Visit

FIRST_COLOR = (0xFF, 0x4D, 0x5E)

Open = Callable[..., Visit]


@pytest.fixture
def page(visit: Open, scores_png: bytes) -> Visit:
    """The page with an answer in it: scores of about 1, 1, 0.6 and 0.2."""
    page = visit()
    page.send(scores_png)
    return page


def choose_heat(page: Visit, kind: str) -> None:
    page.page.click(f"label:has(input[name=kind][value='{kind}'])")
    if kind:
        expect(page.page.locator("#status")).to_contain_text(f"Showing {kind} heat")


def saved(page: Visit, button: str) -> Any:
    """The document behind a download button."""
    with page.page.expect_download() as download:
        page.page.click(button)
    return json.loads(download.value.path().read_bytes())


def zoom(page: Visit) -> int:
    page.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return int(page.text("#zoom").removesuffix(" %"))


def test_the_slider_starts_at_the_threshold_of_the_model(page: Visit) -> None:
    assert page.page.input_value("#threshold") == "0.3"


@pytest.mark.parametrize(("threshold", "count"), [(0.05, 4), (0.3, 3), (0.8, 2)])
def test_the_slider_changes_the_detections_without_a_call(page: Visit, threshold: float, count: int) -> None:
    calls = len(page.requests)
    page.set_slider("#threshold", threshold)
    assert page.text("#shown") == str(count)
    assert page.page.locator("#list li:visible").count() == count
    assert len(page.requests) == calls


def test_the_threshold_of_the_model_can_be_had_back(page: Visit) -> None:
    page.set_slider("#threshold", 0.8)
    page.page.click("#own-threshold")
    assert page.text("#shown") == "3"


def test_a_class_can_be_hidden_and_is_still_counted(page: Visit) -> None:
    line = page.page.locator("#legend li", has_text="red square")
    line.locator("input").uncheck()
    assert page.text("#shown") == "1"
    assert "2" in line.inner_text()
    assert page.pixels_like(FIRST_COLOR) == 0


def test_counts_and_times_of_the_answer_are_shown(page: Visit, client: httpx.Client, scores_png: bytes) -> None:
    answer = client.post("/detect", files={"file": scores_png}).json()
    assert page.text("#queries") == str(answer["query_count"])
    assert float(page.text("#estimated")) == pytest.approx(answer["estimated_count"], abs=0.06)
    assert "encode" in (page.page.text_content("#timing") or "")
    assert "toy 1" in (page.page.text_content("#facts") or "")


@pytest.mark.parametrize("kind", ["mixed", "class", "bbox", "density", "mask"])
def test_heat_is_drawn_where_the_object_is(page: Visit, kind: str) -> None:
    page.page.uncheck("#labels")
    before = page.pixels_like((255, 0, 0))
    choose_heat(page, kind)
    page.set_slider("#opacity", 1)
    assert page.pixels_like((255, 0, 0)) < before / 2


def test_a_layer_is_fetched_once_and_opacity_and_colours_never(page: Visit) -> None:
    choose_heat(page, "mixed")
    plain = page.pixels_like((90, 90, 90))
    page.set_slider("#opacity", 0.1)
    page.page.select_option("#colormap", "viridis")
    choose_heat(page, "")
    choose_heat(page, "mixed")
    assert page.calls("/heatmap") == 1
    assert page.pixels_like((90, 90, 90)) >= plain


def test_the_heat_of_one_class_leaves_the_others_cold(page: Visit) -> None:
    page.page.uncheck("#labels")
    red = page.pixels_like((255, 0, 0))
    choose_heat(page, "class")
    page.set_slider("#opacity", 1)
    page.page.select_option("#heat-class", "blue square")
    expect(page.page.locator("#status")).to_contain_text("blue square")
    assert page.pixels_like((255, 0, 0)) == pytest.approx(red, rel=0.05)
    assert page.pixels_like((0, 0, 255)) < 100


@pytest.mark.parametrize(
    ("button", "kind"), [("#save-json", "json"), ("#save-geojson", "geojson"), ("#save-coco", "coco")]
)
def test_what_is_saved_is_what_the_service_answers_at_that_threshold(
    page: Visit, client: httpx.Client, scores_png: bytes, button: str, kind: str
) -> None:
    page.set_slider("#threshold", 0.5)
    query = {"format": kind, "threshold": 0.5}
    expected = client.post("/detect", params=query, files={"file": scores_png}).json()
    document = saved(page, button)
    for answer in (expected, document):
        answer.pop("timing_ms", None)
    if kind == "coco":
        assert document["images"][0].pop("file_name") == "scene.png"  # which the service cannot know
        expected["images"][0].pop("file_name")
    assert document == expected


def test_a_hidden_class_is_not_saved(page: Visit) -> None:
    page.page.locator("#legend li", has_text="red square").locator("input").uncheck()
    assert {item["label"] for item in saved(page, "#save-json")["detections"]} == {"blue square"}


def test_keys_zoom_move_and_fit(page: Visit) -> None:
    page.page.focus("#canvas")
    fitted = zoom(page)
    page.page.keyboard.press("+")
    assert zoom(page) > fitted
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("-")
    page.page.keyboard.press("-")
    assert zoom(page) < fitted
    page.page.keyboard.press("0")
    assert zoom(page) == fitted


def test_the_wheel_zooms_where_the_pointer_is(page: Visit) -> None:
    fitted = zoom(page)
    page.page.hover("#canvas")
    page.page.mouse.wheel(0, -400)
    page.page.wait_for_function(f"parseInt(document.getElementById('zoom').textContent) > {fitted}")


def test_a_click_on_a_box_says_what_it_is(page: Visit) -> None:
    bounds = page.page.locator("#canvas").bounding_box()
    assert bounds is not None
    scale = zoom(page) / 100
    x = bounds["x"] + bounds["width"] / 2 + (224 - 160) * scale  # the centre of the blue square, from the picture's
    y = bounds["y"] + bounds["height"] / 2 + (160 - 120) * scale
    page.page.mouse.click(x, y)
    assert page.text("#selected-label") == "blue square"
    assert page.text("#selected-size").endswith("px at 224, 160")
    page.page.keyboard.press("Escape")
    assert page.page.is_hidden("#selected")


def test_the_list_is_walked_by_keys(page: Visit) -> None:
    fitted = zoom(page)
    page.page.focus("#list")
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("End")
    assert page.page.get_attribute("#list", "aria-activedescendant") == "detection-2"
    assert page.page.get_attribute("#detection-2", "aria-selected") == "true"
    assert page.text("#selected-score") == page.text("#detection-2 .score")
    page.page.keyboard.press("Enter")
    assert zoom(page) != fitted


def test_a_new_answer_is_announced(page: Visit) -> None:
    expect(page.page.locator("#status")).to_contain_text("3 objects found")
    assert page.page.get_attribute("#status", "aria-live") == "polite"


def test_all_controls_can_be_reached_by_tab(page: Visit) -> None:
    page.page.focus("#choose-another")
    reached = set()
    for _ in range(30):
        page.page.keyboard.press("Tab")
        reached.add(page.page.evaluate("document.activeElement.id || document.activeElement.name"))
    wanted = {"canvas", "zoom-in", "zoom-out", "fit", "threshold", "labels", "kind", "list", "save-json", "save-png"}
    assert wanted <= reached


@pytest.mark.parametrize("width", [360, 390])
def test_a_phone_scrolls_in_one_direction_only(visit: Open, scores_png: bytes, width: int) -> None:
    page = visit(viewport={"width": width, "height": 780}, has_touch=True, is_mobile=True)
    page.send(scores_png)
    choose_heat(page, "class")
    for summary in page.page.locator("summary").all():
        summary.click()
    assert page.page.evaluate("document.documentElement.scrollWidth") == width


def test_on_a_phone_whatever_is_tapped_is_large_enough(visit: Open, scores_png: bytes) -> None:
    page = visit(viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True)
    page.send(scores_png)
    choose_heat(page, "class")
    small = page.page.evaluate(
        """() => [...document.querySelectorAll("button, select, label:has(input), summary, [role=option]")]
            .map((node) => [node.id || node.textContent.trim(), node.getBoundingClientRect()])
            .filter(([, box]) => box.width > 0 && (box.height < 40 || box.width < 32))
            .map(([name, box]) => `${name}: ${box.width} x ${box.height}`)"""
    )
    assert small == []
