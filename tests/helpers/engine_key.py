"""An engine that was never built, for tests of what is done with engines."""

from export.engines.build import Built
from export.engines.cache import EngineKey

KEY = EngineKey(
    library="tensorrt",
    version="10.13.3.9",
    gpu="NVIDIA L4",
    compute_capability="8.9",
    graph="encoder.onnx",
    graph_sha256="0" * 64,
    precision="fp32",
    shapes={"images": ((1, 3, 64, 64), (1, 3, 64, 64), (4, 3, 64, 64))},
    workspace_mib=None,
)
BUILT = Built(b"an engine", seconds=1.0, host_peak_mib=100)
