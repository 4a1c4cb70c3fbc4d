"""The encoder in int8: uint8 activations and int8 kernels, for CPUs.

Convolutions become QuantizeLinear / DequantizeLinear pairs, which ONNX Runtime turns into integer kernels. Everything
else stays in float, the decoder too; why, with the figures, is in docs/decisions/0014-precisions.md.
"""

import tempfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from tqdm import tqdm

from export.calibration import activation_ranges
from export.pictures import Canvas
from export.sensitivity import GroupDamage, Judge, choose
from model.config import Config

FEWEST_PICTURES = 8
JUDGED_PICTURES = 12
FEWEST_CHANNELS = 16
"""A convolution with fewer input channels stays in float: integer kernels gain nothing from rows that short."""
LIMIT = 0.05
"""Damage that is accepted, see `Judge.damage`."""


class QuantizationReport(Config):
    """What was quantised, on what grounds."""

    pictures: int
    """That set the ranges of the activations."""
    judged: int
    """Of these, the pictures that damage was measured on."""
    limit: float
    damage: float
    """Of the graph that was written."""
    groups: tuple[GroupDamage, ...]

    @property
    def kept_in_float(self) -> tuple[str, ...]:
        """Parts whose convolutions the sensitivity pass left out."""
        return tuple(line.group for line in self.groups if line.kept_in_float)

    def table(self) -> str:
        """Markdown, the most harmful part first."""
        lines = ["| part | convolutions | damage alone | kept in float |", "|---|---:|---:|---|"]
        for line in sorted(self.groups, key=lambda line: -line.damage):
            kept = "yes" if line.kept_in_float else ""
            lines.append(f"| {line.group} | {line.convolutions} | {line.damage:.4f} | {kept} |")
        return "\n".join([*lines, f"\nTogether {self.damage:.4f}, limit {self.limit:g}, {self.judged} pictures."])


def quantize(encoder: Path, decoder: Path, target: Path, canvases: Sequence[Canvas]) -> QuantizationReport:
    """Write an int8 encoder that the fp32 decoder can work with.

    Args:
        encoder, decoder: the fp32 graphs.
        target: file to write.
        canvases: pictures like those to come, such as 64 of the train split.
    Raises:
        ValueError: there are too few pictures, the model finds nothing on them, or int8 does too much damage.
    """
    if len(canvases) < FEWEST_PICTURES:
        raise ValueError(
            f"int8 is calibrated on {len(canvases)} pictures, and needs {FEWEST_PICTURES} or more to know the range of "
            "its activations; 64 do well"
        )
    model = fuse_silu(onnx.shape_inference.infer_shapes(onnx.load(encoder)))
    groups = convolutions_by_module(model)
    judged = canvases[:: max(1, len(canvases) // JUDGED_PICTURES)][:JUDGED_PICTURES]
    with (
        tempfile.TemporaryDirectory() as temporary,
        tqdm(total=len(canvases) + len(groups) + 1, desc="int8", leave=False, disable=None) as bar,
    ):
        scratch = Path(temporary)
        ranges = activation_ranges(model, canvases, scratch, bar.update)
        judge = Judge(encoder, decoder, judged)
        candidate = scratch / "candidate.onnx"

        def damage_of(nodes: Collection[str]) -> float:
            onnx.save(with_int8(model, nodes, ranges), candidate)
            return judge.damage(candidate)

        lines, damage = choose(groups, damage_of, LIMIT, bar.update)
        _finish(candidate, like=encoder, target=target)  # the last one measured is the one chosen
    return QuantizationReport(
        pictures=len(canvases), judged=len(judged), limit=LIMIT, damage=damage, groups=tuple(lines)
    )


def _finish(candidate: Path, like: Path, target: Path) -> None:
    """Write a graph that says of itself what another one does, and nothing of how it was made."""
    model, source = onnx.load(candidate), onnx.load(like)
    del model.graph.value_info[:], model.metadata_props[:]
    model.metadata_props.extend(source.metadata_props)
    model.producer_name = source.producer_name
    onnx.save(model, target)


def fuse_silu(model: ModelProto) -> ModelProto:
    """Say x * sigmoid(x) in one node, in place.

    ONNX Runtime does so itself, but not between quantised nodes, where x is dequantised once for each of the two.
    """
    nodes = model.graph.node
    sigmoids = {node.output[0]: node for node in nodes if node.op_type == "Sigmoid"}
    readers = [name for node in nodes for name in node.input]
    for node in nodes:
        gate = next((sigmoids[name] for name in node.input if name in sigmoids), None)
        if node.op_type != "Mul" or gate is None or sorted(node.input) != sorted((gate.input[0], gate.output[0])):
            continue
        if readers.count(gate.output[0]) == 1:
            fused = helper.make_node(
                "QuickGelu", gate.input, node.output, name=node.name, domain="com.microsoft", alpha=1.0
            )
            node.CopyFrom(fused)
            gate.op_type = ""
    for gate in [node for node in nodes if not node.op_type]:
        nodes.remove(gate)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def convolutions_by_module(model: ModelProto) -> dict[str, list[str]]:
    """Names of the convolutions that int8 makes faster, by the part of the detector that they belong to.

    A kernel that was folded out of several weights has no name that tells; it goes with its neighbours.
    """
    graph = model.graph
    kernels = {tensor.name: tensor for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv" and node.input[1] in kernels]
    modules = {node.name: module for node in convolutions if (module := module_of(node.input[1:]))}
    touching: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for value in {*node.input, *node.output} - kernels.keys():
            touching.setdefault(value, []).append(node)
    groups: dict[str, list[str]] = {}
    for node in convolutions:
        if _inputs(node, kernels) >= FEWEST_CHANNELS:
            module = modules.get(node.name) or f"near {_nearest(node, modules, touching)}"
            groups.setdefault(module, []).append(node.name)
    return groups


def _inputs(convolution: NodeProto, kernels: dict[str, TensorProto]) -> int:
    groups = next((attribute.i for attribute in convolution.attribute if attribute.name == "group"), 1)
    return kernels[convolution.input[1]].dims[1] * groups


def module_of(weights: Iterable[str]) -> str | None:
    """The part of the detector that kernel and bias belong to: their module, and of the backbone the stage."""
    named = next((name for name in weights if "." in name), None)
    if named is None:
        return None
    path = named.removeprefix("detector.").split(".")[:-1]
    return ".".join(path[: 3 if path[0] == "backbone" else 2])


def _nearest(start: NodeProto, modules: dict[str, str], touching: dict[str, list[NodeProto]]) -> str:
    """Module of the fewest steps away along the graph, in any direction."""
    seen, ring = {start.name}, [start]
    while ring:
        values = [value for node in ring for value in (*node.input, *node.output)]
        around = {node.name: node for value in values for node in touching.get(value, []) if node.name not in seen}
        for name in around:
            if name in modules:
                return modules[name]
        seen |= around.keys()
        ring = list(around.values())
    return "nothing named"


def with_int8(model: ModelProto, convolutions: Collection[str], ranges: TensorsData) -> ModelProto:
    """A copy in which these convolutions work in int8."""
    copy = ModelProto()
    copy.CopyFrom(model)
    quantizer = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=True,  # 7 bits: two products of 8 bits overflow the 16-bit sums of CPUs without VNNI
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=list(convolutions),
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv"],
        extra_options={},
    )
    quantizer.quantize_model()
    read_float_where_there_is_one(quantizer.model.graph())
    quantizer.model.topological_sort()
    return quantizer.model.model


def read_float_where_there_is_one(graph: GraphProto) -> None:
    """Let nodes in float read what was never an integer directly, not through quantising and back; in place."""
    nodes = graph.node
    makers = {name: node for node in nodes for name in node.output}
    for node in nodes:
        if node.op_type in ("Conv", "QuantizeLinear", "DequantizeLinear"):
            continue
        for i, name in enumerate(node.input):
            source = _before_round_trip(name, makers)
            if source in makers and makers[source].op_type != "Conv":
                node.input[i] = source
    read = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
    for node in [node for node in nodes if node.op_type == "DequantizeLinear" and node.output[0] not in read]:
        nodes.remove(node)


def _before_round_trip(name: str, makers: dict[str, NodeProto]) -> str:
    """The float value that a name is a quantised copy of; the name itself if it is none."""
    for op_type in ("DequantizeLinear", "QuantizeLinear"):
        if name not in makers or makers[name].op_type != op_type:
            return name
        name = makers[name].input[0]
    return name
