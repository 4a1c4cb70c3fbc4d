"""From a checkpoint to a model folder that has proven itself."""

import re
import sys
from pathlib import Path

from tqdm import tqdm

from export.folder import new_folder, refuse_existing
from export.graphs import cut_decoder
from export.manifest import PAD_VALUE, PLAIN_NAME, Card, FileSpec, describe
from export.onnx_graph import graph_specs, write_graph
from export.parity import ParityError, Report, Tolerance, compare
from export.pictures import Canvas, Kind, real_canvases, synthetic_canvases
from export.runtime import Graphs
from model.checkpoint import load_detector
from model.config import Config

MOST_PICTURES = 20


def release(
    checkpoint: Path,
    out: Path,
    card: Card,
    *,
    size: int = 640,
    decoder_layers: int | None = None,
    images: Path | None = None,
) -> Report:
    """Write the three graphs, `model.json` and `parity.json`, all or nothing.

    Args:
        checkpoint: folder with weights and configuration.
        out: FOLDER/NAME/VERSION, not there yet.
        card: what the manifest says of data, licences and post-processing.
        size: side of the input canvas in pixels, a multiple of the coarsest stride.
        decoder_layers: see `cut_decoder`.
        images: pictures to compare on, see `picture_paths`; drawn ones stand in without it.
    Raises:
        FileNotFoundError, FileExistsError, ValueError: the input is not usable.
        ParityError: the graphs differ from the model.
    """
    name, version = name_and_version(out)
    refuse_existing(out)
    detector = cut_decoder(load_detector(checkpoint), decoder_layers)
    manifest = describe(detector, checkpoint, name, version, size, card)
    canvases, kind = _canvases(images, size)
    specs = graph_specs(detector)
    metadata = {
        "name": name,
        "version": version,
        "classes": list(manifest.classes),
        "commit": manifest.source.commit,
    }
    with new_folder(out) as folder, tqdm(total=len(specs) + len(canvases), disable=None) as bar:
        for spec in specs:
            bar.set_description(spec.file)
            write_graph(spec, folder, metadata)
            bar.update()
        bar.set_description("parity")
        files = {spec.file: FileSpec.of(folder / spec.file) for spec in specs}
        hashes = {file: measured.sha256 for file, measured in files.items()}
        graphs = Graphs(folder, detector.config.query, len(detector.config.strides))
        report = compare(detector, graphs, canvases, kind, hashes, Tolerance(), bar.update)
        if not report.passed:
            raise ParityError(f"parity failed, so nothing was written: {'; '.join(report.failures)}")
        _write(folder / "parity.json", report)
        _write(folder / "model.json", manifest.model_copy(update={"files": files}))
    return report


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


def _canvases(images: Path | None, size: int) -> tuple[list[Canvas], Kind]:
    if images is not None:
        return real_canvases(images, size, PAD_VALUE, MOST_PICTURES), "real"
    print("warning: without --images the graphs are compared on drawn pictures only", file=sys.stderr)
    return synthetic_canvases(size, PAD_VALUE, MOST_PICTURES), "synthetic"


def _write(path: Path, content: Config) -> None:
    path.write_text(content.model_dump_json(indent=2) + "\n", encoding="utf-8")
