"""What goes over the wire about scenes, with examples for /docs."""

import json
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.scenes.jobs import Job, State
from service.scenes.kinds import ResultKind

LEAST_SCORE = 0.05
"""Of boxes that are kept: far below the thresholds of most models; thousands of queries that see nothing are not."""
_NUMBER = r"-?\d{1,9}(\.\d{1,6})?"
_PERCENT = r"\d{1,3}(\.\d{1,6})?%"


class SceneQuery(BaseModel):
    """What goes with a scene; an unknown parameter is an error."""

    model_config = ConfigDict(extra="forbid")

    bands: str | None = Field(
        None,
        pattern=r"^[1-9]\d{0,3},[1-9]\d{0,3},[1-9]\d{0,3}$",
        description="Bands for red, green and blue, counted from 1. Default: as the file says, or its first three.",
        examples=["4,3,2"],
    )
    scaling: str = Field(
        "auto",
        pattern=rf"^(auto|none|{_NUMBER},{_NUMBER}|{_PERCENT},{_PERCENT})$",
        description="How values become 8 bits: auto leaves 8 bits as they are and takes the 2nd and 98th percentile of "
        "anything else; none clips to 0..255; two values, or two percentiles, that become 0 and 255.",
        examples=["auto", "0,4095", "2%,98%"],
    )
    resolution: str = Field(
        "model",
        pattern=r"^(model|file|\d{1,6}(\.\d{1,3})?)$",
        description="Ground that a pixel shall show: what the model was trained on, what the file has, or centimetres.",
        examples=["model", "file", "30"],
    )
    overlap: int | None = Field(
        None,
        ge=1,
        le=8192,
        description="Of neighbouring tiles, in pixels that the model sees; a multiple of its largest stride, and more "
        "than the largest object. Default: as the model's largest objects need, or a quarter of a tile if none is "
        "known.",
        examples=[160],
    )
    heat: bool = Field(False, description="Keep density and heat, too, for heat.tif.", examples=[True])


class SceneResultQuery(BaseModel):
    """Which objects of a scene, and how they are written; an unknown parameter is an error."""

    model_config = ConfigDict(extra="forbid")

    format: ResultKind = Field(
        "geojson",
        description="GeoJSON and GeoPackage lie on the ground where the file says where that is.",
        examples=["gpkg"],
    )
    threshold: Annotated[float, Field(ge=LEAST_SCORE, le=1, allow_inf_nan=False)] | None = Field(
        None,
        description="Drop objects at or below this score, in every class. Default: the model's own.",
        examples=[0.3],
    )
    classes: list[str] | None = Field(
        None, description="Only these classes; repeat the parameter or separate by commas.", examples=[["airplane"]]
    )


class ScenePreviewQuery(BaseModel):
    """How large the preview is; an unknown parameter is an error."""

    model_config = ConfigDict(extra="forbid")

    side: int = Field(
        1024, ge=16, le=2048, description="Longest side in pixels; a scene is never enlarged.", examples=[2048]
    )


class SceneTiles(BaseModel):
    """Tiles of a scene; all 0 before the file has been read."""

    total: int = Field(examples=[1024])
    done: int = Field(description="With a result, the skipped ones included.", examples=[256])
    skipped: int = Field(description="Without a valid pixel: the model never saw them.", examples=[12])


class SceneStatus(BaseModel):
    """A scene and how far it is."""

    id: str = Field(description="Names the scene in all further calls.", examples=["5f2b6c0e9d3a41c7b8e6f0a1d2c3b4a5"])
    name: str = Field(description="What the sender calls the file.", examples=["harbour.tif"])
    state: State = Field(
        description="queued, reading (the file is checked), running (tiles), merging (results are written); at the end "
        "done, failed or cancelled.",
        examples=["running"],
    )
    created: datetime
    updated: datetime = Field(description="When it came into its state.")
    bytes: int = Field(examples=[1_234_567_890])
    width: int = Field(description="In pixels as displayed; 0 before the file has been read.", examples=[20_000])
    height: int = Field(examples=[20_000])
    tiles: SceneTiles
    objects: int = Field(
        description="Above the model's thresholds; exact when done, before that some on seams count twice.",
        examples=[3141],
    )
    megapixels_per_second: float | None = Field(description="While it runs.", examples=[4.2])
    eta_seconds: float | None = Field(description="While it runs: until the last tile, at this speed.", examples=[71.5])
    heat: bool = Field(description="Sent with heat=true: once it is done, there is heat.tif.")
    notes: list[str] = Field(description="What was done to the picture that one may not expect.")
    error: str | None = Field(description="Why it failed; POST .../retry goes on from its last finished tile.")

    @classmethod
    def of(cls, job: Job) -> "SceneStatus":
        """What is told of a job."""
        rate = job.tiles_per_second if job.state == "running" else 0.0
        megapixels = job.width * job.height / 1e6
        return cls(
            id=job.id,
            name=job.name,
            state=job.state,
            created=datetime.fromtimestamp(job.created, UTC),
            updated=datetime.fromtimestamp(job.updated, UTC),
            bytes=job.bytes,
            width=job.width,
            height=job.height,
            tiles=SceneTiles(total=job.tiles, done=job.done, skipped=job.skipped),
            objects=job.objects,
            megapixels_per_second=round(rate / job.tiles * megapixels, 3) if rate else None,
            eta_seconds=round((job.tiles - job.done) / rate, 1) if rate else None,
            heat=json.loads(job.request)["heat"],  # not read as a SceneRequest, which would load the raster libraries
            notes=job.notes.splitlines(),
            error=job.error or None,
        )
