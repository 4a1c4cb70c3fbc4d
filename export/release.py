"""From a checkpoint to a model folder that has proven itself."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from export.deepness import FILE as DEEPNESS
from export.deepness import deepness_graph, deepness_metadata
from export.folder import new_folder, refuse_existing, replace_json
from export.graphs import cut_decoder
from export.joined import FILE as DETECTOR
from export.joined import detector_graph
from export.manifest import PAD_VALUE, PLAIN_NAME, Card, FileSpec, Manifest, Precision, describe
from export.onnx_graph import export_graph, graph_specs, write_graph
from export.parity import ParityError, Report
from export.pictures import Canvas, Kind, real_canvases, synthetic_canvases
from export.precisions import write_precision
from export.proof import against_torch, on_onnxruntime
from export.quantization import FEWEST_PICTURES
from export.runtime import Graphs
from model.checkpoint import load_detector
from model.detector import Detector

MOST_PICTURES = 20
MOST_CALIBRATION_PICTURES = 64


@dataclass(frozen=True)
class Wish:
    """What a model folder shall hold."""

    size: int = 640
    """Side of the input canvas in pixels, a multiple of the coarsest stride."""
    decoder_layers: int | None = None
    """See `cut_decoder`."""
    images: Path | None = None
    """Pictures to compare on, see `picture_paths`; drawn ones stand in without it."""
    precisions: tuple[Precision, ...] = ()
    """Beside fp32."""
    calibration: Path | None = None
    """Pictures that set the ranges of int8, see `picture_paths`; never those that the model is judged on."""
    deepness: bool = False
    """Add deepness.onnx."""


def release(checkpoint: Path, out: Path, card: Card, wish: Wish) -> Report:
    """Write the graphs, `model.json` and `parity.json`, all or nothing.

    Args:
        checkpoint: folder with weights and configuration.
        out: FOLDER/NAME/VERSION, not there yet.
        card: what the manifest says of data, licences and post-processing.
    Raises:
        FileNotFoundError, FileExistsError, ValueError: the input is not usable.
        ParityError: the graphs differ from the model.
    """
    name, version = name_and_version(out)
    refuse_existing(out)
    detector = cut_decoder(load_detector(checkpoint), wish.decoder_layers)
    manifest = describe(detector, checkpoint, name, version, wish.size, card)
    calibration = _calibration_canvases(wish)
    canvases, kind = _canvases(wish)
    metadata = deepness_metadata(manifest) if wish.deepness else {}
    further: list[Precision] = [precision for precision in wish.precisions if precision != "fp32"]
    steps = 3 + wish.deepness + len(further) + len(canvases) * (1 + len(further))
    with new_folder(out) as folder, tqdm(total=steps, disable=None) as bar:
        _write_graphs(detector, manifest, metadata, folder, wish, bar)
        for precision in further:
            bar.set_description(precision)
            made, calibrated = write_precision(precision, folder, calibration)
            update = {"graphs": manifest.graphs | {precision: made}, "calibration": calibrated or manifest.calibration}
            manifest = manifest.model_copy(update=update)
            bar.update()
        bar.set_description("parity")
        files = {path.name: FileSpec.of(path) for path in sorted(folder.glob("*.onnx"))}
        graphs = Graphs.load(folder, detector.config.query, len(detector.config.strides))
        report = against_torch(detector, graphs, folder, files, canvases, kind, bar.update)
        if report.passed:
            found = on_onnxruntime("cpu", graphs, folder, manifest.graphs, canvases, kind, bar.update)
            report = report.with_agreements(found)
        if not report.passed:
            raise ParityError(f"parity failed, so nothing was written: {'; '.join(report.complaints())}")
        replace_json(folder / "parity.json", report)
        replace_json(folder / "model.json", manifest.model_copy(update={"files": files}))
    return report


def _write_graphs(
    detector: Detector, manifest: Manifest, deepness: dict[str, str], folder: Path, wish: Wish, bar: tqdm
) -> None:
    """The fp32 graphs."""
    metadata = {
        "name": manifest.name,
        "version": manifest.version,
        "classes": list(manifest.classes),
        "commit": manifest.source.commit,
    }
    for spec in graph_specs(detector):
        bar.set_description(spec.name)
        write_graph(export_graph(spec), folder / spec.name, metadata)
        bar.update()
    bar.set_description(DETECTOR)
    write_graph(detector_graph(folder, detector.config), folder / DETECTOR, metadata, packed=True)
    bar.update()
    if wish.deepness:
        bar.set_description(DEEPNESS)
        graph = deepness_graph(folder, detector.config, wish.size)
        write_graph(graph, folder / DEEPNESS, metadata | deepness, packed=True)
        bar.update()


def name_and_version(out: Path) -> tuple[str, str]:
    """The last two parts of FOLDER/NAME/VERSION.

    Raises:
        ValueError: there are not two, or they are no plain names.
    """
    name, version = out.parent.name, out.name
    if not (re.fullmatch(PLAIN_NAME, name) and re.fullmatch(PLAIN_NAME, version)):
        raise ValueError(
            f"--out {out} is not FOLDER/NAME/VERSION with names of letters, digits, '.', '_' and '-', "
            "such as models/nano-nwpu/1"
        )
    return name, version


def _canvases(wish: Wish) -> tuple[list[Canvas], Kind]:
    if wish.images is not None:
        return real_canvases(wish.images, wish.size, PAD_VALUE, MOST_PICTURES), "real"
    print("warning: without --images the graphs are compared on drawn pictures only", file=sys.stderr)
    return synthetic_canvases(wish.size, PAD_VALUE, MOST_PICTURES), "synthetic"


def _calibration_canvases(wish: Wish) -> list[Canvas]:
    """Pictures for int8. Raises ValueError if int8 is wanted and nothing is said of them."""
    if "int8" not in wish.precisions:
        return []
    if wish.calibration is None:
        raise ValueError("int8 needs --calibration with pictures like those to come, such as the train split")
    if wish.images is not None and wish.calibration.resolve() == wish.images.resolve():
        raise ValueError(f"--calibration and --images are both {wish.images}; calibrate on other pictures")
    canvases = real_canvases(wish.calibration, wish.size, PAD_VALUE, MOST_CALIBRATION_PICTURES)
    if len(canvases) < FEWEST_PICTURES:
        raise ValueError(f"{wish.calibration} holds {len(canvases)} pictures; int8 needs {FEWEST_PICTURES} or more")
    return canvases
