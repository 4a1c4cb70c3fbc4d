"""POST /detect: one picture in, its objects out."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from service.dependencies import PipelineDep, RuntimeDep, UploadDep
from service.detections import DetectionOptions, Detections
from service.formats import write_answer
from service.picture_tiles import TileOption
from service.pipeline import Outcome, Pipeline
from service.predictor import Predictor
from service.routers.classes import find_classes
from service.routers.documentation import detect_answers
from service.routers.problems import UPLOAD_PROBLEMS
from service.runtime import Runtime
from service.schemas import DetectionItem, DetectQuery, DetectResponse, ModelName
from service.uploads import REQUEST_BODY

router = APIRouter(tags=["detect"])


@router.post(
    "/detect", response_class=Response, openapi_extra=REQUEST_BODY, responses={**detect_answers(), **UPLOAD_PROBLEMS}
)
async def detect(
    query: Annotated[DetectQuery, Query()], data: UploadDep, pipeline: PipelineDep, runtime: RuntimeDep
) -> Response:
    """Find the objects in one picture: a form with a part `file`, or the bytes with an `image/*` type."""
    predictor = pipeline.predictor
    classes = find_classes(predictor.manifest, query.classes)
    options = DetectionOptions.from_manifest(predictor.manifest, query.threshold, query.max_detections, classes)
    answer = await detect_objects(data, options, query.tile_option, pipeline, runtime)
    body, media_type = write_answer(answer, predictor.manifest.classes, query.format)
    headers = {"X-Image-ID": answer.image_id, **answer.model.headers()}
    return Response(body, media_type=media_type, headers=headers)


async def detect_objects(
    data: bytes, options: DetectionOptions, tile: TileOption, pipeline: Pipeline, runtime: Runtime
) -> DetectResponse:
    """Find the objects in a picture and keep its heat for GET /heatmap."""
    work = pipeline.analyse(data, tile, lambda analysis: analysis.detections(options))
    outcome = await runtime.gate.within_deadline(work)
    await runtime.store.put(pipeline.predictor.sha256, outcome.analysis)
    runtime.metrics.detections(len(outcome.value))
    return _response(pipeline.predictor, outcome)


def _response(predictor: Predictor, outcome: Outcome[Detections]) -> DetectResponse:
    analysis, found = outcome.analysis, outcome.value
    names = predictor.manifest.classes
    items = [
        DetectionItem(
            box=(round(box[0], 2), round(box[1], 2), round(box[2], 2), round(box[3], 2)),
            score=round(score, 4),
            label=names[label],
            class_id=label,
        )
        for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    ]
    return DetectResponse(
        image_id=analysis.image_id,
        width=analysis.frame.width,
        height=analysis.frame.height,
        model=ModelName.of(predictor),
        query_count=analysis.query_count,
        estimated_count=round(analysis.estimated_count, 2),
        detections=items,
        timing_ms=outcome.timing_ms,
        notes=list(analysis.notes),
    )
