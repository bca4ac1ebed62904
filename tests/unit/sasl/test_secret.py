"""A secret is shown by nothing but ``reveal``."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import traceback
from dataclasses import asdict, replace

import pytest

from relay.sasl.credentials import Credentials, Owner, Password
from relay.sasl.exchange import exchange
from relay.sasl.passwords import parse_passwords
from relay.sasl.secret import Secret

WORD = "correct horse"


def credentials() -> Credentials:
    return Credentials(user="joe", proof=Password(Secret(WORD)), place="sasl_passwd:1", owner=Owner.HOST)


@pytest.mark.parametrize(
    "shown",
    [
        repr(credentials()),
        str(credentials()),
        f"{Secret(WORD)} {Secret(WORD)!r} {Secret(WORD)!s} {Secret(WORD):>30}",
        "%s %r" % (Secret(WORD), Secret(WORD)),  # noqa: UP031 - the old way must not leak either
        str([Secret(WORD)]),
        repr(parse_passwords(f"host joe:{WORD}", "sasl_passwd")),
        str(replace(credentials(), user="ann")),
    ],
)
def test_it_is_not_shown(shown: str) -> None:
    assert WORD not in shown


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
def test_an_exchange_does_not_show_it(mechanism: str) -> None:
    begun = exchange(mechanism, "joe", Secret(WORD), host="smtp.test", port=587, nonce="x")
    assert WORD not in repr(begun)


@pytest.mark.parametrize("write", [pickle.dumps, json.dumps, copy.deepcopy, hash])
def test_it_is_not_written_out(write: object) -> None:
    assert callable(write)
    with pytest.raises(TypeError):
        write(Secret(WORD))


def test_a_traceback_and_a_log_record_do_not_have_it() -> None:
    try:
        raise ValueError(Secret(WORD), credentials())
    except ValueError:
        assert WORD not in traceback.format_exc()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.emit(logging.LogRecord("x", logging.INFO, "", 1, "%s", (credentials(),), None))
    assert WORD not in stream.getvalue()
    assert "user='joe'" in stream.getvalue()


def test_fields_as_a_dictionary_are_refused() -> None:
    with pytest.raises(TypeError):
        asdict(credentials())


def test_it_can_be_compared() -> None:
    assert Secret(WORD) == Secret(WORD)
    assert Secret(WORD) != Secret("other")
    assert Secret(WORD) != WORD
    assert not Secret("")
    assert Secret(WORD).reveal() == WORD
