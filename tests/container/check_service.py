"""`make container-test`: build the service's image, start it locked down, and check what docs/deploy.md promises of it.

It needs Python alone and none of the project's environments, like whoever only deploys.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine import PODMAN, ROOT, WRITABLE, build_image, image_bytes, missing_programs, run
from running import IMAGE, MOST_MEMORY_MB, Container, running

PICTURE = (ROOT / "service" / "models" / "nano-nwpu" / "5" / "curves.png").read_bytes()
MOST_LAYERS_MB, MOST_SECONDS = 450, 5.0
CALLERS = 4
INSIDE = """
import importlib.util, pathlib, shutil
site = next(pathlib.Path("/opt/heatquery/lib").glob("python3*/site-packages"))
print([name for name in ("torch", "torchvision", "triton", "pip") if (site / name).exists()])
print([name for name in ("cc", "gcc", "c++", "ld", "as", "make", "curl", "git") if shutil.which(name)])
print(pathlib.Path("/app/LICENSE").is_file() and all(
    any("licen" in path.name.lower() for path in info.rglob("*")) or "\\nLicense" in (info / "METADATA").read_text()
    for info in site.glob("*.dist-info")))
print(any(pathlib.Path("/app/service/__pycache__").glob("*.pyc")) and any((site / "numpy/__pycache__").glob("*.pyc")))
"""


def main() -> int:
    """Print a line for each fact, as soon as it is known; a wrong one raises. Write the figures where asked."""
    parser = argparse.ArgumentParser(description="Build the service's image, start it locked down, and check it.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args()
    if missing := missing_programs():
        print(f"container-test skipped: {', '.join(missing)} not installed; docs/deploy.md says how to install them")
        return 0
    facts, figures = 0, dict[str, float]()
    for fact in check(figures):
        facts += 1
        print(f"ok: {fact}", flush=True)
    print(f"{facts} passed, 0 failed")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def check(figures: dict[str, float]) -> Iterator[str]:
    """Each fact, checked; what was measured goes into the figures."""
    base = build_image("serve.Dockerfile", IMAGE, ("CPU_BASE", "GPU_BASE"))
    yield f"built on {base}"
    figures["layers_mb"] = our_layers_are_small(base)
    yield f"our layers hold {figures['layers_mb']:.0f} MB"
    with running() as (service, figures["ready_s"]):
        yield it_is_ready_soon(figures["ready_s"])
        yield its_health_check_passes(service)
        yield it_runs_without_a_name_or_privileges(service)
        yield it_can_write_to_tmp_alone(service)
        yield it_holds_what_it_needs_and_no_more(service)
        yield it_answers_a_picture(service)
        figures["memory_mb"] = it_needs_little_memory(service)
        yield f"its memory grew to {figures['memory_mb']:.0f} MB, within a limit of {MOST_MEMORY_MB} for the container"
        yield a_stop_under_load_loses_no_call(service)


def our_layers_are_small(base: str) -> float:
    """MB that the image adds to its base."""
    megabytes = (image_bytes(IMAGE) - image_bytes(base)) / 1e6
    assert megabytes < MOST_LAYERS_MB, f"our layers hold {megabytes:.0f} MB; the most is {MOST_LAYERS_MB}"
    return megabytes


def it_is_ready_soon(seconds: float) -> str:
    """From `podman run` to the first 200 of /readyz."""
    assert seconds < MOST_SECONDS, f"ready after {seconds:.1f} s; the most is {MOST_SECONDS:.0f}"
    return f"ready {seconds:.1f} s after the command that starts it"


def its_health_check_passes(service: Container) -> str:
    """The image's own, run once by the engine."""
    run(*PODMAN, "healthcheck", "run", service.name)
    return "its health check passes"


def it_runs_without_a_name_or_privileges(service: Container) -> str:
    """User, capabilities, and no way to more of them."""
    assert service.status("Uid").split() == ["10001"] * 4
    assert int(service.status("CapEff"), 16) == int(service.status("CapBnd"), 16) == 0
    assert service.status("NoNewPrivs") == "1"
    return "user 10001, no capabilities, no new privileges"


def it_can_write_to_tmp_alone(service: Container) -> str:
    """As a read-only root promises."""
    writable = service.python(WRITABLE)
    assert writable == "['/tmp']", f"it can write to {writable}"
    return "it can write to /tmp alone"


def it_holds_what_it_needs_and_no_more(service: Container) -> str:
    """No training, no compiler, no downloader; licences and byte code."""
    found = service.python(INSIDE).splitlines()
    assert found == ["[]", "[]", "True", "True"], found
    return "no torch, no pip, no compiler; licences and byte code are there"


def it_answers_a_picture(service: Container) -> str:
    """The shipped model, without a model folder from outside."""
    assert service.ask("/detect", PICTURE) == 200
    return "it finds objects in a picture"


def it_needs_little_memory(service: Container) -> float:
    """MB at its peak so far; beyond the limit the kernel would have ended it."""
    with ThreadPoolExecutor(CALLERS) as callers:
        assert set(callers.map(lambda _: service.ask("/detect", PICTURE), range(5 * CALLERS))) == {200}
    return int(service.status("VmHWM").split()[0]) * 1024 / 1e6


def a_stop_under_load_loses_no_call(service: Container) -> str:
    """Calls that are on their way when SIGTERM comes are answered, and the container ends by itself."""
    statuses: list[int] = []
    told = threading.Event()

    def call_until_told() -> None:
        while not told.is_set():
            statuses.append(service.ask("/detect", PICTURE))

    with ThreadPoolExecutor(CALLERS) as callers:
        calls = [callers.submit(call_until_told) for _ in range(CALLERS)]
        while len(statuses) < CALLERS:
            time.sleep(0.01)
        begun = time.monotonic()
        service.stop()
        told.set()
        before = len(statuses)
        for call in calls:
            call.result(timeout=30)  # raises where a connection broke off
    assert len(statuses) == before + CALLERS, "no call was on its way"
    assert set(statuses) == {200}, statuses
    status = service.exit_status()
    assert status in (0, 143), f"it ended with status {status}"
    return (
        f"SIGTERM under load: {CALLERS} calls on their way, none lost; it ended after {time.monotonic() - begun:.1f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
