"""What the sections of the configuration have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from relay import __version__
from relay.config.kinds import Kind

RELEASE = ".".join(__version__.split(".")[:2])


class Section(BaseModel):
    """A section: frozen, and any key that is not an option is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def option(default: object, meaning: str) -> Any:
    """An option of a section.

    :param default: as the program uses it.
    :param meaning: one sentence with the unit, for the generated conf/relay.toml.
    """
    return Field(default=default, description=meaning)


def later(default: object, meaning: str) -> Any:
    """An option whose feature comes in a later release: any other value than the default is an error."""
    return Field(default=default, description=meaning, json_schema_extra={"later": True})


def is_later(field: FieldInfo) -> bool:
    """Whether the option was made by ``later``."""
    return isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("later") is True


def kind_of(field: FieldInfo) -> Kind:
    """The kind in the option's annotation."""
    return next(item for item in field.metadata if isinstance(item, Kind))
