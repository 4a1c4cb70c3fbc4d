"""What the service counts and measures, in Prometheus' terms: base units (seconds, bytes), prefix `heatquery_`.

docs/monitoring.md lists every metric with its meaning.
"""

import os
import re
from pathlib import Path
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from service.metrics_of_workers import FOLDER_VARIABLE, WorkersCollector

Stage = Literal["queue", "preprocess", "encode", "decode", "postprocess"]
Batched = Literal["encode", "decode"]
TileOutcome = Literal["detected", "skipped"]
SceneEnd = Literal["done", "failed"]
_Join = Literal["livesum", "livemin", "livemax"]  # how one gauge is made of those of the processes that live

_STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BODY_BYTES = tuple(1024.0 * 4**power for power in range(1, 9))  # 4 KiB to 64 MiB
_BATCH = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_QUERIES = (25, 50, 100, 150, 200, 300, 400, 500, 600, 900, 1200, 1500)
_ODD_VERSION = re.compile(r"version=(?!\d+(\.\d+)*\s*([;,]|$))")  # prometheus-client fails on one that is no number
_OBJECTS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """Every metric of one app, in a registry of its own, so that two apps in one process do not mix.

    Where `PROMETHEUS_MULTIPROC_DIR` is set (prometheus-client's own switch, see `share_metrics`), the numbers are kept
    in files there and `render` adds up those of all processes.
    """

    def __init__(self) -> None:
        folder = os.environ.get(FOLDER_VARIABLE)
        self._registry = CollectorRegistry()
        self._scraped = self._registry
        if folder:
            self._scraped = CollectorRegistry()
            WorkersCollector(Path(folder), self._scraped)
        else:
            ProcessCollector(registry=self._registry)
        self._declare_requests()
        self._declare_work()
        self._declare_scenes()
        self._declare_state()

    def _declare_requests(self) -> None:
        labels = ("route", "method")
        self._request_seconds = self._histogram(
            "request_seconds",
            "From the head of a request to the end of its answer",
            _REQUEST_SECONDS,
            *labels,
            "status",
        )
        self._request_bytes = self._histogram("request_body_bytes", "Bytes read of a body", _BODY_BYTES, *labels)
        self._rejected = self._counter("rejected", "Calls not answered as asked, by the problem's code", "reason")
        self.in_flight = self._gauge("requests_in_flight", "Requests that are being answered")

    def _declare_work(self) -> None:
        stage = self._histogram("stage_seconds", "Time of one picture in one stage", _STAGE_SECONDS, "stage")
        self._stage_seconds = {name: stage.labels(name) for name in get_args(Stage)}
        batch = self._histogram("batch_size", "Pictures that ran through a graph together", _BATCH, "stage")
        self._batch_size = {name: batch.labels(name) for name in get_args(Batched)}
        depth = self._gauge("queue_depth", "Pictures that wait for a stage", "stage")
        self.queue_depth = {name: depth.labels(name) for name in get_args(Batched)}
        self._queries = self._histogram("query_count", "Decoder queries (K) of one picture", _QUERIES)
        self._estimated = self._histogram("estimated_count", "Objects in one picture, by its density map", _OBJECTS)
        self._detections = self._histogram("detections", "Detections in one answer", _OBJECTS)

    def _declare_scenes(self) -> None:
        self.scenes_open = self._gauge("scenes_open", "Scenes that wait or are worked on", workers="livemax")
        ends = self._counter("scenes_ended", "Scenes that were worked on to an end", "state")
        self._scenes_ended = {state: ends.labels(state) for state in get_args(SceneEnd)}
        tiles = self._counter("scene_tiles", "Tiles of scenes: seen by the model, or empty (skipped)", "outcome")
        self._scene_tiles = {outcome: tiles.labels(outcome) for outcome in get_args(TileOutcome)}

    def _declare_state(self) -> None:
        self._ready = self._gauge("ready", "1 once the model is proven and warm, in every process", workers="livemin")
        identity = ("name", "version", "precision", "provider", "sha256")
        self._model = self._gauge("model_info", "The loaded model; always 1", *identity, workers="livemax")
        self._store_bytes = self._gauge("store_bytes", "Memory held by results kept for GET /heatmap")
        self._store_entries = self._gauge("store_entries", "Results kept for GET /heatmap")
        self._store_lost = self._counter("store_lost", "Results that were not kept: too large, or Redis was away")
        lookups = self._counter("store_lookups", "Look-ups of kept results: found (hit) or not (miss)", "outcome")
        self._store_lookups = {True: lookups.labels("hit"), False: lookups.labels("miss")}

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"heatquery_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"heatquery_{name}", text, labels, registry=self._registry, buckets=buckets)

    def _gauge(self, name: str, text: str, *labels: str, workers: _Join = "livesum") -> Gauge:
        return Gauge(f"heatquery_{name}", text, labels, registry=self._registry, multiprocess_mode=workers)

    def stage(self, stage: Stage, seconds: float) -> None:
        """One picture spent this long in a stage."""
        self._stage_seconds[stage].observe(seconds)

    def batch(self, stage: Batched, size: int) -> None:
        """One graph ran on this many pictures together."""
        self._batch_size[stage].observe(size)

    def queries(self, k: int) -> None:
        """One picture got this many decoder queries."""
        self._queries.observe(k)

    def estimated(self, count: float) -> None:
        """One picture holds this many objects, by its density map."""
        self._estimated.observe(count)

    def detections(self, number: int) -> None:
        """One answer has this many detections."""
        self._detections.observe(number)

    def scene_tile(self, outcome: TileOutcome) -> None:
        """One tile of a scene is finished."""
        self._scene_tiles[outcome].inc()

    def scene_ended(self, state: SceneEnd) -> None:
        """One scene has its result, or never will."""
        self._scenes_ended[state].inc()

    def rejected(self, reason: str) -> None:
        """One call was not answered as asked; `reason` is a problem's code, or `cancelled`.

        Problems are counted where they leave (`WatchMiddleware`), so code that raises one does not count it too.
        """
        self._rejected.labels(reason).inc()

    def request(self, route: str, method: str, status: int, seconds: float, body_bytes: int) -> None:
        """One request came to its end; `route` is the template of its path, never the path itself."""
        self._request_seconds.labels(route, method, str(status)).observe(seconds)
        self._request_bytes.labels(route, method).observe(body_bytes)

    def store_holds(self, nbytes: int, entries: int) -> None:
        """The store holds this much now."""
        self._store_bytes.set(nbytes)
        self._store_entries.set(entries)

    def store_lost(self) -> None:
        """One result could not be kept."""
        self._store_lost.inc()

    def store_lookup(self, found: bool) -> None:
        """One result was looked up in the store."""
        self._store_lookups[found].inc()

    def ready(self, name: str, version: str, precision: str, provider: str, sha256: str) -> None:
        """The model with this identity is ready."""
        self._model.labels(name, version, precision, provider, sha256).set(1)
        self._ready.set(1)

    def forget_model(self) -> None:
        """The model goes on under another identity, on another provider; for a single process."""
        self._model.clear()

    def not_ready(self) -> None:
        """No model takes calls (any more)."""
        self._ready.set(0)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The metrics of every process in the format that an Accept header prefers, and its content type."""
        encode, content_type = choose_encoder("" if _ODD_VERSION.search(accept) else accept)
        return encode(self._scraped), content_type
