"""The binding: settings refused, results copied, nothing after the end."""

from __future__ import annotations

import ctypes.util
import select

import pytest

from relay.dns import libunbound
from relay.dns.libunbound import Context, NoLibunbound, Result, UnboundError
from tests.interop.servers import require_libunbound
from tests.signed_tree import TreeServer


def ignore(token: int, outcome: Result | UnboundError) -> None:
    raise AssertionError("nothing was asked")


@pytest.fixture
def context() -> Context:
    require_libunbound()
    return Context(ignore)


def test_absent_library_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libunbound, "SONAME", "libthere-is-none.so.8")
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(NoLibunbound, match="apt-get install libunbound8"):
        libunbound.load.__wrapped__()


def test_old_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_libunbound()
    monkeypatch.setattr(libunbound, "OLDEST", (99, 0))
    with pytest.raises(NoLibunbound, match="too old"):
        libunbound.load.__wrapped__()


def test_library_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    name = ctypes.util.find_library("c")
    assert name is not None
    monkeypatch.setattr(libunbound, "SONAME", name)
    with pytest.raises(NoLibunbound, match="lacks a function"):
        libunbound.load.__wrapped__()


def test_version_has_numbers() -> None:
    require_libunbound()
    assert libunbound.version()[0].isdigit()


def test_refused_settings_say_which(context: Context) -> None:
    with pytest.raises(UnboundError, match="option no-such-option: syntax error"):
        context.set_option("no-such-option", "yes")
    with pytest.raises(UnboundError, match="forwarder nowhere: syntax error"):
        context.forward_to("nowhere", 53)
    with pytest.raises(UnboundError, match="NUL"):
        context.set_option("verbosity", "0\0")
    context.close()


def test_settings_are_final_after_the_first_use(context: Context) -> None:
    context.remove_local_zone("test.")
    with pytest.raises(UnboundError, match="after finalize"):
        context.set_option("verbosity", "0")
    context.close()


def test_bad_trust_anchor_is_refused_when_it_is_read(context: Context) -> None:
    context.add_trust_anchor("this is no record")
    with pytest.raises(UnboundError, match="initialization failure"):
        context.remove_local_zone("test.")
    context.close()


def test_closed_context_calls_nothing(context: Context) -> None:
    context.close()
    context.close()
    for use in (context.fileno, context.process, lambda: context.resolve(".", 2, 1), lambda: context.cancel(1)):
        with pytest.raises(UnboundError, match="closed"):
            use()


def test_results_come_with_their_tokens_and_outlive_the_context(server: TreeServer) -> None:
    came: dict[int, Result | UnboundError] = {}
    context = Context(came.__setitem__)
    for zone in (".", "zt.", "good.zt."):
        context.stub(zone, server.address, server.port)
    for anchor in server.tree.anchors:
        context.add_trust_anchor(anchor)
    context.resolve("mx.good.zt.", 1, 7)
    context.resolve("good.zt.", 15, 8)
    cancelled = context.resolve("alias.good.zt.", 1, 9)
    context.cancel(cancelled)
    context.cancel(cancelled + 1000)
    while len(came) < 2:
        assert select.select([context.fileno()], [], [], 30)[0]
        context.process()
    context.close()
    address, exchange = came[7], came[8]
    assert isinstance(address, Result)
    assert isinstance(exchange, Result)
    assert (address.data, address.secure, address.bogus, address.rcode) == ((b"\x7f\0\0\2",), True, False, 0)
    assert exchange.data == (b"\0\x0a\2MX\4good\2zt\0",)
    assert came.keys() == {7, 8}
