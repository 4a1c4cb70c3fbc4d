"""The client for programs on asyncio."""

import asyncio
import os
from asyncio import sleep
from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path
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


class AsyncClient:
    """The methods of `Client`, to be awaited; files are read and pictures encoded in threads.

    Every call may raise `ProblemError` (the service said no), `UnreachableError` (no answer came) or
    `UnexpectedAnswerError` (something else answered).
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        retries: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            base_url: where the service listens, with the path before `/detect` if a proxy adds one.
            api_key: as the operator gave it.
            retries: how long and how often calls are tried.
            transport: httpx's, for a Unix socket, certificates of your own, or a test.
        """
        self.retries = retries or RetryPolicy()
        self._http = httpx.AsyncClient(**client_options(base_url, api_key), transport=transport)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def detect(self, picture: Picture, **options: Unpack[DetectOptions]) -> Detections:
        """Find the objects in one picture."""
        return await self._run(await asyncio.to_thread(detect_call, picture, options))

    async def detect_format(self, picture: Picture, format: DetectFormat, **options: Unpack[DetectOptions]) -> Document:
        """Find the objects in one picture, answered in another program's format."""
        return await self._run(await asyncio.to_thread(detect_format_call, picture, format, options))

    async def detect_many(
        self,
        pictures: Iterable[Picture],
        *,
        concurrency: int = 4,
        progress: Progress | None = None,
        **options: Unpack[DetectOptions],
    ) -> AsyncGenerator[PictureResult, None]:
        """As `Client.detect_many`: `async for` gives each result in the order given."""
        check_concurrency(concurrency)

        def start(picture: Picture) -> asyncio.Task[Detections]:
            return asyncio.create_task(self.detect(picture, **options))

        window = Window(pictures, start, concurrency, progress)
        try:
            while window.fill():
                if running := window.running():
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for result in window.finished():
                    yield result
        finally:
            left = window.left()
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def heatmap(
        self, picture: Picture | ImageId, *, format: ImageFormat = "png", **options: Unpack[DrawOptions]
    ) -> bytes:
        """Draw the heat of a picture over it; the `image_id` of an earlier result saves sending it again."""
        return await self._run(await asyncio.to_thread(heatmap_call, picture, format, options))

    async def heat_values(self, picture: Picture | ImageId, **options: Unpack[HeatOptions]) -> HeatValues:
        """The numbers behind a heat map."""
        return await self._run(await asyncio.to_thread(heat_values_call, picture, options))

    async def submit_scene(
        self, path: str | os.PathLike[str], *, progress: BytesProgress | None = None, **options: Unpack[SceneOptions]
    ) -> Scene:
        """Send a picture of any size as a job, in pieces.

        Args:
            path: of a GeoTIFF, JPEG or PNG.
            progress: called with the bytes sent and their number.
        """
        with SceneFile(path, progress) as file:
            return await self._run(submit_scene_call(file, options))

    async def scene(self, scene_id: str) -> Scene:
        """How far a scene is."""
        return await self._run(scene_call(scene_id))

    async def scenes(self) -> list[Scene]:
        """All scenes, the newest first; where callers have keys, those that came with this one."""
        return await self._run(scenes_call())

    async def wait_for_scene(
        self, scene_id: str, *, progress: Callable[[Scene], None] | None = None, interval: float = 1.0
    ) -> Scene:
        """Ask every `interval` seconds until a scene is done.

        Args:
            progress: called with each answer.
        Raises:
            SceneFailedError: it failed, or was cancelled.
        """
        while True:
            scene = await self.scene(scene_id)
            if progress is not None:
                progress(scene)
            if is_done(scene):
                return scene
            await sleep(interval)

    async def download_scene(
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
            await self._run(download_scene_call(scene_id, format, options, download))
        return download.path

    async def cancel_scene(self, scene_id: str) -> Scene:
        """End the work on a scene; what is finished of it is kept. A ProblemError of status 409 where it has ended."""
        return await self._run(cancel_scene_call(scene_id))

    async def retry_scene(self, scene_id: str) -> Scene:
        """Let a scene that failed or was cancelled go on from its last finished tile."""
        return await self._run(retry_scene_call(scene_id))

    async def delete_scene(self, scene_id: str) -> None:
        """Cancel a scene that waits or is worked on; delete one that has ended, with its results."""
        await self._run(delete_scene_call(scene_id))

    async def models(self) -> list[ModelInfo]:
        """What is loaded; empty before the service is ready."""
        return await self._run(models_call())

    async def ready(self) -> bool:
        """Whether the service answers and its model is loaded; asks once."""
        try:
            await self._run(ready_call(), RetryPolicy(deadline=self.retries.deadline, tries=1))
        except HeatqueryError as error:
            return said_not_ready(error)
        return True

    async def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Ask until the service is ready.

        Raises:
            HeatqueryError: it was not after `timeout` seconds; the message has the last reason.
        """
        await self._run(ready_call(), ready_policy(timeout))

    async def _run(self, call: Call[T], policy: RetryPolicy | None = None) -> T:
        steps = pursue(policy or self.retries, call.repeats)
        outcome: Outcome | None = None
        while True:
            match steps.send(outcome):
                case Send(timeout):
                    outcome = await self._send(call, timeout)
                case Wait(seconds):
                    await sleep(seconds)
                    outcome = None
                case Answered(response):
                    return call.result(response)

    async def _send(self, call: Call[T], timeout: float) -> Outcome:
        try:
            response = await self._http.send(call.request(self._http, timeout), stream=True)
            try:
                if call.download is None or response.is_error:
                    await response.aread()
                else:
                    call.download.begin(response)
                    async for data in response.aiter_bytes():
                        call.download.write(data)
            finally:
                await response.aclose()
            return response
        except httpx.TransportError as error:
            return error
