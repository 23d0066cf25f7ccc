from __future__ import annotations

from datetime import date, timedelta

import pytest

from tests.unit.integrations.scripts import NOW, sync_request
from worker.integrations.kit.windows import DateCursor, after, at_offset, first_day, in_seconds, window_from

TODAY = NOW.date()
DAY = timedelta(days=1)


@pytest.mark.parametrize("text", [None, "", "{}", "nonsense", "[]", '{"through":"0000-00-00"}', '{"through":7}'])
def test_cursor_that_cannot_be_read_begins_anew(text: str | None) -> None:
    assert DateCursor.parse(text) == DateCursor()


def test_cursor_survives_being_stored() -> None:
    cursor = at_offset(DateCursor(through=TODAY), sync_request(), (TODAY - DAY, TODAY), 500, 1200, "tail")

    assert DateCursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize(
    ("cursor", "since", "expected"),
    [
        (DateCursor(), None, TODAY - timedelta(days=730)),
        (DateCursor(through=TODAY - 3 * DAY), None, TODAY - 13 * DAY),
        (DateCursor(through=TODAY + 5 * DAY), None, TODAY - 10 * DAY),
        (DateCursor(through=TODAY), date(2020, 1, 1), date(2020, 1, 1)),
        (DateCursor(through=TODAY), TODAY + DAY, TODAY - 10 * DAY),
        (DateCursor(through=TODAY - 300 * DAY), TODAY - 30 * DAY, TODAY - 310 * DAY),
        (DateCursor(), TODAY - 30 * DAY, TODAY - timedelta(days=730)),
        (DateCursor(through=TODAY - 50 * DAY, since=date(2020, 1, 1)), date(2020, 1, 1), TODAY - 49 * DAY),
        (DateCursor(through=TODAY - 50 * DAY, since=date(2020, 1, 1)), date(2021, 1, 1), date(2021, 1, 1)),
        (DateCursor(through=TODAY - 50 * DAY, since=date(2020, 1, 1)), None, TODAY - 49 * DAY),
        (DateCursor(through=TODAY, window=(TODAY - 90 * DAY, TODAY), offset=5), None, TODAY - 90 * DAY),
    ],
)
def test_reading_goes_on_where_it_should(cursor: DateCursor, since: date | None, expected: date) -> None:
    assert first_day(cursor, sync_request(since=since)) == expected


def test_mark_of_a_re_read_goes_when_it_has_reached_today() -> None:
    request = sync_request(since=date(2020, 1, 1))

    assert after(TODAY - DAY, request).since == date(2020, 1, 1)
    assert after(TODAY, request) == DateCursor(through=TODAY)


def test_window_ends_today_at_the_latest() -> None:
    assert window_from(TODAY - 5 * DAY, sync_request(), timedelta(days=365)) == (TODAY - 5 * DAY, TODAY)
    assert window_from(date(2024, 1, 1), sync_request(), timedelta(days=30)) == (date(2024, 1, 1), date(2024, 1, 30))
    assert window_from(date(2024, 1, 1), sync_request(window=timedelta(0)), DAY)[1] == date(2024, 1, 1)


def test_window_in_seconds_ends_when_the_day_after_it_begins() -> None:
    assert in_seconds((date(2025, 3, 9), date(2025, 3, 10))) == ("1741478400", "1741651200")
