"""Events: a delivery for each subscription that wants one, written in the transaction that makes the event true.

Every function here is called by the statement's own crud function, in its transaction, and never in a second one: then
a crash can neither lose an event nor send one of something that was rolled back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

import msgspec
from sqlalchemy import text
from sqlalchemy.orm import Session

from worker.crud.feed import positions
from worker.models import new_id
from worker.models.vocabulary import EventType

_NAMES = UUID("6f1c3f0e-53a6-4d4e-9d0a-0d0b5b8f7a10")
_LONGEST_REASON = 200

_OF_PROVIDERS = text(
    """
    INSERT INTO outbox (event_id, subscription_id, type, provider_id, data, due_at)
    SELECT e.event_id, s.id, CAST(:type AS text), p.id,
        jsonb_build_object('provider_id', p.id, 'provider_key', p.provider_key, 'user_id', p.user_id) || e.data,
        clock_timestamp()
    FROM jsonb_to_recordset(CAST(:events AS jsonb)) AS e (event_id uuid, provider_id uuid, data jsonb)
    JOIN providers p ON p.id = e.provider_id
    JOIN hook_subscriptions s ON :type = ANY (s.events) AND s.disabled_at IS NULL
        AND (s.user_id IS NULL OR s.user_id = p.user_id)
    ON CONFLICT DO NOTHING
    """
)

# Whose hooks want to be told of these runs: all users', the user's own, or both.
_WANTED = text(
    """
    SELECT r.id, r.started_at, p.user_id, bool_or(s.user_id IS NULL), bool_or(s.user_id IS NOT NULL)
    FROM sync_runs r
    JOIN providers p ON p.id = r.provider_id
    JOIN hook_subscriptions s ON :type = ANY (s.events) AND s.disabled_at IS NULL
        AND (s.user_id IS NULL OR s.user_id = p.user_id)
    WHERE r.id = ANY (:ids) AND r.status <> 'running' AND r.added + r.changed + r.removed > 0
    GROUP BY r.id, p.user_id
    """
)
_OF_RUN = text(
    """
    INSERT INTO outbox (event_id, subscription_id, type, provider_id, data, due_at)
    SELECT r.id, s.id, CAST(:type AS text), p.id,
        jsonb_build_object(
            'provider_id', p.id, 'provider_key', p.provider_key, 'user_id', p.user_id,
            'run_id', r.id, 'status', r.status, 'mode', r.mode, 'counts', r.counts,
            'cursor', CASE WHEN s.user_id IS NULL THEN CAST(:of_all AS text) ELSE CAST(:of_user AS text) END
        ),
        clock_timestamp()
    FROM sync_runs r
    JOIN providers p ON p.id = r.provider_id
    JOIN hook_subscriptions s ON :type = ANY (s.events) AND s.disabled_at IS NULL
        AND (s.user_id IS NULL OR s.user_id = p.user_id)
    WHERE r.id = :id
    ON CONFLICT DO NOTHING
    """
)

_OF_INTEGRATIONS = text(
    """
    INSERT INTO outbox (event_id, subscription_id, type, data, due_at)
    SELECT :event_id, s.id, CAST(:type AS text), CAST(:data AS jsonb), clock_timestamp()
    FROM hook_subscriptions s WHERE :type = ANY (s.events) AND s.disabled_at IS NULL AND s.user_id IS NULL
    ON CONFLICT DO NOTHING
    """
)


def of_runs(session: Session, *, run_ids: Sequence[UUID]) -> None:
    """`sync.completed` for those of these runs that have ended and stored something. The event's id is the run's.

    Its cursor is one of the change feed, of a position before the first row that the run stored.
    """
    if not run_ids:
        return
    about = {"type": EventType.SYNC_COMPLETED}
    for id_, started_at, user_id, of_all, of_user in session.execute(_WANTED, about | {"ids": list(run_ids)}).all():
        before = positions.cursors_before(session, since=started_at, user_id=user_id)
        cursors = {"of_all": before(None) if of_all else None, "of_user": before(user_id) if of_user else None}
        session.execute(_OF_RUN, about | cursors | {"id": id_})


def linked(session: Session, *, provider_ids: Iterable[UUID], how: str) -> None:
    """`provider.linked`. `how` is `linked`, `linked_again` or `token_found`."""
    _of_providers(session, EventType.PROVIDER_LINKED, [(new_id(), id_, {"how": how}) for id_ in provider_ids])


def need_reauth(session: Session, *, reasons: Sequence[tuple[UUID, str]]) -> None:
    """`provider.needs_reauth` of these logins, with the reason of each."""
    _of_providers(
        session,
        EventType.PROVIDER_NEEDS_REAUTH,
        [(new_id(), id_, {"reason": reason[:_LONGEST_REASON]}) for id_, reason in reasons],
    )


def grants_expiring(
    session: Session, *, grants: Iterable[tuple[UUID, datetime | None]], stage: str, subject_key: str | None = None
) -> None:
    """`provider.grant_expiring`, once for each grant and stage.

    Args:
        session: the transaction.
        grants: logins, with the end of each one's grant as far as it is known.
        stage: the stage of the notice that is queued with it.
        subject_key: what the stage is counted by, if not the grant's end.
    """
    _of_providers(
        session,
        EventType.PROVIDER_GRANT_EXPIRING,
        [
            (
                uuid5(_NAMES, f"{id_} {subject_key or ends} {stage}"),
                id_,
                {"stage": stage, "grant_expires_at": None if ends is None else ends.isoformat()},
            )
            for id_, ends in grants
        ],
    )


def unlinked(session: Session, *, provider_ids: Iterable[UUID]) -> None:
    """`provider.unlinked`."""
    _of_providers(session, EventType.PROVIDER_UNLINKED, [(new_id(), id_, {}) for id_ in provider_ids])


def integration_alarm(session: Session, *, provider_key: str, kind: str, reason: str) -> None:
    """`integration.alarm`. `kind` is `app_misconfigured` (an operator must act) or `outage`."""
    data = {"provider_key": provider_key, "kind": kind, "reason": reason[:_LONGEST_REASON]}
    _of_integrations(session, EventType.INTEGRATION_ALARM, data)


def integration_recovered(session: Session, *, provider_key: str) -> None:
    """`integration.recovered`."""
    _of_integrations(session, EventType.INTEGRATION_RECOVERED, {"provider_key": provider_key})


def _of_providers(session: Session, type_: EventType, events: list[tuple[UUID, UUID, dict[str, Any]]]) -> None:
    if not events:
        return
    rows = [{"event_id": event_id, "provider_id": id_, "data": data} for event_id, id_, data in events]
    session.execute(_OF_PROVIDERS, {"type": type_, "events": msgspec.json.encode(rows).decode()})


def _of_integrations(session: Session, type_: EventType, data: dict[str, str]) -> None:
    values = {"event_id": new_id(), "type": type_, "data": msgspec.json.encode(data).decode()}
    session.execute(_OF_INTEGRATIONS, values)
