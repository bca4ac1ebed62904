"""Unix sockets: who comes through one is known by user, and no address speaks for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from relay.log.events import ClientConnected, Noted
from relay.mail.envelope import Client as Who
from relay.mail.envelope import LocalUser
from relay.smtpd.access import LocalRewrite, LocalUsers, is_written_here, may_send
from relay.smtpd.local import LocalSockets
from relay.smtpd.options import LOOPBACK, SmtpdOptions
from relay.smtpd.server import CannotServe, SmtpServer
from tests.unit.smtpd.conftest import CertificateFiles
from tests.unit.smtpd.front_end import HOSTNAME, Client, FrontEnd, front_end, options

ME = pwd.getpwuid(os.geteuid()).pw_name
EVERYBODY = LocalUsers(frozenset({"*"}))
JOE = Who(address=ip_address("127.0.0.1"), name="localhost", local=LocalUser(uid=1000, name="joe"))


@asynccontextmanager
async def through(path: Path) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


@asynccontextmanager
async def door(
    path: Path, users: LocalUsers = EVERYBODY, *, settings: SmtpdOptions | None = None
) -> AsyncIterator[tuple[FrontEnd, Client]]:
    async with (
        front_end(settings, local=LocalSockets((path,), 0o600), local_users=users) as relay,
        through(path) as client,
    ):
        assert await client.reply() == f"220 {HOSTNAME} ESMTP dane-relay"
        await client.say("EHLO client.example")
        yield relay, client


async def test_a_message(tmp_path: Path) -> None:
    path = tmp_path / "smtp"
    async with door(path) as (relay, client):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await client.message(b"hello\r\n" * 50_000)).startswith("250")
        (content,) = relay.store.messages.values()
        assert content.startswith(
            b"Received: from client.example (localhost [127.0.0.1])\r\n"
            + f"\t(local user {ME}, uid {os.geteuid()})\r\n\tby {HOSTNAME}".encode()
        )
        (put,) = relay.store.puts
        assert put.envelope.client.local == LocalUser(uid=os.geteuid(), name=ME)
        noted = await relay.seen(Noted)
        assert noted.text == f"connection through a Unix socket from local user {ME} (uid {os.geteuid()})"
        assert str((await relay.seen(ClientConnected)).client) == "localhost[127.0.0.1]"
        assert relay.server.paths == (path,)
        assert len(relay.server.addresses) == 2
    assert not path.exists()


@pytest.mark.parametrize(
    ("names", "may"),
    [({"*"}, True), ({ME}, True), ({str(os.geteuid())}, True), ({"nobody-else"}, False), (set(), False)],
)
async def test_who_may_relay_is_configured_and_mynetworks_says_nothing(
    tmp_path: Path, names: set[str], may: bool
) -> None:
    async with door(tmp_path / "smtp", LocalUsers(frozenset(names))) as (_, client):
        await client.say("MAIL FROM:<a@example.org>")
        assert (await client.say("RCPT TO:<b@example.net>")).startswith("250" if may else "454")


async def test_what_tls_is_required_for_does_not_concern_it(certificate: CertificateFiles, tmp_path: Path) -> None:
    settings = options(tls_cert_file=certificate.cert_file, tls_key_file=certificate.key_file, tls_required=True)
    async with door(tmp_path / "smtp", settings=settings) as (relay, client):
        assert (await client.message(b"hello\r\n")).startswith("250")
        async with relay.client() as other:
            assert (await other.say("MAIL FROM:<a@example.org>")).startswith("530")


def test_which_names_are_a_user() -> None:
    assert LocalUsers(frozenset({"joe"})).permit(JOE)
    assert LocalUsers(frozenset({"1000"})).permit(JOE)
    assert not LocalUsers(frozenset({"Joe", "100"})).permit(JOE)
    stranger = Who(address=ip_address("127.0.0.1"))
    assert not EVERYBODY.permit(stranger)
    nameless = Who(address=ip_address("127.0.0.1"), local=LocalUser(uid=-1, name=""))
    assert not LocalUsers(frozenset({"", "-1"})).permit(nameless)
    assert EVERYBODY.permit(nameless)
    assert not may_send(JOE, LOOPBACK)


def test_their_mail_is_written_here() -> None:
    def written(clause: LocalRewrite) -> bool:
        return is_written_here(JOE, {clause}, mynetworks=LOOPBACK, is_own=lambda address: False)

    assert written(LocalRewrite.INET_INTERFACES)
    assert not written(LocalRewrite.MYNETWORKS)


def silent(lobby: object) -> asyncio.Protocol:
    del lobby
    return asyncio.Protocol()


async def test_a_socket_that_was_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "smtp"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with door(path):
        pass


@pytest.mark.parametrize(
    ("what", "why"),
    [("file", "it exists and is no socket"), ("served", "another program serves it"), ("long", "too long")],
)
async def test_what_is_somebody_elses_stays(tmp_path: Path, what: str, why: str) -> None:
    path = tmp_path / ("x" * 120 if what == "long" else "smtp")
    with socket.socket(socket.AF_UNIX) as other:
        if what == "file":
            path.write_text("precious")
        elif what == "served":
            other.bind(str(path))
            other.listen()
        server = SmtpServer([("127.0.0.1", 0)], silent, options(), local=LocalSockets((path,)))
        with pytest.raises(
            CannotServe, match=rf"cannot listen on unix:{path}: .*{why}.* correct \[smtpd\] unix_listen"
        ):
            await server.start()
        assert server.addresses == ()
        assert path.exists() is (what != "long")


@pytest.mark.parametrize("kind", ["busy", "datagrams"])
async def test_who_serves_a_socket_need_not_answer_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "smtp"
    with contextlib.ExitStack() as stack:
        other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if kind == "datagrams" else socket.SOCK_STREAM)
        stack.enter_context(other).bind(str(path))
        if kind == "busy":
            other.listen(0)
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.connect(str(path))
        server = SmtpServer([], silent, options(), local=LocalSockets((path,)))
        with pytest.raises(CannotServe, match=r"cannot listen on unix:.* correct \[smtpd\] unix_listen"):
            await server.start()
        assert path.is_socket()


async def test_one_that_another_program_put_in_its_place_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "smtp"
    async with door(path):
        path.unlink()
        path.write_text("theirs")
    assert path.read_text() == "theirs"
