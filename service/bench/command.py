"""`python -m service bench URL`: from arguments to a table, a file and a picture."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import SplitResult, urlencode, urlsplit

from service.bench.connection import Target
from service.bench.load import Arrivals, Call, Load, arrival_times
from service.bench.pictures import read_pictures
from service.bench.report import LATE_SECONDS, RateResult, Report

KEY_VARIABLE = "HEATQUERY_API_KEY"
_WARM_UP_RATE = 2.0  # calls a second
_SHOW_SECONDS = 0.2


@dataclass(frozen=True)
class BenchOptions:
    """What the command line says; see `add_arguments`."""

    url: SplitResult
    images: list[str]
    rates: list[float]
    seconds: float
    warm_up: float
    arrivals: Arrivals
    seed: int
    most_pictures: int
    timeout: float
    query: list[tuple[str, str]]
    api_key: str | None
    json: Path | None
    plot: Path | None


class BenchError(Exception):
    """The load cannot be run; the message says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("url", type=_url, help="base address of a running service, such as http://127.0.0.1:8000")
    add("--images", nargs="+", required=True, metavar="PLACE", help="folders, files or patterns of pictures to send")
    add("--rates", nargs="+", type=_positive, default=[1.0, 2.0, 5.0, 10.0], help="calls a second, one run for each")
    add("--seconds", type=_positive, default=20.0, help="length of each run")
    add("--warm-up", type=float, default=2.0, metavar="SECONDS", help="calls before the first run that do not count")
    add("--arrivals", choices=["poisson", "uniform"], default="poisson", help="how calls follow each other")
    add("--seed", type=int, default=0, help="of arrivals and of the choice of pictures")
    add("--most-pictures", type=int, default=200, metavar="N", help="pictures held in memory and sent in turn")
    add("--timeout", type=_positive, default=60.0, metavar="SECONDS", help="a call that takes longer is given up")
    add("--query", action="append", type=_pair, default=[], metavar="NAME=VALUE", help="for POST /detect; repeatable")
    add("--api-key", default=os.environ.get(KEY_VARIABLE), help=f"where the service wants one (or {KEY_VARIABLE})")
    add("--json", type=Path, metavar="FILE", help="write every figure to a file")
    add("--plot", type=Path, metavar="FILE", help="draw latency over load as .svg or .png (needs matplotlib)")


def bench(options: BenchOptions) -> int:
    """Run the load; returns the exit status."""
    try:
        draw = _chart(options.plot) if options.plot else None
        report = asyncio.run(_run(options))
        print(report.to_markdown())
        if options.json:
            options.json.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if draw:
            draw(report)
    except (BenchError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    late = [f"{result.rate:g}" for result in report.results if not result.kept_schedule]
    if late:
        limit = f"{LATE_SECONDS * 1e3:g} ms"
        print(
            f"at {', '.join(late)} calls/s over 1 % of calls were sent more than {limit} late: this machine cannot "
            "make that load, and the latencies above include its own delay. Use lower rates, or another machine.",
            file=sys.stderr,
        )
    return 0


async def _run(options: BenchOptions) -> Report:
    pictures = read_pictures(options.images, options.most_pictures, options.seed)
    target = Target(options.url, {"X-API-Key": options.api_key} if options.api_key else {})
    model = await _check(target, options.url.geturl())
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    path = "/detect" + (f"?{urlencode(options.query)}" if options.query else "")
    load, results = Load(target, path, pictures, options.timeout), []
    try:
        warm_up = await load.run(arrival_times(_WARM_UP_RATE, options.warm_up, "uniform", 0), _progress("warm-up"))
        _require_answers(warm_up)
        for rate in options.rates:
            due = arrival_times(rate, options.seconds, options.arrivals, options.seed)
            calls = await load.run(due, _progress(f"{rate:g} calls/s, {options.seconds:g} s"))
            results.append(RateResult.of(rate, options.seconds, calls))
    finally:
        load.close()
    return Report(
        url=options.url.geturl(),
        model=model,
        pictures=len(pictures),
        arrivals=options.arrivals,
        seed=options.seed,
        begun=begun,
        results=results,
    )


async def _check(target: Target, url: str) -> dict[str, str]:
    """Name and version of the model that answers there. Raises BenchError if there is none."""
    try:
        async with asyncio.timeout(10):
            connection = await target.connect()
            answer = await connection.send(target.request("GET", "/readyz"))
    except (OSError, TimeoutError) as error:
        raise BenchError(
            f"cannot reach {url}: {error or 'no answer'}; start one with: python -m service serve"
        ) from error
    connection.close()
    try:
        said = json.loads(answer.body)
        if answer.status == 200:
            return {name: said["model"][name] for name in ("name", "version")}
        detail = said["detail"]
    except (ValueError, KeyError, TypeError):
        raise BenchError(f"{url} is no heatquery: GET /readyz answered {answer.status}") from None
    raise BenchError(f"{url} is not ready: {detail}")


def _require_answers(calls: Sequence[Call]) -> None:
    """Stop before a long run of refusals that no load caused."""
    outcomes = {call.outcome for call in calls}
    if outcomes == {"401"}:
        raise BenchError(f"the service wants an API key: --api-key, or {KEY_VARIABLE}")
    if outcomes and not outcomes & {"200", "429"}:
        raise BenchError(f"the warm-up got {', '.join(sorted(outcomes))} and no 200; the service's log says why")


def _progress(what: str) -> Callable[[float, int, list[Call]], None]:
    """A line that is written over itself, some times a second, where somebody watches."""
    if not sys.stderr.isatty():
        return lambda seconds, sent, over: None
    shown = -1.0

    def show(seconds: float, sent: int, over: list[Call]) -> None:
        nonlocal shown
        if seconds - shown > _SHOW_SECONDS:
            shown = seconds
            good = sum(call.outcome == "200" for call in over)
            line = f"{what}: {seconds:5.1f} s, {sent} sent, {good} answered 200, {len(over) - good} otherwise"
            print(f"\r\x1b[K{line}", end="\r", file=sys.stderr, flush=True)

    return show


def _chart(path: Path) -> Callable[[Report], None]:
    """Draws to a path; what would fail at the end of a long run fails before it."""
    if path.suffix not in (".svg", ".png"):
        raise BenchError(f"--plot {path}: the ending must be .svg or .png")
    try:
        from service.bench.chart import draw
    except ModuleNotFoundError as error:
        raise BenchError("--plot needs matplotlib: pip install 'heatquery[client]'") from error
    return lambda report: draw(report, path)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, such as threshold=0.5")
    return name, value


def _url(text: str) -> SplitResult:
    url = urlsplit(text)
    try:
        fits = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise argparse.ArgumentTypeError(f"{text!r} is no address such as http://127.0.0.1:8000")
    return url


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value
