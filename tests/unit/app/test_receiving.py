from __future__ import annotations

import resource
from ipaddress import ip_address
from pathlib import Path

import pytest

from relay.app.receiving import adds_missing, intake_options, make_room
from relay.config.config import Config
from relay.config.load import load
from relay.log.events import Event
from relay.mail.envelope import Client
from relay.smtpd.access import LocalRewrite

LOOPBACK, ELSEWHERE = Client(address=ip_address("127.9.9.9")), Client(address=ip_address("192.0.2.1"))


def config(tmp_path: Path, smtpd: str) -> Config:
    path = tmp_path / "relay.toml"
    path.write_text(f"[smtpd]\n{smtpd}\n")
    return load(path, {}, hostname="relay.example")


@pytest.mark.parametrize(
    ("smtpd", "here", "elsewhere"),
    [
        ("", True, False),
        ('local_header_rewrite_clients = ""', False, False),
        ('local_header_rewrite_clients = "permit_mynetworks"\nmynetworks = "192.0.2.0/24"', False, True),
        ("always_add_missing_headers = true", True, True),
    ],
)
def test_whose_mail_is_completed(tmp_path: Path, smtpd: str, here: bool, elsewhere: bool) -> None:
    adds = adds_missing(config(tmp_path, smtpd))
    assert (adds(LOOPBACK), adds(ELSEWHERE)) == (here, elsewhere)


def test_every_word_of_the_option_is_known(tmp_path: Path) -> None:
    words = ", ".join(f'"{clause.value}"' for clause in LocalRewrite)
    assert adds_missing(config(tmp_path, f"local_header_rewrite_clients = [{words}]"))(LOOPBACK)


def test_dropped_fields_are_lower_case_octets(tmp_path: Path) -> None:
    options = intake_options(config(tmp_path, 'message_drop_headers = "Bcc:, X-Originating-IP"\nheader_size_limit = 5'))
    assert options.drop_headers == {b"bcc", b"x-originating-ip"}
    assert options.header_size_limit == 5


@pytest.mark.parametrize(
    ("limits", "connections", "allowed", "warns"),
    [
        ((1024, 4096), 100, 1024, False),
        ((1024, 4096), 1000, 1600, False),
        ((1024, 2000), 5000, 2000, True),
        ((1024, resource.RLIM_INFINITY), 9000, 9600, False),
    ],
)
def test_there_is_room_for_connections(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], connections: int, allowed: int, warns: bool
) -> None:
    set_to = [limits]
    monkeypatch.setattr(resource, "getrlimit", lambda what: set_to[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda what, new: set_to.append(new))
    events: list[Event] = []
    make_room(connections, events.append)
    assert set_to[-1][0] == allowed
    assert bool(events) == warns
