"""The parts that concern our service alone: time to ready, overhead over the bare graphs, sparse beside crowded."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter, process_time, sleep

import numpy as np

from benchmarks.load import Call, Connections, closed_loop, connected, get, open_loop
from benchmarks.serving_bench import Bench
from benchmarks.serving_figures import OK, Mixed, Overhead, Start, Waits
from benchmarks.serving_peers.work import Pipeline
from benchmarks.serving_pictures import SPARSE
from benchmarks.serving_servers import CORES, Server, running, wait_for_answer

STARTS = 5
OVERHEAD_CALLS, OVERHEAD_WARM_UP = 120, 5
SETTLE_SECONDS = 6.0
"""In which a service that is ready loads what it needs later: the engine for crowds, the readers of scenes."""
MIXED_LOAD = 0.5
MIXED_ROUNDS, MIXED_SECONDS = 5, 15.0
CALLERS, SATURATION_SECONDS = 8, 8.0


def measure_start(bench: Bench) -> Start:
    """Start the service several times, with files that the system has read before."""
    ready, first_answer = [], []
    for _ in range(STARTS + 1):
        begun = perf_counter()
        server = bench.start_ours()
        try:
            wait_for_answer(server, get("ready", "/readyz"))
            ready.append(perf_counter() - begun)
            wait_for_answer(server, bench.pictures.sparse[0])
            first_answer.append(perf_counter() - begun)
        finally:
            server.stop()
        bench.say(f"ready after {ready[-1]:.2f} s, first answer after {first_answer[-1]:.2f} s")
    return Start(provenance=bench.provenance, ready=ready[1:], first_answer=first_answer[1:])


def measure_overhead(bench: Bench) -> Overhead:
    """The same picture by turns through the bare graphs in this process, and over HTTP; first one, then the other."""
    bare = Pipeline(bench.model_dir, CORES, cut=True)
    server = bench.start_ours()
    with running(server, bench.pictures.sparse[0]):
        calls = [call for call, _ in zip(bench.pictures.mixed(0), range(bench.scaled(OVERHEAD_CALLS)), strict=False)]
        sleep(SETTLE_SECONDS)
        asyncio.run(_by_turns(server, bare, calls[:OVERHEAD_WARM_UP]))
        before = server.cpu_seconds()
        turns = asyncio.run(_by_turns(server, bare, calls))
        served_cpu_ms = (server.cpu_seconds() - before) * 1e3 / len(calls)
    return Overhead(
        provenance=bench.provenance,
        settings=server.settings,
        bare_ms=turns.bare_ms,
        served_ms=turns.served_ms,
        bare_cpu_ms=float(np.mean(turns.bare_cpu_ms)),
        served_cpu_ms=served_cpu_ms,
    )


@dataclass(frozen=True)
class _Turns:
    """Milliseconds of each call."""

    bare_ms: list[float] = field(default_factory=list)
    bare_cpu_ms: list[float] = field(default_factory=list)
    served_ms: list[float] = field(default_factory=list)


async def _by_turns(server: Server, bare: Pipeline, calls: Sequence[Call]) -> _Turns:
    turns = _Turns()
    async with connected(server.address, at_most=1) as connections:
        for number, call in enumerate(calls):
            for served in (True, False) if number % 2 else (False, True):
                begun, cpu = perf_counter(), process_time()
                if served:
                    await _require_ok(connections, call)
                    turns.served_ms.append((perf_counter() - begun) * 1e3)
                else:
                    bare.detect(call.picture)
                    turns.bare_ms.append((perf_counter() - begun) * 1e3)
                    turns.bare_cpu_ms.append((process_time() - cpu) * 1e3)
    return turns


async def _require_ok(connections: Connections, call: Call) -> None:
    status, body = await connections.call(call)
    if status != OK:
        raise RuntimeError(f"the service answered {status}: {body[:200]!r}")


def measure_mixed(bench: Bench) -> Mixed:
    """Waits of sparse pictures: alone, with more of their kind, and with crowded ones at the same times."""
    server = bench.start_ours()
    waits: dict[str, list[Waits]] = {"alone": [], "as_many": [], "mixed": []}
    used = dict.fromkeys(waits, 0.0)
    with running(server, bench.pictures.sparse[0]):
        seconds = SATURATION_SECONDS * bench.scale
        answers = asyncio.run(closed_loop(server.address, bench.pictures.mixed(0), CALLERS, seconds))
        rate = MIXED_LOAD * len(answers) / max(answer.done for answer in answers)
        length = MIXED_SECONDS * bench.scale
        for number in range(MIXED_ROUNDS):
            arms = _arms(bench, rate, length, number)
            for name in arms if number % 2 else reversed(arms):
                before = server.cpu_seconds()
                waits[name].append(Waits.of(asyncio.run(open_loop(server.address, arms[name])), SPARSE))
                used[name] += server.cpu_seconds() - before
                bench.say(f"sparse pictures, {name}: p50 {waits[name][-1].p50:.0f} ms")
    busy = {name: cpu / (MIXED_ROUNDS * length * CORES) for name, cpu in used.items()}
    return Mixed(provenance=bench.provenance, rate=rate, load=MIXED_LOAD, busy=busy, **waits)  # pyright: ignore[reportArgumentType]


def _arms(bench: Bench, rate: float, seconds: float, seed: int) -> dict[str, list[tuple[float, Call]]]:
    """Three loads in which the sparse pictures of the mix come at the same times."""
    mixed = bench.pictures.arrivals(rate, seconds, seed)
    others = bench.pictures.only_sparse(seed + 1)
    as_many = [(time, call if call.kind == SPARSE else next(others).of_kind("in its place")) for time, call in mixed]
    return {"alone": [(time, call) for time, call in mixed if call.kind == SPARSE], "as_many": as_many, "mixed": mixed}
