"""`python -m export CHECKPOINT --out FOLDER/NAME/VERSION`."""

import argparse
import sys
from pathlib import Path

from pydantic import ValidationError

from export.manifest import read_card
from export.release import MOST_PICTURES, release


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="python -m export", description="Turn a checkpoint into a model folder.")
    root.add_argument("checkpoint", type=Path, help="folder RUN/checkpoints/step-*")
    root.add_argument("--out", type=Path, required=True, metavar="FOLDER/NAME/VERSION", help="must not exist yet")
    root.add_argument("--decoder-layers", type=int, metavar="N", help="decoder layers to keep (default: 3, or all)")
    root.add_argument("--size", type=int, default=640, help="side of the input canvas in pixels (default: %(default)s)")
    root.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER|COCO.json",
        help=f"compare on up to {MOST_PICTURES} of these pictures; a COCO file has them in images/ beside it",
    )
    root.add_argument("--card", type=Path, metavar="FILE", help="TOML with data, licences and post-processing defaults")
    root.add_argument("--threshold", type=float, help="score of a detection (default: the card's, or 0.3)")
    root.add_argument("--nms-iou", type=_nms_iou, metavar="IOU|off", help="(default: the card's, or 0.8)")
    return root


def main() -> None:
    """Export; a mistake in the input, or graphs that differ from the model, end in one clear line."""
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
    asked = {"threshold": arguments.threshold, "nms_iou": arguments.nms_iou}
    card = read_card(arguments.card, {key: value for key, value in asked.items() if value is not None})
    report = release(
        arguments.checkpoint,
        arguments.out,
        card,
        size=arguments.size,
        decoder_layers=arguments.decoder_layers,
        images=arguments.images,
    )
    print(
        f"{arguments.out}: {report.detections} detections on {report.images} {report.images_kind} pictures agree; "
        f"boxes within {report.max_box_px:.2g} px, scores within {report.max_score:.2g}"
    )


def _nms_iou(text: str) -> float | str:
    return "off" if text == "off" else float(text)


if __name__ == "__main__":
    main()
