"""A built engine on the GPU, for the parity gate."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.engines.cache import read_record
from export.engines.library import EngineError, load_tensorrt
from export.engines.profile import refuse_outside
from export.runtime import Array


class Engine:
    """A graph in TensorRT; a `Runner` of `export.runtime`. Its memory is torch's, on the current CUDA device."""

    def __init__(self, path: Path) -> None:
        """Load an engine from its cache.

        Raises:
            FileNotFoundError, ValueError: see `read_record`.
            EngineError: no such library or GPU here, or not the one that the engine was built with.
        """
        record = read_record(path)
        key, library = record.key, load_tensorrt(record.key.library)
        if library.version != key.version:
            raise EngineError(
                f"{path} was built with {key.library} {key.version}, and {library.version} is here; build it again"
            )
        if not torch.cuda.is_available():
            raise EngineError(f"{path} runs on {key.gpu}, and torch finds no GPU here")
        self.name = path.name
        self.shapes = key.shapes
        self._trt = library.module
        self._engine: Any = self._trt.Runtime(library.log).deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise EngineError(f"{path} cannot be loaded here; it was built for {key.gpu}")
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self._outputs = [name for name in names if self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.OUTPUT]
        if odd := [name for name in self._outputs if self._engine.get_tensor_dtype(name) != self._trt.float32]:
            raise EngineError(f"{path}: the outputs {odd} are not float32, as every precision must have them")

    @property
    def device_mib(self) -> int:
        """Memory of the GPU for activations at the largest shapes."""
        return self._engine.device_memory_size_v2 // 2**20

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Inputs by name to outputs by name.

        Raises:
            ValueError: see `refuse_outside`.
            EngineError: TensorRT reports a failure.
        """
        refuse_outside(self.shapes, {name: value.shape for name, value in feed.items()})
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)).cuda() for name, value in feed.items()}
        for name, tensor in tensors.items():
            self._context.set_input_shape(name, tuple(tensor.shape))
        tensors |= {name: self._room_for(name) for name in self._outputs}
        for name, tensor in tensors.items():
            self._context.set_tensor_address(name, tensor.data_ptr())
        stream = torch.cuda.Stream()  # TensorRT waits for the device where it is given the default stream
        stream.wait_stream(torch.cuda.current_stream())  # the inputs are copied there
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise EngineError(f"{self.name}: TensorRT failed to run it; its log says why")
        stream.synchronize()
        return {name: tensors[name].cpu().numpy() for name in self._outputs}

    def _room_for(self, output: str) -> Tensor:
        return torch.empty(tuple(self._context.get_tensor_shape(output)), device="cuda")
