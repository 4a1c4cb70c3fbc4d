"""Detectors with a name: the sizes of this project, HMPE's own setting, and the two hosts of the D3Q paper."""

from typing import Literal

from model.config import (
    DecoderConfig,
    DeformableEncoderConfig,
    DensityConfig,
    DetectorConfig,
    HybridEncoderConfig,
    PlainBackboneConfig,
    QueryConfig,
    TimmBackboneConfig,
)

PRESETS = {
    "nano": "the default model: trains from scratch on two CPU cores",
    "nano_tiny": "nano for objects of a few pixels: strides 4, 8, 16",
    "small": "HGNetv2-B1 on strides 4 to 32, for tiny and large objects alike",
    "base": "the setting of the HMPE paper: HGNetv2, width 256, three decoder layers",
    "dino_d3q_r50": "D3Q's DINO host: softmax classes, boxes that look forward twice",
    "deformable_detr_d3q_r50": "D3Q's Deformable DETR host",
}
"""What each preset is for."""

IMAGENET_MEAN = (123.675, 116.28, 103.53)
"""Of ImageNet's pixels, which timm's weights have seen; 0 to 255."""
IMAGENET_STD = (58.395, 57.12, 57.375)
"""Of ImageNet's pixels, 0 to 255."""


def preset(name: str, classes: tuple[str, ...]) -> DetectorConfig:
    """The configuration of a preset. Raises ValueError for a name that is none."""
    match name:
        case "nano":
            return DetectorConfig(classes=classes)  # the defaults are nano's
        case "nano_tiny":
            return _nano_tiny(classes)
        case "small":
            return _small(classes)
        case "base":
            return _base(classes)
        case "dino_d3q_r50":
            return _host(classes, classification="softmax", look_forward_twice=True)
        case "deformable_detr_d3q_r50":
            return _host(classes, classification="sigmoid", look_forward_twice=False)
        case _:
            raise ValueError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")


def without_density(config: DetectorConfig, queries: int) -> DetectorConfig:
    """The same detector with D3Q off: every picture gets this many queries."""
    fixed = config.query.model_copy(update={"k_min": queries, "k_max": queries})
    return config.model_copy(update={"density": None, "query": fixed})


def _nano_tiny(classes: tuple[str, ...]) -> DetectorConfig:
    return DetectorConfig(
        classes=classes,
        strides=(4, 8, 16),
        width=64,
        backbone=PlainBackboneConfig(channels=(24, 64, 128), blocks=(1, 2, 2)),
    )


def _small(classes: tuple[str, ...]) -> DetectorConfig:
    return DetectorConfig(
        classes=classes,
        strides=(4, 8, 16, 32),
        width=128,
        pixel_mean=IMAGENET_MEAN,
        pixel_std=IMAGENET_STD,
        backbone=TimmBackboneConfig(name="hgnetv2_b1", pretrained=True),
        encoder=HybridEncoderConfig(feedforward=1024),
        decoder=DecoderConfig(feedforward=1024),
    )


def _base(classes: tuple[str, ...]) -> DetectorConfig:
    """HGNetv2-B3 with RT-DETR's encoder depth comes nearest to the paper's GFLOPs and megabytes at once."""
    return DetectorConfig(
        classes=classes,
        strides=(8, 16, 32),
        width=256,
        pixel_mean=IMAGENET_MEAN,
        pixel_std=IMAGENET_STD,
        backbone=TimmBackboneConfig(name="hgnetv2_b3", pretrained=True),
        encoder=HybridEncoderConfig(feedforward=1024, fusion_blocks=3),
        decoder=DecoderConfig(feedforward=1024),
    )


def _host(
    classes: tuple[str, ...], classification: Literal["sigmoid", "softmax"], look_forward_twice: bool
) -> DetectorConfig:
    """Two-stage Deformable DETR as in D3Q's published configuration: no HMPE, learned contents."""
    return DetectorConfig(
        classes=classes,
        strides=(4, 8, 16, 32, 64),
        width=256,
        pixel_mean=IMAGENET_MEAN,
        pixel_std=IMAGENET_STD,
        backbone=TimmBackboneConfig(name="resnet50.tv_in1k", pretrained=True, freeze_norm=True),
        heat=None,
        encoder=DeformableEncoderConfig(),
        density=DensityConfig(hidden=256),
        query=QueryConfig(content="learned", k_min=300, k_max=2000),
        decoder=DecoderConfig(
            layers=6,
            feedforward=2048,
            min_offset_cells=0.0,
            classification=classification,
            checkpointing=True,
            look_forward_twice=look_forward_twice,
        ),
    )
