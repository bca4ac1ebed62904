"""The exchange of a mechanism with some credentials. Pure."""

from __future__ import annotations

from relay.sasl.bearer import OAuthBearer, XOAuth2
from relay.sasl.mechanism import Exchange
from relay.sasl.scram import MECHANISM as SCRAM_SHA_256
from relay.sasl.scram import ScramClient
from relay.sasl.secret import Secret
from relay.sasl.simple import Login, Plain


def exchange(mechanism: str, user: str, secret: Secret, *, host: str, port: int, nonce: str) -> Exchange:
    """Begin an exchange.

    :param mechanism: one of ``relay.sasl.choose.MECHANISMS``.
    :param secret: the password, or the access token.
    :param nonce: for SCRAM: printable, no comma; fresh and unguessable.
    :raises MechanismFailed: if the credentials cannot be used with it.
    """
    match mechanism:
        case "PLAIN":
            return Plain(user, secret)
        case "LOGIN":
            return Login(user, secret)
        case "OAUTHBEARER":
            return OAuthBearer(user, secret, host=host, port=port)
        case "XOAUTH2":
            return XOAuth2(user, secret)
        case _ if mechanism == SCRAM_SHA_256:
            return ScramClient(user, secret, nonce=nonce)
        case _:
            raise ValueError(f"no such mechanism: {mechanism}")
