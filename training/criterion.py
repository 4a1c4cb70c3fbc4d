"""The objective: matches every prediction with the ground truth, weighs the terms, adds them up."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.boxes import anchors, refine
from model.config import DetectorConfig
from model.layers import tokens
from model.structures import DetectorOutput, LayerPrediction
from training.config import LossConfig, MatcherConfig
from training.data.samples import Targets
from training.denoising import DenoisingTask
from training.losses import (
    BACKGROUND_WEIGHT,
    ClassificationKind,
    classification_loss,
    count_loss,
    cross_entropy_weight,
    dense_quality_loss,
    density_focal_loss,
    iou_and_giou_loss,
    l1,
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


@dataclass(frozen=True)
class Divisors:
    """What sums are divided by, each a number averaged over the processes, so that many train as one would."""

    objects: Tensor
    """Objects of a batch, at least one per picture, as a batch that is nearly empty would shout otherwise."""
    pictures: Tensor
    layer_rows: Tensor
    """Weight of all rows in the cross-entropy of a decoder layer."""
    denoising_rows: Tensor
    """The same for denoising queries."""


@dataclass(frozen=True)
class SetTerm:
    """How a set of queries learns classes, and what its losses are divided by."""

    kind: ClassificationKind
    weight: float
    rows: Tensor
    """Divides the class loss."""
    objects: Tensor
    """Divides the box losses."""


def alone(value: Tensor) -> Tensor:
    """The mean over processes where there is one."""
    return value


class SetCriterion:
    """Proposals, decoder layers and denoising as sets; the dense head and the density as maps, where there are any."""

    def __init__(
        self,
        config: LossConfig,
        matcher: MatcherConfig,
        detector: DetectorConfig,
        mean_over_processes: Callable[[Tensor], Tensor] = alone,
    ) -> None:
        """Prepare.

        Args:
            config: terms and weights.
            matcher: weights of the matching costs.
            detector: whose output is compared.
            mean_over_processes: averages a float tensor over all processes; each calls it as often as any other. With
                gradients averaged over processes, too, these then train as one with all their pictures would.
        """
        self.config = config
        self.detector = detector
        self.match = HungarianMatcher(matcher)
        self.mean_over_processes = mean_over_processes

    def __call__(self, output: DetectorOutput, targets: Targets, denoising: DenoisingTask | None) -> Loss:
        """Compare.

        Args:
            output: of the detector in training mode, for these targets.
            targets: the ground truth.
            denoising: the task whose queries the detector was given, or None.
        """
        valid, by = output.queries.valid, self._divisors(output.queries.valid, targets, denoising)
        of_proposals, of_layers, of_noised = self._set_terms(by)
        proposals = LayerPrediction(output.queries.logits, output.queries.reference_boxes)
        terms = {"proposals": self._set_loss(proposals, of_proposals, valid, targets)}
        for i, layer in enumerate(output.layers):
            terms[f"layer_{i}"] = self._set_loss(layer, of_layers, valid, targets)
        if denoising is not None:
            for i, layer in enumerate(output.denoising_layers):
                loss = self._paired_loss(layer, of_noised, denoising.labels, denoising.boxes, denoising.weight)
                terms[f"denoising_{i}"] = self.config.denoising * loss
        if output.encoded.heat:
            terms["dense"] = self.config.dense * self._dense_loss(output, targets, by)
        if output.encoded.density is not None:
            terms |= self._density_losses(output.encoded.density[:, 0].float(), targets, by)
        return Loss(torch.stack(list(terms.values())).sum(), terms)

    def _divisors(self, valid: Tensor, targets: Targets, denoising: DenoisingTask | None) -> Divisors:
        """Averaged in one message, of the same length whatever this process has to do."""
        matched = torch.minimum(valid.sum(1), targets.counts).sum()  # every object finds a query while there are any
        layer_rows = matched + BACKGROUND_WEIGHT * (valid.sum() - matched)
        denoising_rows = valid.new_zeros((), dtype=torch.float32)
        if denoising is not None:
            denoising_rows = cross_entropy_weight(denoising.labels, denoising.weight).sum()
        pictures = layer_rows.new_tensor(len(valid))
        local = torch.stack([targets.counts.sum(), pictures, layer_rows, denoising_rows])
        objects, pictures, layer_rows, denoising_rows = self.mean_over_processes(local).unbind()
        # The last two weigh nothing at all only where their sum of losses is nothing, too.
        return Divisors(
            torch.maximum(objects, pictures), pictures, layer_rows.clamp_min(1e-3), denoising_rows.clamp_min(1e-3)
        )

    def _set_terms(self, by: Divisors) -> tuple[SetTerm, SetTerm, SetTerm]:
        """For proposals, decoder layers and denoising queries."""
        config, kind = self.config, self.config.classification_kind
        match kind:
            case "mal" | "vfl" | "focal":
                same = SetTerm(kind, config.classification, by.objects, by.objects)
                return SetTerm(kind, config.proposal_classification, by.objects, by.objects), same, same
            case "cross_entropy":  # proposals have no background class (D3Q's published variant of DINO)
                return (
                    SetTerm("focal", config.proposal_classification, by.objects, by.objects),
                    SetTerm(kind, config.classification, by.layer_rows, by.objects),
                    SetTerm(kind, config.classification, by.denoising_rows, by.objects),
                )

    def _set_loss(self, layer: LayerPrediction, term: SetTerm, valid: Tensor, targets: Targets) -> Tensor:
        reading = "softmax" if term.kind == "cross_entropy" else "sigmoid"
        matches = self.match(layer.logits, layer.boxes, valid, targets, reading)
        labels = torch.full(valid.shape, -1, device=valid.device)
        labels[matches.image, matches.query] = targets.labels[matches.image, matches.target]
        boxes = torch.zeros(layer.boxes.shape, device=valid.device)
        boxes[matches.image, matches.query] = targets.boxes[matches.image, matches.target]
        return self._paired_loss(layer, term, labels, boxes, valid.float())

    def _paired_loss(
        self, layer: LayerPrediction, term: SetTerm, labels: Tensor, boxes: Tensor, weight: Tensor
    ) -> Tensor:
        """Loss of queries whose answers are known.

        Args:
            layer: the queries.
            term: how they learn.
            labels: (B, Q), -1 for background.
            boxes: (B, Q, 4), read where a label is not -1.
            weight: (B, Q), 0 leaves a query out.
        """
        positive = labels >= 0
        iou, box_loss = self._box_loss(layer.boxes[positive].float(), boxes[positive])
        quality = torch.zeros_like(weight).masked_scatter(positive, iou.clamp(0, 1))
        classification = classification_loss(
            term.kind, layer.logits.flatten(0, 1).float(), labels.flatten(), quality.flatten(), weight.flatten()
        )
        return term.weight * classification / term.rows + (box_loss * weight[positive]).sum() / term.objects

    def _box_loss(self, boxes: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """IoU without gradient, and the weighted sum of the box losses; (M, 4) each to (M,)."""
        iou, loss = iou_and_giou_loss(boxes, truth)
        config = self.config
        return iou, config.giou * loss + config.tiny_l1 * tiny_l1(boxes, truth) + config.l1 * l1(boxes, truth)

    def _dense_loss(self, output: DetectorOutput, targets: Targets, by: Divisors) -> Tensor:
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
        quality = assigned.quality[positive]
        _, box_loss = self._box_loss(boxes[positive], assigned.boxes[positive])
        classification = dense_quality_loss(logits.flatten(0, 1), assigned.labels.flatten(), assigned.quality.flatten())
        divisor = torch.maximum(self.mean_over_processes(quality.sum()), by.pictures)
        return (classification + (quality * box_loss).sum()) / divisor

    def _density_losses(self, density: Tensor, targets: Targets, by: Divisors) -> dict[str, Tensor]:
        """Terms of the map (B, h, w)."""
        size, config = (density.shape[1], density.shape[2]), self.config
        truth = torch.stack(
            [
                density_targets(boxes[valid], size, config.density_target, config.density_overlap)
                for boxes, valid in zip(targets.boxes, targets.valid, strict=True)
            ]
        )
        return {
            "density": config.density * density_focal_loss(density, truth) / by.objects,
            "count": config.count * count_loss(density.sum((1, 2)), targets.counts.float()) / by.pictures,
        }
