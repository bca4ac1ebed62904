"""Password and token maps: Postfix ``sasl_passwd`` text in, credentials for a host out. Pure.

The laws:

* A line that cannot be understood never disappears: mail for its key waits, and no wider key takes its place.
* What is wrong with a line is told without the line, key included: it may hold a password in the wrong place. That is why
  ``relay.maps.text`` does not read these files.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from relay.mail.envelope import Address, NullSender, Sender
from relay.mail.names import BadName, Domain, IpLiteral, NextHop
from relay.maps.lines import LogicalLine, logical_lines
from relay.sasl.credentials import (
    BadCredentials,
    Credentials,
    NoCredentials,
    Owner,
    Password,
    Standing,
    TokenCommand,
    TokenFile,
    TokenSource,
)
from relay.sasl.secret import Secret

MAX_USER = 255
MAX_SECRET = 8192


@dataclass(frozen=True, slots=True)
class CredentialProblem:
    """Something wrong with a line.

    :param place: ``FILE:LINE``.
    :param is_error: whether the line does not do what its author wanted: it holds mail or never matches.
    """

    place: str
    text: str
    is_error: bool

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line that can be used.

    :param place: ``FILE:LINE``.
    """

    place: str
    user: str
    proof: Password | TokenSource


@dataclass(frozen=True, slots=True, kw_only=True)
class BadEntry:
    """A line that cannot; see ``BadCredentials``."""

    place: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"expected {self.expected}; found {self.found}"


@dataclass(frozen=True, slots=True)
class CredentialTable:
    """One map, parsed.

    :param entries: by normalised key: lower case, A-labels, no trailing dot.
    """

    name: str
    entries: Mapping[str, Entry | BadEntry]
    problems: tuple[CredentialProblem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialTables:
    """The maps of ``smtp.sasl_password_maps`` and ``smtp.sasl_token_maps``, in order.

    :param by_sender: whether the sender's address is a key too (postfix ``smtp_sender_dependent_authentication``).
    """

    tables: tuple[CredentialTable, ...] = ()
    by_sender: bool = False

    def lookup(self, sender: Sender, next_hop: NextHop, host: Domain | IpLiteral) -> Standing:
        """Credentials for a host: each key in turn, and for each key the first table that has it."""
        if self.tables:
            for key, owner in lookup_keys(sender if self.by_sender else NullSender.NULL, next_hop, host):
                for table in self.tables:
                    entry = table.entries.get(key)
                    if entry is not None:
                        return _standing(entry, owner)
        return NoCredentials()

    @property
    def problems(self) -> tuple[CredentialProblem, ...]:
        """What is wrong with the tables, in order of file and line."""
        return tuple(problem for table in self.tables for problem in table.problems)


NO_TABLES = CredentialTables()


def lookup_keys(sender: Sender, next_hop: NextHop, host: Domain | IpLiteral) -> Iterator[tuple[str, Owner]]:
    """The keys to try, in order: sender, host, next-hop (postfix smtp_sasl_glue.c, smtp_sasl_passwd_lookup)."""
    if isinstance(sender, Address):
        domain = str(sender.domain).lower()
        yield f"{sender.local_part.lower()}@{domain}", Owner.SENDER
        yield f"@{domain}", Owner.SENDER
    yield str(host) if isinstance(host, Domain) else str(host.address), Owner.HOST
    yield next_hop.key, Owner.NEXT_HOP


def _standing(entry: Entry | BadEntry, owner: Owner) -> Standing:
    if isinstance(entry, BadEntry):
        return BadCredentials(place=entry.place, owner=owner, expected=entry.expected, found=entry.found)
    return Credentials(user=entry.user, proof=entry.proof, place=entry.place, owner=owner)


def parse_passwords(text: str, name: str) -> CredentialTable:
    """Read a password map: ``key user:password``.

    :param text: the file's content; octets that are no UTF-8 as surrogates (``errors="surrogateescape"``).
    :param name: the file as it is to be called in reasons and problems.
    """
    return _parse(text, name, "user:password", _password)


def parse_tokens(text: str, name: str, *, base: str) -> CredentialTable:
    """Read a token map: ``key user:file:PATH`` or ``key user:command:PATH ARGUMENTS``.

    :param base: the directory that relative names of token files start from.
    """
    return _parse(text, name, "user:file:PATH or user:command:PATH ARGUMENTS", lambda value: _token(value, base))


_ReadProof = Callable[[str], Password | TokenSource | str]
"""What follows ``user:``, or what is wrong with it in words that do not quote it."""


def _parse(text: str, name: str, expected: str, read: _ReadProof) -> CredentialTable:
    entries: dict[str, Entry | BadEntry] = {}
    problems: list[CredentialProblem] = []
    for line in logical_lines(text):
        place = f"{name}:{line.number}"
        written, value = [*line.text.split(maxsplit=1), ""][:2]
        key, fault = _normal_key(written)
        if fault:
            problems.append(CredentialProblem(place, fault, is_error=True))
        entry = _entry(line, value.rstrip(), place, expected, read)
        if isinstance(entry, BadEntry):
            problems.append(CredentialProblem(place, str(entry), is_error=True))
        earlier = entries.setdefault(key, entry)
        if earlier is not entry:
            entries[key], problem = _duplicate(earlier, entry)
            problems.append(problem)
    return CredentialTable(name, entries, tuple(problems))


def _entry(line: LogicalLine, value: str, place: str, expected: str, read: _ReadProof) -> Entry | BadEntry:
    def bad(found: str) -> BadEntry:
        return BadEntry(place=place, expected=f"a key, white space and {expected}", found=found)

    if line.text[0].isspace():
        return bad("white space at the beginning of the first line of an entry")
    user, colon, rest = value.partition(":")
    if not value:
        return bad("nothing behind the key")
    if not colon:
        return bad("no colon behind the user name")
    if not user:
        return bad("an empty user name")
    if len(user) > MAX_USER or len(rest) > MAX_SECRET or any(unfit in value for unfit in "\0\r\n"):
        return bad("a value that is too long or has a control character")
    proof = read(rest)
    return bad(proof) if isinstance(proof, str) else Entry(place=place, user=user, proof=proof)


def _password(text: str) -> Password | str:
    return Password(Secret(text)) if text else "an empty password"


def _token(text: str, base: str) -> TokenSource | str:
    kind, _, rest = text.partition(":")
    rest = rest.strip()
    match kind:
        case "file" if rest:
            return TokenFile(rest if rest.startswith("/") else f"{base}/{rest}")
        case "command" if rest:
            try:
                argv = tuple(shlex.split(rest))
            except ValueError as error:
                return f"a command whose quotes do not close ({error})"
            if not argv or not argv[0].startswith("/"):
                return "a command without an absolute path"
            return TokenCommand(argv)
        case _:
            return "neither file:PATH nor command:PATH behind the user name"


def _normal_key(written: str) -> tuple[str, str]:
    """The key as look-ups ask for it, and what is wrong with it if none ever will."""
    key = written.lower()
    local, at, domain = key.rpartition("@")
    try:
        if at:
            return f"{local}@{_sender_domain(domain)}", ""
        try:
            return str(IpLiteral.parse(key).address), ""  # a host that a literal names
        except BadName:
            return NextHop.parse(key, default_port=25).key, ""
    except BadName:
        return key, "the key names no host, no next-hop and no sender; nothing ever matches it"


def _sender_domain(text: str) -> str:
    literal = text.startswith("[") and text.endswith("]")
    return str(IpLiteral.parse(text[1:-1]) if literal else Domain.parse(text)).lower()


def _duplicate(earlier: Entry | BadEntry, later: Entry | BadEntry) -> tuple[Entry | BadEntry, CredentialProblem]:
    """The same key twice: harmless if both lines say the same, else nobody knows which was meant."""
    text = f"duplicate entry: the key stands at {earlier.place} too"
    if replace(earlier, place="") == replace(later, place="") and isinstance(earlier, Entry):
        return earlier, CredentialProblem(later.place, text, is_error=False)
    bad = BadEntry(place=later.place, expected="one entry for a key", found=text)
    return bad, CredentialProblem(later.place, text, is_error=True)
