"""/scenes: pictures of any size, as jobs."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import FileResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from service.dependencies import PipelineDep, PredictorDep, RuntimeDep
from service.detections import DetectionOptions
from service.routers.classes import find_classes
from service.routers.documentation import heat_raster_answer, preview_answer, scene_answers
from service.routers.problems import (
    SCENE_CHANGE_PROBLEMS,
    SCENE_FILE_PROBLEMS,
    SCENE_LIST_PROBLEMS,
    SCENE_PREVIEW_PROBLEMS,
    SCENE_PROBLEMS,
    SCENE_UPLOAD_PROBLEMS,
)
from service.scene_schemas import ScenePreviewQuery, SceneQuery, SceneResultQuery, SceneStatus
from service.scenes.jobs import Job
from service.scenes.kinds import MEDIA_TYPES
from service.uploads import SCENE_BODY

router = APIRouter(tags=["scenes"])
SceneId = Annotated[str, Path(description="As POST /scenes gave it.", examples=["5f2b6c0e9d3a41c7b8e6f0a1d2c3b4a5"])]


async def get_job(scene_id: SceneId, runtime: RuntimeDep) -> Job:
    """The scene of this path; 404 where there is none."""
    return await runtime.scenes.get(scene_id)


JobDep = Annotated[Job, Depends(get_job)]


@router.post("/scenes", status_code=202, openapi_extra=SCENE_BODY, responses=SCENE_UPLOAD_PROBLEMS)
async def send_scene(
    query: Annotated[SceneQuery, Query()],
    request: Request,
    response: Response,
    predictor: PredictorDep,
    runtime: RuntimeDep,
) -> SceneStatus:
    """Take a picture of any size as a job: a form with a part `file`, or the bytes with an `image/*` type."""
    job = await runtime.scenes.receive(request, query, predictor)
    response.headers["Location"] = f"/scenes/{job.id}"
    return SceneStatus.of(job)


@router.get("/scenes", responses=SCENE_LIST_PROBLEMS)
async def list_scenes(request: Request, runtime: RuntimeDep) -> list[SceneStatus]:
    """All scenes, the newest first; where callers have keys, those that came with the same one."""
    jobs = await runtime.scenes.list(request.scope.get("state", {}).get("caller", ""))
    return [SceneStatus.of(job) for job in jobs]


@router.get("/scenes/{scene_id}", responses=SCENE_PROBLEMS)
async def get_scene(job: JobDep) -> SceneStatus:
    """How far a scene is."""
    return SceneStatus.of(job)


@router.delete("/scenes/{scene_id}", status_code=204, responses=SCENE_PROBLEMS)
async def delete_scene(scene_id: SceneId, runtime: RuntimeDep) -> None:
    """Cancel a scene that waits or is worked on; delete one that is done, failed or cancelled, with its results."""
    await runtime.scenes.cancel_or_delete(scene_id)


@router.post("/scenes/{scene_id}/cancel", responses=SCENE_CHANGE_PROBLEMS)
async def cancel_scene(scene_id: SceneId, runtime: RuntimeDep) -> SceneStatus:
    """Cancel a scene that waits or is worked on; 409 for one that has ended, which DELETE would remove."""
    return SceneStatus.of(await runtime.scenes.cancel(scene_id))


@router.post("/scenes/{scene_id}/retry", status_code=202, responses=SCENE_CHANGE_PROBLEMS)
async def retry_scene(scene_id: SceneId, runtime: RuntimeDep) -> SceneStatus:
    """Let a failed or cancelled scene go on from its last finished tile."""
    return SceneStatus.of(await runtime.scenes.retry(scene_id))


@router.get("/scenes/{scene_id}/events", response_class=EventSourceResponse, responses=SCENE_PROBLEMS)
async def follow_scene(job: JobDep, runtime: RuntimeDep) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: `progress` at each change, `end` when the scene is done, failed or cancelled."""
    async for now in runtime.scenes.follow(job.id):
        yield ServerSentEvent(data=SceneStatus.of(now), event="end" if now.is_final else "progress")


@router.get("/scenes/{scene_id}/result", response_class=Response, responses={**scene_answers(), **SCENE_FILE_PROBLEMS})
async def scene_result(
    query: Annotated[SceneResultQuery, Query()], job: JobDep, pipeline: PipelineDep, runtime: RuntimeDep
) -> FileResponse:
    """The objects of a scene that is done, as a file. A large one may take longer than one call: ask again."""
    predictor = pipeline.predictor
    classes = find_classes(predictor.manifest, query.classes)
    options = DetectionOptions.from_manifest(predictor.manifest, query.threshold, classes=classes)
    with runtime.gate.place():
        work = runtime.scenes.result(job, predictor, query.format, options)
        path = await runtime.gate.within_deadline(work)
    return FileResponse(path, media_type=MEDIA_TYPES[query.format], filename=f"{job.id[:8]}{path.suffix}")


@router.get(
    "/scenes/{scene_id}/heat.tif", response_class=Response, responses={**heat_raster_answer(), **SCENE_FILE_PROBLEMS}
)
async def scene_heat(job: JobDep, runtime: RuntimeDep) -> FileResponse:
    """Density and heat of a scene that was sent with heat=true: a cloud-optimised GeoTIFF that lies on the picture."""
    path = await runtime.scenes.heat(job)
    return FileResponse(path, media_type="image/tiff", filename=f"{job.id[:8]}-heat.tif")


@router.get(
    "/scenes/{scene_id}/preview", response_class=Response, responses={**preview_answer(), **SCENE_PREVIEW_PROBLEMS}
)
async def scene_preview(
    query: Annotated[ScenePreviewQuery, Query()], job: JobDep, predictor: PredictorDep, runtime: RuntimeDep
) -> Response:
    """The whole scene as a small JPEG, as soon as its file has been checked. The first call reads the whole file, which
    may take longer than one call: ask again."""
    with runtime.gate.place():
        work = runtime.scenes.preview(job, predictor.manifest.input.pad_value, query.side)
        picture = await runtime.gate.within_deadline(work)
    return Response(picture, media_type="image/jpeg")
