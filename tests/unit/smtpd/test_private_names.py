"""Canaries: what ``relay/smtpd/session.py`` uses of aiosmtpd without a promise. Red here means: read its source anew."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import textwrap
from typing import Any

import aiosmtpd
import aiosmtpd.smtp
from aiosmtpd.smtp import SMTP

from relay.smtpd import session


def source(name: str) -> str:
    return textwrap.dedent(inspect.getsource(getattr(SMTP, name)))


def test_the_minor_version_is_the_one_that_was_read() -> None:
    assert aiosmtpd.__version__.split(".")[:2] == ["1", "4"]


def test_a_connection_makes_one_task_of_handle_client() -> None:
    assert inspect.iscoroutinefunction(SMTP._handle_client)
    assert list(inspect.signature(SMTP._handle_client).parameters) == ["self"]
    assert re.search(
        r"self\._handler_coroutine = self\.loop\.create_task\(\s*self\._handle_client\(\)\)", source("connection_made")
    )


def test_the_stream_has_its_name() -> None:
    assert "self._writer = writer" in source("_cb_client_connected")


def test_tls_begins_as_it_did() -> None:
    starttls = source("smtp_STARTTLS")
    assert starttls.count("self.push(") == 3
    assert "self.push('220 Ready to start TLS')" in starttls
    assert "self._original_transport = self.transport" in starttls
    assert "raise TLSSetupException() from error" in starttls
    made = source("connection_made")
    # What was sent in the clear ahead of TLS must not be read after it (CVE-2024-34083).
    assert "self._reader._buffer.clear()" in made
    assert "self._writer._transport = transport" in made


def test_the_destructor_looks_at_what_the_connection_ended_with() -> None:
    assert 'getattr(self, "_closed", None)' in source("__del__")
    assert "closed.exception()" in source("__del__")


def test_the_timer_is_the_one_that_is_replaced() -> None:
    assert list(inspect.signature(SMTP._reset_timeout).parameters) == ["self", "duration"]
    assert SMTP.connection_lost is not session.Session.connection_lost
    assert SMTP.eof_received is not session.Session.eof_received


def test_the_constructor_takes_what_we_give() -> None:
    parameters = inspect.signature(SMTP.__init__).parameters
    assert {"handler", "data_size_limit", "enable_SMTPUTF8", "hostname", "timeout", "loop"} <= set(parameters)
    assert issubclass(SMTP, asyncio.StreamReaderProtocol)
    assert "limit=self.line_length_limit" in source("__init__")
    assert "self.command_size_limits.clear()" in source("__init__")


def test_the_constructor_only_collects_what_is_not_used_here() -> None:
    made = source("__init__")
    assert re.findall(r"(?:getmembers|dir)\((\w+)\)", made) == ["obj", "handler", "self"]
    assert re.findall(r'startswith\("(\w+)"\)', made) == ["auth_", "handle_", "smtp_"]
    used = {name for name in ("_auth_methods", "_handle_hooks", "_smtp_methods") if name in inspect.getsource(session)}
    assert not used


def test_the_list_at_the_top_of_the_file_is_whole() -> None:
    tree = ast.parse(inspect.getsource(session))
    own: set[str] = set()
    used: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            used.add(node.attr)
            if isinstance(node.ctx, ast.Store):
                own.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute):
            own.add(node.target.attr)
    inherited: Any = vars(SMTP).keys() | set(re.findall(r"self\.(_\w+)", inspect.getsource(SMTP)))
    private = {name for name in used | own if name.startswith("_") and not name.startswith("__") and name in inherited}
    documented = set(re.findall(r"``(_\w+)``", session.__doc__ or ""))
    assert private == documented
