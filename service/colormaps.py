"""Colour tables for heat: a few anchors each, joined by straight lines in RGB."""

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Colormap = Literal["turbo", "inferno", "viridis"]

# 17 evenly spaced anchors each. Sources: turbo by A. Mikhailov (Google, 2019); inferno and viridis by
# S. van der Walt and N. Smith (CC0, 2015). Straight lines between them stay within 7 of 255 of the originals.
_ANCHORS: dict[Colormap, str] = {
    "turbo": "30123b 4040a2 466be3 4294ff 28bceb 18ddc2 32f298 6dfe62 a4fc3c "
    "cdec34 eecf3a fdac34 fb7e21 eb500e d02f05 a91601 7a0403",
    "inferno": "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 "
    "d24644 e45a31 f1731d f98e09 fcac11 f9cb35 f2ea69 fcffa4",
    "viridis": "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c "
    "1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725",
}


@cache
def color_table(name: Colormap) -> NDArray[np.uint8]:
    """(256, 3) RGB, from cold to hot."""
    anchors = np.array([list(bytes.fromhex(anchor)) for anchor in _ANCHORS[name].split()])  # (17, 3)
    positions = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(positions, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)
