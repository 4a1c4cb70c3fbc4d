"""Checkpoints that survive crashes, and a journal without repetitions."""

import errno
import json
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from model.config import DetectorConfig
from model.detector import Detector
from training.config import OptimizerConfig
from training.ema import AveragedDetector
from training.optimizer import make_optimizer
from training.tracking import KEPT_BAD, PARTIAL, STATE, Journal, RunFolder, changes, restore, write_whole

CONFIG = OptimizerConfig(
    learning_rate=0.1, backbone_factor=1, weight_decay=0.01, clip_norm=1, warmup_steps=0,
    schedule="cosine", flat=1, final=1, ema_decay=0.9,
)  # fmt: skip
Parts = tuple[Detector, AveragedDetector, torch.optim.AdamW]


def parts_of(config: DetectorConfig, seed: int) -> Parts:
    """A fresh detector with its average and an optimizer that has made one step."""
    torch.manual_seed(seed)
    detector = Detector(config).train()
    average, optimizer = AveragedDetector(detector, 0.9), make_optimizer(detector, CONFIG)
    for parameter in detector.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    average.update(0)
    return detector, average, optimizer


@pytest.fixture
def parts(tiny_detector: Detector) -> Parts:
    return parts_of(tiny_detector.config, seed=1)


def test_a_restored_run_is_the_saved_one_to_the_last_bit(tmp_path: Path, parts: Parts) -> None:
    detector, average, optimizer = parts
    checkpoint = RunFolder(tmp_path).save(7, *parts)
    drawn = torch.rand(3)
    other, other_average, other_optimizer = parts_of(detector.config, seed=2)
    assert restore(checkpoint, other, other_average, other_optimizer) == 7
    assert torch.equal(torch.rand(3), drawn)
    for one, two in ((detector, other), (average.detector, other_average.detector)):
        theirs = two.state_dict()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())
    for one, two in zip(detector.parameters(), other.parameters(), strict=True):
        ours, theirs = optimizer.state[one], other_optimizer.state[two]
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[slot], theirs[slot]) for slot in ours)


def test_optimizer_slots_come_back_in_the_layout_of_their_parameter(tmp_path: Path, parts: Parts) -> None:
    checkpoint = RunFolder(tmp_path).save(1, *parts)
    detector, average, optimizer = parts_of(parts[0].config, seed=2)
    weight = detector.get_parameter("backbone.stem.0.weight")
    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    restore(checkpoint, detector, average, optimizer)
    assert optimizer.state[weight]["exp_avg"].stride() == weight.stride()


def test_the_newest_checkpoint_is_the_one_with_most_steps(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.latest() is None
    for step in (5, 999_999, 1_000_000):
        (folder.checkpoints / f"step-{step:06d}").mkdir()
    latest = folder.latest()
    assert latest is not None
    assert latest.name == "step-1000000"


def test_only_the_newest_checkpoints_stay(tmp_path: Path, parts: Parts) -> None:
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.save(step, *parts)
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["step-000002", "step-000003"]


def test_a_checkpoint_that_was_being_written_is_passed_over_and_cleared_away(tmp_path: Path, parts: Parts) -> None:
    folder = RunFolder(tmp_path)
    whole = folder.save(1, *parts)
    broken = folder.checkpoints / f"step-000002{PARTIAL}"
    shutil.copytree(whole, broken)
    (broken / STATE).write_bytes(b"cut short")
    assert folder.latest() == whole
    folder.save(2, *parts)
    assert not broken.exists()


def test_a_checkpoint_is_no_checkpoint_until_all_of_it_is_written(
    tmp_path: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    folder = RunFolder(tmp_path)
    before = folder.save(1, *parts)
    monkeypatch.setattr("training.tracking._state", crash)
    with pytest.raises(KeyboardInterrupt):
        folder.save(2, *parts)
    assert folder.latest() == before


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The system refuses to write more than this many bytes of a file, as it does where a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [-1, 1])  # the weights just do not fit; they do, but not the training state
def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path: Path, parts: Parts, room: int) -> None:
    folder = RunFolder(tmp_path)
    before = folder.save(1, *parts)
    size = (before / "model.safetensors").stat().st_size + room
    message = r"step-000002 could not be written .*: it needs \d\.\d MB, and .* MB are free; .* resume from step-000001"
    with pytest.raises(OSError, match=message), no_file_above(size):
        folder.save(2, *parts)
    assert [path.name for path in folder.checkpoints.iterdir()] == ["step-000001"]
    assert restore(before, *parts) == 1
    folder.save(2, *parts)


def test_a_disk_that_is_full_from_the_beginning_is_named(
    tmp_path: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("training.tracking.save_file", full)
    with pytest.raises(OSError, match=r"No space left on device.*make room, then begin again"):
        RunFolder(tmp_path).save(1, *parts)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_journal_on_a_full_disk_keeps_what_it_had(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    journal.write(1, {"loss": 1.0})
    message = r"figures of step 2 could not be written.*go on from the newest checkpoint"
    journal.board.flush()  # which writes in a thread of its own, where the limit would end it
    size = (tmp_path / "metrics.jsonl").stat().st_size + 5
    with pytest.raises(OSError, match=message), no_file_above(size):
        journal.write(2, {"loss": 2.0})
    journal.close()
    journal = Journal(tmp_path, 1)
    journal.write(2, {"loss": 2.5})
    journal.close()
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.5}]


def test_a_full_disk_does_not_cut_a_file_short(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    write_whole(path, "short")
    with pytest.raises(OSError, match="File too large"), no_file_above(5):
        write_whole(path, "much longer")
    assert path.read_text(encoding="utf-8") == "short"
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.toml"]


def test_bad_batches_are_noted_one_after_the_other(tmp_path: Path) -> None:
    folder, samples = RunFolder(tmp_path), [[{"id": 7, "path": "a.jpg"}], [{"id": 8, "path": "b.jpg"}]]
    folder.note_bad_batch(3, {"loss": float("nan"), "loss/dense": 1.5}, samples)
    path = folder.note_bad_batch(4, {"loss": float("inf")}, samples)
    first, second = json.loads(path.read_text(encoding="utf-8"))
    assert first == {"step": 3, "terms": {"loss": None, "loss/dense": 1.5}, "samples": samples}
    assert second["step"] == 4


def test_a_run_that_goes_bad_for_long_does_not_fill_the_disk(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    paths = {folder.note_bad_batch(step, {}, []) for step in range(KEPT_BAD + 2)}
    noted = json.loads(paths.pop().read_text(encoding="utf-8"))
    assert [batch["step"] for batch in noted] == list(range(2, KEPT_BAD + 2))


def test_a_key_that_one_side_lacks_is_a_change() -> None:
    before, after = {"run": {"seed": 1, "old": 2}}, {"run": {"seed": 1, "new": 3}}
    told = ["run.old: 2 in the run, nothing in the recipe", "run.new: nothing in the run, 3 in the recipe"]
    assert list(changes(before, after)) == told


@pytest.mark.parametrize(
    ("differences", "message"),
    [
        ({"width": 32}, "width: 16 in the run, 32 in the recipe"),
        ({"classes": ("plane", "boat")}, r"classes: \('plane', 'ship', 'tank'\) in the run, \('plane', 'boat'\)"),
        ({"heat": {"tau": 0.5}}, "heat.tau: 0.25 in the run, 0.5 in the recipe"),
    ],
)
def test_another_model_cannot_take_over_a_run(
    tmp_path: Path, parts: Parts, differences: dict[str, object], message: str
) -> None:
    checkpoint = RunFolder(tmp_path).save(1, *parts)
    other = parts_of(DetectorConfig.model_validate(parts[0].config.model_dump() | differences), seed=1)
    with pytest.raises(ValueError, match=message):
        restore(checkpoint, *other)


def test_a_checkpoint_without_training_state_cannot_be_resumed(tmp_path: Path, parts: Parts) -> None:
    checkpoint = RunFolder(tmp_path).save(1, *parts)
    (checkpoint / STATE).unlink()
    with pytest.raises(FileNotFoundError, match="the run cannot be resumed"):
        restore(checkpoint, *parts)


@pytest.mark.parametrize("name", [STATE, "model.safetensors"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, parts: Parts, name: str) -> None:
    path = RunFolder(tmp_path).save(1, *parts) / name
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=rf"step-000001/{name} is damaged"):
        restore(path.parent, *parts)


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path: Path, parts: Parts) -> None:
    files = sorted(RunFolder(tmp_path).save(1, *parts).iterdir())
    assert [file.name for file in files] == ["config.json", "model.safetensors", STATE]
    json.loads(files[0].read_text(encoding="utf-8"))
    for file in files[1:]:  # eight bytes of length, then JSON, then plain numbers
        data = file.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        assert header


def lines(path: Path) -> list[dict[str, float | None]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_journal_goes_on_where_the_checkpoint_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    for step in (1, 2, 3):
        journal.write(step, {"loss": 10.0 + step})
    journal.close()
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"step": 2, "lo')  # killed while writing
    journal = Journal(tmp_path, 2)
    journal.write(3, {"loss": 0.5})
    journal.close()
    assert lines(tmp_path) == [{"step": 1, "loss": 11.0}, {"step": 2, "loss": 12.0}, {"step": 3, "loss": 0.5}]


def test_a_figure_that_is_not_finite_is_null_in_the_log(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    journal.write(1, {"loss": float("nan"), "norm": 1.0})
    journal.close()
    assert lines(tmp_path) == [{"step": 1, "loss": None, "norm": 1.0}]


def test_the_journal_writes_curves_for_tensorboard(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    journal.write(1, {"loss": 1.0})
    journal.close()
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
