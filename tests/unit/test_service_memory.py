"""What the process keeps of memory that it no longer uses."""

import subprocess
import sys

import pytest

# The first large block teaches glibc that such blocks are common; the small one then lies above the second in the heap.
_HOLE = """
import ctypes, sys
from service.memory import LARGE_BYTES, give_back_large_blocks
give_back_large_blocks()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
libc.free(libc.malloc(4 * LARGE_BYTES))
before = resident()
large = libc.malloc(3 * LARGE_BYTES)
libc.memset(large, 1, 3 * LARGE_BYTES)
small = libc.malloc(1000)
libc.free(large)
print(resident() - before < LARGE_BYTES)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_a_large_block_leaves_no_hole_in_the_heap() -> None:
    told = subprocess.run([sys.executable, "-c", _HOLE], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "True"
