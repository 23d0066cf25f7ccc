"""Whatever transactions write, in whatever order they begin and end: a reader has all that was committed."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import psycopg
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.integration.feed.conftest import World
from tests.support.databases import empty
from tests.support.feed_copy import Copy
from tests.support.feed_statements import LOGIN, OFTEN, RARELY, START

STATEMENTS = (*OFTEN, *RARELY)
WRITERS = 3
# Who waits for another's row would wait for ever: all writers are in this thread.
SETTINGS = "-c lock_timeout=30 -c timezone=UTC"

writes = st.tuples(st.just("write"), st.integers(0, WRITERS - 1), st.integers(0, len(STATEMENTS) - 1))
ends = st.tuples(st.sampled_from(["commit", "commit", "rollback", "die"]), st.integers(0, WRITERS - 1), st.just(0))
reads = st.tuples(st.just("read"), st.sampled_from([1, 3, 100]), st.integers(0, 1))
stories = st.lists(st.one_of(writes, writes, ends, reads, reads), min_size=20, max_size=60)


class Writers:
    """Connections whose transactions stay open until somebody ends them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._open = [self._connect() for _ in range(WRITERS)]

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self._url, options=SETTINGS)

    def write(self, number: int, statement: str) -> None:
        """One statement; a writer that must wait for another one gives up its transaction."""
        try:
            self._open[number].execute(statement.format(count=3).encode())
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            self._open[number].rollback()

    def end(self, how: str, number: int) -> None:
        """Ends a transaction, or the connection."""
        if how == "die":
            self._open[number].close()
            self._open[number] = self._connect()
        else:
            getattr(self._open[number], how)()

    def close(self) -> None:
        for connection in self._open:
            with suppress(psycopg.Error):
                connection.close()


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(story=stories)
def test_reader_has_all_that_was_committed(world: World, database_url: str, story: list[tuple[str, int, int]]) -> None:
    empty(world.runtime.engine)
    url = database_url.replace("+psycopg", "")
    with psycopg.connect(url) as connection:
        for statement in (*START, *[LOGIN] * 4, *OFTEN[:3] * 3):
            connection.execute(statement.format(count=9).encode())
        (user_id,) = connection.execute("SELECT id FROM users LIMIT 1").fetchone() or (None,)
    all_, one = Copy(), Copy()
    with ExitStack() as closing:
        writers = Writers(url)
        closing.callback(writers.close)
        for what, number, which in story:
            note(f"{what} {number} {which}")
            if what == "write":
                writers.write(number, STATEMENTS[which])
            elif what == "read":
                world.read(limit=number, copy=one if which else all_, user_id=user_id if which else None)
            else:
                writers.end(what, number)
        for number in range(WRITERS):
            writers.end("commit", number)
        world.read(copy=all_)
        world.read(copy=one, user_id=user_id, limit=5)

    assert world.differences(all_) == {}
    assert world.differences(one, user_id=user_id) == {}
