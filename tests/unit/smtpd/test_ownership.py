"""Who may use which sender address."""

from __future__ import annotations

import pytest

from relay.mail.envelope import NULL_SENDER, Address
from relay.mail.names import Domain
from relay.maps.build import MapSpec, build_table
from relay.routing.relayhosts import read_key
from relay.smtpd.ownership import Owners

TEXT = """\
joe@example.com joe
Desk@Example.COM Ann, joe
@example.com\tann
twice@example.net joe
twice@example.net ann
"""


def owners(*more: tuple[str, str]) -> Owners:
    texts = (("texthash", TEXT), *more)
    return Owners(tuple(build_table(MapSpec(kind, "map"), text, read_key=read_key) for kind, text in texts))


def refusal(owned: Owners, sender: str, user: str) -> str:
    reply = owned.refuses(Address(sender, Domain.parse(sender.rpartition("@")[2])), user)
    return "" if reply is None else reply.one_line


@pytest.mark.parametrize(
    ("sender", "user", "may"),
    [
        ("joe@example.com", "joe", True),
        ("JOE@EXAMPLE.com", "Joe", True),
        ("joe@example.com", "ann", False),
        ("desk@example.com", "ann", True),
        ("desk@example.com", "joe", True),
        ("desk@example.com", "an", False),
        ("other@example.com", "ann", True),
        ("other@example.com", "joe", False),
        ("joe@elsewhere.example", "joe", False),
        ("joe@sub.example.com", "ann", False),
        ("joe@elsewhere.example", "", True),
    ],
)
def test_whose_address(sender: str, user: str, may: bool) -> None:
    text = f"553 5.7.1 <{sender}>: Sender address rejected: not owned by user {user}"
    assert refusal(owners(), sender, user) == ("" if may else text)


def test_reports_are_everybodys_and_without_maps_all_is() -> None:
    assert owners().refuses(NULL_SENDER, "joe") is None
    assert not refusal(Owners(), "ann@example.com", "joe")


def test_a_line_that_cannot_be_understood_refuses_for_a_while() -> None:
    assert refusal(owners(), "twice@example.net", "joe").startswith("451 4.3.0")


def test_a_pattern_sees_the_whole_address_only() -> None:
    owned = owners(("regexp", "/^@example.org$/ joe\n/^(.*)@example.org$/ $1\n"))
    assert not refusal(owned, "ann@example.org", "ann")
    assert refusal(owned, "ann@example.org", "joe")
