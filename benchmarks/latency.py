"""Time the graphs of a model folder at a fixed number of queries, and weigh a serving process.

    python benchmarks/latency.py service/models/nano-nwpu/5 --rounds 30 --json latency.json

K is forced on the host, as the service cuts the proposals. Rounds are interleaved (every variant once, then
again), so that a slow spell of the machine falls on all variants alike; the median and the middle half are given.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image
from tqdm import tqdm

from service.engines.base import DecoderInputs
from service.engines.onnx import OnnxEngine
from service.manifest import ModelFolder, load_model_folder
from service.settings import Settings

READY_SECONDS, ANSWER_SECONDS = 60, 60
WEIGHING_ROUNDS = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the figures where asked."""
    options = _parser().parse_args(arguments)
    folder = load_model_folder(options.model_dir.resolve())
    figures = {
        "model": f"{folder.manifest.name}/{folder.manifest.version}",
        "commit": folder.manifest.source.commit,
        "machine": machine(),
        "side": options.side,
        "rounds": options.rounds,
        "variants": time_variants(folder, options),
        "memory": weigh_service(options.model_dir.resolve(), options.pictures),
    }
    print(report(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def time_variants(folder: ModelFolder, options: argparse.Namespace) -> list[dict]:
    """Every number of threads with every K: milliseconds of encoder, decoder and both."""
    engines = {threads: OnnxEngine(folder, options.provider, threads) for threads in options.threads}
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (1, 3, options.side, options.side), dtype=np.uint8)
    samples: dict[tuple[int, int], list[tuple[float, float]]] = {
        (threads, queries): [] for threads in options.threads for queries in options.queries
    }
    for number in tqdm(range(options.rounds + 2), unit="round"):
        for (threads, queries), times in samples.items():
            begun = perf_counter()
            encoded = engines[threads].encode(image)
            half = perf_counter()
            engines[threads].decode(DecoderInputs.of_batch(encoded), [min(queries, encoded.queries.shape[1])])
            if number >= 2:  # the first two rounds warm up
                times.append((half - begun, perf_counter() - half))
    milliseconds = {variant: np.array(times) * 1e3 for variant, times in samples.items()}
    most = max(options.queries)
    return [
        {"threads": threads, "queries": queries, **summary(times, milliseconds[threads, most])}
        for (threads, queries), times in milliseconds.items()
    ]


def summary(milliseconds: np.ndarray, most: np.ndarray) -> dict[str, dict[str, float]]:
    """Median and quartiles of (rounds, 2) encoder and decoder times, and of their ratio to those at most queries."""
    columns = {
        "encoder_ms": milliseconds[:, 0],
        "decoder_ms": milliseconds[:, 1],
        "both_ms": milliseconds.sum(axis=1),
        "decoder_by_most": milliseconds[:, 1] / most[:, 1],
        "both_by_most": milliseconds.sum(axis=1) / most.sum(axis=1),
    }
    return {
        name: dict(zip(("low", "median", "high"), np.percentile(values, (25, 50, 75)).tolist(), strict=True))
        for name, values in columns.items()
    }


def weigh_service(model_dir: Path, sizes: Sequence[tuple[int, int]]) -> dict:
    """Resident memory in MB of a really started serving process: ready, then after pictures of each (width, height).

    The pictures come in rounds of as many calls at once as the service has workers. The peak is the process's so
    far, so the sizes are sent in rising order.
    """
    workers = Settings().workers  # the serving process reads the same environment
    pictures = []
    with serving(model_dir) as (process, address), ThreadPoolExecutor(workers) as callers:
        ready = resident_mb(process.pid)
        for width, height in sorted(sizes, key=lambda size: size[0] * size[1]):
            body = noise_jpeg(width, height)
            for _ in range(WEIGHING_ROUNDS):
                list(callers.map(detect, [address] * workers, [body] * workers))
            after, peak = resident_mb(process.pid), peak_mb(process.pid)
            pictures.append({"width": width, "height": height, "after_mb": after, "peak_mb": peak})
    return {"workers": workers, "ready_mb": ready, "pictures": pictures}


def noise_jpeg(width: int, height: int) -> bytes:
    """A picture with content everywhere and a file size as of a photograph."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (max(1, height // 4), max(1, width // 4), 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(coarse).resize((width, height)).save(buffer, "JPEG")
    return buffer.getvalue()


def detect(address: str, body: bytes) -> None:
    """Send one picture and wait for the answer."""
    request = urllib.request.Request(f"{address}/detect", body, {"Content-Type": "image/jpeg"})
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
        answer.read()


@contextmanager
def serving(model_dir: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `python -m service serve` on a free port; yields it and its address once it says that it is ready."""
    version, name, models = model_dir.name, model_dir.parent.name, model_dir.parents[1]
    command = [sys.executable, "-m", "service", "serve", "--port", "0"]
    command += ["--models", str(models), "--model", f"{name}/{version}"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        watchdog = threading.Timer(READY_SECONDS, process.kill)
        watchdog.start()
        try:
            address = _wait_for_address(process)
            watchdog.cancel()
            yield process, address
        finally:
            watchdog.cancel()
            process.terminate()
            process.communicate(timeout=READY_SECONDS)


def _wait_for_address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if match := re.search(r"(http://\S+)/docs", line):
            return match[1]
    raise SystemExit("the service did not become ready; try `python -m service check MODEL_DIR`")


def resident_mb(pid: int) -> float:
    """Resident memory now, in MB."""
    return _memory_mb(pid, "VmRSS")


def peak_mb(pid: int) -> float:
    """Largest resident memory so far, in MB."""
    return _memory_mb(pid, "VmHWM")


def _memory_mb(pid: int, field: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    match = re.search(rf"{field}:\s+(\d+) kB", status)
    assert match, f"/proc/{pid}/status has no {field}"
    return int(match[1]) * 1024 / 1e6


def machine() -> str:
    """Name of the processor and how many of its cores this process may use."""
    names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def report(figures: dict) -> str:
    """The figures as text for a person."""
    lines = [
        f"{figures['model']} at {figures['side']} px, {figures['rounds']} rounds, {figures['machine']}",
        f"{'threads':>7}{'K':>6}{'encoder ms':>14}{'decoder ms':>14}{'both ms':>14}   (middle half)",
    ]
    for row in figures["variants"]:
        both = row["both_ms"]
        lines.append(
            f"{row['threads']:>7}{row['queries']:>6}{row['encoder_ms']['median']:>14.1f}"
            f"{row['decoder_ms']['median']:>14.1f}{both['median']:>14.1f}   ({both['low']:.1f} - {both['high']:.1f})"
        )
    memory = figures["memory"]
    lines.append(
        f"serving process: {memory['ready_mb']:.0f} MB resident when ready; {memory['workers']} calls at once:"
    )
    lines += [
        f"  pictures of {row['width']} x {row['height']} px: {row['after_mb']:.0f} MB, peak {row['peak_mb']:.0f} MB"
        for row in memory["pictures"]
    ]
    return "\n".join(lines)


def _size(text: str) -> tuple[int, int]:
    """(width, height) of "4000x3000"."""
    width, height = text.split("x")
    return int(width), int(height)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path, help="<models>/<name>/<version>")
    parser.add_argument("--side", type=int, default=640, help="canvas side in pixels that the graphs are timed at")
    parser.add_argument("--queries", type=int, nargs="+", default=[100, 300, 600], help="values of K")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads")
    parser.add_argument(
        "--pictures",
        type=_size,
        nargs="+",
        default=[(640, 640), (4000, 3000)],
        metavar="WIDTHxHEIGHT",
        help="pictures in pixels that the serving process is weighed with",
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser


if __name__ == "__main__":
    main()
