"""How far a scene is, told on a stream."""

from io import StringIO

import pytest

from service.scenes import progress
from service.scenes.progress import Progress
from service.scenes.scan import Finished
from service.scenes.tile_table import Counts


class Terminal(StringIO):
    """A stream that somebody watches."""

    def isatty(self) -> bool:
        return True


def work(stream: StringIO, done: int = 0, objects: int = 0) -> str:
    with Progress("city.tif", Counts(4, done, 0, objects), 100.0, stream) as shown:
        for number in range(done, 4):
            shown.report(Finished(number, False, 3))
    return stream.getvalue()


def test_a_file_gets_whole_lines() -> None:
    (line,) = work(StringIO()).splitlines()
    assert "\r" not in line
    assert line.startswith("city.tif: 4 of 4 tiles, ")
    assert line.endswith(" objects")


def test_objects_and_megapixels_are_told() -> None:
    assert " MP/s, 12 objects" in work(StringIO())


def test_what_was_finished_before_counts_but_not_as_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 10.0])
    monkeypatch.setattr(progress, "monotonic", lambda: next(times))
    assert " 2.5 MP/s, 10 objects" in work(StringIO(), done=3, objects=7)  # one tile of 25 MP in 10 s


def test_a_terminal_gets_a_bar() -> None:
    assert "100% |" in work(Terminal())
