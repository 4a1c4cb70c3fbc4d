"""Engines on disk. Each has a small JSON beside it that says what it is, and is used only if both agree.

An engine is code for one GPU and one version of TensorRT. What it is good for is its key, and the key's digest is its
name. TensorRT runs whatever the file holds, so only trusted people may be able to write to the folder.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from export.engines.build import Built
from export.engines.library import EnginePrecision, LibraryName, logger
from export.engines.profile import Shapes
from export.folder import write_whole
from export.manifest import sha256
from model.config import Config


class EngineKey(Config):
    """What an engine is good for: another value of any of these is another engine."""

    library: LibraryName
    version: str
    gpu: str
    compute_capability: str
    graph: str
    """File of the model folder."""
    graph_sha256: str
    """Of the ONNX bytes that were built."""
    precision: EnginePrecision
    shapes: Shapes
    workspace_mib: int | None

    @property
    def stem(self) -> str:
        """File name of the engine, without its ending."""
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()
        return f"{self.graph.partition('.')[0]}-{self.precision}-{digest[:16]}"


class EngineRecord(Config):
    """The JSON beside an engine."""

    key: EngineKey
    engine_sha256: str
    engine_bytes: int
    build_seconds: float
    host_peak_mib: int
    """Most memory of the building process."""


class EngineCache:
    """A folder of engines and kernel timings."""

    def __init__(self, folder: Path) -> None:
        """Make the folder if need be. Raises OSError where that is not allowed."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def find(self, key: EngineKey) -> Path | None:
        """The engine of a key; without a word if there is none, and with a warning if it is damaged."""
        path = self.folder / f"{key.stem}.engine"
        if not path.exists():
            return None
        try:
            fits = read_record(path).key == key
        except (OSError, ValueError) as error:
            logger.warning("%s; it is built anew", error)
            return None
        return path if fits else None

    def put(self, key: EngineKey, built: Built) -> Path:
        """Keep an engine; the JSON comes last, and an engine without it counts as damaged."""
        path = self.folder / f"{key.stem}.engine"
        record = EngineRecord(
            key=key,
            engine_sha256=hashlib.sha256(built.engine).hexdigest(),
            engine_bytes=len(built.engine),
            build_seconds=round(built.seconds, 1),
            host_peak_mib=built.host_peak_mib,
        )
        write_whole(path, built.engine)
        write_whole(_beside(path), (record.model_dump_json(indent=2) + "\n").encode())
        return path

    def get(self, key: EngineKey, build: Callable[[], Built]) -> tuple[Path, bool]:
        """The engine of a key, built if it is not there; and whether it was."""
        if found := self.find(key):
            return found, True
        return self.put(key, build()), False

    def timings(self, key: EngineKey) -> Path:
        """The file of kernel timings on this GPU with this version."""
        return self.folder / f"timing-{_plain(key.gpu)}-{_plain(key.version)}.cache"


def read_record(engine: Path) -> EngineRecord:
    """What the JSON says of an engine, if it is about these bytes.

    Raises:
        FileNotFoundError: one of the two is missing.
        ValueError: the JSON is damaged, or the engine is not the one that it describes.
    """
    try:
        record = EngineRecord.model_validate_json(_beside(engine).read_bytes())
    except ValidationError as error:
        raise ValueError(f"{_beside(engine)} does not describe an engine") from error
    if sha256(engine) != record.engine_sha256:
        raise ValueError(f"{engine} is not the engine that {_beside(engine).name} describes")
    return record


def _beside(engine: Path) -> Path:
    return engine.with_suffix(".json")


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-").lower()
