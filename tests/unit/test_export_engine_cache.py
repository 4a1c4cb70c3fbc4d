"""What the cache of TensorRT engines keeps, and what it builds anew."""

import os
from pathlib import Path
from typing import Any

import pytest

from engine_key import BUILT, KEY
from export.engines.cache import EngineCache
from export.folder import write_whole


def test_an_engine_is_built_once(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    path, known = cache.get(KEY, lambda: BUILT)
    again, known_again = cache.get(KEY, pytest.fail)
    assert (path, known, known_again) == (again, False, True)
    assert path.read_bytes() == b"an engine"


@pytest.mark.parametrize(
    "change",
    [
        {"gpu": "NVIDIA L40"},
        {"compute_capability": "9.0"},
        {"version": "10.14.1"},
        {"library": "tensorrt-rtx"},
        {"precision": "bf16"},
        {"graph_sha256": "1" * 64},
        {"shapes": {"images": ((1, 3, 64, 64), (1, 3, 64, 64), (8, 3, 64, 64))}},
        {"workspace_mib": 512},
    ],
)
def test_another_key_is_another_engine(tmp_path: Path, change: dict[str, Any]) -> None:
    cache = EngineCache(tmp_path)
    cache.put(KEY, BUILT)
    assert cache.find(KEY.model_copy(update=change)) is None


@pytest.mark.parametrize("content", [b"", b"an engin", b"an engine of somebody else"])
def test_a_damaged_engine_is_built_anew(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    cache = EngineCache(tmp_path)
    path = cache.put(KEY, BUILT)
    path.write_bytes(content)
    assert cache.get(KEY, lambda: BUILT) == (path, False)
    assert path.read_bytes() == b"an engine"
    assert "built anew" in caplog.text


@pytest.mark.parametrize("content", [None, b"", b"{", b"{}", b"[]"])
def test_an_engine_with_a_damaged_description_is_built_anew(tmp_path: Path, content: bytes | None) -> None:
    cache = EngineCache(tmp_path)
    beside = cache.put(KEY, BUILT).with_suffix(".json")
    beside.unlink() if content is None else beside.write_bytes(content)
    assert cache.find(KEY) is None


def test_an_engine_under_the_name_of_another_is_not_used(tmp_path: Path) -> None:
    cache, other = EngineCache(tmp_path), KEY.model_copy(update={"gpu": "NVIDIA L40"})
    path = cache.put(KEY, BUILT)
    for ending in (".engine", ".json"):
        path.with_suffix(ending).rename(tmp_path / f"{other.stem}{ending}")
    assert cache.find(other) is None


def test_engines_are_for_everybody_to_read(tmp_path: Path) -> None:
    assert EngineCache(tmp_path).put(KEY, BUILT).stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    (tmp_path / "a.engine").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_whole(tmp_path / "a.engine", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
