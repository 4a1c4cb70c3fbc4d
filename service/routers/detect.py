"""POST /detect: one picture in, its objects out."""

from time import perf_counter
from typing import Annotated

from fastapi import APIRouter, Query, Response

from service.analysis import Analysis
from service.dependencies import PredictorDep, RuntimeDep, UploadDep
from service.detections import DetectionOptions, Detections
from service.formats import write_answer
from service.manifest import Manifest
from service.predictor import Predictor
from service.routers.classes import find_class
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
    query: Annotated[DetectQuery, Query()], data: UploadDep, predictor: PredictorDep, runtime: RuntimeDep
) -> Response:
    """Find the objects in one picture: a form with a part `file`, or the bytes with an `image/*` type."""
    classes = None if query.classes is None else find_classes(predictor.manifest, query.classes)
    options = DetectionOptions.from_manifest(predictor.manifest, query.threshold, query.max_detections, classes)
    answer = await detect_objects(data, options, predictor, runtime)
    body, media_type = write_answer(answer, predictor.manifest.classes, query.format)
    headers = {"X-Image-ID": answer.image_id, **answer.model.headers()}
    return Response(body, media_type=media_type, headers=headers)


async def detect_objects(
    data: bytes, options: DetectionOptions, predictor: Predictor, runtime: Runtime
) -> DetectResponse:
    """Find the objects in a picture and keep its heat for GET /heatmap."""
    arrived = perf_counter()
    analysis, found, timing = await runtime.pool.run(lambda: _work(predictor, data, options, arrived))
    await runtime.store.put(predictor.sha256, analysis)
    return _response(predictor, analysis, found, timing)


def find_classes(manifest: Manifest, wanted: list[str]) -> set[int]:
    """Class ids of names, given one by one or separated by commas."""
    return {find_class(manifest, name.strip(), "classes") for item in wanted for name in item.split(",")}


def _work(
    predictor: Predictor, data: bytes, options: DetectionOptions, arrived: float
) -> tuple[Analysis, Detections, dict[str, float]]:
    """All that must not run on the event loop; times in milliseconds from `arrived`."""
    begun = perf_counter()
    analysis = predictor.analyse(data)
    analysed = perf_counter()
    found = analysis.detections(options)
    done = perf_counter()
    timing = {"queue": (begun - arrived) * 1e3, **analysis.timing_ms}
    timing |= {"postprocess": (done - analysed) * 1e3, "total": (done - arrived) * 1e3}
    return analysis, found, {step: round(value, 2) for step, value in timing.items()}


def _response(predictor: Predictor, analysis: Analysis, found: Detections, timing: dict[str, float]) -> DetectResponse:
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
        timing_ms=timing,
        notes=list(analysis.notes),
    )
