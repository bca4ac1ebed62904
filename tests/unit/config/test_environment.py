"""Variables and the options they set."""

from __future__ import annotations

import pytest

from relay.config.config import SECTIONS
from relay.config.environment import Override, overrides


@pytest.mark.parametrize(("section", "key"), [(s, key) for s, model in SECTIONS.items() for key in model.model_fields])
def test_every_option_has_its_variable(section: str, key: str) -> None:
    variable = f"DANE_RELAY_{section.upper()}__{key.upper()}"
    assert overrides({variable: "1", "PATH": "/bin"}) == ((Override(variable, section, key, 1, "1"),), ())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("25", 25),
        ('"25"', "25"),
        ("true", True),
        ('["a", "b"]', ["a", "b"]),
        ("5m", "5m"),
        ("mail.example.com", "mail.example.com"),
        ("", ""),
        ("1\nother = 2", "1\nother = 2"),
    ],
)
def test_values_are_toml_or_plain_text(text: str, value: object) -> None:
    ((override,), errors) = overrides({"DANE_RELAY_SMTP__HELO_NAME": text})
    assert (override.value, override.text, errors) == (value, text, ())


@pytest.mark.parametrize(
    "variable", ["DANE_RELAY_", "DANE_RELAY_SMTP", "DANE_RELAY_SMTP_PORT", "DANE_RELAY_smtp__port"]
)
def test_unknown_variables_are_errors(variable: str) -> None:
    found, (error,) = overrides({variable: "1"})
    assert not found
    assert error.place == variable
