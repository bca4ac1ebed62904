from __future__ import annotations

import sys
import unicodedata

from relay.outcome.wording import one_line


def test_of_all_characters_those_are_changed_that_could_break_a_line_or_its_encoding() -> None:
    changed = {character for character in map(chr, range(sys.maxunicode + 1)) if one_line(character) != character}
    assert {unicodedata.category(character) for character in changed} == {"Cc", "Zl", "Zp", "Cs"}
    assert len(changed) == 65 + 1 + 1 + 2048
    assert one_line("a\r\nb\nc\rd") == "a b c?d"


def test_what_is_too_long_is_cut() -> None:
    assert one_line("x" * 10, 10) == "x" * 10
    assert one_line("x" * 11, 10) == one_line("x" * 9 + "\0" * 2, 10).replace("?", "x") == "x" * 7 + "..."
