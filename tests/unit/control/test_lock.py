from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from relay.control.lock import Held, LockFailed, hold

# Another process that holds a directory until its standard input ends.
HOLDER = """
import sys
from pathlib import Path
from relay.control.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(state_dir: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(state_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_instance_is_told_who_holds_which_directory(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        with pytest.raises(Held) as refused, hold(tmp_path):
            pass
        other.communicate()
    assert refused.value.pid == other.pid
    assert f"process {other.pid}" in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        other.kill()
        other.communicate()
    with hold(tmp_path) as lock:
        assert lock.state_dir == tmp_path
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_shorter_pid_replaces_a_longer_one(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("999999999999\n")
    with hold(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_within_one_process_too(tmp_path: Path) -> None:
    with hold(tmp_path), pytest.raises(Held), hold(tmp_path):
        pass
    with hold(tmp_path):
        pass


def test_a_lock_file_with_nonsense_in_it(tmp_path: Path) -> None:
    with hold(tmp_path):
        (tmp_path / "lock").write_text("not a number")
        with pytest.raises(Held, match="another process") as refused, hold(tmp_path):
            pass
    assert refused.value.pid == 0


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(LockFailed, match=r"state_dir .*/nowhere: cannot open its lock file: No such file"),
        hold(tmp_path / "nowhere"),
    ):
        pass


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(LockFailed), hold(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "content"
