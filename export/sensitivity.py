"""Which parts of a graph lose least in int8? Found by quantising them one at a time and looking at the detections."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import torch

from export.matching import Detections, above
from export.pictures import Canvas
from export.runtime import OnnxRunner
from model.boxes import overlaps
from model.config import Config

QUERIES = 100
"""As many of the best proposals are decoded: enough to see what moves, and cheap."""
COUNTED_SCORE, PARTNER_SCORE = 0.1, 0.02
"""Detections above the first are followed; one above the second will do as a partner."""


class GroupDamage(Config):
    """What int8 in one part of the encoder does to the detections."""

    group: str
    """Module that the convolutions belong to, such as `backbone.stages.1`."""
    convolutions: int
    damage: float
    """Of this part alone, see `Judge.damage`."""
    kept_in_float: bool


def choose(
    groups: dict[str, list[str]],
    damage_of: Callable[[Collection[str]], float],
    limit: float,
    after_measure: Callable[[], object],
) -> tuple[list[GroupDamage], float]:
    """Quantise all parts but the most harmful, of which as many stay in float as the limit asks for.

    Args:
        groups: name of a part to its nodes.
        damage_of: quantises the nodes given and measures the damage.
        limit: damage that is accepted for all parts that are quantised together.
        after_measure: called once per measurement; there are at least as many as groups, and one more.
    Returns:
        A line per part in the order of the groups, and the damage of what is left quantised.
    Raises:
        ValueError: no part can be quantised within the limit.
    """
    if not groups:
        raise ValueError("no convolution of the encoder is wide enough for int8; serve this model in fp32")
    alone = {}
    for group, nodes in groups.items():
        alone[group] = damage_of(nodes)
        after_measure()
    by_damage = sorted(groups, key=lambda group: alone[group])
    for kept in range(len(groups)):
        quantised = by_damage[: len(groups) - kept]
        damage = damage_of([node for group in quantised for node in groups[group]])
        after_measure()
        if damage <= limit:
            lines = [
                GroupDamage(
                    group=group, convolutions=len(nodes), damage=alone[group], kept_in_float=group not in quantised
                )
                for group, nodes in groups.items()
            ]
            return lines, damage
    raise ValueError(
        f"no part of the encoder survives int8 with a damage of at most {limit:g}; the mildest, {by_damage[0]}, has "
        f"{alone[by_damage[0]]:.3g}. Are the calibration pictures like those that the model was trained on?"
    )


class Judge:
    """Compares encoders by the detections that the same decoder makes of them."""

    def __init__(self, encoder: Path, decoder: Path, canvases: Sequence[Canvas]) -> None:
        """Run the reference.

        Args:
            encoder: the fp32 graph.
            canvases: pictures with objects in them.
        Raises:
            ValueError: the model finds nothing on these pictures, so nothing can be compared.
        """
        self._decoder = OnnxRunner(decoder)
        self._canvases = canvases
        self._expected = self._detect(encoder)
        if not any(found.count_above(COUNTED_SCORE) for found in self._expected):
            raise ValueError(
                f"the model finds nothing above a score of {COUNTED_SCORE:g} on {len(canvases)} of the calibration "
                "pictures, so that the damage of int8 cannot be measured; choose pictures with objects that it knows"
            )

    def damage(self, encoder: Path) -> float:
        """Share of the detections that an encoder loses, adds or moves, weighed by score; 0 to 1.

        A detection and its best partner agree by their overlap (IoU) times the ratio of their scores. Detections of
        both sides count, so that additions cost as much as losses.
        """
        agreed = total = 0.0
        for expected, found in zip(self._expected, self._detect(encoder), strict=True):
            for first, second in ((expected, found), (found, expected)):
                weights = np.where(first.scores > COUNTED_SCORE, first.scores, 0)
                agreed += float((weights * agreement(first, second)).sum())
                total += float(weights.sum())
        return 1 - agreed / total

    def _detect(self, encoder: Path) -> list[Detections]:
        runner = OnnxRunner(encoder)
        return [self._decode(runner.run({"images": canvas[None]})) for canvas in self._canvases]

    def _decode(self, encoded: dict[str, np.ndarray]) -> Detections:
        queries = encoded["queries"][:, :QUERIES]
        feed = {name: value for name, value in encoded.items() if name.startswith("memory_")} | {
            "queries": queries,
            "reference_boxes": encoded["reference_boxes"][:, :QUERIES],
            "valid": np.ones(queries.shape[:2], dtype=bool),
        }
        outputs = self._decoder.run(feed)
        return above(outputs["boxes"][0], outputs["scores"][0], PARTNER_SCORE)


def agreement(first: Detections, second: Detections) -> np.ndarray:
    """How well each detection of the first side is met on the second: (M,), 0 where nothing of its class is near."""
    if not len(second.scores):
        return np.zeros(len(first.scores), dtype=np.float32)
    iou = overlaps(torch.from_numpy(first.boxes)[:, None], torch.from_numpy(second.boxes)[None])[0].numpy()  # (M, N)
    low, high = np.minimum(first.scores[:, None], second.scores), np.maximum(first.scores[:, None], second.scores)
    return (iou * low / high * (first.labels[:, None] == second.labels)).max(1)
