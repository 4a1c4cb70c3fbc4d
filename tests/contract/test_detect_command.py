"""`python -m service detect`: scenes from files to files, stopped and gone on with."""

import json
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from service.__main__ import main

SCENES = Path(__file__).parents[3] / "shared/data/scenes"
UTM = CRS.from_epsg(32633)
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 4_600_000)
SQUARES = [(64, 64, 96, 96), (320, 192, 352, 224)]  # red and blue; whole cells of the toy model
Draw = Callable[..., Image.Image]
Detect = Callable[..., int]


@pytest.fixture
def detect(toy_models: Path) -> Detect:
    """Run the command with the toy model."""

    def run(*arguments: object) -> int:
        return main(["detect", *map(str, arguments), "--models", str(toy_models)])

    return run


@pytest.fixture
def write_scene(tmp_path: Path, draw_scene: Draw) -> Callable[..., Path]:
    """Write a GeoTIFF of 480 x 360 px with two squares."""

    def write(name: str = "scene.tif", **profile: Any) -> Path:
        image = draw_scene(480, 360, (64, 64, 32, "red"), (320, 192, 32, "blue"))
        return write_tiff(tmp_path / name, np.asarray(image).transpose(2, 0, 1), **profile)

    return write


def write_tiff(path: Path, bands: np.ndarray, **profile: Any) -> Path:
    """Write (bands, h, w); placed in UTM zone 33 unless the profile says otherwise."""
    place = profile or {"crs": UTM, "transform": NORTH_UP}
    count, height, width = bands.shape
    with rasterio.open(
        path, "w", "GTiff", width, height, count, dtype=bands.dtype, tiled=True, blockxsize=128, blockysize=128, **place
    ) as raster:
        raster.write(bands)
    return path


def boxes_on_pixels(result: Path, crs: Any, transform: Affine) -> dict[str, list[float]]:
    """{label: extent in pixels} of a file as geopandas reads it."""
    frame = geopandas.read_file(result).to_crs(crs)
    corners = [(~transform) @ np.array(shape.exterior.coords.xy) for shape in frame.geometry]
    extents = [[x.min(), y.min(), x.max(), y.max()] for x, y in corners]
    return dict(zip(frame.label, extents, strict=True))


def assert_on_the_squares(found: dict[str, list[float]]) -> None:
    assert list(found) == ["red square", "blue square"]
    np.testing.assert_allclose(list(found.values()), SQUARES, atol=0.5)


@pytest.mark.parametrize("ending", ["geojson", "gpkg"])
@pytest.mark.parametrize("transform", [NORTH_UP, NORTH_UP @ Affine.rotation(33)])
def test_objects_land_on_their_pixels(
    detect: Detect, write_scene: Callable[..., Path], tmp_path: Path, ending: str, transform: Affine
) -> None:
    scene = write_scene(crs=UTM, transform=transform)
    assert detect(scene, "--out", tmp_path / f"r.{ending}") == 0
    assert_on_the_squares(boxes_on_pixels(tmp_path / f"r.{ending}", UTM, transform))


def test_in_a_scene_in_degrees_too(detect: Detect, write_scene: Callable[..., Path], tmp_path: Path) -> None:
    degrees = Affine(4e-6, 0, 12.5, 0, -3e-6, 41.9)
    assert detect(write_scene(crs=CRS.from_epsg(4326), transform=degrees), "--out", tmp_path / "r.gpkg") == 0
    assert geopandas.read_file(tmp_path / "r.gpkg").crs == "EPSG:4326"
    assert_on_the_squares(boxes_on_pixels(tmp_path / "r.gpkg", 4326, degrees))


def test_where_only_control_points_say_the_place(
    detect: Detect, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    points = [
        GroundControlPoint(row, column, *(NORTH_UP @ (column, row)))
        for column, row in ((0, 0), (480, 0), (480, 360), (0, 360))
    ]
    assert detect(write_scene(crs=UTM, gcps=points), "--out", tmp_path / "r.geojson") == 0
    assert_on_the_squares(boxes_on_pixels(tmp_path / "r.geojson", UTM, NORTH_UP))


def test_a_plain_picture_gives_pixels(detect: Detect, tmp_path: Path, draw_scene: Draw) -> None:
    draw_scene(480, 360, (64, 64, 32, "red")).save(tmp_path / "plain.png")
    assert detect(tmp_path / "plain.png", "--out", tmp_path / "r.json") == 0
    document = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [each["bbox"] for each in document["annotations"]] == [[64, 64, 32, 32]]


def test_a_folder_of_inputs_becomes_a_folder_of_results(
    detect: Detect, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    write_scene("a.tif")
    write_scene("b.tif")
    out = tmp_path / "out"
    assert detect(tmp_path, "--out", out, "--format", "csv", "--preview", out, "--heat", tmp_path / "heat") == 0
    assert sorted(path.name for path in out.iterdir()) == ["a.csv", "a.png", "b.csv", "b.png"]
    assert sorted(path.name for path in (tmp_path / "heat").iterdir()) == ["a.tif", "b.tif"]


def test_heat_lies_on_the_objects(detect: Detect, write_scene: Callable[..., Path], tmp_path: Path) -> None:
    assert detect(write_scene(), "--out", tmp_path / "r.csv", "--heat", tmp_path / "heat.tif") == 0
    with rasterio.open(tmp_path / "heat.tif") as raster:
        row, column = raster.index(*(NORTH_UP @ (80, 80)))
        density, mixed = raster.read()
    assert (density[row, column], mixed[row, column]) == (1 / 16, pytest.approx(1, abs=1e-4))
    assert density.sum() == pytest.approx(2, abs=0.01)  # two squares


def test_a_failed_input_does_not_keep_the_others_from_their_results(
    detect: Detect, write_scene: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scene("sound.tif")
    (tmp_path / "broken.tif").write_bytes(b"II*\x00junk")
    assert detect(tmp_path, "--out", tmp_path / "out", "--format", "csv") == 1
    assert (tmp_path / "out/sound.csv").exists()
    assert f"1 of 2 inputs failed:\n  {tmp_path}/broken.tif: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent.tif", "--out", "r.csv"], "absent.tif: no such file or folder"),
        (["scene.tif", "--out", "r.shp"], "--format"),
        (["scene.tif", "--out", "r.csv", "--classes", "red square,dog"], "--classes: dog: the model knows red square"),
        (["scene.tif", "--out", "r.csv", "--model", "other"], "HEATQUERY_MODEL: expected one of toy"),
        (["scene.tif", "--out", "r.csv", "--overlap", "33"], "overlap: 33 px; expected a multiple of 32"),
        (["scene.tif", "--out", "r.csv", "--threshold", "0.01"], "--threshold 0.01: only what scores above 0.05"),
        (["scene.tif", "--out", "r.csv", "--bands", "1,2"], "bands: '1,2' is not three bands"),
        (["scene.tif", "--out", "r.csv", "--scaling", "9,1"], "scaling: expected a lower and a higher value"),
        (["scene.tif", "--out", "r.csv", "--resolution", "-3"], "resolution: '-3' is none"),
    ],
)
def test_what_cannot_be_begun_ends_with_2_and_says_why(
    detect: Detect,
    write_scene: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    write_scene()
    monkeypatch.chdir(tmp_path)
    assert detect(*arguments) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--threshold", "nan"),
        ("--threshold", "1.5"),
        ("--overlap", "0"),
        ("--lanes", "0"),
        ("--classes", ","),
    ],
)
def test_a_value_that_means_nothing_is_named(
    detect: Detect, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        detect("scene.tif", "--out", "r.csv", f"{option}={value}")
    assert exit_.value.code == 2
    assert f"argument {option}: " in capsys.readouterr().err


def test_threshold_and_classes_choose(detect: Detect, write_scene: Callable[..., Path], tmp_path: Path) -> None:
    scene = write_scene()
    assert detect(scene, "--out", tmp_path / "blue.geojson", "--classes", "blue square") == 0
    assert geopandas.read_file(tmp_path / "blue.geojson").label.tolist() == ["blue square"]
    assert detect(scene, "--out", tmp_path / "none.csv", "--threshold", "1") == 0
    assert (tmp_path / "none.csv").read_text(encoding="utf-8").count("\n") == 1


def test_bands_and_scaling_choose(detect: Detect, tmp_path: Path, draw_scene: Draw) -> None:
    image = np.asarray(draw_scene(480, 360, (64, 64, 32, "red"))).astype(np.uint16) * 16
    scene = write_tiff(tmp_path / "16-bit.tif", image.transpose(2, 0, 1)[::-1])  # blue, green, red
    options = ["--bands", "3,2,1", "--scaling", "0,4080"]
    assert detect(scene, "--out", tmp_path / "r.geojson", *options) == 0
    assert geopandas.read_file(tmp_path / "r.geojson").label.tolist() == ["red square"]


@pytest.fixture
def long_scene(tmp_path: Path) -> Path:
    """441 tiles with a red square on most of them."""
    image = np.full((3, 2016, 2016), 90, dtype=np.uint8)
    for x, y in np.random.default_rng(0).integers(0, 63, (300, 2)) * 32:
        image[:, y : y + 32, x : x + 32] = np.array([255, 0, 0])[:, None, None]
    return write_tiff(tmp_path / "long.tif", image)


@pytest.fixture
def begin(long_scene: Path, toy_models: Path) -> Callable[[Path], subprocess.Popen[str]]:
    """Start the command on the long scene in a process of its own, and wait until it is at work."""

    def start(out: Path, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "service", "detect", str(long_scene), "--out", str(out), *options]
        process = subprocess.Popen(
            [*command, "--models", str(toy_models)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        before = finished_tiles(out)
        while finished_tiles(out) < before + 40:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        return process

    return start


def finished_tiles(out: Path) -> int:
    """Tiles that the state beside a result holds."""
    state = out.with_name(f"{out.name}.state")
    if not state.exists():
        return 0
    database = sqlite3.connect(f"file:{state}?mode=ro", uri=True)
    try:
        return database.execute("SELECT COUNT(*) FROM tile WHERE payload IS NOT NULL").fetchone()[0]
    except sqlite3.OperationalError:  # the table is not made yet
        return 0
    finally:
        database.close()


def test_killed_and_gone_on_with_it_gives_the_same_bytes(
    detect: Detect, begin: Callable[..., subprocess.Popen[str]], long_scene: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed.gpkg"
    for options in ([], ["--resume"]):
        process = begin(out, *options)
        process.kill()
        process.communicate()
    assert not out.exists()
    assert detect(long_scene, "--out", out, "--resume") == 0
    assert detect(long_scene, "--out", tmp_path / "unbroken.gpkg") == 0
    assert out.read_bytes() == (tmp_path / "unbroken.gpkg").read_bytes()
    assert len(geopandas.read_file(out)) > 250
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.gpkg", "long.tif", "unbroken.gpkg"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_how_to_go_on(
    begin: Callable[..., subprocess.Popen[str]], tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "r.csv"
    process = begin(out)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    line = said.rsplit("Go on with: ", 1)[1]
    python, *arguments = shlex.split(line)
    assert (python, arguments[-1]) == ("python", "--resume")
    assert 0 < finished_tiles(out) < 441
    assert subprocess.run([sys.executable, *arguments], capture_output=True, check=False).returncode == 0
    assert out.exists()
    assert not out.with_name("r.csv.state").exists()


def test_a_run_that_did_not_end_is_not_begun_anew_unasked(
    detect: Detect,
    begin: Callable[..., subprocess.Popen[str]],
    long_scene: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    process = begin(tmp_path / "r.csv")
    process.kill()
    process.communicate()
    kept = finished_tiles(tmp_path / "r.csv")
    assert detect(long_scene, "--out", tmp_path / "r.csv") == 2
    assert "add --resume to go on with it, or delete it to begin anew" in capsys.readouterr().err
    assert finished_tiles(tmp_path / "r.csv") == kept


def test_a_state_of_another_file_is_not_gone_on_with(
    detect: Detect,
    begin: Callable[..., subprocess.Popen[str]],
    write_scene: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    process = begin(tmp_path / "r.csv")
    process.kill()
    process.communicate()
    assert detect(write_scene(), "--out", tmp_path / "r.csv", "--resume") == 1
    assert "the file, the model or the options differ; delete it to begin anew" in capsys.readouterr().err


def test_finished_inputs_are_left_alone_by_resume(
    detect: Detect, write_scene: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene, out = write_scene(), tmp_path / "r.csv"
    assert detect(scene, "--out", out) == 0
    changed = out.stat().st_mtime_ns
    assert detect(scene, "--out", out, "--resume") == 0
    assert "finished before" in capsys.readouterr().out
    assert out.stat().st_mtime_ns == changed


def test_without_resume_an_older_result_is_replaced(
    detect: Detect, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "r.csv").write_text("older", encoding="utf-8")
    assert detect(write_scene(), "--out", tmp_path / "r.csv") == 0
    assert (tmp_path / "r.csv").read_text(encoding="utf-8").startswith("label,")


@pytest.mark.parametrize("lanes", [1, 3])
def test_lanes_do_not_change_a_byte(
    detect: Detect, write_scene: Callable[..., Path], tmp_path: Path, lanes: int
) -> None:
    scene = write_scene()
    for name, count in (("a.geojson", 2), ("b.geojson", lanes)):
        assert detect(scene, "--out", tmp_path / name, "--lanes", count) == 0
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


@pytest.mark.skipif(not SCENES.is_dir(), reason="needs ../shared/data/scenes")
@pytest.mark.parametrize("name", [path.name for path in sorted(SCENES.glob("*.*"))])
def test_real_scenes_are_read_to_their_end(detect: Detect, tmp_path: Path, name: str) -> None:
    out, heat, preview = (tmp_path / each for each in ("r.gpkg", "heat.tif", "preview.png"))
    assert detect(SCENES / name, "--out", out, "--heat", heat, "--preview", preview) == 0
    crs = geopandas.read_file(out).crs
    with rasterio.open(heat) as raster:
        assert raster.crs == (None if crs is None else CRS.from_user_input(crs))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heat.tif", "preview.png", "r.gpkg"]
