"""The lab's destinations, as data: what each is, and what a relay that keeps the RFCs makes of it."""

from __future__ import annotations

from relay.lab.destination import Destination, Host
from relay.lab.scenarios.build import TLSA_EE, mx
from relay.lab.scenarios.dane import DANE
from relay.lab.scenarios.lookups import LOOKUPS
from relay.lab.scenarios.mapped import MAPPED
from relay.lab.scenarios.opportunistic import OPPORTUNISTIC
from relay.lab.scenarios.replies import REPLIES

DESTINATIONS: tuple[Destination, ...] = (*DANE, *OPPORTUNISTIC, *MAPPED, *LOOKUPS, *REPLIES)

# The sender of the lab's messages lives at a domain of its own, where bounces arrive.
RETURN_DOMAIN = "return.lab.test"
RETURN_ADDRESS = f"sender@{RETURN_DOMAIN}"
RETURN_HOST = Host(name=mx("return"), tlsa=(TLSA_EE,))
