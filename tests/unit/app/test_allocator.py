"""Large blocks go back to the system when they are freed, however often one was freed before."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

# In a process of its own: the setting is the process's. Prints how many blocks are mapped by themselves (mallinfo2's hblks)
# while one of 256 KiB is held, beyond those from before, after another has come and gone.
_PROGRAM = """
import ctypes, sys
from relay.app.allocator import give_large_blocks_back

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
        "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
if sys.argv[1] == "told":
    assert give_large_blocks_back()
libc.free(libc.malloc(262144))
before = libc.mallinfo2().hblks
block = libc.malloc(262144)
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="not glibc 2.33 or newer")
@pytest.mark.parametrize(("how", "mapped"), [("told", "1"), ("as it comes", "0")])
def test_a_large_block_is_mapped_by_itself_also_after_one_was_freed(how: str, mapped: str) -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == mapped
