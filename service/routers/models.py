"""GET /models: what is loaded, and how far it can be trusted."""

from typing import Annotated

from fastapi import APIRouter, Path

from service.dependencies import PredictorDep, RuntimeDep
from service.errors import UnknownModelError
from service.manifest import Manifest
from service.routers.problems import MODEL_PROBLEMS
from service.schemas import ModelInfo

router = APIRouter(tags=["models"])
ModelNamePath = Annotated[str, Path(description="As GET /models lists it.", examples=["nano-nwpu"])]
ModelVersionPath = Annotated[str, Path(description="As GET /models lists it.", examples=["3"])]


@router.get("/models")
async def list_models(runtime: RuntimeDep) -> list[ModelInfo]:
    """Every loaded model; empty before the service is ready."""
    return [ModelInfo.of(runtime.require_pipeline().predictor)] if runtime.has_model else []


@router.get("/models/{name}", responses=MODEL_PROBLEMS)
async def get_model(name: ModelNamePath, predictor: PredictorDep) -> ModelInfo:
    """One loaded model."""
    require_model(predictor.manifest, name)
    return ModelInfo.of(predictor)


def require_model(manifest: Manifest, name: str, version: str | None = None) -> None:
    """Check that the model of this name, and of this version if one is named, is the one that is loaded.

    Raises:
        UnknownModelError: it is not.
    """
    if name != manifest.name or version not in (None, manifest.version):
        wanted = name if version is None else f"{name}/{version}"
        loaded = f"{manifest.name}/{manifest.version}"
        raise UnknownModelError(f"no model {wanted[:80]!r} is loaded; there is {loaded!r}")
