"""How many calls may be inside at once, and for how long."""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from service.errors import DeadlineError, QueueFullError

Result = TypeVar("Result")


class Gate:
    """Bounds the calls that are inside, from the first byte of an upload to its answer. For one event loop."""

    def __init__(self, capacity: int, deadline_seconds: float) -> None:
        self._capacity = capacity
        self._deadline_seconds = deadline_seconds
        self._inside = 0

    def require_room(self) -> None:
        """Raises QueueFullError if the next call would be refused."""
        if self._inside >= self._capacity:
            raise QueueFullError(
                f"{self._capacity} calls are being worked on or waiting (HEATQUERY_QUEUE); try again soon"
            )

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place. Raises QueueFullError at once where there is none."""
        self.require_room()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def within_deadline(self, work: Awaitable[Result]) -> Result:
        """Wait for the work, and cancel it when its time is over.

        What has begun in a thread ends there, unheard; there are never more of these than threads.

        Raises:
            DeadlineError, and whatever the work raises.
        """
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await work
        except TimeoutError as error:
            raise DeadlineError(f"not done after {self._deadline_seconds:g} s (HEATQUERY_DEADLINE_SECONDS)") from error
