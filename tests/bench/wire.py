"""A link with a delay between two network namespaces: packets go from one tun device to another, each a while later.

``tc netem`` would do this in the kernel, and not every kernel has it. Nothing is dropped, nothing is limited, and nothing comes
out of order: TCP itself runs at both ends, with its handshake and its windows.

``python -m tests.bench.wire TUN-DESCRIPTOR MILLISECONDS COMMAND...``, in the far namespace, with the near end's device open. It
makes the far end, starts the command there, and answers ``count`` on standard input with a line ``counted CONNECTIONS TURNS
PACKETS OCTETS`` since the last time.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence

from tests.bench.turns import Turns
from tests.interop import servers

NEAR, FAR = "192.0.2.1", "192.0.2.2"
"""Addresses of the two ends (RFC 5737): nobody else is in these namespaces."""
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x0001 | 0x1000
_MOST = 65536


def open_tun(name: str, address: str, peer: str) -> int:
    """Make a tun device in this network namespace, with an address and a route to its peer; gives its descriptor.

    :raises UnavailableError: if this kernel has none, or this is not root.
    """
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN_NO_PI))
    except OSError as error:
        raise servers.UnavailableError(f"no tun device, which the link is made of: {error}") from error
    ip = str(servers.find("ip"))
    for words in (("link", "set", "lo", "up"), ("address", "add", address, "peer", peer, "dev", name)):
        subprocess.run([ip, *words], check=True)
    subprocess.run([ip, "link", "set", name, "up", "txqueuelen", "10000"], check=True)
    return descriptor


class Wire:
    """Carries packets between two devices.

    :param near: the clients' side; :param far: the server's.
    :param delay: seconds, each way.
    """

    def __init__(self, near: int, far: int, delay: float) -> None:
        self._delay = delay
        self._other = {near: far, far: near}
        self._near = near
        # The delay is the same for all: what came first is due first.
        self._flying: deque[tuple[float, int, bytes]] = deque()
        self._counted = [0, 0, 0, 0]
        self.turns = Turns()

    def run(self) -> None:
        """Carry until standard input ends."""
        for device in self._other:
            os.set_blocking(device, False)
        reading = [*self._other, 0]
        while True:
            wait = max(0.0, self._flying[0][0] - time.monotonic()) if self._flying else None
            ready, _, _ = select.select(reading, (), (), wait)
            for descriptor in ready:
                if descriptor:
                    self._take(descriptor)
                elif not self._told():
                    return
            now = time.monotonic()
            while self._flying and self._flying[0][0] <= now:
                _, target, packet = self._flying.popleft()
                os.write(target, packet)

    def _take(self, device: int) -> None:
        due, target, from_client = time.monotonic() + self._delay, self._other[device], device == self._near
        for _ in range(64):
            try:
                packet = os.read(device, _MOST)
            except BlockingIOError:
                return
            self.turns.see(packet, from_client=from_client)
            self._flying.append((due, target, packet))

    def _told(self) -> bool:
        said = os.read(0, 4096)
        for line in said.splitlines():
            if line == b"count":
                now = [self.turns.connections, self.turns.turns, self.turns.packets, self.turns.octets]
                numbers = " ".join(str(new - old) for new, old in zip(now, self._counted, strict=True))
                self._counted = now
                sys.stdout.write(f"counted {numbers}\n")
                sys.stdout.flush()
        return bool(said)


def main(words: Sequence[str]) -> None:
    """Make the far end and carry."""
    near, milliseconds, *command = words
    far = open_tun("far", FAR, NEAR)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        Wire(int(near), far, float(milliseconds) / 1000).run()
    finally:
        child.kill()
        child.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
