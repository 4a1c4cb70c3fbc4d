"""Any picture becomes 8-bit RGB as a person sees it."""

import logging
import subprocess
import sys
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.errors import PictureTooLargeError, UndecodableImageError
from service.imaging import decode_picture, silence_pillow_warnings

LIMIT = 1_000_000


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes, background: int = 0) -> np.ndarray:
    picture = decode_picture(data, LIMIT, background).image
    assert picture.mode == "RGB"
    return np.asarray(picture)


def test_rgb_is_returned_as_it_is() -> None:
    image = Image.effect_noise((17, 9), 50).convert("RGB")
    assert np.array_equal(pixels(encode(image)), np.asarray(image))


def test_grey_is_the_same_in_all_channels() -> None:
    assert pixels(encode(Image.new("L", (3, 2), 77))).tolist() == [[[77, 77, 77]] * 3] * 2


def test_one_bit_is_black_and_white() -> None:
    assert pixels(encode(Image.new("1", (1, 1), 1)))[0, 0].tolist() == [255, 255, 255]


def test_a_palette_is_resolved() -> None:
    image = Image.new("RGB", (4, 4), (10, 200, 30)).quantize(4)
    assert pixels(encode(image))[0, 0].tolist() == [10, 200, 30]


def test_transparent_parts_show_the_background() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    assert pixels(encode(image), background=114).tolist() == [[[114] * 3, [255, 0, 0]]]
    assert decode_picture(encode(image), LIMIT).notes == ("transparent parts are treated as no data",)


def test_a_transparent_palette_entry_shows_the_background() -> None:
    image = Image.new("P", (1, 1), 0)
    image.putpalette([9, 9, 9, 200, 0, 0])
    assert pixels(encode(image, transparency=0), background=50)[0, 0].tolist() == [50, 50, 50]


def test_an_opaque_alpha_channel_is_not_worth_a_note() -> None:
    assert decode_picture(encode(Image.new("RGBA", (2, 2), (1, 2, 3, 255))), LIMIT).notes == ()


def test_grey_with_alpha_is_composed() -> None:
    assert pixels(encode(Image.new("LA", (1, 1), (200, 0))), background=7)[0, 0].tolist() == [7, 7, 7]


def test_cmyk_becomes_rgb() -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert pixels(encode(red, "TIFF"))[0, 0].tolist() == [255, 0, 0]
    assert pixels(encode(red, "JPEG"))[0, 0] == pytest.approx([255, 0, 0], abs=3)


def test_lab_becomes_rgb() -> None:
    white = Image.new("LAB", (2, 2), (255, 128, 128))
    assert pixels(encode(white, "TIFF"))[0, 0] == pytest.approx([255, 255, 255], abs=3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_proportions(kind: str) -> None:
    values = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    data = encode(Image.fromarray(values), kind)
    assert np.array_equal(pixels(data)[..., 0].ravel(), np.arange(256))
    assert decode_picture(data, LIMIT).notes == ("16-bit grey values were reduced to 8 bits",)


def test_12_bit_values_in_16_bits_do_not_come_out_black() -> None:
    values = np.array([[0, 2048, 4095]], dtype=np.uint16)
    assert pixels(encode(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]


def test_negative_integers_are_black() -> None:
    values = np.array([[-5, 0, 200]], dtype=np.int32)
    assert pixels(encode(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 0, 200]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([-10.0, 0.0, 10.0], [0, 128, 255]),
    ],
)
def test_floats_are_mapped_by_their_range(values: list[float], expected: list[int]) -> None:
    data = encode(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF")
    assert pixels(data)[0, :, 0].tolist() == expected


def test_nan_is_no_data() -> None:
    values = np.array([[np.nan, 0.0, np.inf, 1.0]], dtype=np.float32)
    assert pixels(encode(Image.fromarray(values), "TIFF"), background=114)[0, :, 0].tolist() == [
        114,
        0,
        114,
        255,
    ]


def test_a_float_image_without_a_number_is_undecodable() -> None:
    with pytest.raises(UndecodableImageError, match="finite"):
        decode_picture(encode(Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)), "TIFF"), LIMIT)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG", "WEBP"])
def test_the_orientation_tag_is_applied_once(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_picture(encode(Image.new("RGB", (30, 20)), kind, exif=exif), LIMIT).image.size == (20, 30)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_the_first_of_several_frames_is_used(kind: str) -> None:
    first, second = Image.new("RGB", (8, 8), "white"), Image.new("RGB", (8, 8), "black")
    picture = decode_picture(encode(first, kind, save_all=True, append_images=[second]), LIMIT)
    assert picture.image.getpixel((0, 0)) == (255, 255, 255)
    assert picture.notes == (f"this {kind} holds several pictures; the first one was used",)


def test_the_pixel_limit_comes_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Image.new("RGB", (100, 101)))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("the picture was decoded"))
    with pytest.raises(PictureTooLargeError, match=r"100 x 101 px = 10,100 px; the limit is 10,000 px"):
        decode_picture(data, 10_000)


def test_a_picture_at_the_limit_is_taken() -> None:
    assert decode_picture(encode(Image.new("RGB", (100, 100))), 10_000).image.size == (100, 100)


@pytest.mark.parametrize("size", [(1, 300_000), (300_000, 1), (700, 500)])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_picture_of_several_blocks_has_no_seams(size: tuple[int, int], dtype: type) -> None:
    eight_bit = (np.arange(size[0] * size[1]) % 256).reshape(size[1], size[0])
    values = (eight_bit * 257 if dtype is np.uint16 else eight_bit).astype(dtype)
    assert np.array_equal(pixels(encode(Image.fromarray(values), "TIFF"))[..., 0], eight_bit)


def test_a_damaged_upload_leaves_no_word_of_pillow_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    sound = encode(Image.new("L", (2, 2)), "TIFF", tiffinfo={277: 1})
    entry = sound.index(b"\x15\x01\x03\x00")  # samples per pixel, a number of 16 bits
    pillow, level = logging.getLogger("PIL"), logging.getLogger("PIL").level
    try:
        with warnings.catch_warnings():
            silence_pillow_warnings()
            with pytest.raises(UndecodableImageError):
                decode_picture(sound[: entry + 8] + b"\x80" + sound[entry + 9 :], LIMIT)
    finally:
        pillow.setLevel(level)
    assert not caplog.records


MEASURE = """
import re, sys
from pathlib import Path
from service.imaging import decode_picture, silence_pillow_warnings

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

small, large = (Path(name).read_bytes() for name in sys.argv[1:])
decode_picture(small, 10**8)
before = peak()
width, height = decode_picture(large, 10**8).image.size
print((peak() - before) / (width * height))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize(("dtype", "kind", "limit"), [(np.uint16, "PNG", 8), (np.float32, "TIFF", 10)])
def test_a_deep_picture_costs_a_few_bytes_a_pixel(tmp_path: Path, dtype: type, kind: str, limit: int) -> None:
    """Pillow's own picture takes 2 or 4 bytes a pixel, and its RGB takes 4."""
    options = {"compress_level": 1} if kind == "PNG" else {"compression": "tiff_lzw"}
    for name, side in (("small", 600), ("large", 4000)):
        values = np.broadcast_to(np.arange(side, dtype=dtype), (side, side))
        (tmp_path / name).write_bytes(encode(Image.fromarray(np.ascontiguousarray(values)), kind, **options))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large")]
    measured = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert float(measured.stdout) < limit
