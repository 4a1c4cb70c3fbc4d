"""The parts that take long: ten times the load that the service can take, and half an hour of everything."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

import numpy as np

from benchmarks.load import closed_loop, get, open_loop
from benchmarks.serving_bench import Bench
from benchmarks.serving_figures import BUSY, OK, Overload, Soak, Waits, calls_a_second, slope, statuses
from benchmarks.serving_servers import Server, ask, open_files, resident_mb, running, threads
from benchmarks.serving_soak import Visitors
from service.settings import Settings

TIMES, OVERLOAD_SECONDS, CONNECTIONS = 10, 60.0, 512
CALLERS, SATURATION_SECONDS = 8, 10.0
FILLING_SECONDS, STEADY = 10.0, 0.02
"""The store of results is full when twice as many calls add a smaller share than this; seconds of the first calls."""
REST_SECONDS = 2.0
SETTLED_AFTER = 15
"""Seconds of the overload that do not count for the slope of memory: more calls are held at once than before."""
SOAK_WARM_UP, SOAK_WINDOW = 0.1, 0.05
"""Shares of the soak: what comes before memory is compared, and how long it is looked at, in the begin and the end."""


def measure_overload(bench: Bench) -> Overload:
    """Fill the store, find the saturation, send many times as much, rest two seconds, find the saturation again."""
    server = bench.start_ours()
    with running(server, bench.pictures.sparse[0]):
        return asyncio.run(_overload(bench, server))


async def _overload(bench: Bench, server: Server) -> Overload:
    await fill_store(bench, server)
    before = await _saturation(bench, server)
    seconds = OVERLOAD_SECONDS * bench.scale
    arrivals = bench.pictures.arrivals(TIMES * before, seconds, seed=0)
    bench.say(f"saturation {before:.1f} calls/s; now {TIMES * before:.0f} calls/s for {seconds:.0f} s")
    begun = perf_counter()
    async with memory_watched(server) as resident:
        answers = await open_loop(server.address, arrivals, CONNECTIONS)
    await asyncio.sleep(max(0.0, seconds + REST_SECONDS - (perf_counter() - begun)))
    after = await _saturation(bench, server)
    settled = resident[min(SETTLED_AFTER, len(resident) // 2) :]
    refused = [answer.milliseconds for answer in answers if answer.status == BUSY]
    return Overload(
        provenance=bench.provenance,
        times=TIMES,
        seconds=seconds,
        deadline_seconds=Settings().deadline_seconds,
        before=before,
        during=calls_a_second(answers, lead_in=0.0),
        after=after,
        statuses=dict(statuses(answers)),
        accepted=Waits.of([answer for answer in answers if answer.status == OK]),
        refusal_p99_ms=float(np.percentile(refused, 99)) if refused else 0.0,
        resident_mb=resident,
        slope_mb_a_minute=slope(range(len(settled)), settled),
    )


async def fill_store(bench: Bench, server: Server) -> None:
    """Call until the store holds what it may: until then memory grows by what is kept on purpose."""
    before, held, seconds = -1.0, 0.0, FILLING_SECONDS
    while held > (1 + STEADY) * before:
        await closed_loop(server.address, bench.pictures.mixed(1), CALLERS, seconds)
        before, held = held, await _stored_bytes(server)
        seconds *= 2  # as each loop begins with the pictures of the one before
    bench.say(f"the store of results holds {held / 1e6:.0f} MB")


async def _stored_bytes(server: Server) -> float:
    _, page = await ask(server.address, get("metrics", "/metrics"))
    (line,) = [line for line in page.decode().splitlines() if line.startswith("heatquery_store_bytes ")]
    return float(line.split()[1])


async def _saturation(bench: Bench, server: Server) -> float:
    seconds = SATURATION_SECONDS * bench.scale
    return calls_a_second(await closed_loop(server.address, bench.pictures.mixed(0), CALLERS, seconds), seconds / 10)


def measure_soak(bench: Bench, minutes: float) -> Soak:
    """Pictures of all sizes and types, heat maps, errors and clients that leave, by a few visitors at once."""
    server = bench.start_ours()
    with running(server, bench.pictures.sparse[0]):
        return asyncio.run(_soak(bench, server, minutes))


async def _soak(bench: Bench, server: Server, minutes: float) -> Soak:
    visitors = Visitors(server.address, bench.pictures)
    seconds = minutes * 60
    pids = server.pids()
    async with memory_watched(server) as resident:
        await visitors.come(seconds * SOAK_WARM_UP)
        warm, files, tasks = len(resident), open_files(pids), threads(pids)
        bench.say(f"warm after {seconds * SOAK_WARM_UP:.0f} s: {resident[-1]:.0f} MB")
        await visitors.come(seconds * (1 - SOAK_WARM_UP))
        files, tasks = (files, open_files(pids)), (tasks, threads(pids))
    window = max(1, int(seconds * SOAK_WINDOW))
    return Soak(
        provenance=bench.provenance,
        minutes=minutes,
        calls=dict(visitors.calls),
        surprises=visitors.surprises,
        resident_mb=resident,
        begin_mb=float(np.mean(resident[warm - 1 : warm - 1 + window])),
        end_mb=float(np.mean(resident[-window:])),
        open_files=files,
        threads=tasks,
    )


@asynccontextmanager
async def memory_watched(server: Server) -> AsyncIterator[list[float]]:
    """Resident memory of the server in MB, one more value every second."""
    pids = server.pids()
    resident = [resident_mb(pids)]

    async def watch() -> None:
        while True:
            await asyncio.sleep(1)
            resident.append(resident_mb(pids))

    watching = asyncio.create_task(watch())
    try:
        yield resident
    finally:
        watching.cancel()
