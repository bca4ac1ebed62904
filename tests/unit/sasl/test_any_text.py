"""Whatever stands in a map, or comes from a host: one exception at most, and no word of a secret."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.mail.envelope import NULL_SENDER
from relay.mail.names import BadName, NextHop
from relay.sasl.bearer import error_status
from relay.sasl.choose import filtered, offered
from relay.sasl.credentials import Credentials
from relay.sasl.mechanism import MechanismFailed
from relay.sasl.passwords import CredentialTables, parse_passwords, parse_tokens
from relay.sasl.prep import Unpreparable, saslprep
from relay.sasl.scram import ScramClient, attributes
from relay.sasl.secret import Secret
from tests.unit.sasl.test_scram import NONCE, SERVER_FIRST

WORD = "hunter2"
PIECES = st.sampled_from(
    [WORD, "[a.test]:587", "a.test", "joe", "joe@a.test", ":", " ", "\t", "\n", "#", "\0", "é", "\udcff"]
)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_no_line_is_ever_quoted(text: str) -> None:
    for table in (parse_passwords(text, "sasl_passwd"), parse_tokens(text, "sasl_tokens", base="/etc")):
        assert WORD not in " ".join(map(str, table.problems))
        tables = CredentialTables(tables=(table,), by_sender=True)
        for key in ("[a.test]:587", "a.test"):
            next_hop = NextHop.parse(key, default_port=25)
            standing = tables.lookup(NULL_SENDER, next_hop, next_hop.host)
            if not isinstance(standing, Credentials) or WORD not in standing.user:
                assert WORD not in repr(standing)


@given(st.text(max_size=60))
def test_any_text_can_be_a_map(text: str) -> None:
    parse_passwords(text, "sasl_passwd")
    parse_tokens(text, "sasl_tokens", base="/etc")
    try:
        NextHop.parse(text, default_port=25)
    except BadName:
        pass


@given(st.binary(max_size=80), st.booleans())
def test_a_host_can_say_anything(octets: bytes, first: bool) -> None:
    client = ScramClient("user", Secret("pencil"), nonce=NONCE)
    try:
        if not first:
            client.next(SERVER_FIRST)
        client.next(octets)
    except MechanismFailed:
        pass
    assert not client.proved


@given(st.text(max_size=60))
def test_texts_of_hosts_and_people_raise_nothing_else(text: str) -> None:
    error_status(text.encode(errors="surrogatepass"))
    filtered(offered(text), tuple(text.split()))
    for read in (attributes, saslprep):
        try:
            read(text)
        except (MechanismFailed, Unpreparable):
            pass


@given(st.text(max_size=30))
def test_prepared_text_stays_as_it_is(text: str) -> None:
    try:
        once = saslprep(text)
    except Unpreparable:
        return
    assert saslprep(once) == once
