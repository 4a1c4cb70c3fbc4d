"""The second road to TensorRT: ONNX Runtime's execution provider, which builds and caches engines by itself.

Option names: ONNX Runtime documentation, "TensorRT Execution Provider".
"""

from pathlib import Path

from export.engines.library import EnginePrecision
from export.engines.profile import Shape, Shapes

PROVIDER = "TensorrtExecutionProvider"


def provider_options(
    cache: Path, shapes: Shapes, precision: EnginePrecision, workspace_mib: int | None = None
) -> dict[str, str]:
    """Options of the provider for one graph, as the folder of the cache and the profile ask.

    The graph says what is fp16 and what int8, as long as neither is switched on (`trt_fp16_enable` would also halve
    what the fp16 graph keeps in float32), so bf16 is the only switch. An int8 graph goes through `for_tensorrt` first.

    Args:
        cache: folder for engines and kernel timings of this graph alone; it must exist. ONNX Runtime names an engine
            by the names in its graph, not by its weights, so that two models in one folder would share an engine.
        shapes: smallest, typical and largest shape of every input.
        precision: of the graph; bf16 takes the fp32 graph.
        workspace_mib: most scratch memory of a layer; all that the GPU has without it.
    """
    options = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
        "trt_bf16_enable": str(int(precision == "bf16")),
    }
    if workspace_mib is not None:
        options["trt_max_workspace_size"] = str(workspace_mib * 2**20)
    for index, end in enumerate(("min", "opt", "max")):
        options[f"trt_profile_{end}_shapes"] = ",".join(
            f"{name}:{_times(shape[index])}" for name, shape in shapes.items()
        )
    return options


def _times(shape: Shape) -> str:
    return "x".join(map(str, shape))
