"""Cuts large pictures into overlapping chips of one size, as DOTA's tools do."""

from dataclasses import dataclass, replace

from training.data.convert.records import Box, Size
from training.data.convert.report import Report

Window = tuple[int, int, int, int]
"""left, top, right, bottom in pixels of the whole picture; right and bottom are the first pixels outside."""


@dataclass(frozen=True)
class Chipping:
    """How pictures are cut. A picture that fits into one chip stays whole."""

    side: int
    """Width and height of a chip in pixels."""
    overlap: int
    """Pixels that neighbours share at least."""
    min_visible: float
    """Share of a box's area that must lie in the chip for it to count as an object there."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.side:
            raise ValueError(f"--overlap is {self.overlap} px; it must be from 0 to --chip {self.side} px less one")
        if not 0 < self.min_visible <= 1:
            raise ValueError(f"--min-visible is {self.min_visible}; it must be above 0 and at most 1")

    def windows(self, size: Size) -> list[Window]:
        """Chips in reading order; the last of a row or column is moved back so that it ends at the border."""
        columns, rows = (_starts(length, self.side, self.overlap) for length in size)
        width, height = (min(length, self.side) for length in size)
        return [(x, y, x + width, y + height) for y in rows for x in columns]


def boxes_in(window: Window, boxes: list[Box], min_visible: float) -> list[tuple[int, Box]]:
    """Boxes that reach into a window, in its pixels, each with its place in `boxes`.

    A box of which less than `min_visible` is inside becomes crowd: it is no object to find there.
    """
    left, top, right, bottom = window
    found = []
    for place, box in enumerate(boxes):
        x1, y1, x2, y2 = box.corners
        cut = (max(x1, left), max(y1, top), min(x2, right), min(y2, bottom))
        if cut[0] >= cut[2] or cut[1] >= cut[3]:
            continue
        visible = (cut[2] - cut[0]) * (cut[3] - cut[1]) / ((x2 - x1) * (y2 - y1))
        corners = (cut[0] - left, cut[1] - top, cut[2] - left, cut[3] - top)
        found.append((place, replace(box, corners=corners, crowd=box.crowd or visible < min_visible)))
    return found


def cut_boxes(
    windows: list[Window], boxes: list[Box], min_visible: float, report: Report
) -> list[tuple[Window, list[Box]]]:
    """The boxes of every window; objects that are whole enough in none are counted."""
    chips = [(window, boxes_in(window, boxes, min_visible)) for window in windows]
    whole = {place for _, found in chips for place, box in found if not box.crowd}
    wanted = sum(not box.crowd for box in boxes)
    report.remarks["objects visible enough in no chip (crowd boxes there); raise --overlap to keep them"] += (
        wanted - len(whole)
    )
    return [(window, [box for _, box in found]) for window, found in chips]


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """First pixels of the chips along one side of the picture."""
    if length <= side:
        return [0]
    return [*range(0, length - side, side - overlap), length - side]
