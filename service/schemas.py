"""What goes over the wire, with examples for /docs."""

from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from service.colormaps import Colormap
from service.heatmap import Kind
from service.manifest import CalibrationSpec, DataSpec, InputSpec, PostprocessSpec, QuerySpec, SourceSpec
from service.predictor import Predictor

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Format = Literal["json", "geojson", "coco", "supervision", "labelstudio", "yolo"]
MAX_DETECTIONS = 1500  # AI-TOD's longest list; no picture of that set has more objects


class DetectQuery(BaseModel):
    """Query of POST /detect; an unknown parameter is an error."""

    model_config = ConfigDict(extra="forbid")

    threshold: Fraction | None = Field(
        None,
        description="Drop detections at or below this score, in every class. Default: the model's own.",
        examples=[0.3],
    )
    max_detections: int | None = Field(
        None, ge=1, le=MAX_DETECTIONS, description="Longest list of detections. Default: the model's own."
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
    )


class HeatmapQuery(BaseModel):
    """Query of POST /heatmap; an unknown parameter is an error."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind | None = Field(
        None,
        description="Which heat: what the class head sees, what the box head sees, their mix, "
        "the objects per cell, or the mask of hot cells. Default: mixed, or class where class_name is given.",
    )
    class_name: str | None = Field(None, description="With kind=class: the heat of this class alone.")
    level: int | None = Field(
        None,
        ge=0,
        description="One feature level, 0 the finest. Default: the maximum of all, on the finest grid.",
    )
    opacity: Fraction = Field(0.6, description="Share of colour from half heat on; cold places stay clear.")
    colormap: Colormap = Field("turbo", description="Colours from cold to hot.")
    legend: bool = Field(True, description="Add a heat bar below the picture; positions in the picture do not change.")
    boxes: bool = Field(False, description="Draw the detections at the model's own thresholds.")
    format: Literal["png", "webp", "npy", "json"] = Field(
        "png",
        description="A picture, or the raw values at cell resolution with their position on the picture.",
    )


class StoredHeatmapQuery(HeatmapQuery):
    """Query of GET /heatmap."""

    image_id: str = Field(description="From an earlier POST /detect or POST /heatmap.")


class ModelName(BaseModel):
    """Which model gave an answer; the sha256 is of its model.json, which names every other file's."""

    name: str
    version: str
    sha256: str

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


class DetectResponse(BaseModel):
    """Answer of POST /detect."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "image_id": "5f2b6c0e9d3a41c7b8e6f0a1d2c3b4a5",
                "width": 958,
                "height": 808,
                "model": {"name": "nano-nwpu", "version": "1", "sha256": "9f86d081884c7d65..."},
                "query_count": 100,
                "estimated_count": 5.8,
                "detections": [
                    {"box": [563.1, 478.2, 630.4, 573.9], "score": 0.93, "label": "airplane", "class_id": 0}
                ],
                "timing_ms": {
                    "read_image": 6.1,
                    "preprocess": 4.0,
                    "encode": 61.0,
                    "decode": 14.2,
                    "total": 87.5,
                },
                "notes": [],
            }
        }
    )

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

    classes: list[str]
    input: InputSpec
    strides: list[int]
    query: QuerySpec
    postprocess: PostprocessSpec
    decoder_layers: int
    parameters: int
    precision: str = Field(description="Of the graphs that run.")
    provider: str = Field(description="The execution provider really in use.")
    parity: dict[str, Any] = Field(description="How near the graphs are to the trained model.")
    source: SourceSpec
    data: DataSpec
    licence: str
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

    status: str
    model: ModelName | None = None


class ProblemBody(BaseModel):
    """RFC 9457 problem details, the body of every error."""

    type: str = Field(examples=["urn:heatquery:problem:picture-too-large"])
    title: str
    status: int
    detail: str
