"""What benchmarks/scenes.py found, as the tables of docs/scenes.md."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from benchmarks.book_result import Row
from benchmarks.peer_report import Spread, short_commit
from benchmarks.scene_figures import (
    Accuracy,
    Compared,
    Crashes,
    Growth,
    Run,
    Scan,
    SceneFigures,
    ScenePart,
    Seams,
    Tool,
    Workers,
)
from benchmarks.serving_figures import ratio

BEGIN, END = "<!-- scenes: begin -->", "<!-- scenes: end -->"
MOST_MB, MEMORY_PERCENT, TIME_PERCENT = 1_200, 10, 10
LEAST_SPEED, LEAST_WORKERS, SEAM_AP = 3.0, 1.6, 0.01


def report(figures: SceneFigures) -> list[str]:
    """A section for each part that was measured, with where and when."""
    lines: list[str] = []
    for title, part, section in _sections(figures):
        lines += [f"### {title}", "", _origin(part), "", *section, ""]
    return lines[:-1]


def _sections(figures: SceneFigures) -> Iterator[tuple[str, ScenePart, Iterator[str]]]:
    if figures.growth:
        yield "Memory and time by size", figures.growth, _growth_section(figures.growth)
    if figures.compared:
        yield "Beside SAHI", figures.compared, _compared_section(figures.compared)
    if figures.seams:
        yield "Seams", figures.seams, _seams_section(figures.seams)
    if figures.crashes:
        yield "Kills", figures.crashes, _crashes_section(figures.crashes)
    if figures.workers:
        yield "Ray workers", figures.workers, _workers_section(figures.workers)


def _origin(part: ScenePart) -> str:
    where, (before, after) = part.provenance, part.load
    return (
        f"{where.machine}; {where.runtime}; {where.date}, commit {short_commit(where.commit)}; `{where.model}`; "
        f"load average {before:.1f} before, {after:.1f} after."
    )


def verdicts(figures: SceneFigures) -> list[Row]:
    """Of every part that was measured."""
    makers: list[tuple[ScenePart | None, Callable[..., Iterator[Row]]]] = [
        (figures.growth, _judge_growth),
        (figures.compared, _judge_compared),
        (figures.seams, _judge_seams),
        (figures.crashes, _judge_crashes),
        (figures.workers, _judge_workers),
    ]
    return [row for part, judge in makers if part is not None for row in judge(part)]


def _judge_growth(part: Growth) -> Iterator[Row]:
    largest = part.scans[-1]
    peak = max(scan.run.peak_mb for scan in part.scans)
    yield Row(claim="peak resident memory", value=peak, unit="MB", at_most=MOST_MB)
    if len(part.scans) > 1:
        grown = abs(largest.run.peak_mb / part.scans[0].run.peak_mb - 1)
        name = f"memory at {largest.side:,} px, off that at {part.scans[0].side:,} px"
        yield Row(claim=name, value=100 * grown, unit="%", at_most=MEMORY_PERCENT)
    over = largest.run.wall_seconds / largest.ideal_seconds - 1
    name = f"time at {largest.side:,} px over tiles x engine time / lanes"
    yield Row(claim=name, value=100 * over, unit="%", at_most=TIME_PERCENT)


def _judge_compared(part: Compared) -> Iterator[Row]:
    name, peer = part.fastest, part.theirs[part.fastest]
    found = ratio(_walls(peer.runs), _walls(part.ours.runs))
    yield Row.of(f"megapixels a second, by SAHI's fastest ({name})", found, "x", at_least=LEAST_SPEED)
    best = max(part.theirs, key=lambda settings: part.theirs[settings].accuracy.ap)
    ours, theirs = part.ours.accuracy.ap, part.theirs[best].accuracy.ap
    yield Row(claim=f"AP; the aim is SAHI's best ({best})", value=ours, at_least=theirs)


def _judge_seams(part: Seams) -> Iterator[Row]:
    pairs = {
        "AP of objects on borders less that of others": (part.on_border, part.elsewhere),
        "AP on borders less that of the same objects off them": (part.moved_on_border, part.moved_off_border),
    }
    for name, (on, off) in pairs.items():
        yield Row(claim=name, value=on.ap - off.ap, at_least=-SEAM_AP)
    name = f"objects reported twice by two windows, of {part.shown:,} boxes"
    yield Row(claim=name, value=part.doubles.of_two_windows, at_most=0)


def _judge_crashes(part: Crashes) -> Iterator[Row]:
    name = f"results of {', '.join(part.equal)} after {len(part.kills)} kills: files unlike those of an unbroken run"
    yield Row(claim=name, value=sum(not same for same in part.equal.values()), at_most=0)


def _judge_workers(part: Workers) -> Iterator[Row]:
    for fewer, more in pairwise(sorted(part.runs)):
        found = ratio(_walls(part.runs[fewer]), _walls(part.runs[more]))
        yield Row.of(f"speed of {more} Ray workers, by that of {fewer}", found, "x", at_least=LEAST_WORKERS)


def _walls(runs: Sequence[Run]) -> list[float]:
    return [run.wall_seconds for run in runs]


def _growth_section(part: Growth) -> Iterator[str]:
    yield (
        "Engine time: one tile in one lane while all lanes run the two graphs and nothing else, measured in pauses of "
        "the run. Before its first tile, `detect` loads its libraries and the model; that is part of its time."
    )
    yield ""
    yield (
        "| side px | tiles | peak MB | s | before the first tile | engine ms | tiles x engine / lanes s | time over it "
        "| from the first tile on | CPU s |"
    )
    yield "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    yield from map(_scan_row, part.scans)


def _scan_row(scan: Scan) -> str:
    run, engine = scan.run, Spread.of(np.array(scan.engine_seconds) * 1e3)
    over, working = (seconds / scan.ideal_seconds - 1 for seconds in (run.wall_seconds, run.working_seconds))
    return (
        f"| {scan.side:,} | {scan.tiles:,} | {run.peak_mb:,.0f} | {run.wall_seconds:.0f} | {run.ready_seconds:.1f} "
        f"| {engine.told(0)} | {scan.ideal_seconds:.0f} | {over:+.1%} | {working:+.1%} | {run.cpu_seconds:.0f} |"
    )


def _compared_section(part: Compared) -> Iterator[str]:
    megapixels = part.side**2 / 1e6
    yield (
        f"{part.side:,} x {part.side:,} px, boxes above {part.score:g}, {len(part.ours.runs)} rounds, whole processes "
        f"from the command to the file; SAHI {part.sahi}, with the same graphs, tile and overlap."
    )
    yield ""
    yield "| tool | tiles | MP/s | CPU s a MP | peak MB | boxes | AP | AP50 |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for name, tool in {"ours": part.ours, **{f"SAHI, {key}": value for key, value in part.theirs.items()}}.items():
        yield _tool_row(name, tool, megapixels)


def _tool_row(name: str, tool: Tool, megapixels: float) -> str:
    speed = Spread.of(np.array([megapixels / run.wall_seconds for run in tool.runs]))
    cpu = Spread.of(np.array([run.cpu_seconds / megapixels for run in tool.runs]))
    peak = max(run.peak_mb for run in tool.runs)
    return (
        f"| {name} | {tool.tiles:,} | {speed.told(2)} | {cpu.told(2)} | {peak:,.0f} | {tool.found:,} "
        f"| {tool.accuracy.ap:.3f} | {tool.accuracy.ap50:.3f} |"
    )


def _seams_section(part: Seams) -> Iterator[str]:
    yield (
        f"{part.side:,} x {part.side:,} px, boxes above {part.score:g}. A border is an inner edge of a window or the "
        "middle of an overlap. Objects on borders are larger than others and of other classes; so the scene is looked "
        "at once more through windows moved by half of their distance, and objects that a border crosses in one of "
        "both looks are compared with themselves."
    )
    yield ""
    yield "| | objects | AP | AP50 |"
    yield "|---|--:|--:|--:|"
    rows = {
        "all": part.everything,
        "on a border": part.on_border,
        "elsewhere": part.elsewhere,
        "the same objects: on a border": part.moved_on_border,
        "the same objects: off it": part.moved_off_border,
    }
    for name, found in rows.items():
        yield _accuracy_row(name, found)
    yield ""
    yield (
        f"Of {part.shown:,} boxes above {part.shown_score:g} in both looks, pairs of one class that share more than "
        f"half of the smaller and do not show two objects: {part.doubles.of_one_window} that the model gives in one "
        f"window, as on a single picture; {part.doubles.of_two_windows} of two windows."
    )


def _accuracy_row(name: str, found: Accuracy) -> str:
    return f"| {name} | {found.objects:,} | {found.ap:.3f} | {found.ap50:.3f} |"


def _crashes_section(part: Crashes) -> Iterator[str]:
    done = ", ".join(f"{kill.tiles_done:,}" for kill in part.kills)
    lives = Spread.of(np.array([kill.after_seconds for kill in part.kills]))
    writing = sum(kill.writing for kill in part.kills)
    yield (
        f"{part.side:,} x {part.side:,} px, {part.tiles:,} tiles; {len(part.kills)} times kill -9, after "
        f"{lives.told(1)} s, {writing} of them while results were written. Tiles finished by then: {done}."
    )


def _workers_section(part: Workers) -> Iterator[str]:
    megapixels = part.side**2 / 1e6
    yield f"{part.side:,} x {part.side:,} px, one thread a worker; whole processes, Ray's start included."
    yield ""
    yield "| workers | MP/s |"
    yield "|--:|--:|"
    for number, runs in sorted(part.runs.items()):
        yield f"| {number} | {Spread.of(np.array([megapixels / run.wall_seconds for run in runs])).told(2)} |"
