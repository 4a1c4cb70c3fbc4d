"""What handlers ask for, as typed dependencies."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request

from service.pipeline import Pipeline
from service.predictor import Predictor
from service.runtime import Runtime
from service.uploads import read_upload


async def get_runtime(request: Request) -> Runtime:
    """The runtime that the app factory made. Not a plain `def`: FastAPI would run that in a thread, on every call."""
    return request.app.state.runtime


RuntimeDep = Annotated[Runtime, Depends(get_runtime)]


async def get_pipeline(runtime: RuntimeDep) -> Pipeline:
    """The loaded model, at work; 503 before there is one."""
    return runtime.require_pipeline()


PipelineDep = Annotated[Pipeline, Depends(get_pipeline)]


async def get_predictor(pipeline: PipelineDep) -> Predictor:
    """The loaded model; 503 before there is one."""
    return pipeline.predictor


PredictorDep = Annotated[Predictor, Depends(get_predictor)]


async def read_admitted_upload(request: Request, runtime: RuntimeDep, _: PipelineDep) -> AsyncIterator[bytes]:
    """The picture of the request, read only where there is a model and a place for it, held until it is answered."""
    with runtime.gate.place():
        yield await read_upload(request)


# "function": the place is free again before the answer is sent, so that a slow reader does not keep it.
UploadDep = Annotated[bytes, Depends(read_admitted_upload, scope="function")]
