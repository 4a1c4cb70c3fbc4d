"""GridSample written out, because TensorRT is not to be trusted with it.

Versions of it give wrong results without a word: deformable attention in float32 (NVIDIA/TensorRT#4813), GridSample in
float32 among fp16 (pytorch/TensorRT#4074), GridSample of opset 20 (NVIDIA/TensorRT#4646). A detector that gathers the
four neighbours and weighs them came out right (lightly-ai/lightly-train#917).
"""

from onnx import ModelProto, NodeProto, helper, inliner, parser

DOMAIN = "heatquery"
BILINEAR = {"mode": b"bilinear", "padding_mode": b"zeros", "align_corners": 0}
"""What sampling means here: values between cells, zero outside, and -1 and 1 are the picture's edges."""
FUNCTION = """<domain: "heatquery", opset_import: ["": 18]>
Sample (values, grid) => (sampled) {
    shape = Shape (values)
    n, c, h, w = Split <axis: int = 0, num_outputs: int = 4> (shape)
    grid_shape = Shape <start: int = 1, end: int = 3> (grid)
    sizes = Concat <axis: int = 0> (w, h)
    cells = Cast <to: int = 1> (sizes)

    half = Constant <value_float: float = 0.5> ()
    unit = Constant <value_float: float = 1.0> ()
    from_corner = Add (grid, unit)
    in_cells = Mul (from_corner, cells)
    in_half_cells = Mul (in_cells, half)
    place = Sub (in_half_cells, half)
    first = Floor (place)
    share = Sub (place, first)
    other_share = Sub (unit, share)

    none = Constant <value_float: float = 0.0> ()
    past_end = Add (cells, unit)
    left_top = Add (first, unit)
    right_bottom = Add (left_top, unit)
    left_top_low = Max (left_top, none)
    left_top_in = Min (left_top_low, past_end)
    right_bottom_low = Max (right_bottom, none)
    right_bottom_in = Min (right_bottom_low, past_end)

    last = Constant <value_int: int = -1> ()
    x0, y0 = Split <axis: int = -1, num_outputs: int = 2> (left_top_in)
    x1, y1 = Split <axis: int = -1, num_outputs: int = 2> (right_bottom_in)
    left, top = Split <axis: int = -1, num_outputs: int = 2> (other_share)
    right, bottom = Split <axis: int = -1, num_outputs: int = 2> (share)

    two = Constant <value_ints: ints = [2]> ()
    row_ints = Add (w, two)
    row = Cast <to: int = 1> (row_ints)
    row_0 = Mul (y0, row)
    row_1 = Mul (y1, row)
    at_00 = Add (row_0, x0)
    at_01 = Add (row_0, x1)
    at_10 = Add (row_1, x0)
    at_11 = Add (row_1, x1)
    weight_00 = Mul (top, left)
    weight_01 = Mul (top, right)
    weight_10 = Mul (bottom, left)
    weight_11 = Mul (bottom, right)

    rest = Constant <value_ints: ints = [-1]> ()
    four = Constant <value_ints: ints = [4]> ()
    one = Constant <value_ints: ints = [1]> ()
    ats = Concat <axis: int = -1> (at_00, at_01, at_10, at_11)
    weights = Concat <axis: int = -1> (weight_00, weight_01, weight_10, weight_11)
    indices_shape = Concat <axis: int = 0> (n, rest, one)
    indices_float = Reshape (ats, indices_shape)
    indices = Cast <to: int = 7> (indices_float)
    weights_shape = Concat <axis: int = 0> (n, rest, four, one)
    by_point = Reshape (weights, weights_shape)

    border = Constant <value_ints: ints = [0, 0, 1, 1, 0, 0, 1, 1]> ()
    padded = Pad (values, border)
    rows_shape = Concat <axis: int = 0> (n, c, rest)
    columns = Reshape (padded, rows_shape)
    rows = Transpose <perm: ints = [0, 2, 1]> (columns)
    corners = GatherND <batch_dims: int = 1> (rows, indices)
    corners_shape = Concat <axis: int = 0> (n, rest, four, c)
    by_corner = Reshape (corners, corners_shape)
    weighted = Mul (by_corner, by_point)
    points = ReduceSum <keepdims: int = 0> (weighted, two)
    maps = Transpose <perm: ints = [0, 2, 1]> (points)
    sampled_shape = Concat <axis: int = 0> (n, c, grid_shape)
    sampled = Reshape (maps, sampled_shape)
}"""
"""Values (N, C, H, W) in float32 at the places of a grid (N, P, Q, 2): (N, C, P, Q). A border of zeros stands for all
that is outside, so a place beyond it is moved onto it."""


def write_out_sampling(graph: ModelProto) -> ModelProto:
    """A copy of a graph in which every GridSample has become what `FUNCTION` says.

    Raises:
        ValueError: a GridSample that does anything else than `BILINEAR`.
    """
    rewritten = ModelProto()
    rewritten.CopyFrom(graph)
    samplers = [node for node in rewritten.graph.node if node.op_type == "GridSample"]
    for node in samplers:
        _call_function(node)
    if not samplers:
        return rewritten
    rewritten.functions.append(parser.parse_function(FUNCTION))
    rewritten.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return inliner.inline_local_functions(rewritten)


def _call_function(node: NodeProto) -> None:
    means = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if means | BILINEAR != means:
        raise ValueError(f"node {node.name!r} samples with {means}; only {BILINEAR} can be written out")
    del node.attribute[:]
    node.op_type, node.domain = "Sample", DOMAIN
