"""What GeoJSON and COCO files of scenes hold, as far as it is not what an answer of POST /detect holds."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, Field

from service.format_schemas import Box, CocoAnnotation, CocoCategory, CocoImage, GeoPolygon
from service.scenes.scene_info import SceneInfo
from service.schemas import ModelName


class SceneNote(BaseModel):
    """Which picture and model a file is about."""

    file_name: str
    width: int = Field(description="Of the picture, in its own pixels.")
    height: int
    crs: str | None = Field(description="The picture's coordinate system, as an authority's code or as WKT.")
    model: ModelName
    notes: list[str]

    @classmethod
    def of(cls, info: SceneInfo) -> Self:
        """Say what is known of a scene."""
        place = info.georeference
        crs = None if place is None else (f"EPSG:{place.epsg}" if place.epsg else place.crs_wkt)
        return cls(
            file_name=info.file_name,
            width=info.width,
            height=info.height,
            crs=crs,
            model=info.model,
            notes=list(info.notes),
        )


class SceneProperties(BaseModel):
    """Attributes of a feature."""

    label: str
    class_id: int
    score: float
    box: Box = Field(description="x1, y1, x2, y2 in the picture's own pixels.")


class SceneFeature(BaseModel):
    """One object."""

    type: Literal["Feature"] = "Feature"
    geometry: GeoPolygon
    properties: SceneProperties


class SceneCollection(BaseModel):
    """A GeoJSON file, RFC 7946, with members of our own that say what it is about."""

    type: Literal["FeatureCollection"] = "FeatureCollection"
    coordinate_system: str
    scene: SceneNote
    features: list[SceneFeature] = []


class SceneCoco(BaseModel):
    """A COCO file of one picture."""

    info: SceneNote
    images: list[CocoImage]
    categories: list[CocoCategory]
    annotations: list[CocoAnnotation] = []


def write_items(path: Path, document: BaseModel, items: Iterable[BaseModel]) -> None:
    """Write a document whose last member is an empty list, with the items in that list, one a line."""
    before, after = document.model_dump_json().rsplit("[]", 1)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(before + "[")
        separator = "\n"
        for item in items:
            file.write(separator + item.model_dump_json())
            separator = ",\n"
        file.write("\n]" + after + "\n")
