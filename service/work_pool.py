"""Threads for what would block the event loop beside the model: reading pictures, drawing, sorting out boxes."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


class WorkPool:
    """A few threads; what is cancelled before it has begun never begins."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="heatquery-work")

    async def run(self, function: Callable[[], Result]) -> Result:
        """Run the function in a thread. Raises whatever it raises."""
        return await asyncio.wrap_future(self._executor.submit(function))

    def close(self) -> None:
        """Drop the work that waits and let the rest end."""
        self._executor.shutdown(wait=True, cancel_futures=True)
