"""Live and ready: different things. Live = the process answers; ready = the model is proven and warmed up."""

from fastapi import APIRouter

from service.dependencies import RuntimeDep
from service.routers.problems import HEALTH_PROBLEMS
from service.schemas import Health, ModelName

router = APIRouter(tags=["health"])


@router.head("/livez", include_in_schema=False)
@router.get("/livez")
async def livez() -> Health:
    """The process is up and its event loop turns."""
    return Health(status="live")


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses=HEALTH_PROBLEMS)
async def readyz(runtime: RuntimeDep) -> Health:
    """A model is verified, loaded on the provider asked for, and warmed up; else 503 with the reason."""
    return Health(status="ready", model=ModelName.of(runtime.require_ready()))
