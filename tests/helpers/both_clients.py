"""`Client` and `AsyncClient` behind the same methods, so that one test holds for both."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from service.client import AsyncClient, Client

Connect = Callable[..., Client]
"""From an address and options to a client of either kind."""


class AsyncInDisguise:
    """`AsyncClient` behind the methods of `Client`: one event loop for each call."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._arguments, self._options = arguments, options

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            return asyncio.run(self._call(name, arguments, options))

        return call

    def close(self) -> None:
        """Nothing is left open between calls."""

    async def _call(self, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        async with AsyncClient(*self._arguments, **self._options) as client:
            answer = getattr(client, name)(*arguments, **options)
            if isinstance(answer, AsyncIterator):
                return [item async for item in answer]
            return await answer


@pytest.fixture(params=[Client, AsyncInDisguise], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes a client; what the tests below say holds for both kinds."""
    opened: list[Client] = []

    def make(address: object, **options: Any) -> Client:
        opened.append(request.param(str(address), **options))
        return opened[-1]

    yield make
    for client in opened:
        client.close()


def pretend_to_sleep(monkeypatch: pytest.MonkeyPatch, sleep: Callable[[float], None]) -> None:
    """Replace every sleep of the clients."""

    async def sleep_in_thread(seconds: float) -> None:
        await asyncio.to_thread(sleep, seconds)

    monkeypatch.setattr("service.client.blocking.sleep", sleep)
    monkeypatch.setattr("service.client.nonblocking.sleep", sleep_in_thread)
