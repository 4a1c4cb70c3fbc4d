"""Weigh and time `python -m service detect` on scenes of known objects, beside SAHI, over seams and kills.

    .venv-uv/bin/uv venv SAHI
    .venv-uv/bin/uv pip sync --python SAHI/bin/python --require-hashes benchmarks/requirements-scenes.txt
    python benchmarks/scenes.py service/models/nano-nwpu/5 --data FOLDER/instances_val.json --work FOLDER \
        --sahi SAHI/bin/python --json scenes.json --page docs/scenes.md

Without --only, what the JSON file lacks is measured, about an hour for all of it; --only measures parts anew and leaves
the others as they are. --sides 2500 3000 --side 2500 is for trying out. Mosaics are kept in the folder --work.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.peer_report import write_page
from benchmarks.scene_compare import measure_compared, measure_workers, ray_is_there
from benchmarks.scene_crash import measure_crashes
from benchmarks.scene_figures import SceneFigures, ScenePart
from benchmarks.scene_growth import measure_growth
from benchmarks.scene_report import BEGIN, END, report, verdicts
from benchmarks.scene_runs import SceneBench
from benchmarks.scene_seams import measure_seams
from benchmarks.serving import provenance
from benchmarks.serving_report import aims_table
from service.manifest import load_model_folder

PARTS: dict[str, Callable[[SceneBench, argparse.Namespace], ScenePart]] = {
    "growth": lambda bench, options: measure_growth(bench, options.sides),
    "compared": lambda bench, options: measure_compared(bench, options.side),
    "seams": lambda bench, options: measure_seams(bench, options.side),
    "crashes": lambda bench, options: measure_crashes(bench, options.side),
    "workers": lambda bench, options: measure_workers(bench, options.side),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for, keep each part as soon as it is there, print, and write the page."""
    options = _parser().parse_args(arguments)
    figures = SceneFigures.read(options.json)
    bench = _bench(options)
    for name in options.only or [name for name in PARTS if getattr(figures, name) is None]:
        if name == "workers" and not ray_is_there():
            bench.say("-- workers: left out, as `python -m service detect` has no --engine")
            continue
        figures = figures.model_copy(update={name: PARTS[name](bench, options)})
        figures.write(options.json)
    lines = report(figures)
    print("\n".join([*aims_table(verdicts(figures)), "", *lines]))
    if options.page:
        write_page(options.page, lines, BEGIN, END)


def _bench(options: argparse.Namespace) -> SceneBench:
    manifest = load_model_folder(options.model_dir.resolve()).manifest
    return SceneBench(
        model_dir=options.model_dir,
        manifest=manifest,
        data=options.data.resolve(),
        work=options.work.resolve(),
        lanes=options.lanes,
        score=options.score,
        rounds=options.rounds,
        kills=options.kills,
        sahi=options.sahi and options.sahi.absolute(),
        provenance=provenance(manifest),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path, help="<models>/<name>/<version>")
    parser.add_argument("--data", type=Path, required=True, metavar="COCO.json", help="images/ is beside it")
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="for mosaics and results")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="what was measured, to go on from")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help="; ".join(PARTS))
    parser.add_argument(
        "--sides",
        type=int,
        nargs="+",
        default=[5_000, 20_000],
        metavar="PX",
        help="of the scenes of growth (default: %(default)s)",
    )
    parser.add_argument("--side", type=int, default=5_000, help="of all other scenes (default: %(default)s)")
    parser.add_argument("--lanes", type=int, default=len(os.sched_getaffinity(0)), help="one a core unless given")
    parser.add_argument("--score", type=float, default=0.1, help="least one for accuracy (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of tools by turns (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--sahi", type=Path, metavar="PYTHON", help="interpreter of its environment")
    parser.add_argument("--page", type=Path, metavar="FILE", help="document whose tables are replaced")
    return parser


if __name__ == "__main__":
    main()
