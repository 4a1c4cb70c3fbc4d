"""The benchmark beside other detectors, on graphs of a few nodes and a peer that does nothing."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.book_rows import peers
from benchmarks.peer_graphs import ModelFolder, open_session
from benchmarks.peer_models import fold_branches
from benchmarks.peer_report import BEGIN, END, Size, report, write_page
from benchmarks.peers import UNIT, WARM_UP_ROUNDS, chosen, interleaved, main
from service.engines import onnx as service_engine

ROOT = Path(__file__).resolve().parents[2]
SIDE = 320
ENCODER = """<ir_version: 10, opset_import: ["" : 18]>
encoder (uint8[B, 3, H, W] images)
    => (float[1, 8, 4, 4] memory_0, float[1, 600, 4] queries, float[1, 600, 4] reference_boxes, float[B] count) {
  bytes = Cast <to = 1> (images)
  axes = Constant <value_ints = [1, 2, 3]> ()
  count = ReduceMean <keepdims = 0> (bytes, axes)
  map = Constant <value_ints = [1, 8, 4, 4]> ()
  memory_0 = ConstantOfShape (map)
  rows = Constant <value_ints = [1, 600, 4]> ()
  queries = ConstantOfShape (rows)
  reference_boxes = ConstantOfShape (rows)
}"""
"""Counts as many objects as a picture is bright."""
DECODER = """<ir_version: 10, opset_import: ["" : 18]>
decoder (float[1, 8, 4, 4] memory_0, float[1, K, 4] queries, float[1, K, 4] reference_boxes, bool[1, K] valid)
    => (float[1, K, 4] boxes, float[1, K, 4] scores) {
  boxes = Identity (reference_boxes)
  scores = Identity (queries)
}"""
PEER = """<ir_version: 10, opset_import: ["" : 18]>
peer (uint8[1, 3, H, W] images) => (uint8[1, 3, H, W] boxes) { boxes = Identity (images) }"""


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A model folder of a nano whose graphs do nothing but count: t = 3, K from 100 to 600."""
    folder = tmp_path / "nano" / "1"
    folder.mkdir(parents=True)
    onnx.save(onnx.parser.parse_model(ENCODER), folder / "encoder.onnx")
    onnx.save(onnx.parser.parse_model(DECODER), folder / "decoder.onnx")
    specification = {
        "size": 64,
        "multiple_of": 32,
        "pad_value": 114,
        "channels": "RGB",
        "mean": [0] * 3,
        "std": [1] * 3,
    }
    manifest = {"name": "nano", "version": "1", "input": specification, "query": {"k_min": 100, "k_max": 600, "t": 3.0}}
    (folder / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pictures with 10, 50 and 250 objects, as the model of `model_dir` counts them."""
    (tmp_path / "data" / "images").mkdir(parents=True)
    names = []
    for brightness in (10, 50, 250):
        names.append(f"{brightness}.png")
        Image.new("RGB", (64, 64), (brightness,) * 3).save(tmp_path / "data" / "images" / names[-1])
    annotations = {"images": [{"file_name": name} for name in names]}
    (tmp_path / "data" / "instances_val.json").write_text(json.dumps(annotations), encoding="utf-8")
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache that holds one peer."""
    (tmp_path / "cache").mkdir()
    onnx.save(onnx.parser.parse_model(PEER), tmp_path / "cache" / f"{UNIT}-{SIDE}.onnx")
    (tmp_path / "cache" / f"{UNIT}-{SIDE}.json").write_text('{"parameters": 2600000, "gflops": 6.5}', encoding="utf-8")
    return tmp_path / "cache"


def figures(**cpu: list[float]) -> dict[str, Any]:
    """What was measured: milliseconds of CPU by model; the clock shows twice as many."""
    samples = {name.replace("_", " "): [(time, 2 * time) for time in times] for name, times in cpu.items()}
    sizes = dict.fromkeys(samples, Size(2_600_000, 6.5))
    run = {"side": 640, "threads": 1, "sizes": sizes, "samples": samples}
    said = {"machine": "a machine", "runtime": "a runtime", "date": "2026-11-21", "model": "nano/1", "queries": 100}
    return said | {"commit": "0123456789abcdef-dirty", "rounds": 3, "runs": [run]}


def test_one_command_fills_the_page(model_dir: Path, data: Path, cache: Path, tmp_path: Path) -> None:
    page, numbers = tmp_path / "page.md", tmp_path / "numbers.json"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    shutil.copy(model_dir / "encoder.onnx", model_dir / "encoder.int8.onnx")  # its decoder is that of fp32
    command = [model_dir, "--data", data, "--cache", cache, "--sides", SIDE, "--rounds", 2, "--page", page]
    models = ["nano", "nano int8", "nano fp16", "decoder of nano, K = 100", "decoder of nano, K = 600"]
    main([*map(str, command), "--json", str(numbers), "--models", *models])
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "old" not in text
    assert "K = 150 where nothing else is said" in text  # three times the median of 10, 50 and 250
    rows = re.findall(r"^\| ([^|]+) \| [\d.-]+ \| [\d.-]+ \|", text, re.MULTILINE)
    assert rows == ["nano", "nano int8", "decoder of nano, K = 100", "decoder of nano, K = 600", UNIT]
    (run,) = json.loads(numbers.read_text(encoding="utf-8"))["runs"]
    assert {len(times) for times in run["samples"].values()} == {2}


def test_a_missing_peer_is_named_with_the_way_out(model_dir: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"yolo11n-640.*peer_models\.py --sides 640"):
        main([str(model_dir), "--data", str(data), "--cache", str(tmp_path), "--models", "yolo11n"])


def test_a_precision_that_the_folder_lacks_is_left_out(model_dir: Path) -> None:
    assert chosen(["nano fp16", "nano int8"], ModelFolder(model_dir)) == [UNIT]


def test_only_the_best_queries_reach_the_decoder(model_dir: Path) -> None:
    ours = ModelFolder(model_dir).open(threads=1)
    encoded = ours.encode(np.zeros((3, 64, 64), dtype=np.uint8))
    encoded["queries"] = np.arange(2400, dtype=np.float32).reshape(1, 600, 4)
    _, scores = ours.decode(ours.feed(encoded, 7))
    assert (scores == encoded["queries"][:, :7]).all()


def test_every_other_round_runs_backwards_and_the_first_ones_do_not_count() -> None:
    order: list[str] = []
    samples = interleaved({name: lambda name=name: order.append(name) for name in "abc"}, rounds=2)
    assert ["".join(order[i : i + 3]) for i in range(0, len(order), 3)] == ["cba", "abc"] * (WARM_UP_ROUNDS // 2 + 1)
    assert {name: len(times) for name, times in samples.items()} == {"a": 2, "b": 2, "c": 2}


def test_a_slow_round_does_not_move_the_ratio() -> None:
    lines = report(figures(nano=[8.0, 8.0, 80.0], yolo11n=[10.0, 10.0, 100.0]), UNIT)
    assert any(line.endswith("| 8 (8 - 44) | 16 (16 - 88) | 0.80 (0.80 - 0.80) |") for line in lines)


@pytest.mark.parametrize(("milliseconds", "reached"), [(4.5, True), (4.6, False)])
def test_an_aim_is_reached_or_missed_by_the_median(tmp_path: Path, milliseconds: float, reached: bool) -> None:
    found = figures(nano_int8=[1.0, milliseconds, 9.0], yolo11n=[10.0, 10.0, 10.0])
    (tmp_path / "figures.json").write_text(json.dumps(found, default=vars), encoding="utf-8")
    first, *times = peers(tmp_path / "figures.json")
    assert (first.claim, first.reached) == ("CPU time of nano int8, by that of yolo11n", reached)
    assert [row.claim for row in times] == ["nano int8: CPU time", "yolo11n: CPU time"]


def test_a_changed_working_tree_is_told() -> None:
    assert "commit `0123456789ab-dirty`" in report(figures(yolo11n=[1.0]), UNIT)[0]


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no table here", encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(BEGIN)):
        write_page(page, ["a line"])


def test_sessions_have_the_options_of_the_service(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    session = ort.InferenceSession

    def spy(graph: Any, options: ort.SessionOptions, providers: list[Any]) -> ort.InferenceSession:
        names = [name for name in dir(options) if name.islower() and not name.startswith("_")]
        values = {name: getattr(options, name) for name in names if not callable(getattr(options, name))}
        seen.append((values, options.get_session_config_entry("session.intra_op.allow_spinning"), providers))
        return session(graph, options, providers=providers)

    monkeypatch.setattr(ort, "InferenceSession", spy)
    graph = model_dir / "encoder.onnx"
    open_session(graph, threads=3)
    service_engine._open_session("encoder.onnx", graph.read_bytes(), [("CPUExecutionProvider", {})], 3)
    ours, theirs = seen
    assert ours == theirs
    assert ours[0]["intra_op_num_threads"] == 3


class StandInConvNorm(nn.Module):
    """Convolution and norm under the names that the peers give them."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(3)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.running_mean)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class StandInRepVggBlock(nn.Module):
    """Two branches, added."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.activation = StandInConvNorm(3), StandInConvNorm(1), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.conv1(x) + self.conv2(x))


def test_folded_branches_give_the_same_with_one_convolution() -> None:
    torch.manual_seed(0)
    peer = nn.Sequential(StandInRepVggBlock()).eval().requires_grad_(False)
    x = torch.randn(2, 3, 8, 8)
    before = peer(x)
    fold_branches(peer)
    assert sum(isinstance(module, nn.Conv2d) for module in peer.modules()) == 1
    assert torch.allclose(peer(x), before, atol=1e-5)


def test_only_one_file_imports_the_libraries_of_the_peers() -> None:
    folders = ("model", "training", "export", "service", "benchmarks", "tests")
    imports = re.compile(r"^\s*(from|import) (ultralytics|transformers)\b", re.MULTILINE)
    importing = {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if imports.search(path.read_text(encoding="utf-8"))
    }
    assert importing == {"benchmarks/peer_models.py"}


def requirements(path: str) -> str:
    """Text of a requirements file, without comments."""
    return re.sub(r"^\s*#.*\n?", "", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("file", "peers"),
    [
        ("requirements-peers.txt", {"ultralytics", "transformers"}),
        ("requirements-serving.txt", {"litserve"}),
        ("requirements-scenes.txt", {"sahi"}),
    ],
)
def test_the_environment_of_the_peers_is_pinned_hashed_and_of_the_versions_that_we_run(
    file: str, peers: set[str]
) -> None:
    entries = requirements(f"benchmarks/{file}").replace("\\\n", " ").splitlines()
    for entry in entries:
        assert re.fullmatch(r"[\w.\[\],-]+==[\w.+!]+( ; [^\\]+?)?(\s+--hash=sha256:[0-9a-f]{64})+", entry), entry
    pinned = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", "\n".join(entries), re.MULTILINE))
    tested = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", requirements("requirements/dev.txt"), re.MULTILINE))
    assert peers <= pinned.keys()
    assert peers.isdisjoint(tested)
    assert {name for name in pinned if tested.get(name, pinned[name]) != pinned[name]} == set()
