"""The graphs of a folder in a smaller precision."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import onnx
from tqdm import tqdm

from export.half import write_half
from export.manifest import FP32, Calibration, GraphFiles, Precision
from export.onnx_graph import check_graph
from export.pictures import Canvas
from export.quantization import quantize


def write_precision(
    precision: Precision, folder: Path, calibration: Sequence[Canvas]
) -> tuple[GraphFiles, Calibration | None]:
    """Write the graphs of one precision beside those of fp32.

    Args:
        folder: holds the fp32 graphs.
        calibration: pictures that set the ranges of int8; nothing else needs them.
    Returns:
        The files, and for int8 what they were calibrated on.
    """
    match precision:
        case "fp16":
            files = GraphFiles(encoder="encoder.fp16.onnx", decoder="decoder.fp16.onnx")
            for source, file in ((FP32.encoder, files.encoder), (FP32.decoder, files.decoder)):
                write_half(folder / source, folder / file)
                check_graph(file, onnx.load(folder / file))
            return files, None
        case "int8":
            files = GraphFiles(encoder="encoder.int8.onnx", decoder=FP32.decoder)
            report = quantize(folder / FP32.encoder, folder / FP32.decoder, folder / files.encoder, calibration)
            check_graph(files.encoder, onnx.load(folder / files.encoder))
            tqdm.write(report.table())
            digest = hashlib.sha256(b"".join(canvas.tobytes() for canvas in calibration)).hexdigest()
            return files, Calibration(pictures=len(calibration), sha256=digest, kept_in_float=report.kept_in_float)
        case "fp32":
            return FP32, None
