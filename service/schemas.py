"""What goes over the wire, with examples for /docs."""

import re
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from service.colormaps import Colormap
from service.heatmap import Kind
from service.manifest import CalibrationSpec, DataSpec, InputSpec, PostprocessSpec, QuerySpec, SourceSpec
from service.picture_tiles import TileOption
from service.predictor import Predictor

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Format = Literal["json", "geojson", "coco", "supervision", "labelstudio", "yolo"]
_TILE = re.compile(r"^(auto|off|[1-9][0-9]{1,5})$")
MAX_DETECTIONS = 1500  # AI-TOD's longest list; no picture of that set has more objects


class TileQuery(BaseModel):
    """What goes with every upload; an unknown parameter is an error."""

    model_config = ConfigDict(extra="forbid")

    tile: str = Field(
        "auto",
        json_schema_extra={"pattern": _TILE.pattern},
        description="Cut a large picture into tiles of this side in pixels, so that tiny objects stay visible. "
        "auto: where the longer side is over three times the model's input; off: never.",
        examples=["auto", "off", "1024"],
    )

    @field_validator("tile")
    @classmethod
    def _known_tile(cls, tile: str) -> str:
        if not _TILE.fullmatch(tile):
            raise ValueError("must be auto, off, or the side of a tile in pixels from 10 to 999999")
        return tile

    @property
    def tile_option(self) -> TileOption:
        """The same with its type."""
        return self.tile if self.tile in ("auto", "off") else int(self.tile)


class DetectQuery(TileQuery):
    """Query of POST /detect."""

    threshold: Fraction | None = Field(
        None,
        description="Drop detections at or below this score, in every class. Default: the model's own.",
        examples=[0.3],
    )
    max_detections: int | None = Field(
        None,
        ge=1,
        le=MAX_DETECTIONS,
        description="Longest list of detections. Default: the model's own.",
        examples=[100],
    )
    classes: list[str] | None = Field(
        None,
        description="Only these classes; repeat the parameter or separate by commas.",
        examples=[["airplane"]],
    )
    format: Format = Field(
        "json",
        description="json is the whole answer; the others are the same boxes for GIS (geojson), COCO tools, "
        "supervision.Detections, Label Studio's import, and YOLO's text lines with scores.",
        examples=["geojson"],
    )


class HeatmapQuery(BaseModel):
    """Which heat, and how to draw it; an unknown parameter is an error."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind | None = Field(
        None,
        description="Which heat: what the class head sees, what the box head sees, their mix, "
        "the objects per cell, or the mask of hot cells. Default: mixed, or class where class_name is given.",
        examples=["class"],
    )
    class_name: str | None = Field(
        None, description="With kind=class: the heat of this class alone.", examples=["airplane"]
    )
    level: int | None = Field(
        None,
        ge=0,
        description="One feature level, 0 the finest. Default: the maximum of all, on the finest grid.",
        examples=[0],
    )
    opacity: Fraction = Field(
        0.6, description="Share of colour from half heat on; cold places stay clear.", examples=[0.8]
    )
    colormap: Colormap = Field("turbo", description="Colours from cold to hot.", examples=["viridis"])
    legend: bool = Field(
        True,
        description="Add a heat bar below the picture; positions in the picture do not change.",
        examples=[False],
    )
    boxes: bool = Field(False, description="Draw the detections at the model's own thresholds.", examples=[True])
    format: Literal["png", "webp", "npy", "json"] = Field(
        "png",
        description="A picture, or the raw values at cell resolution with their position on the picture.",
        examples=["webp"],
    )


class NewHeatmapQuery(HeatmapQuery, TileQuery):
    """Query of POST /heatmap."""


class StoredHeatmapQuery(HeatmapQuery):
    """Query of GET /heatmap."""

    image_id: str = Field(
        description="From an earlier POST /detect or POST /heatmap.", examples=["5f2b6c0e9d3a41c7b8e6f0a1d2c3b4a5"]
    )


class ModelName(BaseModel):
    """Which model gave an answer; the sha256 is of its model.json, which names every other file's."""

    name: str = Field(examples=["nano-nwpu"])
    version: str = Field(examples=["5"])
    sha256: str = Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])

    @classmethod
    def of(cls, predictor: Predictor) -> "ModelName":
        """Name the model of a predictor."""
        return cls(name=predictor.manifest.name, version=predictor.manifest.version, sha256=predictor.sha256)

    def headers(self) -> dict[str, str]:
        """The same in headers, for answers without room for it; folder names may hold more than headers can."""
        return {"X-Model": f"{quote(self.name)}/{quote(self.version)}", "X-Model-SHA256": self.sha256}


class DetectionItem(BaseModel):
    """One object."""

    box: tuple[float, float, float, float] = Field(description="x1, y1, x2, y2 in pixels of the picture as displayed.")
    score: float
    label: str
    class_id: int


DETECT_EXAMPLE: dict[str, JsonValue] = {
    "image_id": "5f2b6c0e9d3a41c7b8e6f0a1d2c3b4a5",
    "width": 958,
    "height": 808,
    "model": {
        "name": "nano-nwpu",
        "version": "5",
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    },
    "query_count": 100,
    "estimated_count": 2.1,
    "detections": [
        {"box": [563.1, 478.2, 630.4, 573.9], "score": 0.93, "label": "airplane", "class_id": 0},
        {"box": [12.5, 90.25, 44.75, 120.5], "score": 0.41, "label": "ship", "class_id": 1},
    ],
    "timing_ms": {
        "queue": 0.1,
        "read_image": 6.1,
        "preprocess": 4.0,
        "encode": 61.0,
        "decode": 14.2,
        "postprocess": 0.3,
        "total": 85.7,
    },
    "notes": [],
}


class DetectResponse(BaseModel):
    """Answer of POST /detect."""

    model_config = ConfigDict(json_schema_extra={"example": DETECT_EXAMPLE})

    image_id: str = Field(description="Name of this picture for GET /heatmap, from its content.")
    width: int = Field(description="Of the picture as displayed, in pixels: EXIF orientation is applied.")
    height: int
    model: ModelName
    query_count: int = Field(description="Decoder queries spent on this picture; follows the number of objects.")
    estimated_count: float = Field(description="Objects in the picture, by the density map.")
    detections: list[DetectionItem] = Field(description="Best first.")
    timing_ms: dict[str, float]
    notes: list[str] = Field(description="What was done to the picture that one may not expect.")


class HeatmapValues(BaseModel):
    """Answer of /heatmap?format=json: the raw map, cut to the cells that touch the picture."""

    image_id: str
    width: int
    height: int
    title: str
    stride: int = Field(description="Canvas pixels per cell.")
    top: float = Field(description="Value at the hot end of the colours; the cold end is 0.")
    affine: tuple[float, float, float, float, float, float] = Field(
        description="a, b, c, d, e, f: x = a*column + b*row + c, y = d*column + e*row + f, in pixels as "
        "displayed. The centre of the cell in column 0, row 0 is at column 0.5, row 0.5."
    )
    values: list[list[float]] = Field(description="Rows of cells.")


class ModelInfo(ModelName):
    """A loaded model."""

    classes: list[str] = Field(examples=[["airplane", "ship"]])
    input: InputSpec
    strides: list[int] = Field(examples=[[8, 16, 32]])
    query: QuerySpec
    postprocess: PostprocessSpec = Field(
        description="What holds where a request says nothing; class_thresholds go before threshold."
    )
    decoder_layers: int = Field(examples=[3])
    parameters: int = Field(examples=[2_123_384])
    precision: str = Field(description="Of the graphs that run.", examples=["fp32"])
    provider: str = Field(description="The execution provider really in use.", examples=["CPUExecutionProvider"])
    parity: dict[str, Any] = Field(
        description="How near the graphs are to the trained model.", examples=[{"passed": True, "images": 20}]
    )
    source: SourceSpec
    data: DataSpec
    licence: str = Field(examples=["Apache-2.0"])
    calibration: CalibrationSpec | None = Field(description="What the int8 graphs were calibrated on.")
    resolution_cm: float | None = Field(description="Ground that a pixel of the canvas shows, in centimetres.")

    @classmethod
    def of(cls, predictor: Predictor) -> "ModelInfo":
        """Describe the model of a predictor."""
        manifest = predictor.manifest
        fields = manifest.model_dump(include=set(cls.model_fields))
        return cls(
            **fields,
            sha256=predictor.sha256,
            precision=predictor.precision,
            provider=predictor.engine.provider,
            parity=predictor.parity.model_dump(),
        )


class Health(BaseModel):
    """Answer of /livez and /readyz."""

    status: str = Field(examples=["ready"])
    model: ModelName | None = None


class Fault(BaseModel):
    """What is wrong with one parameter or one place of a JSON body."""

    parameter: str
    message: str
    value: str = Field(description="What came, cut off after 200 characters.")


class ProblemBody(BaseModel):
    """RFC 9457 problem details, the body of every error."""

    type: str = Field(examples=["urn:heatquery:problem:picture-too-large"])
    title: str
    status: int
    detail: str
    errors: list[Fault] | None = Field(None, description="With 422, where it is a matter of types and ranges.")
    error: str | None = Field(None, description="Under /v2: the detail once more, as the inference protocol wants it.")
    request_id: str | None = Field(None, description="With 500: what the log has it under.")
