"""Slots go round; the last ones are for those who have none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from relay.scheduling.turns import MAX_IN_LINE, Turns


def line(*names: str, reserve: int = 0) -> Turns:
    turns = Turns(reserve)
    for name in names:
        assert turns.join(name)
    return turns


def deal(turns: Turns, free: int, room: int = 99, busy: frozenset[str] = frozenset()) -> dict[str, int]:
    left: list[str] = []
    before = set(turns)
    dealt = turns.deal(free, room=lambda _: room, is_idle=lambda name: name not in busy, leaves=left.append)
    assert sorted(left) == sorted(before - set(turns))
    return dict(dealt)


def test_slots_go_round() -> None:
    turns = line("a", "b", "c")
    assert deal(turns, 4) == {"a": 2, "b": 1, "c": 1}
    assert deal(turns, 2) == {"b": 1, "c": 1}


def test_who_has_no_room_leaves_and_may_come_again() -> None:
    turns = line("a", "b")
    assert deal(turns, 5, room=1) == {"a": 1, "b": 1}
    assert len(turns) == 0
    turns.join("b")
    assert deal(turns, 5, room=1) == {"b": 1}


def test_joining_twice_gains_nothing() -> None:
    turns = line("a", "b")
    turns.join("a")
    assert deal(turns, 1) == {"a": 1}
    turns.join("a")
    assert deal(turns, 1) == {"b": 1}


def test_leaving() -> None:
    turns = line("a", "b")
    turns.leave("a")
    turns.leave("never came")
    assert deal(turns, 9) == {"b": 9}


def test_the_reserve_is_for_those_with_nothing_under_way() -> None:
    turns = line("busy", "new", reserve=3)
    assert deal(turns, 3, busy=frozenset({"busy"})) == {"new": 1}
    assert list(turns) == ["busy", "new"] or list(turns) == ["new", "busy"]
    assert deal(turns, 5, busy=frozenset({"busy", "new"})) == {"busy": 1, "new": 1}


def test_the_line_is_bounded() -> None:
    turns = Turns(0)
    assert all(turns.join(str(number)) for number in range(MAX_IN_LINE))
    assert not turns.join("one more")
    assert turns.join("0")


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 5), max_size=12), st.integers(0, 20), st.integers(0, 20))
def test_never_more_than_free_or_than_room_and_all_that_can_be(rooms: dict[str, int], free: int, reserve: int) -> None:
    turns = line(*rooms, reserve=reserve)
    dealt = turns.deal(free, room=rooms.__getitem__, is_idle=lambda _: True, leaves=lambda _: None)
    assert sum(dealt.values()) <= free
    assert all(1 <= dealt[name] <= rooms[name] for name in dealt)
    if not reserve:
        assert sum(dealt.values()) == min(free, sum(rooms.values()))


def _deal(turns: Turns, free: int, busy: Counter[str], most: int) -> Mapping[str, int]:
    return turns.deal(
        free, room=lambda name: most - busy[name], is_idle=lambda name: not busy[name], leaves=lambda _: None
    )


# --- a relay's life, played: slots that are held for as long as a destination pleases


def play(rounds: int, slots: int, patience: Callable[[str], int], names: list[str], most: int) -> Counter[str]:
    """Each name has mail without end and holds a slot for ``patience`` rounds; returns deliveries by name."""
    turns = line(*names, reserve=slots // 4)
    held: list[tuple[int, str]] = []
    done: Counter[str] = Counter()
    for now in range(rounds):
        for ends, name in [one for one in held if one[0] <= now]:
            held.remove((ends, name))
            done[name] += 1
            turns.join(name)
        busy = Counter(name for _, name in held)
        dealt = _deal(turns, slots - len(held), busy, most)
        held += [(now + patience(name), name) for name, many in dealt.items() for _ in range(many)]
        assert len(held) <= slots
        assert max(Counter(name for _, name in held).values(), default=0) <= most
    return done


@given(st.integers(1, 6), st.integers(1, 6), st.integers(8, 40))
def test_nobody_starves_while_the_slow_are_fewer_than_the_reserve(slow: int, good: int, slots: int) -> None:
    """Those that hold what they get for ever leave at least the reserve, and the good ones share it evenly."""
    names = [f"slow{number}" for number in range(min(slow, slots // 4 - 1))] + [
        f"good{number}" for number in range(good)
    ]
    done = play(200, slots, lambda name: 10_000 if name.startswith("slow") else 1, names, most=slots)
    counts = [done[f"good{number}"] for number in range(good)]
    assert min(counts) > 200 // good // 4
    assert max(counts) <= 4 * min(counts) + slots


@given(st.integers(2, 12), st.integers(1, 10))
def test_equal_destinations_get_equal_turns(names: int, slots: int) -> None:
    done = play(300, slots, lambda _: 1, [str(number) for number in range(names)], most=slots)
    assert max(done.values()) - min(done[str(number)] for number in range(names)) <= max(2, slots)
