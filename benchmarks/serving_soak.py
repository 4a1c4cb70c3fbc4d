"""Visitors of all kinds: every size, type and format, heat maps, mistakes, and clients that leave."""

import asyncio
import json
import random
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from io import BytesIO
from time import perf_counter

import numpy as np
from PIL import Image

from benchmarks.load import Address, Call, Connections, connected, get, upload
from benchmarks.serving_figures import BUSY, OK
from benchmarks.serving_pictures import Pictures

VISITORS = 3
MOST_SURPRISES = 20
FORMATS = ("json", "geojson", "coco", "supervision", "labelstudio", "yolo")
HEAT = (
    "kind=mixed",
    "kind=class",
    "kind=bbox&colormap=viridis",
    "kind=density&format=webp",
    "kind=mask&boxes=true",
    "kind=mixed&level=0&legend=false",
    "format=npy",
    "format=json",
)
LARGEST_SIDES = (4000, 3000)
SIZES = ((64, 64), (160, 100), (640, 640), (1024, 700), (33, 900), (1600, 1200), (2500, 1800))
Visit = Callable[["Visitors", Connections], Awaitable[None]]


class Visitors:
    """Several at once, each doing one thing after another, drawn at random from the same seed."""

    def __init__(self, address: Address, pictures: Pictures) -> None:
        self.calls: Counter[str] = Counter()
        self.surprises: list[str] = []
        self._address = address
        self._chance = random.Random(0)
        self._real = pictures.mixed(0)
        self._drawn = [
            upload(f"{mode} {kind} {width} x {height}", draw(width, height, mode, kind))
            for width, height in SIZES
            for mode, kind in (("RGB", "JPEG"), ("RGB", "PNG"), ("RGBA", "WEBP"), ("L", "BMP"), ("I;16", "TIFF"))
        ]
        self._largest = upload("12 megapixels", draw(*LARGEST_SIDES, "RGB", "JPEG"))
        self._mistakes = mistakes(next(self._real).picture)
        self._seen: list[str] = []

    async def come(self, seconds: float) -> None:
        """Visit for so long."""
        until = perf_counter() + seconds

        async def visitor(connections: Connections) -> None:
            while perf_counter() < until:
                (visit,) = self._chance.choices(_VISITS, _WEIGHTS)
                await visit(self, connections)

        async with connected(self._address, VISITORS) as connections, asyncio.TaskGroup() as visitors:
            for _ in range(VISITORS):
                visitors.create_task(visitor(connections))

    async def send_real(self, connections: Connections) -> None:
        """A real picture, and remember its id."""
        body = await self._send(connections, "real picture", next(self._real), OK)
        if body:
            self._seen = [*self._seen[-9:], json.loads(body)["image_id"]]

    async def send_drawn(self, connections: Connections) -> None:
        """Another size or type."""
        await self._send(connections, "drawn picture", self._chance.choice(self._drawn), OK)

    async def send_large(self, connections: Connections) -> None:
        """As large as cameras make them."""
        await self._send(connections, "12-megapixel picture", self._largest, OK)

    async def ask_format(self, connections: Connections) -> None:
        """Another format of the answer."""
        call = upload("", next(self._real).picture, f"/detect?format={self._chance.choice(FORMATS)}")
        await self._send(connections, "format", call, OK)

    async def look_at_heat(self, connections: Connections) -> None:
        """The heat of a picture sent before."""
        if self._seen:
            path = f"/heatmap?image_id={self._chance.choice(self._seen)}&{self._chance.choice(HEAT)}"
            await self._send(connections, "heat map", get("", path), OK)

    async def make_mistake(self, connections: Connections) -> None:
        """Something that is refused."""
        call, status = self._chance.choice(self._mistakes)
        await self._send(connections, "mistake", call, status)

    async def leave(self, connections: Connections) -> None:
        """Send a picture and go before the answer comes."""
        self.calls["left"] += 1
        await connections.abandon(next(self._real), self._chance.uniform(0, 0.2))

    async def _send(self, connections: Connections, name: str, call: Call, expected: int) -> bytes:
        status, body = await connections.call(call)
        self.calls[name if status == expected else f"{name}: {status}"] += 1
        if status not in (expected, BUSY) and len(self.surprises) < MOST_SURPRISES:
            self.surprises.append(f"{name} {call.kind}: {status} and not {expected}; {body[:200]!r}")
        return body if status == expected else b""


_VISITS: list[Visit] = [
    Visitors.send_real,
    Visitors.send_drawn,
    Visitors.send_large,
    Visitors.ask_format,
    Visitors.look_at_heat,
    Visitors.make_mistake,
    Visitors.leave,
]
_WEIGHTS = (30, 20, 2, 15, 15, 10, 8)


def draw(width: int, height: int, mode: str, kind: str) -> bytes:
    """A picture with content everywhere, as a file."""
    chance = np.random.default_rng(0)
    coarse = chance.integers(0, 256, (max(1, height // 4), max(1, width // 4), 4), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height))
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L"), dtype=np.uint16) * 16)
    elif mode != "RGBA":
        picture = picture.convert(mode)
    buffer = BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def mistakes(picture: bytes) -> list[tuple[Call, int]]:
    """Calls with the status that each must get."""
    return [
        (upload("cut", picture[: len(picture) // 2]), 400),
        (upload("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), 415),
        (upload("threshold", picture, "/detect?threshold=nan"), 422),
        (upload("unknown class", picture, "/detect?classes=dragon"), 422),
        (upload("bomb", bomb()), 413),
        (get("unknown picture", "/heatmap?image_id=00000000000000000000000000000000"), 404),
        (get("no such path", "/nothing"), 404),
    ]


def bomb() -> bytes:
    """A PNG that says it has 144 megapixels."""
    buffer = BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    small = buffer.getvalue()
    header = small[12:16] + (12_000).to_bytes(4, "big") * 2 + small[24:29]
    return small[:12] + header + zlib.crc32(header).to_bytes(4, "big") + small[33:]
