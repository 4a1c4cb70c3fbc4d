"""The app factory: nothing happens at import."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI, Security
from fastapi.security import APIKeyHeader
from starlette.middleware.cors import CORSMiddleware

from service.api_keys import ApiKeyMiddleware, ApiKeys
from service.body_limits import BodyLimits
from service.disconnect import DisconnectMiddleware
from service.headers import READABLE_HEADERS, SENDABLE_HEADERS, SecurityHeadersMiddleware
from service.loading import LoadedModel, begin_loading
from service.middleware import BodyGuardMiddleware, FaultBarrierMiddleware, RequestIdMiddleware
from service.predictor import Predictor
from service.problems import install_error_handlers
from service.routers import (
    detect,
    docs,
    health,
    heatmap,
    inference_protocol,
    labelstudio,
    metrics,
    models,
    page,
    scenes,
)
from service.routers.documentation import install_documentation
from service.runtime import Runtime
from service.settings import Settings, split_keys, split_list
from service.watching import WatchMiddleware

if TYPE_CHECKING:
    from service.rate_limit import RateLimiter

DESCRIPTION = """Finds tiny objects in aerial pictures and shows why it found them.

Every error is a problem+json body (RFC 9457). Boxes and heat maps are in the picture as a person sees it,
EXIF orientation applied."""

# Checked by ApiKeyMiddleware, before the body is read; this one only tells /docs to ask for it.
KEY_FIELD = Security(APIKeyHeader(name="X-API-Key", auto_error=False))


def create_app(
    settings: Settings,
    loading: "Future[LoadedModel] | None" = None,
    on_ready: Callable[[Predictor], None] | None = None,
) -> FastAPI:
    """Build the service.

    Args:
        loading: the model of these settings on its way; None: loading begins when the app starts.
        on_ready: called once, when the model is loaded, in the event loop.
    """
    runtime = Runtime(settings, on_ready)
    limiter = _open_limiter(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        taking = asyncio.create_task(runtime.take(loading or begin_loading(settings)))
        checking = asyncio.create_task(runtime.store.check())
        yield
        taking.cancel()
        checking.cancel()
        await runtime.scenes.stop()
        runtime.close()
        await runtime.store.close()
        if limiter is not None:
            await limiter.close()
        await asyncio.to_thread(runtime.tracing.close)

    app = FastAPI(
        title="heatquery",
        description=DESCRIPTION,
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        telemetry=runtime.tracing.of_requests,
    )
    app.state.runtime = runtime
    app.state.page = page.read_page()
    install_error_handlers(app)
    _include_routers(app, settings)
    install_documentation(app)
    _add_middleware(app, settings, limiter)
    return app


def _include_routers(app: FastAPI, settings: Settings) -> None:
    """What takes pictures has a limit on their size, and what a key protects asks for it."""
    uploads = APIRouter(max_body_size=settings.max_upload_bytes)
    uploads.include_router(detect.router)
    uploads.include_router(heatmap.router)
    uploads.include_router(labelstudio.router)
    large_uploads = APIRouter(max_body_size=settings.max_scene_bytes)
    large_uploads.include_router(scenes.router)
    for router in (uploads, large_uploads, models.router):
        app.include_router(router, dependencies=[] if settings.api_keys is None else [KEY_FIELD])
    for router in (health.router, inference_protocol.router, metrics.router, docs.router, page.router):
        app.include_router(router)


def _open_limiter(settings: Settings) -> "RateLimiter | None":
    if not settings.rate_limit:
        return None
    from service.rate_limit import (
        RateLimiter,  # with Redis' client, a third of all imports: not for those without rates
    )

    return RateLimiter.of(settings)


def _add_middleware(app: FastAPI, settings: Settings, limiter: "RateLimiter | None") -> None:
    """From the innermost to the outermost: what refuses is inside of what every answer carries."""
    if limiter is not None:
        from service.rate_limit import RateLimitMiddleware

        app.add_middleware(RateLimitMiddleware, limiter=limiter)
    if settings.api_keys is not None:
        app.add_middleware(ApiKeyMiddleware, keys=ApiKeys(split_keys(settings.api_keys.get_secret_value())))
    app.add_middleware(FaultBarrierMiddleware)
    app.add_middleware(DisconnectMiddleware, metrics=app.state.runtime.metrics)
    app.add_middleware(BodyGuardMiddleware, limits_of=partial(BodyLimits.of, settings))
    if origins := split_list(settings.cors_origins):
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=SENDABLE_HEADERS,
            expose_headers=READABLE_HEADERS,
        )
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(WatchMiddleware, metrics=app.state.runtime.metrics)
    app.add_middleware(RequestIdMiddleware)
