"""Tokens: leases, attempts and fenced writes; each is one statement, whatever the size of the batch.

Everything that a refresh writes is fenced twice: by the generation that it started from and by its lease. All times are
the database's, so the workers' clocks may differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.orm import Session

from worker.crud.outbox import events
from worker.crud.refresh.records import AttemptBegun, LeasedToken, NewToken, Settlement, TokenState
from worker.models.vocabulary import ProviderStatus
from worker.process.clocks import elapsed

# SKIP LOCKED: a row that is being stored counts as leased. What a decision depends on is read afterwards by another
# statement: this one may have waited, and except for the locked rows it sees the tables as they were when it began.
_LEASE = text(
    """
    WITH free AS MATERIALIZED (
        SELECT t.provider_id FROM provider_tokens t JOIN providers p ON p.id = t.provider_id
        WHERE t.provider_id = ANY (CAST(string_to_array(:ids, ',') AS uuid[]))
            AND (
                t.lease_until IS NULL OR t.lease_until < clock_timestamp() OR t.lease_owner = CAST(:held_by AS uuid)
            )
            AND (p.status = 'active' OR NOT :active_only)
        FOR UPDATE OF t SKIP LOCKED
    )
    UPDATE provider_tokens t
    SET lease_owner = :owner, lease_until = clock_timestamp() + make_interval(secs => :seconds)
    FROM free WHERE t.provider_id = free.provider_id
    RETURNING t.provider_id
    """
)

_READ_LEASED = text(
    """
    SELECT t.provider_id, p.provider_key, t.generation, t.refresh_token, t.key_id, t.issued_at,
        make_interval(secs => t.lifetime_s) AS lifetime, p.refresh_failures, p.refresh_not_before AS not_before,
        shown.unknowns, shown.gateway_errors,
        t.lease_until - make_interval(secs => :seconds) AS leased_at
    FROM provider_tokens t JOIN providers p ON p.id = t.provider_id CROSS JOIN LATERAL (
        SELECT count(*) AS unknowns, count(*) FILTER (WHERE r.error = 'gateway_error') AS gateway_errors
        FROM token_refreshes r
        WHERE r.provider_id = t.provider_id AND r.generation = t.generation AND r.status IN ('sent', 'unknown')
    ) AS shown
    WHERE t.provider_id = ANY (CAST(string_to_array(:ids, ',') AS uuid[])) AND t.lease_owner = :owner
        AND (p.status = 'active' OR NOT :active_only)
    """
)

_RELEASE = text(
    """
    UPDATE provider_tokens SET lease_owner = NULL, lease_until = NULL
    WHERE provider_id = ANY (CAST(string_to_array(:ids, ',') AS uuid[])) AND lease_owner = :owner
    """
)

_BEGIN = text(
    """
    INSERT INTO token_refreshes (id, provider_id, generation, status, trigger, lease_owner, spool_id, started_at)
    SELECT id, provider_id, generation, 'sent', trigger, owner, spool_id, clock_timestamp()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
        id uuid, provider_id uuid, generation int, trigger text, owner uuid, spool_id uuid
    )
    """
)

# If the row does not exist, it is inserted: then a transaction that was given up but still runs cannot insert it later.
_NOT_SENT = text(
    """
    INSERT INTO token_refreshes AS t (
        id, provider_id, generation, status, reason, trigger, lease_owner, started_at, finished_at
    )
    SELECT r.id, r.provider_id, r.generation, 'not_sent', 'unacknowledged', r.trigger, r.owner, clock_timestamp(),
        clock_timestamp()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
        id uuid, provider_id uuid, generation int, trigger text, owner uuid
    ) JOIN providers p ON p.id = r.provider_id
    ON CONFLICT (id) DO UPDATE
    SET status = 'not_sent', reason = 'unacknowledged', finished_at = excluded.finished_at
    WHERE t.status IN ('sent', 'unknown')
    """
)
_WAIT_BRIEFLY = text("SET LOCAL lock_timeout = '3s'")

_MARK_UNKNOWN = text(
    """
    UPDATE token_refreshes SET status = 'unknown', reason = 'worker_lost', finished_at = clock_timestamp()
    WHERE provider_id = :provider_id AND generation = :generation AND status = 'sent'
    """
)

_STORE = text(
    """
    WITH answer AS (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
            provider_id uuid, generation int, access_token text, refresh_token text, key_id text,
            issued_at timestamptz, lifetime_s int, scope text, access_expires_at timestamptz,
            refresh_due_at timestamptz, attempt_id uuid, new_grant bool, grant_expires_at timestamptz,
            external_id text, sync_due_at timestamptz, action text, actor text, reason text, task_id text,
            flags jsonb, audit_id uuid
        )
    ), stored AS (
        UPDATE provider_tokens t SET
            access_token = a.access_token, refresh_token = a.refresh_token, key_id = a.key_id,
            generation = t.generation + 1, scope = coalesce(a.scope, t.scope), lifetime_s = a.lifetime_s,
            issued_at = a.issued_at, lease_owner = NULL, lease_until = NULL
        FROM answer a
        WHERE t.provider_id = a.provider_id AND t.generation = a.generation AND t.lease_owner = :owner
        RETURNING a.*
    ), scheduled AS (
        UPDATE providers p SET
            access_expires_at = s.access_expires_at,
            refresh_due_at = s.refresh_due_at,
            refresh_failures = 0,
            refresh_not_before = NULL,
            refreshed_at = CASE WHEN s.new_grant THEN p.refreshed_at ELSE s.issued_at END,
            grant_expires_at = CASE WHEN s.new_grant THEN s.grant_expires_at ELSE p.grant_expires_at END,
            connected_at = CASE WHEN s.new_grant THEN s.issued_at ELSE p.connected_at END,
            hook_url = CASE WHEN s.new_grant THEN NULL ELSE p.hook_url END,
            external_id = coalesce(s.external_id, p.external_id),
            sync_due_at = coalesce(s.sync_due_at, p.sync_due_at),
            sync_failures = CASE WHEN s.new_grant THEN 0 ELSE p.sync_failures END,
            status = CASE WHEN revived THEN 'active' ELSE p.status END,
            status_reason = CASE WHEN revived THEN NULL ELSE p.status_reason END
        FROM (
            -- A rotation that was given up as lost and turns up in the journal after all is not lost.
            SELECT stored.*, stored.new_grant OR (q.status = 'needs_reauth' AND q.status_reason = 'lost_rotation')
                AS revived
            FROM stored JOIN providers q ON q.id = stored.provider_id
        ) s
        WHERE p.id = s.provider_id
        RETURNING s.provider_id, s.revived
    ), attempted AS (
        UPDATE token_refreshes r
        SET status = 'done', error = NULL, reason = s.reason, finished_at = clock_timestamp()
        FROM stored s WHERE r.id = s.attempt_id
    ), audited AS (
        INSERT INTO provider_audit_logs (id, provider_id, action, actor, reason, task_id, detail)
        SELECT audit_id, provider_id, action, actor, reason, task_id,
            jsonb_build_object('generation', generation + 1)
                || CASE WHEN flags = '[]' THEN '{}' ELSE jsonb_build_object('flags', flags) END
        FROM stored
    )
    SELECT stored.provider_id, coalesce(scheduled.revived, false)
    FROM stored LEFT JOIN scheduled ON scheduled.provider_id = stored.provider_id
    """
)

_SETTLE = text(
    """
    WITH outcome AS (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
            provider_id uuid, generation int, attempt_id uuid, attempt_status text, error text, reason text,
            failed bool, keep_due bool, waits bool, refresh_due_at timestamptz, status text, status_reason text,
            task_id text, audit_id uuid
        )
    ), released AS (
        UPDATE provider_tokens t SET lease_owner = NULL, lease_until = NULL
        FROM outcome o
        WHERE t.provider_id = o.provider_id AND t.generation = o.generation AND t.lease_owner = :owner
        RETURNING o.*
    ), scheduled AS (
        UPDATE providers p SET
            refresh_failures = p.refresh_failures + r.failed::int,
            refresh_due_at = CASE WHEN r.keep_due THEN p.refresh_due_at ELSE r.refresh_due_at END,
            refresh_not_before = CASE WHEN r.waits THEN r.refresh_due_at ELSE p.refresh_not_before END,
            status = coalesce(r.status, p.status),
            status_reason = CASE WHEN r.status IS NULL THEN p.status_reason ELSE r.status_reason END
        FROM released r
        -- A pause or an unlinking that came meanwhile stands.
        WHERE p.id = r.provider_id AND p.status = 'active'
        RETURNING p.id
    ), attempted AS (
        UPDATE token_refreshes r
        SET status = o.attempt_status, error = o.error, reason = o.reason, finished_at = clock_timestamp()
        FROM outcome o WHERE r.id = o.attempt_id AND r.status = 'sent'
    ), audited AS (
        INSERT INTO provider_audit_logs (id, provider_id, action, actor, reason, task_id, detail)
        SELECT r.audit_id, r.provider_id, r.status, 'system', r.status_reason, r.task_id,
            jsonb_build_object('generation', r.generation, 'error', r.error, 'provider_reason', r.reason)
        FROM released r JOIN scheduled s ON s.id = r.provider_id WHERE r.status IS NOT NULL
    )
    SELECT id FROM scheduled
    """
)

_READ = text(
    """
    SELECT p.id AS provider_id, p.provider_key, p.status, p.status_reason, t.generation, t.access_token,
        t.refresh_token, t.key_id, make_interval(secs => t.lifetime_s) AS lifetime, p.access_expires_at,
        coalesce(t.lease_until > clock_timestamp(), false) AS leased, clock_timestamp() AS now
    FROM providers p LEFT JOIN provider_tokens t ON t.provider_id = p.id
    WHERE p.id = ANY (CAST(string_to_array(:ids, ',') AS uuid[]))
    """
)


def lease(
    session: Session,
    *,
    ids: Iterable[UUID],
    owner: UUID,
    seconds: float,
    active_only: bool = True,
    held_by: UUID | None = None,
) -> list[LeasedToken]:
    """Leases those tokens that no other worker has leased, for `seconds` by the database's clock.

    A token that is leased, locked or missing is left out, and with `active_only` also one whose provider is not active.
    A lease of `held_by` is taken over, because its holder has finished.
    """
    parameters = {
        "ids": _joined(ids),
        "owner": owner,
        "seconds": seconds,
        "active_only": active_only,
        "held_by": held_by,
    }
    asked_at = elapsed()
    taken = set(session.execute(_LEASE, parameters).scalars())
    if not taken:
        return []
    found = read_leased(session, ids=taken, owner=owner, seconds=seconds, active_only=active_only, asked_at=asked_at)
    if ended_meanwhile := taken - {leased.provider_id for leased in found}:
        session.execute(_RELEASE, {"ids": _joined(ended_meanwhile), "owner": owner})
    return found


def read_leased(
    session: Session, *, ids: Iterable[UUID], owner: UUID, seconds: float, active_only: bool = True, asked_at: float
) -> list[LeasedToken]:
    """Those of these tokens that `owner` has leased, as they are now; `asked_at` is a moment before the lease."""
    parameters = {"ids": _joined(ids), "owner": owner, "seconds": seconds, "active_only": active_only}
    return [LeasedToken(**row, asked_at=asked_at) for row in session.execute(_READ_LEASED, parameters).mappings()]


def begin_attempts(session: Session, *, attempts: Sequence[AttemptBegun]) -> None:
    """Writes the attempts that are about to be sent."""
    if attempts:
        session.execute(_BEGIN, {"rows": _json(attempts)})


def mark_not_sent(session: Session, *, attempts: Sequence[AttemptBegun]) -> None:
    """Records that these attempts were not sent, whether or not they are in the table.

    Lock: waits at most three seconds for a transaction that is still writing one of them.
    """
    if attempts:
        session.execute(_WAIT_BRIEFLY)
        session.execute(_NOT_SENT, {"rows": _json(attempts)})


def mark_unknown(session: Session, *, provider_id: UUID, generation: int) -> None:
    """Marks as unknown the attempts that a dead worker left unfinished; only the holder of the lease may call it."""
    session.execute(_MARK_UNKNOWN, {"provider_id": provider_id, "generation": generation})


def store(session: Session, *, tokens: Sequence[NewToken], owner: UUID) -> set[UUID]:
    """Stores new tokens: generation + 1, due times, attempt done, audit row, end of the lease.

    Fenced by generation and lease.

    Returns:
        Providers whose token was stored. For the others a fence refused it, and nothing of theirs was written.
    """
    if not tokens:
        return set()
    found = session.execute(_STORE, {"rows": _json(tokens), "owner": owner})
    stored: dict[UUID, bool] = dict(tuple(row) for row in found)
    if any(stored.values()):
        _tell_of_links(session, [token for token in tokens if stored.get(token.provider_id)])
    return set(stored)


def _tell_of_links(session: Session, tokens: Sequence[NewToken]) -> None:
    """Adds the events of tokens that make their login active: new grants, and tokens that had counted as lost."""
    for token in tokens:
        how = "token_found" if not token.new_grant else "linked_again" if token.generation else "linked"
        events.linked(session, provider_ids=[token.provider_id], how=how)


def settle(session: Session, *, settlements: Sequence[Settlement], owner: UUID) -> set[UUID]:
    """Ends leases without a new token; fenced by generation and lease.

    Returns:
        Providers that were settled. For the others the lease is another's, or the login was paused or unlinked: only
        our own lease and attempt were ended.
    """
    if not settlements:
        return set()
    settled = set(session.execute(_SETTLE, {"rows": _json(settlements), "owner": owner}).scalars())
    ended = [one for one in settlements if one.status == ProviderStatus.NEEDS_REAUTH and one.provider_id in settled]
    events.need_reauth(session, reasons=[(one.provider_id, one.status_reason or "refused") for one in ended])
    return settled


def read(session: Session, *, ids: Iterable[UUID]) -> dict[UUID, TokenState]:
    """States by provider id; ids of providers that do not exist are left out."""
    rows = session.execute(_READ, {"ids": _joined(ids)}).mappings()
    return {row["provider_id"]: TokenState(**row) for row in rows}


def _joined(ids: Iterable[UUID]) -> str:
    # Sending one string costs far less than sending an array of UUIDs.
    return ",".join(map(str, ids))


_encoder = msgspec.json.Encoder()


def _json(rows: Sequence[msgspec.Struct]) -> str:
    return _encoder.encode(rows).decode()
