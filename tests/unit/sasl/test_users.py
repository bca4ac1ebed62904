"""The file of users: what is written can be read, what is wrong names its line and quotes nothing."""

from __future__ import annotations

import pytest

from relay.sasl.scram import derive_keys
from relay.sasl.secret import Secret
from relay.sasl.users import BadUser, Cost, check_name, new_user, read_users, with_user, without_user
from tests.unit.sasl.users_of_tests import CHEAP, PASSWORD, SEED, USER, user, users

WRITTEN = with_user("# ours\n", user(), SEED)


def test_what_is_written_is_read() -> None:
    found, wrong = read_users(WRITTEN)
    assert not wrong
    assert found.by_name == {USER: user()}
    assert found.secret == SEED
    assert found.is_password(USER, Secret(PASSWORD))
    assert not found.is_password(USER, Secret(PASSWORD + " "))
    assert found.keys(USER) == derive_keys(Secret(PASSWORD), b"b" * 16, 10_000)
    assert PASSWORD not in WRITTEN


def test_a_second_password_replaces_the_first_and_all_else_stays() -> None:
    text = with_user(with_user(WRITTEN, user("ann"), b"x" * 32), user(USER, "new"), b"y" * 32)
    found, wrong = read_users(text)
    assert not wrong
    assert list(found.by_name) == ["ann", USER]
    assert found.secret == SEED
    assert text.startswith("# ours\n")
    assert found.is_password(USER, Secret("new"))
    assert not found.is_password(USER, Secret(PASSWORD))
    assert list(read_users(without_user(text, "ann"))[0].by_name) == [USER]


def test_who_does_not_exist_has_keys_that_stay_and_that_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    found = users()
    nobody = found.keys("nobody")
    assert nobody == users("other").keys("nobody")
    assert nobody.salt != found.keys("somebody").salt
    assert (nobody.iterations, len(nobody.salt)) == (found.keys(USER).iterations, 16)
    costs: list[Cost] = []

    def hashed(cost: Cost, password: str, salt: bytes) -> bytes:
        del password, salt
        costs.append(cost)
        return bytes(32)

    monkeypatch.setattr(Cost, "hash", hashed)
    assert not found.is_password("nobody", Secret(PASSWORD))
    assert costs == [Cost()], "as much work as for one who does"


@pytest.mark.parametrize("name", ["", "a b", "*", "#a", "a\0b", "a\tb", "x" * 256, "\u00aa"])
def test_names_that_nobody_can_have(name: str) -> None:
    with pytest.raises(BadUser):
        check_name(name)


@pytest.mark.parametrize("password", ["", "x" * 1025, "a\0b", "\u0007"])
def test_passwords_that_nobody_can_have(password: str) -> None:
    with pytest.raises(BadUser) as found:
        new_user("joe", Secret(password), (b"a" * 16, b"b" * 16), CHEAP)
    assert not password or password not in str(found.value)


LINE = user().line
NAME, SCRYPT, SCRAM = LINE.split()


@pytest.mark.parametrize(
    "line",
    [
        NAME,
        f"{NAME} {PASSWORD}",
        f"{NAME} {SCRYPT}",
        f"{NAME} {SCRAM} {SCRYPT}",
        f"{LINE} more",
        LINE.replace("16:1:1", "15:1:1"),
        LINE.replace("16:1:1", "0:1:1"),
        LINE.replace("16:1:1", "1048576:8:1"),
        LINE.replace("16:1:1", "16:1:1000"),
        LINE.replace("16:1:1", "16:1"),
        LINE.replace("}10000,", "}10,"),
        LINE.replace("}10000,", "}100000000,"),
        LINE[:-8],
        LINE.replace("$", "$!", 1),
        f"*{LINE}",
        "* {SECRET}AAAA",
        "* secret",
    ],
)
def test_a_line_that_is_wrong(line: str) -> None:
    _, wrong = read_users(f"* {{SECRET}}{'A' * 44}\n\n{line}\n")
    ((number, why),) = wrong
    assert number == 3
    for part in (*line.split(), PASSWORD):
        assert len(part) < 8 or part not in why


def test_two_lines_of_one_user_and_no_line_of_the_secret() -> None:
    assert read_users(f"{WRITTEN}{LINE}\n")[1] == ((4, "a second line of one user; take one of them out"),)
    ((number, why),) = read_users(LINE)[1]
    assert number == 0
    assert "dane-relay user add" in why
    assert read_users("")[1]


def test_nothing_shows_a_hash() -> None:
    shown = f"{users()!r} {user()!r}"
    assert "digest" not in shown
    assert "stored_key" not in shown
