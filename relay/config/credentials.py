"""What a check says of password and token maps: their lines, who can read them, and where tokens come from."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from relay.config.config import Config
from relay.config.errors import ConfigErrors
from relay.config.maps import load_maps, map_path
from relay.sasl.credentials import TokenCommand, TokenFile
from relay.sasl.passwords import CredentialTable, CredentialTables, Entry, parse_passwords, parse_tokens


def load_credential_maps(
    passwords: Iterable[str], tokens: Iterable[str], base: Path, *, by_sender: bool
) -> CredentialTables:
    """Read and parse password maps and token maps; a line that cannot be understood becomes one that holds its mail.

    :param passwords: as in ``smtp.sasl_password_maps``; ``tokens`` as in ``smtp.sasl_token_maps``.
    :param base: the directory that relative names start from; those of token files start from their map's directory.
    :param by_sender: ``smtp.sender_dependent_authentication``.
    :raises ConfigErrors: if a file cannot be read, with every such file.
    """
    by_password = load_maps(passwords, base, what="password")
    by_token = load_maps(tokens, base, what="token")
    tables = [
        *(parse_passwords(each.text, each.spec.name) for each in by_password),
        *(parse_tokens(each.text, each.spec.name, base=str(each.directory.absolute())) for each in by_token),
    ]
    return CredentialTables(tables=tuple(tables), by_sender=by_sender)


@dataclass(frozen=True, slots=True)
class CredentialNote:
    """Something about a map, or about what one of its lines names.

    :param place: the file, or ``FILE:LINE``.
    """

    place: str
    message: str
    is_error: bool


@dataclass(frozen=True, slots=True)
class CheckedMap:
    """One map that could be read, and what is to be said of it."""

    table: CredentialTable
    notes: tuple[CredentialNote, ...]


def check_credential_maps(config: Config) -> Iterator[CheckedMap | tuple[str, ConfigErrors]]:
    """Each map by itself; for one that cannot be read its option and why."""
    smtp = config.smtp
    for key in ("sasl_password_maps", "sasl_token_maps"):
        for spec in getattr(smtp, key):
            passwords, tokens = ((spec,), ()) if key == "sasl_password_maps" else ((), (spec,))
            try:
                (table,) = load_credential_maps(passwords, tokens, config.base, by_sender=False).tables
            except ConfigErrors as unreadable:
                yield key, unreadable
                continue
            notes = [CredentialNote(each.place, each.text, each.is_error) for each in table.problems]
            path = map_path(spec, config.base)
            notes += _readers(table.name, path) if path is not None else ()
            notes += [note for entry in table.entries.values() if isinstance(entry, Entry) for note in _source(entry)]
            if not smtp.sender_dependent_authentication and any("@" in user for user in table.entries):
                text = "keys with @ are senders, which only smtp.sender_dependent_authentication = true looks up"
                notes.append(CredentialNote(table.name, text, is_error=False))
            yield CheckedMap(table, tuple(notes))


def _readers(place: str, path: Path) -> Iterator[CredentialNote]:
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # whether it is there is told elsewhere
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        yield CredentialNote(place, f"{path}: every user can read it; chmod o= it", is_error=False)


def _source(entry: Entry) -> Iterator[CredentialNote]:
    match entry.proof:
        case TokenFile(path):
            if not os.access(path, os.R_OK):
                found = "cannot be read by this user" if Path(path).exists() else "no such file"
                yield CredentialNote(entry.place, f"{path}: {found}; mail waits until there is a token", is_error=False)
            yield from _readers(entry.place, Path(path))
        case TokenCommand(argv):
            if not Path(argv[0]).is_file() or not os.access(argv[0], os.X_OK):
                yield CredentialNote(entry.place, f"{argv[0]}: no program that this user can run", is_error=True)
        case _:
            return
