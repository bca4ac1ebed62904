"""pflogsumm reads each kind of our lines as Postfix's; tests/interop/test_pflogsumm.py shows it a whole run."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from relay.log.events import Accepted, Activated, ClientConnected, ClientDisconnected, Event, Expired, Notified, Removed
from relay.log.postfix import PostfixLines
from relay.log.sink import Sink
from relay.mail.envelope import NULL_SENDER, QueueId
from relay.outcome.result import NoHost
from tests.interop import servers
from tests.unit.log.cases import AT, CASES, LOCAL, address, bounced, deferred, reject, sent, settled

pytestmark = pytest.mark.interop

# pflogsumm up to 1.1.5 overlooks status lines with tls=, which Postfix 3.11 brought.
WORDS = PostfixLines(hostname="relay", pid=4242, tls_feature_status=False)
ID = "4XYZ0z{:04d}".format
REFUSED = "Server certificate not verified: expected TLSA 3 1 1 00; found 3 1 1 ff; rule tls_policy:12"


def taken(number: int, size: int) -> Iterator[Event]:
    queue_id = QueueId(ID(number))
    yield ClientConnected(LOCAL)
    yield Accepted(queue_id=queue_id, client=LOCAL, message_id="<1@app.example>", size=size, recipients=1)
    yield ClientDisconnected(LOCAL, {"ehlo": (1, 1), "mail": (1, 1), "rcpt": (1, 1), "data": (1, 1), "quit": (1, 1)})
    yield Activated(queue_id=queue_id, sender=address("a@b.example"), size=size, recipients=1)


def day() -> Iterator[Event]:
    """Five messages: three sent (one after a deferral), one bounced, one expired after a deferral; two refused."""
    yield from taken(1, 1000)
    yield CASES["TLS 1.3"]
    yield settled(sent("2.0.0 Ok: queued as (4ABC), status=sent"), queue_id=ID(1))
    yield Removed(QueueId(ID(1)))
    yield from taken(2, 200)
    yield settled(sent(), queue_id=ID(2), reused=1)
    yield Removed(QueueId(ID(2)))
    yield from taken(3, 30)
    yield CASES["connect failed"]
    yield CASES["TLS refused"]
    yield settled(deferred(REFUSED), queue_id=ID(3))
    yield Activated(queue_id=QueueId(ID(3)), sender=address("a@b.example"), size=30, recipients=1)
    yield settled(sent(), queue_id=ID(3))
    yield Removed(QueueId(ID(3)))
    yield from taken(4, 4)
    yield settled(bounced("host mx[192.0.2.1] said: 550 5.1.1 no (in reply to RCPT TO command)"), queue_id=ID(4))
    yield Notified(QueueId(ID(4)), "non-delivery", QueueId(ID(6)))
    yield Removed(QueueId(ID(4)))
    yield Activated(queue_id=QueueId(ID(6)), sender=NULL_SENDER, size=2000, recipients=1)
    yield from taken(5, 5)
    yield settled(deferred(f"delivery temporarily suspended: {REFUSED}"), queue_id=ID(5), relay=NoHost())
    yield Expired(QueueId(ID(5)), address("a@b.example"))
    yield Removed(QueueId(ID(5)))
    yield reject("RCPT", sender="a@b.example", recipient="c@d.example")
    yield reject("MAIL", sender="a@b.example")
    yield CASES["warning"]


def totals(log: Path, words: PostfixLines, events: Iterable[Event]) -> dict[str, int]:
    sink = Sink(words, log, clock=lambda: AT)
    for event in events:
        sink.observe(event)
    sink.close()
    done = subprocess.run([servers.require("pflogsumm"), log], capture_output=True, text=True, timeout=60, check=True)
    section = done.stdout.partition("Grand Totals")[2].partition("Per-")[0]
    return {
        name: int(number) for number, name in re.findall(r"^ +(\d+) +([a-z ]+?)(?: +\(.*)?$", section, re.MULTILINE)
    }


def test_a_day_of_everything(tmp_path: Path) -> None:
    counted = totals(tmp_path / "mail.log", WORDS, day())
    assert counted["received"] == 5
    assert counted["delivered"] == 3
    assert counted["deferred"] == 2
    assert counted["bounced"] == 1
    assert counted["rejected"] == 2
    assert counted["bytes received"] == 1239
    assert counted["bytes delivered"] == 1230


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("delivered", settled(sent())),
        ("deferred", settled(deferred(REFUSED))),
        ("bounced", settled(bounced("host mx[192.0.2.1] said: 550 5.1.1 no"))),
        ("rejected", reject("RCPT", sender="a@b.example", recipient="c@d.example")),
    ],
)
def test_each_kind_is_counted_as_itself_alone(tmp_path: Path, name: str, event: Event) -> None:
    counted = totals(tmp_path / "mail.log", WORDS, [*taken(1, 10), event])
    kinds = ("delivered", "deferred", "bounced", "rejected")
    assert {kind: counted[kind] for kind in kinds} == {kind: int(kind == name) for kind in kinds}
