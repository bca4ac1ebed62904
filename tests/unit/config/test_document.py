"""conf/relay.toml and conf/tls_policy are what the code says."""

from __future__ import annotations

from pathlib import Path

from relay.config.config import SECTIONS
from relay.config.document import document
from relay.config.load import read
from relay.policy.level import CONFIGURABLE
from relay.policy.policy import MapEntry
from relay.policy.table import parse_table

CONF = Path(__file__).parents[3] / "conf"


def test_the_file_is_in_step_with_the_code() -> None:
    assert (CONF / "relay.toml").read_text() == document(), "run: python -m relay.config.document > conf/relay.toml"


def test_the_file_says_nothing_but_the_defaults() -> None:
    shown = read(document(), name="relay.toml", base=Path("/"), environ={}, hostname="h.example")
    empty = read("", name="relay.toml", base=Path("/"), environ={}, hostname="h.example")
    for section, model in SECTIONS.items():
        assert getattr(shown, section) == getattr(empty, section)
        assert {key for name, key in shown.places if name == section} == set(model.model_fields)


def test_every_option_has_a_meaning() -> None:
    for model in SECTIONS.values():
        for field in model.model_fields.values():
            assert field.description
            assert field.description.endswith(".")


def test_the_examples_of_tls_policy_are_good_and_show_every_level() -> None:
    text = (CONF / "tls_policy").read_text()
    assert not parse_table(text, "tls_policy").entries
    lines = [line[1:] for line in text.splitlines() if line.startswith("#") and line[1:2].strip()]
    table = parse_table("\n".join(lines), "tls_policy")
    assert not table.problems
    levels = {entry.level.word for entry in table.entries.values() if isinstance(entry, MapEntry)}
    assert levels == set(CONFIGURABLE)
