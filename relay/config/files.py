"""Files and directories that options name: there to read, there to write.

``os.path`` asks whether something is there, not ``Path``, which raises where a directory above may not be entered.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from relay.config.config import Config
from relay.config.maps import map_path


@dataclass(frozen=True, slots=True)
class FileFault:
    """A file or directory that an option names and that cannot be used as it has to be."""

    option: tuple[str, str]
    message: str


def missing_files(config: Config) -> Iterator[FileFault]:
    """Look for each file that an option names; their content is not looked at here."""
    for section, key in (
        ("smtpd", "tls_cert_file"),
        ("smtpd", "tls_key_file"),
        ("smtp", "tls_cert_file"),
        ("smtp", "tls_key_file"),
        ("smtp", "tls_CAfile"),
        ("dns", "trust_anchor_file"),
    ):
        name: str = getattr(getattr(config, section), key)
        if name:
            yield from _unless_readable((section, key), Path(name))
    if config.smtp.tls_CApath and not os.path.isdir(config.smtp.tls_CApath):
        yield FileFault(("smtp", "tls_CApath"), f"{config.smtp.tls_CApath}: no such directory")
    for key in ("sender_login_maps", "relay_clientcerts"):
        for spec in getattr(config.smtpd, key):
            path = map_path(spec, config.base)
            if path is not None:
                yield from _unless_readable(("smtpd", key), path)
    for key in (
        "tls_policy_maps",
        "transport_maps",
        "sender_dependent_relayhost_maps",
        "sasl_password_maps",
        "sasl_token_maps",
    ):
        for spec in getattr(config.smtp, key):
            path = map_path(spec, config.base)
            if path is not None:
                yield from _unless_readable(("smtp", key), path)


def files_of_rules(config: Config) -> tuple[Path, ...]:
    """The files that policies, routes and trust are read from: when one changes, they are to be read anew."""
    smtp = config.smtp
    maps = [spec for key in type(smtp).model_fields if key.endswith("_maps") for spec in getattr(smtp, key)]
    maps += (*config.smtpd.sender_login_maps, *config.smtpd.relay_clientcerts)
    named = [Path(name) for name in (smtp.tls_CAfile, smtp.tls_CApath, smtp.tls_cert_file, smtp.tls_key_file) if name]
    smtpd = config.smtpd
    named += [Path(name) for name in (smtpd.users_file, smtpd.tls_cert_file, smtpd.tls_key_file) if name]
    return (*(path for path in (map_path(spec, config.base) for spec in maps) if path is not None), *named)


def _unless_readable(option: tuple[str, str], path: Path) -> Iterator[FileFault]:
    try:
        mode = path.stat().st_mode
    except PermissionError:
        yield FileFault(
            option, f"{path}: cannot be reached by this user; change the owner or mode of a directory above it"
        )
        return
    except OSError:
        yield FileFault(option, f"{path}: no such file; create it or leave the option out")
        return
    if not stat.S_ISREG(mode):
        yield FileFault(option, f"{path}: is no file")
    elif not os.access(path, os.R_OK):
        yield FileFault(option, f"{path}: cannot be read by this user; change its owner or mode")


def unwritable_directories(config: Config) -> Iterator[FileFault]:
    """Look at the directories that the relay writes to; one that is missing is fine where the relay can make it."""
    yield from _unless_writable(("relay", "state_dir"), config.relay.state_dir)
    if config.queue_file.parent != config.relay.state_dir:
        yield from _unless_writable(("queue", "url"), config.queue_file.parent)
    if config.log.file:
        log = Path(config.log.file)
        if os.path.isdir(log):
            yield FileFault(("log", "file"), f"{log}: is a directory; name a file in it")
        elif os.path.exists(log) and not os.access(log, os.W_OK):
            yield FileFault(("log", "file"), f"{log}: cannot be written by this user; change its owner or mode")
        elif not os.path.isdir(log.parent):
            yield FileFault(("log", "file"), f"{log.parent}: no such directory; create it")
        elif not os.path.exists(log):
            yield from _unless_writable(("log", "file"), log.parent)


def _unless_writable(option: tuple[str, str], path: Path) -> Iterator[FileFault]:
    there = path
    while not os.path.exists(there) and there != there.parent:
        there = there.parent
    if not os.path.isdir(there):
        yield FileFault(option, f"{there}: is no directory")
    elif not os.access(there, os.W_OK | os.X_OK):
        state = "cannot be written" if there == path else f"does not exist and cannot be made in {there}"
        yield FileFault(option, f"{path}: {state} by this user; create it and give it to the relay's user")
