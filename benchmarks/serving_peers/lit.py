"""LitServe: a worker process per core takes calls from a queue.

PEERS/bin/python -m benchmarks.serving_peers.lit service/models/nano-nwpu/5 --port 9002 --workers 2
"""

import argparse
import os
from typing import Any

import litserve as ls  # pyright: ignore[reportMissingImports]  # in the environment of the peers only
from starlette.requests import Request

from benchmarks.serving_peers.work import Canvas, Found, Pipeline, peer_parser


class DetectApi(ls.LitAPI):
    """Decodes pictures in the worker, one by one or in batches."""

    def __init__(self, options: argparse.Namespace) -> None:
        batching = {"max_batch_size": options.batch, "batch_timeout": options.batch_seconds}
        super().__init__(api_path="/detect", **(batching if options.batch > 1 else {}))
        self._options = options

    def setup(self, device: str) -> None:
        """Open the graphs in a worker."""
        options = self._options
        self._pipeline = Pipeline(options.model_dir, options.threads, options.spinning, options.cut)

    def decode_request(self, request: Request) -> Canvas:
        """A form with a part `file`, as LitServe hands it on."""
        return self._pipeline.read(request["file"].file.read())  # pyright: ignore[reportIndexIssue]

    def predict(self, inputs: Canvas | list[Canvas]) -> Found | list[Found]:
        """A list where batches were asked for."""
        if isinstance(inputs, Canvas):
            return self._pipeline.detect_canvases([inputs])[0]
        return self._pipeline.detect_canvases(inputs)

    def batch(self, inputs: list[Canvas]) -> list[Canvas]:
        """The canvases are put together with the runtime's inputs."""
        return inputs

    def unbatch(self, output: list[Found]) -> list[Found]:
        """Nothing to take apart."""
        return output

    def encode_response(self, output: Found) -> dict[str, Any]:
        """What becomes JSON."""
        return self._pipeline.answer(output)


def main() -> None:
    """Serve until a signal comes."""
    parser = peer_parser(__doc__)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    parser.add_argument("--batch", type=int, default=1, help="pictures in one run at most")
    parser.add_argument("--batch-seconds", type=float, default=0.01, help="how long a batch may wait to fill up")
    parser.add_argument("--fast-queue", action="store_true", help="ZeroMQ instead of queues of a manager process")
    options = parser.parse_args()
    server = ls.LitServer(
        DetectApi(options),
        accelerator="cpu",
        workers_per_device=options.workers,
        timeout=False,
        fast_queue=options.fast_queue,
    )
    server.run(host="127.0.0.1", port=options.port, num_api_servers=1, generate_client_file=False, access_log=False)


if __name__ == "__main__":
    main()
