"""Many pictures at once: which are started when, and in which order their results come. Both clients share it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar

from service.client.pictures import Picture, PictureError
from service.client.problems import HeatqueryError, ProblemError
from service.client.results import Detections

_LOOK_AHEAD = 4  # results that may wait for a slow one before them, for each concurrent call
Progress = Callable[[int, int | None], None]
"""Called with the number of pictures done, and how many there are or None where that is not known."""


@dataclass(frozen=True, eq=False)
class PictureResult:
    """What became of one picture: `detections`, or the `error` that this picture alone is to blame for."""

    index: int
    picture: Picture
    detections: Detections | None
    error: HeatqueryError | OSError | None


class _Future(Protocol):
    def done(self) -> bool: ...

    def result(self) -> Detections: ...


FutureT = TypeVar("FutureT", bound=_Future)


class Window(Generic[FutureT]):
    """Calls in flight and results that wait for their turn, bounded however many pictures come."""

    def __init__(
        self,
        pictures: Iterable[Picture],
        start: Callable[[Picture], FutureT],
        concurrency: int,
        progress: Progress | None,
    ) -> None:
        """Start nothing yet."""
        self._pictures = enumerate(pictures)
        self._total = len(pictures) if isinstance(pictures, Sized) else None
        self._start = start
        self._concurrency = concurrency
        self._progress = progress
        self._queue: deque[tuple[int, Picture, FutureT]] = deque()
        self._returned = self._reported = 0

    def fill(self) -> bool:
        """Start what may be started; False where nothing is left."""
        room = self._concurrency - len(self.running())
        room = min(room, _LOOK_AHEAD * self._concurrency - len(self._queue))
        for index, picture in islice(self._pictures, max(room, 0)):
            self._queue.append((index, picture, self._start(picture)))
        return bool(self._queue)

    def running(self) -> set[FutureT]:
        """What is not done."""
        return {future for _, _, future in self._queue if not future.done()}

    def left(self) -> list[FutureT]:
        """What was started and whose result was not given out."""
        return [future for _, _, future in self._queue]

    def finished(self) -> Iterator[PictureResult]:
        """The results whose turn it is.

        Raises:
            HeatqueryError: one that every further picture would meet too.
        """
        self._report()
        while self._queue and self._queue[0][2].done():
            index, picture, future = self._queue.popleft()
            self._returned += 1
            yield _result(index, picture, future)

    def _report(self) -> None:
        done = self._returned + sum(future.done() for _, _, future in self._queue)
        if self._progress is not None and done > self._reported:
            self._progress(done, self._total)
        self._reported = done


def check_concurrency(concurrency: int) -> None:
    """Refuse a number with which no call at all could run."""
    if concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}; it must be 1 or more")


def _result(index: int, picture: Picture, future: _Future) -> PictureResult:
    try:
        return PictureResult(index, picture, future.result(), None)
    except ProblemError as error:
        if not error.concerns_picture:
            raise
        return PictureResult(index, picture, None, error)
    except (PictureError, OSError) as error:
        return PictureResult(index, picture, None, error)
