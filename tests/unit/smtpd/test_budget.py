from __future__ import annotations

import pytest

from relay.smtpd.budget import CONTENT_OCTETS, Budget, OverBudget


def test_a_content_takes_what_came_of_it_and_never_more_than_its_bound() -> None:
    budget = Budget(0)
    share = budget.open()
    share.cover(0)
    small = budget.held
    assert 0 < small < 65536
    share.cover(100_000)
    assert 200_000 < budget.held < CONTENT_OCTETS
    share.cover(10**9)
    assert budget.held == CONTENT_OCTETS
    share.cover(5)
    assert budget.held == CONTENT_OCTETS
    share.close()
    share.close()
    assert budget.held == 0


def test_beyond_the_total_there_is_none_until_some_is_given_back() -> None:
    budget = Budget(2 * CONTENT_OCTETS)
    first, second, third = budget.open(), budget.open(), budget.open()
    first.cover(10**9)
    second.cover(10**9)
    with pytest.raises(OverBudget):
        third.cover(0)
    first.close()
    third.cover(0)
    third.cover(10**9)
    assert budget.held == 2 * CONTENT_OCTETS
