"""Time our detector beside others of its size, all in one process, and write the tables of docs/performance.md.

    PEERS/bin/python benchmarks/peer_models.py --cache DIR     # once, in an environment of its own: see there
    python benchmarks/peers.py service/models/nano-nwpu/5 --data FOLDER --cache DIR --page docs/performance.md

Every round runs each model once, and every other round in reverse order, so that a slow spell of the machine falls on
all alike. Time is that of the process on all its cores, which other processes disturb least, and that of the clock
beside it; ratios are taken within a round. Every model is ONNX, takes one picture as bytes, and runs with the options
of the service. A model on another device or runtime is one more entry of `contenders`.
"""

import argparse
import functools
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time
from typing import TypeAlias

import onnxruntime as ort
from tqdm import tqdm

from benchmarks.complexity import CLASSES, measure
from benchmarks.latency import machine
from benchmarks.peer_graphs import ModelFolder, Ours, open_preset, open_session
from benchmarks.peer_report import Size, report, write_page
from export.manifest import commit_of
from export.pictures import Canvas, picture_paths, read_canvas
from model.presets import preset

ROOT = Path(__file__).resolve().parents[1]
WARM_UP_ROUNDS = 2
UNIT = "yolo11n"
"""Whose time the others are told in."""
PEERS = ("yolo11n", "yolo11s", "d-fine-n", "d-fine-s", "rt-detr-r18")
PRESETS = {
    "nano, 6 layers": ("nano", 6),
    "small": ("small", 3),
    "small, 6 layers": ("small", 6),
    "base": ("base", 3),
    "base, 6 layers": ("base", 6),
}
"""Line to preset and decoder layers; random weights."""
PRECISIONS = {"nano fp16": "fp16", "nano int8": "int8"}
FIXED_QUERIES = {"nano, K = 100": 100, "nano, K = 600": 600}
DECODERS = {"decoder of nano, K = 100": 100, "decoder of nano, K = 600": 600}
MODELS = ("nano", *PRECISIONS, *FIXED_QUERIES, *DECODERS, *PRESETS, *PEERS)

Run: TypeAlias = Callable[[], object]
Samples: TypeAlias = dict[str, list[tuple[float, float]]]
"""Model to (process-CPU, clock) milliseconds of each round."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the figures where asked."""
    options = _parser().parse_args(arguments)
    folder = ModelFolder(options.model_dir)
    pictures = options.data / f"instances_{options.split}.json"
    queries = folder.median_queries(pictures, max(options.threads))
    runs = []
    for side in options.sides:
        picture = read_canvas(picture_paths(pictures)[0], side, folder.input.pad_value)
        sizes = {name: size(name, side, queries, options.cache) for name in chosen(options.models, folder)}
        for threads in options.threads:
            models = contenders(list(sizes), folder, picture, queries, options.cache, threads)
            samples = interleaved(models, options.rounds)
            runs.append({"side": side, "threads": threads, "sizes": sizes, "samples": samples})
    figures = {
        "model": folder.label,
        "queries": queries,
        "machine": machine(),
        "runtime": f"ONNX Runtime {ort.__version__}",
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit_of(ROOT),
        "rounds": options.rounds,
        "runs": runs,
    }
    lines = report(figures, UNIT)
    print("\n".join(lines))
    if options.json:
        options.json.write_text(json.dumps(figures, default=vars, indent=2) + "\n", encoding="utf-8")
    if options.page:
        write_page(options.page, lines)


def chosen(models: Sequence[str], folder: ModelFolder) -> list[str]:
    """The models to time: those asked for and the unit, without precisions that the folder does not offer."""
    return [
        name
        for name in MODELS
        if name == UNIT or (name in models and (name not in PRECISIONS or folder.offers(PRECISIONS[name])))
    ]


def contenders(
    names: Sequence[str], folder: ModelFolder, picture: Canvas, queries: int, cache: Path, threads: int
) -> dict[str, Run]:
    """What to call for each model, ready to run.

    Args:
        picture: (3, S, S), the same for all.
        queries: K of our models, where their name does not say another.
        cache: folder with the graphs of the peers, and where those of our presets go.
    """
    nano = folder.open(threads)
    return {name: _contender(name, nano, folder, picture, queries, cache, threads) for name in names}


def _contender(
    name: str, nano: Ours, folder: ModelFolder, picture: Canvas, queries: int, cache: Path, threads: int
) -> Run:
    if name in PEERS:
        peer = open_session(cache / f"{name}-{picture.shape[-1]}.onnx", threads)
        return lambda: peer.run(None, {"images": picture[None]})
    if name in DECODERS:
        feed = nano.feed(nano.encode(picture), DECODERS[name])
        return lambda: nano.decode(feed)
    if name in PRESETS:
        ours = open_preset(*PRESETS[name], cache, threads)
    else:
        ours = folder.open(threads, PRECISIONS[name]) if name in PRECISIONS else nano
    return lambda: ours.detect(picture, FIXED_QUERIES.get(name, queries))


def size(name: str, side: int, queries: int, cache: Path) -> Size | None:
    """Parameters and GFLOPs of a model at a size; None for a decoder alone.

    Raises:
        FileNotFoundError: the cache lacks a peer at this size.
    """
    if name in DECODERS:
        return None
    if name in PEERS:
        told = cache / f"{name}-{side}.json"
        if not told.is_file():
            raise FileNotFoundError(f"{told} is not there; write it with benchmarks/peer_models.py --sides {side}")
        return Size(**json.loads(told.read_text(encoding="utf-8")))
    return preset_size(*PRESETS.get(name, ("nano", 3)), side, FIXED_QUERIES.get(name, queries))


@functools.cache
def preset_size(name: str, layers: int, side: int, queries: int) -> Size:
    """Of a preset with so many decoder layers."""
    config = preset(name, CLASSES)
    config = config.model_copy(update={"decoder": config.decoder.model_copy(update={"layers": layers})})
    measured = measure(config, side, queries)
    return Size(measured.parameters, measured.total_gflops)


def interleaved(models: dict[str, Run], rounds: int) -> Samples:
    """Run every model once a round, forwards and backwards by turns; the first two rounds warm up."""
    samples: Samples = {name: [] for name in models}
    for number in tqdm(range(-WARM_UP_ROUNDS, rounds), unit="round"):
        for name in models if number % 2 else reversed(models):
            cpu, clock = process_time(), perf_counter()
            models[name]()
            if number >= 0:
                samples[name].append(((process_time() - cpu) * 1e3, (perf_counter() - clock) * 1e3))
    return samples


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path, help="<models>/<name>/<version> of a nano")
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and instances_<split>.json")
    parser.add_argument("--split", default="val", help="pictures that K is taken from (default: %(default)s)")
    parser.add_argument("--cache", type=Path, required=True, help="folder that benchmarks/peer_models.py has filled")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="MODEL", help="; ".join(MODELS))
    parser.add_argument("--sides", type=int, nargs="+", default=[640], help="sides of the picture in pixels")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="numbers of threads")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single time here, too")
    parser.add_argument("--page", type=Path, metavar="FILE", help="document whose tables are replaced")
    return parser


if __name__ == "__main__":
    main()
