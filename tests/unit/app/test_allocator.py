"""Large blocks go back to the system when they are freed, however often one was freed before."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own: the setting is the process's. Prints how many blocks are mapped by themselves (mallinfo2's hblks)
# while sixty-four of 256 KiB are held, beyond those from before, after another has come and gone. Sixty-four and not one, since
# some find room in what the heap has free at the moment: a program whose modules had to be compiled leaves more than one's worth.
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
blocks = [libc.malloc(262144) for _ in range(64)]
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="not glibc 2.33 or newer")
@pytest.mark.parametrize("compiled", [True, False], ids=["modules compiled before", "modules compiled now"])
@pytest.mark.parametrize(("how", "mapped"), [("told", range(32, 65)), ("as it comes", range(1))])
def test_large_blocks_are_mapped_by_themselves_also_after_one_was_freed(
    how: str, mapped: range, compiled: bool, tmp_path: Path
) -> None:
    afresh = [] if compiled else ["-B", "-X", f"pycache_prefix={tmp_path}"]
    done = subprocess.run(
        [sys.executable, *afresh, "-c", _PROGRAM, how], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) in mapped
