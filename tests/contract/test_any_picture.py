"""Pictures of any size, mode, depth and format: served in the frame a person sees, or refused in clear words."""

from io import BytesIO
from typing import Any

import httpx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

MODES_OF = {
    "JPEG": ("1", "L", "RGB", "CMYK", "YCbCr"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "WEBP": ("L", "RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "GIF": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"),
}
DEPTHS = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
SIDEWAYS = range(5, 9)


@st.composite
def drawn_pictures(draw: st.DrawFn) -> tuple[bytes, tuple[int, int]]:
    """A file, and the width and height that a person sees."""
    kind, mode = draw(st.sampled_from([(kind, mode) for kind, modes in MODES_OF.items() for mode in modes]))
    width, height = draw(st.integers(1, 400)), draw(st.integers(1, 400))
    noise = np.random.default_rng(draw(st.integers(0, 99)))
    options: dict[str, Any] = {}
    orientation = draw(st.integers(1, 8)) if kind == "JPEG" else 1
    if orientation > 1:
        options["exif"] = exif = Image.Exif()
        exif[0x0112] = orientation
    buffer = BytesIO()
    _draw(noise, mode, width, height).save(buffer, kind, **options)
    return buffer.getvalue(), (height, width) if orientation in SIDEWAYS else (width, height)


def _draw(noise: np.random.Generator, mode: str, width: int, height: int) -> Image.Image:
    if dtype := DEPTHS.get(mode):
        values = noise.integers(0, 65536, (height, width)).astype(dtype)
        if mode == "F":
            values[noise.random((height, width)) < 0.1] = np.nan
            values[0, 0] = 1
        return Image.fromarray(values)
    image = Image.fromarray(noise.integers(0, 256, (height, width, 4), dtype=np.uint8))
    image.paste((255, 0, 0, 255), (0, 0, width // 2, height // 2))
    match mode:
        case "LAB":  # Pillow converts to it only through a colour profile
            return Image.merge("LAB", image.split()[:3])
        case "CMYK" | "YCbCr" | "P":
            return image.convert("RGB").convert(mode)
        case _:
            return image.convert(mode)


@given(drawn=drawn_pictures())
@settings(max_examples=60, deadline=None)
def test_any_picture_is_served_in_the_frame_a_person_sees(
    client: httpx.Client, drawn: tuple[bytes, tuple[int, int]]
) -> None:
    data, (width, height) = drawn
    answer = client.post("/detect", files={"file": data}, params={"threshold": 0.05})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["width"], body["height"]) == (width, height)
    for left, top, right, bottom in (item["box"] for item in body["detections"]):
        assert 0 <= left <= right <= width
        assert 0 <= top <= bottom <= height
