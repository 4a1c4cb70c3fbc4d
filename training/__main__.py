"""`python -m training fit | evaluate | inspect | synthesize | convert | ablate | visualize`.

A command imports what it needs when it is carried out: torch takes seconds to load, and `convert` does without.
"""

import argparse
import sys
from pathlib import Path

from training.data.convert.cli import add_convert, convert


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="python -m training", description="Train and measure the detector.")
    commands = root.add_subparsers(dest="command", required=True)

    train = commands.add_parser(
        "fit", help="train a recipe; on several GPUs: torchrun --nproc-per-node N -m training fit ..."
    )
    train.add_argument("recipe", type=Path, help="complete TOML file, see training/recipes/")
    train.add_argument("--out", type=Path, help="folder of the run (default: runs/NAME-OF-THE-RECIPE)")
    train.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the run")
    train.add_argument("--stop-after", type=int, metavar="STEPS", help="end early, to be resumed later")

    measure = commands.add_parser("evaluate", help="measure a checkpoint on the val pictures of a recipe")
    measure.add_argument("checkpoint", type=Path, help="folder RUN/checkpoints/step-*")
    measure.add_argument("recipe", type=Path, help="the recipe whose [data] section names the pictures")
    measure.add_argument("--out", type=Path, metavar="FOLDER", help="write metrics.json, report.md and pictures here")
    measure.add_argument("--layers", action="store_true", help="measure the proposals and every decoder layer too")

    look = commands.add_parser("inspect", help="look through the data before training: report and pictures")
    look.add_argument("source", type=Path, help="a recipe (.toml), or a COCO file (.json)")
    look.add_argument("--images", type=Path, help="pictures of a COCO file (default: the folder images/ beside it)")
    look.add_argument("--out", type=Path, required=True, help="folder for report.md and its pictures")

    scenes = commands.add_parser("synthesize", help="draw synthetic aerial scenes with boxes, in COCO format")
    scenes.add_argument("out", type=Path, help="new or empty folder")
    scenes.add_argument("--count", type=int, default=1000, help="pictures (default: %(default)s)")
    scenes.add_argument("--size", type=int, default=512, help="side in pixels (default: %(default)s)")
    scenes.add_argument("--seed", type=int, default=0, help="same seed, same pictures (default: %(default)s)")

    add_convert(commands)
    _add_ablate(commands)
    _add_visualize(commands)
    return root


def _add_ablate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-command to the command line."""
    parser = commands.add_parser("ablate", help="train the variants of a grid with the same seeds and compare them")
    parser.add_argument("grid", type=Path, help="TOML file, see training/ablation/grids/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the ablation; the same one to go on")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (default: %(default)s)")
    parser.add_argument("--time-limit", type=float, metavar="MINUTES", help="begin no run after this time")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these variants only")
    parser.add_argument("--seeds", type=int, nargs="+", default=[], help="instead of the grid's")
    parser.add_argument("--keep", action="store_true", help="keep the checkpoints of finished runs")
    parser.add_argument("--table-only", action="store_true", help="compare the results that are there; run nothing")


def _add_visualize(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-command to the command line."""
    parser = commands.add_parser("visualize", help="draw heat, mask, density, queries, detections and snake paths")
    parser.add_argument("checkpoint", type=Path, help="folder RUN/checkpoints/step-*")
    parser.add_argument("pictures", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--out", type=Path, required=True, help="folder for one panel per picture, NAME.png")
    parser.add_argument("--cell", type=float, nargs=2, metavar=("X", "Y"), help="pixel whose snake paths are shown")
    parser.add_argument("--size", type=int, help="side of the canvas (default: val_size of the run's recipe)")


def main() -> None:
    """Run one command; a mistake in the input ends in one clear line."""
    arguments = parser().parse_args()
    try:
        run(arguments)
    except (OSError, FloatingPointError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        way_on = "; `fit --resume` goes on from the newest checkpoint" if arguments.command == "fit" else ""
        sys.exit(f"interrupted{way_on}")


def run(arguments: argparse.Namespace) -> None:
    """Carry out the parsed command."""
    match arguments.command:
        case "fit":
            from training.loop import fit

            out = arguments.out or Path("runs") / arguments.recipe.stem
            fit(arguments.recipe, out, arguments.resume, arguments.stop_after)
        case "evaluate":
            from training.evaluation.report import evaluate_checkpoint

            print(evaluate_checkpoint(arguments.checkpoint, arguments.recipe, arguments.out, arguments.layers))
        case "inspect":
            from training.survey.command import inspect

            print(inspect(arguments.source, arguments.images, arguments.out))
        case "synthesize":
            from training.data.synthetic import synthesize

            synthesize(arguments.out, arguments.count, arguments.size, arguments.seed)
        case "convert":
            print(convert(arguments))
        case "ablate":
            from training.ablation.command import run_ablate

            print(f"table: {run_ablate(arguments)}")
        case "visualize":
            from training.pictures.visualize import run_visualize

            print(*run_visualize(arguments), sep="\n")


if __name__ == "__main__":
    main()
