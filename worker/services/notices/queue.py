"""Notices: which ones are sent, to whom and when.

There are warnings 72, 24 and 2 hours before a grant ends, and one notice when it has ended. There is one notice for a
login that needs its user, and one for an integration that needs its operator. Rows are queued in the transaction of the
change that they report. They are sent later by another task, so that a mail server that hangs delays no refresh.

A notice is claimed, then its attempt is counted, then it is sent, then the sending is recorded. So it is sent once; or
twice with the same id if the sender dies between the last two steps. While Postgres cannot record what was sent, the
process keeps these notices in memory and sends no others.
"""

from __future__ import annotations

import asyncio
import re
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

from worker.crud import notices
from worker.crud.notices import DueNotice
from worker.errors import Undelivered
from worker.models import Provider
from worker.models.vocabulary import ProviderStatus
from worker.process.logger import Logger
from worker.services.context import Context
from worker.services.notices.channels import Channel, Message, build_channels
from worker.text.plain_text import HARMFUL

log = Logger(__name__)

STAGES = (
    ("expires_2h", timedelta(hours=2)),
    ("expires_24h", timedelta(hours=24)),
    ("expires_72h", timedelta(hours=72)),
)
"""How long before the end of a grant each warning is given; the last warning comes first."""

OF_HOOKS = {
    "disconnects_soon": (
        "Your connection {} ends soon",
        "The institution will soon end your permission to read {}. Updates go on until then.",
    ),
    "new_accounts": (
        "There are accounts that {} does not show yet",
        "The institution has accounts of yours that {} may not read. Sign in again if you want to add them.",
    ),
}
"""Subject and text of the notices that a provider's hook opens while a login works."""

_OVERLAP = timedelta(minutes=10)
_BATCH = 500
_EXPIRE_BATCH = 100
_SEND_BATCH = 50
_SEND_AT_ONCE = 8
_CLAIM = timedelta(minutes=5)
_ATTEMPTS = 12
_FIRST_RETRY = timedelta(minutes=1)
_LAST_RETRY = timedelta(hours=6)
_NO_ID = UUID(int=0)
_LONG_NUMBER = re.compile(r"\d[\d -]{3,}\d")


async def warn_of_expiring_grants(runtime: Context, now: datetime, *, since: datetime | None = None) -> None:
    """Queues the warnings that are due.

    `since` is when this last ran to its end. Only grants that have reached a stage's time since then are looked at,
    with some overlap, which is harmless. None looks at all grants.
    """
    nearest = now
    for stage, before in STAGES:
        until = now + before
        # A grant that has also reached the time of a later warning gets only the latest one.
        first = nearest if since is None else max(nearest, since + before - _OVERLAP)
        after: tuple[datetime, UUID] | None = (first, _NO_ID)
        while after is not None:
            after = await runtime.db(
                notices.warn_of_grants,
                stage=stage,
                after=after,
                until=until,
                limit=_BATCH,
                channels=runtime.settings.enabled_channels,
                now=now,
            )
        nearest = until


async def expire_grants(runtime: Context, now: datetime) -> int:
    """Marks logins whose grant has ended as in need of their user; no more calls are made. Returns how many."""
    ended = 0
    while True:
        count = await runtime.db(
            notices.expire_grants, now=now, limit=_EXPIRE_BATCH, channels=runtime.settings.enabled_channels
        )
        ended += count
        if count < _EXPIRE_BATCH:
            break
    if ended:
        log.info("grants_ended", count=ended, next="their users are told to sign in again")
    return ended


async def send_notices(runtime: Context, *, channels: Mapping[str, Channel] | None = None, seconds: float = 20) -> int:
    """Sends what is due until nothing is due, or `seconds` have passed. Returns how many were sent.

    Raises:
        Unavailable: Postgres is out of reach. This process's next call first records what was sent.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    sent = 0
    own: Mapping[str, Channel] | None = None
    try:
        while loop.time() < deadline:
            await _record_sent(runtime)
            now = await runtime.now()
            due = await runtime.db(notices.claim_due, now=now, limit=_SEND_BATCH, claim=_CLAIM, attempts=_ATTEMPTS)
            if not due:
                break
            if channels is None:
                channels = own = build_channels(runtime.settings)
            sent += await _send_batch(runtime, channels, due)
    finally:
        for channel in (own or {}).values():
            await channel.aclose()
    return sent


async def _record_sent(runtime: Context) -> None:
    for notice_id, at in list(runtime.unrecorded_notices.items()):
        await runtime.db(notices.mark_sent, notice_id=notice_id, at=at)
        del runtime.unrecorded_notices[notice_id]


async def _send_batch(runtime: Context, channels: Mapping[str, Channel], due: list[DueNotice]) -> int:
    room = asyncio.Semaphore(_SEND_AT_ONCE)

    async def one(item: DueNotice) -> bool:
        async with room:
            return await _send(runtime, channels, item)

    # Waits until all have ended before it raises the first error: one that still ran would not be recorded.
    outcomes = await asyncio.gather(*(one(item) for item in due), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes.count(True)


async def _send(runtime: Context, channels: Mapping[str, Channel], due: DueNotice) -> bool:
    notice = due.notice
    attempts = notice.attempts + 1
    now = await runtime.now()
    again_at = now + max(_CLAIM, retry_wait(attempts))
    if not await runtime.db(notices.begin_attempt, notice, again_at=again_at):
        return False
    try:
        await _hand_over(runtime, channels, due)
    except Undelivered as error:
        given_up = error.permanent or attempts >= _ATTEMPTS
        retry_at = None if given_up else await runtime.now() + retry_wait(attempts)
        if not error.permanent:
            log.warning(
                "notice_unsent",
                notice_id=str(notice.id),
                stage=notice.stage,
                channel=notice.channel,
                error=str(error),
                attempts=attempts,
                retry_at=retry_at.isoformat() if retry_at else None,
            )
        await runtime.db(notices.mark_unsent, notice_id=notice.id, error=str(error), retry_at=retry_at)
        return False
    at = runtime.unrecorded_notices[notice.id] = await runtime.now()
    await runtime.db(notices.mark_sent, notice_id=notice.id, at=at)
    del runtime.unrecorded_notices[notice.id]
    return True


async def _hand_over(runtime: Context, channels: Mapping[str, Channel], due: DueNotice) -> None:
    """Sends one notice. Raises only `Undelivered`: an error with one notice must not hold up the others."""
    notice = due.notice
    if (channel := channels.get(notice.channel)) is None:
        raise Undelivered("channel is not enabled", permanent=True)
    if not still_true(due):
        raise Undelivered("no longer true", permanent=True)
    try:
        await channel.send(compose(runtime, due))
    except Undelivered:
        raise
    except Exception as error:
        # The error's message may contain the address, so only its place is logged.
        place = traceback.extract_tb(error.__traceback__)[-1]
        log.error(
            "notice_broke", notice_id=str(notice.id), error=type(error).__name__, at=f"{place.name}:{place.lineno}"
        )
        raise Undelivered(f"{notice.channel}: {type(error).__name__}") from None


def retry_wait(attempts: int) -> timedelta:
    """The wait after this many attempts: a minute, doubled each time, six hours at most."""
    return min(_FIRST_RETRY * (1 << min(attempts, 20) - 1), _LAST_RETRY)


def still_true(due: DueNotice) -> bool:
    """Whether the notice is still true: a user who has already signed in again must not be asked to do so."""
    provider, notice = due.provider, due.notice
    if provider is None:
        return True
    if notice.stage.startswith("expires_"):
        return (
            provider.status == ProviderStatus.ACTIVE
            and provider.grant_expires_at is not None
            and notices.grant_subject(provider.grant_expires_at) == notice.subject_key
        )
    if notice.stage == notices.ACCOUNTS_NEED_USER:
        return provider.status == ProviderStatus.ACTIVE and bool(due.accounts)
    wanted = ProviderStatus.ACTIVE if notice.stage in OF_HOOKS else ProviderStatus.NEEDS_REAUTH
    return provider.status == wanted


def compose(runtime: Context, due: DueNotice) -> Message:
    """The text of a notice: what happened, what was kept, what to do next."""
    notice, provider = due.notice, due.provider
    if provider is None:
        return _to_operator(runtime, notice.provider_key or "", due)
    integration = _name(runtime, provider.provider_key)
    login = f"“{_plain(provider.alias)}” ({integration})"
    subject, what = _words(notice.stage, login, provider)
    step = f"Next step: open Dashtam, choose this connection and sign in to {integration} again. It takes a minute."
    if notice.stage == notices.ACCOUNTS_NEED_USER:
        subject = f"Some accounts of {login} need you"
        named = "; ".join(_plain(name) for name in due.accounts)
        what = f"These accounts of {login} are no longer updated: {named}. The other accounts are."
        step = (
            f"Next step: sign in at {integration} and repair the connection to the institution of these accounts."
            " Nothing needs to be linked again in Dashtam."
        )
    kept = "Everything gathered so far is kept."
    return Message(
        id=str(notice.id),
        to=due.email,
        subject=subject,
        text=f"{what}\n\n{step}\n\n{kept}\n",
        event={
            "stage": notice.stage,
            "provider_id": str(provider.id),
            "provider_key": provider.provider_key,
            "user_id": str(provider.user_id),
            "status": provider.status,
            "reason": provider.status_reason,
            "grant_expires_at": provider.grant_expires_at.isoformat() if provider.grant_expires_at else None,
        },
    )


def _words(stage: str, login: str, provider: Provider) -> tuple[str, str]:
    if stage.startswith("expires_") and provider.grant_expires_at is not None:
        ends = f"{provider.grant_expires_at.astimezone(UTC):%d %B %Y, %H:%M} UTC"
        left = {"expires_72h": "in 3 days", "expires_24h": "within a day", "expires_2h": "within 2 hours"}[stage]
        return f"Your connection {login} ends {left}", f"Your permission to read {login} ends on {ends}."
    if stage in OF_HOOKS:
        subject, what = OF_HOOKS[stage]
        return subject.format(login), what.format(login)
    if stage == "expired":
        return f"Your connection {login} has ended", f"Your permission to read {login} has ended; updates have stopped."
    return (
        f"Your connection {login} needs you",
        f"{login} no longer accepts the permission that you gave; updates have stopped.",
    )


def _to_operator(runtime: Context, provider_key: str, due: DueNotice) -> Message:
    integration = _name(runtime, provider_key)
    return Message(
        id=str(due.notice.id),
        to=runtime.settings.operator_email or None,
        subject=f"{integration} refuses our client credentials: calls are paused",
        text=(
            f"{integration} refuses our application, not single users. All calls to it are paused.\n\n"
            f"Next step: correct the client credentials of {provider_key}, restart the workers, then run\n"
            f"    dashtam integrations resume {provider_key}\n\n"
            "All links and tokens are kept; pending work is kept.\n"
        ),
        event={"stage": due.notice.stage, "provider_key": provider_key},
    )


def _name(runtime: Context, provider_key: str) -> str:
    integration = runtime.integrations.get(provider_key)
    return integration.name if integration is not None else provider_key


def _plain(alias: str) -> str:
    """The alias on one line. Of an account number in it, only the last four digits are kept."""
    seen = HARMFUL.sub("", " ".join(alias.split()))
    return _LONG_NUMBER.sub(lambda found: f"…{found[0][-4:]}", seen)[:100]
