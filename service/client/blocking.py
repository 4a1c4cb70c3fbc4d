"""The client for ordinary programs."""

import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from time import sleep
from types import TracebackType
from typing import TypeVar, Unpack

import httpx

from service.client.calls import (
    Call,
    DetectFormat,
    DetectOptions,
    DrawOptions,
    HeatOptions,
    ImageFormat,
    cancel_scene_call,
    delete_scene_call,
    detect_call,
    detect_format_call,
    download_scene_call,
    heat_values_call,
    heatmap_call,
    models_call,
    ready_call,
    retry_scene_call,
    scene_call,
    scenes_call,
    submit_scene_call,
)
from service.client.connection import client_options, ready_policy, said_not_ready
from service.client.many import PictureResult, Progress, Window, check_concurrency
from service.client.pictures import Picture
from service.client.problems import HeatqueryError
from service.client.results import Detections, Document, HeatValues, ImageId, ModelInfo
from service.client.retries import Answered, Outcome, RetryPolicy, Send, Wait, pursue
from service.client.scenes import (
    BytesProgress,
    Download,
    Scene,
    SceneFile,
    SceneFormat,
    SceneOptions,
    SceneResultOptions,
    is_done,
)

T = TypeVar("T")


class Client:
    """A service at one address, over connections that are kept; threads may share it.

    Every call may raise `ProblemError` (the service said no), `UnreachableError` (no answer came) or
    `UnexpectedAnswerError` (something else answered).
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        retries: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            base_url: where the service listens, with the path before `/detect` if a proxy adds one.
            api_key: as the operator gave it.
            retries: how long and how often calls are tried.
            transport: httpx's, for a Unix socket, certificates of your own, or a test.
        """
        self.retries = retries or RetryPolicy()
        self._http = httpx.Client(**client_options(base_url, api_key), transport=transport)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def detect(self, picture: Picture, **options: Unpack[DetectOptions]) -> Detections:
        """Find the objects in one picture."""
        return self._run(detect_call(picture, options))

    def detect_format(self, picture: Picture, format: DetectFormat, **options: Unpack[DetectOptions]) -> Document:
        """Find the objects in one picture, answered in another program's format."""
        return self._run(detect_format_call(picture, format, options))

    def detect_many(
        self,
        pictures: Iterable[Picture],
        *,
        concurrency: int = 4,
        progress: Progress | None = None,
        **options: Unpack[DetectOptions],
    ) -> Generator[PictureResult, None, None]:
        """Find the objects in many pictures: each result in the order given, as soon as it and those before are done.

        A picture that cannot be read or is refused has its error in its result; an error that all others would meet
        too, such as a wrong API key, is raised.

        Args:
            concurrency: calls at the same time.
            progress: called in this thread with the number done, in any order, and the number there is if known.
        """
        check_concurrency(concurrency)
        with ThreadPoolExecutor(concurrency, "heatquery") as pool:

            def start(picture: Picture) -> Future[Detections]:
                return pool.submit(self.detect, picture, **options)

            window = Window(pictures, start, concurrency, progress)
            while window.fill():
                wait(window.running(), return_when=FIRST_COMPLETED)
                yield from window.finished()

    def heatmap(
        self, picture: Picture | ImageId, *, format: ImageFormat = "png", **options: Unpack[DrawOptions]
    ) -> bytes:
        """Draw the heat of a picture over it; the `image_id` of an earlier result saves sending it again."""
        return self._run(heatmap_call(picture, format, options))

    def heat_values(self, picture: Picture | ImageId, **options: Unpack[HeatOptions]) -> HeatValues:
        """The numbers behind a heat map."""
        return self._run(heat_values_call(picture, options))

    def submit_scene(
        self, path: str | os.PathLike[str], *, progress: BytesProgress | None = None, **options: Unpack[SceneOptions]
    ) -> Scene:
        """Send a picture of any size as a job, in pieces.

        Args:
            path: of a GeoTIFF, JPEG or PNG.
            progress: called with the bytes sent and their number.
        """
        with SceneFile(path, progress) as file:
            return self._run(submit_scene_call(file, options))

    def scene(self, scene_id: str) -> Scene:
        """How far a scene is."""
        return self._run(scene_call(scene_id))

    def scenes(self) -> list[Scene]:
        """All scenes, the newest first; where callers have keys, those that came with this one."""
        return self._run(scenes_call())

    def wait_for_scene(
        self, scene_id: str, *, progress: Callable[[Scene], None] | None = None, interval: float = 1.0
    ) -> Scene:
        """Ask every `interval` seconds until a scene is done.

        Args:
            progress: called with each answer.
        Raises:
            SceneFailedError: it failed, or was cancelled.
        """
        while True:
            scene = self.scene(scene_id)
            if progress is not None:
                progress(scene)
            if is_done(scene):
                return scene
            sleep(interval)

    def download_scene(
        self,
        scene_id: str,
        path: str | os.PathLike[str],
        format: SceneFormat = "geojson",
        *,
        progress: BytesProgress | None = None,
        **options: Unpack[SceneResultOptions],
    ) -> Path:
        """Write what was found in a scene that is done to a file, which appears when it is whole.

        Args:
            format: "heat" is the GeoTIFF of a scene that was sent with `heat=True`.
            progress: called with the bytes received, and their number if known.
        """
        with Download(path, progress) as download:
            self._run(download_scene_call(scene_id, format, options, download))
        return download.path

    def cancel_scene(self, scene_id: str) -> Scene:
        """End the work on a scene; what is finished of it is kept. A ProblemError of status 409 where it has ended."""
        return self._run(cancel_scene_call(scene_id))

    def retry_scene(self, scene_id: str) -> Scene:
        """Let a scene that failed or was cancelled go on from its last finished tile."""
        return self._run(retry_scene_call(scene_id))

    def delete_scene(self, scene_id: str) -> None:
        """Cancel a scene that waits or is worked on; delete one that has ended, with its results."""
        self._run(delete_scene_call(scene_id))

    def models(self) -> list[ModelInfo]:
        """What is loaded; empty before the service is ready."""
        return self._run(models_call())

    def ready(self) -> bool:
        """Whether the service answers and its model is loaded; asks once."""
        try:
            self._run(ready_call(), RetryPolicy(deadline=self.retries.deadline, tries=1))
        except HeatqueryError as error:
            return said_not_ready(error)
        return True

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Ask until the service is ready.

        Raises:
            HeatqueryError: it was not after `timeout` seconds; the message has the last reason.
        """
        self._run(ready_call(), ready_policy(timeout))

    def _run(self, call: Call[T], policy: RetryPolicy | None = None) -> T:
        steps = pursue(policy or self.retries, call.repeats)
        outcome: Outcome | None = None
        while True:
            match steps.send(outcome):
                case Send(timeout):
                    outcome = self._send(call, timeout)
                case Wait(seconds):
                    sleep(seconds)
                    outcome = None
                case Answered(response):
                    return call.result(response)

    def _send(self, call: Call[T], timeout: float) -> Outcome:
        try:
            response = self._http.send(call.request(self._http, timeout), stream=True)
            try:
                if call.download is None or response.is_error:
                    response.read()
                else:
                    call.download.begin(response)
                    for data in response.iter_bytes():
                        call.download.write(data)
            finally:
                response.close()
            return response
        except httpx.TransportError as error:
            return error
