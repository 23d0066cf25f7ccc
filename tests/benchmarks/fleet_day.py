"""A day of a fleet on a fast clock: the claims, ends and due times are the product's own statements.

Only what workers do between a claim and an end is left out: a call takes no time, and finds nothing new. A refresh is
sent in the second for which its message is meant. Syncs wait in one queue, from which workers take a limited number a
second. While an integration is down, its calls fail; its breaker opens and lets probes through.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from tests.benchmarks.fleet_fill import CIPHERTEXT, KINDS, START, Fleet, at
from worker.crud import providers
from worker.crud.refresh import tokens
from worker.crud.refresh.records import AttemptBegun, LeasedToken, NewToken
from worker.crud.sync import beginning, repeats, runs, unsettled
from worker.crud.sync.runs import RunBegun
from worker.crud.sync.work import Tally
from worker.errors import InstitutionDown, ProviderError, RateLimited, Scope
from worker.models import new_id
from worker.models.vocabulary import Trigger
from worker.runtime import Runtime
from worker.services.availability import breaker
from worker.services.refresh import claims
from worker.services.refresh.due import refresh_due_at
from worker.services.refresh.outcomes import settle_failure
from worker.services.sync import batch
from worker.services.sync.next_due import Verdict, judge

STEP_S = 15
"""Seconds from one tick of refreshes to the next; syncs are claimed at every second one."""
_TOGETHER = 1000
"""Logins that begin, and end, in one transaction. A worker has up to 250 refreshes and 32 syncs in one."""


@dataclass(frozen=True)
class Outage:
    """An integration that does not answer. Times are seconds after the beginning."""

    key: str
    begins: float
    ends: float

    def holds(self, key: str, seconds: float) -> bool:
        """Whether a call of this integration fails at this time."""
        return key == self.key and self.begins <= seconds < self.ends


@dataclass
class Seen:
    """What became of the logins of one integration.

    Attributes:
        again: done although not due, because the same login was claimed twice.
        late: the longest time from when a login was due until its work began.
        late_in_outage: the same for logins that were due while the integration was down or its backlog was worked off.
        expired: tokens that ended before they were refreshed; `expired_in_outage` of these during or after the outage.
        caught_up: when the last login was done that had become due during the outage.
    """

    done: int = 0
    again: int = 0
    failed: int = 0
    late: float = 0.0
    late_in_outage: float = 0.0
    expired: int = 0
    expired_in_outage: int = 0
    caught_up: float = 0.0


@dataclass
class Day:
    """Runs the simulation; `syncs_per_s` is what all workers together can do."""

    runtime: Runtime
    fleet: Fleet
    outage: Outage
    syncs_per_s: float
    syncs: dict[str, Seen] = field(default_factory=lambda: {kind.key: Seen() for kind in KINDS})
    refreshes: dict[str, Seen] = field(default_factory=lambda: {kind.key: Seen() for kind in KINDS})
    claim_s: dict[str, list[float]] = field(default_factory=lambda: {"refresh": [], "sync": []})
    per_tick: Counter[int] = field(default_factory=Counter)
    waiting: deque[tuple[float, UUID]] = field(default_factory=deque)
    dropped: int = 0
    most_waiting: int = 0
    room: float = 0.0

    def run(self, hours: float, *, minutes: float) -> float:
        """Lets the time pass; stops earlier if that takes more than so many real minutes. Returns the hours passed."""
        began = time.monotonic()
        breaker.CACHE_SECONDS = 0.0  # the states that claims look at must be those of the simulated moment
        for second in range(0, int(hours * 3600), STEP_S):
            if time.monotonic() - began > minutes * 60:
                return second / 3600
            self._refresh_tick(second)
            if second % (2 * STEP_S) == 0:
                self._sync_tick(second)
            self._work(second)
            if second % 3600 == 0:
                done = sum(seen.done for seen in (*self.syncs.values(), *self.refreshes.values()))
                sys.stderr.write(
                    f"{second // 3600:2} h: {done} done, {len(self.waiting)} wait, {time.monotonic() - began:.0f} s\n"
                )
        return hours

    def _timed(self, what: str, claim: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = claim()
        self.claim_s[what].append(time.perf_counter() - began)
        return found

    # Refreshes

    def _refresh_tick(self, second: int) -> None:
        claimed = self._timed(
            "refresh",
            lambda: self.runtime.run(claims.claim_refresh_due(self.runtime, at(second), tick_s=STEP_S)),
        )
        sent = {id_: second + due.after_s for due in claimed for id_ in due.ids}
        ids = list(sent)
        for start in range(0, len(ids), _TOGETHER):
            self._refresh(ids[start : start + _TOGETHER], sent)

    def _refresh(self, ids: Sequence[UUID], sent: dict[UUID, float]) -> None:
        owner = uuid4()
        with self.runtime.transaction() as session:
            leased = tokens.lease(session, ids=ids, owner=owner, seconds=45)
            begun = {
                one.provider_id: AttemptBegun(
                    id=new_id(), provider_id=one.provider_id, generation=one.generation, trigger="schedule", owner=owner
                )
                for one in leased
            }
            tokens.begin_attempts(session, attempts=list(begun.values()))
        down = [one for one in leased if self.outage.holds(one.provider_key, sent[one.provider_id])]
        answered = [one for one in leased if not self.outage.holds(one.provider_key, sent[one.provider_id])]
        settlements = [
            settle_failure(one, _DOWN, now=at(sent[one.provider_id]), attempt_id=begun[one.provider_id].id)
            for one in down
        ]
        with self.runtime.transaction() as session:
            answers = [self._answer(one, begun, sent[one.provider_id]) for one in answered]
            tokens.store(session, owner=owner, tokens=answers)
            tokens.settle(session, settlements=settlements, owner=owner)
        self.refreshes[self.outage.key].failed += len(down)
        for error, those in ((None, answered), (_DOWN, down)):
            for key in {one.provider_key for one in those}:
                of_key = [one.provider_id for one in those if one.provider_key == key]
                self._report(key, of_key, error, sent[of_key[0]], call="refresh")

    def _answer(self, leased: LeasedToken, begun: dict[UUID, AttemptBegun], sent: float) -> NewToken:
        fleet, id_ = self.fleet, leased.provider_id
        place = fleet.place[id_]
        kind = fleet.kinds[place]
        seen = self.refreshes[kind.key]
        in_outage = self._is_of_outage(kind.key, fleet.refresh_due[place])
        expired = fleet.expires[place] <= sent
        self._saw(seen, due=fleet.refresh_due[place], now=sent, in_outage=in_outage)
        seen.expired += expired
        seen.expired_in_outage += expired and in_outage
        if kind.key != self.outage.key:
            self.per_tick[int(sent) // STEP_S] += 1
        assert kind.lifetime is not None
        due_at = refresh_due_at(
            kind.policy, provider_id=id_, generation=leased.generation + 1, issued_at=at(sent), lifetime=kind.lifetime
        )
        assert due_at is not None
        fleet.refresh_due[place] = _after(due_at)
        fleet.expires[place] = sent + kind.lifetime.total_seconds()
        return NewToken(
            provider_id=id_,
            generation=leased.generation,
            access_token=CIPHERTEXT,
            refresh_token=CIPHERTEXT,
            key_id="k1",
            issued_at=at(sent),
            lifetime_s=int(kind.lifetime.total_seconds()),
            access_expires_at=at(fleet.expires[place]),
            refresh_due_at=due_at,
            attempt_id=begun[id_].id,
        )

    # Syncs

    def _sync_tick(self, second: int) -> None:
        batches = self._timed("sync", lambda: self.runtime.run(batch.claim_sync_due(self.runtime, at(second))))
        for ids in batches:
            self.waiting.extend((float(second), id_) for id_ in ids)
        self.most_waiting = max(self.most_waiting, len(self.waiting))

    def _work(self, second: int) -> None:
        self.room = self.room % 1 + self.syncs_per_s * STEP_S  # what was not used is gone, but for a part of one
        while self.room >= 1 and self.waiting:
            sent = [self.waiting.popleft() for _ in range(min(int(self.room), _TOGETHER, len(self.waiting)))]
            wanted = self._wanted(sent, second)
            self.room -= len(wanted)
            self._sync(wanted, float(second))

    def _wanted(self, sent: Sequence[tuple[float, UUID]], second: int) -> list[UUID]:
        """What a worker leaves of a message that has waited for long: the logins that were not synced meanwhile."""
        ids = list(dict.fromkeys(id_ for _, id_ in sent))
        asked = sent[0][0]
        if second - asked > 2 * STEP_S:
            with self.runtime.transaction() as session:
                done = providers.synced_since(session, ids=ids, asked_at=at(asked), now=at(second))
            ids = [id_ for id_ in ids if id_ not in done]
        self.dropped += len(sent) - len(ids)
        return ids

    def _settled(self, run: runs.RunBegun, last: repeats.LastRun) -> runs.RunBegun:
        """A run that turns out to be no repeat."""
        with self.runtime.transaction() as session:
            unsettled.settle(
                session,
                run=run.key,
                last=last.id,
                heard=last.heard,
                started_at=run.reading_since,
                cursors=dict(run.cursors),
            )
        return run

    def _sync(self, ids: Sequence[UUID], now: float) -> None:
        with self.runtime.transaction() as session:
            begun = repeats.begin_repeats(
                session,
                ids=ids,
                owner=self.runtime.owner,
                now=at(now),
                integrations=[kind.key for kind in KINDS],
            )
        works = [(run, last) for run, last in begun if not self.outage.holds(run.key.provider_key, now)]
        ends = [repeats.RepeatEnd(begun=run, last=last, due_at=self._done(run, now)) for run, last in works]
        with self.runtime.transaction() as session:
            ended = repeats.end_repeats(session, ends=ends, now=at(now))
        assert len(ended) == len(ends), f"{len(ends) - len(ended)} runs did not end"
        others = [self._settled(*one) for one in begun if self.outage.holds(one[0].key.provider_key, now)]
        others += [self._begin(id_, now) for id_ in set(ids) - {run.key.provider_id for run, _ in begun}]
        for run in others:
            self._end(run, now)
        by_key = {run.key.provider_key: run.key.provider_id for run, _ in works}
        for key, id_ in by_key.items():
            self._report(key, [id_], None, now, call="sync")

    def _begin(self, id_: UUID, now: float) -> RunBegun:
        """A run whose last one was no success begins by itself."""
        with self.runtime.transaction() as session:
            return beginning.begin_run(
                session,
                provider_id=id_,
                owner=self.runtime.owner,
                trigger=Trigger.SCHEDULE,
                mode="incremental",
                now=at(now),
                dead_after=timedelta(minutes=3),
                min_interval=None,
                memory_feeds={kind.key: frozenset() for kind in KINDS},
            )

    def _end(self, run: RunBegun, now: float) -> None:
        """Ends one run by itself: a failed one, or the first success after it."""
        key = run.key.provider_key
        error = self._error(key, now)
        verdict = self._judged(run, now, error)
        if error is None:
            self._done(run, now)
        else:  # `sync_due` keeps the time at which the login was due: a failure makes it no less late
            self.syncs[key].failed += 1
        with self.runtime.transaction() as session:
            runs.finish_run(
                session,
                run=run.key,
                status=verdict.status,
                now=at(now),
                tally=Tally(),
                error=error,
                problems={},
                due_at=verdict.due_at,
                sync_failures=verdict.failures,
                answers=b"x" * 32 if error is None else None,
            )
        if error is None or error is _DOWN:
            self._report(key, [run.key.provider_id], error, now, call="sync")

    def _error(self, key: str, now: float) -> ProviderError | None:
        state = self.runtime.run(breaker.states(self.runtime)).get(key)
        if state is not None and state.breaker == "open" and state.probe_at is not None:  # as the gate of calls does
            return RateLimited("breaker_open", retry_after=max(state.probe_at - at(now), timedelta(seconds=1)))
        return _DOWN if self.outage.holds(key, now) else None

    def _done(self, run: RunBegun, now: float) -> datetime:
        """Counts a success; returns when the login is next due."""
        place, key = self.fleet.place[run.key.provider_id], run.key.provider_key
        due = self.fleet.sync_due[place]
        self._saw(self.syncs[key], due=due, now=now, in_outage=self._is_of_outage(key, due))
        due_at = self._judged(run, now, None).due_at
        assert due_at is not None
        self.fleet.sync_due[place] = _after(due_at)
        return due_at

    def _judged(self, run: RunBegun, now: float, error: ProviderError | None) -> Verdict:
        return judge(
            provider_id=run.key.provider_id,
            now=at(now),
            interval=timedelta(seconds=self.runtime.settings.sync_interval),
            failures=run.sync_failures,
            error=error,
            problems=(),
            landed=error is None,
        )

    # What is counted

    def _report(self, key: str, ids: Sequence[UUID], error: ProviderError | None, now: float, *, call: str) -> None:
        report = breaker.report(self.runtime, key, [error] * len(ids), provider_ids=ids, call=call, now=at(now))
        self.runtime.run(report)

    def _is_of_outage(self, key: str, due: float) -> bool:
        return key == self.outage.key and self.outage.begins - 60 <= due and not self._is_over(key, due)

    def _is_over(self, key: str, due: float) -> bool:
        """Whether everything that had waited for the end of the outage was done when this login became due."""
        caught_up = max(self.syncs[key].caught_up, self.refreshes[key].caught_up)
        return due > self.outage.ends and caught_up > 0 and due > caught_up

    def _saw(self, seen: Seen, *, due: float, now: float, in_outage: bool) -> None:
        seen.done += 1
        late = now - due
        seen.again += late < -2 * STEP_S
        if in_outage:
            seen.late_in_outage = max(seen.late_in_outage, late)
            if due <= self.outage.ends and now >= self.outage.ends:
                seen.caught_up = max(seen.caught_up, now)
        else:
            seen.late = max(seen.late, late)


_DOWN = InstitutionDown("down", scope=Scope.APP)


def _after(moment: datetime) -> float:
    return float((moment - START).total_seconds())
