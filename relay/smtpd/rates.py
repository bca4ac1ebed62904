"""How often a client did something of late: Postfix's anvil(8). Pure.

As there, the time of a client runs in windows: the first event opens one, all events until its end are counted in it, and the
first event after its end opens the next. A count is of the event itself included, so a limit of 3 refuses the fourth.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from ipaddress import ip_network

from relay.mail.names import IpAddress
from relay.smtpd.elsewhere import ALONE, Elsewhere

# anvil_rate_time_unit: seconds of a window.
WINDOW = 60.0
# smtpd_client_ipv6_prefix_length: who has a network of IPv6 addresses is one client.
IPV6_PREFIX = 84


class Counted(Enum):
    """What is counted; the value is Postfix's name of it in the log."""

    CONNECTION = "Connection rate"
    MESSAGE = "Message delivery request rate"
    RECIPIENT = "Recipient address rate"
    AUTH = "AUTH command rate"


@lru_cache(maxsize=1024)
def client_key(address: IpAddress) -> str:
    """What counts as one client: an IPv4 address, or a /84 of IPv6."""
    return str(address) if address.version == 4 else str(ip_network((int(address), IPV6_PREFIX), strict=False))


class Rates:
    """Events by client.

    Memory is bounded by the clients of two windows: what is over is dropped at the first event of a later window.

    :param clock: seconds that never go back.
    :param elsewhere: other workers, whose windows begin at other times: what is counted all together happened within the last
        ``WINDOW`` seconds, so a limit of all refuses nobody who keeps to it.
    """

    def __init__(self, clock: Callable[[], float], elsewhere: Elsewhere = ALONE) -> None:
        self._clock = clock
        self._elsewhere = elsewhere
        self._windows: dict[tuple[Counted, str], tuple[float, int]] = {}
        self._swept = clock()

    def __len__(self) -> int:
        return len(self._windows)

    def count(self, event: Counted, address: IpAddress) -> int:
        """Count an event and tell how many there were in the window, this one included."""
        now = self._clock()
        if now - self._swept >= WINDOW:
            self._swept = now
            self._windows = {key: window for key, window in self._windows.items() if now - window[0] < WINDOW}
        client = client_key(address)
        key = (event, client)
        began, counted = self._windows.get(key, (now, 0))
        if now - began >= WINDOW:
            began, counted = now, 0
        self._windows[key] = (began, counted + 1)
        self._elsewhere.tell(event.name, client, counted + 1, began + WINDOW, now)
        return counted + 1 + self._elsewhere.count(event.name, client, now)
