"""Notices: queued in the transaction of the change that they report, claimed with SKIP LOCKED, each sent once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from worker.crud import audit
from worker.crud.fleet import overview
from worker.crud.outbox import events
from worker.models import Notice, Provider, User, new_id
from worker.models.vocabulary import ProviderStatus

ACCOUNTS_NEED_USER = "accounts_need_user"
"""The stage of the notice that some accounts of a login need their user, while the login works."""
CHANNELS = ("log", "email", "webhook")
"""All channels. The sender closes rows of a channel that is not enabled, without sending them."""


class DueNotice(NamedTuple):
    """A claimed notice, with the data for its text.

    Attributes:
        provider: its present state, which may be better than when the notice was queued; None for the operator's.
        email: the user's address.
        accounts: names of the accounts that need their user, for a notice about accounts.
    """

    notice: Notice
    provider: Provider | None
    email: str | None
    accounts: Sequence[str] = ()


def grant_subject(grant_expires_at: datetime) -> str:
    """The subject key for warnings about this grant; the next grant has another one."""
    return f"grant:{grant_expires_at.isoformat(timespec='seconds')}"


def enqueue(
    session: Session,
    *,
    provider_id: UUID | None = None,
    provider_key: str | None = None,
    stage: str,
    subject_key: str,
    channels: Sequence[str] = CHANNELS,
    due_at: datetime | None = None,
) -> int:
    """Queues a notice, one row per channel; a repeat changes nothing.

    It goes to the user of `provider_id`, or to the operator about the integration `provider_key`: give one of the two.
    Call it in the transaction of the state change itself. `stage` is `expires_72h`, `expires_24h`, `expires_2h`,
    `expired`, `needs_reauth`, `disconnects_soon`, `new_accounts`, `accounts_need_user` or `app_misconfigured`.
    `subject_key` names the grant or event, and each stage of a subject is queued once. `due_at` is the earliest time of
    sending; None means now.

    Returns:
        How many rows are new.
    """
    subject = {"provider_id": provider_id, "provider_key": provider_key}
    return _insert(session, [_row(stage, subject_key, channel, due_at) | subject for channel in channels])


def _row(stage: str, subject_key: str, channel: str, due_at: datetime | None) -> dict[str, Any]:
    return {
        "id": new_id(),
        "stage": stage,
        "subject_key": subject_key,
        "channel": channel,
        "due_at": due_at or datetime.now(UTC),
    }


def _insert(session: Session, rows: list[dict[str, Any]]) -> int:
    if not rows:
        return 0
    return len(session.execute(insert(Notice).on_conflict_do_nothing().returning(Notice.id), rows).all())


def warn_of_grants(
    session: Session,
    *,
    stage: str,
    after: tuple[datetime, UUID],
    until: datetime,
    limit: int,
    channels: Sequence[str],
    now: datetime,
) -> tuple[datetime, UUID] | None:
    """Queues `stage` for grants that end after `after` and not after `until`, at most `limit` of them.

    Returns:
        The position to continue from, or None when all are queued.
    """
    rows = session.execute(
        select(Provider.grant_expires_at, Provider.id)
        .where(
            Provider.status == ProviderStatus.ACTIVE,
            Provider.grant_expires_at.is_not(None),
            Provider.grant_expires_at <= until,
            tuple_(Provider.grant_expires_at, Provider.id) > after,
            Provider.grant_expires_at >= after[0],
        )
        .order_by(Provider.grant_expires_at, Provider.id)
        .limit(limit)
    ).all()
    grants = [(provider_id, ends) for ends, provider_id in rows if ends is not None]
    _insert(session, list(_grant_rows(grants, stage, channels, now)))
    events.grants_expiring(session, grants=grants, stage=stage)
    return (grants[-1][1], grants[-1][0]) if len(rows) == limit else None


def expire_grants(session: Session, *, now: datetime, limit: int, channels: Sequence[str]) -> int:
    """Marks logins whose grant has ended as `needs_reauth(grant_expired)`, with audit row and one notice; none is due.

    Locks the logins; rows that another worker has locked are left for the next tick.
    """
    rows = session.execute(
        select(Provider.id, Provider.grant_expires_at)
        .where(Provider.status == ProviderStatus.ACTIVE, Provider.grant_expires_at <= now)
        .order_by(Provider.grant_expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    grants = [(provider_id, ends) for provider_id, ends in rows if ends is not None]
    if not grants:
        return 0
    session.execute(
        update(Provider)
        .where(Provider.id.in_([provider_id for provider_id, _ in grants]))
        .values(
            status=ProviderStatus.NEEDS_REAUTH, status_reason="grant_expired", refresh_due_at=None, sync_due_at=None
        )
        .execution_options(synchronize_session=False)
    )
    for provider_id, ends in sorted(grants):
        audit.record(
            session,
            provider_id=provider_id,
            action="needs_reauth",
            reason="grant_expired",
            detail={"grant_expires_at": ends.isoformat()},
        )
    _insert(session, list(_grant_rows(grants, "expired", channels, now)))
    events.need_reauth(session, reasons=[(provider_id, "grant_expired") for provider_id, _ in grants])
    return len(grants)


def _grant_rows(
    grants: Sequence[tuple[UUID, datetime]], stage: str, channels: Sequence[str], now: datetime
) -> Iterable[dict[str, Any]]:
    for provider_id, ends in grants:
        for channel in channels:
            yield _row(stage, grant_subject(ends), channel, now) | {"provider_id": provider_id}


def claim_due(session: Session, *, now: datetime, limit: int, claim: timedelta, attempts: int) -> list[DueNotice]:
    """Claims notices for `claim`, after which another sender may try them; oldest first.

    A notice that was tried `attempts` times, with no result of the last attempt recorded, is given up.
    """
    session.execute(
        update(Notice)
        .where(Notice.sent_at.is_(None), Notice.due_at <= now, Notice.attempts >= attempts)
        .values(due_at=None, last_error="given up: nobody recorded how the last attempt ended")
    )
    claimed = session.execute(
        text(
            """
            WITH due AS MATERIALIZED (
                SELECT id FROM notices WHERE sent_at IS NULL AND due_at IS NOT NULL AND due_at <= :now
                ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED
            )
            UPDATE notices SET due_at = :until FROM due WHERE notices.id = due.id
            RETURNING notices.id
            """
        ),
        {"now": now, "limit": limit, "until": now + claim},
    ).scalars()
    rows = session.execute(
        select(Notice, Provider, User.email)
        .outerjoin(Provider, Provider.id == Notice.provider_id)
        .outerjoin(User, User.id == Provider.user_id)
        .where(Notice.id.in_(claimed.all()))
        .order_by(Notice.created_at, Notice.id)
        .execution_options(populate_existing=True)
    )
    return [DueNotice(notice, provider, email, _accounts_of(session, notice)) for notice, provider, email in rows]


def _accounts_of(session: Session, notice: Notice) -> Sequence[str]:
    if notice.stage != ACCOUNTS_NEED_USER or notice.provider_id is None:
        return ()
    return overview.need_user(session, provider_id=notice.provider_id)


def tell_of_accounts(
    session: Session, *, provider_id: UUID, account_keys: Sequence[str], now: datetime, channels: Sequence[str]
) -> int:
    """Queues the notice that these accounts of a login need their user: once a week, as long as they do.

    Returns:
        How many rows are new.
    """
    year, week, _ = now.isocalendar()
    those = blake2b("\0".join(sorted(account_keys)).encode(errors="replace"), digest_size=8).hexdigest()
    subject_key = f"accounts:{year}-{week}:{those}"
    return enqueue(
        session, provider_id=provider_id, stage=ACCOUNTS_NEED_USER, subject_key=subject_key, channels=channels
    )


def begin_attempt(session: Session, claimed: Notice, *, again_at: datetime) -> bool:
    """Counts an attempt at a claimed notice before it is made, so that it counts even if the sender dies.

    If its result is never recorded, the notice is tried again at `again_at`.

    Returns:
        False when another sender has the claim; then the notice must not be sent.
    """
    counted = session.execute(
        update(Notice)
        .where(Notice.id == claimed.id, Notice.sent_at.is_(None), Notice.due_at == claimed.due_at)
        .values(attempts=Notice.attempts + 1, due_at=again_at)
        .returning(Notice.id)
        .execution_options(synchronize_session=False)
    )
    return counted.first() is not None


def mark_sent(session: Session, *, notice_id: UUID, at: datetime) -> None:
    """Records that the notice was sent; it is never sent again."""
    session.execute(update(Notice).where(Notice.id == notice_id).values(sent_at=at, due_at=None, last_error=None))


def mark_unsent(session: Session, *, notice_id: UUID, error: str, retry_at: datetime | None) -> None:
    """Records that the notice was not sent. Without `retry_at` it is given up; the row is kept with the reason."""
    session.execute(
        update(Notice)
        .where(Notice.id == notice_id, Notice.sent_at.is_(None))
        .values(due_at=retry_at, last_error=error[:300])
    )
