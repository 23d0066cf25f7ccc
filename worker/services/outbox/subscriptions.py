"""Subscriptions: which address is told of which events, and the secret that signs what is sent there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from worker.crud.database import OpenTransaction
from worker.crud.outbox import deliveries, subscriptions
from worker.errors import BadArgument, NotFound, Refused
from worker.integrations.receivers import Receivers
from worker.models import Subscription, new_id
from worker.models.outbox import DeliveryRow, Secrets, SubscriptionRow
from worker.models.vocabulary import OF_OPERATORS, EventType
from worker.services.context import Context
from worker.services.outbox import signing
from worker.text.plain_text import visible

EVENTS = tuple(event.value for event in EventType if event is not EventType.HOOK_TEST)
"""What can be subscribed to."""
BOTH_VALID = timedelta(hours=24)
"""How long the old secret signs, too, after a rotation."""
_LONGEST_DESCRIPTION = 100
_LONGEST_OVERLAP = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Made:
    """A subscription with a new secret. The secret is known only now and cannot be shown again."""

    row: SubscriptionRow
    secret: str = field(repr=False)


async def add(
    runtime: Context,
    *,
    url: str,
    events: Iterable[str],
    user_id: UUID | None,
    actor: str,
    description: str = "",
    receivers: Receivers | None = None,
) -> Made:
    """Adds a subscription. It is told of what happens from now on.

    Args:
        runtime: the process's context.
        url: where events are posted.
        events: words of `EventType`; none: all that this owner may have.
        user_id: whose events; None: everybody's and those of integrations.
        actor: who adds it, for the audit log.
        description: what it is for.
        receivers: looks up the address; made from the settings when left out.

    Raises:
        BadArgument: the address, an event or the description cannot be used; nothing was saved.
        NotFound: its user does not exist.
        Refused: its owner has too many.
        Unavailable: Postgres is out of reach.
    """
    wanted = _wanted(events, user_id)
    if len(description) > _LONGEST_DESCRIPTION or visible(description) != description:
        most = f"the description must have at most {_LONGEST_DESCRIPTION} characters, all of which can be seen"
        raise BadArgument(f"{most}; nothing was saved")
    await (receivers or Receivers(runtime.settings.allowed_networks)).check(url)
    secret, id_ = signing.new_secret(), new_id()
    row = Subscription(
        id=id_,
        user_id=user_id,
        url=url,
        description=description,
        events=wanted,
        secret=_sealed(runtime, secret, id_, "hook", 1),
        key_id=runtime.encryption.key_id,
        generation=1,
        created_by=actor,
    )
    return Made(await runtime.db(subscriptions.create, subscription=row), secret)


def _wanted(events: Iterable[str], user_id: UUID | None) -> list[str]:
    asked = set(events)
    if unknown := sorted(asked.difference(EVENTS)):
        raise BadArgument(f"no event is named {unknown[0][:50]!r}; there are {', '.join(EVENTS)}. Nothing was saved")
    if user_id is not None and (not_theirs := sorted(asked & OF_OPERATORS)):
        told = f"{not_theirs[0]} concerns no single user: only a hook for all users is told of it"
        raise BadArgument(f"{told}; nothing was saved")
    possible = [event for event in EVENTS if user_id is None or event not in OF_OPERATORS]
    return [event for event in possible if event in asked or not asked]


async def list_all(runtime: Context, *, user_id: UUID | None = None, limit: int = 1000) -> list[SubscriptionRow]:
    """Subscriptions of one user or all, oldest first."""
    return await runtime.db(subscriptions.list_rows, user_id=user_id, limit=limit)


async def get(runtime: Context, subscription_id: UUID) -> SubscriptionRow:
    """One subscription. Raises `NotFound`."""
    return await runtime.db(subscriptions.get, subscription_id=subscription_id)


async def find(runtime: Context, given: str) -> UUID:
    """The id that this text is, or begins.

    Raises:
        BadArgument: several begin so.
        NotFound: none does.
    """
    found = await runtime.db(subscriptions.ids_with_beginning, beginning=given.lower())
    if not given or not found:
        raise NotFound("no hook has an id that begins so; they are listed by: dashtam hooks list")
    if len(found) > 1:
        raise BadArgument("several hooks have ids that begin so; write more of it")
    return found[0]


async def rotate(runtime: Context, subscription_id: UUID, *, actor: str, overlap: timedelta = BOTH_VALID) -> Made:
    """Gives a subscription a new secret. The old one signs, too, for the time of `overlap`.

    Raises:
        BadArgument: the overlap is negative or longer than 30 days.
        NotFound: there is no such subscription.
        EncryptionError: the old secret cannot be read.
    """
    if not timedelta() <= overlap <= _LONGEST_OVERLAP:
        raise BadArgument("both secrets can be valid for 0 to 720 hours; nothing was changed")
    secret = signing.new_secret()

    def store(session: OpenTransaction) -> SubscriptionRow:
        row = subscriptions.lock(session, subscription_id=subscription_id)
        old = _opened(runtime, row.secret, row.id, "hook", row.generation, row.key_id)
        row.generation += 1
        row.secret = _sealed(runtime, secret, row.id, "hook", row.generation)
        row.old_secret = _sealed(runtime, old, row.id, "old_hook", row.generation)
        row.old_secret_until = subscriptions.now(session) + overlap
        row.key_id = runtime.encryption.key_id
        subscriptions.rotated(session, row, actor=actor)
        return subscriptions.get(session, subscription_id=subscription_id)

    return Made(await runtime.db(store), secret)


def open_secrets(runtime: Context, sealed: Secrets, now: datetime) -> list[str]:
    """The secrets that sign now, the newest first. Raises `EncryptionError` if one cannot be read."""
    id_, generation, key_id = sealed.subscription_id, sealed.generation, sealed.key_id
    found = [_opened(runtime, sealed.secret, id_, "hook", generation, key_id)]
    if sealed.old_secret is not None and sealed.old_secret_until is not None and now < sealed.old_secret_until:
        found.append(_opened(runtime, sealed.old_secret, id_, "old_hook", generation, key_id))
    return found


async def resume(runtime: Context, subscription_id: UUID, *, actor: str) -> bool:
    """Sends again to a subscription that is disabled or fails. False if it is neither. Raises `NotFound`."""
    return await runtime.db(subscriptions.resume, subscription_id=subscription_id, actor=actor)


async def remove(runtime: Context, subscription_id: UUID, *, actor: str) -> None:
    """Removes a subscription with all its deliveries. Raises `NotFound`."""
    await runtime.db(subscriptions.remove, subscription_id=subscription_id, actor=actor)


async def test(runtime: Context, subscription_id: UUID, *, actor: str) -> UUID:
    """Has a test event sent to a subscription, as any other event is. Returns the event's id.

    Raises:
        NotFound: there is no such subscription.
        Refused: it is disabled.
    """

    def ask(session: OpenTransaction) -> UUID:
        if subscriptions.get(session, subscription_id=subscription_id).disabled_at is not None:
            raise Refused(f"this hook is disabled; resume it first: dashtam hooks resume {subscription_id}")
        return deliveries.ask_for_test(session, subscription_id=subscription_id, actor=actor)

    return await runtime.db(ask)


async def replay(
    runtime: Context, subscription_id: UUID, *, event_id: UUID | None = None, since: datetime | None = None
) -> int:
    """Sends deliveries again: one event, or all since a time, or else those that were given up. Returns how many.

    Raises:
        NotFound: there is no such subscription, or it was not told of this event.
        Refused: it is disabled.
    """
    now = await runtime.now()

    def again(session: OpenTransaction) -> int:
        if subscriptions.get(session, subscription_id=subscription_id).disabled_at is not None:
            raise Refused(f"this hook is disabled; resume it first: dashtam hooks resume {subscription_id}")
        count = deliveries.replay(session, subscription_id=subscription_id, event_id=event_id, since=since, now=now)
        if event_id is not None and not count:
            raise NotFound("this hook was not told of that event, or it was too long ago; nothing was changed")
        return count

    return await runtime.db(again)


async def list_deliveries(
    runtime: Context, subscription_id: UUID, *, state: str | None = None, limit: int = 100, event_id: UUID | None = None
) -> Sequence[DeliveryRow]:
    """Deliveries of a subscription, newest first; `state` is `waiting`, `parked` or `received`. Raises `NotFound`."""

    def read(session: OpenTransaction) -> Sequence[DeliveryRow]:
        subscriptions.get(session, subscription_id=subscription_id)
        return deliveries.list_rows(
            session, subscription_id=subscription_id, state=state, limit=limit, event_id=event_id
        )

    return await runtime.db(read)


def _sealed(runtime: Context, secret: str, id_: UUID, kind: str, generation: int) -> str:
    return runtime.encryption.seal(secret, provider_id=id_, kind=kind, generation=generation)


def _opened(runtime: Context, sealed: str, id_: UUID, kind: str, generation: int, key_id: str) -> str:
    return runtime.encryption.unseal(sealed, provider_id=id_, kind=kind, generation=generation, key_id=key_id)
