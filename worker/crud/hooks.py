"""Hooks: one row for each, and what they make due, in one transaction; logins whose state is to be asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from worker.crud import notices
from worker.crud.outbox import events
from worker.models.hooks import Ask, Hook
from worker.models.vocabulary import ProviderStatus

# A hook that follows another one closely belongs to the same change, or to a storm: it waits for longer, and the usual
# gap is not computed from it. `hook_sync_at` stays while it lies ahead, so that a storm does not put the sync off. If
# another hook has just come, and a sync is due that begins after this one, the login's row is not even locked.
_RECEIVE = text(
    """
    WITH login AS MATERIALIZED (
        SELECT id, status FROM providers WHERE provider_key = :provider_key AND external_id = :external_id
    ), kept AS (
        INSERT INTO hook_deliveries
            (provider_key, delivery_id, kind, provider_id, external_id, body_sha256, detail, received_at)
        VALUES (
            :provider_key, :delivery_id, :kind, (SELECT id FROM login), :external_id, :body_sha256,
            CAST(:detail AS jsonb), now()
        )
        ON CONFLICT DO NOTHING
        RETURNING provider_id
    ), synced AS (
        UPDATE providers SET
            sync_due_at = CASE WHEN providers.status <> 'active' THEN sync_due_at ELSE least(sync_due_at, now() + CASE
                WHEN hooked_at > now() - CAST(:burst AS interval) THEN CAST(:burst AS interval)
                ELSE CAST(:pause AS interval) END) END,
            hook_sync_at = CASE WHEN hook_sync_at > now() THEN hook_sync_at ELSE now() + CASE
                WHEN hooked_at > now() - CAST(:burst AS interval) THEN CAST(:burst AS interval)
                ELSE CAST(:pause AS interval) END END,
            hook_gap = CASE
                WHEN hooked_at IS NULL OR hooked_at > now() - CAST(:burst AS interval) THEN hook_gap
                WHEN hook_gap IS NULL THEN least(extract(epoch FROM now() - hooked_at), :longest)
                ELSE (3 * hook_gap + least(extract(epoch FROM now() - hooked_at), :longest)) / 4 END,
            hooked_at = now()
        FROM kept WHERE :sync AND providers.id = kept.provider_id
          AND (hooked_at > now() - interval '1 second' AND hook_sync_at > now() AND sync_due_at <= hook_sync_at)
            IS NOT TRUE
    ), checked AS (
        INSERT INTO login_checks AS due (provider_id, provider_key, due_at)
        SELECT login.id, :provider_key, now() FROM login, kept
        WHERE :check AND login.status IN ('active', 'needs_reauth')
        ON CONFLICT (provider_id) DO UPDATE SET due_at = least(due.due_at, excluded.due_at)
    )
    SELECT (SELECT count(*) FROM kept) AS new, login.id AS provider_id, login.status
    FROM (SELECT) AS one LEFT JOIN login ON true
    """
)

_WANT_CHECK = text(
    """
    INSERT INTO login_checks AS due (provider_id, provider_key, due_at)
    SELECT id, provider_key, clock_timestamp() FROM providers
    WHERE id = :provider_id AND hook_url IS DISTINCT FROM :url
    ON CONFLICT (provider_id) DO UPDATE SET due_at = least(due.due_at, excluded.due_at)
    """
)

_WITHOUT_ADDRESS = text(
    """
    INSERT INTO login_checks (provider_id, provider_key, due_at)
    SELECT id, provider_key, clock_timestamp() FROM providers
    WHERE provider_key = :provider_key AND status = 'active' AND hook_url IS DISTINCT FROM :url
      AND NOT EXISTS (SELECT FROM login_checks WHERE provider_id = providers.id)
    LIMIT :limit
    ON CONFLICT DO NOTHING
    """
)

_CLAIM = text(
    """
    UPDATE login_checks SET due_at = :until FROM (
        SELECT provider_id FROM login_checks WHERE provider_key = :provider_key AND due_at <= :now
        ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED
    ) AS due
    WHERE login_checks.provider_id = due.provider_id
    RETURNING login_checks.provider_id
    """
)

_ORPHANS = text(
    """
    SELECT provider_key, external_id, max(received_at) AS last_at, count(*) AS hooks FROM hook_deliveries AS found
    WHERE provider_id IS NULL AND external_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM providers
        WHERE providers.provider_key = found.provider_key AND providers.external_id = found.external_id
    )
    GROUP BY provider_key, external_id ORDER BY last_at DESC LIMIT :limit
    """
)


@dataclass(frozen=True, slots=True)
class Received:
    """What became of a hook.

    Attributes:
        is_new: False if the same hook was received before; then nothing was changed.
        provider_id, status: the login that it is about; None if we have no such login.
    """

    is_new: bool
    provider_id: UUID | None
    status: str | None


@dataclass(frozen=True, slots=True)
class Orphan:
    """A login at a provider that sends hooks, and of which we have no row.

    Attributes:
        external_id: the provider's own id of the login.
        hooks: how many of its hooks are kept.
    """

    provider_key: str
    external_id: str
    last_at: datetime
    hooks: int


def receive(
    session: Session,
    *,
    provider_key: str,
    hook: Hook,
    asks: frozenset[Ask],
    body_sha256: bytes,
    pause: timedelta,
    burst: timedelta,
    channels: Sequence[str],
) -> Received:
    """Stores one hook and makes due what it asks for. The second delivery of a hook changes nothing.

    Args:
        session: the transaction.
        provider_key: the integration that has verified it.
        hook: the hook.
        asks: what it asks for, as far as this integration can do it.
        body_sha256: SHA-256 of the body.
        pause: after which time a sync is due.
        burst: the same for a hook that follows another one within this time.
        channels: the channels of the notice that the hook may open.
    """
    found = session.execute(
        _RECEIVE,
        {
            "provider_key": provider_key,
            "delivery_id": hook.delivery_id,
            "kind": hook.kind,
            "external_id": hook.login,
            "body_sha256": body_sha256,
            "detail": json.dumps(dict(hook.detail)),
            "sync": Ask.SYNC in asks,
            "check": Ask.CHECK in asks,
            "pause": pause,
            "burst": burst,
            "longest": _LONGEST_GAP,
        },
    ).one()
    received = Received(bool(found.new), found.provider_id, found.status)
    if hook.feeds and received.is_new:
        forget = text("DELETE FROM sync_cursors WHERE provider_id = :provider_id AND feed = ANY(:feeds)")
        session.execute(forget, {"provider_id": received.provider_id, "feeds": list(hook.feeds)})
    if hook.notice and received.is_new and received.status == ProviderStatus.ACTIVE:
        day = session.execute(text("SELECT CAST(now() AS date)")).scalar_one()
        notices.enqueue(
            session,
            provider_id=received.provider_id,
            stage=hook.notice,
            subject_key=f"hook:{day.isoformat()}",
            channels=channels,
        )
        _tell_of_grant(session, received, hook.notice, day)
    return received


def _tell_of_grant(session: Session, received: Received, stage: str, day: date) -> None:
    if stage == "disconnects_soon" and received.provider_id is not None:
        # When the grant ends is not known from a hook: the check that it asks for finds out.
        events.grants_expiring(
            session, grants=[(received.provider_id, None)], stage=stage, subject_key=f"hook:{day.isoformat()}"
        )


_LONGEST_GAP = 30 * 24 * 3600


def want_check(session: Session, *, provider_id: UUID, url: str) -> None:
    """Makes the check of a login due now, unless its hooks are known to go to this address."""
    session.execute(_WANT_CHECK, {"provider_id": provider_id, "url": url})


def want_checks(session: Session, *, provider_key: str, url: str, limit: int) -> None:
    """The same for active logins of an integration, at most `limit` at a time. It reads all of its rows."""
    session.execute(_WITHOUT_ADDRESS, {"provider_key": provider_key, "url": url, "limit": limit})


def claim_checks(session: Session, *, provider_key: str, now: datetime, limit: int, claim: timedelta) -> Sequence[UUID]:
    """Claims logins whose check is due. One that is not ended by `end_check` is due again after `claim`."""
    values = {"provider_key": provider_key, "now": now, "limit": limit, "until": now + claim}
    return session.execute(_CLAIM, values).scalars().all()


def end_check(session: Session, *, provider_id: UUID, begun_at: datetime, url: str | None = None) -> None:
    """Records that a login was checked, unless a hook has asked for it again since `begun_at`.

    Args:
        session: the transaction.
        provider_id: the login.
        begun_at: when the check began.
        url: the address to which its hooks are sent; None if it is unknown.
    """
    # Claims move the time ahead, and hooks move it back: a time before the claim's was set by a hook.
    session.execute(
        text("DELETE FROM login_checks WHERE provider_id = :provider_id AND due_at > :soon"),
        {"provider_id": provider_id, "soon": begun_at + timedelta(seconds=60)},
    )
    if url is not None:
        session.execute(
            text("UPDATE providers SET hook_url = :url WHERE id = :id AND hook_url IS DISTINCT FROM :url"),
            {"id": provider_id, "url": url},
        )


def move_grant_end(session: Session, *, provider_id: UUID, generation: int, ends_at: datetime | None) -> None:
    """Sets when the consent of an active login ends, as its provider has just said; not if it has another token."""
    session.execute(
        text(
            """
            UPDATE providers SET grant_expires_at = :ends_at
            FROM provider_tokens AS token
            WHERE providers.id = :id AND token.provider_id = providers.id AND token.generation = :generation
              AND providers.status = 'active' AND providers.grant_expires_at IS DISTINCT FROM :ends_at
            """
        ),
        {"id": provider_id, "generation": generation, "ends_at": ends_at},
    )


def orphans(session: Session, *, limit: int) -> list[Orphan]:
    """Logins of which hooks arrive although we have none of them, the newest first."""
    return [Orphan(*row) for row in session.execute(_ORPHANS, {"limit": limit})]
