"""The calls that the servers are compared with: real pictures, three sparse ones to one crowded, in a fixed order."""

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import Call, poisson, upload
from service.manifest import Manifest

SPARSE, CROWDED = "sparse", "crowded"
SPARSE_TO_CROWDED = 3
PATH = "/detect?tile=off"
"""One canvas a picture, as the peers do; they do not read the query."""


@dataclass(frozen=True)
class Pictures:
    """Calls with pictures of both kinds."""

    sparse: tuple[Call, ...]
    crowded: tuple[Call, ...]

    def mixed(self, seed: int) -> Iterator[Call]:
        """For ever three sparse ones and a crowded one; each kind in turns, from a place that the seed says."""
        sparse, crowded = (_from_anywhere(calls, seed) for calls in (self.sparse, self.crowded))
        for place in itertools.count():
            yield next(crowded if place % (SPARSE_TO_CROWDED + 1) == SPARSE_TO_CROWDED else sparse)

    def only_sparse(self, seed: int) -> Iterator[Call]:
        """Sparse ones for ever."""
        return _from_anywhere(self.sparse, seed)

    def arrivals(self, rate: float, seconds: float, seed: int) -> list[tuple[float, Call]]:
        """The mix at random times. The kind is drawn for each arrival, so that both kinds arrive at random, too."""
        chance = random.Random(seed)
        sparse, crowded = (_from_anywhere(calls, seed) for calls in (self.sparse, self.crowded))
        share = 1 / (SPARSE_TO_CROWDED + 1)
        return [(time, next(crowded if chance.random() < share else sparse)) for time in poisson(rate, seconds, seed)]


def read_pictures(data: Path, split: str, manifest: Manifest) -> Pictures:
    """Calls from a folder with images/ and instances_<split>.json, sorted by how many objects people found.

    Crowded are those on which the decoder spends more queries than its least number; the others are sparse.

    Raises:
        ValueError: the folder has no picture of one kind.
    """
    annotations = json.loads((data / f"instances_{split}.json").read_text(encoding="utf-8"))
    objects = Counter(annotation["image_id"] for annotation in annotations["annotations"])
    at_least = crowded_from(manifest)
    calls: dict[str, list[Call]] = {SPARSE: [], CROWDED: []}
    for image in sorted(annotations["images"], key=lambda image: image["file_name"]):
        kind = CROWDED if objects[image["id"]] >= at_least else SPARSE
        calls[kind].append(upload(kind, (data / "images" / image["file_name"]).read_bytes(), PATH))
    for kind, found in calls.items():
        if not found:
            raise ValueError(f"{data} has no {kind} picture in {split}; crowded begins at {at_least} objects")
    return Pictures(tuple(calls[SPARSE]), tuple(calls[CROWDED]))


def crowded_from(manifest: Manifest) -> int:
    """The least number of objects that asks for more than `k_min` queries."""
    return int(manifest.query.k_min / manifest.query.t) + 1


def _from_anywhere(calls: tuple[Call, ...], seed: int) -> Iterator[Call]:
    begin = random.Random(seed).randrange(len(calls))
    return itertools.islice(itertools.cycle(calls), begin, None)
