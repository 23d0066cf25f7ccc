"""Syncs of a login for which hooks arrive: another run after a hook in the middle of one, and fewer polls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.sync.conftest import Linked
from tests.integration.sync.feeds import ModelIntegration
from worker.crud import hooks
from worker.errors import RateLimited, Transient
from worker.integrations.kit.base import Page, SyncRequest
from worker.models import new_id
from worker.models.hooks import Ask, Hook
from worker.models.vocabulary import RunStatus, Trigger


class Hooked(ModelIntegration):
    """Something happens in the middle of its run."""

    def __init__(self, happens: Callable[[], None], error: Exception | None = None) -> None:
        super().__init__()
        self.happens, self.error = happens, error

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        yield self._listing()
        self.happens()
        if self.error is not None:
            raise self.error


def _hook(linked: Linked, *, pause: float = 5) -> None:
    with linked.runtime.transaction() as session:
        key, external = linked.rows("SELECT provider_key, external_id FROM providers WHERE id = :id")[0]
        hooks.receive(
            session,
            provider_key=key,
            hook=Hook("DATA/NEW", str(new_id()), login=external),
            asks=frozenset({Ask.SYNC}),
            body_sha256=b"\0" * 32,
            pause=timedelta(seconds=pause),
            burst=timedelta(seconds=pause),
            channels=(),
        )


def _due_in(linked: Linked) -> float:
    ((due_at,),) = linked.rows("SELECT sync_due_at FROM providers WHERE id = :id")
    return (due_at - datetime.now(UTC)).total_seconds()


@pytest.fixture
def login(linked: Linked) -> Linked:
    """A login whose provider has an id for it."""
    linked.execute("UPDATE providers SET external_id = 'item-1' WHERE id = :id")
    return linked


def _with(linked: Linked, integration: ModelIntegration) -> None:
    integration.key = linked.integration.key  # type: ignore[misc]
    linked.runtime.integrations[linked.integration.key] = integration


@pytest.mark.deep
def test_hook_in_the_middle_of_a_run_asks_for_one_more(login: Linked) -> None:
    def storm() -> None:
        for _ in range(3):
            _hook(login)

    _with(login, Hooked(storm))

    run = login.sync()

    assert run.status == RunStatus.COMPLETED
    assert _due_in(login) <= 6


@pytest.mark.deep
def test_hook_that_led_to_the_run_asks_for_no_other(login: Linked) -> None:
    _hook(login, pause=-1)
    _with(login, Hooked(lambda: None))

    login.sync()

    assert _due_in(login) > 3600


class Asking(ModelIntegration):
    """Notes which syncs were told of a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bool] = []
        self.fails = False

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        self.told.append(request.hooked)
        if self.fails:
            raise Transient("down")
        async for page in super().pages(request):
            yield page


@pytest.mark.deep
def test_syncs_are_told_of_a_hook_until_one_that_began_after_it_is_complete(login: Linked) -> None:
    model = Asking()
    _with(login, model)
    login.sync()
    login.sync()  # from now on, runs that may be repeats
    _hook(login, pause=-1)

    model.fails = True
    login.sync()
    model.fails = False
    login.sync()
    login.sync()

    assert model.told == [False, False, True, True, False]


@pytest.mark.deep
def test_hook_in_the_middle_of_a_run_is_told_to_the_next_one(login: Linked) -> None:
    model = Asking()
    _with(login, Hooked(lambda: _hook(login, pause=-1)))
    login.sync()
    _with(login, model)

    login.sync(trigger=Trigger.MANUAL, force=True)
    login.sync()

    assert model.told == [True, False]


def test_hook_does_not_shorten_the_wait_that_a_provider_has_asked_for(login: Linked) -> None:
    _with(login, Hooked(lambda: _hook(login), RateLimited("too_often", retry_after=timedelta(hours=1))))

    login.sync()

    assert _due_in(login) > 3000


@pytest.mark.deep
@pytest.mark.parametrize(
    ("hooked", "gap", "own", "hours"),
    [
        ("1 minute", 36 * 3600, None, 12),  # hooks arrive
        ("1 minute", 5 * 3600, None, 10),  # the next hook is overdue after ten hours
        ("1 minute", 60, None, 4),
        ("30 hours", 10 * 3600, None, 4),  # they have stopped
        ("1 minute", None, None, 4),  # one hook is no habit
        ("1 minute", 36 * 3600, 3600, 1),  # an interval of its own counts
    ],
)
def test_polling_slows_while_hooks_arrive(
    login: Linked, hooked: str, gap: int | None, own: int | None, hours: float
) -> None:
    login.execute(
        "UPDATE providers SET hooked_at = now() - CAST(:hooked AS interval), hook_gap = :gap, sync_interval = :own"
        " WHERE id = :id",
        hooked=hooked,
        gap=gap,
        own=own,
    )

    login.sync()

    assert _due_in(login) / 3600 == pytest.approx(hours, rel=0.11)
