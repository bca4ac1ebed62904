"""Random lives of a few destinations: the limits hold at each moment, and nobody is left out for ever."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relay.mail.reply import EnhancedStatus
from relay.scheduling.destinations import Destinations
from relay.scheduling.feedback import Feedback
from relay.scheduling.turns import Turns
from relay.scheduling.window import Failing, Limits

NAMES = ("a", "b", "c", "d")
SLOTS = 6
FAILING = Failing(status=EnhancedStatus(4, 4, 1), reason="Connection refused")
FEEDBACKS = st.sampled_from(["0", "1", "1/4", "1 / concurrency", "1 / sqrt_concurrency"]).map(Feedback.parse)
LIMITS = st.builds(
    Limits,
    initial=st.integers(1, 4),
    limit=st.integers(1, 5),
    positive=FEEDBACKS,
    negative=FEEDBACKS,
    failed_cohorts=st.sampled_from([0, 1, 2]),
    rate_delay=st.sampled_from([0.0, 0.0, 7.0]),
    pause=st.just(100.0),
)


class Life(RuleBasedStateMachine):
    """Everybody has mail without end; the worker's steps, with the time in the machine's hand."""

    def __init__(self) -> None:
        super().__init__()
        self.begin(Limits())

    @initialize(limits=LIMITS)
    def begin(self, limits: Limits) -> None:
        self.limits = limits
        self.destinations = Destinations(limits)
        self.turns = Turns(reserve=SLOTS // 4)
        self.now = 0.0
        self.busy: Counter[str] = Counter()
        self.ended_at: dict[str, float] = {}
        self.died_at: dict[str, float] = {}

    @rule()
    def deal(self) -> None:
        """One round: who may have mail joins, slots are dealt, deliveries begin."""
        for name in NAMES:
            if self.destinations.suspension(name, self.now) is None:
                self.turns.join(name)
        dealt = self.turns.deal(
            SLOTS - self.busy.total(),
            room=lambda name: self.destinations.room(name, self.now),
            is_idle=self.destinations.is_idle,
            leaves=lambda _: None,
        )
        for name, many in dealt.items():
            assert self.died_at.get(name, -1e9) + self.limits.pause <= self.now, "nobody dials the dead"
            assert self.now >= self.ended_at.get(name, -1e9) + self.limits.rate_delay, "the rate is kept"
            for _ in range(many):
                self.destinations.begin(name)
                self.busy[name] += 1

    @precondition(lambda self: self.busy.total())
    @rule(data=st.data(), fails=st.booleans())
    def end(self, data: st.DataObject, fails: bool) -> None:
        name = data.draw(st.sampled_from(sorted(+self.busy)))
        self.busy[name] -= 1
        self.ended_at[name] = self.now
        before = self.destinations.suspension(name, self.now)
        self.destinations.end(name, self.now, FAILING if fails else None)
        after = self.destinations.suspension(name, self.now)
        if not fails:
            assert after is None, "a success is a sign of life"
            self.died_at.pop(name, None)
        elif before is None and after is not None:
            self.died_at[name] = self.now
        else:
            assert after == before, "who is dead already does not die again"

    @rule(seconds=st.sampled_from([0.5, 7.0, 99.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def flush(self) -> None:
        self.destinations.revive()
        self.died_at.clear()

    @rule()
    def all_comes_back(self) -> None:
        """When nothing is under way and time has passed, each gets a slot in the first round: nobody is forgotten."""
        for name in list(self.busy.elements()):
            self.busy[name] -= 1
            self.destinations.end(name, self.now)
        self.died_at.clear()
        self.now += 1000
        self.deal()
        assert all(self.busy[name] for name in NAMES)

    @invariant()
    def limits_hold(self) -> None:
        assert self.busy.total() <= SLOTS
        assert max(self.busy.values(), default=0) <= self.limits.highest


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
