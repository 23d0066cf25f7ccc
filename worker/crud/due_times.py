"""The table by which claims find what is due. It repeats what `providers` says, and Postgres may empty it.

Nothing of it is written to WAL. Triggers of `providers` keep it; after a migration, a crash of Postgres or a change of
the primary it is empty, and the next claims fill it again, from `providers`. A row that is too many does no harm: a
claim also looks at the login itself.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

NOBODY = UUID(int=0)
_STATE = text("SELECT kind, provider_key FROM due_times WHERE provider_id = :nobody")
_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended('due times', 0))")
_NEXT = text("SELECT id FROM providers WHERE id > :after ORDER BY id OFFSET :skip LIMIT 1")
_FILL = text(
    """
    INSERT INTO due_times (provider_id, kind, provider_key, due_at, access_expires_at)
    SELECT p.id, due.kind, p.provider_key, due.at, due.access_expires_at
    FROM providers p
    CROSS JOIN LATERAL (
        VALUES ('refresh', p.refresh_due_at, p.access_expires_at), ('sync', p.sync_due_at, NULL)
    ) AS due (kind, at, access_expires_at)
    WHERE p.id > :after AND p.id <= :last AND p.status = 'active' AND due.at IS NOT NULL
    ON CONFLICT DO NOTHING
    """
)
_KEEP = text(
    """
    WITH before AS (DELETE FROM due_times WHERE provider_id = :nobody AND kind <> :kind)
    INSERT INTO due_times (provider_id, kind, provider_key, due_at) VALUES (:nobody, :kind, :place, '-infinity')
    ON CONFLICT (provider_id, kind) DO UPDATE SET provider_key = excluded.provider_key
    """
)
_FILLED, _FILLING = "filled", "filling"

OF_PROVIDERS = """(
    SELECT 'refresh' AS kind, refresh_due_at AS due_at, access_expires_at FROM providers
    WHERE status = 'active' AND refresh_due_at IS NOT NULL
    UNION ALL SELECT 'sync', sync_due_at, NULL FROM providers WHERE status = 'active'
) AS due_times"""
"""What is read in place of the table while it is not filled: the same rows, without an index."""


IS_FILLED = f"EXISTS (SELECT FROM due_times WHERE provider_id = :nobody AND kind = '{_FILLED}')"
"""Condition: the table has all due times."""


def is_filled(session: Session) -> bool:
    """Whether the table has all due times."""
    return _state(session)[0] == _FILLED


def fill(session: Session, *, at_most: int) -> bool:
    """Adds the due times of `at_most` more logins. Returns whether the table has all of them now.

    Two processes that fill it at the same time take turns; one that has to wait does nothing.
    """
    state, place = _state(session)
    if state == _FILLED:
        return True
    if not session.scalar(_LOCK):
        return False
    state, place = _state(session)  # as the process that had the lock has left it
    after = UUID(place) if state == _FILLING else NOBODY
    following = session.scalar(_NEXT, {"after": after, "skip": at_most - 1})
    last = following or UUID(int=2**128 - 1)
    session.execute(_FILL, {"after": after, "last": last})
    state = _FILLING if following else _FILLED
    session.execute(_KEEP, {"nobody": NOBODY, "kind": state, "place": str(last)})
    return state == _FILLED


def _state(session: Session) -> tuple[str, str]:
    row = session.execute(_STATE, {"nobody": NOBODY}).one_or_none()
    return ("", "") if row is None else (row[0], row[1])
