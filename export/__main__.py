"""`python -m export build | verify | depth | engines`."""

import argparse
import sys
from pathlib import Path

from pydantic import ValidationError

from export.depth import add_depth, run_depth
from export.engines.command import add_engines, run_engines
from export.manifest import PRECISIONS, read_card
from export.release import MOST_CALIBRATION_PICTURES, MOST_PICTURES, Wish, release
from export.verify import add_verify, run_verify


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="python -m export", description="Turn a checkpoint into a model folder.")
    commands = root.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="write a model folder that has proven itself")
    build.add_argument("checkpoint", type=Path, help="folder RUN/checkpoints/step-*")
    build.add_argument("--out", type=Path, required=True, metavar="FOLDER/NAME/VERSION", help="must not exist yet")
    build.add_argument("--decoder-layers", type=int, metavar="N", help="decoder layers to keep (default: 3, or all)")
    build.add_argument(
        "--size", type=int, default=640, help="side of the input canvas in pixels (default: %(default)s)"
    )
    build.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER|COCO.json",
        help=f"compare on up to {MOST_PICTURES} of these pictures; a COCO file has them in images/ beside it",
    )
    build.add_argument(
        "--card", type=Path, metavar="FILE", help="TOML with data, licences and post-processing defaults"
    )
    build.add_argument("--threshold", type=float, help="score of a detection (default: the card's, or 0.3)")
    build.add_argument("--nms-iou", type=_nms_iou, metavar="IOU|off", help="(default: the card's, or 0.8)")
    build.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["fp32"], help="(default: fp32 alone)")
    build.add_argument(
        "--calibration",
        type=Path,
        metavar="FOLDER|COCO.json",
        help=f"up to {MOST_CALIBRATION_PICTURES} of these pictures set the ranges of int8; take the train split",
    )
    build.add_argument("--deepness", action="store_true", help="add deepness.onnx for the QGIS plugin Deepness")
    add_verify(commands)
    add_depth(commands)
    add_engines(commands)
    return root


def main() -> None:
    """Run one command; a mistake in the input, or graphs that differ from the model, end in one clear line."""
    arguments = parser().parse_args()
    try:
        run(arguments)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        sys.exit(f"error: {error.title}: {where + ': ' if where else ''}{first['msg']}")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; nothing was written")


def run(arguments: argparse.Namespace) -> None:
    """Carry out the parsed command and say what came of it."""
    match arguments.command:
        case "build":
            build(arguments)
        case "verify":
            print(*(agreement.line() for agreement in run_verify(arguments).agreements), sep="\n")
        case "depth":
            print(run_depth(arguments))
        case "engines":
            run_engines(arguments)


def build(arguments: argparse.Namespace) -> None:
    """Carry out `build`."""
    asked = {"threshold": arguments.threshold, "nms_iou": arguments.nms_iou}
    card = read_card(arguments.card, {key: value for key, value in asked.items() if value is not None})
    wish = Wish(
        size=arguments.size,
        decoder_layers=arguments.decoder_layers,
        images=arguments.images,
        precisions=tuple(arguments.precisions),
        calibration=arguments.calibration,
        deepness=arguments.deepness,
    )
    report = release(arguments.checkpoint, arguments.out, card, wish)
    print(
        f"{arguments.out}: {report.detections} detections on {report.images} {report.images_kind} pictures agree; "
        f"boxes within {report.max_box_px:.2g} px, scores within {report.max_score:.2g}"
    )
    print(*(agreement.line() for agreement in report.agreements), sep="\n")


def _nms_iou(text: str) -> float | str:
    return "off" if text == "off" else float(text)


if __name__ == "__main__":
    main()
