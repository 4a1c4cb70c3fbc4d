"""Calls at a fixed rate of arrival, each timed from the moment when it was due.

A client that waits for an answer before it sends the next call leaves out just the calls that a slow service would
have kept waiting ("coordinated omission", Gil Tene); here nothing waits for an answer.
"""

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from service.bench.connection import Answer, Connection, Target
from service.bench.pictures import Picture

Arrivals = Literal["poisson", "uniform"]


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        due: seconds from the start of the run.
        late: seconds after that until it was sent: what the generator itself took too long.
        seconds: from when it was due to the last byte of its answer.
        outcome: the status, or `timeout`, or `no answer` where the connection failed.
        stages: milliseconds by stage, as the service says.
    """

    due: float
    late: float
    seconds: float
    outcome: str
    stages: dict[str, float] = field(default_factory=dict)


def arrival_times(rate: float, seconds: float, arrivals: Arrivals, seed: int) -> list[float]:
    """When calls are due, in seconds from the start.

    Poisson arrivals come independently of each other, as those of many users do: often close together. Uniform ones
    keep the same distance.
    """
    if arrivals == "uniform":
        return [number / rate for number in range(round(rate * seconds))]
    generator, times, now = random.Random(seed), [], 0.0
    while (now := now + generator.expovariate(rate)) < seconds:
        times.append(now)
    return times


class Load:
    """Sends pictures in turn, over as many connections as calls are open."""

    def __init__(self, target: Target, path: str, pictures: Sequence[Picture], timeout: float) -> None:
        self._target = target
        self._requests = [target.request("POST", path, each.data, each.media_type) for each in pictures]
        self._timeout = timeout
        self._idle: list[Connection] = []

    async def run(self, due: Sequence[float], progress: Callable[[float, int, list[Call]], None]) -> list[Call]:
        """Send one call at each of these times; returns when all are answered.

        Args:
            progress: called now and then with the seconds since the start, the calls sent, and those that are over.
        """
        loop = asyncio.get_running_loop()
        start, over, tasks = loop.time(), [], set[asyncio.Task[None]]()

        async def call(number: int, at: float) -> None:
            late = loop.time() - start - at
            outcome, stages = await self._ask(self._requests[number % len(self._requests)])
            over.append(Call(at, late, loop.time() - start - at, outcome, stages))

        for number, at in enumerate(due):
            while (wait := start + at - loop.time()) > 0:
                progress(loop.time() - start, number, over)
                await asyncio.sleep(min(wait, 0.25))
            await asyncio.sleep(0)  # when late, answers must be read all the same
            task = loop.create_task(call(number, at))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        while tasks:
            progress(loop.time() - start, len(due), over)
            await asyncio.wait(tasks, timeout=0.25)
        return sorted(over, key=lambda call: call.due)

    def close(self) -> None:
        """Close every connection."""
        while self._idle:
            self._idle.pop().close()

    async def _ask(self, request: bytes) -> tuple[str, dict[str, float]]:
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self._timeout):
                connection = self._take_idle() or await self._target.connect()
                answer = await connection.send(request)
        except TimeoutError:
            outcome, stages = "timeout", {}
        except OSError:
            outcome, stages = "no answer", {}
        else:
            self._idle.append(connection)
            return str(answer.status), _stages(answer)
        if connection is not None:
            connection.close()
        return outcome, stages

    def _take_idle(self) -> Connection | None:
        """The connection used last, so that those which are too many fall asleep."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None


def _stages(answer: Answer) -> dict[str, float]:
    return json.loads(answer.timing) if answer.status == 200 and answer.timing else {}
