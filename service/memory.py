"""What glibc keeps of memory that is no longer used."""

import ctypes
import sys

# mallopt's parameters and their meaning: malloc.h and mallopt(3).
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
LARGE_BYTES = 4 * 1024**2
ARENAS = 2


def give_back_large_blocks() -> None:
    """Hand the memory of large pictures back to the system as soon as it is free; where there is no glibc, do nothing.

    By itself glibc takes such blocks for common once it has seen one, and then cuts them out of heaps, one for each few
    threads, that can shrink only from their ends: after days of pictures of all sizes they are full of holes.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        libc.mallopt(_M_ARENA_MAX, ARENAS)
