"""The plain way: FastAPI, one pair of ONNX Runtime sessions, and a `def` endpoint that FastAPI runs in its thread pool.

PEERS/bin/python -m benchmarks.serving_peers.plain service/models/nano-nwpu/5 --port 9001
"""

from typing import Any

import uvicorn
from fastapi import FastAPI, UploadFile

from benchmarks.serving_peers.work import Pipeline, peer_parser


def create_app(pipeline: Pipeline) -> FastAPI:
    """An app with one endpoint."""
    app = FastAPI()

    @app.post("/detect")
    def detect(file: UploadFile) -> dict[str, Any]:
        return pipeline.detect(file.file.read())

    return app


def main() -> None:
    """Serve until a signal comes, as `uvicorn` does by default but for the log of every call."""
    options = peer_parser(__doc__).parse_args()
    app = create_app(Pipeline(options.model_dir, options.threads, options.spinning, options.cut))
    uvicorn.run(app, host="127.0.0.1", port=options.port, access_log=False)


if __name__ == "__main__":
    main()
