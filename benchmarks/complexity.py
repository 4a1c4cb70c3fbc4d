"""Parameters and GFLOPs of every preset, printed as a table that is also written into docs/model.md.

    python benchmarks/complexity.py

Nothing is computed: the detector runs on torch's meta device, which knows shapes only, and torch counts what its
matrix products, convolutions and attention would cost, two operations per multiply-accumulate. What it does not count:
bilinear sampling (deformable attention, snakes), norms, activations, softmax outside attention, sorting, resizing.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks.book_result import Row, write_rows
from model.config import DetectorConfig
from model.detector import Detector
from model.presets import PRESETS, preset, without_density

PAGE = Path(__file__).resolve().parents[1] / "docs" / "model.md"
BEGIN, END = "<!-- complexity: begin -->", "<!-- complexity: end -->"
CLASSES = tuple(f"class {i}" for i in range(10))
"""As many as NWPU VHR-10 has; others change little."""
PARTS = {
    "backbone": ("backbone",),
    "encoder": ("encoder",),
    "heads": ("density_head", "select_queries"),
    "decoder": ("decoder",),
}
"""Columns of the table, and the modules of the detector that each adds up. The encoder holds the heat heads."""


@dataclass(frozen=True)
class Complexity:
    """What a detector holds and costs."""

    parameters: int
    gflops: dict[str, float]
    """Per part, for one picture."""

    @property
    def total_gflops(self) -> float:
        """Of all parts."""
        return sum(self.gflops.values())


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    name: str
    config: DetectorConfig
    side: int
    queries: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every case, print the table, and write it into the page."""
    parser = argparse.ArgumentParser(description="Parameters and GFLOPs of every preset.")
    parser.add_argument("--page", type=Path, default=PAGE, help="document whose table is replaced")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of the presets here, too")
    options = parser.parse_args(arguments)
    measured = [(case, measure(case.config, case.side, case.queries)) for case in tqdm(list(cases()), unit="case")]
    lines = table(measured)
    print("\n".join(lines))
    options.page.write_text(replaced(options.page.read_text(encoding="utf-8"), lines), encoding="utf-8")
    if options.json:
        write_rows(options.json, [row for case, found in measured for row in claims(case, found)])


def cases() -> Iterator[Case]:
    """All presets at 640 px and 300 queries; the hosts also at 800 px, with 900 queries, and with D3Q off."""
    for name in PRESETS:
        config = preset(name, CLASSES)
        is_host = config.heat is None
        for side in (640, 800) if is_host else (640,):
            for queries in (300, 900) if is_host else (300,):
                yield Case(name, config, side, queries)
        if is_host:
            yield Case(f"{name}, D3Q off", without_density(config, 900), 800, 900)


def measure(config: DetectorConfig, side: int, queries: int) -> Complexity:
    """Parameters, and GFLOPs for one square picture at a fixed number of queries."""
    with torch.device("meta"):
        detector = Detector(config).eval().requires_grad_(False)
        image, counts = torch.zeros(1, 3, side, side, dtype=torch.uint8), torch.tensor([queries])
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            encoded = detector.encode(image)
            detector.decode(encoded.memory, detector.propose(encoded, queries, counts))
    by_module = counter.get_flop_counts()  # called one by one, the modules are counted under the names of their classes
    gflops = {}
    for part, names in PARTS.items():
        modules = [module for name in names if (module := getattr(detector, name)) is not None]
        gflops[part] = sum(sum(by_module[type(module).__name__].values()) for module in modules) / 1e9
    return Complexity(sum(p.numel() for p in detector.parameters()), gflops)


def claims(case: Case, found: Complexity) -> list[Row]:
    """What the benchmark book tells: of presets, at the size and number of queries that all have been counted at."""
    if (case.side, case.queries) != (640, 300):
        return []
    return [
        Row(claim=f"{case.name}: parameters", value=found.parameters / 1e6, unit="M"),
        Row(claim=f"{case.name}: work for a picture of 640 px, 300 queries", value=found.total_gflops, unit="GFLOPs"),
    ]


def table(measured: Sequence[tuple[Case, Complexity]]) -> list[str]:
    """Lines of a Markdown table, one per case."""
    lines = [
        "| preset | side | queries | params M | MB | GFLOPs | " + " | ".join(PARTS) + " |",
        "|---" + "|--:" * (5 + len(PARTS)) + "|",
    ]
    for case, found in measured:
        cells = [case.name, str(case.side), str(case.queries), f"{found.parameters / 1e6:.2f}"]
        cells += [f"{found.parameters * 4 / 1e6:.1f}", f"{found.total_gflops:.1f}"]
        cells += [f"{found.gflops[part]:.1f}" for part in PARTS]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def replaced(text: str, lines: list[str]) -> str:
    """A document with other lines between its markers. Raises ValueError if it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page needs the lines {BEGIN!r} and {END!r}, between which the table goes")
    return f"{before}{BEGIN}\n{chr(10).join(lines)}\n{END}{after}"


if __name__ == "__main__":
    main()
