"""Where the pixels of a scene lie on the ground."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine
from rasterio._err import CPLE_BaseError  # raised as it is by some transformations
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.warp import transform as transform_coordinates

from service.picture_orientation import Orientation

Points = NDArray[np.float64]
_WGS84 = CRS.from_epsg(4326)
_EQUATOR_RADIUS_M, _ECCENTRICITY_2 = 6378137.0, 0.00669437999014  # WGS 84
_LEAST_AREA = 1e-24  # CRS units squared; a pixel of less has lost a dimension


@dataclass(frozen=True)
class Georeference:
    """From positions on the picture as shown, in pixels from its top-left corner, to a map.

    Attributes:
        crs_wkt: the coordinate reference system.
        transform: (x, y) in pixels to (x, y) in that system: east before north, longitude before latitude.
    """

    crs_wkt: str
    transform: Affine

    @cached_property
    def _crs(self) -> CRS:
        return CRS.from_wkt(self.crs_wkt)

    @cached_property
    def epsg(self) -> int | None:
        """The system's number in the EPSG register, where it has one."""
        return self._crs.to_epsg()

    def to_crs(self, points: NDArray[np.floating]) -> Points:
        """Map (N, 2) pixel positions to (N, 2) coordinates of the file's own system."""
        t = self.transform
        matrix = np.array([[t.a, t.d], [t.b, t.e]], dtype=np.float64)
        return points.astype(np.float64) @ matrix + (t.c, t.f)

    def to_lonlat(self, points: NDArray[np.floating]) -> Points:
        """Map (N, 2) pixel positions to (N, 2) degrees of longitude and latitude (WGS 84)."""
        if not len(points):
            return np.zeros((0, 2))
        x, y = self.to_crs(points).T
        return np.array(transform_coordinates(self._crs, _WGS84, x, y)[:2]).T  # (2, N) -> (N, 2)

    def ground_resolution_cm(self, width: int, height: int) -> float:
        """Side in centimetres of a square as large as the pixel in the middle of a width x height px picture.

        Measured on the ellipsoid, so that it holds for degrees, feet and Mercator's stretched metres alike.
        """
        middle = np.array([width / 2, height / 2])
        lonlat = np.radians(self.to_lonlat(middle + np.array([[0, 0], [1, 0], [0, 1]])))
        latitude = lonlat[0, 1]
        curvature = 1 - _ECCENTRICITY_2 * np.sin(latitude) ** 2
        north = _EQUATOR_RADIUS_M * (1 - _ECCENTRICITY_2) / curvature**1.5
        east = _EQUATOR_RADIUS_M * np.cos(latitude) / np.sqrt(curvature)
        turns = (lonlat[1:] - lonlat[0] + np.pi) % (2 * np.pi) - np.pi  # a pixel may lie across the date line
        sides = turns * (east, north)
        area = abs(sides[0, 0] * sides[1, 1] - sides[0, 1] * sides[1, 0])
        return 100 * float(np.sqrt(area))


def read_georeference(dataset: DatasetReader, orientation: Orientation) -> tuple[Georeference | None, tuple[str, ...]]:
    """Where a file says that it lies, with notes on what was assumed or is missing."""
    notes: tuple[str, ...] = ()
    transform: Affine | None = dataset.transform
    crs: CRS | None = dataset.crs
    control_points, control_crs = dataset.gcps
    if control_points and dataset.transform.is_identity:
        crs = control_crs
        transform, notes = _fit(control_points)
    if transform is None or transform.is_identity:
        return None, (*notes, "the file does not say where it lies: boxes are in pixels only")
    if crs is None or not crs.to_wkt():
        return None, (*notes, "the file names no coordinate reference system: boxes are in pixels only")
    if abs(transform.determinant) < _LEAST_AREA:
        return None, (*notes, "the file's georeference makes its pixels lines or points: boxes are in pixels only")
    width, height = orientation.shown_size(dataset.width, dataset.height)
    georeference = Georeference(crs.to_wkt(), transform @ orientation.to_stored(width, height))
    if not _reaches_lonlat(georeference, width, height):
        return None, (*notes, "the file's place on the map has no longitude and latitude: boxes are in pixels only")
    return georeference, notes


def _fit(control_points: Sequence[GroundControlPoint]) -> tuple[Affine | None, tuple[str, ...]]:
    """The affine map that lies nearest to ground control points, and how far it misses them."""
    on_map = np.array([(point.x, point.y) for point in control_points], dtype=np.float64)
    pixels = np.array([(point.col, point.row, 1) for point in control_points], dtype=np.float64)
    matrix, _, rank, _ = np.linalg.lstsq(pixels, on_map)  # (M, 3) @ (3, 2) -> (M, 2)
    if rank < 3:
        return None, (f"the file's {len(control_points)} ground control points lie on a line and place nothing",)
    transform = Affine(*matrix.T.ravel())
    misses = np.sum((pixels @ matrix - on_map) ** 2, axis=1) / max(abs(transform.determinant), _LEAST_AREA)  # in px
    note = (
        f"placed by {len(control_points)} ground control points, "
        f"which the fitted map misses by {np.sqrt(misses.mean()):.2g} px (root mean square)"
    )
    return transform, (note,)


def _reaches_lonlat(georeference: Georeference, width: int, height: int) -> bool:
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]])
    try:
        lonlat = georeference.to_lonlat(corners)
    except (RasterioError, CPLE_BaseError):
        return False
    return bool(np.isfinite(lonlat).all() and (np.abs(lonlat) <= (360, 90)).all())
