"""RFC 5011 in a child process: a new key waits, becomes valid, and a child that dies takes nobody with it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from relay.dns.anchor import read_anchors
from relay.dns.follow import FollowFailed, follow
from relay.dns.unbound import Upstream
from tests.signed_tree import Key, Tree, TreeServer, Zone

ZONES = (Zone("."), Zone("zt."))
MONTH = 31 * 86400
PATIENCE = 20.0


def trusted(path: Path) -> set[str]:
    return {record.replace(" ", "") for record in read_anchors(path).records}


def record(key: Key) -> str:
    return f".INDNSKEY{key.public}".replace(" ", "")


async def test_rollover(server: TreeServer, upstream: Upstream, tmp_path: Path) -> None:
    old, new = Key.new(), Key.new()
    server.tree = Tree(ZONES, root_keys=[old])
    path = tmp_path / "root.key"
    path.write_text(old.delegation_signer(".") + "\n")
    assert await follow(path, upstream, timeout=PATIENCE)
    assert trusted(path) == {record(old)}

    server.tree = Tree(ZONES, root_keys=[old, new])
    assert not await follow(path, upstream, timeout=PATIENCE)
    assert str(new.public).split()[-1][:20] in path.read_text()
    assert trusted(path) == {record(old)}  # the new key waits for its 30 days

    waited = re.sub(r"lastchange=\d+", f"lastchange={int(time.time()) - MONTH}", path.read_text())
    path.write_text(waited)
    assert await follow(path, upstream, timeout=PATIENCE)
    assert trusted(path) == {record(old), record(new)}
    assert [file.name for file in tmp_path.iterdir()] == ["root.key"]


async def test_key_that_nobody_vouches_for_changes_nothing(
    server: TreeServer, upstream: Upstream, tmp_path: Path
) -> None:
    path = tmp_path / "root.key"
    path.write_text("\n".join(server.tree.anchors) + "\n")
    await follow(path, upstream, timeout=PATIENCE)
    before = trusted(path)
    server.tree = Tree(ZONES)
    with pytest.raises(FollowFailed, match="do not validate"):
        await follow(path, upstream, timeout=PATIENCE)
    assert trusted(path) == before


async def test_silence_is_reported(server: TreeServer, upstream: Upstream, tmp_path: Path) -> None:
    server.silent = True
    path = tmp_path / "root.key"
    path.write_text("\n".join(server.tree.anchors) + "\n")
    with pytest.raises(FollowFailed, match="no answer for the root's keys"):
        await follow(path, upstream, timeout=0.5)
    assert read_anchors(path).records


async def test_file_that_cannot_be_written_ends_only_the_child(
    server: TreeServer, upstream: Upstream, tmp_path: Path
) -> None:
    # Readable, but the name of the new file that libunbound writes beside it is too long for any file system.
    path = tmp_path / ("k" * 250)
    text = "\n".join(server.tree.anchors) + "\n"
    path.write_text(text)
    with pytest.raises(FollowFailed, match="could not open autotrust file for writing"):
        await follow(path, upstream, timeout=PATIENCE)
    assert path.read_text() == text


async def test_missing_file_is_reported(server: TreeServer, upstream: Upstream, tmp_path: Path) -> None:
    with pytest.raises(FollowFailed, match="cannot be read"):
        await follow(tmp_path / "none", upstream, timeout=PATIENCE)
