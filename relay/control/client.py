"""The command's end of the control socket; blocking, since a command has nothing else to do."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, assert_never

from relay.control.address import socket_address
from relay.control.protocol import (
    MAX_ANSWER_LINE,
    SOCKET_NAME,
    Answer,
    BadMessage,
    Done,
    Failed,
    Item,
    Request,
    Underway,
    decode_answer,
    encode_request,
)

TIMEOUT = 120.0


class NoRelay(Exception):  # noqa: N818 - it names the state, not the handling
    """No relay answers at this state directory; the message names it."""


class CallFailed(Exception):  # noqa: N818 - it names what happened, not the handling
    """The relay refused the request or broke off; the message says why."""


def call(state_dir: Path, request: Request, *, timeout: float = TIMEOUT) -> dict[str, object]:
    """Have a running relay carry out a request and give its result.

    :param timeout: seconds without a word from the relay.
    :raises NoRelay: if none runs on this directory.
    :raises CallFailed: if it could not do it.
    """
    result: dict[str, object] = {}
    for answer in _converse(state_dir, request, timeout):
        if isinstance(answer, Done):
            result = dict(answer.value)
    return result


def converse(state_dir: Path, request: Request, *, timeout: float = TIMEOUT) -> Iterator[Item | Underway | Done]:
    """Have a running relay carry out a request and give its answers as they come, ``Done`` last.

    :raises NoRelay: before the first, if none runs on this directory.
    :raises CallFailed: if it could not do it.
    """
    return _converse(state_dir, request, timeout)


def entries(answers: Iterable[Answer]) -> Iterator[dict[str, object]]:
    """The messages of a listing, each as ``relay.queue.showq.entry_object`` shows it, its parts put together."""
    begun: list[object] = []
    for answer in answers:
        if not isinstance(answer, Item):
            continue
        entry = dict(answer.value)
        recipients = entry.get("recipients")
        begun.extend(recipients if isinstance(recipients, list) else [])
        if not entry.pop("continued", False):
            yield {**entry, "recipients": begun}
            begun = []


def _converse(state_dir: Path, request: Request, timeout: float) -> Iterator[Item | Underway | Done]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        _connect(connection, state_dir)
        try:
            connection.sendall(encode_request(request))
            with connection.makefile("rb") as lines:
                yield from _answers(lines)
        except TimeoutError as error:
            raise CallFailed(f"the relay on {state_dir} said nothing for {timeout:g} seconds") from error
        except OSError as error:
            raise CallFailed(f"the relay on {state_dir} broke off: {error.strerror or error}") from error


def _connect(connection: socket.socket, state_dir: Path) -> None:
    try:
        with socket_address(state_dir) as address:
            connection.connect(address)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NoRelay(f"no relay runs on state_dir {state_dir}") from error
    except PermissionError as error:
        raise CallFailed(
            f"{state_dir / SOCKET_NAME}: permission denied: run this as the user that the relay runs as, or root"
        ) from error
    except OSError as error:
        raise CallFailed(f"{state_dir / SOCKET_NAME}: {error.strerror or error}") from error


def _answers(lines: BinaryIO) -> Iterator[Item | Underway | Done]:
    while line := lines.readline(MAX_ANSWER_LINE + 1):
        try:
            answer = decode_answer(line)
        except BadMessage as error:
            raise CallFailed(f"the relay answered strangely: {error}") from error
        match answer:
            case Failed(error=text):
                raise CallFailed(f"the relay says: {text}")
            case Item() | Underway():
                yield answer
            case Done():
                yield answer
                return
            case _:
                assert_never(answer)
    raise CallFailed("the relay closed the connection before it had answered")
