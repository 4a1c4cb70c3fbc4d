"""The catalogue of the benchmark book: every command that measures something which the project claims."""

import os
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from string import Formatter

from benchmarks import book_rows
from benchmarks.book_result import Table, read_rows
from benchmarks.book_rows import ReadRows

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "bench"
"""Where commands leave what they write."""
MODEL, CHECKPOINT = "service/models/nano-nwpu/5", "training/checkpoints/nano-nwpu"


@dataclass(frozen=True)
class Need:
    """What a word in capitals in a command stands for; its value is the environment variable of that name."""

    what: str
    default: str = ""
    """Taken where there is such a file or folder."""


NEEDS = {
    "NWPU": Need("NWPU VHR-10: folder with images/ and instances_val.json", "../shared/data/nwpu-vhr10"),
    "GDIT": Need("gdit-airport: a folder of the same form", "../shared/data/gdit-airport"),
    "NANO_GDIT": Need(
        "checkpoint of training/recipes/nano-gdit-end.toml, the last of four recipes, on the default of GDIT"
    ),
    "PEER_GRAPHS": Need("folder that benchmarks/peer_models.py has filled"),
    "SERVING_PEERS": Need("interpreter of an environment with benchmarks/requirements-serving.txt"),
    "GPU_PYTHON": Need(
        "interpreter of an environment with requirements/serve-gpu.txt, torch for CUDA, timm, safetensors, onnx, "
        "onnxslim and transformers"
    ),
    "SAHI": Need("interpreter of an environment with benchmarks/requirements-scenes.txt"),
    "REDIS": Need("address of a Redis that may be written to"),
    "ABLATION_MINUTES": Need(
        "minutes after which no further run is begun; goes on from those that are there, on the default of NWPU"
    ),
}


@dataclass(frozen=True)
class Entry:
    """A command and what the book makes of the figures that it writes."""

    table: Table
    command: str
    """With {WORDS} of `NEEDS`; {FILE} is a path for its figures, {WORK} a folder that is kept."""
    minutes: float
    """On two cores."""
    rows: ReadRows = read_rows
    figures: str = "{FILE}"
    """What `rows` reads: the file, or something beside it or in the repository."""
    programs: tuple[str, ...] = ()
    """What must be installed."""

    @property
    def needs(self) -> list[str]:
        """Words that must have a value, in the order of the command."""
        words = (word for _, word, _, _ in Formatter().parse(self.command) if word)
        return [word for word in dict.fromkeys(words) if word in NEEDS]

    @property
    def missing(self) -> list[str]:
        """Those that have none on this machine, and programs that are not installed."""
        return [word for word in self.needs if not value_of(word)] + [name for name in self.programs if not which(name)]

    @property
    def told(self) -> str:
        """The command as a person reads it."""
        return self.command.replace("{", "").replace("}", "")

    def filled(self, text: str, file: Path) -> str:
        """A text of this entry with the paths of this machine."""
        return text.format(FILE=file, WORK=WORK, **{word: value_of(word) for word in self.needs})


def value_of(word: str) -> str:
    """What a word stands for on this machine; empty where that is not known."""
    default = NEEDS[word].default
    return os.environ.get(word, "") or (default if default and (ROOT / default).exists() else "")


def _serving(parts: str, minutes: float, more: str = "") -> Entry:
    command = f"python benchmarks/serving.py {MODEL} --data {{NWPU}} --only {parts}{more} --json {{FILE}}"
    return Entry("serving", command, minutes, book_rows.serving)


def _scenes(part: str, minutes: float, more: str = "") -> Entry:
    command = f"python benchmarks/scenes.py {MODEL} --data {{NWPU}}/instances_val.json --work {{WORK}} --only {part}"
    return Entry("scenes", f"{command}{more} --json {{FILE}}", minutes, book_rows.scenes)


def _accuracy(precision: str, **aims: dict[str, int | float]) -> Entry:
    command = f"python benchmarks/accuracy.py {MODEL} --data {{NWPU}} --precision {precision} --json {{FILE}}"
    return Entry("accuracy", command, 1, book_rows.accuracy(f"nano-nwpu/5 {precision}, NWPU VHR-10 val", aims))


def _training(recipe: str, more: str, minutes: float, programs: tuple[str, ...] = ()) -> Entry:
    command = f"python benchmarks/training_speed.py training/recipes/{recipe}.toml{more} --json {{FILE}}"
    return Entry("training", command, minutes, programs=programs)


def _hosts(preset: str) -> Entry:
    return Entry("training", f"python benchmarks/hosts.py {preset} --threads 1 --json {{FILE}}", 20, book_rows.hosts)


def _hosts_on_gpu(preset: str) -> Entry:
    command = f"python benchmarks/hosts.py {preset} --steps 4 --json {{FILE}}"
    return Entry("training", command, 1, book_rows.hosts, programs=("nvidia-smi",))


def _host_export(preset: str) -> Entry:
    return Entry("export", f"python benchmarks/host_export.py {preset} --json {{FILE}}", 8)


def _ablation(grid: str, told: str, folder: str, more: str = "") -> Entry:
    command = f"python -m training ablate training/ablation/grids/{grid}.toml --out docs/ablation/{folder}{more}"
    command += " --time-limit {ABLATION_MINUTES}"
    return Entry("ablation", command, 60, book_rows.ablation(told), f"docs/ablation/{folder}")


def _engines(precision: str) -> Entry:
    command = f"python -m export engines {MODEL} --library tensorrt-rtx --precision {precision} --cache {{FILE}}"
    return Entry("export", command, 1, book_rows.engines)


def _depth(what: str, checkpoint: str, data: str, size: int) -> Entry:
    command = f"python -m export depth {checkpoint} --data {data}/instances_val.json --size {size} --json {{FILE}}"
    return Entry("depth", command, 2, book_rows.depth(what))


ENTRIES: dict[str, Entry] = {
    "accuracy": _accuracy("fp32", ap50={"at_least": 0.945}, ap={"at_least": 0.672}),  # HMPE as published
    "accuracy-int8": _accuracy("int8", ap50={"at_least": 0.921}),  # .015 less than in fp32
    "accuracy-fp16": _accuracy("fp16"),
    "accuracy-tiny": Entry(
        "accuracy",
        "python -m training evaluate {NANO_GDIT} training/recipes/nano-gdit.toml --out {FILE}",
        3,
        book_rows.accuracy(
            "nano-gdit, gdit-airport val",
            {
                "ap50": {"at_least": 0.85},
                "tiny (8-16)": {"at_least": 0.3},
                "count_relative_mae": {"at_most": 0.15},
            },
            by_size=True,
        ),
        "{FILE}/metrics.json",
    ),
    "depth": _depth("nano-nwpu", CHECKPOINT, "{NWPU}", 544),
    "depth-tiny": _depth("nano-gdit", "{NANO_GDIT}", "{GDIT}", 608),
    "parity": Entry(
        "export",
        f"python -m export verify {MODEL} --data {{NWPU}}/instances_val.json --checkpoint {CHECKPOINT}",
        2,
        book_rows.parity,
        f"{MODEL}/parity.json",
    ),
    "export-time": Entry("export", f"python benchmarks/export_time.py {CHECKPOINT} --data {{NWPU}} --json {{FILE}}", 8),
    "hosts-dino-export": _host_export("dino_d3q_r50"),
    "hosts-deformable-export": _host_export("deformable_detr_d3q_r50"),
    "engines-fp32": _engines("fp32"),
    "engines-fp16": _engines("fp16"),
    "engines-int8": _engines("int8"),
    "peers": Entry(
        "peers",
        f"python benchmarks/peers.py {MODEL} --data {{NWPU}} --cache {{PEER_GRAPHS}} --json {{FILE}}",
        3,
        book_rows.peers,
    ),
    "gpu": Entry("peers", f"{{GPU_PYTHON}} benchmarks/gpu.py {MODEL} --json {{FILE}}", 3, programs=("nvidia-smi",)),
    "queries": Entry(
        "queries", f"python benchmarks/latency.py {MODEL} --threads 1 --json {{FILE}}", 1, book_rows.queries
    ),
    "serving-compared": _serving("choice saturation latency", 15, " --peers {SERVING_PEERS}"),
    "serving-overhead": _serving("overhead", 2),
    "serving-mixed": _serving("mixed", 4),
    "serving-overload": _serving("overload", 3),
    "serving-start": _serving("start", 1),
    "serving-soak": _serving("", 31, "--soak 30"),
    "serving-memory": Entry(
        "serving", f"python benchmarks/latency.py {MODEL} --rounds 1 --json {{FILE}}", 1, book_rows.memory
    ),
    "scenes-growth": _scenes("growth", 15, " --lanes 1"),
    "scenes-sahi": _scenes("compared", 12, " --sahi {SAHI} --side 10000 --rounds 2 --lanes 1"),
    "scenes-seams": _scenes("seams", 12, " --side 20000 --lanes 1"),
    "scenes-kills": _scenes("crashes", 10),
    "scenes-ray": _scenes("workers", 6, " --side 10000 --rounds 2"),
    "container": Entry(
        "container",
        "python tests/container/check_service.py --json {FILE}",
        10,
        book_rows.container,
        programs=("buildah", "podman", "runc", "debootstrap"),
    ),
    "training": _training("nano-nwpu", "", 3),
    "training-fp32": _training("nano-nwpu", " --variants fp32 --rounds 4", 2),  # for a CPU without bf16
    "training-gpu": _training("nano-nwpu-gpu", " --variants fp32 bf16 --rounds 8", 1, programs=("nvidia-smi",)),
    "hosts-dino": _hosts("dino_d3q_r50"),
    "hosts-deformable": _hosts("deformable_detr_d3q_r50"),
    "hosts-dino-gpu": _hosts_on_gpu("dino_d3q_r50"),
    "hosts-deformable-gpu": _hosts_on_gpu("deformable_detr_d3q_r50"),
    "ablation": _ablation("nwpu", "nwpu", "nwpu"),
    "ablation-cpu": _ablation("nwpu", "nwpu, CPU", "nwpu-cpu", " --seeds 2 3 4"),
    "ablation-tiny": _ablation("gdit", "gdit", "gdit"),
    "size": Entry("size", "python benchmarks/complexity.py --json {FILE}", 1),
    "merging": Entry("parts", "python benchmarks/merging.py --json {FILE}", 1),
    "store": Entry(
        "parts", f"python benchmarks/store.py {MODEL} --images {{NWPU}}/images --redis {{REDIS}} --json {{FILE}}", 1
    ),
}
