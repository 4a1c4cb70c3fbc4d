"""Ray Serve: a replica per core behind its proxy.

RAY_USAGE_STATS_ENABLED=0 PEERS/bin/python -m benchmarks.serving_peers.ray_serve service/models/nano-nwpu/5 --port 9003
"""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import ray  # pyright: ignore[reportMissingImports]  # in the environment of the peers only
from ray import serve  # pyright: ignore[reportMissingImports]
from starlette.requests import Request

from benchmarks.serving_peers.work import Pipeline, peer_parser

OBJECT_STORE_BYTES = 100 * 1024**2


@serve.deployment
class DetectReplica:
    """Does the whole job, one picture at a time."""

    def __init__(self, folder: Path, threads: int, spinning: bool, cut: bool) -> None:
        self._pipeline = Pipeline(folder, threads, spinning, cut)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """A form with a part `file`. Blocking is fine: a replica has a core to itself and takes one call at a time."""
        async with request.form() as form:
            upload = await form["file"].read()  # pyright: ignore[reportAttributeAccessIssue]
        return self._pipeline.detect(upload)


def main() -> None:
    """Serve until a signal comes."""
    parser = peer_parser(__doc__)
    parser.add_argument("--replicas", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--ongoing", type=int, default=1, help="calls that a replica holds at once")
    options = parser.parse_args()
    ray.init(
        address="local",
        num_cpus=options.replicas + 1,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": options.port, "access_log": False})
    replica = DetectReplica.options(  # pyright: ignore[reportFunctionMemberAccess]  # what the decorator makes
        num_replicas=options.replicas, max_ongoing_requests=options.ongoing, ray_actor_options={"num_cpus": 1}
    )
    job = (options.model_dir.resolve(), options.threads, options.spinning, options.cut)
    serve.run(replica.bind(*job), route_prefix="/detect")
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
