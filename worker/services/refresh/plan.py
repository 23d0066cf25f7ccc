"""What is decided about a leased token before anything is sent, and how an answer becomes the row to store. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from worker.crud.refresh.records import LeasedToken, NewToken, Settlement
from worker.errors import EncryptionError, ProviderError, RateLimited, Scope, Unsupported
from worker.integrations.kit.base import RefreshPolicy, TokenAnswer
from worker.models import new_id
from worker.process.clocks import elapsed
from worker.services.encryption import EncryptionService
from worker.services.refresh import due
from worker.services.refresh.results import Outcome, RefreshResult

if TYPE_CHECKING:
    from worker.integrations.kit.integration import Integration


@dataclass(slots=True)
class Call:
    """A refresh token about to be presented, for the first time or for the one retry."""

    leased: LeasedToken
    refresh_token: str = field(repr=False)
    policy: RefreshPolicy
    attempt_id: UUID = field(default_factory=new_id)

    def now(self) -> datetime:
        """By the database's clock, whatever this machine's says."""
        return self.leased.leased_at + timedelta(seconds=elapsed() - self.leased.asked_at)


@dataclass(slots=True)
class Ended:
    """A call and what it brought.

    Attributes:
        unsent: the request has provably never left this machine.
    """

    call: Call
    outcome: NewToken | ProviderError
    unsent: bool = False


@dataclass(frozen=True, slots=True)
class NotSent:
    """Why nothing is sent, and how the lease ends."""

    settlement: Settlement
    result: RefreshResult


def plan(
    leased: LeasedToken,
    *,
    integrations: Mapping[str, Integration],
    encryption: EncryptionService,
    force: bool,
    stale_generation: int | None,
    manual: bool = False,
) -> Call | NotSent:
    """Whether the token is presented: it must be due, or wanted anew, and its ciphertext must be its own.

    After a failure nothing is sent until its wait is over, whoever asks and however often. A person who waits
    (`manual`) need not, unless the token was presented without a known outcome; an operator may insist (`force`).
    """
    integration = integrations.get(leased.provider_key)
    policy = integration.refresh_policy if integration else None
    if policy is None or leased.refresh_token is None:
        settlement = _settled(leased, keep_due=integration is None)
        return NotSent(settlement, RefreshResult(Outcome.UNSUPPORTED, Unsupported("no_refresh")))
    due_at = due.refresh_due_at(
        policy,
        provider_id=leased.provider_id,
        generation=leased.generation,
        issued_at=leased.issued_at,
        lifetime=leased.lifetime,
    )
    wanted = force or leased.unknowns > 0 or leased.generation == stale_generation
    if not wanted and (due_at is None or due_at > leased.leased_at):
        return NotSent(_settled(leased, refresh_due_at=due_at), RefreshResult(Outcome.FRESH))
    not_before = leased.not_before or leased.leased_at
    if not_before > leased.leased_at and not force and (leased.unknowns or not manual):
        waits = RateLimited("refresh_waits", scope=Scope.PROVIDER, retry_after=not_before - leased.leased_at)
        return NotSent(_settled(leased, refresh_due_at=not_before), RefreshResult(Outcome.DEFERRED, waits))
    try:
        value = encryption.unseal(
            leased.refresh_token,
            provider_id=leased.provider_id,
            kind="refresh",
            generation=leased.generation,
            key_id=leased.key_id,
        )
    except EncryptionError as error:
        return unreadable(leased, error)
    return Call(leased, value, policy)


def unreadable(leased: LeasedToken, error: EncryptionError) -> NotSent:
    """Nothing is sent, and the token is kept: a key may come back, an operator may act."""
    failures = leased.refresh_failures + 1
    retry_at = due.retry_at(leased.leased_at, provider_id=leased.provider_id, failures=failures)
    return NotSent(_settled(leased, failed=True, refresh_due_at=retry_at), RefreshResult(Outcome.FAILED, error))


def _settled(
    leased: LeasedToken, *, refresh_due_at: datetime | None = None, keep_due: bool = False, failed: bool = False
) -> Settlement:
    return Settlement(
        provider_id=leased.provider_id,
        generation=leased.generation,
        refresh_due_at=refresh_due_at,
        keep_due=keep_due,
        failed=failed,
    )


def seal_answer(
    encryption: EncryptionService,
    policy: RefreshPolicy | None,
    answer: TokenAnswer,
    *,
    provider_id: UUID,
    generation: int,
    issued_at: datetime,
    kept_refresh_token: str | None = None,
    attempt_id: UUID | None = None,
    task_id: str | None = None,
    new_grant: bool = False,
) -> NewToken:
    """An answer as the row to store: its tokens encrypted and bound to the generation after `generation`.

    Args:
        encryption: writes with its first key.
        policy: the integration's.
        answer: of an exchange or a refresh.
        provider_id: whose.
        generation: the stored one, that was presented; 0 before the first.
        issued_at: not after the provider's own moment of issue, by the database's clock.
        kept_refresh_token: stays in use when the answer has none.
        attempt_id: the attempt that it answers.
        task_id: for the audit log.
        new_grant: the answer is of an exchange: the user has consented anew, and a first sync is due at once.
    """
    next_generation = generation + 1
    refresh_token = answer.refresh_token or kept_refresh_token
    lifetime = answer.lifetime
    seal = partial(encryption.seal, provider_id=provider_id, generation=next_generation)
    due_at = due.refresh_due_at(
        policy if refresh_token else None,
        provider_id=provider_id,
        generation=next_generation,
        issued_at=issued_at,
        lifetime=lifetime,
    )
    return NewToken(
        provider_id=provider_id,
        generation=generation,
        access_token=seal(answer.access_token, kind="access"),
        refresh_token=seal(refresh_token, kind="refresh") if refresh_token else None,
        key_id=encryption.key_id,
        issued_at=issued_at,
        lifetime_s=None if lifetime is None else max(1, int(lifetime.total_seconds())),
        scope=_storable(answer.scope),
        access_expires_at=None if lifetime is None else issued_at + lifetime,
        refresh_due_at=due_at,
        attempt_id=attempt_id,
        task_id=task_id,
        flags=answer.flags,
        new_grant=new_grant,
        grant_expires_at=answer.grant_expires_at if new_grant else None,
        external_id=_storable(answer.external_id) if new_grant else None,
        sync_due_at=issued_at if new_grant else None,
        action="linked" if new_grant else "token_refreshed",
        actor="user" if new_grant else "system",
    )


def unseal_answer(encryption: EncryptionService, token: NewToken) -> dict[str, str]:
    """The plain tokens by kind (`access`, `refresh`) of what `seal_answer` has made.

    Raises:
        EncryptionError: they are not this row's own, or their key is away.
    """
    return {
        kind: encryption.unseal(
            ciphertext,
            provider_id=token.provider_id,
            kind=kind,
            generation=token.generation + 1,
            key_id=token.key_id,
        )
        for kind, ciphertext in (("access", token.access_token), ("refresh", token.refresh_token))
        if ciphertext is not None
    }


def _storable(value: str | None) -> str | None:
    """Text that Postgres takes: what goes with a token must not keep it from being stored."""
    return None if value is None else value.replace("\x00", "").encode(errors="replace").decode()[:2000]
