"""How far a scene is: a bar where somebody watches, plain lines where it goes to a file."""

from time import monotonic
from types import TracebackType
from typing import Self, TextIO, cast

from tqdm import tqdm

from service.scenes.scan import Finished
from service.scenes.tile_table import Counts

_BAR = "{desc}: {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} tiles [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
_LINE = "{desc}: {n_fmt} of {total_fmt} tiles, {elapsed} gone, {remaining} left, {rate_noinv_fmt}{postfix}"
_BAR_SECONDS, _LINE_SECONDS = 0.2, 10.0


class Progress:
    """Counts the tiles of one scene; a context manager."""

    def __init__(self, name: str, counts: Counts, megapixels: float, stream: TextIO) -> None:
        """Go on from what is finished already.

        Args:
            megapixels: of the whole scene.
        """
        watched = stream.isatty()
        self._objects, self._begun, self._finished = counts.objects, monotonic(), 0
        self._megapixels_per_tile = megapixels / counts.tiles
        self._bar: tqdm = tqdm(
            total=counts.tiles,
            initial=counts.done,
            desc=name,
            unit=" tiles",
            file=stream if watched else cast(TextIO, _Lines(stream)),
            bar_format=_BAR if watched else _LINE,
            dynamic_ncols=watched,
            mininterval=_BAR_SECONDS if watched else _LINE_SECONDS,
            maxinterval=_LINE_SECONDS,
        )

    def report(self, tile: Finished) -> None:
        """Count a finished tile."""
        self._objects += tile.objects
        self._finished += 1
        speed = self._finished * self._megapixels_per_tile / max(monotonic() - self._begun, 1e-3)
        self._bar.set_postfix_str(f"{speed:.1f} MP/s, {self._objects:,} objects", refresh=False)
        self._bar.update()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


class _Lines:
    """What tqdm writes over itself, as lines, but for the first, which comes before any tile and says nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._begun = stream, False

    def write(self, text: str) -> None:
        """Take one state of the bar, or the line end that it closes with."""
        line = text.strip("\r\n ")
        if line and self._begun:
            self._stream.write(line + "\n")
        self._begun = True

    def flush(self) -> None:
        """Show it at once."""
        self._stream.flush()
