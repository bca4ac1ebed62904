"""How a refusal reads: Postfix's literal text, then what was expected, what was found and which rule said so. Pure."""

from __future__ import annotations

import re

MAX_REASON_OCTETS = 900
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\u0080-\u009f\u2028\u2029\ud800-\udfff]")


def explain(text: str, *, expected: str, found: str, rule: str) -> str:
    """The reason of a refusal, the same in log line, bounce, JSON event and desk (DESIGN section 5.4)."""
    return one_line(f"{text}: expected {expected}; found {found}; rule {rule}")


def one_line(text: str, limit: int = MAX_REASON_OCTETS) -> str:
    """Foreign text made fit for one log line: control characters become ``?``, length is bounded in characters."""
    # Nothing that is printable is changed (the test asks every character), and nearly all text is.
    clean = text if text.isprintable() else _UNPRINTABLE.sub("?", text.replace("\r\n", " ").replace("\n", " "))
    return clean if len(clean) <= limit else clean[: limit - 3] + "..."
