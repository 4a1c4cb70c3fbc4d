"""Label Studio's ML backend protocol: the service as a model that pre-annotates pictures in a project."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from service.dependencies import PipelineDep, PredictorDep, RuntimeDep
from service.detections import DetectionOptions
from service.errors import ServiceError
from service.formats import model_version, to_labelstudio_prediction
from service.labelstudio import (
    BackendHealth,
    PredictAnswer,
    PredictRequest,
    SetupAnswer,
    SetupRequest,
    decode_picture_uri,
    find_picture,
    read_labelling,
)
from service.routers.detect import detect_objects
from service.routers.documentation import json_body
from service.routers.problems import HEALTH_PROBLEMS, SETUP_PROBLEMS, UPLOAD_PROBLEMS
from service.schemas import ModelName
from service.uploads import read_json

router = APIRouter(tags=["label studio"])


async def read_setup(request: Request, runtime: RuntimeDep, _: PredictorDep) -> AsyncIterator[SetupRequest]:
    """The body, held like an upload: it may be as large."""
    with runtime.gate.place():
        yield await read_json(request, SetupRequest)


async def read_tasks(request: Request, runtime: RuntimeDep, _: PredictorDep) -> AsyncIterator[PredictRequest]:
    """The body, held like an upload: it holds some."""
    with runtime.gate.place():
        yield await read_json(request, PredictRequest)


@router.get("/health", responses=HEALTH_PROBLEMS)
async def backend_health(predictor: PredictorDep) -> BackendHealth:
    """Whether Label Studio can connect: as GET /readyz."""
    return BackendHealth(status="UP", model_class=predictor.manifest.name)


@router.post("/setup", openapi_extra=json_body(SetupRequest), responses=SETUP_PROBLEMS)
async def set_up_project(
    body: Annotated[SetupRequest, Depends(read_setup, scope="function")], predictor: PredictorDep
) -> SetupAnswer:
    """Check that the model can draw in a project: RectangleLabels on an Image, with a label that it knows."""
    read_labelling(body.label_config).classes(predictor.manifest)
    return SetupAnswer(model_version=model_version(ModelName.of(predictor)))


@router.post("/predict", openapi_extra=json_body(PredictRequest), responses=UPLOAD_PROBLEMS)
async def predict_tasks(
    body: Annotated[PredictRequest, Depends(read_tasks, scope="function")],
    pipeline: PipelineDep,
    runtime: RuntimeDep,
) -> PredictAnswer:
    """Boxes for each task. The first picture that cannot be used ends the call: the protocol has no partial answer."""
    predictor = pipeline.predictor
    labelling = read_labelling(body.label_config)
    options = DetectionOptions.from_manifest(predictor.manifest, classes=labelling.classes(predictor.manifest))
    uris: list[str] = []
    for number, task in enumerate(body.tasks):  # all of them before any is worked on
        with _naming_task(number):
            uris.append(find_picture(task, labelling.data_key))
    results = []
    for number, uri in enumerate(uris):
        with _naming_task(number):
            data = await asyncio.to_thread(decode_picture_uri, uri)
            answer = await detect_objects(data, options, "auto", pipeline, runtime)
            results.append(to_labelstudio_prediction(answer, labelling.from_name, labelling.to_name))
    return PredictAnswer(results=results, model_version=model_version(ModelName.of(predictor)))


@contextmanager
def _naming_task(number: int) -> Iterator[None]:
    """Say in an error which task it is about."""
    try:
        yield
    except ServiceError as error:
        error.args = (f"tasks.{number}: {error}",)
        raise
