"""TensorRT behind one door: which module is loaded, where its log goes, and what sets its two editions apart.

`tensorrt` builds for the GPU that it finds, by timing kernels on it. `tensorrt-rtx` builds without a GPU, for any RTX
card from compute capability 8.0 on, and finishes the work on the card. Like TensorRT 11 it has no weak typing, and its
timing cache does nothing (TensorRT-RTX documentation, "CPU-Only AOT"; TensorRT documentation, "Migrating from 10.x").
"""

import importlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

import torch

LibraryName = Literal["tensorrt", "tensorrt-rtx"]
LIBRARIES: tuple[LibraryName, ...] = get_args(LibraryName)
EnginePrecision = Literal["fp32", "fp16", "bf16", "int8"]
ENGINE_PRECISIONS: tuple[EnginePrecision, ...] = get_args(EnginePrecision)

# The package tensorrt_rtx is only a name for these bindings, and is not there where wheels alone are installed.
MODULES: dict[LibraryName, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx_bindings"}
INSTALL: dict[LibraryName, str] = {
    "tensorrt": "on a machine with an NVIDIA GPU and CUDA 13, install the extra `tensorrt` of this project: "
    'pip install -e ".[export,tensorrt]"',
    "tensorrt-rtx": "pip install tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs",
}
ANY_RTX = "any RTX GPU from compute capability 8.0"

logger = logging.getLogger("heatquery.tensorrt")


class EngineError(ValueError):
    """TensorRT is not there, or cannot build, load or run what it is given."""


@dataclass(frozen=True)
class TensorRT:
    """A loaded library."""

    name: LibraryName
    module: Any

    @property
    def version(self) -> str:
        return self.module.__version__

    @property
    def log(self) -> Any:
        """The library's logger; it keeps the last errors in `errors`."""
        return _logger_of(self.module)

    @property
    def has_timing_cache(self) -> bool:
        return self.name == "tensorrt"

    def gpu(self) -> tuple[str, str]:
        """Name and compute capability of what engines are built for. Raises EngineError without the GPU it takes."""
        if self.name == "tensorrt-rtx":
            return ANY_RTX, "8.0+"
        if not torch.cuda.is_available():
            raise EngineError(
                "TensorRT builds for the GPU that it finds, and torch finds none here; build on the machine that will "
                "run the engine, or for RTX cards with --library tensorrt-rtx"
            )
        major, minor = torch.cuda.get_device_capability()
        return torch.cuda.get_device_name(), f"{major}.{minor}"

    def create_network(self, builder: Any, precision: EnginePrecision) -> Any:
        """An empty network. It takes its types from the graph, except for bf16, which is a permission to the builder.

        Raises:
            EngineError: bf16 where there is no such permission.
        """
        if precision != "bf16":
            return builder.create_network(1 << int(self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        if not hasattr(self.module.BuilderFlag, "BF16"):
            raise EngineError(
                f"{self.name} {self.version} takes every type from the graph and has no bf16 to switch on; "
                "use --precision fp16, or TensorRT 10"
            )
        return builder.create_network(0)

    def set_flags(self, config: Any, precision: EnginePrecision) -> None:
        """Float32 is float32 and not TF32, which has the ten bits of fp16; bf16 is allowed where it is asked for."""
        config.clear_flag(self.module.BuilderFlag.TF32)
        if precision == "bf16":
            config.set_flag(self.module.BuilderFlag.BF16)


def load_tensorrt(name: LibraryName = "tensorrt") -> TensorRT:
    """Load a library. Raises EngineError, with the way to install it, where it is not."""
    try:
        return TensorRT(name, importlib.import_module(MODULES[name]))
    except ImportError as error:
        raise EngineError(f"{name} is not installed ({error}); {INSTALL[name]}") from error


@cache
def _logger_of(module: Any) -> Any:
    """The one logger of a process; TensorRT complains of a second."""
    severity = module.ILogger.Severity
    write: dict[Any, Callable[[str], None]] = {
        severity.INTERNAL_ERROR: logger.critical,
        severity.ERROR: logger.error,
        severity.WARNING: logger.warning,
        severity.INFO: logger.info,
        severity.VERBOSE: logger.debug,
    }

    class PythonLogger(module.ILogger):
        def __init__(self) -> None:
            module.ILogger.__init__(self)  # the bindings refuse super()
            self.errors: deque[str] = deque(maxlen=5)

        def log(self, severity_: Any, message: str) -> None:
            if severity_ in (severity.INTERNAL_ERROR, severity.ERROR):
                self.errors.append(message)
            write[severity_](message)

    return PythonLogger()
