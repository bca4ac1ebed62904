"""The control socket's address, for state directories with paths of any length.

A Unix socket's path holds at most 107 octets (sun_path, unix(7)); a longer one is reached through a descriptor of its
directory, which Linux shows under ``/proc/self/fd``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relay.control.protocol import SOCKET_NAME

# 103 on macOS and the BSDs, whose sun_path has 104 octets.
MAX_SOCKET_PATH = 103
_DESCRIPTORS = Path("/proc/self/fd")


@contextmanager
def socket_address(state_dir: Path) -> Iterator[str]:
    """A path of the control socket that is short enough to bind or connect to, good for the length of the context.

    :raises OSError: if the directory cannot be opened, or its path is too long on a system without ``/proc``.
    """
    path = state_dir / SOCKET_NAME
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        yield str(path)
        return
    if not _DESCRIPTORS.is_dir():
        raise OSError(
            f"the path is longer than the {MAX_SOCKET_PATH} octets of a Unix socket's name: use a shorter state_dir"
        )
    directory = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield str(_DESCRIPTORS / str(directory) / SOCKET_NAME)
    finally:
        os.close(directory)
