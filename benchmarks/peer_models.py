"""Build the detectors that ours are compared with, and write them as ONNX files for benchmarks/peers.py.

    .venv-uv/bin/uv venv PEERS
    .venv-uv/bin/uv pip sync --python PEERS/bin/python --require-hashes benchmarks/requirements-peers.txt
    PEERS/bin/python benchmarks/peer_models.py --cache DIR

Building them needs an environment of its own. Nothing of the product, its tests or the other benchmarks imports
transformers or ultralytics; the latter is under AGPL-3.0. Every peer is built from its configuration with random
weights; nothing is downloaded. A peer gets what its own deployment would give it: batch norm and parallel branches
folded into convolutions, anchors of a fixed size as constants, a static shape, only the outputs of the last layer.

Sizes of D-FINE from its paper's configurations (github.com/Peterande/D-FINE, configs/dfine), of RT-DETR from
github.com/lyuwenyu/RT-DETR (rtdetr_r18vd).
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import onnx
import onnxslim
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode

OPSET = 18
ENVIRONMENT = {
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_DISABLE_TORCH_CHECK": "1",
}
"""No downloads, and no check inside a graph, which the exporter refuses."""
CLASSES = 10
"""As many as NWPU VHR-10 and our default model have."""
HGNETV2_B0 = {
    "depths": [1, 1, 2, 1],
    "hidden_sizes": [64, 256, 512, 1024],
    "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 64, 256, 512],
    "stage_mid_channels": [16, 32, 64, 128],
    "stage_out_channels": [64, 256, 512, 1024],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_numb_of_layers": [3, 3, 3, 3],
    "use_learnable_affine_block": True,
}


class FromBytes(nn.Module):
    """A peer that takes the same bytes as ours; scaling them to [0, 1] is part of the graph."""

    def __init__(self, peer: nn.Module) -> None:
        super().__init__()
        self.peer = peer

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W), uint8, to what the peer predicts: logits and boxes, or both in one tensor."""
        found = self.peer(images.float() / 255)
        return (found,) if isinstance(found, Tensor) else (found.logits, found.pred_boxes)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write every peer that the folder does not hold yet."""
    parser = argparse.ArgumentParser(description="Build the peers from their configurations and write them as ONNX.")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the files; what is there is kept")
    parser.add_argument("--sides", type=int, nargs="+", default=[640, 800], help="sides of the pictures in pixels")
    options = parser.parse_args(arguments)
    os.environ |= ENVIRONMENT  # before the peers' libraries, which read it when they are imported
    options.cache.mkdir(parents=True, exist_ok=True)
    for name, build in PEERS.items():
        for side in options.sides:
            path = options.cache / f"{name}-{side}.onnx"
            if not path.exists():
                print(path.stem, json.dumps(write(build, side, path)), flush=True)


def write(build: Callable[[int], nn.Module], side: int, path: Path) -> dict:
    """Export a peer for pictures of one size, and what it weighs as JSON beside it.

    Returns:
        Parameters, and GFLOPs of a picture: two operations per multiply-accumulate, without sampling and activations.
    """
    torch.manual_seed(0)
    peer = build(side).eval().requires_grad_(False)
    for parameter in peer.parameters():
        parameter.add_(0.01 * torch.randn_like(parameter))  # a factor of one or a zero would be optimised away
    parameters = sum(parameter.numel() for parameter in peer.parameters())
    fold_branches(peer)
    graph, images = FromBytes(peer), torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        graph(images)
    program = torch.onnx.export(
        graph, (images,), dynamo=True, opset_version=OPSET, input_names=["images"], verbose=False
    )
    assert program is not None  # only None when written to a file
    model = onnxslim.slim(program.model_proto)
    assert isinstance(model, onnx.ModelProto)  # a file name or None only where a file is asked for
    figures = {"parameters": parameters, "gflops": counter.get_total_flops() / 1e9}
    path.with_suffix(".json").write_text(json.dumps(figures) + "\n", encoding="utf-8")
    onnx.save(model, path)
    return figures


def fold_branches(peer: nn.Module) -> None:
    """Turn a 3 x 3 and a 1 x 1 convolution whose results are added into one, as RT-DETR and D-FINE do to deploy."""
    for parent in peer.modules():
        for name, block in parent.named_children():
            if type(block).__name__.endswith("RepVggBlock"):
                setattr(parent, name, nn.Sequential(*_folded(block)))


def _folded(block: nn.Module) -> Iterator[nn.Module]:
    wide, narrow = (
        fuse_conv_bn_eval(branch.get_submodule("conv"), branch.get_submodule("norm"))  # pyright: ignore[reportArgumentType]
        for branch in (block.get_submodule("conv1"), block.get_submodule("conv2"))
    )
    assert wide.bias is not None
    assert narrow.bias is not None
    wide.weight.add_(functional.pad(narrow.weight, (1, 1, 1, 1)))
    wide.bias.add_(narrow.bias)
    yield wide
    yield block.get_submodule("activation")


def yolo11(scale: str) -> nn.Module:
    """YOLO11 without suppression; it works at any size. The only place that touches ultralytics (AGPL-3.0)."""
    from ultralytics.nn.tasks import DetectionModel  # pyright: ignore[reportMissingImports]

    peer = DetectionModel(f"yolo11{scale}.yaml", nc=CLASSES, verbose=False).eval().fuse(verbose=False)
    peer.model[-1].export, peer.model[-1].format = True, "onnx"  # boxes and scores only
    return peer


def d_fine(side: int, **changes: object) -> nn.Module:
    """D-FINE on HGNetv2-B0 with three decoder layers."""
    from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config  # pyright: ignore[reportMissingImports]

    indices = [3, 4] if changes.get("num_feature_levels") == 2 else [2, 3, 4]
    config = DFineConfig(
        backbone_config=HGNetV2Config(**HGNETV2_B0, out_indices=indices),
        num_labels=CLASSES,
        decoder_layers=3,
        anchor_image_size=[side, side],
        **changes,
    )
    return DFineForObjectDetection(config)


def d_fine_n(side: int) -> nn.Module:
    """D-FINE-N: strides 16 and 32, width 128."""
    return d_fine(
        side,
        num_feature_levels=2,
        feat_strides=[16, 32],
        encode_proj_layers=[1],
        encoder_in_channels=[512, 1024],
        encoder_hidden_dim=128,
        encoder_ffn_dim=512,
        hidden_expansion=0.34,
        depth_mult=0.5,
        d_model=128,
        decoder_in_channels=[128, 128],
        decoder_ffn_dim=512,
        decoder_n_points=[6, 6],
    )


def d_fine_s(side: int) -> nn.Module:
    """D-FINE-S: strides 8, 16 and 32, width 256."""
    return d_fine(
        side,
        encoder_in_channels=[256, 512, 1024],
        hidden_expansion=0.5,
        depth_mult=0.34,
        decoder_n_points=[3, 6, 3],
    )


def rt_detr_r18(side: int) -> nn.Module:
    """RT-DETR-R18 with three decoder layers, the 60-GFLOP class."""
    from transformers import (  # pyright: ignore[reportMissingImports]
        RTDetrConfig,
        RTDetrForObjectDetection,
        RTDetrResNetConfig,
    )

    backbone = RTDetrResNetConfig(
        depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic", out_indices=[2, 3, 4]
    )
    config = RTDetrConfig(
        backbone_config=backbone,
        num_labels=CLASSES,
        encoder_in_channels=[128, 256, 512],
        hidden_expansion=0.5,
        decoder_layers=3,
        anchor_image_size=[side, side],
    )
    return RTDetrForObjectDetection(config)


PEERS: dict[str, Callable[[int], nn.Module]] = {
    "yolo11n": lambda side: yolo11("n"),
    "yolo11s": lambda side: yolo11("s"),
    "d-fine-n": d_fine_n,
    "d-fine-s": d_fine_s,
    "rt-detr-r18": rt_detr_r18,
}
"""Name to what builds it for pictures of one side in pixels."""

if __name__ == "__main__":
    main()
