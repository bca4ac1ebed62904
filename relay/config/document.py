"""``conf/relay.toml``: every option with its default and meaning, written from the code.

``python -m relay.config.document`` prints it; tests/unit/config/test_document.py keeps the file in step.
"""

from __future__ import annotations

import inspect
import sys
import textwrap

from pydantic.fields import FieldInfo

from relay.config.config import SECTIONS
from relay.config.section import RELEASE, Section, is_later, kind_of

_WIDTH = 100
_HEAD = """\
# dane-relay: every option with its default. Written by `python -m relay.config.document`.
#
# Options that stand here with their default may be left out. Names are Postfix's, with the prefix as section.
# Times are "300s", "5m", "2h", "5d", "1w" or seconds; sizes are bytes, "10MB" (powers of 1000) or "10MiB" (of 1024).
# Relative paths start from the directory of this file. Each option can also be set by an environment variable,
# for instance smtp.tls_security_level by DANE_RELAY_SMTP__TLS_SECURITY_LEVEL.
"""


def document() -> str:
    """The whole file as TOML text."""
    return _HEAD + "".join(_section(name, model) for name, model in SECTIONS.items())


def _section(name: str, model: type[Section]) -> str:
    about = " ".join((inspect.getdoc(model) or "").split())
    options = "\n".join(_option(key, field) for key, field in model.model_fields.items())
    return f"\n\n# {about}\n[{name}]\n\n{options}"


def _option(key: str, field: FieldInfo) -> str:
    meaning = field.description or ""
    if is_later(field):
        meaning += f" Not in release {RELEASE}: nothing but this default is accepted."
    comment = textwrap.fill(meaning, _WIDTH, initial_indent="# ", subsequent_indent="# ")
    return f"{comment}\n{key} = {kind_of(field).write(field.default)}\n"


if __name__ == "__main__":
    sys.stdout.write(document())
