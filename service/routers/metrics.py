"""GET /metrics: what Prometheus scrapes."""

from fastapi import APIRouter, Request, Response

from service.dependencies import RuntimeDep

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request, runtime: RuntimeDep) -> Response:  # not async: the text is made off the event loop
    """Counters, gauges and histograms in Prometheus' text format, or in OpenMetrics where the Accept header asks."""
    page, content_type = runtime.metrics.render(request.headers.get("accept", ""))
    return Response(page, headers={"Content-Type": content_type})
