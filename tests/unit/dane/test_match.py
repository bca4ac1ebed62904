"""Digest agility, and records against certificates."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dane.match import counting, in_turn, matches
from relay.dane.tlsa import MatchingType, Selector, Tlsa, Usage
from tests import pki

LEAF = pki.make("mx.example", dns=["mx.example"])
OTHER = pki.make("mx.example", dns=["mx.example"])


def record(usage: int, selector: int, matching: int, data: bytes = b"x") -> Tlsa:
    return Tlsa(Usage(usage), Selector(selector), MatchingType(matching), data)


@pytest.mark.parametrize("usage", [2, 3])
@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_a_record_matches_its_certificate_and_no_other(usage: int, selector: int, matching: int) -> None:
    described = LEAF.tlsa(usage, selector, matching)
    assert matches(described, der=LEAF.der, spki=LEAF.spki)
    assert not matches(described, der=OTHER.der, spki=OTHER.spki)


def test_a_certificate_with_the_same_key_matches_by_key_only() -> None:
    renewed = pki.make("mx.example", dns=["mx.example"], key=LEAF.key)
    assert matches(LEAF.tlsa(3, 1, 1), der=renewed.der, spki=renewed.spki)
    assert not matches(LEAF.tlsa(3, 0, 1), der=renewed.der, spki=renewed.spki)


def test_a_key_that_could_not_be_cut_out_matches_nothing() -> None:
    empty = record(3, 1, 1, hashlib.sha256(b"").digest())
    assert not matches(empty, der=LEAF.der, spki=b"")


def test_of_the_digests_of_a_usage_and_selector_only_the_strongest_counts() -> None:
    weak, strong = record(3, 1, 1), record(3, 1, 2)
    assert counting([weak, strong]) == (strong,)
    assert counting([strong, weak]) == (strong,)


def test_agility_stays_within_usage_and_selector() -> None:
    records = (record(3, 1, 1), record(3, 0, 2), record(2, 1, 2), record(2, 0, 1))
    assert counting(records) == records


def test_full_data_always_counts() -> None:
    full, weak, strong = record(3, 1, 0), record(3, 1, 1), record(3, 1, 2)
    assert counting([full, weak, strong]) == (full, strong)
    assert counting([full, weak]) == (full, weak)


def test_the_same_record_twice_counts_once() -> None:
    assert counting([record(3, 1, 1), record(3, 1, 1)]) == (record(3, 1, 1),)


@given(
    st.lists(
        st.builds(
            Tlsa,
            st.sampled_from(Usage),
            st.sampled_from(Selector),
            st.sampled_from(MatchingType),
            st.binary(min_size=1, max_size=2),
        ),
        max_size=12,
    )
)
def test_agility_keeps_every_kind_and_never_a_weaker_digest(records: list[Tlsa]) -> None:
    kept = counting(records)
    assert {(each.usage, each.selector) for each in kept} == {(each.usage, each.selector) for each in records}
    for each in kept:
        rivals = {other.matching for other in records if (other.usage, other.selector) == (each.usage, each.selector)}
        assert each.matching is MatchingType.FULL or each.matching == max(rivals)
    assert all(each in kept for each in records if each.matching is MatchingType.FULL)


def test_records_are_tried_in_the_order_of_openssl() -> None:
    kinds = [
        (3, 1, 2),
        (3, 1, 1),
        (3, 1, 0),
        (3, 0, 2),
        (3, 0, 1),
        (3, 0, 0),
        (2, 1, 2),
        (2, 1, 0),
        (2, 0, 1),
        (2, 0, 0),
    ]
    wanted = tuple(record(*kind) for kind in kinds)
    assert in_turn(reversed(wanted)) == wanted
    alike = (record(3, 1, 1, b"b"), record(3, 1, 1, b"a"))
    assert in_turn(alike) == alike
