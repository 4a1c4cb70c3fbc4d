"""The objective: matches every prediction with the ground truth, weighs the terms, adds them up."""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.boxes import anchors, refine
from model.config import DetectorConfig
from model.layers import tokens
from model.structures import DetectorOutput, LayerPrediction
from training.config import LossConfig
from training.data.samples import Targets
from training.denoising import DenoisingTask
from training.losses import (
    count_loss,
    dense_quality_loss,
    density_focal_loss,
    iou_and_giou_loss,
    matchability_aware_loss,
    tiny_l1,
)
from training.matcher import HungarianMatcher
from training.targets import assign_dense, density_targets


@dataclass(frozen=True)
class Loss:
    """The weighted sum, and its terms by name."""

    total: Tensor
    terms: dict[str, Tensor]

    def figures(self) -> dict[str, float]:
        """The sum and its terms as plain numbers, named for the journal."""
        names = ["loss", *(f"loss/{name}" for name in self.terms)]
        values = torch.stack([self.total, *self.terms.values()]).detach().tolist()
        return dict(zip(names, values, strict=True))


class SetCriterion:
    """Proposals, decoder layers and denoising as sets; the dense head and the density as maps."""

    def __init__(self, config: LossConfig, detector: DetectorConfig) -> None:
        self.config = config
        self.detector = detector
        self.match = HungarianMatcher(config)

    def __call__(self, output: DetectorOutput, targets: Targets, denoising: DenoisingTask | None) -> Loss:
        """Compare.

        Args:
            output: of the detector in training mode, for these targets.
            targets: the ground truth.
            denoising: the task whose queries the detector was given, or None.
        """
        objects = max(1, int(targets.counts.sum()))
        proposals = LayerPrediction(output.queries.logits, output.queries.reference_boxes)
        terms = {"proposals": self._set_loss(proposals, output.queries.valid, targets) / objects}
        for i, layer in enumerate(output.layers):
            terms[f"layer_{i}"] = self._set_loss(layer, output.queries.valid, targets) / objects
        if denoising is not None:
            for i, layer in enumerate(output.denoising_layers):
                loss = self._paired_loss(layer, denoising.labels, denoising.boxes, denoising.weight)
                terms[f"denoising_{i}"] = self.config.denoising * loss / (objects * denoising.groups)
        terms["dense"] = self.config.dense * self._dense_loss(output, targets)
        terms |= self._density_losses(output, targets, objects)
        return Loss(torch.stack(list(terms.values())).sum(), terms)

    def _set_loss(self, layer: LayerPrediction, valid: Tensor, targets: Targets) -> Tensor:
        matches = self.match(layer.logits, layer.boxes, valid, targets)
        labels = torch.full(valid.shape, -1, device=valid.device)
        labels[matches.image, matches.query] = targets.labels[matches.image, matches.target]
        boxes = torch.zeros_like(layer.boxes)
        boxes[matches.image, matches.query] = targets.boxes[matches.image, matches.target]
        return self._paired_loss(layer, labels, boxes, valid.float())

    def _paired_loss(self, layer: LayerPrediction, labels: Tensor, boxes: Tensor, weight: Tensor) -> Tensor:
        """Loss of queries whose answers are known.

        Args:
            labels: (B, Q), -1 for background.
            boxes: (B, Q, 4), read where a label is not -1.
            weight: (B, Q), 0 leaves a query out.
        """
        positive = labels >= 0
        iou, giou_loss = iou_and_giou_loss(layer.boxes[positive], boxes[positive])
        quality = torch.zeros_like(weight).masked_scatter(positive, iou.clamp(0, 1))
        classification = matchability_aware_loss(
            layer.logits.flatten(0, 1), labels.flatten(), quality.flatten(), weight.flatten()
        )
        distance = tiny_l1(layer.boxes[positive], boxes[positive]).sum()
        return (
            self.config.classification * classification
            + self.config.tiny_l1 * distance
            + self.config.giou * giou_loss.sum()
        )

    def _dense_loss(self, output: DetectorOutput, targets: Targets) -> Tensor:
        heat, shapes = output.encoded.heat, output.encoded.shapes
        logits = torch.cat([tokens(level.logits) for level in heat], 1).float()
        deltas = torch.cat([tokens(level.deltas) for level in heat], 1).float()
        strides = self.detector.strides
        cell_sizes = torch.cat([logits.new_full((h * w,), s) for (h, w), s in zip(shapes, strides, strict=True)])
        (h, w), finest = shapes[0], strides[0]
        anchor_boxes = anchors(shapes, self.detector.anchor_cells, like=logits)
        boxes = refine(anchor_boxes, deltas)
        image_size = logits.new_tensor([w * finest, h * finest])
        assigned = assign_dense(logits.sigmoid(), boxes, anchor_boxes[0], cell_sizes, image_size, targets)
        positive = assigned.labels >= 0
        _, giou_loss = iou_and_giou_loss(boxes[positive], assigned.boxes[positive])
        distance = tiny_l1(boxes[positive], assigned.boxes[positive])
        quality = assigned.quality[positive]
        classification = dense_quality_loss(logits.flatten(0, 1), assigned.labels.flatten(), assigned.quality.flatten())
        box = (quality * (self.config.giou * giou_loss + self.config.tiny_l1 * distance)).sum()
        return (classification + box) / quality.sum().clamp_min(1)

    def _density_losses(self, output: DetectorOutput, targets: Targets, objects: int) -> dict[str, Tensor]:
        density = output.encoded.density[:, 0]  # (B, h, w)
        size = (density.shape[1], density.shape[2])
        truth = torch.stack(
            [
                density_targets(boxes[valid], size, self.config.density_overlap)
                for boxes, valid in zip(targets.boxes, targets.valid, strict=True)
            ]
        )
        return {
            "density": self.config.density * density_focal_loss(density, truth) / objects,
            "count": self.config.count * count_loss(output.count, targets.counts.float()) / len(density),
        }
