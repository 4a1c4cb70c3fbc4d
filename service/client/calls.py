"""Each call as a value: what is sent, and how its answer is read. Both clients carry out the same ones."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypedDict, TypeVar

import httpx

from service.client.pictures import Picture, read_picture
from service.client.problems import UnexpectedAnswerError
from service.client.results import Detections, Document, HeatValues, ImageId, ModelInfo
from service.client.retries import Repeats
from service.client.scenes import Download, Scene, SceneFile, SceneFormat, SceneOptions, SceneResultOptions

DetectFormat = Literal["json", "geojson", "coco", "supervision", "labelstudio", "yolo"]
ImageFormat = Literal["png", "webp"]
HeatKind = Literal["mixed", "class", "bbox", "density", "mask"]
T = TypeVar("T")
_BYTES = "application/octet-stream"
_AGAIN = Repeats()
_ONCE = Repeats(if_broken=False)
_ASK_AGAIN = Repeats(statuses=(429, 503, 504))  # what is made of a large scene may take longer than one call


class DetectOptions(TypedDict, total=False):
    """What POST /detect may be asked for; what is left out, or None, the service or the model decides."""

    threshold: float | None
    """Drop detections at or below this score, in every class."""
    max_detections: int | None
    """Longest list of detections."""
    classes: str | Iterable[str] | None
    """Only these classes."""
    tile: int | Literal["auto", "off"] | None
    """Side in pixels of the tiles that a large picture is cut into, or "auto" or "off"."""


class HeatOptions(TypedDict, total=False):
    """Which heat; what is left out, or None, the service decides."""

    kind: HeatKind | None
    """What the class head sees, what the box head sees, their mix, objects per cell, or the mask of hot cells."""
    class_name: str | None
    """The heat of this class alone."""
    level: int | None
    """One feature level, 0 the finest; else the maximum of all."""
    tile: int | Literal["auto", "off"] | None
    """As for detections; with a picture, not with an image id."""


class DrawOptions(HeatOptions, total=False):
    """Which heat, and how it is drawn."""

    opacity: float | None
    """Share of colour where it is hot, from 0 to 1."""
    colormap: str | None
    """Name of the colours."""
    legend: bool | None
    """Add a heat bar below the picture."""
    boxes: bool | None
    """Draw the detections too."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """One call of the service; `read` turns its answer into the result.

    Attributes:
        file: sent as the part `file` of a form.
        download: takes the body of an answer that is no error, as it comes.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    read: Callable[[httpx.Response], T]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    file: SceneFile | None = None
    download: Download | None = None
    repeats: Repeats = _AGAIN

    def request(self, client: httpx.Client | httpx.AsyncClient, timeout: float) -> httpx.Request:
        """The request of one try; the service finds out the image type from the content."""
        return client.build_request(
            self.method,
            self.path,
            params=self.parameters,
            content=self.content,
            files=None if self.file is None else {"file": (Path(str(self.file.name)).name, self.file, _BYTES)},
            headers={} if self.content is None else {"Content-Type": _BYTES},
            timeout=timeout,
        )

    def result(self, response: httpx.Response) -> T:
        """Read the answer.

        Raises:
            UnexpectedAnswerError: it is no answer of this service.
        """
        try:
            return self.read(response)
        except (ValueError, KeyError, TypeError) as error:
            kind = response.headers.get("Content-Type", "without a type")
            raise UnexpectedAnswerError(
                f"{self.method} {response.url} answered {response.status_code}, {kind}, and not as heatquery does "
                f"({error!r}); is this the address of a heatquery service?"
            ) from error


def ready_call() -> Call[None]:
    """GET /readyz."""
    return Call("GET", "/readyz", _check_ready)


def detect_call(picture: Picture, options: DetectOptions) -> Call[Detections]:
    """POST /detect."""
    return Call("POST", "/detect", _detections, _given(options), read_picture(picture))


def detect_format_call(picture: Picture, kind: DetectFormat, options: DetectOptions) -> Call[Document]:
    """POST /detect in another program's format."""
    return Call("POST", "/detect", _document, {**_given(options), "format": kind}, read_picture(picture))


def heatmap_call(picture: Picture | ImageId, kind: ImageFormat, options: DrawOptions) -> Call[bytes]:
    """GET or POST /heatmap as a picture."""
    return _heat_call(picture, {**_given(options), "format": kind}, _image)


def heat_values_call(picture: Picture | ImageId, options: HeatOptions) -> Call[HeatValues]:
    """GET or POST /heatmap as numbers."""
    return _heat_call(picture, {**_given(options), "format": "json"}, _heat_values)


def models_call() -> Call[list[ModelInfo]]:
    """GET /models."""
    return Call("GET", "/models", lambda response: [ModelInfo.from_document(entry) for entry in response.json()])


def submit_scene_call(file: SceneFile, options: SceneOptions) -> Call[Scene]:
    """POST /scenes; once it may have been taken, it is not sent again."""
    return Call("POST", "/scenes", _scene, _given(options), file=file, repeats=_ONCE)


def scene_call(scene_id: str) -> Call[Scene]:
    """GET /scenes/{id}."""
    return Call("GET", f"/scenes/{scene_id}", _scene)


def scenes_call() -> Call[list[Scene]]:
    """GET /scenes."""
    return Call("GET", "/scenes", lambda response: [Scene.from_document(entry) for entry in response.json()])


def download_scene_call(
    scene_id: str, kind: SceneFormat, options: SceneResultOptions, download: Download
) -> Call[None]:
    """GET /scenes/{id}/result, or its heat."""
    if kind == "heat":
        path, parameters = f"/scenes/{scene_id}/heat.tif", {}
    else:
        path, parameters = f"/scenes/{scene_id}/result", {**_given(options), "format": kind}
    return Call("GET", path, _nothing, parameters, download=download, repeats=_ASK_AGAIN)


def cancel_scene_call(scene_id: str) -> Call[Scene]:
    """POST /scenes/{id}/cancel."""
    return Call("POST", f"/scenes/{scene_id}/cancel", _scene, repeats=_ONCE)


def retry_scene_call(scene_id: str) -> Call[Scene]:
    """POST /scenes/{id}/retry."""
    return Call("POST", f"/scenes/{scene_id}/retry", _scene, repeats=_ONCE)


def delete_scene_call(scene_id: str) -> Call[None]:
    """DELETE /scenes/{id}; a second one would delete what the first has cancelled."""
    return Call("DELETE", f"/scenes/{scene_id}", _nothing, repeats=_ONCE)


def _heat_call(
    picture: Picture | ImageId, parameters: Mapping[str, Any], read: Callable[[httpx.Response], T]
) -> Call[T]:
    if isinstance(picture, ImageId):
        return Call("GET", "/heatmap", read, {**parameters, "image_id": str(picture)})
    return Call("POST", "/heatmap", read, parameters, read_picture(picture))


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as a query, without those that are None; httpx repeats a parameter for a list."""
    given = {name: value for name, value in options.items() if value is not None}
    if not isinstance(given.get("classes", ""), str):
        given["classes"] = list(given["classes"])
    return given


def _scene(response: httpx.Response) -> Scene:
    return Scene.from_document(response.json())


def _nothing(response: httpx.Response) -> None:
    """The status has said it all, or the body is in a file."""


def _check_ready(response: httpx.Response) -> None:
    if response.json()["status"] != "ready":
        raise ValueError("not ready, yet no error")


def _image(response: httpx.Response) -> bytes:
    if not response.headers["Content-Type"].startswith("image/"):
        raise ValueError("not an image")
    return response.content


def _detections(response: httpx.Response) -> Detections:
    return Detections.from_document(response.json())


def _heat_values(response: httpx.Response) -> HeatValues:
    return HeatValues.from_document(response.json())


def _document(response: httpx.Response) -> Document:
    return Document(response.content, response.headers["Content-Type"])
