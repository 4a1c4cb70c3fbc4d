"""What one run of the model says: how it is kept, and which model it is of."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from results import make_result
from service.analysis import HeatMaps, keep_heat, read_heat
from service.engines.base import Encoded
from service.letterbox import Letterbox
from service.manifest import Manifest, load_model_folder


def encoded(value: float) -> Encoded:
    """One picture whose every heat is `value`."""
    heat = tuple(np.full((1, 4, side, side), value, np.float32) for side in (8, 4, 2))
    empty = np.zeros((1, 0, 4), np.float32)
    return Encoded((), empty, empty, np.zeros(1, np.float32), heat[0][:, :1], heat, heat)


def test_kept_heat_is_finer_than_any_colour() -> None:
    values = np.linspace(0, 1, 5000, dtype=np.float32)
    assert np.abs(read_heat(keep_heat(values)) - values).max() < 1 / 255 / 100


def test_full_heat_and_none_are_kept_exactly() -> None:
    assert read_heat(keep_heat(np.array([0, 1], np.float32))).tolist() == [0, 1]


def test_heat_beyond_its_range_is_kept_at_the_end_of_the_range() -> None:
    assert read_heat(keep_heat(np.array([-0.1, 1.1], np.float32))).tolist() == [0, 1]


def test_heat_takes_two_bytes_a_cell_and_density_stays_as_it_is() -> None:
    maps = HeatMaps.of_row(encoded(1 / 3), 0)
    assert {level.itemsize for level in (*maps.class_heat, *maps.heat)} == {2}
    assert np.array_equal(maps.density, encoded(1 / 3).density[0, 0])


def test_maps_hold_their_own_memory() -> None:
    batch = encoded(0.5)
    maps = HeatMaps.of_row(batch, 0)
    batch.density[:] = 1
    batch.heat[0][:] = 1
    assert (maps.density.max(), read_heat(maps.heat[0]).max()) == pytest.approx((0.5, 0.5), abs=1e-5)


@pytest.fixture
def manifest(toy_models: Path) -> Manifest:
    """A model with a canvas of 160 px, strides 8, 16 and 32, and two classes."""
    return load_model_folder(toy_models / "toy" / "1").manifest


def test_a_result_is_of_the_model_whose_shapes_it_has(manifest: Manifest) -> None:
    assert make_result(b"picture").is_of(manifest)


def test_a_result_on_several_canvases_is_of_its_model(manifest: Manifest) -> None:
    frame = Letterbox(640, 480, 320, 240, 160)
    assert replace(make_result(b"picture", size=320), frame=frame).is_of(manifest)


@pytest.mark.parametrize(
    "changes",
    [
        {"frame": Letterbox(320, 240, 168, 126, 160)},
        {"frame": Letterbox(320, 240, 160, 120, 192)},
        {"scores": np.zeros((5, 3), np.float32)},
        {"maps": make_result(b"", classes=3).maps},
        {"maps": make_result(b"", size=128).maps},
        {"maps": HeatMaps(np.zeros((20, 20), np.float32), (), ())},
        {"maps": replace(make_result(b"").maps, density=np.zeros((1, 1), np.float32))},
    ],
)
def test_a_result_of_other_shapes_is_not(manifest: Manifest, changes: dict[str, Any]) -> None:
    assert not replace(make_result(b"picture"), **changes).is_of(manifest)
