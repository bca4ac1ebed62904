"""Who writes to the postmaster about sessions, crashes and the queue, as ``[bounce]`` says."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime

from relay.app.options import report_options
from relay.config.config import Config
from relay.log.events import Observer
from relay.mail.envelope import Address, QueueId, Sender
from relay.queue.notices import OF_INCIDENTS
from relay.queue.postmaster import Postmaster
from relay.queue.store import QueueStore


def postmaster(
    config: Config,
    store: QueueStore,
    *,
    destination_of: Callable[[Address, Sender], str],
    clock: Callable[[], datetime],
    new_id: Callable[[], QueueId],
    observe: Observer,
    queued: Callable[[Collection[str]], None],
) -> Postmaster | None:
    """Whoever tells the postmaster; None if the postmaster wants to hear of nothing.

    :param queued: told of the destinations of what was written.
    """
    notices = report_options(config).notices
    wanted = frozenset(OF_INCIDENTS & notices.keys())
    if not wanted:
        return None
    return Postmaster(
        store=store,
        hostname=config.relay.myhostname,
        wanted=wanted,
        reader=next(notices[one] for one in wanted),  # they have one in common
        clock=clock,
        new_id=new_id,
        destination_of=destination_of,
        observe=observe,
        queued=queued,
    )
