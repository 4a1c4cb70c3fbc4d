"""The container tools: images built by buildah, run by podman, without a daemon (docs/deploy.md)."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("buildah", "podman", "runc", "debootstrap")
STAND_IN = "localhost/heatquery-base:stand-in"
PODMAN = ("podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs")
LOCKED_DOWN = ("--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp:size=256m,mode=1777", "--cap-drop", "ALL")
LOCKED_DOWN += ("--security-opt", "no-new-privileges")
# What podman sets by itself may be more than this host allows.
LOCKED_DOWN += ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")

WRITABLE = """
import os
found = []
for folder, below, _ in os.walk("/"):
    if folder in ("/proc", "/sys", "/dev"):
        below.clear()
    elif os.access(folder, os.W_OK):
        found.append(folder)
        below.clear()
print(sorted(found))
"""
"""A program that prints the folders its user can write to, none of them inside another."""


def missing_programs() -> list[str]:
    """What must be installed before an image can be built and run."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def build_image(dockerfile: str, image: str, bases: tuple[str, ...]) -> str:
    """Build an image of docker/; returns the base that it stands on, given for each of the named build arguments."""
    path = ROOT / "docker" / dockerfile
    base = find_base(path, bases[0])
    # The system's certificates: behind a company's proxy the package registry has one of the company's own.
    certificates = "/etc/ssl/certs:/etc/ssl/certs:ro"
    # Old buildahs do not see that `FROM base-${TARGET}` needs a stage, and skip it as unused.
    shape = ("--isolation", "chroot", "--format", "docker", "--skip-unused-stages=false", "--volume", certificates)
    given = [word for name in bases for word in ("--build-arg", f"{name}={base}")]
    run("buildah", "bud", *shape, *given, "--file", str(path), "--tag", image, str(ROOT))
    return base


def find_base(dockerfile: Path, argument: str) -> str:
    """The base that the Dockerfile names, or a stand-in where no registry of images is reached."""
    found = re.search(rf"^ARG {argument}=(\S+)$", dockerfile.read_text(encoding="utf-8"), re.MULTILINE)
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


def image_bytes(name: str) -> int:
    """Size of an image's layers, unpacked."""
    return int(run(*PODMAN, "image", "inspect", "--format", "{{.Size}}", name))


def run(*command: str) -> str:
    """Standard output of a command; a failed one ends the program with what it said."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
