"""The C library's allocator, told once to give large blocks back.

A TLS session has a buffer of 256 KiB, most of which is hardly touched, and large contents are read in pieces of that size.
glibc maps such a block by itself and returns it to the system when it is freed; but the first that is freed makes it raise the
size from which it does so (mallopt(3), M_MMAP_THRESHOLD), and from then on they come from the heap, where small blocks that live
longer settle between them. Half an hour with destinations that came and went left a relay at rest with twice the memory that it
had begun with. A size that is set stays as it is.
"""

from __future__ import annotations

import ctypes

LARGE = 128 * 1024
"""Octets; glibc's own first choice."""
_M_MMAP_THRESHOLD = -3


def give_large_blocks_back() -> bool:
    """Say so; whether this C library has such a setting (glibc has; musl and macOS need none)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGE))
