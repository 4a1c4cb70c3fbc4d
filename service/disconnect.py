"""Pure ASGI middleware: when the client leaves before its answer, the work for it is cancelled."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics


class DisconnectMiddleware:
    """Watches a connection from the end of the request body on; the app's task is cancelled when it closes.

    The server reports a closed connection only to those who ask for a further message, and a handler that waits for
    the model asks for none.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        work = asyncio.current_task()
        assert work is not None
        watch: asyncio.Task[Message] | None = None
        answering = False

        def cancel_work(watched: "asyncio.Task[Message]") -> None:
            if not (watched.cancelled() or answering):  # an answer on its way is let go: it costs nothing any more
                work.cancel()

        async def receive_and_watch() -> Message:
            nonlocal watch
            if watch is not None:  # the body has ended: all that can follow is the end of the connection
                return await asyncio.shield(watch)
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                watch = asyncio.create_task(_until_disconnect(receive))
                watch.add_done_callback(cancel_work)
            return message

        async def send_and_note(message: Message) -> None:
            nonlocal answering
            answering = True
            await send(message)

        try:
            await self.app(scope, receive_and_watch, send_and_note)
        except asyncio.CancelledError:
            if watch is None or not watch.done() or watch.cancelled():
                raise  # somebody else wants this task to end
            work.uncancel()
            self.metrics.rejected("cancelled")
        finally:
            if watch is not None:
                watch.cancel()


async def _until_disconnect(receive: Receive) -> Message:
    while (message := await receive())["type"] != "http.disconnect":
        pass
    return message
