"""What values the activations of a graph take, on real pictures."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import onnx
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator

from export.pictures import Canvas


class _Reader(CalibrationDataReader):
    """Hands pictures to the calibrator."""

    def __init__(self, canvases: Sequence[Canvas], after_picture: Callable[[], object]) -> None:
        self._feeds = self._read(canvases, after_picture)

    def get_next(self) -> dict:
        """The next feed; an empty one at the end."""
        return next(self._feeds, {})

    @staticmethod
    def _read(canvases: Sequence[Canvas], after_picture: Callable[[], object]) -> Iterator[dict]:
        for canvas in canvases:
            yield {"images": canvas[None]}
            after_picture()


def activation_ranges(
    model: ModelProto, canvases: Sequence[Canvas], scratch: Path, after_picture: Callable[[], object]
) -> TensorsData:
    """Smallest and largest value of what goes into and comes out of each convolution, averaged over pictures.

    Args:
        scratch: folder for temporary files.
        after_picture: called once a picture.
    """
    onnx.save(model, scratch / "float.onnx")
    calibrator = create_calibrator(
        scratch / "float.onnx",
        ["Conv"],
        augmented_model_path=str(scratch / "ranges.onnx"),
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"moving_average": True},  # which here is the mean over pictures
    )
    calibrator.collect_data(_Reader(canvases, after_picture))
    return calibrator.compute_data()
