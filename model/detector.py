"""The detector: backbone, heat-steered encoder, density, queries by density, a short decoder."""

import torch
from torch import Tensor, nn

from model.backbone import build_backbone
from model.config import DeformableEncoderConfig, DetectorConfig, HybridEncoderConfig
from model.decoder import Decoder, attention_bias
from model.deformable_encoder import DeformableEncoder
from model.density import DensityHead
from model.encoder import HybridEncoder
from model.queries import QuerySelection, query_counts
from model.structures import Denoising, DetectorOutput, Encoded, LayerPrediction, Queries


class Detector(nn.Module):
    """HMPE (Zeng, 2025) and D3Q (Ye et al., 2025) in one DETR."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.backbone, config.strides)
        self.encoder = build_encoder(config, self.backbone.channels)
        self.density_head = None if config.density is None else DensityHead(config.width, config.density)
        self.select_queries = QuerySelection(config)
        self.decoder = Decoder(config)
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std).view(1, 3, 1, 1), persistent=False)

    def forward(
        self,
        images: Tensor,
        denoising: Denoising | None = None,
        true_counts: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> DetectorOutput:
        """Detect.

        Args:
            images: (B, 3, H, W), uint8, RGB, sides a multiple of the coarsest stride.
            denoising: training only, see `Denoising`.
            true_counts: (B,), training only: an image gets at least 1.5 queries per true object.
            shift: (B, 2), training only: x and y in pixels by which the image's positions are moved.
        Returns:
            Predictions of every layer, with all that led to them. An image does not depend on its batch.
        """
        encoded = self.encode(images, shift)
        with torch.autocast(images.device.type, enabled=False):
            counts = self.query_counts(encoded, true_counts)
            queries = self.propose(encoded, int(counts.max()), counts)
            layers = self.decode(encoded.memory, queries, denoising, shift)
        noised = 0 if denoising is None else denoising.labels.shape[1]
        real = [LayerPrediction(layer.logits[:, noised:], layer.boxes[:, noised:]) for layer in layers]
        restored = [LayerPrediction(layer.logits[:, :noised], layer.boxes[:, :noised]) for layer in layers]
        return DetectorOutput(real, restored if noised else [], encoded, queries)

    def encode(self, images: Tensor, shift: Tensor | None = None) -> Encoded:
        """(B, 3, H, W) uint8 to memory, heat and density, all in fp32 whatever autocast says."""
        pixels = (images.float() - self.pixel_mean) / self.pixel_std
        pyramid = self.backbone(pixels.contiguous(memory_format=torch.channels_last))
        memory, heat, heat_embedding = self.encoder(pyramid, shift)
        density = None if self.density_head is None else self.density_head(memory[0]).float()
        return Encoded([m.float() for m in memory], heat, [e.float() for e in heat_embedding], density)

    def query_counts(self, encoded: Encoded, true_counts: Tensor | None = None) -> Tensor:
        """K of each image, (B,): what its density asks for, but at least 1.5 per true object; k_max without D3Q."""
        query = self.config.query
        if encoded.count is None:
            memory = encoded.memory[0]
            return torch.full((memory.shape[0],), query.k_max, device=memory.device)
        floor = None if true_counts is None else 1.5 * true_counts
        # A count that is not a number must get as far as the loss, whose guard then skips the step.
        return query_counts(encoded.count.nan_to_num(), query, floor)

    def heat_maps(self, encoded: Encoded) -> list[tuple[Tensor, Tensor]]:
        """What to show as heat, per level: by class (B, C, h, w), and class, box, mixed and mask (B, 4, h, w).

        A host without HMPE shows what its proposals think: class heat is their probability, which counts as mixed heat
        too, box heat is nothing, and the mask lets everything through.
        """
        if encoded.heat:
            return [(level.by_class, level.maps()) for level in encoded.heat]
        maps = []
        for level in encoded.memory:
            by_class = self.select_queries.dense_logits(level).sigmoid()
            most = by_class.amax(1, keepdim=True)
            maps.append((by_class, torch.cat([most, torch.zeros_like(most), most, torch.ones_like(most)], 1)))
        return maps

    def propose(self, encoded: Encoded, most: int, counts: Tensor) -> Queries:
        """The `most` best proposals (fewer if there are fewer tokens), of which counts (B,) are valid."""
        tokens = sum(h * w for h, w in encoded.shapes)
        return self.select_queries(encoded, torch.sym_min(most, tokens), counts)  # a number, symbolic in an export

    def decode(
        self,
        memory: list[Tensor],
        queries: Queries,
        denoising: Denoising | None = None,
        shift: Tensor | None = None,
    ) -> list[LayerPrediction]:
        """Predictions per layer, denoising queries first."""
        features, boxes = queries.features, queries.reference_boxes
        if denoising is not None:
            features = torch.cat([self.decoder.embed_label(denoising.labels), features], 1)
            boxes = torch.cat([denoising.boxes, boxes], 1)
        return self.decoder(features, boxes, memory, attention_bias(queries.valid, denoising), shift)


def build_encoder(config: DetectorConfig, channels: list[int]) -> HybridEncoder | DeformableEncoder:
    """The encoder that the configuration asks for, on backbone levels of these channels."""
    match config.encoder:
        case HybridEncoderConfig():
            return HybridEncoder(config, channels)
        case DeformableEncoderConfig():
            return DeformableEncoder(config, channels)
