"""How many cores there are: those that this process may run on, or fewer where its container is given less time."""

import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of CPU time in each period, and the period (Linux, Control Group v2): "200000 100000" is two cores."""


def usable_cores(quota: Path = QUOTA) -> int:
    """At least one. More threads than that would be stopped in the middle of their work when the time is up."""
    cores = len(os.sched_getaffinity(0))
    try:
        time, period = map(int, quota.read_text().split())
    except (OSError, ValueError):  # no container, an older kind of control group, or "max 100000"
        return cores
    return max(1, min(cores, time // period))
