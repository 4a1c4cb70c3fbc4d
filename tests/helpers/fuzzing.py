"""Damaged pictures for a running service.

    python tests/helpers/fuzzing.py --inputs 10000 --pictures FOLDER http://127.0.0.1:8000

Each input is one or two sound pictures, damaged one to three times, sent to POST /detect as a form or as raw bytes. It
depends on nothing but the seed, its number and the sound pictures, so any one can be made again.
"""

import argparse
import random
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from metrics_page import samples

SIZE = (96, 64)
REAL_SIDE = 160
PNG_START = b"\x89PNG\r\n\x1a\n"
BOUNDARIES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
RESIDENT = "process_resident_memory_bytes"


@dataclass
class Outcome:
    """What a service answered to damaged pictures; resident memory in bytes."""

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)  # number, status and text of each 5xx
    slowest_seconds: float = 0.0
    resident: list[int] = field(default_factory=list)  # before, every 500 inputs, after

    def note(self, number: int, answer: httpx.Response) -> None:
        self.statuses[answer.status_code] += 1
        self.slowest_seconds = max(self.slowest_seconds, answer.elapsed.total_seconds())
        if answer.status_code >= 500:
            self.failures.append(f"input {number}: {answer.status_code} {answer.text[:300]}")


def made_pictures() -> list[bytes]:
    """A small picture in each format taken, in the ways to store one that readers treat differently."""
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 4), dtype=np.uint8)
    rgba = Image.fromarray(noise)
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    rgb.paste((255, 0, 0), (0, 0, 64, 48))
    deep, real = (
        Image.fromarray(noise[..., 0].astype(np.uint16) * 257),
        Image.fromarray(noise[..., 0] / np.float32(255)),
    )
    several: dict[str, Any] = {"save_all": True, "append_images": [rgb.rotate(90)]}
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        encode(rgb, "JPEG", exif=exif),
        encode(rgb, "JPEG", progressive=True, restart_marker_rows=1),
        encode(rgb.convert("CMYK"), "JPEG"),
        encode(rgb, "PNG", exif=exif),
        encode(rgba, "PNG"),
        encode(deep, "PNG"),
        encode(rgb.quantize(16), "PNG", transparency=3),
        encode(rgb, "WEBP"),
        encode(rgba, "WEBP", lossless=True),
        encode(rgb, "WEBP", **several),
        encode(rgb, "BMP"),
        encode(rgb.quantize(16), "BMP"),
        encode(rgb, "GIF"),
        encode(rgb, "GIF", **several),
        encode(rgb, "TIFF"),
        encode(rgb, "TIFF", **several),
        encode(rgb, "TIFF", compression="jpeg"),
        encode(rgb, "TIFF", big_tiff=True),
        encode(deep, "TIFF", compression="tiff_lzw"),
        encode(real, "TIFF", compression="tiff_adobe_deflate"),
        encode(grey.convert("1"), "TIFF", compression="group4"),
    ]


def real_pictures(folder: Path, most: int = 5) -> list[bytes]:
    """The first pictures of a folder, made small, with the tags they came with."""
    scaled: list[bytes] = []
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png", ".tif"))[:most]:
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((REAL_SIDE, REAL_SIDE))
            scaled.append(encode(small, image.format or "PNG", exif=image.getexif()))
    return scaled


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def damaged(seed: int, number: int, pictures: Sequence[bytes]) -> bytes:
    """Input of this number."""
    chance = random.Random(f"{seed}/{number}")
    data = chance.choice(pictures)
    for _ in range(chance.randint(1, 3)):
        data = chance.choice(DAMAGE)(chance, data, pictures)
    return mend_png(data) if chance.random() < 0.5 else data


def flip_bits(chance: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 16)):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut_off(chance: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    return data[: chance.randint(0, len(data))]


def swap_blocks(chance: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    size = chance.randint(1, 256)
    if len(data) < 2 * size:
        return data
    first = chance.randint(0, len(data) - 2 * size)
    second = chance.randint(first + size, len(data) - size)
    blocks = data[first : first + size], data[second : second + size]
    return data[:first] + blocks[1] + data[first + size : second] + blocks[0] + data[second + size :]


def edit_length(chance: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    """Write a number at the edge of its type, in either byte order; most lengths and counts lie in the first bytes."""
    order, kind = chance.choice("<>"), chance.choice("HI")
    size = struct.calcsize(kind)
    within = len(data) if chance.random() < 0.3 else min(len(data), 300)
    at = chance.randint(0, max(0, within - size))
    value = chance.choice((*BOUNDARIES, len(data), len(data) + 1)) % 256**size
    return data[:at] + struct.pack(order + kind, value) + data[at + size :]


def splice(chance: random.Random, data: bytes, pictures: Sequence[bytes]) -> bytes:
    other = chance.choice(pictures)
    return data[: chance.randint(0, len(data))] + other[chance.randint(0, len(other)) :]


DAMAGE: tuple[Callable[[random.Random, bytes, Sequence[bytes]], bytes], ...] = (
    flip_bits,
    cut_off,
    swap_blocks,
    edit_length,
    splice,
)


def mend_png(data: bytes) -> bytes:
    """Make the checksums of a PNG right again: without this, damage ends there and never reaches the decoder."""
    if not data.startswith(PNG_START):
        return data
    mended, at = bytearray(data), len(PNG_START)
    while at + 12 <= len(mended):
        end = at + 8 + int.from_bytes(mended[at : at + 4], "big")
        if end + 4 > len(mended):
            break
        mended[end : end + 4] = zlib.crc32(mended[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(mended)


def send_damaged(
    client: httpx.Client,
    pictures: Sequence[bytes],
    inputs: int,
    seed: int = 0,
    progress: Callable[[int, Outcome], None] = lambda *_: None,
) -> Outcome:
    """Send that many damaged pictures, one after the other."""
    outcome = Outcome(resident=[resident_bytes(client)])
    for number in range(inputs):
        data = damaged(seed, number, pictures)
        form: dict[str, Any] = {"files": {"file": data}}
        raw: dict[str, Any] = {"content": data, "headers": {"Content-Type": "application/octet-stream"}}
        outcome.note(number, client.post("/detect", **(form if number % 2 else raw)))
        if number % 500 == 499:
            outcome.resident.append(resident_bytes(client))
            progress(number + 1, outcome)
    outcome.resident.append(resident_bytes(client))
    return outcome


def resident_bytes(client: httpx.Client) -> int:
    """Memory of the service, as it tells itself."""
    return int(samples(client.get("/metrics").raise_for_status().text)[RESIDENT])


def main() -> int:
    """Send, print what came back; 1 if anything was a 5xx."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="address of a running service")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=Path, help="folder with real pictures, to be damaged beside the made ones")
    options = parser.parse_args()
    pictures = made_pictures() + (real_pictures(options.pictures) if options.pictures else [])
    begun = time.perf_counter()
    with httpx.Client(base_url=options.url, timeout=60) as client:
        outcome = send_damaged(client, pictures, options.inputs, options.seed, _show)
    print(f"\n{options.inputs} inputs from {len(pictures)} pictures, seed {options.seed}", end=", ")
    print(f"{time.perf_counter() - begun:.0f} s, slowest answer {outcome.slowest_seconds:.2f} s")
    print(f"statuses {dict(sorted(outcome.statuses.items()))}")
    print(*outcome.failures, sep="\n")
    return 1 if outcome.failures else 0


def _show(sent: int, outcome: Outcome) -> None:
    resident = ", ".join(f"{count / 1e6:.0f}" for count in (outcome.resident[0], outcome.resident[-1]))
    print(f"\r{sent} sent, {len(outcome.failures)} failures, resident MB before, now: {resident} ", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
