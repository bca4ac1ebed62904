"""The wait that a 4xx reply names, as greylisting does: ``450 4.7.1 Greylisted, try again in 300 seconds``. Pure."""

from __future__ import annotations

import re

from relay.outcome.result import Deferred, FromPeer

_LOOKED_AT = 1_000
_SECONDS = {"s": 1, "m": 60, "h": 3600}
# A word for waiting, a little text without figures, then a time; the bounds keep a hostile reply from costing time.
_NAMED = re.compile(
    r"\b(?:again|retry|retried|back|wait|gr[ae]ylist\w{0,8}|delayed|deferred)\b[^0-9]{0,40}"
    r"(?:(?P<clock>\d{1,2}:\d\d:\d\d)|(?P<number>\d{1,6})[ -]?(?P<unit>s|m|h)(?:ecs?|econds?|ins?|inutes?|rs?|ours?)?)\b",
    re.ASCII | re.IGNORECASE,
)


def named_wait(result: Deferred) -> float:
    """Seconds that the host asked us to wait; 0 if it named no time, or the reason is ours."""
    if not isinstance(result.diagnostic, FromPeer):
        return 0.0
    match = _NAMED.search(result.diagnostic.reply.one_line[:_LOOKED_AT])
    if match is None:
        return 0.0
    if match["clock"]:
        hours, minutes, seconds = map(int, match["clock"].split(":"))
        return float(hours * 3600 + minutes * 60 + seconds)
    return float(int(match["number"]) * _SECONDS[match["unit"].lower()])
