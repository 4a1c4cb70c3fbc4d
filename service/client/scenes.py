"""Scenes, pictures of any size as jobs of the service: what is sent, what comes back, and the files on either side."""

import io
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, TypedDict

import httpx

from service.client.problems import HeatqueryError

SceneFormat = Literal["geojson", "gpkg", "coco", "csv", "heat"]
BytesProgress = Callable[[int, int | None], None]
"""Called with the bytes sent or received so far, and how many there are, or None where that is not known."""


class SceneOptions(TypedDict, total=False):
    """What goes with a scene; what is left out, or None, the service or the model decides."""

    bands: str | None
    """Bands for red, green and blue, from 1: "4,3,2"."""
    scaling: str | None
    """To 8 bits: "auto", "none", two values such as "0,4095", or two percentiles such as "2%,98%"."""
    resolution: str | float | None
    """Ground that a pixel shall show: "model", "file", or centimetres."""
    overlap: int | None
    """Of neighbouring tiles, in pixels that the model sees."""
    heat: bool | None
    """Keep density and heat, to be downloaded as "heat"."""


class SceneResultOptions(TypedDict, total=False):
    """Which objects of a scene; what is left out, or None, the model decides."""

    threshold: float | None
    """Drop objects at or below this score, in every class."""
    classes: str | Iterable[str] | None
    """Only these classes."""


@dataclass(frozen=True)
class Scene:
    """A scene and how far it was when the service was asked.

    Attributes:
        state: queued, reading, running, merging; at the end done, failed or cancelled.
        width, height: in pixels as displayed; 0 before the file was read.
        tiles, tiles_done: how many there are, and how many have a result.
        objects: above the model's thresholds; exact when done.
        megapixels_per_second, eta_seconds: while it runs.
        heat: whether density and heat are kept.
        notes: what the service did to the picture that one may not expect.
        error: why it failed.
        document: the whole answer.
    """

    id: str
    name: str
    state: str
    width: int
    height: int
    tiles: int
    tiles_done: int
    objects: int
    megapixels_per_second: float | None
    eta_seconds: float | None
    heat: bool
    notes: tuple[str, ...]
    error: str | None
    document: dict[str, Any]

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Scene":
        """Read the JSON of GET /scenes/{id}."""
        return cls(
            id=document["id"],
            name=document["name"],
            state=document["state"],
            width=document["width"],
            height=document["height"],
            tiles=document["tiles"]["total"],
            tiles_done=document["tiles"]["done"],
            objects=document["objects"],
            megapixels_per_second=document["megapixels_per_second"],
            eta_seconds=document["eta_seconds"],
            heat=document["heat"],
            notes=tuple(document["notes"]),
            error=document["error"],
            document=document,
        )


class SceneFailedError(HeatqueryError):
    """A scene failed, or was cancelled, while it was waited for; `retry_scene` goes on from its last finished tile."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(f"scene {scene.name} {'failed' if scene.error else 'was cancelled'}: {_reason(scene)}")
        self.scene = scene


def _reason(scene: Scene) -> str:
    return scene.error or f"{scene.tiles_done:,} of {scene.tiles:,} tiles are finished"


def is_done(scene: Scene) -> bool:
    """Whether it is done. Raises SceneFailedError where it never will be by itself."""
    if scene.state in ("failed", "cancelled"):
        raise SceneFailedError(scene)
    return scene.state == "done"


class SceneFile(io.FileIO):
    """A file that is sent in pieces and tells how far it is; a second try begins at its beginning."""

    def __init__(self, path: str | os.PathLike[str], progress: BytesProgress | None) -> None:
        super().__init__(os.fspath(path))
        self._progress = progress
        self._total = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """A piece of the file."""
        data = super().read(-1 if size is None else size) or b""
        if self._progress is not None and data:
            self._progress(self.tell(), self._total)
        return data


class Download:
    """A file that appears under its name when it is whole; used with `with`."""

    def __init__(self, path: str | os.PathLike[str], progress: BytesProgress | None) -> None:
        self.path = Path(path)
        self._part = self.path.with_name(f"{self.path.name}.part")
        self._progress = progress
        self._file: BinaryIO = self._part.open("wb")
        self._total: int | None = None

    def __enter__(self) -> "Download":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None:
            self._part.replace(self.path)
        else:
            with suppress(OSError):
                self._part.unlink()

    def begin(self, response: httpx.Response) -> None:
        """Before the first piece of an answer: what another try had written goes."""
        self._file.seek(0)
        self._file.truncate()
        length = response.headers.get("Content-Length", "")
        self._total = int(length) if length.isdecimal() else None

    def write(self, data: bytes) -> None:
        """The next piece."""
        self._file.write(data)
        if self._progress is not None:
            self._progress(self._file.tell(), self._total)
