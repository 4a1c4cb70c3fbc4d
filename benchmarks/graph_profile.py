"""Where the graphs of a model folder spend their time: milliseconds by kind of node, and the dearest nodes.

    python benchmarks/graph_profile.py service/models/nano-nwpu/5 --side 640 --queries 100

ONNX Runtime's own profiler on one thread of the CPU, after all of the runtime's rewriting. Of each node the quickest
round counts, so that other work on the machine matters little; the sum is therefore a bit below what a run takes.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import GraphProto

Array: TypeAlias = NDArray[Any]
PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True)
class NodeTime:
    """One node of the graph that runs."""

    kind: str
    """Its operator."""
    name: str
    milliseconds: float
    shapes: str
    """Of inputs and outputs."""
    module: str
    """Whose weights it has, or, after "<", whose weights its input met last; empty where that cannot be told."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Profile encoder.onnx, then decoder.onnx on what the encoder gave, and print."""
    options = _parser().parse_args(arguments)
    side, queries = options.side, options.queries
    image = np.random.default_rng(0).integers(0, 256, (1, 3, side, side), dtype=np.uint8)
    times, outputs = profile(options.model_dir / "encoder.onnx", {"images": image}, options.rounds)
    print(report(f"encoder.onnx at {side} px", times, options.dearest))
    queries = min(queries, outputs["queries"].shape[1])
    feed = {name: value for name, value in outputs.items() if name.startswith("memory_")}
    feed |= {name: outputs[name][:, :queries] for name in ("queries", "reference_boxes")}
    feed["valid"] = np.ones((1, queries), dtype=bool)
    times, _ = profile(options.model_dir / "decoder.onnx", feed, options.rounds)
    print(report(f"decoder.onnx at {side} px, K = {queries}", times, options.dearest))


def profile(path: Path, feed: Mapping[str, Array], rounds: int) -> tuple[list[NodeTime], dict[str, Array]]:
    """Run a graph `rounds` times on the same input; the time of every node, and the outputs by name."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(path, options, providers=[PROVIDER])
        names = [item.name for item in session.get_outputs()]
        for _ in range(rounds - 1):
            session.run(names, dict(feed))
        outputs = [np.asarray(value) for value in session.run(names, dict(feed))]
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    found = node_times(events, modules(onnx.load(path).graph))
    return found, dict(zip(names, outputs, strict=True))


def node_times(events: Iterable[dict], known: Mapping[str, str]) -> list[NodeTime]:
    """The profiler's events, microseconds of every node in every round, as one time per node, dearest first.

    Args:
        known: what `modules` found.
    """
    rounds: dict[str, list[dict]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            rounds[event["args"]["node_index"]].append(event)
    times = []
    for same in rounds.values():
        name, arguments = same[0]["name"].removesuffix("_kernel_time"), same[0]["args"]
        shapes = " -> ".join(_shapes(arguments[f"{side}_type_shape"]) for side in ("input", "output"))
        module = known.get(name.removesuffix("_nchwc").split("/")[0], "")
        times.append(NodeTime(arguments["op_name"], name, min(e["dur"] for e in same) / 1000, shapes, module))
    return sorted(times, key=lambda time: -time.milliseconds)


def modules(graph: GraphProto) -> dict[str, str]:
    """Module of every node, by its name and by those of its outputs: one of them survives the runtime's rewriting."""
    weights = {tensor.name for tensor in graph.initializer if "." in tensor.name}
    found: dict[str, str] = {}
    for node in graph.node:  # sorted, so that what a node reads comes before it
        own = next((name.rpartition(".")[0] for name in node.input if name in weights), None)
        before = next((found[name] for name in node.input if found.get(name)), "")
        module = before if own is None else own.removeprefix("detector.")
        for name in (node.name, *node.output):
            found[name] = module if own or not module else f"< {module.removeprefix('< ')}"
    return found


def report(title: str, times: Sequence[NodeTime], dearest: int) -> str:
    """The times as text for a person."""
    total = sum(time.milliseconds for time in times)
    kinds: dict[str, list[float]] = defaultdict(list)
    for time in times:
        kinds[time.kind].append(time.milliseconds)
    lines = [f"{title}: {total:.2f} ms in {len(times)} nodes", f"{'kind':<22}{'nodes':>6}{'ms':>9}{'share':>8}"]
    for kind, spent in sorted(kinds.items(), key=lambda item: -sum(item[1])):
        lines.append(f"{kind:<22}{len(spent):>6}{sum(spent):>9.3f}{sum(spent) / total:>8.1%}")
    lines += ["", f"{'ms':>7}  {'kind':<18}{'module':<50}shapes"]
    lines += [f"{t.milliseconds:>7.3f}  {t.kind:<18}{t.module:<50}{t.shapes}" for t in times[:dearest]]
    return "\n".join([*lines, ""])


def _shapes(tensors: Iterable[Mapping[str, Sequence[int]]]) -> str:
    """[{"float": [1, 2]}, {"float": []}] as "1x2 ()"."""
    return " ".join("x".join(map(str, shape)) or "()" for tensor in tensors for shape in tensor.values())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path, help="<models>/<name>/<version>")
    parser.add_argument("--side", type=int, default=640, help="canvas side in pixels")
    parser.add_argument("--queries", type=int, default=100, help="K, as the host cuts the proposals")
    parser.add_argument("--rounds", type=int, default=20, help="runs of each graph")
    parser.add_argument("--dearest", type=int, default=30, help="how many single nodes to print")
    return parser


if __name__ == "__main__":
    main()
