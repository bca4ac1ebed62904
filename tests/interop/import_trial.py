"""A configuration on trial: nothing bounces yet (``soft_bounce``)."""

from __future__ import annotations

from relay.lab.script import Rcpt, Script
from tests.interop.import_setup import Destination, Setup, direct
from tests.interop.side_by_side_case import Case

_MAIN = """\
compatibility_level = 3.6
myhostname = trial.test
mydestination =
mynetworks = 127.0.0.0/8
inet_protocols = ipv4
smtp_tcp_port = @port@
smtp_tls_security_level = may
smtp_tls_CAfile = @ca@
smtp_tls_loglevel = 1
soft_bounce = yes
"""

TRIAL = Setup(
    name="trial",
    main=_MAIN,
    files={},
    destinations=(
        direct("t-good"),
        direct("t-unknown-user", script=Script(rcpt=Rcpt.REJECTED)),
        direct("t-refused-mail", script=Script(refused=(("MAIL", "554 5.7.1 not you"),))),
        direct("t-refused-content", script=Script(end_of_data="554 5.7.1 not this")),
        direct("t-busy", script=Script(rcpt=Rcpt.ACCEPTED, greeting="421 4.3.2 too busy")),
        Destination(case=Case(name="t-nowhere", what="", exchangers=())),
    ),
)
