"""The filter language: what each term means, how terms join, and that every error says where."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.envelope import QueueId
from relay.queue.filter import Facts, Filter, HasId, fits_arrivals, ids_of, matches
from relay.queue.filter_text import MAX_DEPTH, MAX_FILTER, MAX_TERMS, FilterError, parse_filter
from relay.queue.store import EntryState

NOW = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)
FACTS = Facts(
    queue_id=QueueId("4bKxyz0000z1"),
    sender="News.Letter@lists.source.example",
    sender_domain="lists.source.example",
    recipient="Ann+tag@mail.a.example",
    domain="mail.a.example",
    destination="relay.example:587",
    arrived_at=NOW - timedelta(hours=3),
    size=20_000,
    place=EntryState.DEFERRED,
    status="4.7.5",
    reason="Server certificate not verified: expected TLSA 3 1 1 ab; found (3 1 1 cd)",
)


@pytest.mark.parametrize(
    "text",
    [
        "ALL",
        "domain:mail.a.example",
        "domain:MAIL.A.Example.",
        "domain:.a.example",
        "domain:.example",
        "rcpt:ann+TAG@mail.a.example",
        "rcpt:@mail.a.example",
        "sender:news.letter@lists.source.example",
        "sender:@lists.source.example",
        "destination:relay.example:587",
        "age>2h",
        "age>=10800",
        "age<4h",
        "age<=3h",
        "age>179m",
        "size>19kB",
        "size>=20000",
        "size<20KiB",
        "status:deferred",
        "status:Deferred",
        "status:4",
        "status:4.7",
        "status:4.7.5",
        "reason:CERTIFICATE",
        'reason:"not verified"',
        r'reason:~"tlsa (\d ){3}ab"',
        r'reason:"(3 1 1 cd)"',
        "id:4bKxyz0000z1",
        "id:A1,4bKxyz0000z1",
        "4bKxyz0000z1",
        "A1 4bKxyz0000z1 B2",
        "not domain:a.example",
        "not not domain:mail.a.example",
        "domain:a.example or domain:mail.a.example",
        "domain:mail.a.example and age>1h",
        "domain:mail.a.example age>1h size>1",
        "age>5h or age>1h and size>1",
        "(age>5h or age>1h) and (not (size>1GB))",
        "(domain:.a.example)status:4.7",
        "sender:<> or rcpt:@mail.a.example",
    ],
)
def test_what_is_meant(text: str) -> None:
    assert matches(parse_filter(text), FACTS, NOW)


@pytest.mark.parametrize(
    "text",
    [
        "not ALL",
        "domain:a.example",
        "domain:.mail.a.example",
        "domain:.ail.a.example",
        "rcpt:ann@mail.a.example",
        "rcpt:@a.example",
        "sender:<>",
        "sender:MAILER-DAEMON",
        "sender:@source.example",
        "destination:relay.example",
        "age>3h",
        "age<3h",
        "size>20kB",
        "status:hold",
        "status:4.7.50",
        "status:4.70",
        "status:5",
        "reason:nothing",
        "reason:~^certificate",
        "id:A1",
        "A1 B2",
        "age>1h and size>1MB",
        "age>5h or size>1MB",
        "age>1h and not size>1",
    ],
)
def test_what_is_not_meant(text: str) -> None:
    assert not matches(parse_filter(text), FACTS, NOW)


def test_and_binds_closer_than_or() -> None:
    assert parse_filter("age>1h or age>2h and age>3h") == parse_filter("age>1h or (age>2h and age>3h)")
    assert parse_filter("age>1h or age>2h age>3h") == parse_filter("age>1h or (age>2h age>3h)")


def test_the_null_sender() -> None:
    facts = Facts(**{name: getattr(FACTS, name) for name in Facts.__slots__} | {"sender": "", "sender_domain": ""})
    assert matches(parse_filter("sender:<>"), facts, NOW)
    assert not matches(parse_filter("sender:@source.example"), facts, NOW)


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("", 0, "expected a term such as domain:example.com, found the end"),
        ("   ", 3, "found the end"),
        ("domain:a.example and", 20, "found the end"),
        ("domain:a.example or or", 20, "found or"),
        ("(age>1h", 7, "expected ) for the ( before position 2"),
        ("age>1h)", 6, "expected a term, and or or, found )"),
        ("dmain:a.example", 0, "no term is called dmain; there are age, destination, domain, id, rcpt, reason, sender"),
        ("age:1h", 3, "age is not written with :"),
        ("domain>a", 6, "domain is not written with >"),
        ("age>1y", 4, "expected an age such as 90s, 5m, 2h, 3d or 1w, found 1y"),
        ("size>lots", 5, "expected a size"),
        ("age>999999999999999w", 4, "beyond all bounds"),
        ("age>1h and domain:a..b", 18, "expected a domain, found a..b"),
        ("rcpt:ann", 5, "expected an address or @domain, found ann"),
        ("sender:", 7, "sender: needs a value"),
        ("status:waiting", 7, "expected active, incoming, deferred, hold"),
        ("status:3.1", 7, "expected active"),
        ("reason:~(", 8, "reason:~ needs a value"),
        ('reason:~"("', 8, "not a regular expression"),
        ('age>1h reason:"abc', 14, 'a " without its end'),
        ("hold", 0, "expected a term such as domain:example.com, found hold"),
        ("id:../x", 3, "expected queue IDs, found ../x"),
        ("all", 0, "found all"),
    ],
)
def test_errors_say_where(text: str, position: int, words: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter(text)
    assert caught.value.position == position
    assert str(caught.value).startswith(f"filter, position {position + 1}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "(" * (MAX_DEPTH + 5) + "ALL" + ")" * (MAX_DEPTH + 5),
        "not " * (MAX_DEPTH + 5) + "ALL",
        " ".join(["ALL"] * (MAX_TERMS + 1)),
        "x" * (MAX_FILTER + 1),
        "id:" + ",".join(["A1"] * 10_001),
        "reason:~" + "a" * 201,
    ],
)
def test_bounds(text: str) -> None:
    with pytest.raises(FilterError):
        parse_filter(text)


WORDS = st.sampled_from(["(", ")", "and", "or", "not", "ALL", "A1", "age>1h", '"', "x:y"])


@given(st.text(max_size=60) | st.lists(WORDS, max_size=20).map(" ".join))
def test_any_text_is_a_filter_or_an_error_with_its_place(text: str) -> None:
    try:
        where = parse_filter(text)
    except FilterError as error:
        fault = error
    else:
        matches(where, FACTS, NOW)
        return
    assert 0 <= fault.position <= len(text)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("A1", {"A1"}),
        ("A1 B2 and age>1h", {"A1", "B2"}),
        ("id:A1,B2 and id:B2,C3", {"B2"}),
        ("id:A1 or id:B2", {"A1", "B2"}),
        ("id:A1 or age>1h", None),
        ("not id:A1", None),
        ("age>1h", None),
    ],
)
def test_the_ids_that_a_filter_is_about(text: str, ids: set[str] | None) -> None:
    assert ids_of(parse_filter(text)) == (None if ids is None else frozenset(map(QueueId, ids)))


@pytest.mark.parametrize(
    "text", ["ALL", "domain:a.example", "not (sender:<> or size>1MB) rcpt:a@b.example", "destination:x"]
)
def test_what_can_be_asked_of_mail_that_comes_in(text: str) -> None:
    assert fits_arrivals(parse_filter(text))


@pytest.mark.parametrize(
    "text", ["age>1h", "domain:a.example and status:hold", "not reason:x", "A1", "reason:~x or ALL"]
)
def test_what_cannot(text: str) -> None:
    assert not fits_arrivals(parse_filter(text))


def test_ids_in_a_row_are_alternatives() -> None:
    where: Filter = parse_filter("A1 B2 C3")
    assert where == HasId(frozenset(map(QueueId, ("A1", "B2", "C3"))))
