"""The order of the levels and the questions asked of them."""

from __future__ import annotations

import pytest

from relay.policy.level import CONFIGURABLE, Level

WORDS = ["none", "may", "encrypt", "fingerprint", "halfdane", "dane", "dane-only", "verify", "secure"]


def test_order_and_words_are_postfixs() -> None:
    assert [level.word for level in sorted(Level)] == WORDS
    assert list(CONFIGURABLE) == [word for word in WORDS if word != "halfdane"]


@pytest.mark.parametrize("word", CONFIGURABLE)
def test_parse_reads_what_word_writes_in_any_case(word: str) -> None:
    assert Level.parse(word.upper()).word == word


@pytest.mark.parametrize("word", ["halfdane", "half-dane", "dane_only", "", " may", "MUST", "0"])
def test_what_cannot_be_asked_for(word: str) -> None:
    with pytest.raises(ValueError, match="invalid security level"):
        Level.parse(word)


@pytest.mark.parametrize(
    ("predicate", "words"),
    [
        ("uses_tls", WORDS[1:]),
        ("requires_tls", WORDS[2:]),
        ("requires_match", WORDS[3:]),
        ("is_dane", ["halfdane", "dane", "dane-only"]),
        ("asks_for_dane", ["dane", "dane-only"]),
        ("is_pkix", ["verify", "secure"]),
    ],
)
def test_predicates(predicate: str, words: list[str]) -> None:
    assert [level.word for level in Level if getattr(level, predicate)] == words
