"""The lab's destinations, as data: what each is, and what a relay that keeps the RFCs makes of it."""

from __future__ import annotations

from collections.abc import Mapping

from relay.lab.destination import Destination, Host
from relay.lab.record import Reach
from relay.lab.scenarios.aliases import ALIASES
from relay.lab.scenarios.build import TLSA_EE, mx
from relay.lab.scenarios.content import CONTENT
from relay.lab.scenarios.dane import DANE
from relay.lab.scenarios.downgrades import DOWNGRADES
from relay.lab.scenarios.lookups import LOOKUPS
from relay.lab.scenarios.mapped import MAPPED
from relay.lab.scenarios.names import NAMES
from relay.lab.scenarios.opportunistic import OPPORTUNISTIC
from relay.lab.scenarios.replies import REPLIES

DESTINATIONS: tuple[Destination, ...] = (
    *DANE,
    *NAMES,
    *ALIASES,
    *DOWNGRADES,
    *OPPORTUNISTIC,
    *MAPPED,
    *LOOKUPS,
    *REPLIES,
    *CONTENT,
)

UNSEEN: Mapping[int, str] = {
    7: "whether the resolver may be believed is not the destination's to see",
    15: "the lab writes to domains, not to address literals",
    45: "what the operator is told stays with the operator",
}
"""The requirements among R1 to R45 of docs/conformance.md that no destination shows, and why; a test counts them."""

# The sender of the lab's messages lives at a domain of its own, where bounces arrive.
RETURN_DOMAIN = "return.lab.test"
RETURN_ADDRESS = f"sender@{RETURN_DOMAIN}"
RETURN_HOST = Host(name=mx("return"), tlsa=(TLSA_EE,))
RETURN = Destination(
    name=RETURN_DOMAIN.partition(".")[0],
    shows="where bounces of the lab's messages arrive",
    rule="RFC 5321 section 4.5.5",
    hosts=(RETURN_HOST,),
    endings=(),
    reach=Reach.DELIVERED,
)
