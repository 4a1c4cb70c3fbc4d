"""The benchmark book as Markdown: benchmarks/README.md, made of the result files and nothing else."""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.book_entries import ENTRIES, NEEDS
from benchmarks.book_plot import plotted
from benchmarks.book_result import Result, Row, Table

TABLES: dict[Table, tuple[str, str]] = {
    "accuracy": (
        "Accuracy",
        "COCO's average precision on pictures that training never saw. Terms: [docs/results.md](../docs/results.md).",
    ),
    "depth": (
        "Decoder depth",
        "What each decoder layer brings and costs (HMPE, section 5). Terms: [docs/results.md](../docs/results.md).",
    ),
    "peers": (
        "Speed beside other detectors",
        "All in one process, by turns. Terms: [docs/performance.md](../docs/performance.md).",
    ),
    "queries": ("Dynamic queries", "What a picture with few objects saves, as K follows the count (D3Q)."),
    "serving": (
        "Serving",
        "JPEG bytes to boxes over HTTP, beside others and under load. Terms: [docs/serving.md](../docs/serving.md).",
    ),
    "scenes": (
        "Scenes",
        "Pictures of any size, beside SAHI, over seams and kills. Terms: [docs/scenes.md](../docs/scenes.md).",
    ),
    "training": (
        "Training",
        "Speed of a step, and what D3Q's hosts need. Terms: [docs/results.md](../docs/results.md).",
    ),
    "ablation": (
        "Ablation",
        "What each module brings: one run is no proof, as seeds differ. Terms: [docs/results.md](../docs/results.md).",
    ),
    "export": ("Export", "Whether the graphs compute what torch does, and what TensorRT engines cost to build."),
    "size": ("Size", "Parameters and work of every preset. All cases: [docs/model.md](../docs/model.md)."),
    "parts": (
        "Parts of the service",
        "What merging windows and keeping results cost. Why so: decisions "
        "[0018](../docs/decisions/0018-store.md) and [0020](../docs/decisions/0020-windows-and-seams.md).",
    ),
    "container": ("Container", "The image of `docker/serve.Dockerfile`, started locked down: `make container-test`."),
}
"""Title, and what the table is about."""

INTRODUCTION = """\
# The benchmark book

<!-- Written by benchmarks/book.py from benchmarks/results/ and benchmarks/book_entries.py. Do not edit. -->

Every figure that this project claims, with the command that measures it. A figure is what was measured on that
hardware, at that commit, on that day: a median, with the middle half in brackets where it is known, and what it was to
be. Words in capitals in commands are environment variables, listed at the end.

```sh
make bench                             # all that this machine can run; figures, tables and plots are written anew
make bench ONLY="accuracy depth"       # some of it
make bench ONLY=peers PEER_GRAPHS=...  # with what it needs
.venv/bin/python benchmarks/book.py --list       # what there is, how long it takes, what it needs
.venv/bin/python benchmarks/book.py              # tables and plots anew from benchmarks/results/, without measuring
```
"""


def render(results: Mapping[str, Result]) -> str:
    """The whole page."""
    parts = [INTRODUCTION, *_aims(results)]
    for table, (title, about) in TABLES.items():
        found = {name: result for name, result in results.items() if result.table == table}
        if found:
            parts += [f"## {title}\n", f"{about}\n", *_table(found), *_runs(found)]
            if plotted(found):
                parts.append(f"![{title}](plots/{table}.svg)\n")
    parts += ["## What can be measured\n", *catalogue()]
    return "\n".join(parts) + "\n"


def _aims(results: Mapping[str, Result]) -> Iterator[str]:
    judged = [row for result in results.values() for row in result.rows if row.reached is not None]
    missed = [row for row in judged if not row.reached]
    yield f"## Aims\n\n{len(judged) - len(missed)} of {len(judged)} aims are reached. Missed:\n"
    yield from (f"- {row.claim}: {row.measured}, aim {row.aim}" for row in missed)
    yield ""


def _table(results: Mapping[str, Result]) -> Iterator[str]:
    yield "| claim | measured | aim | | command | hardware | date | commit |"
    yield "|---|--:|--:|---|---|---|---|---|"
    for name, result in results.items():
        entry = name.partition(".")[0]  # what follows is the label of a machine
        where = f"`make bench ONLY={entry}` | {result.hardware} | {result.date} | `{result.commit}`"
        yield from (f"| {_cells(row)} | {where} |" for row in result.rows)
    yield ""


def _cells(row: Row) -> str:
    return f"{row.claim} | {row.measured} | {row.aim} | {row.verdict}"


def _runs(results: Mapping[str, Result]) -> Iterator[str]:
    yield from (f"- **{name}**: `{result.command}`{_note(result)}" for name, result in results.items())
    yield ""


def _note(result: Result) -> str:
    return f". {result.note}" if result.note else ""


def catalogue() -> Sequence[str]:
    """Every entry with its cost and needs, then what the needs are."""
    lines = ["| name | minutes | needs |", "|---|--:|---|"]
    lines += [f"| {name} | {entry.minutes:g} | {', '.join(entry.needs)} |" for name, entry in ENTRIES.items()]
    lines += ["", *(f"- `{word}`: {need.what}{_default(need.default)}" for word, need in NEEDS.items())]
    return lines


def _default(path: str) -> str:
    return f"; `{path}` where that is there" if path else ""
