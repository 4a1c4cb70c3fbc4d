"""`python -m training fit | evaluate | synthesize`."""

import argparse
import sys
from pathlib import Path

from model.checkpoint import load_detector
from training.config import Recipe
from training.data.synthetic import synthesize
from training.loop import best_device, evaluate_on_val, fit


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="python -m training", description="Train and measure the detector.")
    commands = root.add_subparsers(dest="command", required=True)

    train = commands.add_parser("fit", help="train a recipe")
    train.add_argument("recipe", type=Path, help="complete TOML file, see training/recipes/")
    train.add_argument("--out", type=Path, help="folder of the run (default: runs/NAME-OF-THE-RECIPE)")
    train.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the run")
    train.add_argument("--stop-after", type=int, metavar="STEPS", help="end early, to be resumed later")

    measure = commands.add_parser("evaluate", help="measure a checkpoint on the val pictures of a recipe")
    measure.add_argument("checkpoint", type=Path, help="folder RUN/checkpoints/step-*")
    measure.add_argument("recipe", type=Path, help="the recipe whose [data] section names the pictures")
    measure.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")

    scenes = commands.add_parser("synthesize", help="draw synthetic aerial scenes with boxes, in COCO format")
    scenes.add_argument("out", type=Path, help="new or empty folder")
    scenes.add_argument("--count", type=int, default=1000, help="pictures (default: %(default)s)")
    scenes.add_argument("--size", type=int, default=512, help="side in pixels (default: %(default)s)")
    scenes.add_argument("--seed", type=int, default=0, help="same seed, same pictures (default: %(default)s)")
    return root


def main() -> None:
    """Run one command; a mistake in the input ends in one clear line."""
    arguments = parser().parse_args()
    try:
        run(arguments)
    except (OSError, FloatingPointError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; `fit --resume` goes on from the newest checkpoint")


def run(arguments: argparse.Namespace) -> None:
    """Carry out the parsed command."""
    match arguments.command:
        case "fit":
            out = arguments.out or Path("runs") / arguments.recipe.stem
            checkpoint = fit(arguments.recipe, out, arguments.resume, arguments.stop_after)
            print(f"checkpoint: {checkpoint}")
        case "evaluate":
            detector = load_detector(arguments.checkpoint).to(best_device())
            metrics = evaluate_on_val(detector, Recipe.from_toml(arguments.recipe))
            print(metrics.table())
            if arguments.json:
                arguments.json.write_text(metrics.to_json() + "\n", encoding="utf-8")
        case "synthesize":
            synthesize(arguments.out, arguments.count, arguments.size, arguments.seed)


if __name__ == "__main__":
    main()
