"""What it costs to keep a result: its size by part, packing and unpacking, and a round trip to Redis.

    redis-server --port 6399 --save "" &
    python benchmarks/store.py service/models/nano-nwpu/5 --images FOLDER --redis redis://127.0.0.1:6399

Times are medians over all pictures and rounds. The event loop's lag is how much later than asked a task that sleeps
for a millisecond wakes up, while results are put one after the other; it is told for an idle loop too.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.book_result import Row, write_rows
from benchmarks.peer_report import Spread
from service.analysis import Analysis, keep_heat, read_heat
from service.heatmap import CHANNELS, HeatLayer, combine_levels, render_overlay, shrink_to_view
from service.imaging import decode_picture
from service.letterbox import FloatArray, Letterbox
from service.loading import load_model
from service.packing import pack_result, unpack_result
from service.predictor import Predictor
from service.redis_store import RedisStore
from service.settings import Settings

TTL_SECONDS, PATIENCE_SECONDS, MAX_BYTES, TICK_SECONDS = 60, 5, 2**27, 0.001


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the figures where asked."""
    options = _parser().parse_args(arguments)
    folder = options.model_dir.resolve()
    settings = Settings(models=folder.parents[1], model=f"{folder.parent.name}/{folder.name}", threads=1)
    predictor = load_model(settings).predictor
    uploads = [path.read_bytes() for path in sorted(options.images.iterdir())[: options.count]]
    results = [predictor.analyse(upload) for upload in uploads]
    print(f"{len(results)} pictures, {options.rounds} rounds; medians")
    rows = [*report_sizes(results), report_drawing(predictor, settings, uploads)]
    heat = [[read_heat(level) for level in (*result.maps.class_heat, *result.maps.heat)] for result in results]
    kept = [timed(lambda levels=levels: list(map(keep_heat, levels))) for levels in heat * options.rounds]
    rows.append(report("keep heat", kept))
    packed = [pack_result(result) for result in results]
    packing = [timed(lambda result=result: pack_result(result)) for result in results * options.rounds]
    unpacking = [timed(lambda value=value: unpack_result(value)) for value in packed * options.rounds]
    rows += [report("pack", packing), report("unpack", unpacking)]
    if options.redis:
        rows += asyncio.run(measure_redis(options.redis, results, options.rounds))
    if options.json:
        write_rows(options.json, rows)


def report_sizes(results: Sequence[Analysis]) -> list[Row]:
    """Bytes of each part, as kept and as the engine gives them."""
    maps = [result.maps for result in results]
    parts = {
        "upload": [len(result.upload) for result in results],
        "class heat": [sum(level.nbytes for level in each.class_heat) for each in maps],
        "other heat": [sum(level.nbytes for level in each.heat) for each in maps],
        "density": [each.density.nbytes for each in maps],
        "boxes and scores": [result.boxes.nbytes + result.scores.nbytes for result in results],
        "packed": [len(pack_result(result)) for result in results],
    }
    for name, sizes in parts.items():
        print(f"{name:>18}: {np.median(sizes) / 1000:9.1f} kB")
    return [Row.of(f"a kept result: {name}", Spread.of(np.array(sizes) / 1000), "kB") for name, sizes in parts.items()]


def report_drawing(predictor: Predictor, settings: Settings, uploads: Sequence[bytes]) -> Row:
    """How far pictures drawn from kept heat are from those drawn from what the engine gives."""
    spec = predictor.manifest.input
    differences = []
    for upload in uploads:
        picture = decode_picture(upload, settings.max_pixels, spec.pad_value).image
        frame = Letterbox.fit(*picture.size, spec.size)
        exact = [level[0] for level in predictor.engine.encode(frame.draw(picture, spec.pad_value)[None]).heat]
        view = shrink_to_view(picture, settings.view_side)
        kept = [read_heat(keep_heat(level)) for level in exact]
        drawn = [draw(view, levels, predictor.manifest.strides[0], frame) for levels in (exact, kept)]
        differences.append(np.abs(drawn[0] - drawn[1]))
    most = max(int(difference.max()) for difference in differences)
    share = float(np.mean([(difference > 0).mean() for difference in differences]))
    print(f"{'drawn from it':>18}: {share:.3%} of all values differ, by at most {most} of 255")
    return Row(claim=f"values drawn from kept heat that differ, by at most {most} of 255", value=100 * share, unit="%")


def draw(view: Image.Image, levels: Sequence[FloatArray], stride: int, frame: Letterbox) -> np.ndarray:
    """The mixed heat over a picture; (h, w, 3)."""
    mixed = combine_levels([level[CHANNELS["mixed"]] for level in levels])
    return np.asarray(render_overlay(view, HeatLayer(mixed, stride, 1.0, ""), frame, 0.6, "turbo")).astype(int)


async def measure_redis(url: str, results: Sequence[Analysis], rounds: int) -> list[Row]:
    """Put and get every result, and watch the event loop meanwhile."""
    store = RedisStore(url, MAX_BYTES, TTL_SECONDS, PATIENCE_SECONDS)
    await store.put("benchmark", results[0])  # connects
    idle = await lag_during(lambda: asyncio.sleep(1))
    puts: list[float] = []
    gets: list[float] = []

    async def put_all() -> None:
        for result in list(results) * rounds:
            puts.append(await timed_async(store.put("benchmark", result)))

    busy = await lag_during(put_all)
    for result in list(results) * rounds:
        gets.append(await timed_async(store.get("benchmark", result.image_id)))
    await store.close()
    times = {"put in Redis": puts, "get from Redis": gets, "lag, idle loop": idle, "lag while putting": busy}
    return [report(name, milliseconds) for name, milliseconds in times.items()]


async def lag_during(work: Callable[[], Awaitable[None]]) -> list[float]:
    """Milliseconds that the event loop was late, over and over, until the work is done."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(TICK_SECONDS)
            late.append((time.perf_counter() - begun - TICK_SECONDS) * 1e3)

    ticking = asyncio.create_task(tick())
    await work()
    ticking.cancel()
    return late


def timed(work: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1e3


async def timed_async(work: Awaitable[object]) -> float:
    """Milliseconds until the work is done."""
    begun = time.perf_counter()
    await work
    return (time.perf_counter() - begun) * 1e3


def report(name: str, milliseconds: Sequence[float]) -> Row:
    """One line: median and the slow end."""
    median, slow = np.percentile(milliseconds, (50, 95))
    print(f"{name:>18}: {median:9.2f} ms, 95 % within {slow:.2f} ms")
    return Row.of(f"a kept result: {name}", Spread.of(np.array(milliseconds)), "ms")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path, help="<models>/<name>/<version>")
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--count", type=int, default=20, help="pictures taken (default 20)")
    parser.add_argument("--rounds", type=int, default=20, help="times each is packed, put and got (default 20)")
    parser.add_argument("--redis", default="", help="a Redis that may be written to, for the round trip")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    return parser


if __name__ == "__main__":
    main()
