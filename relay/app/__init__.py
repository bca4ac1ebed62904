"""Floor 12: configuration becomes a running relay; the only place that names adapters."""

from relay.app.building import CannotStart
from relay.app.relay import Relay, open_relay, system_hostname

__all__ = ["CannotStart", "Relay", "open_relay", "system_hostname"]
