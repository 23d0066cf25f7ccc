"""Deliveries: claimed a few at a time for each subscription, recorded, given up, and sent again on demand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from worker.models import Delivery, Subscription, new_id
from worker.models.outbox import Attempted, DeliveryRow, Outgoing, Secrets
from worker.models.vocabulary import EventType


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is sent to one subscription at a time.

    Attributes:
        places: how many deliveries at once.
        claim: after which time a claimed delivery is due again if nobody recorded its end.
        trip: after how many failures in a row its breaker opens.
        first_pause, longest_pause: how long the breaker stays open; doubled by each further failure.
    """

    places: int = 8
    claim: timedelta = timedelta(minutes=2)
    trip: int = 3
    first_pause: timedelta = timedelta(seconds=10)
    longest_pause: timedelta = timedelta(minutes=10)


# An older transaction that is still open may have rows in the change feed that a reader cannot see yet, so the event
# waits for it. No transaction of ours lasts ten minutes. Numbers from before a restore into another server may never be
# reached, hence the time limit.
_CLAIM = text(
    """
    WITH open AS MATERIALIZED (
        SELECT id, CASE WHEN failures >= :trip THEN 1 ELSE :places END AS free FROM hook_subscriptions
        WHERE disabled_at IS NULL AND (wait_until IS NULL OR wait_until <= :now)
            AND id <> ALL (CAST(:but AS uuid[])) AND (CAST(:only AS uuid) IS NULL OR id = :only)
    ), due AS MATERIALIZED (
        SELECT o.event_id, o.subscription_id FROM open CROSS JOIN LATERAL (
            SELECT event_id, subscription_id FROM outbox
            WHERE subscription_id = open.id AND due_at <= :now AND (
                xid < CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)
                OR created_at < :now - interval '10 minutes'
            )
            ORDER BY due_at LIMIT open.free FOR UPDATE SKIP LOCKED
        ) AS o
    ), claimed AS (
        UPDATE outbox o SET due_at = :until, attempts = o.attempts + 1
        FROM due WHERE o.event_id = due.event_id AND o.subscription_id = due.subscription_id
        RETURNING o.*
    )
    SELECT c.event_id, c.type, c.data, c.created_at, c.attempts, s.url,
        s.id, s.generation, s.key_id, s.secret, s.old_secret, s.old_secret_until
    FROM claimed c JOIN hook_subscriptions s ON s.id = c.subscription_id ORDER BY c.created_at, c.event_id
    """
)


def claim(
    session: Session, *, now: datetime, pace: Pace, but: Iterable[UUID] = (), only: UUID | None = None
) -> list[Outgoing]:
    """Claims what is due: at most `pace.places` of each subscription; one if its last deliveries failed.

    The attempt is counted here, so it counts even if the sender dies. A subscription that is paused or disabled is left
    out, like those in `but`. `only` claims for one subscription.
    """
    given = {
        "now": now,
        "until": now + pace.claim,
        "trip": pace.trip,
        "places": pace.places,
        "but": list(but),
        "only": only,
    }
    found = session.execute(_CLAIM, given)
    return [
        Outgoing(event_id, type_, data, created_at, attempts, url, Secrets(*secrets))
        for event_id, type_, data, created_at, attempts, url, *secrets in found
    ]


_END = text(
    """
    UPDATE outbox SET sent_at = CASE WHEN :received THEN CAST(:at AS timestamptz) END, due_at = :retry_at,
        parked_at = CASE WHEN NOT :received AND CAST(:retry_at AS timestamptz) IS NULL
            THEN CAST(:at AS timestamptz) END,
        status = :status, last_error = :error
    WHERE event_id = :event_id AND subscription_id = :subscription_id AND sent_at IS NULL
    """
)
# Deliveries that were under way together fail together. Once they have opened the breaker, the others of them do not
# count, or it would stay open for minutes because of one moment.
# The subscription's row is written at most once a minute while all goes well: it is the same row for all deliveries.
_RECEIVED = text(
    """
    UPDATE hook_subscriptions
    SET failures = 0, failing_since = NULL, wait_until = NULL, last_sent_at = :at, last_error = NULL
    WHERE id = :id AND (failures > 0 OR last_sent_at IS NULL OR last_sent_at < :at - interval '1 minute')
    """
)
_FAILED = text(
    """
    UPDATE hook_subscriptions SET
        failures = CASE WHEN wait_until > :at THEN failures ELSE failures + 1 END,
        failing_since = coalesce(failing_since, :at), last_error = :error,
        wait_until = greatest(
            wait_until,
            CAST(:pause_until AS timestamptz),
            CASE WHEN failures + 1 >= :trip AND (wait_until IS NULL OR wait_until <= :at) THEN :at + least(
                CAST(:longest AS interval), CAST(:first AS interval) * power(2, least(failures + 1 - :trip, 20))
            ) END
        ),
        disabled_at = CASE WHEN :gone THEN CAST(:at AS timestamptz) ELSE disabled_at END,
        disabled_by = CASE WHEN :gone THEN 'receiver' ELSE disabled_by END
    WHERE id = :id
    """
)


def record(session: Session, *, attempted: Attempted, pace: Pace) -> None:
    """Records how an attempt ended, for the delivery and for its subscription.

    A delivery that another sender has recorded as received stays so.
    """
    session.execute(
        _END,
        {
            "at": attempted.at,
            "received": attempted.received,
            "retry_at": attempted.retry_at,
            "status": attempted.status,
            "error": attempted.error,
            "event_id": attempted.event_id,
            "subscription_id": attempted.subscription_id,
        },
    )
    if attempted.received:
        session.execute(_RECEIVED, {"id": attempted.subscription_id, "at": attempted.at})
        return
    session.execute(
        _FAILED,
        {
            "id": attempted.subscription_id,
            "at": attempted.at,
            "error": attempted.error,
            "pause_until": attempted.pause_until,
            "gone": attempted.gone,
            "trip": pace.trip,
            "first": pace.first_pause,
            "longest": pace.longest_pause,
        },
    )


# What others have locked is left for the next call: the sender records the end of those.
_PARK = text(
    """
    UPDATE outbox o SET due_at = NULL, parked_at = :now, last_error = coalesce(o.last_error, f.reason)
    FROM (
        SELECT o.event_id, o.subscription_id,
            CASE WHEN s.disabled_at IS NULL THEN 'the receiver has not answered for days'
                ELSE 'the hook is disabled' END AS reason
        FROM hook_subscriptions s JOIN outbox o ON o.subscription_id = s.id AND o.due_at IS NOT NULL
        WHERE (s.disabled_at IS NOT NULL OR s.failing_since < :before)
            AND (s.disabled_at IS NOT NULL OR o.created_at < :before)
        LIMIT :limit FOR UPDATE OF o SKIP LOCKED
    ) AS f
    WHERE o.event_id = f.event_id AND o.subscription_id = f.subscription_id
    """
)


def park(session: Session, *, now: datetime, before: datetime, limit: int) -> int:
    """Gives up deliveries to disabled subscriptions, and those of events before `before` to ones that fail as long.

    Returns how many.
    """
    return int(session.execute(_PARK, {"now": now, "before": before, "limit": limit}).rowcount)  # type: ignore[attr-defined]


def ask_for_test(session: Session, *, subscription_id: UUID, actor: str) -> UUID:
    """Queues a test event for one subscription alone. Returns the event's id."""
    event_id = new_id()
    session.execute(
        text(
            """
            INSERT INTO outbox (event_id, subscription_id, type, data, due_at)
            VALUES (:event_id, :subscription_id, :type, CAST(:data AS jsonb), clock_timestamp())
            """
        ),
        {
            "event_id": event_id,
            "subscription_id": subscription_id,
            "type": EventType.HOOK_TEST,
            "data": msgspec.json.encode({"hook_id": str(subscription_id), "asked_by": actor}).decode(),
        },
    )
    return event_id


def replay(
    session: Session, *, subscription_id: UUID, event_id: UUID | None, since: datetime | None, now: datetime
) -> int:
    """Makes deliveries due again, with all attempts: one, or all since a time, or else those that were parked.

    A receiver that fails counts as failing since `now`: otherwise old deliveries would be parked again before they are
    sent. Returns how many deliveries there are.
    """
    chosen = update(Delivery).where(Delivery.subscription_id == subscription_id)
    if event_id is not None:
        chosen = chosen.where(Delivery.event_id == event_id)
    if since is not None:
        chosen = chosen.where(Delivery.created_at >= since)
    if event_id is None and since is None:
        chosen = chosen.where(Delivery.parked_at.is_not(None))
    again = chosen.values(due_at=now, attempts=0, sent_at=None, parked_at=None)
    result = session.execute(again, execution_options={"synchronize_session": False})
    given_time = update(Subscription).where(Subscription.id == subscription_id, Subscription.failing_since.is_not(None))
    session.execute(given_time.values(failing_since=now), execution_options={"synchronize_session": False})
    return int(result.rowcount)  # type: ignore[attr-defined]


_STATES: Mapping[str, Any] = {
    "waiting": Delivery.due_at.is_not(None),
    "parked": Delivery.parked_at.is_not(None),
    "received": Delivery.sent_at.is_not(None),
}


def list_rows(
    session: Session, *, subscription_id: UUID, state: str | None, limit: int, event_id: UUID | None = None
) -> Sequence[DeliveryRow]:
    """Deliveries of one subscription, newest first; `state` is `waiting`, `parked` or `received`."""
    columns = [getattr(Delivery, name) for name in DeliveryRow.__slots__]
    query = select(*columns).where(Delivery.subscription_id == subscription_id)
    if state is not None:
        query = query.where(_STATES[state])
    if event_id is not None:
        query = query.where(Delivery.event_id == event_id)
    newest = query.order_by(Delivery.created_at.desc(), Delivery.event_id.desc()).limit(limit)
    return [DeliveryRow(*row) for row in session.execute(newest)]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in the outbox.

    Attributes:
        oldest_s: seconds since the first event that waits; 0 if there is none.
        parked_hook: a hook of which deliveries were parked.
    """

    waiting: int
    parked: int
    oldest_s: float
    parked_hook: UUID | None


# An event that is committed while its hook is removed leaves a delivery that nobody will send. Upkeep deletes it later.
_OF_HOOKS = "outbox o WHERE EXISTS (SELECT FROM hook_subscriptions s WHERE s.id = o.subscription_id)"
_BACKLOG = text(
    f"""
    SELECT (SELECT count(*) FROM (SELECT FROM {_OF_HOOKS} AND due_at IS NOT NULL LIMIT 100000) AS x),
        (SELECT count(*) FROM (SELECT FROM {_OF_HOOKS} AND parked_at IS NOT NULL LIMIT 100000) AS x),
        (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8
         FROM {_OF_HOOKS} AND due_at IS NOT NULL),
        (SELECT subscription_id FROM {_OF_HOOKS} AND parked_at IS NOT NULL LIMIT 1)
    """  # noqa: S608 - made of the constant above
)


def backlog(session: Session) -> Backlog:
    """All subscriptions together. Counts go up to 100,000."""
    return Backlog(*session.execute(_BACKLOG).one())
