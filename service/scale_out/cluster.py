"""Ray as it is used here: its own token asked of everybody, no dashboard, nothing told to its makers.

Ray reads its environment when it is first imported, so nothing here imports it before that is set.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager


class ClusterError(Exception):
    """Ray is not installed, not guarded, or not to be reached; the message says what to do."""


def prepare_environment() -> None:
    """Ask for token authentication, without which whoever reaches a port of Ray can run code as this user.

    Raises:
        ClusterError: the environment says that Ray shall do without.
    """
    mode = os.environ.setdefault("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        raise ClusterError(
            f"RAY_AUTH_MODE={mode}: whoever reaches such a cluster can run code on it; start it with "
            "RAY_AUTH_MODE=token and one token on every machine (docs/scale-out.md), and unset the variable here"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@contextmanager
def connected(address: str | None, cpus: int) -> Iterator[None]:
    """Join a cluster, or start one of this process alone, which ends with it.

    Args:
        address: HOST:PORT of the cluster's head, or auto for the one that this machine is part of; None starts one.
        cpus: how many actors the started one has room for.
    Raises:
        ClusterError
    """
    prepare_environment()
    if address is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on Linux too, Ray then keeps to the loopback
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray leaves one in the home folder
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ClusterError("Ray is not installed; it comes with: pip install 'heatquery[serve,ray]'") from error
    common = {"log_to_driver": False, "logging_level": "warning"}
    try:
        if address is None:
            ray.init("local", num_cpus=cpus, include_dashboard=False, **common)
        else:
            ray.init(address, **common)
    except Exception as error:  # Ray raises ConnectionError, ValueError, RuntimeError, RayError and Exception itself
        raise ClusterError(f"Ray at {address or 'this machine'}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()
