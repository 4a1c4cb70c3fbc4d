"""Real GeoTIFFs: every one is read, placed and scaled; windows are the file's own pixels."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from made_rasters import PAD

from service.raster import RasterOptions, open_raster

SCENES = Path(__file__).resolve().parents[3] / "shared" / "data" / "scenes"
pytestmark = pytest.mark.skipif(not SCENES.is_dir(), reason="needs ../shared/data/scenes")
EXPECTED = {  # EPSG, cm a pixel, whether the corner at the top left holds data
    "geo-hro-colorado.tif": (26913, 15.0, True),
    "geo-naip-rgbn-5m.tif": (26914, 500.2, True),
    "geo-neon-OSBS_029-rgb-0.1m.tif": (32617, 10.0, True),
    "geo-pix4d-alpha.tif": (32750, 35.3, False),
    "geo-rasterio-RGB.byte.tif": (32618, 30_020, False),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_windows_are_the_pixels_of_the_file(name: str) -> None:
    with rasterio.open(SCENES / name) as dataset:
        stored = dataset.read([1, 2, 3]).transpose(1, 2, 0)
        valid = dataset.dataset_mask() > 0
    with open_raster(SCENES / name, RasterOptions(), PAD) as raster:
        tile = raster.read(50, 60, 320, 160).pixels
    expected = np.where(valid[..., None], stored, PAD)[60:220, 50:370]
    assert np.array_equal(tile, expected)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_place_is_known(name: str) -> None:
    with rasterio.open(SCENES / name) as dataset, open_raster(SCENES / name, RasterOptions(), PAD) as raster:
        assert raster.georeference is not None
        corner = raster.georeference.to_crs(np.array([[dataset.width, dataset.height]]))
        assert raster.georeference.epsg == EXPECTED[name][0]
        assert np.allclose(corner, [(dataset.bounds.right, dataset.bounds.bottom)])


@pytest.mark.parametrize("name", EXPECTED)
def test_the_ground_resolution_is_known(name: str) -> None:
    with open_raster(SCENES / name, RasterOptions(), PAD) as raster:
        assert raster.georeference is not None
        found = raster.georeference.ground_resolution_cm(raster.width, raster.height)
    assert found == pytest.approx(EXPECTED[name][1], rel=0.02)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_empty_corner_is_known(name: str) -> None:
    with open_raster(SCENES / name, RasterOptions(), PAD) as raster:
        assert raster.read(0, 0, 8, 8).valid is EXPECTED[name][2]
