"""The detector as the two graphs that are exported. Each wraps the detector; none changes it.

Dimension letters as in `model.structures`; K queries that are decoded.
"""

from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.boxes import extent, to_xyxy
from model.config import DetectorConfig
from model.decoder import attention_bias, class_scores
from model.detector import Detector
from model.layers import ConvNorm
from model.queries import query_counts
from model.structures import LayerPrediction


class EncoderGraph(nn.Module):
    """Pictures to everything that the host and the decoder need, with the best k_max proposals."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Encode.

        Args:
            images: (B, 3, H, W), uint8, RGB, sides a multiple of the coarsest stride.
        Returns:
            The tensors that `encoder_outputs` names, in that order.
        """
        query = self.detector.config.query
        encoded = self.detector.encode(images)
        assert encoded.density is not None
        assert encoded.count is not None  # see refuse_without_density
        queries = self.detector.propose(encoded, query.k_max, query_counts(encoded.count, query))
        class_heat, heat = zip(*self.detector.heat_maps(encoded), strict=True)
        return (
            *encoded.memory,
            queries.features,
            queries.reference_boxes,
            encoded.count,
            encoded.density,
            *class_heat,
            *heat,
        )


class DecoderGraph(nn.Module):
    """As many proposals as the host cuts off, to boxes in pixels and a score per class."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.config = detector.config
        self.decoder = detector.decoder

    def forward(
        self, memory: list[Tensor], queries: Tensor, reference_boxes: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode.

        Args:
            memory: per level (B, D, h, w).
            queries: (B, K, D), the first K of the encoder's.
            reference_boxes: (B, K, 4), cxcywh in fractions of the canvas.
            valid: (B, K), bool, false where a picture has fewer than K queries.
        Returns:
            Boxes (B, K, 4), xyxy in pixels of the canvas, and scores (B, K, C), 0 where not valid.
        """
        last = self.decoder(queries, reference_boxes, memory, attention_bias(valid, None))[-1]
        return boxes_and_scores(last, valid, memory[0], self.config)


def boxes_and_scores(
    prediction: LayerPrediction, valid: Tensor, finest: Tensor, config: DetectorConfig
) -> tuple[Tensor, Tensor]:
    """Fractions to pixels, logits to scores.

    Args:
        valid: (B, K).
        finest: (B, D, h, w), the finest level, whose size gives that of the canvas.
        config: of the detector that predicts.
    Returns:
        Boxes (B, K, 4), xyxy in pixels, and scores (B, K, C), 0 where not valid.
    """
    h, w = finest.shape[2:]
    canvas = extent(w, h, like=prediction.boxes) * config.strides[0]  # (2,)
    boxes = to_xyxy(prediction.boxes) * torch.cat([canvas, canvas])
    return boxes, class_scores(prediction.logits, config.decoder.classification) * valid[..., None]


def refuse_without_density(config: DetectorConfig) -> None:
    """Raise ValueError for a detector that does not count: the host cuts the queries by the estimated count."""
    if config.density is None:
        raise ValueError(
            "this detector has no density head (model.density is off), so it cannot say how many queries a picture "
            "needs, and is not exported; train it with [model.density], and k_min = k_max for a fixed number of queries"
        )


def cut_decoder(detector: Detector, layers: int | None = None) -> Detector:
    """A detector that has only the first decoder layers; the one given is left as it is.

    Args:
        layers: 1 to all; without it 3, which is all that heat-induced queries need (HMPE, section 5), if there are.
    Raises:
        ValueError: there are not so many.
    """
    available = detector.config.decoder.layers
    wanted = min(3, available) if layers is None else layers
    if not 1 <= wanted <= available:
        raise ValueError(f"cannot keep {wanted} decoder layers: this checkpoint has 1 to {available}")
    decoder = detector.config.decoder.model_copy(update={"layers": wanted})
    cut = Detector(detector.config.model_copy(update={"decoder": decoder}))
    names = cut.state_dict().keys()
    cut.load_state_dict({name: value for name, value in detector.state_dict().items() if name in names})
    return cut.eval()


def folded(detector: Detector) -> Detector:
    """The same function with every batch norm inside the convolution before it; the detector given is left as it is."""
    copy = deepcopy(detector).eval()
    for layer in copy.modules():
        if isinstance(layer, ConvNorm):
            convolution, norm = cast(nn.Conv2d, layer[0]), cast(nn.BatchNorm2d, layer[1])
            layer[0], layer[1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return copy


def encoder_outputs(levels: int) -> list[str]:
    """Names of the encoder graph's outputs, in order."""
    return [
        *(f"memory_{level}" for level in range(levels)),
        "queries",
        "reference_boxes",
        "count",
        "density",
        *(f"class_heat_{level}" for level in range(levels)),
        *(f"heat_{level}" for level in range(levels)),
    ]


def decoder_inputs(levels: int) -> list[str]:
    """Names of the decoder graph's inputs, in order."""
    return [*(f"memory_{level}" for level in range(levels)), "queries", "reference_boxes", "valid"]
