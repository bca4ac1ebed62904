"""Secrets that a host gives back, taken out of its words before they reach a log or a report. Pure.

Some hosts answer a command that they do not like by quoting it: ``502 Unknown command: AUTH PLAIN AGpvZQ...``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from relay.sasl.secret import HIDDEN, Secret

_ENCODED = re.compile(r"[A-Za-z0-9+/]{6,}={0,2}", re.ASCII)
_SHORTEST = 4
"""Shorter secrets are hidden nowhere: the holes would tell them."""


def redacted(text: str, secret: Secret, sent: Iterable[str]) -> str:
    """A text without a secret, and without any piece of what was sent in base64.

    :param sent: responses as they went over the wire.
    """
    plain = secret.reveal()
    if len(plain) >= _SHORTEST:
        text = re.sub(re.escape(plain), HIDDEN, text, flags=re.IGNORECASE)
    encoded = tuple(one.lower() for one in sent)

    def hide(match: re.Match[str]) -> str:
        piece = match[0].rstrip("=").lower()
        return HIDDEN if any(piece in one for one in encoded) else match[0]

    return _ENCODED.sub(hide, text)
