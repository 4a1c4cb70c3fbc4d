"""What every part of benchmarks/serving.py needs: the model, the pictures, the way to the peers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from benchmarks.serving_figures import Provenance
from benchmarks.serving_pictures import Pictures
from benchmarks.serving_servers import Server, Variant, detections, running, start_ours, start_peer
from service.detections import pairwise_iou

COMPARED_PICTURES = 8
SURE, LIKE_IOU, LEAST_AGREEMENT = 0.5, 0.7, 0.95
"""Not all need to agree on what is in doubt: ours leaves the padding away, which moves scores a little."""


@dataclass(frozen=True)
class Bench:
    """What every part needs.

    Attributes:
        peers: the interpreter of their environment.
        cut: the peers leave the padding of the canvas away, as ours does.
        settings: environment variables of our service beside the defaults.
        scale: 1 for rounds of full length.
        log: where the servers write.
    """

    model_dir: Path
    pictures: Pictures
    peers: Path | None
    cut: bool
    settings: Mapping[str, str]
    scale: float
    provenance: Provenance
    log: TextIO | None

    def say(self, text: str) -> None:
        """Tell whoever waits."""
        print(text, flush=True)

    def start_ours(self) -> Server:
        """Our service."""
        return start_ours(self.model_dir, self.settings, self.log)

    def start_peer(self, name: str, variant: Variant) -> Server:
        """One variant of a peer.

        Raises:
            ValueError: nobody said where the peers are.
        """
        if self.peers is None:
            raise ValueError("the peers have an environment of their own; name its interpreter with --peers")
        return start_peer(name, variant, self.peers, self.model_dir, self.cut, self.log)

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
        """Whoever is faster because it finds less must not be compared.

        Raises:
            RuntimeError: it does.
        """
        calls = [call for call, _ in zip(self.pictures.mixed(0), range(COMPARED_PICTURES), strict=False)]
        found = [[detections(server, call) for call in calls] for server in servers]
        for server, theirs in zip(servers[1:], found[1:], strict=True):
            share = agreement(found[0], theirs)
            if share < LEAST_AGREEMENT:
                raise RuntimeError(f"{server.name} and {servers[0].name} agree on {share:.0%} of the objects only")


def agreement(ours: Sequence[Sequence[dict]], theirs: Sequence[Sequence[dict]]) -> float:
    """Share of the sure detections of either, picture by picture, that the other has, too; 1 where there are none."""
    told = [
        _has_like(item, others)
        for one, other in zip(ours, theirs, strict=True)
        for items, others in ((one, other), (other, one))
        for item in items
        if item["score"] > SURE
    ]
    return float(np.mean(told)) if told else 1.0


def _has_like(item: dict, others: Sequence[dict]) -> bool:
    boxes = np.array([other["box"] for other in others if other["label"] == item["label"]], np.float32).reshape(-1, 4)
    return bool((pairwise_iou(np.array([item["box"]], np.float32), boxes) > LIKE_IOU).any())
