"""``smtpd.users_file``: read for the front door and for a check, changed by ``dane-relay user``."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from relay.config.errors import ConfigError, ConfigErrors
from relay.sasl.users import Users, read_users

MODE = 0o600


def load_users(name: str) -> Users | None:
    """The users who may log in; None where no file is named. A line that cannot be used refuses the whole file.

    :param name: ``smtpd.users_file``.
    :raises ConfigErrors: if it cannot be read; no message quotes it.
    """
    if not name:
        return None
    try:
        text = Path(name).read_bytes().decode()
    except FileNotFoundError:
        raise ConfigErrors([ConfigError(name, "no such file; `dane-relay user add` makes it")]) from None
    except OSError as error:
        raise ConfigErrors([ConfigError(name, f"the users cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise ConfigErrors([ConfigError(name, "the users cannot be read: no UTF-8")]) from None
    users, wrong = read_users(text)
    if wrong:
        places = ((f"{name}:{line}" if line else name, why) for line, why in wrong)
        raise ConfigErrors(ConfigError(place, why) for place, why in places)
    return users


def change_users(path: Path, change: Callable[[str], str]) -> None:
    """Replace the file of users by a changed one: all or nothing, one change at a time, readable by its owner alone.

    :param change: gives the new text for the old one, which is empty where there is no file.
    :raises OSError: if it cannot be read or written.
    """
    path = path.resolve()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        owner = path.stat() if path.exists() else None
        text = change(path.read_text() if owner else "")
        handle, new = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w") as file:
                os.fchmod(file.fileno(), MODE)
                if owner is not None and (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
        finally:
            Path(new).unlink(missing_ok=True)  # where it did not become the file
        os.fsync(directory)
    finally:
        os.close(directory)
