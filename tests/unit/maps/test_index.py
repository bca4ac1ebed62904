"""The index of large files finds what a dictionary finds, also where hashes collide."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.maps.build import MapSpec, build_table
from relay.maps.index import NOTHING, KeyIndex
from relay.maps.table import Failed, Found


class Colliding(str):
    """A key whose hash is one of three."""

    __slots__ = ()

    def __hash__(self) -> int:
        return len(self) % 3


def filled(keys: list[str]) -> tuple[KeyIndex, list[str]]:
    kept: list[str] = []
    index = KeyIndex(lambda position: kept[position])
    for key in keys:
        if index.add(key) == NOTHING:
            kept += [key]
    return index, kept


@given(st.lists(st.text(max_size=4)), st.lists(st.text(max_size=4)))
def test_as_a_dictionary(keys: list[str], others: list[str]) -> None:
    index, kept = filled(keys)
    assert kept == list(dict.fromkeys(keys))
    assert [index.find(key) for key in kept] == list(range(len(kept)))
    assert all(index.find(key) == (kept.index(key) if key in kept else NOTHING) for key in others)


def test_keys_that_collide_are_told_apart() -> None:
    keys = [Colliding("x" * number) for number in range(300)]
    index, kept = filled([*keys, *keys])
    assert kept == keys
    assert [index.find(key) for key in keys] == list(range(300))
    assert index.find(Colliding("y" * 7)) == NOTHING


lines = st.sampled_from(
    [
        "a.example one",
        "A.example  one",
        "a.example two",
        "b.example",
        " c.example x",
        "d.example x\n  y",
        "# n",
        "",
    ]
)


@given(st.lists(lines, max_size=12))
def test_a_file_is_what_its_lines_say(written: list[str]) -> None:
    """Against reading it plainly: the first line of a key, unless another line of it says something else."""
    table = build_table(MapSpec("hash", "m"), "\n".join(written))
    said: dict[str, set[str]] = {}
    entry = ""
    for line in [*"\n".join(written).split("\n"), "end"]:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace() and entry:
            entry += line
            continue
        if entry:
            key, *value = entry.split()
            broken = entry[0].isspace() or not value
            said.setdefault(key.lower(), set()).add("(broken)" if broken else " ".join(value))
        entry = line
    assert list(table.keys()) == list(said)
    assert len(table) == len(said) == len(list(table.rows()))
    for key, values in said.items():
        got = table.lookup(key)
        if len(values) > 1 or "(broken)" in values:
            assert isinstance(got, Failed)
        else:
            assert isinstance(got, Found)
            assert " ".join(got.value.split()) in values
        assert key in table.keys()  # noqa: SIM118 - the keys are what is looked at
