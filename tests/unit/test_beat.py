from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from celery import Celery
from celery.beat import ScheduleEntry

from worker.beat import Scheduler

MakeScheduler = Callable[..., Scheduler]

INTERVALS = {"often": 15.0, "seldom": 60.0}
NOON = datetime(2025, 3, 14, 12, tzinfo=UTC)
# Half a minute before clocks in New York go forward, and back.
SPRING, AUTUMN = datetime(2025, 3, 9, 6, 59, 30, tzinfo=UTC), datetime(2025, 11, 2, 5, 59, 30, tzinfo=UTC)


@pytest.fixture
def sent() -> list[str]:
    return []


@pytest.fixture
def make_scheduler(sent: list[str]) -> MakeScheduler:
    class Recording(Scheduler):
        producer = None  # which would connect

        def apply_async(self, entry: ScheduleEntry, **_: object) -> None:
            sent.append(entry.name)

    def make() -> Scheduler:
        application = Celery("test", set_as_current=False)
        application.conf.update(
            timezone="UTC",
            enable_utc=True,
            beat_schedule={
                "often": {"task": "often", "schedule": 15.0},
                "seldom": {"task": "seldom", "schedule": 60.0},
            },
        )
        return Recording(application, lazy=True)

    return make


def ticks(scheduler: Scheduler, clock: time_machine.Coordinates, minutes: int = 10) -> None:
    """Lets beat go on as its service does: sleep as long as the tick says, never longer than the shortest interval."""
    passed = 0.0
    while passed < minutes * 60:
        seconds = min(max(scheduler.tick(), 0.02), 15.0)  # it turns round while less than 10 ms are left
        clock.shift(seconds)
        passed += seconds


@pytest.mark.deep
@pytest.mark.parametrize("jump", [timedelta(days=-1), timedelta(hours=-1), timedelta(0), timedelta(days=1)])
def test_beat_goes_on_after_its_clock_is_set(make_scheduler: MakeScheduler, sent: list[str], jump: timedelta) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        scheduler = make_scheduler()
        scheduler.setup_schedule()
        ticks(scheduler, clock)
        sent.clear()
        clock.shift(jump)

        ticks(scheduler, clock)

    assert 39 <= sent.count("often") <= 42
    assert 9 <= sent.count("seldom") <= 12


@pytest.mark.deep
@pytest.mark.parametrize("before", [SPRING, AUTUMN])
def test_beat_goes_on_across_a_change_of_the_hour(
    make_scheduler: MakeScheduler, sent: list[str], before: datetime
) -> None:
    with time_machine.travel(before, tick=False) as clock:
        scheduler = make_scheduler()
        scheduler.setup_schedule()

        ticks(scheduler, clock)

    assert 39 <= sent.count("often") <= 42
    assert 9 <= sent.count("seldom") <= 12
