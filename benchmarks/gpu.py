"""Time detectors on a GPU, ours and others, all in one process: PyTorch call by call, CUDA graphs, and ONNX Runtime.

    python benchmarks/gpu.py service/models/nano-nwpu/5 --batches 1 8 32 --json gpu.json

Every round runs each model once, and every other round in reverse order. Times are of the clock until the GPU is done:
from pictures that lie on the GPU to boxes and scores that lie there. ONNX Runtime, which is what the service runs,
takes pictures from the host instead, and gives all that the service reads back to it. Pictures are random, and so are
the weights of all but the model folder. The others come from transformers (`benchmarks/peer_models.py`): they make
tensors on the host in every call, which no CUDA graph can hold, so ours alone are captured.
"""

import argparse
import gc
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.book_result import Row, write_rows
from benchmarks.complexity import CLASSES
from benchmarks.peer_models import PEERS, FromBytes
from benchmarks.peer_report import Spread
from benchmarks.peers import WARM_UP_ROUNDS, Run, interleaved
from model.detector import Detector
from model.presets import preset
from service.engines.base import DecoderInputs
from service.engines.onnx import OnnxEngine
from service.manifest import load_model_folder

OURS = ("nano", "small", "base")
OTHERS = ("d-fine-n", "d-fine-s", "rt-detr-r18")
PRECISIONS = ("fp32", "bf16")


class FixedQueries(nn.Module):
    """A detector of ours with a given K, so that nothing waits for the count of objects."""

    def __init__(self, detector: Detector, queries: int) -> None:
        super().__init__()
        self.detector, self.queries = detector, queries

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) uint8 to logits (B, K, C) and boxes (B, K, 4)."""
        encoded = self.detector.encode(images)
        with torch.autocast(images.device.type, enabled=False):
            counts = torch.full((len(images),), self.queries, device=images.device)
            last = self.detector.decode(encoded.memory, self.detector.propose(encoded, self.queries, counts))[-1]
        return last.logits, last.boxes


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the figures where asked."""
    options = _parser().parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here; benchmarks/peers.py times the same models on a CPU")
    torch.manual_seed(0)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, K = {options.queries} of ours", flush=True)
    rows = []
    for batch in options.batches:
        for name, samples in interleaved(dict(contenders(options, batch)), options.rounds).items():
            claim = f"{name}, batch of {batch}: a picture"
            clock = np.array([milliseconds for _, milliseconds in samples])
            rows.append(Row.of(claim, Spread.of(clock / batch), "ms"))
            print(f"{claim}: {rows[-1].measured}", flush=True)
        gc.collect()
        torch.cuda.empty_cache()
    if options.json:
        write_rows(options.json, rows)


def contenders(options: argparse.Namespace, batch: int) -> Iterator[tuple[str, Run]]:
    """What to call, by name."""
    images = torch.randint(0, 256, (batch, 3, options.side, options.side), dtype=torch.uint8, device="cuda")
    for model, precision in product(options.models, PRECISIONS):
        detector = build(model, options).cuda().eval()
        yield f"{model}, {precision}, call by call", waited(forward(detector, precision, images))
        if model in OURS:
            yield f"{model}, {precision}, CUDA graph", waited(captured(forward(detector, precision, images)))
    engine = OnnxEngine(load_model_folder(options.model_dir.resolve(), provider="cuda"), "cuda")
    yield "nano, fp32, ONNX Runtime", served(engine, images.cpu().numpy(), options)


def build(model: str, options: argparse.Namespace) -> nn.Module:
    """A model with random weights."""
    if model in OURS:
        return FixedQueries(Detector(preset(model, CLASSES)), options.queries)
    return FromBytes(PEERS[model](options.side))


def forward(model: nn.Module, precision: str, images: Tensor) -> Run:
    """A call that runs the model on the pictures."""

    @torch.inference_mode()
    def run() -> object:
        # A cache of weights in bf16 would lie in the memory of the graph that is captured with it.
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            return model(images)

    return run


def waited(run: Run) -> Run:
    """The same, which returns when the GPU is done."""

    def call() -> None:
        run()
        torch.cuda.synchronize()

    return call


def captured(run: Run) -> Run:
    """The same as a CUDA graph."""
    graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # what is chosen or allocated in the first calls must not be captured
        for _ in range(WARM_UP_ROUNDS):
            run()
    torch.cuda.current_stream().wait_stream(aside)
    with torch.cuda.graph(graph):
        kept = run()

    def replay() -> object:
        graph.replay()
        return kept

    return replay


def served(engine: OnnxEngine, pictures: np.ndarray, options: argparse.Namespace) -> Run:
    """Both graphs as the service runs them, with a given K."""

    def run() -> object:
        encoded = engine.encode(pictures)
        return engine.decode(DecoderInputs.of_batch(encoded), [options.queries] * len(pictures))

    return run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path, help="<models>/<name>/<version> of a nano, for ONNX Runtime")
    parser.add_argument(
        "--models",
        nargs="*",
        choices=(*OURS, *OTHERS),
        default=(*OURS, *OTHERS),
        metavar="MODEL",
        help=f"{', '.join((*OURS, *OTHERS))} (default: all)",
    )
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 8, 32), help="pictures at a time")
    parser.add_argument("--queries", type=int, default=100, help="K of our models (default: %(default)s)")
    parser.add_argument("--side", type=int, default=640, help="side of the pictures in pixels (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    return parser


if __name__ == "__main__":
    main()
