"""The kinds of values that describe Unix sockets and who may use them; see kinds.py for how a kind works."""

from __future__ import annotations

import re
from pathlib import Path

from relay.config.kinds import Kind, found, items_of, text_of, toml_list, toml_string

ANYBODY = "*"
_MODE = re.compile(r"0?[0-7]{3}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,254}\$?")


def _read_sockets(raw: object, base: Path) -> tuple[Path, ...]:
    expected = 'paths of sockets such as ["unix:/run/dane-relay/smtp"], or "" for none'
    names = [item.removeprefix("unix:") for item in items_of(raw, expected)]
    paths = tuple(base / name for name in names)
    if any(not name or name.endswith("/") for name in names):
        raise ValueError(f"expected {expected}, {found(raw)}")
    if len(set(paths)) != len(paths):
        raise ValueError("the same socket stands here twice; leave one out")
    return paths


SOCKETS = Kind(_read_sockets, toml_list)


def _read_mode(raw: object, _base: Path) -> int:
    expected = 'a mode such as "0660"'
    text = text_of(raw, expected)
    if not _MODE.fullmatch(text):
        raise ValueError(f"expected {expected}, {found(raw)}")
    return int(text, 8)


MODE = Kind(_read_mode, lambda mode: toml_string(f"{int(str(mode)):04o}"))


def _read_users(raw: object, _base: Path) -> tuple[str, ...]:
    expected = 'names or numbers of users such as ["www-data", "1000"], "*" for all, or "" for nobody'
    names = items_of(raw, expected)
    if not all(name == ANYBODY or _USER.fullmatch(name) for name in names):
        raise ValueError(f"expected {expected}, {found(raw)}")
    return names


USERS = Kind(_read_users, toml_list)
