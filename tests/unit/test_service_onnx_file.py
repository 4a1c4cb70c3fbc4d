"""Reading just enough of an ONNX file to distrust it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.onnx_file import OnnxFileError, require_self_contained


def model(*nodes: onnx.NodeProto, initializers: tuple[onnx.TensorProto, ...] = ()) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "g", [], [], list(initializers))
    return helper.make_model(graph)


def external() -> onnx.TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    return tensor


INSIDE = numpy_helper.from_array(np.arange(300, dtype=np.float32), "w")


def test_weights_inside_the_file_are_fine() -> None:
    require_self_contained(model(initializers=(INSIDE,)).SerializeToString())


def test_an_external_initializer_is_found() -> None:
    with pytest.raises(OnnxFileError, match="external data"):
        require_self_contained(model(initializers=(INSIDE, external())).SerializeToString())


def test_an_external_constant_of_a_node_is_found() -> None:
    node = helper.make_node("Constant", [], ["c"], value=external())
    with pytest.raises(OnnxFileError, match="external data"):
        require_self_contained(model(node).SerializeToString())


def test_an_external_tensor_in_a_branch_is_found() -> None:
    branch = helper.make_graph([], "branch", [], [], [external()])
    node = helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch)
    with pytest.raises(OnnxFileError, match="external data"):
        require_self_contained(model(node).SerializeToString())


def test_a_cut_file_is_found_wherever_it_is_cut() -> None:
    data = model(initializers=(INSIDE,)).SerializeToString()
    for length in range(0, len(data) - 20, 37):
        with pytest.raises(OnnxFileError):
            require_self_contained(data[:length])


@pytest.mark.parametrize("data", [b"", b"junk", b"\xff" * 50, b"\x08\x0a", b"<html></html>", b"\x38\x01"])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(OnnxFileError):
        require_self_contained(data)
