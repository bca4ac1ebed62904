"""Replies and enhanced status codes."""

from __future__ import annotations

import pytest

from relay.mail.reply import EnhancedStatus, Reply, Severity


@pytest.mark.parametrize("text", ["2.0.0", "4.7.5", "5.999.999"])
def test_status_round_trip(text: str) -> None:
    assert str(EnhancedStatus.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "3.0.0", "4.7", "4.7.5.1", "4.7.1000", "x4.7.5", "4.7.5x", "4.7.5 ", "\u0664.7.5"]
)
def test_no_status(text: str) -> None:
    with pytest.raises(ValueError, match="not an enhanced status code"):
        EnhancedStatus.parse(text)


def test_softened_and_hardened_keep_subject_and_detail() -> None:
    assert str(EnhancedStatus(5, 7, 1).softened()) == "4.7.1"
    assert str(EnhancedStatus(4, 4, 2).hardened()) == "5.4.2"


@pytest.mark.parametrize(
    ("code", "line", "status"),
    [
        (250, "2.1.0 Ok", "2.1.0"),
        (250, "2.1.0", "2.1.0"),
        (250, "Ok", "2.0.0"),
        (550, "5.1.1 <x>: unknown", "5.1.1"),
        (550, "4.1.1 class and code disagree", "5.0.0"),
        (450, "5.1.1 class and code disagree", "4.0.0"),
        (450, "4.1.1x", "4.0.0"),
        (554, "5.7.1000 no", "5.0.0"),
        (354, "2.0.0 Go on", "3.0.0"),
        (250, "", "2.0.0"),
    ],
)
def test_status_agrees_with_the_code(code: int, line: str, status: str) -> None:
    assert str(Reply(code, (line,)).status) == status


def test_severity() -> None:
    severities = [Reply(code, ("x",)).severity for code in (220, 354, 421, 599)]
    assert severities == [Severity.SUCCESS, Severity.INTERMEDIATE, Severity.TRANSIENT, Severity.PERMANENT]


def test_one_line() -> None:
    assert Reply(250, ("mx.example", "PIPELINING")).one_line == "250 mx.example PIPELINING"
    assert str(Reply(250, ("",))) == "250"


@pytest.mark.parametrize(("code", "lines"), [(199, ("x",)), (600, ("x",)), (-1, ("x",)), (250, ())])
def test_no_reply(code: int, lines: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="not an SMTP reply"):
        Reply(code, lines)
