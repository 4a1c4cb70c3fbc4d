"""Starts the servers that are compared, each in processes of its own, stops their clocks, and weighs them."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, sleep
from typing import TextIO

from benchmarks.load import Address, Call, connected

ROOT = Path(__file__).resolve().parents[1]
READY_SECONDS, STOP_SECONDS = 300.0, 60.0
OURS = "heatquery"
CORES = len(os.sched_getaffinity(0))
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": str(int(READY_SECONDS)),
    "RAY_agent_register_timeout_ms": str(int(READY_SECONDS * 1e3)),
}
"""No report to anyone, and patience on a slow machine."""


@dataclass(frozen=True)
class Variant:
    """One way to start a peer."""

    module: str
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join(self.options).replace("--", "") or "defaults"


_ONE, _TWO = ("--threads", "1"), ("--threads", "2")
PEERS: dict[str, tuple[Variant, ...]] = {
    "plain FastAPI": (
        Variant("plain", _ONE),
        Variant("plain", _TWO),
        Variant("plain", (*_TWO, "--spinning")),
    ),
    "LitServe": (
        Variant("lit", _ONE),
        Variant("lit", (*_ONE, "--fast-queue")),
        Variant("lit", (*_ONE, "--batch", "4")),
        Variant("lit", (*_TWO, "--workers", "1")),
    ),
    "Ray Serve": (
        Variant("ray_serve", _ONE, _RAY),
        Variant("ray_serve", (*_ONE, "--ongoing", "2"), _RAY),
    ),
}
"""What is tried of each peer before the comparison; the fastest takes part."""


@dataclass
class Server:
    """A running server: the process that was started and all of its children."""

    name: str
    settings: str
    address: Address
    process: subprocess.Popen[bytes]

    def pids(self) -> list[int]:
        """The process and its descendants, parents first."""
        children: dict[int, list[int]] = {}
        for status in Path("/proc").glob("[0-9]*/stat"):
            if (fields := _stat(status)) is not None:
                children.setdefault(int(fields[1]), []).append(int(status.parent.name))
        found = [self.process.pid]
        for pid in found:  # grows while it is walked
            found += children.get(pid, [])
        return found

    def cpu_seconds(self) -> float:
        """What all its processes have used so far."""
        fields = (_stat(Path(f"/proc/{pid}/stat")) for pid in self.pids())
        return sum((int(values[11]) + int(values[12])) / _TICKS_A_SECOND for values in fields if values)

    def freeze(self) -> None:
        """Stop its clock: what waits in the background must not take the cores of the server that is measured."""
        for pid in self.pids():
            _signal(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it run again, children first, so that nobody is missed."""
        for pid in reversed(self.pids()):
            _signal(pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it, and what is left of its children."""
        self.thaw()
        pids = self.pids()
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in pids[1:]:
            _signal(pid, signal.SIGKILL)


def start_ours(model_dir: Path, settings: Mapping[str, str], log: TextIO | None = None) -> Server:
    """`python -m service serve` with default settings, whatever this process was told.

    Args:
        settings: environment variables beside the defaults; the tables tell them.
    """
    name, version = model_dir.resolve().parts[-2:]
    models = str(model_dir.resolve().parents[1])
    port = free_port()
    command = [sys.executable, "-m", "service", "serve", "--port", str(port), "--models", models]
    command += ["--model", f"{name}/{version}"]
    told = ", ".join(f"{key}={value}" for key, value in settings.items()) or "defaults"
    return _start(OURS, told, port, command, settings, log)


def start_peer(
    name: str, variant: Variant, python: Path, model_dir: Path, cut: bool, log: TextIO | None = None
) -> Server:
    """One variant of a peer, in the environment of the peers.

    Args:
        cut: it leaves the padding of the canvas away, as ours does.
    """
    port = free_port()
    command = [str(python), "-m", f"benchmarks.serving_peers.{variant.module}", str(model_dir), "--port", str(port)]
    command += [*variant.options, *(["--cut"] if cut else [])]
    return _start(name, str(variant), port, command, variant.environment, log)


def _start(
    name: str, settings: str, port: int, command: Sequence[str], environment: Mapping[str, str], log: TextIO | None
) -> Server:
    output = log or subprocess.DEVNULL
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HEATQUERY_")}
    process = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT, env=inherited | dict(environment))
    return Server(name, settings, Address("127.0.0.1", port), process)


@contextmanager
def running(server: Server, call: Call) -> Iterator[Server]:
    """A server from its first answer on; it is ended in the end."""
    try:
        wait_for_answer(server, call)
        yield server
    finally:
        server.stop()


def wait_for_answer(server: Server, call: Call) -> float:
    """Ask until the answer is 200; returns seconds from now.

    Raises:
        RuntimeError: the process ended, or it took too long.
    """
    begun = perf_counter()
    while asyncio.run(ask(server.address, call))[0] != 200:
        if server.process.poll() is not None or perf_counter() - begun > READY_SECONDS:
            raise RuntimeError(f"{server.name} ({server.settings}) does not answer; its log says why (--log FILE)")
        sleep(0.01)
    return perf_counter() - begun


async def ask(address: Address, call: Call) -> tuple[int, bytes]:
    """One call on a connection of its own."""
    async with connected(address, at_most=1) as connections:
        return await connections.call(call)


def detections(server: Server, call: Call) -> list[dict]:
    """The boxes of one call, best first."""
    _, body = asyncio.run(ask(server.address, call))
    return json.loads(body)["detections"]


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def resident_mb(pids: Sequence[int]) -> float:
    """Resident memory of processes together, in MB."""
    pages = 0
    for pid in pids:
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        except (OSError, IndexError):
            continue  # it has just ended
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_files(pids: Sequence[int]) -> int:
    """File descriptors of processes together."""
    return sum(_entries(pid, "fd") for pid in pids)


def threads(pids: Sequence[int]) -> int:
    """Threads of processes together."""
    return sum(_entries(pid, "task") for pid in pids)


def _entries(pid: int, folder: str) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/{folder}"))
    except OSError:
        return 0


def _stat(path: Path) -> list[str] | None:
    """Fields of /proc/PID/stat behind the name: state, parent and so on; None where the process has ended."""
    try:
        return path.read_text(encoding="utf-8").rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
