"""Average precision of exported graphs, against a COCO file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faster_coco_eval import COCO, COCOeval_faster

from export.matching import Detections

MAX_DETECTIONS = [1, 100, 1500]
"""Per picture, as AI-TOD scores crowded ones."""


@dataclass(frozen=True)
class Picture:
    """An entry of a COCO file."""

    id: int
    path: Path
    longest: int
    """The longer side in pixels."""


@dataclass(frozen=True)
class Accuracy:
    """COCO's mean over IoU .50 to .95, and at .50 and .75."""

    ap: float
    ap50: float
    ap75: float


@dataclass(frozen=True)
class CocoFile:
    """Pictures and their boxes."""

    pictures: list[Picture]
    categories: list[int]
    """Id of each class of the detector, in its order."""
    truth: COCO

    @classmethod
    def read(cls, path: Path, classes: tuple[str, ...]) -> "CocoFile":
        """Read it.

        Args:
            path: COCO file; its pictures lie in `images/` beside it.
            classes: of the detector.
        Raises:
            FileNotFoundError: it is not there.
            ValueError: it is no COCO file with boxes, or lacks a class of the detector.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            pictures = [
                Picture(image["id"], path.parent / "images" / image["file_name"], max(image["width"], image["height"]))
                for image in content.get("images", [])
            ]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no COCO file whose images have id, file_name, width and height") from error
        if missing := [part for part in ("images", "annotations", "categories") if not content.get(part)]:
            raise ValueError(f"{path} is no COCO file with boxes: it has no {', '.join(missing)}")
        ids = {category["name"]: category["id"] for category in content["categories"]}
        if unknown := [name for name in classes if name not in ids]:
            raise ValueError(f"{path} knows no {', '.join(unknown)}; its classes are {', '.join(ids)}")
        return cls(pictures, [ids[name] for name in classes], COCO(content))

    def results(self, picture: Picture, found: Detections, size: int) -> list[dict[str, Any]]:
        """Detections as COCO writes them, in pixels of the picture; `size` is the side of the canvas."""
        scale = picture.longest / size
        return [
            {
                "image_id": picture.id,
                "category_id": self.categories[label],
                "bbox": [x0 * scale, y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale],
                "score": score,
            }
            for (x0, y0, x1, y1), score, label in zip(
                found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
            )
        ]

    def accuracy(self, results: list[dict[str, Any]]) -> Accuracy:
        """Score the detections of all pictures."""
        if not results:
            return Accuracy(0.0, 0.0, 0.0)
        scorer = COCOeval_faster(self.truth, self.truth.loadRes(results), "bbox")
        scorer.params.maxDets = MAX_DETECTIONS
        scorer.params.catIds = self.categories
        scorer.evaluate()
        scorer.accumulate()
        precision = scorer.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class), all areas, longest list
        known = precision[:, :, (precision > -1).all((0, 1))]  # classes without a box count for nothing
        return Accuracy(float(known.mean()), float(known[0].mean()), float(known[5].mean()))
