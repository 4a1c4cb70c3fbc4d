"""From a graph to a serialised engine."""

import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from export.engines.library import EngineError, EnginePrecision, TensorRT, logger
from export.engines.profile import Shapes
from export.folder import write_whole

MIB = 2**20


@dataclass(frozen=True)
class Built:
    """A new engine, and what it took."""

    engine: bytes
    seconds: float
    """Wall time."""
    host_peak_mib: int
    """Most memory that the process has had so far."""


def build_engine(
    library: TensorRT,
    graph: bytes,
    shapes: Shapes,
    precision: EnginePrecision,
    *,
    title: str,
    workspace_mib: int | None = None,
    timing_cache: Path | None = None,
) -> Built:
    """Parse a graph and build its engine, with a progress bar; Ctrl-C ends it. For the main thread only.

    Args:
        graph: a serialised ONNX model in the precision that is asked for; fp32 for bf16.
        title: what the graph is called in messages.
        workspace_mib: most scratch memory of a layer; all that the GPU has without it.
        timing_cache: file with kernel timings of earlier builds, read and renewed where the library has such a thing.
    Raises:
        EngineError: the graph cannot be parsed or built, or the library has no such precision.
    """
    trt, started = library.module, time.monotonic()
    library.log.errors.clear()
    builder = trt.Builder(library.log)
    network = library.create_network(builder, precision)
    _parse(library, network, graph, title)
    config = builder.create_builder_config()
    library.set_flags(config, precision)
    config.add_optimization_profile(_profile(builder, shapes))
    if workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib * MIB)
    timings = timing_cache if library.has_timing_cache else None
    if timings is not None:
        _read_timings(config, timings)
    with _monitor(library, f"{title} {precision}") as monitor:
        config.progress_monitor = monitor
        engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise EngineError(f"{title}: {library.name} {library.version} cannot build it: {_last_error(library)}")
    if timings is not None:
        write_whole(timings, bytes(config.get_timing_cache().serialize()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # Linux counts in KiB
    return Built(bytes(engine), time.monotonic() - started, peak)


def _parse(library: TensorRT, network: Any, graph: bytes, title: str) -> None:
    parser = library.module.OnnxParser(network, library.log)
    if parser.parse(graph):
        return
    error = parser.get_error(0)
    node = f"node {error.node_name()!r} ({error.node_operator()})" if error.node_operator() else "the file"
    why = " ".join(error.desc().split())
    raise EngineError(f"{title}: {library.name} {library.version} cannot parse {node}: {why}")


def _profile(builder: Any, shapes: Shapes) -> Any:
    profile = builder.create_optimization_profile()
    for name, (low, typical, high) in shapes.items():
        profile.set_shape(name, low, typical, high)
    return profile


def _read_timings(config: Any, path: Path) -> None:
    """Give the builder its earlier timings, or none where they are of another device or damaged."""
    known = path.read_bytes() if path.exists() else b""
    if not config.set_timing_cache(config.create_timing_cache(known), False):
        logger.warning("%s does not fit this GPU and TensorRT; kernels are timed anew", path)
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _last_error(library: TensorRT) -> str:
    return " ".join(library.log.errors[-1].split()) if library.log.errors else "it gives no reason"


@contextmanager
def _monitor(library: TensorRT, title: str) -> Iterator[Any]:
    """A bar over the steps of a build, as far as they are known yet.

    The library swallows exceptions of its callbacks, KeyboardInterrupt too, so Ctrl-C becomes a request to stop.
    """
    with tqdm(total=0, desc=title, unit="step", disable=None) as bar:

        class Monitor(library.module.IProgressMonitor):
            stopped = False

            def __init__(self) -> None:
                library.module.IProgressMonitor.__init__(self)  # the bindings refuse super()

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
                bar.total += num_steps
                bar.set_postfix_str(phase_name)

            def step_complete(self, phase_name: str, step: int) -> bool:
                bar.update()
                return not self.stopped

            def phase_finish(self, phase_name: str) -> None:
                pass

        monitor = Monitor()
        previous = signal.signal(signal.SIGINT, lambda *_: setattr(monitor, "stopped", True))
        try:
            yield monitor
        finally:
            signal.signal(signal.SIGINT, previous)
    if monitor.stopped:
        raise KeyboardInterrupt
