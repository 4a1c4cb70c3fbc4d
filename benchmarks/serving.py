"""Compare `python -m service serve` with other ways to serve the same graphs, and see what it stands; docs/serving.md.

    .venv-uv/bin/uv venv PEERS
    .venv-uv/bin/uv pip sync --python PEERS/bin/python --require-hashes benchmarks/requirements-serving.txt
    python benchmarks/serving.py service/models/nano-nwpu/5 --data FOLDER --peers PEERS/bin/python \
        --json serving.json --page docs/serving.md

Without --only, what the JSON file lacks is measured, about 25 minutes for all of it; --soak MINUTES adds the soak, and
--only --soak MINUTES measures it alone.
--only measures parts anew and leaves the others as they are. --scale 0.1 is for trying out.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import onnxruntime as ort

from benchmarks.latency import machine
from benchmarks.peer_report import write_page
from benchmarks.serving_alone import measure_mixed, measure_overhead, measure_start
from benchmarks.serving_bench import Bench
from benchmarks.serving_compare import all_servers, choose, measure_curve, measure_latency, measure_saturation
from benchmarks.serving_endurance import measure_overload, measure_soak
from benchmarks.serving_figures import Figures, Part, Provenance
from benchmarks.serving_pictures import read_pictures
from benchmarks.serving_plot import plot
from benchmarks.serving_report import BEGIN, END, aims_table, report, verdicts
from export.manifest import commit_of
from service.manifest import Manifest

ROOT = Path(__file__).resolve().parents[1]
COMPARED = ("saturation", "latency", "curve")
"""In these, all servers are up at once."""
ALONE: dict[str, Callable[[Bench], Part]] = {
    "overhead": measure_overhead,
    "mixed": measure_mixed,
    "overload": measure_overload,
    "start": measure_start,
}
PARTS = ("choice", *COMPARED, *ALONE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for, keep each part as soon as it is there, print, and write the page."""
    options = _parser().parse_args(arguments)
    figures = Figures.read(options.json)
    with options.log.open("w") if options.log else nullcontext() as log:
        manifest = Manifest.model_validate(json.loads((options.model_dir / "model.json").read_text(encoding="utf-8")))
        bench = Bench(
            model_dir=options.model_dir,
            pictures=read_pictures(options.data, options.split, manifest),
            peers=options.peers,
            cut=options.cut_peers,
            settings=dict(options.set),
            scale=options.scale,
            provenance=provenance(manifest),
            log=log,
        )
        lacking = [name for name in PARTS if getattr(figures, name) is None]
        wanted = lacking if options.only is None else options.only
        figures = measure(bench, figures, wanted, options)
    lines = report(figures)
    print("\n".join([*aims_table(verdicts(figures)), "", *lines]))
    if options.page:
        write_page(options.page, lines, BEGIN, END)
    if options.figure and figures.curve:
        plot(figures.curve, options.figure)


def measure(bench: Bench, figures: Figures, wanted: Sequence[str], options: argparse.Namespace) -> Figures:
    """The parts by name, in the order in which they need each other; each is written when it is there."""

    def keep(name: str, part: Part) -> None:
        nonlocal figures
        figures = figures.model_copy(update={name: part})
        figures.write(options.json)

    if "choice" in wanted:
        keep("choice", choose(bench))
    if any(name in wanted for name in COMPARED):
        _compare(bench, figures, wanted, keep)
    for name, part in ALONE.items():
        if name in wanted:
            bench.say(f"-- {name}")
            keep(name, part(bench))
    if options.soak:
        keep("soak", measure_soak(bench, options.soak))
    return figures


def _compare(bench: Bench, figures: Figures, wanted: Sequence[str], keep: Callable[[str, Part], None]) -> None:
    """All servers in one run.

    Raises:
        ValueError: a part is missing that these build upon.
    """
    choice, saturation = figures.choice, figures.saturation
    if choice is None:
        raise ValueError("which settings the peers are best with is not known yet; add choice to --only")
    servers = all_servers(bench, choice)
    with bench.frozen(servers):
        if "saturation" in wanted:
            saturation = measure_saturation(bench, servers)
            keep("saturation", saturation)
        if saturation is None:
            raise ValueError("what the peers do at saturation is not known yet; add saturation to --only")
        if "latency" in wanted:
            keep("latency", measure_latency(bench, servers, saturation))
        if "curve" in wanted:
            keep("curve", measure_curve(bench, servers, saturation))


def provenance(manifest: Manifest) -> Provenance:
    """Of what is measured now."""
    return Provenance(
        machine=machine(),
        runtime=f"ONNX Runtime {ort.__version__}",
        model=f"{manifest.name}/{manifest.version}",
        date=datetime.now(UTC).date().isoformat(),
        commit=commit_of(ROOT),
    )


def setting(text: str) -> tuple[str, str]:
    """Name and value of "HEATQUERY_NAME=VALUE".

    Raises:
        argparse.ArgumentTypeError: it is not of this form.
    """
    name, equals, value = text.partition("=")
    if not (name.startswith("HEATQUERY_") and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form HEATQUERY_NAME=VALUE")
    return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path, help="<models>/<name>/<version>")
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and instances_<split>.json")
    parser.add_argument("--split", default="val", help="pictures that are sent (default: %(default)s)")
    parser.add_argument("--peers", type=Path, metavar="PYTHON", help="interpreter of the environment of the peers")
    parser.add_argument(
        "--cut-peers", action="store_true", help="they leave the padding away, too; in a file of its own"
    )
    parser.add_argument(
        "--set",
        type=setting,
        nargs="+",
        default=(),
        metavar="HEATQUERY_NAME=VALUE",
        help="settings of our service beside its defaults; the tables tell them",
    )
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="what was measured, to go on from")
    parser.add_argument("--only", nargs="*", choices=PARTS, metavar="PART", help="; ".join(PARTS))
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="measure the soak, for so long")
    parser.add_argument("--scale", type=float, default=1.0, help="length of every round, by its full length")
    parser.add_argument("--log", type=Path, metavar="FILE", help="where the servers write")
    parser.add_argument("--page", type=Path, metavar="FILE", help="document whose tables are replaced")
    parser.add_argument("--figure", type=Path, metavar="SVG", help="picture of waits over load, of the part curve")
    return parser


if __name__ == "__main__":
    main()
