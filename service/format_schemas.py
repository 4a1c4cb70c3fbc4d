"""The documents of other tools, as far as the service writes them; `service/formats.py` fills them."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from service.schemas import ModelName

Box = tuple[float, float, float, float]
Position = tuple[float, float]
PIXEL_PLANE = "pixels of the picture as displayed, from its top-left corner: x to the right, y negative downwards"


class PictureNote(BaseModel):
    """Which picture and model a document is about; travels where the format leaves room for it."""

    image_id: str
    width: int = Field(description="Of the picture as displayed, in pixels.")
    height: int
    model: ModelName


class GeoPolygon(BaseModel):
    """GeoJSON geometry."""

    type: Literal["Polygon"] = "Polygon"
    coordinates: tuple[list[Position]] = Field(description="One closed ring, counter-clockwise where y points up.")


class GeoProperties(BaseModel):
    """Attributes of a feature."""

    label: str
    class_id: int
    score: float
    model: str = Field(description="Name and version.")


class GeoFeature(BaseModel):
    """One object as a GeoJSON feature."""

    type: Literal["Feature"] = "Feature"
    geometry: GeoPolygon
    properties: GeoProperties


class FeatureCollection(BaseModel):
    """Answer of format=geojson: RFC 7946, with members of our own that say what the coordinates are."""

    type: Literal["FeatureCollection"] = "FeatureCollection"
    coordinate_system: str = Field(
        default=PIXEL_PLANE,
        description='What a position means; not called "coordinates", which RFC 7946 (7.1) keeps for geometries.',
    )
    picture: PictureNote
    features: list[GeoFeature]


class CocoImage(BaseModel):
    """COCO image; the service does not know the file's name, so it gives the image id."""

    id: int
    file_name: str
    width: int
    height: int


class CocoCategory(BaseModel):
    """COCO category: `class_id` + 1, as COCO counts from 1."""

    id: int
    name: str


class CocoAnnotation(BaseModel):
    """One object: what an annotation and what a result of COCO needs."""

    id: int
    image_id: int
    category_id: int
    bbox: Box = Field(description="x, y, width, height in pixels of the picture as displayed.")
    area: float
    iscrowd: Literal[0] = 0
    score: float


class CocoDocument(BaseModel):
    """Answer of format=coco: a data set of one picture, whose annotations also serve as results."""

    info: PictureNote
    images: list[CocoImage]
    categories: list[CocoCategory]
    annotations: list[CocoAnnotation]


class SupervisionData(BaseModel):
    """`Detections.data`."""

    class_name: list[str]


class SupervisionDetections(BaseModel):
    """Answer of format=supervision: the arguments of `supervision.Detections`, M objects."""

    xyxy: list[Box] = Field(description="(M, 4); reshape to (-1, 4), as an empty list has no columns.")
    confidence: list[float]
    class_id: list[int]
    data: SupervisionData
    metadata: PictureNote


Percent = Annotated[float, Field(ge=0, le=100, description="Of the picture's width or height.")]


class LabelStudioRectangle(BaseModel):
    """Value of a rectangle of Label Studio."""

    x: Percent
    y: Percent
    width: Percent
    height: Percent
    rotation: Literal[0] = 0
    rectanglelabels: list[str]


class LabelStudioRegion(BaseModel):
    """One object as a region of Label Studio."""

    id: str
    type: Literal["rectanglelabels"] = "rectanglelabels"
    from_name: str
    to_name: str
    original_width: int
    original_height: int
    image_rotation: Literal[0] = 0
    score: float
    value: LabelStudioRectangle


class LabelStudioPrediction(BaseModel):
    """All objects of a picture, as Label Studio takes predictions."""

    model_version: str = Field(description="Name and version.")
    score: float = Field(description="Mean of the objects' scores; 0 without objects.")
    result: list[LabelStudioRegion]


class LabelStudioData(BaseModel):
    """Data of a task."""

    image: str = Field(description="The image id: put in its place where Label Studio finds the picture.")


class LabelStudioTask(BaseModel):
    """Answer of format=labelstudio: a task with its pre-annotations, to be imported."""

    data: LabelStudioData
    predictions: list[LabelStudioPrediction]
    meta: PictureNote
