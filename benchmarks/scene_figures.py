"""What benchmarks/scenes.py finds, typed, so that a run can be interrupted and gone on with from its JSON file."""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from benchmarks.serving_figures import Part


class Run(BaseModel):
    """One process from its start to its end."""

    model_config = ConfigDict(frozen=True)

    wall_seconds: float
    """Without the time in which it was stopped."""
    ready_seconds: float
    """Of these, until it began with the first tile: imports, the model, the plan."""
    cpu_seconds: float
    """Of all its threads; what other work on the machine disturbs least."""
    peak_mb: float
    """Largest resident memory."""

    @property
    def working_seconds(self) -> float:
        """From the first tile to the end."""
        return self.wall_seconds - self.ready_seconds


class ScenePart(Part):
    """One part of the measurement; the load average says how quiet the machine was."""

    load: tuple[float, float]
    """Of the last minute, before and after."""


class Scan(BaseModel):
    """One run of `detect`, and the engine alone in the pauses of this very run."""

    model_config = ConfigDict(frozen=True)

    side: int
    tiles: int
    lanes: int
    run: Run
    engine_seconds: list[float]
    """For one tile in one lane, while all lanes run the two graphs and nothing else; one value a pause."""

    @property
    def ideal_seconds(self) -> float:
        """Tiles x engine time / lanes: what is left if reading, merging and writing cost nothing."""
        return self.tiles * float(np.median(self.engine_seconds)) / self.lanes


class Growth(ScenePart):
    """Memory and time by the size of the scene, the smallest first."""

    scans: list[Scan]


class Accuracy(BaseModel):
    """Of a list of boxes; average precision over IoU 0.5 to 0.95, and at 0.5."""

    model_config = ConfigDict(frozen=True)

    objects: int
    """That there are."""
    ap: float
    ap50: float


class Tool(BaseModel):
    """What one way to work on the scene did."""

    model_config = ConfigDict(frozen=True)

    tiles: int
    found: int
    accuracy: Accuracy
    runs: list[Run]


class Compared(ScenePart):
    """Ours and SAHI on one scene, by turns."""

    sahi: str
    """Version."""
    side: int
    score: float
    """Boxes above it count."""
    ours: Tool
    theirs: dict[str, Tool]
    """By its settings."""

    @property
    def fastest(self) -> str:
        """Settings with which SAHI took the least time."""
        return min(self.theirs, key=lambda name: np.median([run.wall_seconds for run in self.theirs[name].runs]))


class Doubles(BaseModel):
    """Pairs of boxes of one class that show one object."""

    model_config = ConfigDict(frozen=True)

    of_one_window: int
    """The model itself gave both, as on a single picture."""
    of_two_windows: int


class Seams(ScenePart):
    """Objects that borders of windows cross, and others."""

    side: int
    score: float
    """Boxes above it count."""
    everything: Accuracy
    on_border: Accuracy
    elsewhere: Accuracy
    moved_on_border: Accuracy
    """The objects of `moved_off_border`: windows are moved, so that each is on a border once and once is not."""
    moved_off_border: Accuracy
    shown_score: float
    """From which on a box is shown."""
    shown: int
    """Boxes above it."""
    doubles: Doubles


class Kill(BaseModel):
    """One kill -9."""

    model_config = ConfigDict(frozen=True)

    after_seconds: float
    tiles_done: int
    """Finished when it came, of the whole job."""
    writing: bool
    """Whether it came while results were written."""


class Crashes(ScenePart):
    """One job that is killed and gone on with again and again."""

    side: int
    tiles: int
    kills: list[Kill]
    equal: dict[str, bool]
    """By file: whether its bytes are those of an unbroken run."""


class Workers(ScenePart):
    """`detect --engine ray` by the number of workers, by turns."""

    side: int
    runs: dict[int, list[Run]]


class SceneFigures(BaseModel):
    """All parts that have been measured so far."""

    growth: Growth | None = None
    compared: Compared | None = None
    seams: Seams | None = None
    crashes: Crashes | None = None
    workers: Workers | None = None

    @classmethod
    def read(cls, file: Path) -> "SceneFigures":
        """What an earlier run has left; nothing where there is no such file."""
        return cls.model_validate_json(file.read_bytes()) if file.is_file() else cls()

    def write(self, file: Path) -> None:
        """Keep it for a later run, and for scripts."""
        file.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
