"""`make container-test-training`: build the training image, and go in it from pictures to a model folder, locked down.

It needs some 12 GB of disk for torch with its CUDA libraries, and minutes; so CI leaves it out.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from engine import LOCKED_DOWN, PODMAN, ROOT, WRITABLE, build_image, image_bytes, missing_programs, run

IMAGE = "localhost/heatquery-train:container-test"
USER = 10001
LAST = "/runs/mine/checkpoints/step-000120"
SECONDS_TO_A_CHECKPOINT, SECONDS_TO_STOP = 300, 20
SHORT = {
    "data/mine": "/runs/mine-data",
    'classes = ["airplane"]': 'classes = ["vehicle", "ship", "tank", "airplane", "court"]',
    "train_size = 640": "train_size = 256",
    "val_size = 640": "val_size = 256",
    "crop = 320": "crop = 192",
    "position_shift = 352": "position_shift = 64",
    "steps = 400": "steps = 120",
    "batch_size = 8": "batch_size = 4",
    "warmup_steps = 40": "warmup_steps = 10",
    "threads = 2": "threads = 1",
    "checkpoint_every = 100": "checkpoint_every = 10",
    '"training/checkpoints/nano-nwpu"': '"/app/training/checkpoints/nano-nwpu"',
}


def main() -> int:
    """Print a line for each fact, as soon as it is known; a wrong one raises."""
    if missing := missing_programs():
        print(f"skipped: {', '.join(missing)} not installed; docs/deploy.md says how to install them")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        for number, fact in enumerate(check(Path(folder)), 1):
            print(f"ok {number}: {fact}", flush=True)
    return 0


def check(folder: Path) -> Iterator[str]:
    """Each fact, checked, on the way from drawn pictures to a model folder."""
    base = build_image("train.Dockerfile", IMAGE, ("BASE",))
    yield f"built on {base}; our layers hold {(image_bytes(IMAGE) - image_bytes(base)) / 1e9:.1f} GB"
    data, runs = folder / "data", folder / "runs"
    data.mkdir()
    runs.mkdir()
    os.chown(runs, USER, USER)
    writable = run(*PODMAN, "run", "--rm", "--entrypoint", "python", *shape(folder), IMAGE, "-c", WRITABLE).strip()
    assert writable == "['/runs', '/tmp']", writable
    yield "it can write to /runs and /tmp alone"
    inside(folder, "training synthesize /runs/drawn --count 24 --size 256")
    assert (runs / "drawn").stat().st_uid == USER
    inside(folder, "training convert coco train=/runs/drawn/instances.json --val-share 0.25 --out /runs/mine-data")
    (data / "mine.toml").write_text(short_recipe(), encoding="utf-8")
    yield f"drew pictures as user {USER}, and converted them"
    yield a_stopped_training_goes_on(folder)
    report = inside(folder, f"training evaluate {LAST} /data/mine.toml --out /runs/report")
    assert "| AP50 |" in report, report
    yield "evaluated the last checkpoint"
    pictures, model = "/runs/mine-data/instances_val.json", "/runs/models/mine/1"
    inside(folder, f"export build {LAST} --out {model} --size 256 --precisions fp32 --images {pictures}")
    inside(folder, f"export verify {model} --checkpoint {LAST} --data {pictures}")
    found = json.loads((runs / "models" / "mine" / "1" / "parity.json").read_bytes())
    assert found["passed"], found
    yield f"exported and verified it: {found['detections']} detections agree"


def a_stopped_training_goes_on(folder: Path) -> str:
    """`docker stop` ends a run at once, which says how it goes on; `--resume` takes it from there to its last step."""
    fit = "training fit /data/mine.toml --out /runs/mine"
    checkpoints = folder / "runs" / "mine" / "checkpoints"
    name = run(*PODMAN, "run", "--detach", *shape(folder), IMAGE, *fit.split()).strip()
    try:
        wait_for(checkpoints / "step-000010", name)
        begun = time.monotonic()
        run(*PODMAN, "stop", "--time", str(2 * SECONDS_TO_STOP), name)
        seconds = time.monotonic() - begun
        said = logs(name)
    finally:
        run(*PODMAN, "rm", "--force", "--time", "1", name)
    assert seconds < SECONDS_TO_STOP, f"it took {seconds:.0f} s to stop"
    assert "`fit --resume` goes on" in said, said
    resumed = inside(folder, f"{fit} --resume")
    assert "goes on after" in resumed, resumed
    assert (checkpoints / Path(LAST).name).is_dir()
    return f"a stop ended a training after {seconds:.1f} s, and it went on to its last step"


def wait_for(checkpoint: Path, name: str) -> None:
    """Until a checkpoint is there; a training that ended before that, or does not get there, raises."""
    begun = time.monotonic()
    while not checkpoint.is_dir():
        state = run(*PODMAN, "inspect", "--format", "{{.State.Status}}", name).strip()
        if state == "exited" or time.monotonic() - begun > SECONDS_TO_A_CHECKPOINT:
            raise SystemExit(f"no {checkpoint.name} ({state}):\n{logs(name)}")
        time.sleep(0.2)


def logs(name: str) -> str:
    """What a container printed, both streams."""
    done = subprocess.run([*PODMAN, "logs", name], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def short_recipe() -> str:
    """The recipe for own data, for some steps; each place that is changed must be there."""
    text = (ROOT / "training" / "recipes" / "own-data.toml").read_text(encoding="utf-8")
    for old, new in SHORT.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def inside(folder: Path, command: str) -> str:
    """What a command of the image prints."""
    return run(*PODMAN, "run", "--rm", *shape(folder), IMAGE, *command.split())


def shape(folder: Path) -> tuple[str, ...]:
    """Locked down, without a network: pictures can be read, /runs can be written."""
    return (
        *LOCKED_DOWN,
        "--network",
        "none",
        "--volume",
        f"{folder}/data:/data:ro",
        "--volume",
        f"{folder}/runs:/runs",
    )


if __name__ == "__main__":
    sys.exit(main())
