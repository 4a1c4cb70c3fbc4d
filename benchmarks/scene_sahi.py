"""One scene through SAHI, with our graphs and our post-processing of a tile, as a COCO file.

    SAHI/bin/python -m benchmarks.scene_sahi service/models/nano-nwpu/5 scene.tif found.json --size 544 --overlap 160

Runs in the environment of benchmarks/requirements-scenes.txt. `get_sliced_prediction` gets the path, as its users give
it: reading, cutting and putting together are SAHI's.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sahi.models.base import DetectionModel  # pyright: ignore[reportMissingImports]  # in its own environment only
from sahi.predict import get_sliced_prediction  # pyright: ignore[reportMissingImports]
from sahi.prediction import ObjectPrediction  # pyright: ignore[reportMissingImports]

from service.detections import DetectionOptions, Detections, select_detections
from service.engines.base import DecoderInputs
from service.engines.onnx import OnnxEngine
from service.letterbox import Letterbox
from service.manifest import load_model_folder
from service.queries import query_counts


class NanoModel(DetectionModel):
    """Our two graphs as SAHI calls a model; batches run as batches."""

    def __init__(self, model_dir: Path, threads: int, score: float) -> None:
        self._folder = load_model_folder(model_dir.resolve())
        self._threads = threads
        super().__init__(device="cpu", confidence_threshold=score, image_size=self._folder.manifest.input.size)

    def load_model(self) -> None:
        """Open the graphs."""
        self.model = OnnxEngine(self._folder, "cpu", self._threads)

    def perform_inference(self, image: NDArray[np.uint8]) -> None:
        """One slice, or the whole picture made small."""
        self._original_predictions = self._detect([image])

    def perform_batch_inference(self, images: list[NDArray[np.uint8]]) -> None:
        """Several slices of one size in one run."""
        self._original_predictions = self._detect(images)

    def _detect(self, images: list[NDArray[np.uint8]]) -> list[Detections]:
        manifest = self._folder.manifest
        options = DetectionOptions.from_manifest(manifest, self.confidence_threshold)
        frames = [Letterbox.fit(image.shape[1], image.shape[0], manifest.input.size) for image in images]
        canvases = [self._canvas(frame, image) for frame, image in zip(frames, images, strict=True)]
        encoded = self.model.encode(np.stack(canvases))
        counts = query_counts(encoded.count, manifest.query, encoded.queries.shape[1])
        decoded = self.model.decode(DecoderInputs.of_batch(encoded), counts)
        rows = zip(decoded.boxes, decoded.scores, frames, strict=True)
        found = [(select_detections(boxes, scores, options), frame) for boxes, scores, frame in rows]
        return [Detections(frame.boxes_to_picture(each.boxes), each.scores, each.labels) for each, frame in found]

    def _canvas(self, frame: Letterbox, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(3, S, S); a slice fills it as it is."""
        if image.shape[:2] == (frame.size, frame.size):
            return np.ascontiguousarray(image.transpose(2, 0, 1))
        return frame.draw(Image.fromarray(image), self._folder.manifest.input.pad_value)

    def _create_object_prediction_list_from_original_predictions(
        self, shift_amount_list: Any = None, full_shape_list: Any = None
    ) -> None:
        count = len(self._original_predictions)
        shifts = _one_each(shift_amount_list or [0, 0], count)
        shapes = _one_each(full_shape_list, count)
        self._object_prediction_list_per_image = [
            self._objects(found, shift, shape)
            for found, shift, shape in zip(self._original_predictions, shifts, shapes, strict=True)
        ]

    def _objects(self, found: Detections, shift: list[int], shape: list[int]) -> list[ObjectPrediction]:
        classes = self._folder.manifest.classes
        return [
            ObjectPrediction(
                bbox=box,
                category_id=label,
                category_name=classes[label],
                score=score,
                shift_amount=shift,
                full_shape=shape,
            )
            for box, label, score in zip(
                found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
            )
        ]


def _one_each(values: Any, count: int) -> list[list[int]]:
    """SAHI gives one list for one picture, and a list of lists for several."""
    return values if isinstance(values[0], list) else [values] * count


def main(arguments: Sequence[str] | None = None) -> None:
    """Work on the scene and write what was found."""
    options = _parser().parse_args(arguments)
    model = NanoModel(options.model_dir, options.threads, options.score)
    options.begun.touch()
    slices: list[int] = []
    result = get_sliced_prediction(
        str(options.scene),
        model,
        slice_height=options.size,
        slice_width=options.size,
        overlap_height_ratio=(options.overlap + 0.5) / options.size,  # which SAHI cuts down to whole pixels
        overlap_width_ratio=(options.overlap + 0.5) / options.size,
        perform_standard_pred=not options.slices_only,
        postprocess_type=options.postprocess,
        postprocess_match_metric=options.metric,
        batch_size=options.batch,
        progress_callback=lambda done, total: slices.append(total),
        verbose=0,
    )
    document = _coco(result.object_prediction_list, model, slices[-1])
    options.out.write_text(json.dumps(document) + "\n", encoding="utf-8")


def _coco(found: list[ObjectPrediction], model: NanoModel, slices: int) -> dict[str, Any]:
    annotations = [each.to_coco_prediction(image_id=1).json for each in found]
    categories = [{"id": label, "name": name} for label, name in enumerate(model._folder.manifest.classes)]
    return {"info": {"tiles": slices}, "categories": categories, "annotations": annotations}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("scene", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--begun", type=Path, required=True, help="made when the model is loaded")
    parser.add_argument("--size", type=int, required=True, help="of a slice")
    parser.add_argument("--overlap", type=int, required=True, help="of slices, in pixels")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--score", type=float, required=True, help="boxes above it count")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--slices-only", action="store_true", help="without a look at the whole picture")
    parser.add_argument("--postprocess", default="GREEDYNMM")
    parser.add_argument("--metric", default="IOS")
    return parser


if __name__ == "__main__":
    main()
