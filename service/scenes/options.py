"""The command line of `python -m service detect`, free of the libraries that do the work."""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.cores import usable_cores
from service.scenes.kinds import RESULT_KINDS, ResultKind


@dataclass(frozen=True)
class DetectOptions:
    """What the command line says; see `add_arguments`."""

    inputs: list[str]
    out: Path
    format: ResultKind | None
    threshold: float | None
    classes: list[str] | None
    bands: str | None
    scaling: str
    resolution: str
    overlap: int | None
    heat: Path | None
    preview: Path | None
    resume: bool
    lanes: int
    engine: Literal["local", "ray"]
    ray_address: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="GeoTIFF, JPEG or PNG files, folders of them, or patterns")
    add("--out", type=Path, required=True, metavar="PATH", help="a .gpkg, .geojson, .json (COCO) or .csv; or a folder")
    add("--format", choices=RESULT_KINDS, help="of the results in a folder")
    add("--models", type=Path, help="folder that holds <name>/<version>/")
    add("--model", help="name or name/version")
    add("--threshold", type=_score, help="least score, for every class; else the model's own")
    add("--classes", type=_names, metavar="A,B", help="only these")
    add("--bands", metavar="R,G,B", help="bands for red, green and blue, counted from 1")
    add("--scaling", default="auto", metavar="HOW", help="auto, none, or what becomes 0 and 255: 0,4095 or 2%%,98%%")
    add(
        "--resolution",
        default="model",
        metavar="CM",
        help="ground that pixels shall show; model: as trained; file: as is",
    )
    add("--overlap", type=_count, metavar="PX", help="of neighbouring tiles; more than the largest object")
    add("--heat", type=Path, metavar="PATH", help="density and heat as a cloud-optimised GeoTIFF; or a folder")
    add("--preview", type=Path, metavar="PATH", help="a small picture with boxes, as PNG; or a folder")
    add("--resume", action="store_true", help="go on where an earlier run ended; finished inputs are left alone")
    add("--lanes", type=_count, default=usable_cores(), help="tiles worked on at once; else one a core")
    add("--engine", choices=("local", "ray"), default="local", help="threads of this process, or processes of Ray's")
    add(
        "--ray-address",
        metavar="HOST:PORT",
        help="of a running cluster, or auto; else one is started for this run",
    )


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names no class; write airplane,ship")
    return names


def _score(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no score from 0 to 1")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
