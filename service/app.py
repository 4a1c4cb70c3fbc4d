"""The app factory: nothing happens at import."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from service.errors import install_error_handlers
from service.middleware import BodyGuardMiddleware, RequestIdMiddleware
from service.predictor import Predictor
from service.routers import detect, health, heatmap, inference_protocol, labelstudio, metrics, models, page
from service.routers.documentation import install_documentation
from service.runtime import Runtime
from service.settings import Settings
from service.watching import WatchMiddleware

DESCRIPTION = """Finds tiny objects in aerial pictures and shows why it found them.

Every error is a problem+json body (RFC 9457). Boxes and heat maps are in the picture as a person sees it,
EXIF orientation applied."""


def create_app(settings: Settings, on_ready: Callable[[Predictor], None] | None = None) -> FastAPI:
    """Build the service.

    Args:
        on_ready: called once, when the model is loaded, in the event loop.
    """
    runtime = Runtime(settings, on_ready)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(runtime.load())
        checking = asyncio.create_task(runtime.store.check())
        yield
        loading.cancel()
        checking.cancel()
        runtime.pool.close()
        await runtime.store.close()
        await asyncio.to_thread(runtime.tracing.close)

    app = FastAPI(
        title="heatquery",
        description=DESCRIPTION,
        version="1",
        lifespan=lifespan,
        telemetry=runtime.tracing.of_requests,
    )
    app.state.runtime = runtime
    app.state.page = page.read_page()
    install_error_handlers(app)
    uploads = APIRouter(max_body_size=settings.max_upload_bytes)
    uploads.include_router(detect.router)
    uploads.include_router(heatmap.router)
    uploads.include_router(labelstudio.router)
    for router in (uploads, models.router, health.router, inference_protocol.router, metrics.router, page.router):
        app.include_router(router)
    install_documentation(app)
    app.add_middleware(BodyGuardMiddleware, max_bytes=settings.max_upload_bytes, seconds=settings.body_seconds)
    app.add_middleware(WatchMiddleware, metrics=runtime.metrics)
    app.add_middleware(RequestIdMiddleware)  # added last = outermost: refusals of the guard carry the id too
    return app
