"""A graph for Deepness, the plugin that runs detectors inside QGIS.

Deepness cuts a map into square tiles and gives each, divided by 255, to a graph of one input. It reads what it needs
to know from the file's metadata, and boxes in the layout of Ultralytics' detectors: one output (1, 4 + C, N), centre
and size in pixels of the tile, then a score per class (docs of qgis-plugin-deepness, "Model metadata").
"""

import json
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn
from torch.export import Dim

from export.joined import TAIL_INPUTS, Stage, decoding, join, tail
from export.manifest import Manifest
from export.onnx_graph import GraphSpec, export_graph
from export.runtime import Array
from model.config import DetectorConfig

FILE = "deepness.onnx"
OVERLAP_PERCENT = 15
"""Of neighbouring tiles; the plugin's user may change it."""


class TileToImages(nn.Module):
    """A tile as the plugin gives it, as the encoder takes it."""

    def forward(self, tile: Tensor) -> Tensor:
        """(1, 3, S, S), RGB from 0 to 1, to uint8, as every picture comes: rounded, and cut off beyond 0 and 1."""
        return (tile * 255).round().clamp(0, 255).to(torch.uint8)


class ToDeepness(nn.Module):
    """Boxes and scores as the plugin takes them."""

    def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """(1, K, 4) and (1, K, C) to (1, 4 + C, K): cxcywh in pixels of the tile, and a score per class."""
        low, high = boxes.chunk(2, -1)
        return torch.cat([(low + high) / 2, high - low, scores], -1).transpose(1, 2)


def deepness_graph(folder: Path, config: DetectorConfig, size: int) -> ModelProto:
    """The encoder.onnx and decoder.onnx of a folder in one graph for tiles of `size` pixels, as the plugin wants it."""
    static, count = Dim.STATIC, Dim("K", min=1)
    tile = torch.zeros(1, 3, size, size)
    images = GraphSpec("tile", TileToImages(), (tile,), (dict.fromkeys(range(4), static),), ["tile"], ["images"])
    arguments = torch.zeros(1, 7, 4), torch.zeros(1, 7, len(config.classes))
    rows = {0: static, 1: count, 2: static}
    plugin = GraphSpec("plugin", ToDeepness(), arguments, (rows, rows), TAIL_INPUTS, ["output"])
    encoder = Stage("encoder", onnx.load(folder / "encoder.onnx"), {"images": "tile.images"})
    return join([Stage("tile", export_graph(images), {}), encoder, *decoding(folder, config), tail(plugin)])


def deepness_metadata(manifest: Manifest) -> dict[str, str]:
    """What the plugin reads from the file, each value as JSON.

    Raises:
        ValueError: the manifest says nothing of the ground resolution, which the plugin needs to cut tiles.
    """
    if manifest.resolution_cm is None:
        raise ValueError("--deepness needs the ground resolution of the canvas: set resolution_cm in the --card")
    size, chosen = manifest.input.size, manifest.postprocess
    values = {
        "model_type": "Detector",
        "det_type": "YOLO_Ultralytics",
        "class_names": dict(enumerate(manifest.classes)),
        "resolution": manifest.resolution_cm,
        "tile_size": size,
        "tiles_size": size,
        "tiles_overlap": OVERLAP_PERCENT,
        "standardization_mean": [0.0, 0.0, 0.0],
        "standardization_std": [1.0, 1.0, 1.0],
        "det_conf": chosen.threshold,
        "det_iou_thresh": 1.0 if chosen.nms_iou is None else chosen.nms_iou,
    }
    return {name: json.dumps(value) for name, value in values.items()}


def to_deepness(images: NDArray[np.uint8]) -> dict[str, Array]:
    """(1, 3, S, S) canvases as the plugin feeds them."""
    return {"tile": images.astype(np.float32) / np.float32(255)}


def from_deepness(output: Array) -> tuple[Array, Array]:
    """(1, 4 + C, K) to boxes (K, 4), xyxy in pixels, and scores (K, C)."""
    rows = output[0].T
    centre, half = rows[:, :2], rows[:, 2:4] / 2
    return np.concatenate([centre - half, centre + half], 1), rows[:, 4:]
