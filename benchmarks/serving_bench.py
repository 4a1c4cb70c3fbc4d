"""What every part of benchmarks/serving.py needs: the model, the pictures, the way to the peers."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from benchmarks.serving_figures import Provenance
from benchmarks.serving_pictures import Pictures
from benchmarks.serving_servers import Server, Variant, detections, running, start_peer

COMPARED_PICTURES = 8


@dataclass(frozen=True)
class Bench:
    """What every part needs.

    Attributes:
        peers: the interpreter of their environment.
        scale: 1 for rounds of full length.
        log: where the servers write.
    """

    model_dir: Path
    pictures: Pictures
    peers: Path | None
    scale: float
    provenance: Provenance
    log: TextIO | None

    def say(self, text: str) -> None:
        """Tell whoever waits."""
        print(text, flush=True)

    def start_peer(self, name: str, variant: Variant) -> Server:
        """One variant of a peer.

        Raises:
            ValueError: nobody said where the peers are.
        """
        if self.peers is None:
            raise ValueError("the peers have an environment of their own; name its interpreter with --peers")
        return start_peer(name, variant, self.peers, self.model_dir, self.log)

    def scaled(self, number: int) -> int:
        """So many, or fewer where the run is a short one; at least one."""
        return max(1, round(number * min(1.0, self.scale)))

    @contextmanager
    def frozen(self, servers: Sequence[Server]) -> Iterator[None]:
        """All of them answering, agreeing on the boxes, and with their clocks stopped."""
        call = self.pictures.sparse[0]
        with ExitStack() as stack:
            for server in servers:
                self.say(f"starting {server.name} ({server.settings})")
                stack.enter_context(running(server, call))
            self._check_agreement(servers)
            for server in servers:
                server.freeze()
            yield

    def _check_agreement(self, servers: Sequence[Server]) -> None:
        """Whoever is faster because it does something else must not be compared."""
        calls = list(zip(range(COMPARED_PICTURES), self.pictures.mixed(0), strict=False))
        for _, call in calls:
            said = [detections(server, call) for server in servers]
            for server, found in zip(servers[1:], said[1:], strict=True):
                if not same_boxes(said[0], found):
                    raise RuntimeError(f"{server.name} and {servers[0].name} do not find the same on a picture")


def same_boxes(ours: Sequence[dict], theirs: Sequence[dict]) -> bool:
    """Alike but for the rounding of another order of sums."""
    if len(ours) != len(theirs):
        return False
    boxes = [np.array([item["box"] for item in found]) for found in (ours, theirs)]
    labels = [[item["label"] for item in found] for found in (ours, theirs)]
    return labels[0] == labels[1] and bool(np.allclose(*boxes, atol=0.1))
