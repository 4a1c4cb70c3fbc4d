"""GET /models: what is loaded, and how far it can be trusted."""

from fastapi import APIRouter

from service.dependencies import PredictorDep, RuntimeDep
from service.errors import UnknownModelError
from service.routers.problems import MODEL_PROBLEMS
from service.schemas import ModelInfo

router = APIRouter(tags=["models"])


@router.get("/models")
async def list_models(runtime: RuntimeDep) -> list[ModelInfo]:
    """Every loaded model; empty before the service is ready."""
    return [ModelInfo.of(runtime.require_predictor())] if runtime.status == "ready" else []


@router.get("/models/{name}", responses=MODEL_PROBLEMS)
async def get_model(name: str, predictor: PredictorDep) -> ModelInfo:
    """One loaded model."""
    if name != predictor.manifest.name:
        raise UnknownModelError(f"no model {name[:80]!r} is loaded; there is {predictor.manifest.name!r}")
    return ModelInfo.of(predictor)
