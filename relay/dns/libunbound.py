"""libunbound's public API (libunbound(3)) through ctypes; only the binding, no opinion.

The library validates in a thread of its own and reports through a file descriptor: when that is readable, ``process``
calls back, in the thread that called it. A context is used from one thread at a time. Every result is copied and freed
before anybody sees it, the callback lives as long as its context, and a closed context calls nothing any more.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

SONAME: Final = "libunbound.so.8"
# Soname 8 began with 1.8.0, and ``struct ub_result`` has had its present shape since.
OLDEST: Final = (1, 8)
IN: Final = 1
MAX_DATA: Final = 400
_MAX_RDATA: Final = 65_535


class NoLibunbound(Exception):  # noqa: N818 - it names the state of the system
    """The library is not there or too old; the message says what to install."""


class UnboundError(Exception):
    """A call of the library failed; the message has its own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """``struct ub_result``, copied.

    :param data: RDATA without compression, at most ``MAX_DATA`` and one more, which shows that there were too many.
    :param canonname: where CNAME records led, absolute; empty if nowhere.
    :param ttl: seconds, of the negative answer if there is no data.
    :param bogus: tells more than all other fields: with it, they may say anything.
    :param why_bogus: the library's explanation, as it came.
    """

    rcode: int
    havedata: bool
    nxdomain: bool
    secure: bool
    bogus: bool
    why_bogus: str
    canonname: str
    ttl: int
    data: tuple[bytes, ...]


Deliver = Callable[[int, Result | UnboundError], None]
"""Takes the token of a query and what came of it; must not raise."""


class _Result(ctypes.Structure):
    _fields_: ClassVar = [
        ("qname", ctypes.c_char_p),
        ("qtype", ctypes.c_int),
        ("qclass", ctypes.c_int),
        ("data", ctypes.POINTER(ctypes.c_void_p)),
        ("len", ctypes.POINTER(ctypes.c_int)),
        ("canonname", ctypes.c_char_p),
        ("rcode", ctypes.c_int),
        ("answer_packet", ctypes.c_void_p),
        ("answer_len", ctypes.c_int),
        ("havedata", ctypes.c_int),
        ("nxdomain", ctypes.c_int),
        ("secure", ctypes.c_int),
        ("bogus", ctypes.c_int),
        ("why_bogus", ctypes.c_char_p),
        ("was_ratelimited", ctypes.c_int),
        ("ttl", ctypes.c_int),
    ]


_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Result))
_TEXT, _CONTEXT, _NUMBER = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int
_SIGNATURES: Final = {
    "ub_version": (_TEXT, ()),
    "ub_strerror": (_TEXT, (_NUMBER,)),
    "ub_ctx_create": (_CONTEXT, ()),
    "ub_ctx_delete": (None, (_CONTEXT,)),
    "ub_ctx_set_option": (_NUMBER, (_CONTEXT, _TEXT, _TEXT)),
    "ub_ctx_set_fwd": (_NUMBER, (_CONTEXT, _TEXT)),
    "ub_ctx_set_stub": (_NUMBER, (_CONTEXT, _TEXT, _TEXT, _NUMBER)),
    "ub_ctx_add_ta": (_NUMBER, (_CONTEXT, _TEXT)),
    "ub_ctx_add_ta_autr": (_NUMBER, (_CONTEXT, _TEXT)),
    "ub_ctx_zone_remove": (_NUMBER, (_CONTEXT, _TEXT)),
    "ub_ctx_async": (_NUMBER, (_CONTEXT, _NUMBER)),
    "ub_fd": (_NUMBER, (_CONTEXT,)),
    "ub_process": (_NUMBER, (_CONTEXT,)),
    "ub_resolve_async": (
        _NUMBER,
        (_CONTEXT, _TEXT, _NUMBER, _NUMBER, ctypes.c_void_p, _CALLBACK, ctypes.POINTER(_NUMBER)),
    ),
    "ub_cancel": (_NUMBER, (_CONTEXT, _NUMBER)),
    "ub_resolve_free": (None, (ctypes.POINTER(_Result),)),
}


@functools.cache
def load() -> ctypes.CDLL:
    """The library, with the types of its functions declared.

    :raises NoLibunbound: if it cannot be loaded.
    """
    library = _open(SONAME) or _open(ctypes.util.find_library("unbound"))
    if library is None:
        raise NoLibunbound("libunbound is not installed (Debian and Ubuntu: apt-get install libunbound8)")
    try:
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, list(arguments)
    except AttributeError as error:
        raise NoLibunbound(f"libunbound lacks a function: {error}; install version 1.8 or newer") from None
    version = _words(library.ub_version())
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        raise NoLibunbound(f"libunbound {version} is too old; install version 1.8 or newer")
    return library


def _open(name: str | None) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name) if name else None
    except OSError:
        return None


def version() -> str:
    """The version of the library.

    :raises NoLibunbound: if there is none.
    """
    return _words(load().ub_version())


class Context:
    """One resolver with its own settings, caches and thread.

    Settings come first: the first ``remove_local_zone`` or ``resolve`` makes them final, and reads what they name.

    :param deliver: called from within ``process``, once for each query that was not cancelled.
    :raises NoLibunbound: if there is no library.
    """

    def __init__(self, deliver: Deliver) -> None:
        self._library = load()
        self._deliver = deliver
        self._callback = _CALLBACK(self._answered)
        self._context: int | None = self._library.ub_ctx_create()
        if self._context is None:
            raise UnboundError("libunbound could not make a context: out of memory or file descriptors")
        self._check(self._library.ub_ctx_async(self._context, 1), "a thread for look-ups")

    # --- settings

    def set_option(self, name: str, value: str) -> None:
        """Set an option of unbound.conf(5), its name without the colon."""
        self._check(self._library.ub_ctx_set_option(self._open, _octets(f"{name}:"), _octets(value)), f"option {name}")

    def forward_to(self, address: str, port: int) -> None:
        """Send what is not known to this name server; more than one may be given."""
        self._check(self._library.ub_ctx_set_fwd(self._open, _octets(f"{address}@{port}")), f"forwarder {address}")

    def stub(self, zone: str, address: str, port: int) -> None:
        """Ask this authoritative server for what is in a zone."""
        server = _octets(f"{address}@{port}")
        self._check(self._library.ub_ctx_set_stub(self._open, _octets(zone), server, 0), f"stub for {zone}")

    def add_trust_anchor(self, record: str) -> None:
        """Trust a DS or DNSKEY record, one line of a master file."""
        self._check(self._library.ub_ctx_add_ta(self._open, _octets(record)), f"trust anchor {record}")

    def follow_trust_anchor(self, path: str) -> None:
        """Trust the keys in a file and keep them up to date there (RFC 5011).

        If the library cannot write the file later, it ends the whole process (``fatal_exit`` in autotrust.c): this is for
        a process of its own, see ``relay.dns.follow``.
        """
        self._check(self._library.ub_ctx_add_ta_autr(self._open, _octets(path)), f"trust anchor file {path}")

    def remove_local_zone(self, zone: str) -> None:
        """Remove a zone that the library would answer for itself; no error if it has none of that name."""
        self._check(self._library.ub_ctx_zone_remove(self._open, _octets(zone)), f"local zone {zone}")

    # --- work

    def resolve(self, name: str, rrtype: int, token: int) -> int:
        """Begin a look-up.

        :param name: absolute, in the notation of master files.
        :param token: given back with the result; positive.
        :return: what ``cancel`` takes.
        """
        number = _NUMBER(0)
        status = self._library.ub_resolve_async(
            self._open, _octets(name), rrtype, IN, token, self._callback, ctypes.byref(number)
        )
        self._check(status, f"look-up of {name}")
        return number.value

    def cancel(self, number: int) -> None:
        """Give up a look-up; one that has ended already is no error."""
        self._library.ub_cancel(self._open, number)

    def fileno(self) -> int:
        """The file descriptor that becomes readable when there are results."""
        return int(self._library.ub_fd(self._open))

    def process(self) -> None:
        """Deliver the results that are there.

        :raises UnboundError: if the library's thread is gone.
        """
        self._check(self._library.ub_process(self._open), "reading results")

    def close(self) -> None:
        """End the thread, wait for it, and free everything. Nothing is delivered any more; closing twice is no error."""
        context, self._context = self._context, None
        if context is not None:
            self._library.ub_ctx_delete(context)

    @property
    def _open(self) -> int:
        if self._context is None:
            raise UnboundError("the libunbound context is closed")
        return self._context

    def _check(self, status: int, doing: str) -> None:
        if status:
            raise UnboundError(f"libunbound, {doing}: {_words(self._library.ub_strerror(status))}")

    def _answered(self, token: int | None, status: int, result: ctypes._Pointer[_Result]) -> None:
        """The callback: copy, free, deliver."""
        if status:  # then there is no result to free
            outcome: Result | UnboundError = UnboundError(_words(self._library.ub_strerror(status)))
        else:
            try:
                outcome = _copied(result.contents)
            finally:
                self._library.ub_resolve_free(result)
        self._deliver(token or 0, outcome)


def _copied(raw: _Result) -> Result:
    return Result(
        rcode=raw.rcode,
        havedata=bool(raw.havedata),
        nxdomain=bool(raw.nxdomain),
        secure=bool(raw.secure),
        bogus=bool(raw.bogus),
        why_bogus=_words(raw.why_bogus),
        canonname=_words(raw.canonname),
        ttl=raw.ttl,
        data=_data(raw),
    )


def _data(raw: _Result) -> tuple[bytes, ...]:
    items: list[bytes] = []
    # Both pointers are NULL in a result that is a mere error code.
    while raw.data and raw.len and len(items) <= MAX_DATA:
        address = raw.data[len(items)]
        if address is None:
            break
        items.append(ctypes.string_at(address, max(0, min(raw.len[len(items)], _MAX_RDATA))))
    return tuple(items)


def _octets(text: str) -> bytes:
    """Text (a name, a setting, a path) for a C string.

    :raises UnboundError: if it would end early.
    """
    if "\0" in text:
        raise UnboundError(f"libunbound takes no text with NUL: {text!r}")
    return os.fsencode(text)


def _words(raw: bytes | None) -> str:
    return raw.decode("ascii", "backslashreplace") if raw else ""
