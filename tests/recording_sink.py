"""An SMTP receiver that keeps every octet it is sent, and that can be told to hold its answer back.

Plain threads and sockets, and nothing of the relay's own code: what it recorded is evidence.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.watched_process import PATIENCE

_END = b"\r\n.\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One message as it came over the wire.

    :param mail: the MAIL command; ``rcpts`` the RCPT commands.
    :param wire: the octets after DATA's 354 up to and with the end ``CRLF . CRLF``.
    :param encrypted: whether the session was in TLS by then.
    """

    mail: bytes
    rcpts: tuple[bytes, ...]
    wire: bytes
    encrypted: bool

    @property
    def content(self) -> bytes:
        """The message with the transparency dots taken out (RFC 5321 section 4.5.2)."""
        return b"\r\n".join(line.removeprefix(b".") for line in self.wire.removesuffix(b".\r\n").split(b"\r\n"))


class _Connection:
    """A socket with a buffer; every octet read is counted here."""

    def __init__(self, peer: socket.socket) -> None:
        self.socket = peer
        self._buffer = bytearray()

    def line(self) -> bytes:
        return self.until(b"\r\n")

    def until(self, end: bytes) -> bytes:
        """Read up to and with ``end``; empty when the peer is gone."""
        searched = 0
        while (place := self._buffer.find(end, searched)) < 0:
            searched = max(0, len(self._buffer) - len(end) + 1)
            more = self.socket.recv(262144)
            if not more:
                return b""
            self._buffer += more
        taken = bytes(self._buffer[: place + len(end)])
        del self._buffer[: place + len(end)]
        return taken

    def body(self) -> bytes:
        """Read DATA's octets up to and with the end; a message may be empty, and begin with its end."""
        self._buffer[:0] = b"\r\n"
        return self.until(_END)[2:]

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Go on in TLS; what was sent too early is thrown away."""
        self._buffer.clear()
        self.socket = context.wrap_socket(self.socket, server_side=True)


class RecordingSink:
    """A receiver on one address.

    :param context: offers STARTTLS when given.
    :param wrapped: speaks TLS from the first octet, with ``context``, and offers no STARTTLS.
    :param keywords: what EHLO offers besides.
    :param answer: gives the reply to a command line instead of the usual one, for ``.`` too: the end of the message.
    """

    def __init__(
        self,
        address: str,
        port: int,
        *,
        context: ssl.SSLContext | None = None,
        wrapped: bool = False,
        keywords: Sequence[str] = ("PIPELINING", "SIZE 52428800", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8"),
        answer: Callable[[bytes], str | None] = lambda _: None,
    ) -> None:
        self._context = context
        self._wrapped = wrapped
        self._keywords = tuple(keywords)
        self._answer = answer
        self._changed = threading.Condition()
        self._messages: list[Recorded] = []
        self._heard: list[tuple[bytes, bool]] = []
        self._bodies_seen = 0
        self._waiting = 0
        self._most_waiting = 0
        self.open_gate = threading.Event()
        self.open_gate.set()
        self._closing = False
        self._connections: list[_Connection] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((address, port), backlog=200)
        self.address, self.port = self._listener.getsockname()[:2]
        self._accepting = threading.Thread(target=self._accept, name=f"sink {address}", daemon=True)
        self._accepting.start()

    def close_gate(self) -> None:
        """From now on the end of a message is not answered until ``open_gate`` is set."""
        self.open_gate.clear()

    def heard(self) -> tuple[tuple[bytes, bool], ...]:
        """Every command line of every session, and whether it came in TLS."""
        with self._changed:
            return tuple(self._heard)

    def messages(self) -> tuple[Recorded, ...]:
        """Messages that were answered with a 2xx reply, in the order in which they ended."""
        with self._changed:
            return tuple(self._messages)

    def wait_for_messages(self, count: int, *, patience: float = PATIENCE) -> tuple[Recorded, ...]:
        """Wait until that many messages were taken."""
        self._wait(lambda: len(self._messages) >= count, f"{count} messages", patience)
        return self.messages()

    @property
    def most_waiting(self) -> int:
        """How many messages that had come in whole waited for their answers at the same time, at most."""
        with self._changed:
            return self._most_waiting

    def wait_for_body(self, count: int = 1, *, patience: float = PATIENCE) -> None:
        """Wait until that many messages have come in whole, answered or not."""
        self._wait(lambda: self._bodies_seen >= count, f"the body of message {count}", patience)

    def _wait(self, happened: Callable[[], bool], what: str, patience: float) -> None:
        deadline = time.monotonic() + patience
        with self._changed:
            while not happened():
                left = deadline - time.monotonic()
                assert left > 0, f"the sink at {self.address}:{self.port} waited {patience:.0f} s for {what}"
                self._changed.wait(left)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            connection = _Connection(peer)
            with self._changed:
                if self._closing:
                    peer.close()
                    return
                self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: _Connection) -> None:
        try:
            self._session(connection)
        except OSError:
            pass  # the peer went away, or this sink was closed: what was taken is recorded
        finally:
            connection.socket.close()

    def _session(self, peer: _Connection) -> None:
        mail, rcpts, encrypted = b"", list[bytes](), self._wrapped
        if self._context and self._wrapped:
            peer.start_tls(self._context)
        self._say(peer, self._answer(b"") or "220 sink.test ESMTP")
        while line := peer.line():
            command = line.rstrip(b"\r\n")
            with self._changed:
                self._heard.append((command, encrypted))
            word = command[:4].upper()
            own = self._answer(command)
            if own is not None:
                self._say(peer, own)
            elif word == b"EHLO":
                offered = [*self._keywords, *(["STARTTLS"] if self._context and not encrypted else [])]
                names = ["sink.test", *offered]
                self._say(peer, *(f"250{' ' if name is names[-1] else '-'}{name}" for name in names))
            elif word == b"STAR" and self._context:
                self._say(peer, "220 2.0.0 Ready to start TLS")
                peer.start_tls(self._context)
                mail, rcpts, encrypted = b"", [], True
            elif word == b"MAIL":
                mail, rcpts = command, []
                self._say(peer, "250 2.1.0 Ok")
            elif word == b"RCPT":
                rcpts.append(command)
                self._say(peer, "250 2.1.5 Ok")
            elif word == b"DATA":
                self._say(peer, "354 End data with <CR><LF>.<CR><LF>")
                if not self._take(peer, mail, tuple(rcpts), encrypted):
                    return
            elif word == b"QUIT":
                self._say(peer, "221 2.0.0 Bye")
                return
            else:
                self._say(peer, "250 2.0.0 Ok" if word in (b"RSET", b"NOOP", b"HELO") else "502 5.5.2 Unknown")

    def _take(self, peer: _Connection, mail: bytes, rcpts: tuple[bytes, ...], encrypted: bool) -> bool:
        wire = peer.body()
        if not wire.endswith(b".\r\n"):
            return False
        with self._changed:
            self._bodies_seen += 1
            self._waiting += 1
            self._most_waiting = max(self._most_waiting, self._waiting)
            self._changed.notify_all()
        self.open_gate.wait(PATIENCE)
        with self._changed:
            self._waiting -= 1
        if self._closing:
            return False
        reply = self._answer(b".") or "250 2.0.0 Ok: recorded"
        if reply.startswith("2"):
            with self._changed:
                self._messages.append(Recorded(mail=mail, rcpts=rcpts, wire=wire, encrypted=encrypted))
                self._changed.notify_all()
        self._say(peer, reply)
        return True

    @staticmethod
    def _say(peer: _Connection, *lines: str) -> None:
        peer.socket.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def close(self) -> None:
        """Stop listening, cut every session and wait for its thread."""
        with self._changed:
            self._closing = True
            open_sockets = [self._listener, *(connection.socket for connection in self._connections)]
        self.open_gate.set()
        for one in open_sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it was closed already
            one.close()
        self._accepting.join(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)

    def __enter__(self) -> RecordingSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def server_context(pem_file: Path) -> ssl.SSLContext:
    """What a receiver presents: key and chain from one file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem_file)
    return context
