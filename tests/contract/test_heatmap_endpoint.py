"""GET and POST /heatmap: heat lies where the object is, in every format."""

from collections.abc import Callable
from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image

Scene = Callable[..., Image.Image]
Encode = Callable[..., bytes]


def drawn(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(BytesIO(answer.content)).convert("RGB")).astype(int)


def changed_centre(client: httpx.Client, scene: bytes, **query: object) -> tuple[float, float]:
    """Centre (x, y) of where heat was drawn: the mean position, weighed by how far the picture changed."""
    parameters: dict = {"legend": False, **query}
    picture = np.asarray(Image.open(BytesIO(scene)).convert("RGB")).astype(int)
    change = np.abs(drawn(client.post("/heatmap", files={"file": scene}, params=parameters)) - picture).sum(axis=2)
    rows, columns = np.indices(change.shape)
    return float((columns * change).sum() / change.sum() + 0.5), float((rows * change).sum() / change.sum() + 0.5)


def image_id(client: httpx.Client, scene: bytes) -> str:
    return client.post("/detect", files={"file": scene}).json()["image_id"]


@pytest.mark.parametrize(("x", "y"), [(32, 32), (64, 64), (192, 128), (224, 32)])
@pytest.mark.parametrize("kind", ["mixed", "class", "bbox", "density", "mask"])
def test_heat_lies_on_the_object_and_shifts_with_it(
    client: httpx.Client, draw_scene: Scene, encode: Encode, kind: str, x: int, y: int
) -> None:
    scene = encode(draw_scene(320, 240, (x, y, 64, "red")))
    assert changed_centre(client, scene, kind=kind, level=0) == pytest.approx((x + 32, y + 32), abs=4)


@pytest.mark.parametrize(("width", "height"), [(311, 97), (97, 311), (640, 201)])
def test_heat_lies_on_the_object_in_odd_sizes(
    client: httpx.Client, draw_scene: Scene, encode: Encode, width: int, height: int
) -> None:
    side = max(width, height) // 10
    scene = encode(draw_scene(width, height, (side, side, side, "red")))
    assert changed_centre(client, scene, level=0) == pytest.approx((1.5 * side, 1.5 * side), abs=2)


def test_class_heat_shows_that_class_alone(client: httpx.Client, scene_png: bytes) -> None:
    assert changed_centre(client, scene_png, class_name="blue square") == pytest.approx((224, 160), abs=4)


def test_a_stored_heat_map_equals_the_one_drawn_at_once(client: httpx.Client, scene_png: bytes) -> None:
    stored = client.get("/heatmap", params={"image_id": image_id(client, scene_png)})
    now = client.post("/heatmap", files={"file": scene_png})
    assert stored.content == now.content
    assert stored.headers["content-type"] == "image/png"
    assert stored.headers["x-image-id"] == now.headers["x-image-id"]


def test_the_picture_keeps_its_size_and_the_legend_lies_below(client: httpx.Client, scene_png: bytes) -> None:
    with_legend = drawn(client.post("/heatmap", files={"file": scene_png}))
    without = drawn(client.post("/heatmap?legend=false", files={"file": scene_png}))
    assert without.shape == (240, 320, 3)
    assert with_legend.shape[0] > 240
    assert np.array_equal(with_legend[:240, :320], without)


def test_a_large_picture_is_drawn_smaller(make_client: Callable[..., httpx.Client], scene_png: bytes) -> None:
    client = make_client(view_side=64)
    assert drawn(client.post("/heatmap?legend=false", files={"file": scene_png})).shape == (48, 64, 3)


def test_boxes_are_drawn_where_they_are(client: httpx.Client, scene_png: bytes) -> None:
    plain = drawn(client.post("/heatmap?legend=false", files={"file": scene_png}))
    boxed = drawn(client.post("/heatmap?legend=false&boxes=true", files={"file": scene_png}))
    assert (boxed[127, 64:128] == 255).all()
    assert np.array_equal(plain[180:, :180], boxed[180:, :180])


def test_without_opacity_the_picture_is_untouched(client: httpx.Client, scene_png: bytes) -> None:
    picture = np.asarray(Image.open(BytesIO(scene_png)))
    assert np.array_equal(drawn(client.post("/heatmap?opacity=0&legend=false", files={"file": scene_png})), picture)


@pytest.mark.parametrize("colormap", ["turbo", "inferno", "viridis"])
def test_webp_is_written_in_each_colormap(client: httpx.Client, scene_png: bytes, colormap: str) -> None:
    answer = client.post(f"/heatmap?format=webp&colormap={colormap}", files={"file": scene_png})
    assert Image.open(BytesIO(answer.content)).format == "WEBP"


def test_json_gives_the_raw_cells_and_their_place(client: httpx.Client, scene_png: bytes) -> None:
    body = client.post("/heatmap?format=json&level=2&class_name=red+square", files={"file": scene_png}).json()
    values = np.array(body["values"])
    assert values.shape == (4, 5)
    row, column = np.unravel_index(values.argmax(), values.shape)
    a, b, c, d, e, f = body["affine"]
    x, y = a * (column + 0.5) + b * (row + 0.5) + c, d * (column + 0.5) + e * (row + 0.5) + f
    assert (x, y) == (96, 96)


def test_npy_gives_the_raw_cells_and_their_place(client: httpx.Client, scene_png: bytes) -> None:
    answer = client.post("/heatmap?format=npy&kind=density", files={"file": scene_png})
    values = np.load(BytesIO(answer.content), allow_pickle=False)
    assert values.shape == (15, 20)
    assert values.sum() == pytest.approx(2, abs=0.1)
    assert answer.headers["x-heatmap-affine"] == "16,0,0,0,16,0"


@pytest.mark.parametrize("name", ["0" * 32, "../../etc/passwd", "x", "0" * 10_000])
def test_an_unknown_image_id_is_404(client: httpx.Client, name: str) -> None:
    answer = client.get("/heatmap", params={"image_id": name})
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:heatquery:problem:unknown-image")


def test_an_expired_image_id_is_404(make_client: Callable[..., httpx.Client], scene_png: bytes) -> None:
    client = make_client(heat_ttl_seconds=1e-6)
    assert client.get("/heatmap", params={"image_id": image_id(client, scene_png)}).status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "kind=hot",
        "level=3",
        "level=-1",
        "kind=density&level=1",
        "class_name=red",
        "kind=mask&class_name=red+square",
        "opacity=nan",
        "opacity=1.1",
        "colormap=jet",
        "format=tiff",
        "legend=maybe",
        "colour=red",
    ],
)
def test_a_wrong_parameter_is_refused(client: httpx.Client, scene_png: bytes, query: str) -> None:
    answer = client.post(f"/heatmap?{query}", files={"file": scene_png})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


def test_a_missing_image_id_is_refused(client: httpx.Client) -> None:
    assert client.get("/heatmap").json()["errors"][0]["parameter"] == "image_id"


def test_who_has_the_heat_map_does_not_get_it_again(client: httpx.Client, scene_png: bytes) -> None:
    query = {"image_id": image_id(client, scene_png)}
    first = client.get("/heatmap", params=query)
    again = client.get("/heatmap", params=query, headers={"If-None-Match": f'W/"old", {first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"


def test_another_drawing_has_another_etag(client: httpx.Client, scene_png: bytes) -> None:
    query = {"image_id": image_id(client, scene_png)}
    changes = [{}, {"opacity": 0.5}, {"kind": "density"}, {"format": "webp"}, {"boxes": True}]
    etags = {client.get("/heatmap", params={**query, **change}).headers["etag"] for change in changes}
    assert len(etags) == len(changes)


def test_the_same_picture_sent_again_without_tiles_has_another_etag(
    client: httpx.Client, draw_scene: Scene, encode: Encode
) -> None:
    scene = encode(draw_scene(640, 480, (64, 64, 64, "red")))
    query = {"image_id": image_id(client, scene)}
    tiled = client.get("/heatmap", params=query)
    client.post("/detect?tile=off", files={"file": scene})
    whole = client.get("/heatmap", params=query, headers={"If-None-Match": tiled.headers["etag"]})
    assert whole.status_code == 200


def test_an_unknown_id_is_404_even_for_who_has_the_heat_map(make_client: Callable[..., httpx.Client]) -> None:
    answer = make_client().get("/heatmap", params={"image_id": "0" * 32}, headers={"If-None-Match": '"x"'})
    assert answer.status_code == 404


@pytest.mark.parametrize("format", ["png", "webp"])
def test_a_plain_view_is_the_picture(client: httpx.Client, scene_png: bytes, format: str) -> None:
    query = {"image_id": image_id(client, scene_png), "opacity": 0, "legend": False, "format": format}
    picture = np.asarray(Image.open(BytesIO(scene_png))).astype(int)
    assert np.abs(drawn(client.get("/heatmap", params=query)) - picture).mean() < 1.5


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("kind", ["mixed", "class", "bbox", "mask"])
def test_each_level_of_each_kind_has_its_own_cells(
    client: httpx.Client, scene_png: bytes, kind: str, level: int
) -> None:
    query = {"image_id": image_id(client, scene_png), "kind": kind, "level": level, "format": "json"}
    body = client.get("/heatmap", params=query).json()
    stride = 8 * 2**level
    assert (body["stride"], len(body["values"]), len(body["values"][0])) == (stride, -(-120 // stride), 160 // stride)
    assert str(level) in body["title"]


def test_colormaps_draw_differently(client: httpx.Client, scene_png: bytes) -> None:
    query = {"image_id": image_id(client, scene_png)}
    names = ("turbo", "inferno", "viridis")
    assert len({client.get("/heatmap", params={**query, "colormap": name}).content for name in names}) == 3


def test_npy_and_json_say_the_same(client: httpx.Client, scene_png: bytes) -> None:
    query = {"image_id": image_id(client, scene_png), "kind": "bbox"}
    values = np.load(BytesIO(client.get("/heatmap", params={**query, "format": "npy"}).content), allow_pickle=False)
    body = client.get("/heatmap", params={**query, "format": "json"}).json()
    assert values.dtype == np.float32
    assert np.abs(values - np.array(body["values"])).max() < 1e-6
