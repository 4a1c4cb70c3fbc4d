"""The tiles of a scene, mapped by Ray Data over processes with a model each.

The tile table is the checkpoint: what comes back is kept in it as by any other scan; only what it lacks is sent out.
"""

import logging
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import ray.data
from ray.exceptions import RayError

from service.errors import EngineError
from service.loading import load_model
from service.scenes.recipe import Scene, SceneRequest, prepare_scene
from service.scenes.scan import Finished, payload_of, read_tile
from service.scenes.tile_table import TileTable
from service.settings import Settings

# Tiles that travel together: one where they are few, so that the work is shared evenly and little is lost by a kill.
_MOST_TOGETHER, _SHARES = 16, 32
_MODEL_SETTINGS = {"models", "model", "provider", "precision", "threads", "engines"}
"""What another process needs of the settings to load the same model: no keys, no passwords."""
_ERROR = re.compile(r"^(?!ray\.)[\w.]+(?:Error|Exception): .+", re.MULTILINE)


@dataclass(frozen=True)
class RayScan:
    """Scans scenes on the Ray cluster that this process is connected to.

    Attributes:
        lanes: processes with a model; each takes a core, and a GPU where the model runs on one.
    """

    settings: Settings
    lanes: int

    def __call__(self, scene: Scene, table: TileTable, *, stop: Event, report: Callable[[Finished], None]) -> bool:
        """Work until every tile has a result or `stop` is set; whether the scene is complete.

        Raises:
            EngineError: a process could not work.
            StorageError
        """
        numbers = table.unfinished()
        if numbers:
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            ray.data.DataContext.get_current().enable_progress_bars = False
            try:
                self._map(scene, numbers, table, stop, report)
            except RayError as error:
                raise EngineError(f"on Ray: {_reason(error)}") from error
        return table.counts().complete

    def _map(
        self, scene: Scene, numbers: list[int], table: TileTable, stop: Event, report: Callable[[Finished], None]
    ) -> None:
        together = min(_MOST_TOGETHER, max(1, len(numbers) // (self.lanes * _SHARES)))
        model = self.settings.model_copy(update={"models": self.settings.models.resolve()})
        found = ray.data.from_items(numbers, override_num_blocks=-(-len(numbers) // together)).map(
            TileDetector,  # pyright: ignore[reportArgumentType]  # Ray's own stubs do not know classes that are called
            fn_constructor_args=[
                scene.path.resolve(),
                scene.request.to_json(),
                model.model_dump(include=_MODEL_SETTINGS),
                scene.fingerprint,
            ],
            compute=ray.data.ActorPoolStrategy(size=self.lanes),
            num_cpus=1,
            num_gpus=0 if self.settings.provider == "cpu" else 1,
        )
        for row in found.iter_rows():
            tile = Finished(row["number"], row["skipped"], row["objects"])
            if table.finish(tile.number, row["payload"], tile.skipped, tile.objects):
                report(tile)
            if stop.is_set():
                break


class TileDetector:
    """Lives in a process of Ray's, perhaps on another machine; loads the model and opens the file once."""

    def __init__(self, path: Path, request: str, model: dict[str, Any], fingerprint: str) -> None:
        """Prove that file and model are those of the driver.

        Args:
            request: a `SceneRequest` as JSON.
            model: the settings that name the model.
            fingerprint: of the scene, as the driver sees it.
        """
        self._predictor = load_model(Settings(**model)).predictor
        self._scene = prepare_scene(path, SceneRequest.from_json(request), self._predictor)
        if self._scene.fingerprint != fingerprint:
            node = ray.util.get_node_ip_address()
            raise EngineError(
                f"{path} or the model in {model['models']} on {node} is not the one of the machine that asks; "
                "share one folder, or copy the same files to every machine, with their times"
            )
        self._open = ExitStack()  # for the life of the process
        self._reader = self._open.enter_context(self._scene.open())

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """What is kept of one tile."""
        number = int(row["item"])
        tile = read_tile(self._scene, self._reader, number)
        result = None if tile.pixels is None else self._predictor.run(tile.pixels)
        payload, objects = payload_of(self._scene, number, result)
        return {"number": number, "payload": payload, "skipped": result is None, "objects": objects}


def _reason(error: RayError) -> str:
    """What was raised in the other process, out of the stacks of all that stood between."""
    found = _ERROR.findall(str(error))
    return found[-1] if found else str(error)
