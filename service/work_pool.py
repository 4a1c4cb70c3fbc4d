"""A small bounded thread pool between the event loop and the work that would block it."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

from service.errors import DeadlineError, QueueFullError

Result = TypeVar("Result")


class WorkPool:
    """At most `workers` calls run and `waiting` more wait; a further one is refused at once.

    No more uploads than that are held in memory either, however slowly they arrive.
    """

    def __init__(self, workers: int, waiting: int, deadline_seconds: float) -> None:
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="heatquery")
        self._capacity = workers + waiting
        self._deadline_seconds = deadline_seconds
        self._lock = Lock()
        self._admitted = 0
        self._uploads = 0

    @property
    def is_full(self) -> bool:
        """Whether the next call would be refused."""
        return self._admitted >= self._capacity

    @contextmanager
    def upload_place(self) -> Iterator[None]:
        """Hold a place for one upload, from before its first byte is read until its bytes are done with.

        Refuses early, before a large body is read; a later `run` may still be refused, as other calls run too.

        Raises:
            QueueFullError: no place left.
        """
        with self._lock:
            self._require_room()
            if self._uploads >= self._capacity:
                raise QueueFullError(f"{self._capacity} uploads are on their way (HEATQUERY_QUEUE); try again soon")
            self._uploads += 1
        try:
            yield
        finally:
            with self._lock:
                self._uploads -= 1

    async def run(self, function: Callable[[], Result]) -> Result:
        """Run the function in a worker thread.

        A call that is past its deadline is answered at once; if it has begun, its thread finishes first and
        keeps its place until then, so that a pile of late work cannot grow unseen.

        Raises:
            QueueFullError, DeadlineError, and whatever the function raises.
        """
        with self._lock:
            self._require_room()
            self._admitted += 1
        job = self._executor.submit(function)
        job.add_done_callback(self._release)
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await asyncio.wrap_future(job)
        except TimeoutError as error:
            raise DeadlineError(f"not done after {self._deadline_seconds:g} s (HEATQUERY_DEADLINE_SECONDS)") from error

    def close(self) -> None:
        """Drop the calls that wait and let the running ones end."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _require_room(self) -> None:
        if self.is_full:
            raise QueueFullError(f"{self._capacity} calls are running or waiting (HEATQUERY_QUEUE); try again soon")

    def _release(self, job: "Future[Result]") -> None:
        with self._lock:
            self._admitted -= 1
