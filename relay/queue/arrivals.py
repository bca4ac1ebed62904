"""What the writer's thread does when a message comes in: it is inserted, and leased at once where somebody waits for it.

As in ``transactions``, a job may be run twice and changes nothing but the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import apsw

from relay.mail.envelope import Message, RecipientId
from relay.queue.actions import hold_new
from relay.queue.rows import (
    MESSAGE_COLUMNS,
    RECIPIENT_COLUMNS,
    Body,
    body_row,
    message_row,
    micros,
    recipient_row,
)
from relay.queue.store import Lease, LeaseToken, NewMessage, Reservation

_INSERT_MESSAGE = f"INSERT INTO message ({MESSAGE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constant columns
_INSERT_DELIVERY = (
    "INSERT INTO delivery (message, number, destination, state, next_attempt, attempts, lease, lease_until, began_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_RECIPIENT = (
    f"INSERT INTO recipient ({RECIPIENT_COLUMNS}, message, delivery, position, state, reason)"  # noqa: S608 - constant columns
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'pending', '')"
)


@dataclass(frozen=True, slots=True)
class HandOver:
    """Leases that are wanted of a message as it comes in.

    :param serial: unique in this process: it makes the tokens unlike all others.
    """

    reservation: Reservation
    serial: int


def stored(message: NewMessage, size: int, *, eight_bit: bool) -> Message:
    """The message as it will be known from now on."""
    return Message(
        queue_id=message.queue_id,
        envelope=message.envelope,
        size=size,
        arrived_at=message.arrived_at,
        eight_bit=eight_bit,
    )


def token_of(message: int, number: int, serial: int) -> LeaseToken:
    """The token of a lease: row and number of the delivery, serial number of the lease."""
    return LeaseToken(f"{message}.{number}.{serial}")


def put(
    connection: apsw.Connection,
    message: Message,
    destinations: Mapping[RecipientId, str],
    body: Body,
    hand_over: HandOver | None = None,
) -> list[Lease]:
    """Insert a message, due at once, but for what is leased at once; gives these leases.

    :raises ValueError: if the queue ID is taken, or a recipient id comes twice.
    """
    has_rules = bool(connection.execute("SELECT 1 FROM hold_rule LIMIT 1").fetchall())
    if has_rules:
        hand_over = None  # what a rule holds is not delivered; whom it does not mean is found soon enough
    try:
        connection.execute(_INSERT_MESSAGE, message_row(message))
        row = connection.last_insert_rowid()
        connection.execute("INSERT INTO body (message, content, spool) VALUES (?, ?, ?)", (row, *body_row(body)))
        numbers = {name: index for index, name in enumerate(dict.fromkeys(destinations.values()))}
        connection.executemany(_INSERT_DELIVERY, _delivery_rows(row, numbers, micros(message.arrived_at), hand_over))
        connection.executemany(
            _INSERT_RECIPIENT,
            [
                (*recipient_row(recipient), row, numbers[destinations[recipient.id]], position)
                for position, recipient in enumerate(message.envelope.recipients)
            ],
        )
    except apsw.ConstraintError as error:
        raise ValueError(f"message {message.queue_id} does not fit the queue: {error}") from error
    if has_rules:
        hold_new(connection, row, message.arrived_at)
    return [] if hand_over is None else _leases(row, message, numbers, destinations, hand_over)


def _delivery_rows(
    row: int, numbers: Mapping[str, int], due: int, hand_over: HandOver | None
) -> list[tuple[int | str, ...]]:
    if hand_over is None:
        return [(row, number, name, "waiting", due, 0, 0, 0, 0) for name, number in numbers.items()]
    taken = hand_over.reservation
    at, until = micros(taken.at), micros(taken.until)
    return [
        (row, number, name, "leased", due, 1, hand_over.serial, until, at)
        if name in taken.destinations
        else (row, number, name, "waiting", due, 0, 0, 0, 0)
        for name, number in numbers.items()
    ]


def _leases(
    row: int, message: Message, numbers: Mapping[str, int], destinations: Mapping[RecipientId, str], hand_over: HandOver
) -> list[Lease]:
    people = message.envelope.recipients
    return [
        Lease(
            token=token_of(row, number, hand_over.serial),
            message=message,
            destination=name,
            recipients=people if len(numbers) == 1 else tuple(one for one in people if destinations[one.id] == name),
            attempts=0,
            leased_at=hand_over.reservation.at,
            due_at=message.arrived_at,
            total_recipients=len(people),
        )
        for name, number in numbers.items()
        if name in hand_over.reservation.destinations
    ]
