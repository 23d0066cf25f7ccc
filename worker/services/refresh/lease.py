"""The lease of one batch on its tokens, and the transactions under it: read, decide, write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID, uuid4

import structlog

from worker.crud import notices
from worker.crud.database import OpenTransaction
from worker.crud.refresh import tokens
from worker.crud.refresh.records import AttemptBegun, LeasedToken, NewToken, Settlement, TokenState
from worker.errors import EncryptionError, NotFound, ReauthRequired, Refused, Unavailable
from worker.integrations.kit.base import Departure
from worker.models.vocabulary import ProviderStatus
from worker.process import failpoints
from worker.process.clocks import elapsed
from worker.process.logger import Logger
from worker.services.context import Context
from worker.services.refresh import unsent
from worker.services.refresh.plan import Call, NotSent, plan
from worker.services.refresh.results import Outcome, RefreshResult

log = Logger(__name__)

T = TypeVar("T")
P = ParamSpec("P")

STORE_SECONDS = 10.0
"""How long an answer may wait in memory while Postgres hangs. If Postgres then has stored it after all, its journal
entry is outdated and will be deleted."""


@dataclass(slots=True)
class Begun:
    """Result of one leasing transaction.

    Attributes:
        calls: refreshes to send; their attempts are written.
        left_behind: also leased, but an earlier worker has left an attempt without an outcome.
        results: results of the others.
    """

    calls: list[Call] = field(default_factory=list)
    left_behind: list[LeasedToken] = field(default_factory=list)
    results: dict[UUID, RefreshResult] = field(default_factory=dict)


@dataclass(slots=True)
class Writing:
    """The attempts that one step writes.

    Attributes:
        given_up: nobody waits for the step any more, so nothing will be sent for its attempts.
    """

    attempts: list[AttemptBegun] = field(default_factory=list)
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class BatchLease:
    """The owner of one batch's leases. Another batch, even in the same process, is fenced off.

    Attributes:
        trigger, force, stale_generation, manual: see `refresh_providers`.
    """

    runtime: Context
    trigger: str
    force: bool
    stale_generation: int | None
    manual: bool = False
    owner: UUID = field(default_factory=uuid4)

    @property
    def deadline_s(self) -> float:
        """Seconds from the lease until a call must have ended. The rest of the lease is for storing the answer.

        The integration has an earlier deadline of its own, whose error says more. This one protects the lease.
        """
        settings = self.runtime.settings
        return (settings.http_total_seconds + settings.lease_seconds) / 2

    def departure(self, leased: LeasedToken) -> Departure:
        """By when a call must be sent, and by when it must have ended, so that it ends before its lease."""
        ends_at = leased.asked_at + self.deadline_s
        return Departure(leaves_by=ends_at - self.runtime.settings.http_total_seconds, ends_at=ends_at)

    def is_too_late(self, leased: LeasedToken) -> bool:
        """Whether a call that begins now might end after its lease: this process was paused or waited too long."""
        return elapsed() > self.departure(leased).leaves_by

    async def write(
        self, step: Callable[Concatenate[OpenTransaction, Writing, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs a step that writes attempts.

        If it is unknown whether the step was committed, its attempts are noted as not sent (see `unsent`).

        Raises:
            Unavailable: Postgres is out of reach.
        """
        writing = Writing()
        try:
            return await self.runtime.db(step, writing, *args, **kwargs)
        except BaseException as error:
            writing.given_up = True
            # After any other error, the transaction was rolled back.
            if isinstance(error, Unavailable) or not isinstance(error, Exception):
                await unsent.note(self.runtime, writing.attempts)
            raise

    def begin(self, session: OpenTransaction, writing: Writing, *, ids: Sequence[UUID]) -> Begun:
        """Leases tokens, reads them again under the lease, and writes the attempts of those that are presented."""
        begun = Begun()
        settlements: list[Settlement] = []
        leased_ids: set[UUID] = set()
        seconds = self.runtime.settings.lease_seconds
        for leased in tokens.lease(session, ids=ids, owner=self.owner, seconds=seconds):
            leased_ids.add(leased.provider_id)
            if leased.unknowns:
                begun.left_behind.append(leased)
                continue
            planned = self.plan(leased)
            if isinstance(planned, Call):
                begun.calls.append(planned)
            else:
                settlements.append(planned.settlement)
                begun.results[leased.provider_id] = planned.result
        self.write_attempts(session, writing, begun.calls)
        tokens.settle(session, settlements=settlements, owner=self.owner)
        if missed := set(ids) - leased_ids:
            states = tokens.read(session, ids=missed)
            begun.results.update({id_: why_not_leased(states.get(id_)) for id_ in missed})
        return begun

    def plan(self, leased: LeasedToken) -> Call | NotSent:
        """Decides whether this token is presented."""
        planned = plan(
            leased,
            integrations=self.runtime.integrations,
            encryption=self.runtime.encryption,
            force=self.force,
            stale_generation=self.stale_generation,
            manual=self.manual,
        )
        if isinstance(planned, NotSent) and isinstance(planned.result.error, EncryptionError):
            log.error("token_unreadable", provider_id=str(leased.provider_id), error=str(planned.result.error))
        return planned

    def read_again(self, session: OpenTransaction, leased: LeasedToken) -> LeasedToken | None:
        """The token as it is now; None when another worker has the lease."""
        found = tokens.read_leased(
            session,
            ids=[leased.provider_id],
            owner=self.owner,
            seconds=self.runtime.settings.lease_seconds,
            asked_at=leased.asked_at,
        )
        return found[0] if found else None

    def write_attempts(self, session: OpenTransaction, writing: Writing, calls: Sequence[Call]) -> None:
        """Writes the attempts before the calls are sent, in the transaction that decided to send them."""
        attempts = [self.attempt(call) for call in calls]
        writing.attempts += attempts
        if writing.given_up:
            raise Unavailable("Postgres answered too late: these attempts are no longer waited for")
        tokens.begin_attempts(session, attempts=attempts)

    def attempt(self, call: Call) -> AttemptBegun:
        """The attempt that is written for this call."""
        return AttemptBegun(
            id=call.attempt_id,
            provider_id=call.leased.provider_id,
            generation=call.leased.generation,
            trigger=self.trigger,
            owner=self.owner,
            spool_id=self.runtime.spool_id,
        )

    def record(
        self, session: OpenTransaction, *, answers: Sequence[NewToken], settlements: Sequence[Settlement]
    ) -> set[UUID]:
        """Stores answers, ends the other leases, queues notices. Returns the providers that no fence refused."""
        kept = tokens.store(session, tokens=answers, owner=self.owner)
        kept |= tokens.settle(session, settlements=settlements, owner=self.owner)
        for settlement in settlements:
            if settlement.status == ProviderStatus.NEEDS_REAUTH and settlement.provider_id in kept:
                notices.enqueue(
                    session,
                    provider_id=settlement.provider_id,
                    stage="needs_reauth",
                    subject_key=f"generation:{settlement.generation}",
                    channels=self.runtime.settings.enabled_channels,
                )
        failpoints.reach(self.runtime.settings.failpoints, "before_commit")
        return kept


def task_id() -> str | None:
    """Id of the present task, for the audit log; None outside of a task."""
    found = structlog.contextvars.get_contextvars().get("task_id")
    return None if found is None else str(found)


async def store_in_time(runtime: Context, step: Callable[[OpenTransaction], T]) -> T:
    """Runs the step that stores answers. Gives up early enough to keep them in the journal.

    Raises:
        Unavailable: Postgres is out of reach or does not answer; the answers may have been stored.
    """
    return await runtime.db_within(min(STORE_SECONDS, runtime.settings.database_step_seconds), step)


def why_not_leased(state: TokenState | None) -> RefreshResult:
    """The result for a provider whose token could not be leased."""
    if state is None or state.generation is None:
        return RefreshResult(Outcome.MISSING, NotFound("no such provider, or it has no token"))
    if state.status == ProviderStatus.NEEDS_REAUTH:
        return RefreshResult(Outcome.INACTIVE, ReauthRequired(state.status_reason or "needs_reauth"))
    if state.status != ProviderStatus.ACTIVE:
        what = ProviderStatus(state.status).what_to_do(state.provider_id)
        refused = f"provider {state.provider_id} is {state.status}, so nothing is sent for it; {what}"
        return RefreshResult(Outcome.INACTIVE, Refused(refused))
    return RefreshResult(Outcome.BUSY)
