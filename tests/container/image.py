"""The service's image, built by buildah and run by podman as docs/deploy.md tells operators to."""

import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "docker" / "serve.Dockerfile"
PROGRAMS = ("buildah", "podman", "runc", "debootstrap")
IMAGE = "localhost/heatquery:container-test"
STAND_IN = "localhost/heatquery-base:stand-in"
MOST_MEMORY_MB = 700
PODMAN = ("podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs")
LOCKED_DOWN = ("--read-only", "--tmpfs", "/tmp:size=256m,mode=1777", "--cap-drop", "ALL")
LOCKED_DOWN += ("--security-opt", "no-new-privileges", "--memory", f"{MOST_MEMORY_MB}m")
# What podman sets by itself may be more than this host allows.
LOCKED_DOWN += ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


def missing_programs() -> list[str]:
    """What must be installed before an image can be built and run."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def build_image() -> str:
    """Build IMAGE; returns the base that it stands on."""
    base = find_base()
    # The system's certificates: behind a company's proxy the package registry has one of the company's own.
    certificates = "/etc/ssl/certs:/etc/ssl/certs:ro"
    bases = ("--build-arg", f"CPU_BASE={base}", "--build-arg", f"GPU_BASE={base}")
    # Old buildahs do not see that `FROM base-${TARGET}` needs a stage, and skip it as unused.
    shape = ("--isolation", "chroot", "--format", "docker", "--skip-unused-stages=false", "--volume", certificates)
    run("buildah", "bud", *shape, *bases, "--file", str(DOCKERFILE), "--tag", IMAGE, str(ROOT))
    return base


def find_base() -> str:
    """The base that the Dockerfile names, or a stand-in where no registry of images is reached."""
    found = re.search(r"^ARG CPU_BASE=(\S+)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    if subprocess.run(["buildah", "pull", "--quiet", found[1]], capture_output=True).returncode == 0:
        return found[1]
    if subprocess.run([*PODMAN, "image", "exists", STAND_IN]).returncode != 0:
        make_stand_in()
    return STAND_IN


def make_stand_in() -> None:
    """A minimal Debian of this host's release with its own Python, imported as an image."""
    site, release = run("apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)").split()[:2]
    packages = "--include=python3,python3-venv,ca-certificates"
    with tempfile.TemporaryDirectory() as folder:
        root, archive = Path(folder, "root"), Path(folder, "root.tar")
        run("debootstrap", "--variant=minbase", packages, release, str(root), site)
        run(
            "tar",
            "-C",
            str(root),
            "--exclude=./var/cache/apt",
            "--exclude=./var/lib/apt/lists",
            "-cf",
            str(archive),
            ".",
        )
        run(*PODMAN, "import", "--quiet", str(archive), STAND_IN)


@dataclass(frozen=True)
class Container:
    """A running service."""

    name: str
    port: int

    @cached_property
    def process(self) -> int:
        """Its process, as the host numbers it."""
        return int(run(*PODMAN, "inspect", "--format", "{{.State.Pid}}", self.name))

    def status(self, field: str) -> str:
        """A line of /proc/PID/status, such as CapEff or VmHWM."""
        text = Path(f"/proc/{self.process}/status").read_text()
        return next(line.split(":")[1].strip() for line in text.splitlines() if line.startswith(f"{field}:"))

    def ask(self, path: str, body: bytes | None = None) -> int:
        """Status of one call on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET" if body is None else "POST", path, body, {"Content-Type": "image/png"})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def python(self, program: str) -> str:
        """What a program prints that runs in the container, as its user."""
        return run(*PODMAN, "exec", self.name, "python", "-c", program).strip()

    def stop(self) -> None:
        """Send SIGTERM, as every engine does to stop a container."""
        run(*PODMAN, "kill", "--signal", "TERM", self.name)

    def exit_status(self) -> int:
        """Wait for its end."""
        return int(run(*PODMAN, "wait", self.name))


@contextmanager
def running() -> Iterator[tuple[Container, float]]:
    """The service, locked down, and the seconds that it took from the command to the first `ready`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    # On the host's network: engines without a bridge of their own can run it, too.
    here = ("--network", "host", "--env", "HEATQUERY_HOST=127.0.0.1", "--env", f"HEATQUERY_PORT={port}")
    begun = time.monotonic()
    name = run(*PODMAN, "run", "--detach", *LOCKED_DOWN, *here, IMAGE).strip()
    container = Container(name, port)
    try:
        while not is_ready(container):
            if time.monotonic() - begun > 60:
                raise TimeoutError(f"not ready after 60 s:\n{run(*PODMAN, 'logs', name)}")
            time.sleep(0.02)
        yield container, time.monotonic() - begun
    finally:
        run(*PODMAN, "rm", "--force", "--time", "1", name)


def is_ready(container: Container) -> bool:
    """Whether the service answers, and says that it is ready."""
    try:
        return container.ask("/readyz") == 200
    except (OSError, HTTPException):
        return False


def image_bytes(name: str) -> int:
    """Size of an image's layers, unpacked."""
    return int(run(*PODMAN, "image", "inspect", "--format", "{{.Size}}", name))


def run(*command: str) -> str:
    """Standard output of a command; a failed one ends the program with what it said."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
