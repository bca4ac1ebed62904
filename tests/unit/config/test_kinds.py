"""Every kind writes what it reads."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config.config import SECTIONS
from relay.config.kinds import SIZE, duration, seconds_text
from relay.config.section import kind_of

BASE = Path("/srv")


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        ("300s", 300),
        ("5m", 300),
        ("2h", 7200),
        ("5d", 432_000),
        ("1w", 604_800),
        ("1.5 s", 1.5),
        ("7", 7),
        (7, 7),
        (0, 0),
    ],
)
def test_durations(raw: object, seconds: float) -> None:
    assert duration().read(raw, BASE) == seconds


@pytest.mark.parametrize("raw", ["", "s", "5 parsecs", "-5s", "5m3s", True, [], "1e9", "\u0665s", "5M5"])
def test_no_durations(raw: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        duration().read(raw, BASE)


def test_a_duration_below_its_minimum() -> None:
    with pytest.raises(ValueError, match="from 1s to 10 years, found the number 0"):
        duration(1).read(0, BASE)


@given(st.integers(0, 10**8))
def test_durations_round_trip(seconds: int) -> None:
    assert duration().read(seconds_text(seconds), BASE) == seconds


@pytest.mark.parametrize(
    ("raw", "octets"),
    [
        ("10MiB", 10_485_760),
        ("10MB", 10_000_000),
        ("10 kB", 10_000),
        ("1GiB", 1 << 30),
        ("5", 5),
        (10_240_000, 10_240_000),
    ],
)
def test_sizes(raw: object, octets: int) -> None:
    assert SIZE.read(raw, BASE) == octets


@pytest.mark.parametrize("raw", ["", "MiB", "10 XB", "1.5MB", "-1", -1, True, 1.5])
def test_no_sizes(raw: object) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        SIZE.read(raw, BASE)


@pytest.mark.parametrize(("section", "key"), [(s, key) for s, model in SECTIONS.items() for key in model.model_fields])
def test_each_default_is_written_so_that_it_is_read_back(section: str, key: str) -> None:
    field = SECTIONS[section].model_fields[key]
    kind = kind_of(field)
    raw = tomllib.loads(f"value = {kind.write(field.default)}")["value"]
    assert kind.read(raw, BASE) == field.default
