"""Write the benchmark book, and measure what it tells: benchmarks/README.md, benchmarks/plots/.

python benchmarks/book.py                       # tables and plots from benchmarks/results/
python benchmarks/book.py --list                # what can be measured, how long it takes, what it needs
python benchmarks/book.py --run merging depth   # measure these; without names, all that this machine can
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.book_entries import ENTRIES, NEEDS, ROOT, WORK, Entry
from benchmarks.book_page import TABLES, catalogue, render
from benchmarks.book_plot import draw, plotted
from benchmarks.book_result import RESULTS, Result, hardware, read_results, write_model
from benchmarks.peer_report import short_commit
from export.manifest import commit_of

PAGE = Path(__file__).resolve().parent / "README.md"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for, then write page and plots; failures are told at the end."""
    options = _parser().parse_args(arguments)
    if options.list:
        print("\n".join(catalogue()))
        return
    failed = {} if options.run is None else run(_chosen(options.run), options.results, options.label)
    write_book(read_results(options.results), options.page)
    if failed:
        sys.exit("\n".join(f"{name} failed: {why}" for name, why in failed.items()))


def run(names: Sequence[str], folder: Path, label: str = "") -> dict[str, str]:
    """Measure one after the other, keep each result when it is there; names and reasons of those that failed."""
    failed: dict[str, str] = {}
    commit = short_commit(commit_of(ROOT)).strip("`")  # before the results change files
    for number, name in enumerate(names, 1):
        entry = ENTRIES[name]
        print(f"[{number}/{len(names)}] {name}, about {entry.minutes:g} minutes: {entry.told}", flush=True)
        try:
            write_model(folder / f"{name}{label and '.'}{label}.json", measure(entry, commit))
        except (OSError, ValueError, LookupError, subprocess.CalledProcessError) as error:
            failed[name] = f"{type(error).__name__}: {error}"
            print(failed[name], flush=True)
    return failed


def measure(entry: Entry, commit: str) -> Result:
    """Run the command of an entry, and make its figures a result.

    Raises:
        subprocess.CalledProcessError: the command failed.
        OSError, ValueError, LookupError: it left no figures, or others than expected.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        file = Path(folder) / "figures"
        program, *rest = shlex.split(entry.filled(entry.command, file))
        command = [sys.executable if program == "python" else program, *rest]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
        return Result(
            table=entry.table,
            hardware=hardware(),
            date=datetime.now(UTC).date(),
            commit=commit,
            command=entry.told,
            rows=tuple(entry.rows(ROOT / entry.filled(entry.figures, file))),
        )


def write_book(results: Mapping[str, Result], page: Path) -> None:
    """Page, and plots in a folder beside it; in the order of the catalogue.

    Raises:
        ValueError: a result of no entry.
    """
    if odd := [name for name in results if name.partition(".")[0] not in ENTRIES]:
        raise ValueError(f"no entry of the book for {', '.join(odd)}: delete it from results/, or name it after one")
    places = list(ENTRIES)
    results = dict(sorted(results.items(), key=lambda item: places.index(item[0].partition(".")[0])))
    page.write_text(render(results), encoding="utf-8")
    plots = page.parent / "plots"
    plots.mkdir(exist_ok=True)
    for table in TABLES:
        found = {name: result for name, result in results.items() if result.table == table}
        if plotted(found):
            draw(found, plots / f"{table}.svg")


def _chosen(names: Sequence[str]) -> list[str]:
    """Those that are named, or all that can be run here; ends with a clear line where one of the former cannot."""
    for name in names:
        if name not in ENTRIES:
            sys.exit(f"the book has no {name!r}; it has {', '.join(ENTRIES)}")
        if missing := ENTRIES[name].missing:
            told = (f"{word}: {NEEDS[word].what}" if word in NEEDS else f"{word}, installed" for word in missing)
            sys.exit(f"{name} needs {'; '.join(told)}")
    for name, entry in () if names else ENTRIES.items():
        if entry.missing:
            print(f"left out: {name} needs {', '.join(entry.missing)}")
    return list(names) or [name for name, entry in ENTRIES.items() if not entry.missing]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="tell what can be measured, and end")
    parser.add_argument("--run", nargs="*", metavar="NAME", help="measure; without names, all that this machine can")
    parser.add_argument("--label", default="", help="of this machine: its results stand beside those of others")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files (default: beside this)")
    parser.add_argument("--page", type=Path, default=PAGE, help="(default: README.md beside this)")
    return parser


if __name__ == "__main__":
    main()
