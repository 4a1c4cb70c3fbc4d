"""What is kept of a tile comes back as it was, and the same tile is the same bytes."""

import zlib

import numpy as np
import pytest

from service.analysis import HeatMaps, keep_heat
from service.merging import TileBoxes
from service.scenes.payload import TileHeat, pack, unpack

BOXES = TileBoxes(
    boxes=np.array([[1, 2, 3.5, 4], [100_000.25, 7, 100_009, 12]], np.float32),
    scores=np.array([0.75, 0.1], np.float32),
    labels=np.array([1, 0]),
    cut=np.array([False, True]),
)
NONE = TileBoxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
HEAT = TileHeat(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4), keep_heat(np.full((3, 4), 0.5, np.float32)))


def test_boxes_come_back_as_they_were() -> None:
    found, heat = unpack(pack(BOXES))
    assert heat is None
    assert found.boxes.tolist() == BOXES.boxes.tolist()
    assert found.scores.tolist() == BOXES.scores.tolist()
    assert found.labels.tolist() == [1, 0]
    assert found.cut.tolist() == [False, True]


def test_heat_comes_back_as_it_was() -> None:
    _, heat = unpack(pack(BOXES, HEAT))
    assert heat is not None
    assert np.array_equal(heat.density, HEAT.density)
    assert np.array_equal(heat.mixed, HEAT.mixed)


def test_a_tile_without_boxes_comes_back() -> None:
    found, heat = unpack(pack(NONE, HEAT))
    assert (found.boxes.shape, heat is None) == ((0, 4), False)


def test_the_same_tile_is_the_same_bytes() -> None:
    assert pack(BOXES, HEAT) == pack(BOXES, TileHeat(HEAT.density.copy(), HEAT.mixed.copy()))


def test_bytes_of_another_format_are_refused() -> None:
    with pytest.raises(ValueError, match=r"format b'WHAT'; this version reads b'HQT1'"):
        unpack(zlib.compress(b"WHAT" + bytes(12)))


def test_mixed_heat_is_the_hottest_of_all_levels_on_the_finest_cells() -> None:
    fine = keep_heat(np.zeros((4, 4, 4), np.float32))
    coarse = keep_heat(np.full((4, 2, 2), 0.5, np.float32))
    heat = TileHeat.of(HeatMaps(np.zeros((4, 4), np.float32), (), (fine, coarse)))
    assert heat.mixed.tolist() == [[32768] * 4] * 4
