"""The service's container: started locked down, asked, stopped."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from engine import LOCKED_DOWN, PODMAN, run

IMAGE = "localhost/heatquery:container-test"
MOST_MEMORY_MB = 700


@dataclass(frozen=True)
class Container:
    """A running service."""

    name: str
    port: int

    @cached_property
    def process(self) -> int:
        """Its process, as the host numbers it."""
        return int(run(*PODMAN, "inspect", "--format", "{{.State.Pid}}", self.name))

    def status(self, field: str) -> str:
        """A line of /proc/PID/status, such as CapEff or VmHWM."""
        text = Path(f"/proc/{self.process}/status").read_text()
        return next(line.split(":")[1].strip() for line in text.splitlines() if line.startswith(f"{field}:"))

    def ask(self, path: str, body: bytes | None = None) -> int:
        """Status of one call on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET" if body is None else "POST", path, body, {"Content-Type": "image/png"})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def python(self, program: str) -> str:
        """What a program prints that runs in the container, as its user."""
        return run(*PODMAN, "exec", self.name, "python", "-c", program).strip()

    def stop(self) -> None:
        """Send SIGTERM, as every engine does to stop a container."""
        run(*PODMAN, "kill", "--signal", "TERM", self.name)

    def exit_status(self) -> int:
        """Wait for its end."""
        return int(run(*PODMAN, "wait", self.name))


@contextmanager
def running() -> Iterator[tuple[Container, float]]:
    """The service, locked down, and the seconds that it took from the command to the first `ready`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    # On the host's network: engines without a bridge of their own can run it, too.
    here = ("--network", "host", "--env", "HEATQUERY_HOST=127.0.0.1", "--env", f"HEATQUERY_PORT={port}")
    limit = ("--memory", f"{MOST_MEMORY_MB}m")
    begun = time.monotonic()
    name = run(*PODMAN, "run", "--detach", *LOCKED_DOWN, *limit, *here, IMAGE).strip()
    container = Container(name, port)
    try:
        while not is_ready(container):
            if time.monotonic() - begun > 60:
                raise TimeoutError(f"not ready after 60 s:\n{run(*PODMAN, 'logs', name)}")
            time.sleep(0.02)
        yield container, time.monotonic() - begun
    finally:
        run(*PODMAN, "rm", "--force", "--time", "1", name)


def is_ready(container: Container) -> bool:
    """Whether the service answers, and says that it is ready."""
    try:
        return container.ask("/readyz") == 200
    except (OSError, HTTPException):
        return False
