"""ONNX Runtime as the engine: on CPU, CUDA or, by its provider for that, TensorRT."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.cores import usable_cores
from service.engines.base import Decoded, DecoderInputs, DeviceArray, Encoded
from service.engines.tensorrt import Shapes, TensorRTPlan, decoder_shapes, encoder_shapes, tensorrt_options
from service.errors import EngineError, OutOfMemoryError
from service.letterbox import FloatArray
from service.manifest import ModelFolder

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# On CUDA: as exact as it was compared, memory that grows by what is needed, and no timing of every kernel at each new
# batch or K, which takes seconds. Source: ONNX Runtime documentation, "CUDA Execution Provider".
CUDA_OPTIONS = {
    "use_tf32": "0",
    "arena_extend_strategy": "kSameAsRequested",
    "cudnn_conv_algo_search": "HEURISTIC",
}
Input = NDArray[np.generic] | DeviceArray


class EngineLoadError(Exception):
    """The graphs cannot be run here, or are not the graphs that the contract describes."""


class OnnxEngine:
    """Two ONNX Runtime sessions made from verified bytes; safe to call from several threads."""

    def __init__(
        self, folder: ModelFolder, provider: str = "cpu", threads: int = 0, tensorrt: TensorRTPlan | None = None
    ) -> None:
        """Load both graphs and prove that they run where asked.

        Args:
            provider: a key of PROVIDERS.
            threads: threads inside one run; 0 for every core this process may use.
            tensorrt: for that provider, which builds its engines here, in minutes, or finds them in the plan's folder.
        Raises:
            EngineLoadError: provider absent, graph broken, or inputs and outputs not as agreed.
        """
        manifest = self._manifest = folder.manifest
        self._files = folder.loaded
        self._levels = len(manifest.strides)
        self._device = "cpu" if provider == "cpu" else "cuda"
        encoder, decoder = folder.graphs[self._files.encoder], folder.graphs[self._files.decoder]
        shapes = encoder_shapes(manifest, tensorrt.batch) if tensorrt else {}
        chosen = _with_options(provider, encoder, tensorrt, shapes)
        self._encoder = _open_session(self._files.encoder, encoder, chosen, threads)
        shapes = decoder_shapes(manifest, tensorrt.batch, self._memory_width()) if tensorrt else {}
        chosen = _with_options(provider, decoder, tensorrt, shapes)
        self._decoder = _open_session(self._files.decoder, decoder, chosen, threads)
        self._check_names()

    @property
    def provider(self) -> str:
        """First provider of the encoder session: the one that runs the graph."""
        return self._encoder.get_providers()[0]

    @property
    def cuts_canvas(self) -> bool:
        """On a CPU time follows the pixels; a GPU is better off with batches, and plans anew for every shape."""
        return self._device == "cpu"

    def encode(self, images: NDArray[np.uint8]) -> Encoded:
        """Run the encoder on (B, 3, H, W) RGB; the memory stays on the device, where the decoder reads it."""
        outputs = _run(self._encoder, encoder_outputs(self._levels), {"images": images}, self._device)
        read = {name: value.numpy() for name, value in outputs.items() if not name.startswith("memory_")}
        return Encoded(
            memory=tuple(outputs[f"memory_{level}"] for level in range(self._levels)),
            queries=read["queries"],
            reference_boxes=read["reference_boxes"],
            count=read["count"],
            density=read["density"],
            class_heat=tuple(read[f"class_heat_{level}"] for level in range(self._levels)),
            heat=tuple(read[f"heat_{level}"] for level in range(self._levels)),
        )

    def decode(self, inputs: DecoderInputs, query_counts: Sequence[int]) -> Decoded:
        """Run the decoder with `query_counts[i]` queries for row i."""
        counts = np.asarray(query_counts)
        longest = int(counts.max())
        feed: dict[str, Input] = {f"memory_{i}": level for i, level in enumerate(inputs.memory)}
        feed["queries"] = np.ascontiguousarray(inputs.queries[:, :longest])
        feed["reference_boxes"] = np.ascontiguousarray(inputs.reference_boxes[:, :longest])
        feed["valid"] = np.arange(longest)[None, :] < counts[:, None]  # (B, K)
        outputs = _run(self._decoder, ["boxes", "scores"], feed, self._device)
        return Decoded(outputs["boxes"].numpy(), outputs["scores"].numpy())

    def check_outputs(self) -> None:
        """Run both graphs once on an empty canvas, at the largest K, and check what comes out.

        Raises:
            EngineLoadError: a shape is not what the manifest promises.
        """
        manifest = self._manifest
        side = manifest.input.size
        encoded = self.encode(np.full((1, 3, side, side), manifest.input.pad_value, dtype=np.uint8))
        for level, stride in enumerate(manifest.strides):
            cells = side // stride
            _expect(f"class_heat_{level}", encoded.class_heat[level], (1, len(manifest.classes), cells, cells))
            _expect(f"heat_{level}", encoded.heat[level], (1, 4, cells, cells))
        _expect("density", encoded.density, (1, 1, side // manifest.strides[0], side // manifest.strides[0]))
        _expect("count", encoded.count, (1,))
        queries = min(manifest.query.k_max, encoded.queries.shape[1])
        _expect("reference_boxes", encoded.reference_boxes, (1, queries, 4))
        decoded = self.decode(DecoderInputs.of_batch(encoded), [queries])
        _expect("boxes", decoded.boxes, (1, queries, 4))
        _expect("scores", decoded.scores, (1, queries, len(manifest.classes)))

    def _memory_width(self) -> int:
        """D, which the graph of the encoder says of its outputs."""
        return next(int(item.shape[1]) for item in self._encoder.get_outputs() if item.name == "memory_0")

    def _check_names(self) -> None:
        memory = [f"memory_{level}" for level in range(self._levels)]
        agreed = {
            self._files.encoder: (self._encoder, ["images"], encoder_outputs(self._levels)),
            self._files.decoder: (
                self._decoder,
                [*memory, "queries", "reference_boxes", "valid"],
                ["boxes", "scores"],
            ),
        }
        for name, (session, inputs, outputs) in agreed.items():
            found_inputs = [item.name for item in session.get_inputs()]
            found_outputs = [item.name for item in session.get_outputs()]
            if sorted(found_inputs) != sorted(inputs):
                raise EngineLoadError(f"{name}: expected inputs {inputs}, found {found_inputs}")
            if missing := [output for output in outputs if output not in found_outputs]:
                raise EngineLoadError(f"{name}: expected outputs {outputs}, missing {missing}")


def encoder_outputs(levels: int) -> list[str]:
    """Output names of encoder.onnx in their agreed order."""
    return [
        *(f"memory_{level}" for level in range(levels)),
        *("queries", "reference_boxes", "count", "density"),
        *(f"class_heat_{level}" for level in range(levels)),
        *(f"heat_{level}" for level in range(levels)),
    ]


def _with_options(
    provider: str, graph: bytes, tensorrt: TensorRTPlan | None, shapes: Shapes
) -> list[tuple[str, dict[str, str]]]:
    """The providers of a graph, best first: what TensorRT does not take runs on CUDA."""
    cuda = (PROVIDERS["cuda"], CUDA_OPTIONS)
    match provider:
        case "tensorrt" if tensorrt is not None:
            return [(PROVIDERS[provider], tensorrt_options(tensorrt.cache, graph, shapes)), cuda]
        case "cuda":
            return [cuda]
        case _:
            return [(PROVIDERS[provider], {})]


def _open_session(
    name: str, graph: bytes, providers: list[tuple[str, dict[str, str]]], threads: int
) -> ort.InferenceSession:
    provider = providers[0][0]
    if provider not in ort.get_available_providers():
        raise EngineLoadError(f"{provider} was asked for; this machine offers {ort.get_available_providers()}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    # Idle threads must sleep: a spinning pool takes cores from picture decoding and the other worker.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(graph, options, providers=providers)
    except Exception as error:  # the runtime raises its own untyped errors for every kind of broken graph
        raise EngineLoadError(f"{name}: cannot be loaded: {str(error)[:300]}") from error
    if session.get_providers()[0] != provider:
        raise EngineLoadError(f"{name}: {provider} was asked for, the runtime fell back to {session.get_providers()}")
    session.disable_fallback()
    return session


def _run(
    session: ort.InferenceSession, outputs: list[str], inputs: Mapping[str, Input], device: str
) -> dict[str, ort.OrtValue]:
    """Run a graph with inputs from the host or the device; what the decoder reads again stays on the device."""
    try:
        binding = session.io_binding()
        for name, value in inputs.items():
            if isinstance(value, ort.OrtValue):
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_cpu_input(name, value)
        for name in outputs:
            binding.bind_output(name, device if name.startswith("memory_") else "cpu")
        session.run_with_iobinding(binding)
        values = binding.get_outputs()
    except Exception as error:  # untyped again; only the text tells memory from the rest
        text = str(error)
        if "alloc" in text.lower() or "out of memory" in text.lower():
            raise OutOfMemoryError("the model ran out of memory on this picture") from error
        raise EngineError("the model failed on this picture") from error
    return dict(zip(outputs, values, strict=True))


def _expect(name: str, array: FloatArray, shape: tuple[int, ...]) -> None:
    if array.shape != shape or not np.isfinite(array).all():
        raise EngineLoadError(f"{name}: expected finite values of shape {shape}, found shape {array.shape}")
