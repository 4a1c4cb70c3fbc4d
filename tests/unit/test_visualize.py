"""Panels of what a detector sees: maps land where they belong, parts that a host lacks have no tile, clear errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from model.checkpoint import save_detector
from model.config import HybridEncoderConfig
from model.detector import Detector
from training.evaluation.matches import Detections
from training.pictures.panels import BAR, CAPTION, DPI, SIDE, draw_panel
from training.pictures.seeing import Frame, Seen, hottest, look
from training.pictures.visualize import open_picture, visualize

WIDTH, HEIGHT = 100, 60
FRAME = Frame(canvas=64, picture=(WIDTH, HEIGHT), scale=(64 / WIDTH, 38 / HEIGHT))
"""A wide picture on a canvas of 64 px, of which it fills 64 x 38."""

NONE = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def noise(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def captions(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def tile(figure: Figure, caption: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_title(loc="left") == caption)


@pytest.mark.parametrize("stride", [4, 8])
def test_a_hot_cell_lands_where_it_lies_on_the_picture(stride: int) -> None:
    level = torch.zeros(64 // stride, 64 // stride)
    level[2, 5] = 1
    heat = FRAME.spread(level)
    assert heat.shape == (HEIGHT, WIDTH)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5  # the heat's centre of mass is the cell's centre
    place = (heat * columns).sum() / heat.sum(), (heat * rows).sum() / heat.sum()
    assert place == pytest.approx((5.5 * stride / FRAME.scale[0], 2.5 * stride / FRAME.scale[1]), abs=0.05)


def test_heat_in_the_padding_does_not_reach_the_picture() -> None:
    level = torch.zeros(8, 8)
    level[6:] = 1  # rows from 48 px on; the picture ends at 38
    assert FRAME.spread(level).max() == 0


def test_a_place_and_its_cell_lead_to_each_other() -> None:
    assert FRAME.cell_of((99.9, 59.9), (8, 8)) == (4, 7)
    centre = FRAME.places(np.array([[7.0, 4.0]], np.float32), (8, 8))[0]
    assert FRAME.cell_of((centre[0], centre[1]), (8, 8)) == (4, 7)
    assert centre == pytest.approx([60 / FRAME.scale[0], 36 / FRAME.scale[1]])


def test_heat_is_drawn_on_its_pixel() -> None:
    heat = np.zeros((HEIGHT, WIDTH), np.float32)
    heat[40:43, 70:73] = 1
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    figure = draw_panel(Seen(black, ("ship",), {"class heat": heat}, None, None, NONE, NONE, [], (0.5, 0.5)), "x")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    red = np.asarray(canvas.buffer_rgba())[..., 0].astype(float)  # the hot end of the colours, on black
    axes = tile(figure, "class heat")
    left, bottom = axes.transData.transform((0, HEIGHT))
    right, top = axes.transData.transform((WIDTH, 0))
    rows = slice(round(len(red) - top) + 2, round(len(red) - bottom) - 2)
    columns = slice(round(left) + 2, round(right) - 2)
    hot_rows, hot_columns = np.nonzero(red[rows, columns] > 50)
    x, y = axes.transData.inverted().transform(
        (columns.start + hot_columns.mean() + 0.5, len(red) - (rows.start + hot_rows.mean() + 0.5))
    )
    assert (x, y) == pytest.approx((71.5, 41.5), abs=0.3)


def test_the_hottest_place_is_the_centre_of_its_pixel() -> None:
    heat = np.zeros((HEIGHT, WIDTH), np.float32)
    heat[7, 30] = 1
    assert hottest(heat) == (30.5, 7.5)


def test_everything_that_the_detector_says_has_a_tile(tiny_detector: Detector) -> None:
    seen = look(tiny_detector, noise(), 64, cell=(20, 30))
    assert captions(draw_panel(seen, "noise.png")) == [
        "picture, 100 x 60 px",
        "class heat",
        "box heat",
        "mixed heat",
        "mask",
        f"density, estimated count {seen.count:.1f}",
        f"queries by score, K = {len(seen.queries.scores)}",
        f"detections: {len(seen.detections.scores)}",
        "snake paths of the marked cell",
    ]


def test_what_the_detector_says_lies_on_the_picture(tiny_detector: Detector) -> None:
    seen = look(tiny_detector, noise(), 64, cell=None)
    assert {name: values.shape for name, values in seen.maps.items()} == dict.fromkeys(
        ("class heat", "box heat", "mixed heat", "mask"), (HEIGHT, WIDTH)
    )
    assert 3 <= len(seen.queries.scores) <= 40
    assert (seen.queries.boxes[:, 2] <= WIDTH).all()
    assert (seen.queries.boxes[:, 3] <= HEIGHT).all()
    assert seen.cell == hottest(seen.maps["mixed heat"])
    along_x, along_y = seen.snakes
    steps = np.diff(along_x[:, 0]), np.diff(along_y[:, 1])  # two cells of 8 px a tap, at half resolution
    assert steps[0] == pytest.approx(16 / FRAME.scale[0], rel=1e-4)
    assert steps[1] == pytest.approx(16 / FRAME.scale[1], rel=1e-4)


def test_a_host_without_heat_density_and_lsconv_has_no_tiles_for_them(make_detector: Callable[..., Detector]) -> None:
    encoder = HybridEncoderConfig(heads=2, feedforward=16, mohfe="off").model_dump()
    encoder["lsconv"]["paths"] = "off"
    query = {"k_min": 3, "k_max": 7, "content": "memory"}
    detector = make_detector(heat=None, density=None, encoder=encoder, query=query)
    seen = look(detector, noise(), 64, cell=None)
    assert captions(draw_panel(seen, "x")) == [
        "picture, 100 x 60 px", "class heat", "queries by score, K = 7", f"detections: {len(seen.detections.scores)}",
    ]  # fmt: skip


def test_a_cell_outside_the_picture_is_refused(tiny_detector: Detector) -> None:
    with pytest.raises(ValueError, match="cell 100 5 lies outside the picture of 100 x 60 px"):
        look(tiny_detector, noise(), 64, cell=(100, 5))


def test_a_picture_is_turned_as_its_exif_entry_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(noise()).save(tmp_path / "turned.jpg", exif=exif)
    assert open_picture(tmp_path / "turned.jpg").shape == (WIDTH, HEIGHT, 3)


@pytest.fixture
def checkpoint(tiny_detector: Detector, tmp_path: Path) -> Path:
    """A checkpoint of no run."""
    folder = tmp_path / "run" / "checkpoints" / "step-000001"
    folder.mkdir(parents=True)
    save_detector(folder, tiny_detector.config, tiny_detector.state_dict())
    return folder


def test_every_picture_gets_a_panel(checkpoint: Path, tmp_path: Path) -> None:
    Image.fromarray(noise()).save(tmp_path / "a.png")
    written = visualize(checkpoint, [tmp_path / "a.png"], tmp_path / "panels", None, 64)
    assert written == [tmp_path / "panels" / "a.png"]
    inches = 3 * (SIDE + BAR) + 0.2, 3 * (SIDE * HEIGHT / WIDTH + CAPTION) + CAPTION + 0.2
    with Image.open(written[0]) as panel:
        assert panel.size == pytest.approx([DPI * side for side in inches], abs=1)


def test_what_cannot_be_drawn_is_named_in_one_line(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    out = tmp_path / "panels"
    for pictures, size, message in (
        ([tmp_path / "nowhere.png"], 64, "there is no picture"),
        ([tmp_path / "text.png"], 64, "text.png cannot be read as a picture"),
        ([tmp_path / "a.png", tmp_path / "b" / "a.jpg"], 64, "two pictures have the same name"),
        ([tmp_path / "a.png"], 65, "size 65 is not a multiple of the coarsest stride 32"),
        ([tmp_path / "a.png"], None, "the size of the canvas is unknown; pass --size"),
    ):
        with pytest.raises((OSError, ValueError), match=message) as caught:
            visualize(checkpoint, pictures, out, None, size)
        assert "\n" not in str(caught.value)
