"""The configuration as the options of the rooms: what counts as ourselves."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from relay.app.options import delivery_options, is_local
from relay.config.load import read
from relay.delivery.reach import Families, Preference, Reach
from relay.mail.names import Domain


def reach(text: str) -> Reach:
    config = read(text, name="relay.toml", base=Path("/"), environ={}, hostname="relay.example")
    return delivery_options(config).reach


def test_families_and_preference() -> None:
    assert (reach("").families, reach("").preference) == (Families.ALL, Preference.ANY)
    chosen = reach('[smtp]\ninet_protocols = "ipv4"\naddress_preference = "ipv6"\n')
    assert (chosen.families, chosen.preference) == (Families.IPV4, Preference.IPV6)


def test_our_names_and_addresses() -> None:
    ours = reach(
        '[relay]\nmyhostname = "a.example"\n[smtpd]\nlisten = ["192.0.2.1:25", "[::]:25"]\n'
        '[smtp]\nhelo_name = "b.example"\nport = 2525\n'
    ).ourselves
    assert ours.names == {Domain("a.example"), Domain("b.example")}
    assert ours.port == 2525
    assert ours.take_mail_at(ip_address("192.0.2.1"), 25)
    assert ours.everywhere == {(6, 25)}


def test_a_literal_as_helo_name_is_no_name() -> None:
    assert reach('[smtp]\nhelo_name = "[192.0.2.1]"\n').ourselves.names == {Domain("relay.example")}


def test_which_addresses_are_this_machines() -> None:
    assert is_local(ip_address("127.0.0.1"))
    assert not is_local(ip_address("192.0.2.1"))  # RFC 5737: nobody's
