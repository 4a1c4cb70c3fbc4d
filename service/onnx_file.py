"""Look into an ONNX file without the onnx package: is it whole, and does it keep its weights inside?

A graph may name other files for its weights ("external data"), which a runtime then opens relative to
some folder. A model folder is verified file by file, so a graph that reads anything else is refused.
Source: onnx.proto, field numbers of ModelProto and below; protobuf wire format.
"""

from collections.abc import Iterator


class OnnxFileError(ValueError):
    """The file is not a whole, self-contained ONNX graph; the message says why."""


# Message kind -> {field number: message kind of that field}; only the paths that lead to a tensor.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_GRAPH_FIELD = 7
_EXTERNAL_DATA_FIELD, _DATA_LOCATION_FIELD = 13, 14
_MAX_DEPTH = 64


def require_self_contained(data: bytes) -> None:
    """Check that the bytes are one ONNX model with all weights inside.

    Raises:
        OnnxFileError: empty, cut off, not ONNX, or weights stored outside the file.
    """
    if not data:
        raise OnnxFileError("the file is empty")
    if all(number != _GRAPH_FIELD for number, _ in _fields(memoryview(data))):
        raise OnnxFileError("not an ONNX model: there is no graph inside")
    _visit("model", memoryview(data), 0)


def _visit(kind: str, message: memoryview, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise OnnxFileError(f"graphs are nested deeper than {_MAX_DEPTH}")
    children = _CHILDREN[kind]
    for number, value in _fields(message):
        if kind == "tensor" and (number == _EXTERNAL_DATA_FIELD or (number == _DATA_LOCATION_FIELD and value == 1)):
            raise OnnxFileError("weights are stored outside the file (external data)")
        if number in children:
            if isinstance(value, int):
                raise OnnxFileError("not an ONNX model: a message was expected")
            _visit(children[number], value, depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield (field number, payload): the number for a varint, else the bytes."""
    position, end = 0, len(message)
    while position < end:
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        match wire_type:
            case 0:
                value, position = _varint(message, position)
                yield number, value
                continue
            case 1:
                size = 8
            case 2:
                size, position = _varint(message, position)
            case 5:
                size = 4
            case _:
                raise OnnxFileError(f"not an ONNX model: wire type {wire_type}")
        if position + size > end:
            raise OnnxFileError("the file is cut off")
        yield number, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Read one base-128 number; returns it and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise OnnxFileError("the file is cut off")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise OnnxFileError("not an ONNX model: a number is longer than 64 bits")
