"""One file of the benchmark book: what one command measured, where, when and at which commit."""

import math
import re
import shutil
import subprocess
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from benchmarks.latency import machine
from benchmarks.peer_report import Spread

RESULTS = Path(__file__).resolve().parent / "results"
EXTENSIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")
"""As the kernel names them."""
Table = Literal[
    "accuracy",
    "depth",
    "export",
    "peers",
    "queries",
    "serving",
    "scenes",
    "training",
    "ablation",
    "size",
    "parts",
    "container",
]
Number = int | float


class Strict(BaseModel):
    """Frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(Strict):
    """One figure, and what it was to be."""

    claim: Annotated[str, Field(min_length=1, pattern=r"^[^|\n]+$")]
    """What the figure is of."""
    value: Number
    unit: str = ""
    low: Number | None = None
    """Where the middle half of what was measured begins; None where that is not known."""
    high: Number | None = None
    at_most: Number | None = None
    at_least: Number | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> "Row":
        if (self.low is None) != (self.high is None):
            raise ValueError(f"{self.claim}: a spread has both ends, low and high")
        if self.low is not None and self.high is not None and not self.low <= self.value <= self.high:
            raise ValueError(f"{self.claim}: {self.value} is not between {self.low} and {self.high}")
        if self.at_most is not None and self.at_least is not None:
            raise ValueError(f"{self.claim} has two aims, {self.at_most} and {self.at_least}; a figure has one")
        return self

    @classmethod
    def of(cls, claim: str, spread: Spread, unit: str = "", **aim: Number) -> "Row":
        """A median with its middle half."""
        return cls(claim=claim, value=spread.median, low=spread.low, high=spread.high, unit=unit, **aim)

    @property
    def reached(self) -> bool | None:
        """Whether the figure is what it was to be; None where it has no aim."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return self.value >= self.at_least if self.at_least is not None else None

    @property
    def aim(self) -> str:
        """In words; empty where there is none."""
        if self.at_most is not None:
            return self._with_unit(f"at most {told(self.at_most)}")
        return self._with_unit(f"at least {told(self.at_least)}") if self.at_least is not None else ""

    @property
    def measured(self) -> str:
        """The figure with its spread."""
        if self.low is None or self.high is None:
            return self._with_unit(told(self.value))
        places = decimals(self.value, self.low, self.high)
        value, low, high = (f"{number:,.{places}f}" for number in (self.value, self.low, self.high))
        return self._with_unit(f"{value} ({low} - {high})")

    @property
    def verdict(self) -> str:
        """As tables show it."""
        return {None: "", True: "reached", False: "**missed**"}[self.reached]

    def _with_unit(self, text: str) -> str:
        return f"{text} {self.unit}" if self.unit else text


class Result(Strict):
    """What one command measured."""

    table: Table
    """Of the book, in which the rows stand."""
    hardware: Annotated[str, Field(min_length=1)]
    date: date
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{7,12}(-dirty)?$")]
    command: Annotated[str, Field(min_length=1, pattern=r"^[^|\n]+$")]
    """With a word in capitals for each path that differs between machines."""
    note: str = ""
    """Terms of this run that the command does not say."""
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _claims_differ(self) -> "Result":
        claims = [row.claim for row in self.rows]
        if twice := next((claim for claim in claims if claims.count(claim) > 1), None):
            raise ValueError(f"two rows say {twice!r}")
        return self


class Rows(Strict):
    """What a benchmark writes with --json that has nothing more to tell than its claims."""

    rows: tuple[Row, ...]


def read_results(folder: Path = RESULTS) -> dict[str, Result]:
    """All results by name.

    Raises:
        ValueError: a file is not what it should be; the message names it.
    """
    return {path.stem: read_result(path) for path in sorted(folder.glob("*.json"))}


def read_result(path: Path) -> Result:
    """One result. Raises ValueError, which names the file."""
    try:
        return Result.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_model(path: Path, model: BaseModel) -> None:
    """As indented JSON, without what is not known."""
    path.write_text(model.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")


def write_rows(path: Path, rows: list[Row]) -> None:
    """What `--json` of a benchmark asks for."""
    write_model(path, Rows(rows=tuple(rows)))


def read_rows(path: Path) -> list[Row]:
    """What `write_rows` wrote."""
    return list(Rows.model_validate_json(path.read_bytes()).rows)


def told(number: Number) -> str:
    """Three digits that count, or fewer where fewer are known."""
    return f"{number:,.{decimals(number)}f}"


def decimals(first: Number, *others: Number) -> int:
    """Places after the point: as many as the first number needs, no more than the most exact of them has."""
    known = max(_places(number) for number in (first, *others))
    needed = 2 - math.floor(math.log10(abs(first))) if first else 2
    return max(0, min(known, needed))


def _places(number: Number) -> int:
    """Digits after the point, written out in full."""
    exponent = Decimal(repr(float(number))).normalize().as_tuple().exponent
    return max(0, -int(exponent))


def hardware() -> str:
    """Processor, cores, the instructions that decide how fast it computes networks, and GPUs."""
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    known = flags[1].split() if flags else []
    instructions = " ".join(name for name in EXTENSIONS if name in known)
    return ", ".join(part for part in (machine(), instructions, *_gpus()) if part)


def _gpus() -> list[str]:
    """Their names, as the driver's own tool tells them."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
