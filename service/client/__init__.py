"""A client of the service, for Python programs: `Client`, and `AsyncClient` with the same methods.

It needs httpx, numpy and Pillow, and nothing of the server.
"""

from service.client.blocking import Client
from service.client.many import PictureResult
from service.client.nonblocking import AsyncClient
from service.client.pictures import Picture, PictureError
from service.client.problems import HeatqueryError, ProblemError, UnexpectedAnswerError, UnreachableError
from service.client.results import Detection, Detections, Document, HeatValues, ImageId, ModelInfo, ModelName
from service.client.retries import RetryPolicy
from service.client.scenes import Scene, SceneFailedError

__all__ = [
    "AsyncClient",
    "Client",
    "Detection",
    "Detections",
    "Document",
    "HeatValues",
    "HeatqueryError",
    "ImageId",
    "ModelInfo",
    "ModelName",
    "Picture",
    "PictureError",
    "PictureResult",
    "ProblemError",
    "RetryPolicy",
    "Scene",
    "SceneFailedError",
    "UnexpectedAnswerError",
    "UnreachableError",
]
