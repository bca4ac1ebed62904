"""Right-hand sides: levels against postures, attributes, separators, and everything that is malformed."""

from __future__ import annotations

from tests.parity.case import Posture, numbered

P = Posture

ZEROS = "00" * 32

LEVELS = numbered(
    "l",
    *((level, posture) for level in ("none",) for posture in (P.GOOD, P.CLEAR)),
    *(
        (level, posture)
        for level in ("may", "encrypt")
        for posture in (P.GOOD, P.SELF, P.EXPIRED, P.CLEAR, P.REFUSES, P.BABBLES, P.MISMATCH)
    ),
    *(
        (level, posture)
        for level in ("verify", "secure")
        for posture in (P.GOOD, P.DOMAIN, P.OTHER, P.SELF, P.EXPIRED, P.UNKNOWN, P.CLEAR, P.REFUSES, P.BABBLES, P.TLSA)
    ),
    *(
        (level, posture)
        for level in ("dane", "dane-only")
        for posture in (P.GOOD, P.CLEAR, P.TLSA, P.MISMATCH, P.UNUSABLE, P.TLSA_CLEAR, P.SELF, P.BABBLES)
    ),
    *(
        (f"fingerprint match={digest}", posture)
        for digest in ("{leaf}", "{key}", ZEROS)
        for posture in (P.SELF, P.EXPIRED)
    ),
    ("fingerprint match={leaf}", P.CLEAR),
)

ATTRIBUTES = numbered(
    "a",
    # case, separators, repeats, braces
    ("SECURE", P.GOOD),
    ("Dane-Only", P.TLSA),
    ("MAY", P.CLEAR),
    ("secure,match=hostname", P.GOOD),
    ("secure , match=hostname ,", P.GOOD),
    ("secure MATCH=hostname", P.GOOD),
    ("secure match=HOSTNAME", P.GOOD),
    ("secure match=nexthop", P.GOOD),
    ("secure match=nexthop", P.DOMAIN),
    ("secure match=dot-nexthop", P.GOOD),
    ("secure match=dot-nexthop", P.DOMAIN),
    ("secure match=nexthop:dot-nexthop", P.DOMAIN),
    ("secure match=a.test match={host}", P.GOOD),
    ("secure match=a.test:.b.test:{host}", P.GOOD),
    ("secure match=.{domain}", P.GOOD),
    ("secure match=.{domain}", P.DOMAIN),
    ("secure match=elsewhere.test", P.OTHER),
    ("secure match=ELSEWHERE.test", P.OTHER),
    ("secure match=elsewhere.test", P.GOOD),
    ("secure match=.", P.GOOD),
    ("secure match=.:hostname", P.GOOD),
    ("secure match=::hostname::", P.GOOD),
    ("secure { match = hostname }", P.GOOD),
    ("secure {match=hostname}", P.GOOD),
    ("secure { match = nexthop:hostname } {ciphers=high}", P.GOOD),
    ("secure { match = elsewhere.test", P.GOOD),
    ("verify match=nexthop", P.GOOD),
    ("verify match=nexthop", P.DOMAIN),
    ("verify match=hostname", P.DOMAIN),
    ("fingerprint match=" + ZEROS + "|{leaf}", P.SELF),
    ("fingerprint match=" + ZEROS + " match={leaf}", P.SELF),
    ("fingerprint match={leaf}:" + ZEROS, P.SELF),
    ("fingerprint match=zz|{leaf}", P.SELF),
    ("fingerprint match=zz", P.SELF),
    ("fingerprint", P.SELF),
    ("FINGERPRINT Match={leaf}", P.SELF),
    # trust anchors
    ("secure tafile={ca}", P.GOOD),
    ("secure tafile={other_ca}", P.GOOD),
    ("secure tafile={other_ca} tafile={ca}", P.GOOD),
    ("verify tafile={ca}", P.OTHER),
    ("secure tafile=/nonexistent/ca.pem", P.GOOD),
    # protocols, ciphers, exclude
    ("encrypt protocols=>=TLSv1.2", P.OLD),
    ("encrypt protocols=>=TLSv1.3", P.OLD),
    ("encrypt protocols=>=TLSv1.3", P.NEW),
    ("encrypt protocols=<=TLSv1.2", P.NEW),
    ("encrypt protocols=<=TLSv1.2", P.OLD),
    ("encrypt protocols=!TLSv1.3", P.NEW),
    ("encrypt protocols=TLSv1.2:TLSv1.3", P.NEW),
    ("encrypt protocols=TLSv1.2", P.OLD),
    ("encrypt protocols=TLSv1.2", P.NEW),
    ("encrypt protocols=>=0303", P.OLD),
    ("encrypt protocols=", P.NEW),
    ("encrypt { protocols = >=TLSv1.2, <=TLSv1.2 }", P.OLD),
    ("encrypt { protocols = >=TLSv1.2, <=TLSv1.2 }", P.NEW),
    ("encrypt protocols=>=TLSv9", P.NEW),
    ("may protocols=>=TLSv9", P.GOOD),
    ("encrypt ciphers=high", P.OLD),
    ("encrypt ciphers=HIGH", P.OLD),
    ("encrypt ciphers=medium", P.GOOD),
    ("encrypt ciphers=best", P.OLD),
    ("may ciphers=best", P.OLD),
    ("encrypt exclude=", P.OLD),
    ("encrypt exclude=aNULL:MD5:DES", P.OLD),
    ("encrypt exclude=ECDHE:DHE:kRSA", P.OLD),
    ("encrypt exclude=!MD5", P.OLD),
    ("encrypt { exclude = MD5, DES }", P.OLD),
    # SNI and what is only checked
    ("encrypt servername=hostname", P.GOOD),
    ("encrypt servername=nexthop", P.GOOD),
    ("secure servername=mail.example", P.GOOD),
    ("encrypt connection_reuse=no", P.GOOD),
    ("encrypt connection_reuse=NO connection_reuse=no", P.GOOD),
)

MALFORMED = numbered(
    "m",
    (",", P.GOOD),
    ("strong", P.GOOD),
    ("halfdane", P.GOOD),
    ("match=nexthop", P.GOOD),
    ("secure match", P.GOOD),
    ("secure =hostname", P.GOOD),
    ("secure {}", P.GOOD),
    ("secure { match hostname }", P.GOOD),
    ("secure { match = hostname }x", P.GOOD),
    ("may ciphers=", P.GOOD),
    ("secure match=", P.GOOD),
    ("secure tafile=", P.GOOD),
    ("may ciphers=high ciphers=high", P.GOOD),
    ("may protocols=TLSv1.2 protocols=TLSv1.2", P.GOOD),
    ("may exclude=MD5 exclude=MD5", P.GOOD),
    ("encrypt servername=a.test servername=a.test", P.GOOD),
    ("encrypt servername=", P.GOOD),
    ("encrypt servername=a..b", P.GOOD),
    ("encrypt servername=192.0.2.1", P.GOOD),
    ("may match=hostname", P.GOOD),
    ("encrypt match=hostname", P.GOOD),
    ("dane match=hostname", P.TLSA),
    ("dane-only match=hostname", P.TLSA),
    ("dane tafile={ca}", P.TLSA),
    ("fingerprint tafile={ca}", P.SELF),
    ("may connection_reuse=maybe", P.GOOD),
    ("may connection_reuse=", P.GOOD),
    ("may colour=blue", P.GOOD),
    ("secure match=hostname colour=blue", P.GOOD),
    ("none match=hostname, ciphers=", P.GOOD),
    ("none colour", P.CLEAR),
    # attributes that 3.7 does not know yet
    ("encrypt enable_rpk=yes", P.GOOD),
    ("encrypt enable_rpk=no", P.GOOD),
    ("encrypt enable_rpk=2", P.GOOD),
    ("secure policy_type=sts policy_domain=a.test policy_ttl=5 match=hostname", P.GOOD),
    ("secure policy_type=sts policy_string=version:STSv1 policy_string=mode:enforce mx_host_pattern=*.test", P.GOOD),
    ("secure policy_type=sts policy_failure=validation-failure", P.GOOD),
    ("secure policy_type=other", P.GOOD),
    ("secure policy_ttl=5", P.GOOD),
    ("secure policy_type=sts policy_type=sts", P.GOOD),
)

UNDER_DANE = numbered(
    "d",
    *((level, P.TLSA_CLEAR) for level in ("may", "encrypt", "none")),
    *((level, P.MISMATCH) for level in ("may", "encrypt", "dane", "verify", "secure", "fingerprint match={leaf}")),
    ((), P.TLSA),
    ((), P.MISMATCH),
    ((), P.GOOD),
    ((), P.CLEAR),
    ((), P.UNUSABLE),
    ((), P.TLSA_CLEAR),
    ("secrue", P.CLEAR),
)

UNDER_SECURE = numbered(
    "s",
    ((), P.GOOD),
    ((), P.OTHER),
    ((), P.CLEAR),
    ("may", P.CLEAR),
    ("none", P.CLEAR),
    ("encrypt", P.SELF),
    ("dane", P.CLEAR),
    ("dane-only", P.GOOD),
    ("verify", P.OTHER),
    ("secrue", P.CLEAR),
)
