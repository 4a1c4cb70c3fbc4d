"""`python -m service detect INPUT... --out PATH`: scenes of any size without a server."""

import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Event
from types import FrameType

from service.detections import DetectionOptions
from service.engines.onnx import EngineLoadError
from service.errors import ServiceError
from service.loading import find_model, load_model
from service.manifest import Manifest, ModelFolderError
from service.scale_out.cluster import ClusterError, connected
from service.scenes.detecting import Detector, Done, Scan
from service.scenes.options import DetectOptions
from service.scenes.outputs import Outputs, Task, UsageError, plan_tasks
from service.scenes.recipe import SceneModel
from service.scenes.request_text import read_request
from service.scenes.scan import scan_scene
from service.settings import Settings

SOME_FAILED, USAGE, INTERRUPTED = 1, 2, 130
# A killed run holds its last tiles so long; a scene that has only these left waits for them.
_LEASE_SECONDS = 10.0


def detect(given: DetectOptions, settings: Settings, arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status: 0 all done, 1 some inputs failed, 2 nothing begun, 130 interrupted.

    Args:
        arguments: of the command line, for the line that goes on with it.
    """
    try:
        tasks = plan_tasks(given.inputs, Outputs(given.out, given.format, given.heat, given.preview))
        _refuse_begun(tasks, given.resume)
        with _engine(given, settings) as (model, scan):
            request = read_request(given, model.manifest, heat=given.heat is not None)
            options = _options(given, model.manifest, request.floor)
            with _signals_stop() as stop:
                failed = _work(Detector(model, scan, request, options, stop), tasks, given.resume)
    except (UsageError, ModelFolderError, EngineLoadError, ClusterError, ServiceError) as error:
        print(error, file=sys.stderr)
        return USAGE
    if failed is None:
        line = shlex.join(["python", "-m", "service", *arguments, *([] if given.resume else ["--resume"])])
        print(f"interrupted; what is finished is kept. Go on with: {line}", file=sys.stderr)
        return INTERRUPTED
    return SOME_FAILED if failed else 0


@contextmanager
def _engine(given: DetectOptions, settings: Settings) -> Iterator[tuple[SceneModel, Scan]]:
    match given.engine:
        case "local":
            if given.ray_address is not None:
                raise UsageError("--ray-address: add --engine ray, or leave it out")
            predictor = load_model(settings).predictor
            yield predictor, partial(scan_scene, detect=predictor.run, lanes=given.lanes, lease_seconds=_LEASE_SECONDS)
        case "ray":
            model = find_model(settings)
            with connected(given.ray_address, given.lanes):
                from service.scale_out.scan import RayScan  # with Ray, which may be absent

                yield model, RayScan(settings, given.lanes)


def _work(detector: Detector, tasks: Sequence[Task], resume: bool) -> int | None:
    """How many inputs failed; None where the work was interrupted."""
    failures: list[str] = []
    for task in tasks:
        if resume and task.result.exists() and not task.state.exists():
            print(f"{task.source}: finished before, {task.result}")
            continue
        try:
            done = detector.run(task)
        except (ServiceError, OSError) as error:
            failures.append(f"{task.source}: {error}")
            print(failures[-1], file=sys.stderr)
            continue
        except KeyboardInterrupt:  # the second one: not even what has begun is finished
            return None
        if done is None:
            return None
        print(_describe(task, done))
    if failures and len(tasks) > 1:
        print(f"{len(failures):,} of {len(tasks):,} inputs failed:", *failures, sep="\n  ", file=sys.stderr)
    return len(failures)


def _describe(task: Task, done: Done) -> str:
    notes = "".join(f"; {note}" for note in done.notes)
    skipped = f", {done.skipped:,} without a valid pixel" if done.skipped else ""
    return f"{task.source}: {done.objects:,} objects in {task.result} ({done.tiles:,} tiles{skipped}{notes})"


def _refuse_begun(tasks: Sequence[Task], resume: bool) -> None:
    """Hours of work are neither thrown away nor taken up again unasked."""
    begun = [task.state for task in tasks if task.state.exists()]
    if begun and not resume:
        raise UsageError(
            f"{begun[0]} is of a run that did not end: add --resume to go on with it, or delete it to begin anew"
        )


def _options(given: DetectOptions, manifest: Manifest, floor: float) -> DetectionOptions:
    names = given.classes or []
    if unknown := [name for name in names if name not in manifest.classes]:
        raise UsageError(f"--classes: {', '.join(unknown)}: the model knows {', '.join(manifest.classes)}")
    wanted = [manifest.classes.index(name) for name in names] or None
    if given.threshold is not None and given.threshold < floor:
        raise UsageError(f"--threshold {given.threshold:g}: only what scores above {floor:g} is kept; take {floor:g}")
    return DetectionOptions.from_manifest(manifest, given.threshold, classes=wanted)


@contextmanager
def _signals_stop() -> Iterator[Event]:
    """The first Ctrl-C or SIGTERM lets what has begun end; a second one does what it always does."""
    stop = Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
