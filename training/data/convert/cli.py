"""`python -m training convert FORMAT SOURCE... --out FOLDER`."""

import argparse
from functools import partial
from pathlib import Path

from training.data.convert import coco, dota, nwpu, visdrone, voc, yolo, yolo_names
from training.data.convert.chips import Chipping
from training.data.convert.records import Dataset
from training.data.convert.report import Report
from training.data.convert.sources import Source, Splits, gather, parse_source, val_by_list, val_by_share
from training.data.convert.writer import Options, write_dataset

FORMATS = {
    "nwpu": "NWPU VHR-10 as published; SOURCE holds `positive image set` and `ground truth`",
    "voc": "PASCAL VOC XML; SOURCE is [SPLIT=]FOLDER[:SET], a folder with JPEGImages and Annotations",
    "coco": "COCO JSON, AI-TOD too; SOURCE is [SPLIT=]FILE.json[:FOLDER-OF-PICTURES]",
    "visdrone": "VisDrone-DET; SOURCE holds `images` and `annotations`",
    "dota": "DOTA; SOURCE is [SPLIT=]FOLDER[:LABELS], a folder with `images` and `labelTxt` or LABELS",
    "yolo": "YOLO text; SOURCE is data.yaml, or [SPLIT=]FOLDER[:SUBFOLDER] with `images` and `labels`",
}


def add_convert(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command with one sub-command a format."""
    text = "write other people's annotations as COCO files"
    formats = commands.add_parser("convert", help=text, description=text).add_subparsers(dest="format", required=True)
    common = _common_options()
    for name, description in FORMATS.items():
        parser = formats.add_parser(name, parents=[common], help=description, description=description)
        if name == "nwpu":
            parser.add_argument("--negatives", action="store_true", help="take `negative image set` as empty pictures")
        if name == "dota":
            parser.add_argument("--version", choices=dota.CLASSES, default="1.0", help="class list (default: 1.0)")
        if name in ("voc", "coco"):
            known = "the 20 of PASCAL VOC" if name == "voc" else "those of the files"
            parser.add_argument("--classes", type=_names, metavar="A,B,...", help=f"in label order (default: {known})")


def convert(arguments: argparse.Namespace) -> str:
    """Carry out the parsed command.

    Returns:
        The report, as lines for a reader.
    Raises:
        OSError, ValueError: something is missing or malformed; the message says where, and nothing is written.
    """
    report = Report()
    dataset = _read(arguments, report)
    chip = None if arguments.chip is None else Chipping(arguments.chip, arguments.overlap, arguments.min_visible)
    if not 0 < arguments.max_megapixels < 1e6:
        raise ValueError(f"--max-megapixels is {arguments.max_megapixels}; it must lie between 0 and a million")
    options = Options(arguments.link, arguments.difficult, chip, round(arguments.max_megapixels * 1e6))
    write_dataset(dataset, arguments.out, options, report)
    return report.table(dataset.classes)


def _read(arguments: argparse.Namespace, report: Report) -> Dataset:
    """Find the pictures and class names of a command."""
    sources = [parse_source(text) for text in arguments.sources]
    ignored = frozenset(arguments.ignore)
    match arguments.format:
        case "nwpu":
            _refuse_detail(sources)
            classes, read = nwpu.CLASSES, partial(nwpu.read, negatives=arguments.negatives, report=report)
        case "voc":
            classes, read = arguments.classes or voc.CLASSES, voc.read
        case "coco":
            classes, read = arguments.classes or coco.category_names(sources, ignored), coco.read
        case "visdrone":
            _refuse_detail(sources)
            classes, read = visdrone.CLASSES, visdrone.read
        case "dota":
            classes, read = dota.CLASSES[arguments.version], dota.read
        case _:
            classes = yolo_names.class_names(sources)
            sources = [folder for source in sources for folder in yolo_names.expand(source)]
            read = partial(yolo.read, names=classes, report=report)
    classes = tuple(name for name in classes if name not in ignored)
    if not classes:
        raise ValueError("--ignore leaves no class")
    return Dataset(classes, _split(gather(sources, read, arguments.prefix), arguments), ignored)


def _split(splits: Splits, arguments: argparse.Namespace) -> Splits:
    """Move train pictures to val, if that is asked for."""
    if arguments.val_share is not None:
        return val_by_share(splits, arguments.val_share, arguments.seed)
    if arguments.val_list is not None:
        return val_by_list(splits, arguments.val_list)
    return splits


def _refuse_detail(sources: list[Source]) -> None:
    """Raises FileNotFoundError for a `:DETAIL` where a format has none."""
    for source in sources:
        if source.detail is not None:
            raise FileNotFoundError(f"there is no {source.path}:{source.detail}; this format takes [SPLIT=]FOLDER")


def _common_options() -> argparse.ArgumentParser:
    """Options of every format."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("sources", nargs="+", metavar="SOURCE", help="[SPLIT=]PATH; the split is train unless stated")
    common.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new or empty folder")
    val = common.add_mutually_exclusive_group()
    val.add_argument(
        "--val-share", type=float, metavar="SHARE", help="move this share of train to val, 0.2 for a fifth"
    )
    val.add_argument("--val-list", type=Path, metavar="FILE", help="move the train pictures named in FILE to val")
    common.add_argument("--seed", type=int, default=0, help="of --val-share: same seed, same pictures (default: 0)")
    common.add_argument("--prefix", action="store_true", help="put split and number of the source before each name")
    common.add_argument("--ignore", type=_names, default=(), metavar="A,B,...", help="classes to leave out")
    crowd = "boxes marked difficult, ignored or crowd (default: crowd, which our training leaves out)"
    common.add_argument("--difficult", choices=("crowd", "drop", "keep"), default="crowd", help=crowd)
    link = "hard links cost no space, copies may be edited (default: hard, a copy where that is impossible)"
    common.add_argument("--link", choices=("hard", "copy"), default="hard", help=link)
    common.add_argument("--chip", type=int, metavar="PX", help="cut larger pictures into chips of this side")
    common.add_argument(
        "--overlap", type=int, default=200, metavar="PX", help="shared by neighbouring chips (default: %(default)s)"
    )
    visible = "share of a box that makes it an object of a chip; below, it is crowd there (default: %(default)s)"
    common.add_argument("--min-visible", type=float, default=0.7, metavar="SHARE", help=visible)
    limit = "refuse larger pictures (default: %(default)s)"
    common.add_argument("--max-megapixels", type=float, default=178, metavar="MP", help=limit)
    return common


def _names(text: str) -> tuple[str, ...]:
    """Names between commas."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name, or one twice")
    return names
