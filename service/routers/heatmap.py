"""GET and POST /heatmap: why the model sees what it sees, drawn over the picture."""

from hashlib import sha256
from io import BytesIO
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Header, Query, Response

from service.analysis import Analysis
from service.dependencies import PipelineDep, PredictorDep, RuntimeDep, UploadDep
from service.detections import DetectionOptions
from service.errors import InvalidParameterError, UnknownImageError
from service.heatmap import (
    HeatLayer,
    Kind,
    add_legend,
    draw_boxes,
    encode_image,
    render_overlay,
    select_layer,
    shrink_to_view,
)
from service.imaging import decode_picture
from service.letterbox import FloatArray
from service.manifest import Manifest
from service.predictor import Predictor
from service.routers.classes import find_class
from service.routers.documentation import NOT_MODIFIED, heatmap_answers
from service.routers.problems import LOOKUP_PROBLEMS, UPLOAD_PROBLEMS
from service.runtime import Runtime
from service.schemas import HeatmapQuery, HeatmapValues, ModelName, NewHeatmapQuery, StoredHeatmapQuery
from service.settings import Settings
from service.uploads import REQUEST_BODY

router = APIRouter(tags=["heatmap"])


@router.get("/heatmap", response_class=Response, responses={**heatmap_answers(), **NOT_MODIFIED, **LOOKUP_PROBLEMS})
async def stored_heatmap(
    query: Annotated[StoredHeatmapQuery, Query()],
    predictor: PredictorDep,
    runtime: RuntimeDep,
    if_none_match: Annotated[
        str, Header(description="ETag of the heat map that the caller has.", examples=['"5f2b6c0e"'])
    ] = "",
) -> Response:
    """The heat map of a picture that was sent before."""
    subject = choose_subject(predictor.manifest, query)
    with runtime.gate.place():
        analysis = await find_analysis(runtime, predictor, query.image_id)
        etag = _etag(predictor, analysis, query, runtime.settings)
        caching = {"ETag": etag, "Cache-Control": "private, no-cache"}  # no-cache: kept, but asked about each time
        if etag in if_none_match:
            return Response(status_code=304, headers=caching)
        work = runtime.pool.run(lambda: _answer(predictor, analysis, subject, query, runtime.settings))
        response = await runtime.gate.within_deadline(work)
    response.headers.update(caching)
    return response


@router.post(
    "/heatmap", response_class=Response, openapi_extra=REQUEST_BODY, responses={**heatmap_answers(), **UPLOAD_PROBLEMS}
)
async def heatmap(
    query: Annotated[NewHeatmapQuery, Query()], data: UploadDep, pipeline: PipelineDep, runtime: RuntimeDep
) -> Response:
    """The heat map of a picture sent now; the X-Image-ID of the answer serves for GET /heatmap."""
    predictor = pipeline.predictor
    subject = choose_subject(predictor.manifest, query)

    def draw(analysis: Analysis) -> Response:
        return _answer(predictor, analysis, subject, query, runtime.settings)

    outcome = await runtime.gate.within_deadline(pipeline.analyse(data, query.tile_option, draw))
    await runtime.store.put(predictor.sha256, outcome.analysis)
    return outcome.value


async def find_analysis(runtime: Runtime, predictor: Predictor, image_id: str) -> Analysis:
    """What the store has under this id, for this model.

    Raises:
        UnknownImageError, StoreUnavailableError: see `Store`.
    """
    analysis = await runtime.store.get(predictor.sha256, image_id)
    if not analysis.is_of(predictor.manifest):
        raise UnknownImageError("what is stored under this image id is not of this model; send the image again")
    return analysis


def choose_subject(manifest: Manifest, query: HeatmapQuery) -> tuple[Kind, int | None]:
    """Which heat is asked for: its kind and, for one class alone, the class id.

    Raises:
        InvalidParameterError: the parameters do not go together, or the model has no such class or level.
    """
    kind: Kind = query.kind or ("mixed" if query.class_name is None else "class")
    if query.class_name is not None and kind != "class":
        raise InvalidParameterError(f"class_name: only goes with kind=class, not with kind={kind}")
    levels = 1 if kind == "density" else len(manifest.strides)
    if query.level is not None and query.level >= levels:
        there = "level 0 alone" if levels == 1 else f"levels 0 to {levels - 1}"
        raise InvalidParameterError(f"level: kind={kind} has {there}, not {query.level}")
    class_id = None if query.class_name is None else find_class(manifest, query.class_name, "class_name")
    return kind, class_id


def _etag(predictor: Predictor, analysis: Analysis, query: StoredHeatmapQuery, settings: Settings) -> str:
    """What the drawing follows from. The id alone is too little: the same picture may be sent again, in tiles."""
    run = (analysis.frame, analysis.query_count, analysis.estimated_count)
    text = f"{predictor.sha256} {query.model_dump_json()} {settings.view_side} {run}"
    return f'"{sha256(text.encode()).hexdigest()[:32]}"'


def _answer(
    predictor: Predictor,
    analysis: Analysis,
    subject: tuple[Kind, int | None],
    query: HeatmapQuery,
    settings: Settings,
) -> Response:
    manifest = predictor.manifest
    kind, class_id = subject
    layer = select_layer(analysis.maps, manifest.strides, kind, query.level, class_id, query.class_name or "")
    headers = {"X-Image-ID": analysis.image_id, **ModelName.of(predictor).headers()}
    match query.format:
        case "json":
            return Response(_values(analysis, layer).model_dump_json(), media_type="application/json", headers=headers)
        case "npy":
            headers["X-Heatmap-Affine"] = ",".join(f"{number:.9g}" for number in layer.affine(analysis.frame))
            return Response(_npy(layer.cut_to(analysis.frame)), media_type="application/x-npy", headers=headers)
        case "png" | "webp":
            picture = decode_picture(analysis.upload, settings.max_pixels, manifest.input.pad_value).image
            view = shrink_to_view(picture, settings.view_side)
            image = render_overlay(view, layer, analysis.frame, query.opacity, query.colormap)
            if query.boxes:
                found = analysis.detections(DetectionOptions.from_manifest(manifest))
                draw_boxes(image, found, manifest.classes, analysis.frame)
            if query.legend:
                image = add_legend(image, layer, query.colormap)
            return Response(encode_image(image, query.format), media_type=f"image/{query.format}", headers=headers)


def _values(analysis: Analysis, layer: HeatLayer) -> HeatmapValues:
    frame = analysis.frame
    return HeatmapValues(
        image_id=analysis.image_id,
        width=frame.width,
        height=frame.height,
        title=layer.title,
        stride=layer.stride,
        top=layer.top,
        affine=layer.affine(frame),
        values=np.round(layer.cut_to(frame).astype(np.float64), 6).tolist(),
    )


def _npy(values: FloatArray) -> bytes:
    buffer = BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()
