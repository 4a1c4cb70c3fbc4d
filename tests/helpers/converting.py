"""What the tests of every converter do: run the command, and read what it wrote."""

import json
from pathlib import Path
from typing import Any

from training.__main__ import parser
from training.data.convert.cli import convert


def run(*arguments: object) -> str:
    """The report of `convert`."""
    return convert(parser().parse_args(["convert", *map(str, arguments)]))


def read(out: Path, split: str = "train") -> dict[str, Any]:
    """The annotations of a split."""
    return json.loads((out / f"instances_{split}.json").read_text(encoding="utf-8"))


def objects(out: Path, split: str = "train") -> list[tuple[str, list[float], int]]:
    """(class, bbox, iscrowd) of every annotation."""
    data = read(out, split)
    names = {category["id"]: category["name"] for category in data["categories"]}
    return [(names[entry["category_id"]], entry["bbox"], entry["iscrowd"]) for entry in data["annotations"]]
