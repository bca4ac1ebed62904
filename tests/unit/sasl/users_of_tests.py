"""Users whose hashes cost next to nothing."""

from __future__ import annotations

from relay.sasl.secret import Secret
from relay.sasl.users import Cost, User, Users, new_user

USER, PASSWORD = "joe@example.com", "correct horse"
CHEAP = Cost(16, 1, 1)
SEED = b"seed" * 8


def user(name: str = USER, password: str = PASSWORD) -> User:
    return new_user(name, Secret(password), (b"a" * 16, b"b" * 16), CHEAP)


def users(*names: str) -> Users:
    return Users({name: user(name) for name in names or (USER,)}, SEED)
