"""Health and metadata paths of the Open Inference Protocol (V2), as probes and catalogues of models ask for them.

There is no `/infer`: it takes tensors, and the host's half of the work lies around the graphs. Pictures go to
POST /detect. An error carries the protocol's member `error` beside those of problem+json.
"""

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from service.dependencies import PredictorDep
from service.manifest import Manifest
from service.routers.models import ModelNamePath, ModelVersionPath, require_model
from service.routers.problems import HEALTH_PROBLEMS, MODEL_PROBLEMS

router = APIRouter(prefix="/v2", tags=["open inference protocol"])
ANY = -1  # the protocol's sign for a side that varies


class ServerMetadata(BaseModel):
    """Who answers."""

    name: str = Field(examples=["heatquery"])
    version: str = Field(examples=["1"])
    extensions: list[str] = Field(examples=[[]])


class ServerLive(BaseModel):
    """The process answers."""

    live: Literal[True]


class ServerReady(ServerLive):
    """The protocol's text says `live` for a ready server too; its servers say `ready`."""

    ready: Literal[True]


class ModelReady(BaseModel):
    """The model is verified, loaded and warmed up."""

    name: str = Field(examples=["nano-nwpu"])
    ready: Literal[True]


class TensorMetadata(BaseModel):
    """An input or output of a graph."""

    name: str = Field(examples=["images"])
    datatype: Literal["UINT8", "FP32"]
    shape: list[int] = Field(description="-1 for a side that varies.", examples=[[ANY, 3, ANY, ANY]])


class ModelMetadata(BaseModel):
    """What goes into the first graph and comes out of the last."""

    name: str = Field(examples=["nano-nwpu"])
    versions: list[str] = Field(examples=[["5"]])
    platform: Literal["onnxruntime_onnx"]
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]

    @classmethod
    def of(cls, manifest: Manifest) -> "ModelMetadata":
        """Shapes are those of the model folder's contract, to which a model is held while it is loaded."""
        return cls(
            name=manifest.name,
            versions=[manifest.version],
            platform="onnxruntime_onnx",
            inputs=[TensorMetadata(name="images", datatype="UINT8", shape=[ANY, 3, ANY, ANY])],
            outputs=[
                TensorMetadata(name="boxes", datatype="FP32", shape=[ANY, ANY, 4]),
                TensorMetadata(name="scores", datatype="FP32", shape=[ANY, ANY, len(manifest.classes)]),
            ],
        )


@router.get("")
async def server_metadata(request: Request) -> ServerMetadata:
    """Name and version of the server."""
    return ServerMetadata(name=request.app.title, version=request.app.version, extensions=[])


@router.get("/health/live")
async def server_live() -> ServerLive:
    """As GET /livez."""
    return ServerLive(live=True)


@router.get("/health/ready", responses=HEALTH_PROBLEMS)
async def server_ready(_: PredictorDep) -> ServerReady:
    """As GET /readyz."""
    return ServerReady(live=True, ready=True)


@router.get("/models/{model_name}", responses=MODEL_PROBLEMS)
async def model_metadata(model_name: ModelNamePath, predictor: PredictorDep) -> ModelMetadata:
    """Inputs and outputs of a model."""
    require_model(predictor.manifest, model_name)
    return ModelMetadata.of(predictor.manifest)


@router.get("/models/{model_name}/versions/{model_version}", responses=MODEL_PROBLEMS)
async def model_version_metadata(
    model_name: ModelNamePath, model_version: ModelVersionPath, predictor: PredictorDep
) -> ModelMetadata:
    """Inputs and outputs of one version of a model."""
    require_model(predictor.manifest, model_name, model_version)
    return ModelMetadata.of(predictor.manifest)


@router.get("/models/{model_name}/ready", responses=MODEL_PROBLEMS)
async def model_ready(model_name: ModelNamePath, predictor: PredictorDep) -> ModelReady:
    """Whether a model can be used."""
    require_model(predictor.manifest, model_name)
    return ModelReady(name=model_name, ready=True)


@router.get("/models/{model_name}/versions/{model_version}/ready", responses=MODEL_PROBLEMS)
async def model_version_ready(
    model_name: ModelNamePath, model_version: ModelVersionPath, predictor: PredictorDep
) -> ModelReady:
    """Whether one version of a model can be used."""
    require_model(predictor.manifest, model_name, model_version)
    return ModelReady(name=model_name, ready=True)
