"""A Ray cluster of a test's own: one machine, the loopback, room for two actors, a token."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_TRIES = 4  # Ray gives its helper processes a fixed 15 seconds to start, which a busy machine may not have


def free_port() -> int:
    """One that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a running cluster, whose token the environment names meanwhile."""
    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text(secrets.token_hex(32), encoding="utf-8")
    folder = tempfile.mkdtemp(prefix="ray-")  # pytest's own names are too long for the sockets in it
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_AUTH_MODE", "token")
        environment.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # on the loopback alone
        environment.setenv("PYTHONPATH", str(ROOT))
        process, address = _start(folder)
        yield address
        os.killpg(process.pid, signal.SIGKILL)  # on SIGTERM Ray waits, for minutes at times, until all is drained
        process.communicate()
        shutil.rmtree(folder, ignore_errors=True)  # processes that outlive it by a second still write logs


def _start(folder: str) -> tuple[subprocess.Popen[str], str]:
    said = ""
    for _ in range(_TRIES):
        address = f"127.0.0.1:{free_port()}"
        start = ["-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={folder}"]
        where = ["--node-ip-address=127.0.0.1", f"--port={address.split(':')[1]}", "--include-dashboard=false"]
        process = subprocess.Popen(
            [sys.executable, *start, *where],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if "Ray runtime started" in line:
                return process, address
        process.communicate()
    return pytest.fail(f"Ray does not start:\n{said}")
