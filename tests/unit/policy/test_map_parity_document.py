"""The page about parity says what the committed results say, and the explained differences are of cases that exist."""

from __future__ import annotations

import os
from pathlib import Path

from tests.parity.differences import DIFFERENCES
from tests.parity.document import document
from tests.parity.groups import CASES
from tests.parity.result import read_results

PAGE = Path(__file__).parents[3] / "docs/map-parity.md"


def test_the_page_is_what_the_results_say() -> None:
    text = document(read_results())
    if os.environ.get("RELAY_TEST_WRITE") == "1":
        PAGE.write_text(text)
    assert PAGE.read_text() == text, "RELAY_TEST_WRITE=1 writes it anew"


def test_cases_are_many_and_their_names_are_their_own() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 200
    assert set(DIFFERENCES) <= set(names)
