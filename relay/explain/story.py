"""The story of one destination: what was found, what was decided on it, and what would come of a message. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from relay.dane.tlsa import Failed as TlsaFailed
from relay.dane.tlsa import TlsaLookup
from relay.delivery.gather import Destination, HostAddress, LookupTrouble
from relay.delivery.plan import Extensions
from relay.delivery.trouble import Trouble
from relay.dns.probe import Validation
from relay.mail.envelope import Address
from relay.mail.names import Domain, IpLiteral, NextHop
from relay.outcome.result import Outcome, RelayHost
from relay.policy.policy import Decision, Entry, Rule, TlsPolicy, Withheld
from relay.tls.peer import PeerFacts
from relay.tls.verdict import Verdict, Word


@dataclass(frozen=True, slots=True)
class NotReached:
    """A delivery would not come this far; ``why`` says what ends it before."""

    why: str


@dataclass(frozen=True, slots=True)
class NoHandshake:
    """No TLS handshake ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """A handshake ended, whatever was made of it.

    :param log: the lines that a delivery would log of it, without what stands before the text.
    """

    word: Word
    peer: PeerFacts
    log: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NotTried:
    """No session was opened; ``why`` says why not."""

    why: str


@dataclass(frozen=True, slots=True)
class NoLogin:
    """There are no credentials for the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A delivery would log in here; the walk does not.

    :param place: where the credentials stand.
    :param mechanism: how; empty where the host does not offer AUTH, and mail would go without.
    """

    user: str
    place: str
    mechanism: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Satisfied:
    """A session was opened that may carry mail; it ended before AUTH and MAIL.

    :param tls: the ``tls=`` of a status line.
    """

    relay: RelayHost
    verdict: Verdict
    handshake: Handshake | NoHandshake
    extensions: Extensions
    tls: str
    login: Login | NoLogin = NoLogin()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A session was tried, and the host would not get mail over it.

    :param in_clear_later: whether a message that has waited long enough would go in the clear instead.
    """

    trouble: Trouble
    handshake: Handshake | NoHandshake
    in_clear_later: bool = False


SessionStory = NotTried | Satisfied | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What was made of one address.

    :param tlsa: what the decision was made of; ``NotLookedUp`` where it does not depend on TLSA records.
    :param believed: False where what the DNS said could not be relied on, since the resolver was not seen to validate.
    """

    tlsa: TlsaLookup
    decision: Decision
    session: SessionStory
    believed: bool = True

    @property
    def lookup_failed(self) -> bool:
        """Whether nothing but a look-up that failed, this time, keeps mail from going there."""
        return isinstance(self.decision, Withheld) and (isinstance(self.tlsa, TlsaFailed) or not self.believed)


@dataclass(frozen=True, slots=True)
class AddressStory:
    """One address of a host."""

    address: HostAddress
    made: Tried | NotReached


@dataclass(frozen=True, slots=True)
class HostStory:
    """One host: its addresses in the order in which they are tried, or why there are none."""

    host: Domain | IpLiteral
    addresses: tuple[AddressStory, ...] | LookupTrouble | NotReached


@dataclass(frozen=True, slots=True, kw_only=True)
class HopStory:
    """One next-hop.

    :param entry: the line of a policy map that holds for it.
    :param rule: that line, or the option that gives the default.
    :param level: the level it asks for; ``malformed`` where it cannot be understood.
    :param configured: whether the configuration named the next-hop, and not the recipient's address.
    :param hosts: in the order in which they are tried; empty if there are none.
    :param fallback: whether it is a fallback relay, for which the destination's policy holds too, unless it has a line.
    """

    next_hop: NextHop
    entry: Entry
    rule: Rule
    level: str
    configured: bool
    found: Destination | LookupTrouble | NotReached
    hosts: tuple[HostStory, ...] = ()
    fallback: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WouldSend:
    """Mail would be attempted over this host.

    :param policy: what its session must satisfy; without ``live`` nobody knows whether it does.
    """

    relay: RelayHost
    policy: TlsPolicy
    session: NotTried | Satisfied


@dataclass(frozen=True, slots=True, kw_only=True)
class WouldFail:
    """Mail would be deferred or bounced.

    :param log: the status line that a delivery would log, from the queue ID on.
    :param report: the fields of the report that the sender would get: at once if mail bounces, else when it expires.
    :param lookups_only: whether nothing but failed look-ups stands in the way, which may pass by itself.
    """

    outcome: Outcome
    log: str
    report: tuple[tuple[str, str], ...]
    lookups_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WouldEnd:
    """Mail would be done with although no host gets it: its route discards it.

    :param log: the status line that a delivery would log, from the queue ID on.
    """

    outcome: Outcome
    log: str


Ending = WouldSend | WouldFail | WouldEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """All of it.

    :param recipient: of the message that was imagined.
    :param live: whether sessions were opened.
    :param validation: the last opinion on the resolver; of no weight where nothing asked for DANE.
    """

    recipient: Address
    live: bool
    validation: Validation
    hops: tuple[HopStory, ...]
    ending: Ending
