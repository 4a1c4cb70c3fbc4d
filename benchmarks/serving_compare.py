"""The parts in which servers are compared: settings of the peers, saturation, waits at one rate, waits over load.

All run on one machine at once, but only one has its clock running: servers take turns round by round, in every other
round in reverse order, each with the same calls.
"""

import asyncio
from collections.abc import Sequence

import numpy as np

from benchmarks.load import closed_loop, open_loop
from benchmarks.serving_bench import Bench
from benchmarks.serving_figures import (
    OK,
    Choice,
    Curve,
    Latency,
    Saturation,
    Throughput,
    Waits,
    best_peer,
    calls_a_second,
    statuses,
)
from benchmarks.serving_servers import OURS, PEERS, Server

CALLERS = (2, 4, 8, 16)
LOADS = (0.3, 0.5, 0.7, 0.9)
LOAD = 0.7
LEAD_IN_SECONDS = 1.0
CHOICE_ROUNDS, CHOICE_SECONDS, CHOICE_CALLERS = 3, 5.0, 8
SATURATION_ROUNDS, SATURATION_SECONDS = 6, 8.0
LATENCY_ROUNDS, LATENCY_SECONDS = 5, 18.0
CURVE_SECONDS = 12.0


def choose(bench: Bench) -> Choice:
    """Try the variants of each peer."""
    tried: dict[str, dict[str, list[float]]] = {}
    for peer, variants in PEERS.items():
        servers = [bench.start_peer(peer, variant) for variant in variants]
        found: dict[str, list[float]] = {server.settings: [] for server in servers}
        with bench.frozen(servers):
            for number in range(CHOICE_ROUNDS):
                for server in in_turn(servers, number):
                    through = saturate(bench, server, CHOICE_CALLERS, CHOICE_SECONDS, number)
                    found[server.settings].append(through.calls_a_second)
        tried[peer] = found
    return Choice(provenance=bench.provenance, tried=tried)


def all_servers(bench: Bench, choice: Choice) -> list[Server]:
    """Ours with its default settings, each peer with those that were best."""
    servers = [bench.start_ours()]
    for peer, variants in PEERS.items():
        (best,) = [variant for variant in variants if str(variant) == choice.best(peer)]
        servers.append(bench.start_peer(peer, best))
    return servers


def measure_saturation(bench: Bench, servers: Sequence[Server]) -> Saturation:
    """First how many callers each likes best, then rounds with so many."""
    settings = {server.name: server.settings for server in servers}
    by_callers = {
        server.name: {
            callers: saturate(bench, server, callers, CHOICE_SECONDS, seed=callers).calls_a_second
            for callers in CALLERS
        }
        for server in servers
    }
    part = Saturation(
        provenance=bench.provenance,
        settings=settings,
        by_callers=by_callers,
        rounds={server.name: [] for server in servers},
    )
    for number in range(SATURATION_ROUNDS):
        for server in in_turn(servers, number):
            callers = part.callers(server.name)
            part.rounds[server.name].append(saturate(bench, server, callers, SATURATION_SECONDS, number))
    return part


def measure_latency(bench: Bench, servers: Sequence[Server], saturation: Saturation) -> Latency:
    """The same arrivals for all, at a share of what the best peer can do."""
    rate = LOAD * peer_saturation(saturation)
    rounds: dict[str, list[Waits]] = {server.name: [] for server in servers}
    for number in range(LATENCY_ROUNDS):
        for server in in_turn(servers, number):
            rounds[server.name].append(wait(bench, server, rate, LATENCY_SECONDS, number))
    settings = {server.name: server.settings for server in servers}
    seconds = LATENCY_SECONDS * bench.scale
    return Latency(provenance=bench.provenance, load=LOAD, rate=rate, seconds=seconds, settings=settings, rounds=rounds)


def measure_curve(bench: Bench, servers: Sequence[Server], saturation: Saturation) -> Curve:
    """One round at each load."""
    rates = {load: load * peer_saturation(saturation) for load in LOADS}
    waits: dict[str, dict[float, Waits]] = {server.name: {} for server in servers}
    for number, (load, rate) in enumerate(rates.items()):
        for server in in_turn(servers, number):
            waits[server.name][load] = wait(bench, server, rate, CURVE_SECONDS, number)
    return Curve(provenance=bench.provenance, waits=waits, rates=rates)


def peer_saturation(saturation: Saturation) -> float:
    """Calls a second of the best peer, median of its rounds."""
    rates = {server: saturation.rates(server) for server in saturation.rounds}
    return float(np.median(best_peer(rates, OURS, highest=True).values))


def saturate(bench: Bench, server: Server, callers: int, seconds: float, seed: int) -> Throughput:
    """One round in closed loop, with the clock of this server running."""
    server.thaw()
    before = server.cpu_seconds()
    answers = asyncio.run(closed_loop(server.address, bench.pictures.mixed(seed), callers, seconds * bench.scale))
    cpu = server.cpu_seconds() - before
    server.freeze()
    good = statuses(answers)[OK]
    through = Throughput(
        calls_a_second=calls_a_second(answers, min(LEAD_IN_SECONDS, seconds * bench.scale / 4)),
        cpu_ms_a_call=cpu * 1e3 / max(1, good),
        refused=len(answers) - good,
    )
    bench.say(
        f"{server.name} ({server.settings}), {callers} callers: {through.calls_a_second:.2f} calls/s, "
        f"{through.cpu_ms_a_call:.0f} ms of CPU a call"
    )
    return through


def wait(bench: Bench, server: Server, rate: float, seconds: float, seed: int) -> Waits:
    """One round in open loop, with the clock of this server running."""
    server.thaw()
    arrivals = bench.pictures.arrivals(rate, seconds * bench.scale, seed)
    waits = Waits.of(asyncio.run(open_loop(server.address, arrivals)))
    server.freeze()
    bench.say(f"{server.name}, {rate:.1f} calls/s: p50 {waits.p50:.0f} ms, p99 {waits.p99:.0f} ms")
    return waits


def in_turn(servers: Sequence[Server], number: int) -> list[Server]:
    """Forwards and backwards by turns."""
    return list(servers if number % 2 == 0 else reversed(servers))
