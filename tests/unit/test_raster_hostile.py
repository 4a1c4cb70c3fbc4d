"""Files that lead astray, exhaust memory or are damaged: refused with a reason, and nothing beside them is read."""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from made_rasters import PAD, noise, read_whole, write_tiff
from PIL import Image
from tiff_lies import LIES, tiff

from service.errors import PictureTooLargeError, ServiceError, UndecodableImageError, UnsupportedTypeError
from service.raster import RasterOptions, open_raster
from service.raster_checks import RasterLimits

VRT = """<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename>{}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Where a fetch would knock."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def knocked(listening: socket.socket) -> bool:
    try:
        listening.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize("name", ["a.tif", "a.vrt", "a.png"])
def test_a_vrt_is_refused_under_any_name_and_fetches_nothing(
    tmp_path: Path, listener: socket.socket, name: str
) -> None:
    (tmp_path / name).write_text(VRT.format(f"/vsicurl/http://127.0.0.1:{listener.getsockname()[1]}/a.tif"))
    with pytest.raises(UnsupportedTypeError, match="the content is not one of"):
        read_whole(tmp_path / name)
    assert not knocked(listener)


@pytest.mark.parametrize("elsewhere", ["http", "file"])
def test_a_tiff_that_names_its_overviews_elsewhere_is_refused(
    tmp_path: Path, listener: socket.socket, elsewhere: str
) -> None:
    other = write_tiff(tmp_path / "other.tif", noise(300, 300))
    address = f"/vsicurl/http://127.0.0.1:{listener.getsockname()[1]}/a.tif" if elsewhere == "http" else str(other)
    path = write_tiff(tmp_path / "a.tif", noise(600, 600), tags={"OVERVIEWS": {"OVERVIEW_FILE": address}})
    with pytest.raises(UnsupportedTypeError, match="names another file for its overviews"):
        read_whole(path)
    assert not knocked(listener)


def test_a_path_like_gdals_own_is_only_a_path(tmp_path: Path) -> None:
    with pytest.raises(UndecodableImageError, match="cannot be read: No such file"):
        read_whole(Path("/vsicurl/http://127.0.0.1:9/a.tif"))


def test_what_lies_beside_a_tiff_is_not_read(tmp_path: Path) -> None:
    values = noise(300, 300)
    path = write_tiff(tmp_path / "a.tif", values)
    write_tiff(tmp_path / "a.tif.ovr", np.zeros((150, 150, 3), dtype=np.uint8))
    write_tiff(tmp_path / "a.tif.msk", np.zeros((300, 300, 1), dtype=np.uint8))
    (tmp_path / "a.tfw").write_text("2\n0\n0\n-2\n100\n100\n")
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:32631</SRS><GeoTransform>0, 1, 0, 0, 0, -1</GeoTransform></PAMDataset>"
    )
    with open_raster(path, RasterOptions(), PAD) as raster:
        assert raster.georeference is None
        assert np.array_equal(raster.read(0, 0, 300, 300).pixels, values)


@pytest.mark.parametrize(("name", "world"), [("a.jpg", "a.jgw"), ("a.png", "a.pgw"), ("a.png", "a.wld")])
def test_a_world_file_beside_a_picture_is_not_read(tmp_path: Path, name: str, world: str) -> None:
    Image.fromarray(noise(20, 30)).save(tmp_path / name)
    (tmp_path / world).write_text("2\n0\n0\n-2\n100\n100\n")
    (tmp_path / f"{name}.aux.xml").write_text("<PAMDataset><SRS>EPSG:32631</SRS></PAMDataset>")
    with open_raster(tmp_path / name, RasterOptions(), PAD) as raster:
        assert raster.georeference is None


def test_nothing_is_written_beside_the_file(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(60, 80, dtype="uint16"))
    read_whole(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_giant_block_is_named_with_the_limit_and_the_way_out(tmp_path: Path) -> None:
    path = write_tiff(
        tmp_path / "a.tif", np.zeros((64, 64, 3), np.uint8), tiled=True, blockxsize=16384, blockysize=16384,
        compress="deflate", SPARSE_OK=True,
    )  # fmt: skip
    with pytest.raises(
        PictureTooLargeError, match=r"16,384 x 16,384 px.*805,306,368 bytes.*67,108,864.*gdal_translate -co TILED=YES"
    ):
        read_whole(path)


def test_a_giant_block_of_a_later_directory_is_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(64, 64))
    limits = RasterLimits(max_block_bytes=64 * 64 * 3)
    with open_raster(write_tiff(path, noise(64, 64)), RasterOptions(), PAD, limits):
        pass
    Image.fromarray(noise(64, 64)).save(
        path, save_all=True, append_images=[Image.fromarray(noise(128, 128))], compression="tiff_adobe_deflate"
    )
    with pytest.raises(PictureTooLargeError, match="one block"), open_raster(path, RasterOptions(), PAD, limits):
        pass


@pytest.mark.parametrize("side", [200_000, 250_000])
def test_a_sparse_giant_is_refused_soon(tmp_path: Path, side: int) -> None:
    import rasterio

    shape = {"width": side, "height": side, "count": 1, "dtype": "uint8"}
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512, "SPARSE_OK": True, "BIGTIFF": "YES"}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", crs="EPSG:4326",
                       transform=rasterio.Affine(1e-6, 0, 0, 0, -1e-6, 0), **shape, **tiles):  # fmt: skip
        pass
    begun = time.monotonic()
    with pytest.raises(PictureTooLargeError, match=r"(200,000|250,000).*gdal_translate -srcwin"):
        read_whole(tmp_path / "a.tif")
    assert time.monotonic() - begun < 2


def test_too_many_blocks_are_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(64, 64), tiled=True, blockxsize=16, blockysize=16)
    with (
        pytest.raises(PictureTooLargeError, match="16 blocks of 16 x 16 px; the limit is 15"),
        open_raster(path, RasterOptions(), PAD, RasterLimits(max_blocks=15)),
    ):
        pass


@pytest.mark.parametrize("options", [{"progressive": True}, {"exif": 6}], ids=["progressive", "sideways"])
def test_what_must_be_decoded_whole_has_a_limit(tmp_path: Path, options: dict) -> None:
    if "exif" in options:
        options = {"exif": Image.Exif()}
        options["exif"][0x0112] = 6
    Image.fromarray(noise(64, 64)).save(tmp_path / "a.jpg", **options)
    with (
        pytest.raises(PictureTooLargeError, match="can only be decoded whole, which takes 16,384 bytes"),
        open_raster(tmp_path / "a.jpg", RasterOptions(), PAD, RasterLimits(max_whole_bytes=16_000)),
    ):
        pass


@pytest.mark.parametrize("dtype", ["uint32", "int32", "complex64", "int8"])
def test_other_types_of_values_are_named(tmp_path: Path, dtype: str) -> None:
    path = write_tiff(tmp_path / "a.tif", np.zeros((8, 8, 1), dtype=dtype))
    with pytest.raises(UnsupportedTypeError, match=f"values are {dtype}; the types taken are uint8"):
        read_whole(path)


@pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(40), b"%PDF-1.7"], ids=["empty", "gif", "pdf"])
def test_other_formats_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises((UnsupportedTypeError, UndecodableImageError)):
        read_whole(tmp_path / "a.tif")


@pytest.mark.parametrize("lie", LIES)
def test_a_directory_that_lies_is_refused_as_ours(tmp_path: Path, lie: str) -> None:
    (tmp_path / "a.tif").write_bytes(LIES[lie])
    with pytest.raises(ServiceError):
        read_whole(tmp_path / "a.tif")


@pytest.mark.parametrize("following", [8 + 64, 2**31], ids=["itself", "beyond the end"])
def test_a_next_directory_that_lies_does_not_spoil_the_first(tmp_path: Path, following: int) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(following=following))
    assert read_whole(tmp_path / "a.tif").pixels.shape == (8, 8, 3)


def read_by_windows(path: Path) -> None:
    with open_raster(path, RasterOptions(), PAD) as raster:
        for top in range(0, 300, 50):
            raster.read(0, top, 100, 50)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.99])
def test_a_file_cut_off_is_refused_when_it_is_opened_or_read(tmp_path: Path, name: str, share: float) -> None:
    Image.fromarray(noise(300, 200)).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ServiceError):
        read_by_windows(tmp_path / name)


def test_damage_that_is_met_late_is_an_error_of_ours_without_the_folder(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(64, 64), tiled=True, blockxsize=16, blockysize=16, compress="deflate")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 900] = bytes(900)
    path.write_bytes(data)
    with pytest.raises(UndecodableImageError, match=r"a.tif cannot be decoded") as caught:
        read_whole(path)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("seed", range(60))
def test_flipped_bytes_give_a_picture_or_an_error_of_ours(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    name = ("a.tif", "b.tif", "a.png", "a.jpg")[seed % 4]
    path = tmp_path / name
    if name == "b.tif":
        write_tiff(path, noise(64, 64), crs="EPSG:32631", nodata=0, compress="jpeg", overviews=[2])
    else:
        Image.fromarray(noise(64, 64)).save(path, **({"compression": "tiff_lzw"} if name == "a.tif" else {}))
    data = bytearray(path.read_bytes())
    headers = np.r_[: min(300, len(data)), max(0, len(data) - 300) : len(data)]
    for place in random.choice(headers, 6):
        data[place] = random.integers(256)
    path.write_bytes(data)
    with contextlib.suppress(ServiceError):
        read_whole(path)


def test_a_cut_scene_does_not_turn_grey_on_a_second_look(tmp_path: Path) -> None:
    Image.fromarray(noise(300, 200)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with open_raster(tmp_path / "a.jpg", RasterOptions(), PAD) as raster:
        for _ in range(3):
            with pytest.raises(UndecodableImageError):
                raster.read(0, 200, 100, 100)
