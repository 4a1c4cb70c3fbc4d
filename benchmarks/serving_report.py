"""What benchmarks/serving.py found, as the tables of docs/serving.md."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from benchmarks.book_result import Row
from benchmarks.peer_report import Spread, short_commit
from benchmarks.serving_figures import (
    BUSY,
    OK,
    Choice,
    Figures,
    Latency,
    Mixed,
    Overhead,
    Overload,
    Part,
    Saturation,
    Soak,
    Start,
    Waits,
    best_peer,
    ratio,
)
from benchmarks.serving_servers import OURS

BEGIN, END = "<!-- serving: begin -->", "<!-- serving: end -->"
MOST_OVERHEAD_PERCENT, MOST_OVERHEAD_MS = 8.0, 6.0
FULL_SPEED = 0.95
"""Of the throughput before the overload: less is not full speed. Two such rounds differ by a few percent."""


def report(figures: Figures) -> list[str]:
    """A section for each part that was measured, with where and when."""
    lines: list[str] = []
    for title, part, section in _sections(figures):
        lines += [f"### {title}", "", _origin(part), "", *section, ""]
    return lines[:-1]


def aims_table(rows: Iterable[Row]) -> list[str]:
    """What was measured beside what it was to be."""
    lines = ["| figure | aim | measured | |", "|---|---|---|---|"]
    return lines + [f"| {row.claim} | {row.aim} | {row.measured} | {row.verdict} |" for row in rows]


def _sections(figures: Figures) -> Iterator[tuple[str, Part, Iterator[str]]]:
    if figures.choice:
        yield "Settings of the peers", figures.choice, _choice_section(figures.choice)
    if figures.saturation:
        yield "Saturation", figures.saturation, _saturation_section(figures.saturation)
    if figures.latency:
        yield "Waits at one rate", figures.latency, _latency_section(figures.latency)
    if figures.overhead:
        yield "Overhead over the bare graphs", figures.overhead, _overhead_section(figures.overhead)
    if figures.mixed:
        yield "Sparse pictures beside crowded ones", figures.mixed, _mixed_section(figures.mixed)
    if figures.overload:
        yield "Overload", figures.overload, _overload_section(figures.overload)
    if figures.start:
        yield "From start to ready", figures.start, _start_section(figures.start)
    if figures.soak:
        yield "Soak", figures.soak, _soak_section(figures.soak)


def verdicts(figures: Figures) -> list[Row]:
    """Of every part that was measured."""
    makers: list[tuple[Part | None, Callable[..., Iterator[Row]]]] = [
        (figures.saturation, _judge_saturation),
        (figures.latency, _judge_latency),
        (figures.overhead, _judge_overhead),
        (figures.mixed, _judge_mixed),
        (figures.overload, _judge_overload),
        (figures.start, _judge_start),
        (figures.soak, _judge_soak),
    ]
    return [row for part, judge in makers if part is not None for row in judge(part)]


def _judge_saturation(part: Saturation) -> Iterator[Row]:
    best = best_peer({server: part.rates(server) for server in part.rounds}, OURS, highest=True)
    found = ratio(part.rates(OURS), best.values)
    yield Row.of(f"calls a second at saturation, by {best.peer}'s", found, "x", at_least=1.15)


def _judge_latency(part: Latency) -> Iterator[Row]:
    best = best_peer({server: part.p99(server) for server in part.rounds}, OURS, highest=False)
    found = ratio(part.p99(OURS), best.values)
    yield Row.of(f"p99 at {part.load:.0%} load, by {best.peer}'s", found, "x", at_most=0.8)


def _judge_overhead(part: Overhead) -> Iterator[Row]:
    """By the aim that is nearer: one of both is enough."""
    added = Spread.of(np.subtract(part.served_ms, part.bare_ms))
    percent = 100 * added.median / float(np.median(part.bare_ms))
    if added.median / MOST_OVERHEAD_MS <= percent / MOST_OVERHEAD_PERCENT:
        yield Row.of(f"overhead over the bare graphs ({percent:.1f} %)", added, "ms", at_most=MOST_OVERHEAD_MS)
    else:
        name = f"overhead over the bare graphs ({added.told(1)} ms)"
        yield Row(claim=name, value=percent, unit="%", at_most=MOST_OVERHEAD_PERCENT)


def _judge_mixed(part: Mixed) -> Iterator[Row]:
    found = ratio(_p50s(part.mixed), _p50s(part.alone))
    yield Row.of("p50 of sparse pictures beside crowded ones, by that alone", found, "x", at_most=1.2)


def _judge_overload(part: Overload) -> Iterator[Row]:
    name = f"{part.times:g} x overload for {part.seconds:.0f} s"
    others = sum(number for status, number in part.statuses.items() if status not in (OK, BUSY))
    yield Row(claim=f"{name}: answers beside 200 and 429", value=others, at_most=0)
    deadline, p99 = part.deadline_seconds, part.accepted.p99 / 1e3
    yield Row(claim=f"{name}: accepted p99", value=p99, unit="s", at_most=deadline)
    growth = part.slope_mb_a_minute
    yield Row(claim=f"{name}: growth of memory", value=growth, unit="MB a minute", at_most=1)
    again = part.after / part.before
    yield Row(claim="speed 2 s after it, by that before", value=again, unit="x", at_least=FULL_SPEED)


def _judge_start(part: Start) -> Iterator[Row]:
    yield Row.of("start to ready", Spread.of(np.array(part.ready)), "s", at_most=2)


def _judge_soak(part: Soak) -> Iterator[Row]:
    name = f"drift of memory in {part.minutes:g} minutes of soak"
    yield Row(claim=name, value=abs(_drift(part)), unit="%", at_most=5)


def _choice_section(part: Choice) -> Iterator[str]:
    yield "| server | settings tried | calls/s | |"
    yield "|---|---|--:|---|"
    for peer, tried in part.tried.items():
        for settings, rates in tried.items():
            chosen = "taken" if settings == part.best(peer) else ""
            yield f"| {peer} | {settings} | {Spread.of(np.array(rates)).told(2)} | {chosen} |"


def _saturation_section(part: Saturation) -> Iterator[str]:
    best = best_peer({server: part.rates(server) for server in part.rounds}, OURS, highest=True)
    columns = sorted({callers for found in part.by_callers.values() for callers in found})
    yield f"| server | settings | callers | calls/s | by {best.peer}'s | CPU ms a call | {_callers(columns)} |"
    yield "|---|---|--:|--:|--:|--:|" + "--:|" * len(columns)
    for server, rounds in part.rounds.items():
        rates = Spread.of(np.array(part.rates(server))).told(2)
        cpu = Spread.of(np.array([round.cpu_ms_a_call for round in rounds])).told(0)
        by_best = ratio(part.rates(server), best.values).told(2)
        searched = " | ".join(f"{part.by_callers[server][number]:.1f}" for number in columns)
        who = f"{server} | {part.settings[server]} | {part.callers(server)}"
        yield f"| {who} | {rates} | {by_best} | {cpu} | {searched} |"


def _callers(columns: list[int]) -> str:
    return " | ".join(f"calls/s with {number}" for number in columns)


def _latency_section(part: Latency) -> Iterator[str]:
    best = best_peer({server: part.p99(server) for server in part.rounds}, OURS, highest=False)
    what = f"{part.rate:.2f} calls/s, {part.load:.0%} of what the best peer does at saturation"
    yield f"{what}; {len(part.rounds[OURS])} rounds of {part.seconds:.0f} s."
    yield ""
    yield f"| server | p50 ms | p95 ms | p99 ms | p99 by {best.peer}'s | not 200 | generator late, p99 ms |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for server, rounds in part.rounds.items():
        by_best = ratio(part.p99(server), best.values).told(2)
        refused = sum(waits.refused for waits in rounds)
        yield f"| {server} | {_waits_cells(rounds)} | {by_best} | {refused} | {_latest(rounds):.1f} |"


def _overhead_section(part: Overhead) -> Iterator[str]:
    yield "| bare ms | over HTTP ms | difference ms | bare CPU ms | CPU ms of the server | pictures |"
    yield "|--:|--:|--:|--:|--:|--:|"
    columns = (part.bare_ms, part.served_ms, np.subtract(part.served_ms, part.bare_ms))
    told = " | ".join(Spread.of(np.array(values)).told(1) for values in columns)
    yield f"| {told} | {part.bare_cpu_ms:.1f} | {part.served_cpu_ms:.1f} | {len(part.bare_ms)} |"


def _mixed_section(part: Mixed) -> Iterator[str]:
    yield f"The mix comes at {part.rate:.2f} calls/s, {part.load:.0%} of saturation. Waits of the sparse pictures:"
    yield ""
    yield "| load | cores busy | p50 ms | p95 ms | p99 ms | p50 by that alone |"
    yield "|---|--:|--:|--:|--:|--:|"
    arms = {
        "alone, at the rate they have in the mix": ("alone", part.alone),
        "sparse ones in place of the crowded": ("as_many", part.as_many),
        "beside crowded ones, three to one": ("mixed", part.mixed),
    }
    for title, (name, rounds) in arms.items():
        by_alone = ratio(_p50s(rounds), _p50s(part.alone)).told(2)
        yield f"| {title} | {part.busy[name]:.0%} | {_waits_cells(rounds)} | {by_alone} |"


def _overload_section(part: Overload) -> Iterator[str]:
    refused = part.statuses.get(BUSY, 0)
    yield "| calls | 200 | 429 | others | accepted p50, p99 ms | refused p99 ms | generator late, p99 ms |"
    yield "|--:|--:|--:|--:|--:|--:|--:|"
    total, good = sum(part.statuses.values()), part.statuses.get(OK, 0)
    waits = f"{part.accepted.p50:.0f}, {part.accepted.p99:.0f}"
    late = f"{part.refusal_p99_ms:.0f} | {part.accepted.late_p99:.1f}"
    yield f"| {total} | {good} | {refused} | {total - good - refused} | {waits} | {late} |"
    yield ""
    yield "| calls/s before | answered with 200 during | after | MB before | MB at the end | slope, MB a minute |"
    yield "|--:|--:|--:|--:|--:|--:|"
    memory = f"{part.resident_mb[0]:.0f} | {part.resident_mb[-1]:.0f} | {part.slope_mb_a_minute:.2f}"
    yield f"| {part.before:.1f} | {part.during:.1f} | {part.after:.1f} | {memory} |"


def _start_section(part: Start) -> Iterator[str]:
    yield "| ready after s | first answer after s | starts |"
    yield "|--:|--:|--:|"
    ready, answer = (Spread.of(np.array(values)).told(2) for values in (part.ready, part.first_answer))
    yield f"| {ready} | {answer} | {len(part.ready)} |"


def _soak_section(part: Soak) -> Iterator[str]:
    yield "| minutes | calls | MB in the begin | MB in the end | open files | threads | surprises |"
    yield "|--:|--:|--:|--:|--:|--:|--:|"
    files, threads = (f"{begin} to {end}" for begin, end in (part.open_files, part.threads))
    calls = sum(part.calls.values())
    yield (
        f"| {part.minutes:g} | {calls} | {part.begin_mb:.0f} | {part.end_mb:.0f} ({_drift(part):+.1f} %) "
        f"| {files} | {threads} | {len(part.surprises)} |"
    )
    yield ""
    yield "Calls: " + ", ".join(f"{name} {number}" for name, number in sorted(part.calls.items())) + "."


def _origin(part: Part) -> str:
    origin = part.provenance
    where = f"{origin.machine}; {origin.runtime}; {origin.date}, commit {short_commit(origin.commit)}"
    return f"{where}; `{origin.model}`, fp32."


def _waits_cells(rounds: list[Waits]) -> str:
    columns = ([getattr(waits, name) for waits in rounds] for name in ("p50", "p95", "p99"))
    return " | ".join(Spread.of(np.array(values)).told(0) for values in columns)


def _latest(rounds: list[Waits]) -> float:
    return max(waits.late_p99 for waits in rounds)


def _p50s(rounds: list[Waits]) -> list[float]:
    return [waits.p50 for waits in rounds]


def _drift(part: Soak) -> float:
    """Percent."""
    return 100 * (part.end_mb / part.begin_mb - 1)
