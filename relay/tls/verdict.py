"""The verdict on a session: may mail leave over it, and if not, what was expected and what was found. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from relay.mail.reply import EnhancedStatus


class Word(Enum):
    """Postfix's word for a session (tls_misc.c, tls_log_summary); PLAINTEXT has no summary line."""

    VERIFIED = "Verified"
    TRUSTED = "Trusted"
    UNTRUSTED = "Untrusted"
    ANONYMOUS = "Anonymous"
    PLAINTEXT = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The peer proved to be whom the policy demands; ``matched`` says by what (a TLSA record, a name, a digest)."""

    matched: str

    @property
    def word(self) -> Word:
        """Postfix's word."""
        return Word.VERIFIED


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """Satisfies the policy and is more than encrypted, but not what may be called verified.

    A half-dane match, or at ``may`` and ``encrypt`` a chain to a known CA of which nothing was demanded.
    """

    matched: str

    @property
    def word(self) -> Word:
        """Postfix's word."""
        return Word.TRUSTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Encrypted:
    """Satisfies a policy that demands no proof; the peer showed an unknown certificate, or none."""

    anonymous: bool = False

    @property
    def word(self) -> Word:
        """Postfix's word."""
        return Word.ANONYMOUS if self.anonymous else Word.UNTRUSTED


@dataclass(frozen=True, slots=True)
class Plaintext:
    """No TLS, and the policy allows that; ``why`` says how it came to it."""

    why: str

    @property
    def word(self) -> Word:
        """No word: Postfix logs no summary line."""
        return Word.PLAINTEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """No MAIL FROM over this session.

    :param status: class 4 always: nothing bounces for want of a verdict (DESIGN section 3).
    :param text: Postfix's literal reason.
    :param detail: Postfix's ``certificate verification failed for ...`` line without its subject; empty if there is none.
    :param word: what the session would have been called.
    """

    status: EnhancedStatus
    text: str
    expected: str
    found: str
    rule: str
    detail: str = ""
    word: Word = Word.UNTRUSTED


Verdict = Verified | Trusted | Encrypted | Plaintext | Refused
