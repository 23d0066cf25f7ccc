"""The beginning of a run: what it starts from, and whether it may begin."""

from __future__ import annotations

from collections.abc import Container, Mapping
from datetime import date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from worker.crud.providers import take_turns_in_linking
from worker.crud.refresh import tokens
from worker.crud.sync import cursors, quarantine, unsettled
from worker.crud.sync.apply import driver
from worker.crud.sync.runs import Problems, RunBegun, end_dead_run
from worker.crud.sync.work import RunKey
from worker.errors import BadPayload, NotFound, Refused, Scope
from worker.models import SyncRun, new_id, sync_seen
from worker.models.vocabulary import ProviderStatus, RunStatus, Trigger


class _Before(NamedTuple):
    """A provider before its run begins.

    Attributes:
        status, provider_key, sync_failures: its own.
        has_run_under_way: it has a running or an unsettled run.
        has_open_quarantine: it has open entries in quarantine.
        has_transactions: its accounts have stored transactions, or tombstones; also those that another login states.
        cursors: the committed cursor of each feed.
        last_began: when its last run began; None if it has none, and then the following are None, too.
        last_status, reading_id, renews, reading_since, since: those of the last run.
        hooked: a hook has asked for a sync since the last complete run began.
    """

    status: str
    provider_key: str
    sync_failures: int
    has_run_under_way: bool
    has_open_quarantine: bool
    has_transactions: bool
    cursors: dict[str, str]
    last_began: datetime | None
    last_status: str | None
    reading_id: UUID | None
    renews: bool | None
    reading_since: datetime | None
    since: date | None
    hooked: bool

    @property
    def unfinished(self) -> UUID | None:
        """The `reading_id` of a full sync that broke off; None if there is none to be continued."""
        return None if self.last_status == RunStatus.CANCELLED else self.reading_id


# In one statement: a first sync of a small login would otherwise spend a fifth of its time on such questions.
_READ = """
    SELECT p.status, p.provider_key, p.sync_failures,
        EXISTS (SELECT FROM sync_runs WHERE provider_id = p.id AND status = 'running')
            OR EXISTS (SELECT FROM unsettled_runs WHERE provider_id = p.id),
        EXISTS (SELECT FROM quarantine WHERE provider_id = p.id AND resolved_at IS NULL),
        EXISTS (SELECT FROM accounts a JOIN transactions t ON t.account_id = a.id WHERE a.provider_id = p.id)
            OR EXISTS (
                SELECT FROM account_sources s JOIN transactions t ON t.account_id = s.account_id
                WHERE s.provider_id = p.id AND s.ended_at IS NULL
            ),
        coalesce(
            (SELECT jsonb_object_agg(feed, cursor) FROM sync_cursors WHERE provider_id = p.id AND cursor <> ''), '{}'
        ),
        last.started_at, last.status, last.generation, last.renews, last.reading_since, last.since,
        p.hooked_at IS NOT NULL AND NOT EXISTS (
            SELECT FROM sync_runs r
            WHERE r.provider_id = p.id AND r.started_at > p.hooked_at AND r.status = 'completed'
        )
    FROM providers p LEFT JOIN LATERAL (
        SELECT * FROM sync_runs WHERE provider_id = p.id ORDER BY started_at DESC LIMIT 1
    ) AS last ON true
    WHERE p.id = %s
"""
_INSERT = """
    INSERT INTO sync_runs (id, provider_id, status, trigger, mode, owner, started_at, heartbeat_at, generation, renews,
        cursor_before)
    VALUES (%s, %s, 'running', %s, %s, %s, %s, clock_timestamp(), %s, %s, %s::jsonb)
    ON CONFLICT DO NOTHING
"""


def begin_run(
    session: Session,
    *,
    provider_id: UUID,
    owner: UUID,
    trigger: Trigger,
    mode: str,
    since: date | None = None,
    now: datetime,
    dead_after: timedelta,
    min_interval: timedelta | None,
    memory_feeds: Mapping[str, frozenset[str]],
) -> RunBegun:
    """Begins a run. If there is a running one whose heartbeat has stopped, that one is ended first.

    If a full sync broke off, the next run continues it, so that rows it has not met are still withdrawn; the same holds
    for a run that goes back to a day (`since`). A run is also a full sync if transactions were refused because their
    account was unknown, and the account is stored now. `min_interval` is the shortest time since the last run began;
    None means no such limit. `memory_feeds` has the memory feeds of each enabled integration.

    Raises:
        NotFound: no such provider.
        Refused: it is not active, is being synced already, or was synced a moment ago.
    """
    take_turns_in_linking(session, provider_id)
    found = _read(session, provider_id)
    _check_active(provider_id, found, memory_feeds)
    if found.has_run_under_way:
        end_dead_run(session, provider_id, dead_after)
        found = _read(session, provider_id)
    if found.has_run_under_way:
        raise Refused(unsettled.BEING_SYNCED.format(provider_id))
    _check_interval(provider_id, found, now, min_interval)
    asked_for, reading_id = mode == "full", found.unfinished
    settled = found.has_open_quarantine and quarantine.settle_before_reading(session, provider_id=provider_id, now=now)
    if settled or asked_for:
        reading_id = new_id()
    before = found.cursors
    if reading_id is not None and reading_id != found.unfinished:
        before = _forget(session, provider_id, before, keep=memory_feeds[found.provider_key])
    if found.reading_id not in (None, reading_id):  # cancelled, or a new full sync begins
        session.execute(delete(sync_seen).where(sync_seen.c.reading_id == found.reading_id))
    renews = asked_for or (found.unfinished is not None and bool(found.renews))
    key = RunKey(new_id(), owner, provider_id, found.provider_key, reading_id)
    _insert(session, key, trigger=trigger, mode=mode, now=now, renews=renews, cursors=before)
    begun = None if asked_for or since is not None else found.reading_since
    return RunBegun(
        key=key,
        open_quarantine=found.has_open_quarantine and quarantine.has_open(session, provider_id=provider_id),
        is_first=not found.has_transactions,
        sync_failures=found.sync_failures,
        renews=renews,
        reading_since=begun or now,
        cursors=before,
        token=tokens.read(session, ids=[provider_id])[provider_id],
        since=found.since if begun else since,
        done=cursors.feeds_read_since(session, provider_id=provider_id, since=begun) if begun else frozenset(),
        problems=_problems_of(session, reading_id),
        hooked=found.hooked,
    )


def _read(session: Session, provider_id: UUID) -> _Before:
    row = driver(session).execute(_READ, (provider_id,)).fetchone()
    if row is None:
        raise NotFound(f"no provider has the id {provider_id}")
    return _Before(*row)


def _check_active(provider_id: UUID, found: _Before, integrations: Container[str]) -> None:
    if found.status != ProviderStatus.ACTIVE:
        what = ProviderStatus(found.status).what_to_do(provider_id)
        raise Refused(f"provider {provider_id} is {found.status}, so nothing was synced; {what}")
    if found.provider_key not in integrations:
        raise Refused(f"provider {provider_id} needs the integration {found.provider_key}; add it to INTEGRATIONS")


def _check_interval(provider_id: UUID, found: _Before, now: datetime, min_interval: timedelta | None) -> None:
    if found.last_began is not None and min_interval is not None and now - found.last_began < min_interval:
        wait = int((found.last_began + min_interval - now).total_seconds()) + 1
        raise Refused(f"provider {provider_id} was synced a moment ago; wait {wait} s")


def _forget(session: Session, provider_id: UUID, known: Mapping[str, str], *, keep: frozenset[str]) -> dict[str, str]:
    """Forgets all cursors but those of the feeds to keep, and returns these."""
    cursors.forget_cursors(session, provider_id=provider_id, keep=keep)
    return {feed: cursor for feed, cursor in known.items() if feed in keep}


def _insert(
    session: Session,
    key: RunKey,
    *,
    trigger: Trigger,
    mode: str,
    now: datetime,
    renews: bool,
    cursors: dict[str, str],
) -> None:
    """Inserts the running run.

    Raises:
        Refused: the provider has another running run.
    """
    mode = mode if key.reading_id is None else "full"
    before = msgspec.json.encode(cursors).decode()
    values = (key.id, key.provider_id, str(trigger), mode, key.owner, now, key.reading_id, renews, before)
    if driver(session).execute(_INSERT, values).rowcount != 1:
        raise Refused(unsettled.BEING_SYNCED.format(key.provider_id))


def _problems_of(session: Session, reading_id: UUID | None) -> Problems:
    """Problems that earlier runs of a full sync met on pages behind their cursors, which no run will read again."""
    problems: Problems = {}
    if reading_id is not None:
        found = session.scalars(select(SyncRun.problems).where(SyncRun.reading_id == reading_id))
        for kept in (problem for run in found if run for problem in run["problems"] if "feed" in problem):
            again = BadPayload(kept["reason"], scope=Scope(kept["scope"]), account_key=kept.get("account"))
            problems.setdefault(kept["feed"], []).append(again)
    return problems
