"""What all mechanisms have in common on the client's side. Pure."""

from __future__ import annotations

from typing import Protocol


class MechanismFailed(Exception):  # noqa: N818 - it names what happened
    """The exchange cannot go on; the message says what was found, without any secret."""


class Exchange(Protocol):
    """The client's side of one authentication, as octets; base64 and SMTP are the caller's business.

    ``speaks_first`` says whether there is an initial response. ``proved`` says whether the client may believe a success:
    False only where the server still owes a proof of its own.
    """

    @property
    def name(self) -> str:
        """The mechanism, as in AUTH."""

    @property
    def speaks_first(self) -> bool:
        """Whether ``first`` gives an initial response."""

    @property
    def proved(self) -> bool:
        """Whether a positive reply may be believed now."""

    def first(self) -> bytes:
        """The initial response.

        :raises MechanismFailed: if the credentials cannot be put into it.
        """

    def next(self, challenge: bytes) -> bytes:
        """The response to a challenge.

        :raises MechanismFailed: if the server does not keep to the mechanism.
        """
