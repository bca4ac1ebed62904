"""What a lab destination is: what the DNS says of it, how its hosts behave, and what a sound relay makes of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from relay.lab.ca import CertificateKind, Signer
from relay.lab.nameserver import Fault, Trust
from relay.lab.record import Reach
from relay.lab.script import Script

LAB = "lab.test"
HOSTS = "hosts.test"  # a provider's zone, secure whatever its customers' zones are
PLAIN_HOSTS = "plain-hosts.test"  # another provider's, which signs nothing
BOGUS_HOSTS = "bogus-hosts.test"  # and one whose signatures are wrong
PROVIDERS = (HOSTS, PLAIN_HOSTS, BOGUS_HOSTS)


@dataclass(frozen=True, slots=True)
class TlsaSpec:
    """A TLSA record to publish: its three numbers, and which certificate its data is made from."""

    usage: int
    selector: int
    matching: int
    made_from: Signer = Signer.LEAF


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One mail host.

    :param name: without trailing dot; owner of the address, of the TLSA records, and what its certificate is issued for.
    :param alias: where not empty, the MX record shows this name, which is a CNAME for ``name``.
    :param via: names between the two: CNAME records lead from ``alias`` over each of them to ``name``.
    :param tlsa_at: the name under which the TLSA records are, where that is not ``name``.
    :param tlsa_alias: where not empty, the TLSA name is a CNAME for this one, which has the records.
    :param decoys: TLSA records of a stranger at names where nobody may look.
    :param listens: False for a host whose port is closed.
    """

    name: str
    preference: int = 10
    alias: str = ""
    via: tuple[str, ...] = ()
    tlsa_at: str = ""
    tlsa_alias: str = ""
    decoys: tuple[str, ...] = ()
    script: Script = field(default_factory=Script)
    certificate: CertificateKind = CertificateKind.GOOD
    tlsa: tuple[TlsaSpec, ...] = ()
    tlsa_fault: Fault = Fault.NONE
    listens: bool = True

    @property
    def shown_name(self) -> str:
        """The name in the MX record."""
        return self.alias or self.name

    @property
    def tlsa_base(self) -> str:
        """The TLSA base domain: what ``_PORT._tcp`` goes in front of, and what SNI asks for (RFC 7672 section 2.2.2)."""
        return self.tlsa_at or self.name


class MxSet(Enum):
    """What the domain's MX records are."""

    RECORDS = "one for each host"
    IMPLICIT = "none, the domain has an address itself (RFC 5321 section 5.1)"
    NULL = "null MX (RFC 7505)"
    NO_DOMAIN = "the domain does not exist"


class MessageKind(Enum):
    """What the message needs of the next host."""

    PLAIN = "7-bit"
    EIGHT_BIT = "8BITMIME"
    LONG_LINES = "lines of 998 octets"
    LARGE = "a million octets"
    UTF8_ADDRESS = "SMTPUTF8"


class Status(Enum):
    """Postfix's word in ``status=``."""

    SENT = "sent"
    DEFERRED = "deferred"
    BOUNCED = "bounced"


class Session(Enum):
    """What the session was: Postfix's word, or that it was in clear, or that none carried a verdict."""

    VERIFIED = "Verified"
    TRUSTED = "Trusted"
    UNTRUSTED = "Untrusted"
    ANONYMOUS = "Anonymous"
    CLEAR = "in clear"
    NONE = "no session"


class Asked(Enum):
    """Whether TLSA records are to be asked for."""

    YES = "asked"
    NO = "not asked"
    EITHER = "either"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How one attempt ends, as the log shows it.

    :param tls: the value of ``tls=``.
    :param reason: a piece of the text in parentheses.
    :param relay: the host in ``relay=``, or ``none``.
    """

    status: Status
    dsn: str
    session: Session
    tls: str
    reason: str
    relay: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One destination of the lab.

    :param name: its first label; mail goes to ``user@NAME.lab.test``.
    :param shows: what it is, in a few words.
    :param rule: the section that says what must come of it.
    :param trust: of the zone ``NAME.lab.test``.
    :param proves: the requirements of docs/conformance.md that a sender shows here, by number.
    :param alias_of: where not empty, the domain itself is a CNAME for this name, which has the MX records.
    :param policy: the right side of its line in the policy map, empty for none; ``{leaf}`` and ``{stranger}`` stand for
        the SHA-256 fingerprints of the first host's certificate and of another one.
    :param endings: what becomes of the first attempt, and of the next ones where they matter.
    """

    name: str
    shows: str
    rule: str
    hosts: tuple[Host, ...]
    endings: tuple[Ending, ...]
    reach: Reach
    tlsa: Asked = Asked.EITHER
    policy: str = ""
    trust: Trust = Trust.SECURE
    mx: MxSet = MxSet.RECORDS
    message: MessageKind = MessageKind.PLAIN
    proves: tuple[int, ...] = ()
    alias_of: str = ""

    @property
    def domain(self) -> str:
        """The mail domain."""
        return f"{self.name}.{LAB}"

    @property
    def recipient(self) -> str:
        """The address that the lab writes to."""
        local = "üser" if self.message is MessageKind.UTF8_ADDRESS else "user"
        return f"{local}@{self.domain}"

    @property
    def bounces(self) -> bool:
        """Whether a report must come back to the sender."""
        return self.endings[-1].status is Status.BOUNCED
