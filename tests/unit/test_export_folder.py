"""A model folder is whole or not there."""

from pathlib import Path

import pytest

from export.folder import new_folder


def test_a_folder_appears_when_the_block_ends_well(tmp_path: Path) -> None:
    out = tmp_path / "models" / "tiny" / "1"
    with new_folder(out) as folder:
        (folder / "model.json").write_text("{}", encoding="utf-8")
        assert not out.exists()
    assert [path.name for path in out.iterdir()] == ["model.json"]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny"]


def stop_half_way(path: Path) -> None:
    path.write_bytes(b"half")
    raise KeyboardInterrupt


def test_nothing_stays_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "models" / "tiny" / "1") as folder:
        stop_half_way(folder / "encoder.onnx")
    assert not list(tmp_path.iterdir())


def test_other_versions_stay_when_the_block_fails(tmp_path: Path) -> None:
    (tmp_path / "tiny" / "1").mkdir(parents=True)
    with pytest.raises(ValueError, match="no"), new_folder(tmp_path / "tiny" / "2"):
        raise ValueError("no")
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["1"]


def test_a_version_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "tiny" / "1"
    with pytest.raises(FileExistsError, match="choose another version"), new_folder(out):
        out.mkdir()
    assert out.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_half_written_folder_is_no_version_of_the_model(tmp_path: Path) -> None:
    with new_folder(tmp_path / "tiny" / "1") as folder:
        (folder / "model.json").write_text("{}", encoding="utf-8")
        assert not list(tmp_path.glob("*/*/model.json"))


def test_the_folder_can_be_read_by_others(tmp_path: Path) -> None:
    with new_folder(tmp_path / "tiny" / "1"):
        pass
    assert (tmp_path / "tiny" / "1").stat().st_mode & 0o777 == 0o755
