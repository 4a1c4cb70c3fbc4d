"""`python -m training inspect`: what is in the data, before anything is trained on it, as a report and pictures."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.random import default_rng

from training.config import Recipe
from training.data.datasets import CocoDataset
from training.data.files import read_picture
from training.data.transforms import Augment
from training.evaluation.curves import save
from training.pictures.sheets import Tile, class_colours, sheet
from training.survey.distributions import distributions
from training.survey.measure import Facts, Survey, Twins, find_twins, survey
from training.survey.tables import cell_table, class_table, overview, size_table, suggestions

TILES = 24
"""Pictures on a contact sheet."""
LISTED = 10
"""Problems and pairs that the report names; the rest is counted."""


def inspect(source: Path, images: Path | None, out: Path) -> str:
    """Look through the pictures of a recipe, or of one COCO file, and write report.md with its pictures.

    Args:
        source: a recipe (.toml), whose train and val pictures are compared too, or a COCO file (.json).
        images: folder of the pictures of a COCO file; by default `images` beside it.
        out: folder to write to, made if it is missing.
    Returns:
        The report, Markdown.
    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the source is neither, or malformed; or `images` is given for a recipe, which names its own.
    """
    recipe = None
    if source.suffix == ".toml":
        if images is not None:
            raise ValueError("--images belongs to a COCO file; a recipe names its pictures itself")
        recipe = Recipe.from_toml(source)
        surveys = survey_recipe(recipe)
    elif source.suffix == ".json":
        folder = images or source.parent / "images"
        surveys = [survey(source.stem, folder, source, class_names(source))]
    else:
        raise ValueError(f"{source} is neither a recipe (.toml) nor a COCO file (.json)")
    out.mkdir(parents=True, exist_ok=True)
    report = write_report(surveys, recipe, source.name, out)
    (out / "report.md").write_text(report + "\n", encoding="utf-8")
    return report


def survey_recipe(recipe: Recipe) -> list[Survey]:
    """The train pictures, and the val pictures if the recipe names some."""
    data = recipe.data
    surveys = [survey("train", data.train_images, data.train_annotations, data.classes)]
    if data.val_images is not None and data.val_annotations is not None:
        surveys.append(survey("val", data.val_images, data.val_annotations, data.classes))
    return surveys


def class_names(annotations: Path) -> tuple[str, ...]:
    """The categories of a COCO file, in the order of their ids. Raises FileNotFoundError or ValueError."""
    try:
        categories = json.loads(annotations.read_text(encoding="utf-8"))["categories"]
        return tuple(category["name"] for category in sorted(categories, key=lambda category: category["id"]))
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{annotations} is no COCO detection file: {error!r}") from error


def write_report(surveys: Sequence[Survey], recipe: Recipe | None, name: str, out: Path) -> str:
    """Draw the pictures into `out`; returns the report that shows them."""
    longest = recipe.data.train_size if recipe else None
    within = {seen.name: find_twins(seen.pictures, seen.pictures) for seen in surveys}
    across = find_twins(surveys[0].pictures, surveys[1].pictures) if len(surveys) == 2 else []
    parts = [f"# Data of {name}", overview(surveys, longest), "## Suggestions"]
    parts.append("\n".join(f"- {line}" for line in suggestions(surveys, recipe, across)))
    parts += ["## Distributions", _picture(save(distributions(surveys, longest), out, "distributions"))]
    parts += ["## Classes", class_table(surveys), "## Sizes", size_table(surveys, longest)]
    parts += ["## Density cells", cell_table(surveys, longest)]
    parts += ["## Broken pictures", _problems(surveys), "## Pictures that are there twice", _twins(within, across, out)]
    for seen in surveys:
        parts += [f"## A look at {seen.name}", _picture(_contact_sheet(seen, out))]
    if recipe:
        parts += ["## Training crops, as the model sees them", _picture(_crop_sheet(recipe, out))]
    return "\n\n".join(parts)


def _problems(surveys: Sequence[Survey]) -> str:
    problems = [f"{seen.name}: {problem}" for seen in surveys for problem in seen.problems]
    return _listed(problems) if problems else "None: every picture was read to its end."


def _twins(within: dict[str, list[Twins]], across: Sequence[Twins], out: Path) -> str:
    """Pairs inside the lists and between them, by name and in a picture."""
    named = {f"in {name}": pairs for name, pairs in within.items()} | {"in train and val": across}
    words = [
        "Compared byte for byte, and by a coarse look (an average hash of 16 x 16 cells, mirrored and turned too); "
        "the second can be mistaken, so look at the picture."
    ]
    for place, pairs in named.items():
        same = sum(pair.bits < 0 for pair in pairs)
        words.append(f"**{place}**: {same} pairs of equal files, {len(pairs) - same} pairs that look nearly the same.")
        if pairs:
            words.append(_listed([_pair(pair) for pair in pairs]))
    shown = [*across, *(pair for pairs in within.values() for pair in pairs)][: TILES // 2]
    if shown:
        tiles = []
        for pair in shown:
            for facts in (pair.first, pair.second):
                tiles.append(Tile(read_picture(facts.path, 240), np.zeros((0, 4), np.float32), [], facts.path.name))
        sheet(tiles, columns=6, side=240, title="Pairs that look alike, side by side", legend={}).save(
            out / "twins.png"
        )
        words.append(_picture("twins.png"))
    return "\n\n".join(words)


def _pair(pair: Twins) -> str:
    how = "equal files" if pair.bits < 0 else f"{pair.bits} of 256 bits differ"
    return f"`{pair.first.path.name}` and `{pair.second.path.name}`: {how}"


def _contact_sheet(seen: Survey, out: Path) -> str:
    """Pictures with boxes, chosen so that every class is seen; returns the file's name."""
    colours = class_colours(len(seen.classes))
    tiles = []
    for facts in choose(seen, TILES):
        caption = f"{facts.path.name}: {len(facts.labels)} boxes"
        tiles.append(Tile(read_picture(facts.path, None), facts.boxes, [colours[x] for x in facts.labels], caption))
    title = f"{seen.name}: {len(tiles)} of {len(seen.pictures)} pictures"
    legend = dict(zip(seen.classes, colours, strict=True))
    sheet(tiles, columns=6, side=320, title=title, legend=legend).save(out / f"{seen.name}.png")
    return f"{seen.name}.png"


def choose(seen: Survey, most: int) -> list[Facts]:
    """Up to `most` pictures in random order, always the same; those of classes not yet shown come first."""
    order = default_rng(0).permutation(len(seen.pictures)).tolist()
    shown: set[int] = set()
    first = []
    for place in order:
        if new := set(seen.pictures[place].labels.tolist()) - shown:
            shown |= new
            first.append(place)
    return [seen.pictures[place] for place in dict.fromkeys([*first, *order])][:most]


def _crop_sheet(recipe: Recipe, out: Path) -> str:
    """Augmented crops of the train pictures with their boxes; returns the file's name."""
    data, colours = recipe.data, class_colours(len(recipe.data.classes))
    pictures = CocoDataset(data.train_images, data.train_annotations, data.classes, data.train_size, data.min_box_px)
    augment, order = Augment(recipe.augment), default_rng(recipe.run.seed).permutation(len(pictures))
    tiles = []
    for index in order[:TILES].tolist():
        rng = default_rng([recipe.run.seed, index])
        crop = augment(pictures, index, augment.draw_size(rng), rng)
        caption = f"{pictures.paths[index].name}: {len(crop.labels)} boxes"
        tiles.append(Tile(crop.image, crop.boxes, [colours[x] for x in crop.labels], caption))
    title = f"Crops of {recipe.augment.crop_told} from pictures at {data.train_size} px, augmented"
    legend = dict(zip(data.classes, colours, strict=True))
    sheet(tiles, columns=6, side=320, title=title, legend=legend).save(out / "crops.png")
    return "crops.png"


def _picture(name: str) -> str:
    return f"![{Path(name).stem}]({name})"


def _listed(lines: Sequence[str]) -> str:
    """A list of the first lines, and how many more there are."""
    more = [f"- and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return "\n".join([*(f"- {line}" for line in lines[:LISTED]), *more])
