"""What calls return. Fields that a newer service adds are left out, never an error."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class ImageId(str):
    """Name of a picture that the service has seen; a type of its own, because a plain `str` is a path."""


@dataclass(frozen=True)
class ModelName:
    """Which model gave an answer; the sha256 is of its model.json."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Detection:
    """One object; the box is x1, y1, x2, y2 in pixels of the picture as displayed."""

    box: tuple[float, float, float, float]
    score: float
    label: str
    class_id: int


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects of one picture, best first: as arrays, and one by one when iterated.

    Attributes:
        image_id: name of the picture for `heatmap`, as long as the service keeps it.
        width, height: of the picture as displayed, EXIF orientation applied, in pixels.
        model: which model answered.
        query_count: decoder queries spent on the picture.
        estimated_count: objects in the picture, by the density map.
        boxes: (N, 4) x1, y1, x2, y2 in pixels of the picture as displayed.
        scores: (N,) from 0 to 1.
        class_ids: (N,) indices into the model's classes.
        labels: N class names.
        timing_ms: where the service spent its time.
        notes: what the service did to the picture that one may not expect.
        document: the whole answer.
    """

    image_id: ImageId
    width: int
    height: int
    model: ModelName
    query_count: int
    estimated_count: float
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    class_ids: NDArray[np.int64]
    labels: tuple[str, ...]
    timing_ms: dict[str, float]
    notes: tuple[str, ...]
    document: dict[str, Any]

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Detections":
        """Read the JSON of POST /detect."""
        items = document["detections"]
        return cls(
            image_id=ImageId(document["image_id"]),
            width=document["width"],
            height=document["height"],
            model=_model_name(document["model"]),
            query_count=document["query_count"],
            estimated_count=document["estimated_count"],
            boxes=np.array([item["box"] for item in items], np.float64).reshape(-1, 4),
            scores=np.array([item["score"] for item in items], np.float64),
            class_ids=np.array([item["class_id"] for item in items], np.int64),
            labels=tuple(item["label"] for item in items),
            timing_ms=document["timing_ms"],
            notes=tuple(document["notes"]),
            document=document,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Detection]:
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.labels, self.class_ids.tolist(), strict=True)
        for (x1, y1, x2, y2), score, label, class_id in rows:
            yield Detection((x1, y1, x2, y2), score, label, class_id)


@dataclass(frozen=True)
class Document:
    """An answer in another program's format."""

    content: bytes
    media_type: str

    @property
    def text(self) -> str:
        """The content as text; every format is UTF-8."""
        return self.content.decode()

    def json(self) -> Any:
        """The parsed content."""
        return json.loads(self.content)


@dataclass(frozen=True, eq=False)
class HeatValues:
    """The values behind a heat map.

    Attributes:
        image_id: name of the picture for later calls.
        width, height: of the picture as displayed, in pixels.
        title: what the map shows.
        stride: pixels of the model's input per cell.
        top: value at the hot end of the colours.
        affine: a, b, c, d, e, f with x = a*column + b*row + c and y = d*column + e*row + f, in pixels of the picture
            as displayed; the centre of the first cell is at column 0.5, row 0.5.
        values: (rows, columns) of cells.
    """

    image_id: ImageId
    width: int
    height: int
    title: str
    stride: int
    top: float
    affine: tuple[float, float, float, float, float, float]
    values: NDArray[np.float64]

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "HeatValues":
        """Read the JSON of /heatmap?format=json."""
        a, b, c, d, e, f = document["affine"]
        return cls(
            image_id=ImageId(document["image_id"]),
            width=document["width"],
            height=document["height"],
            title=document["title"],
            stride=document["stride"],
            top=document["top"],
            affine=(a, b, c, d, e, f),
            values=np.array(document["values"], np.float64),
        )


@dataclass(frozen=True, eq=False)
class ModelInfo:
    """A loaded model; `document` is the whole answer, with parity report and data.

    Attributes:
        input_size: side in pixels of the square that a picture is resized to.
        precision: of the graphs that run: fp32, fp16 or int8.
        provider: what they really run on.
    """

    name: str
    version: str
    sha256: str
    classes: tuple[str, ...]
    input_size: int
    precision: str
    provider: str
    licence: str
    document: dict[str, Any]

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "ModelInfo":
        """Read one entry of GET /models."""
        return cls(
            name=document["name"],
            version=document["version"],
            sha256=document["sha256"],
            classes=tuple(document["classes"]),
            input_size=document["input"]["size"],
            precision=document["precision"],
            provider=document["provider"],
            licence=document["licence"],
            document=document,
        )


def _model_name(document: dict[str, Any]) -> ModelName:
    return ModelName(document["name"], document["version"], document["sha256"])
