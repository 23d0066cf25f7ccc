"""Waiting until all that fell due is done, and letting the waits before retries pass at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from tests.support.faults_rows import Rows
from tests.support.waiting import PATIENCE_S, wait_for

_HOPE_S = 20.0
"""An answer in the journal may revive a login that was given up; nothing else does."""
_BACKOFF_FROM_S = 11
"""A due time farther away than any claim is a wait before a retry."""


class Settling(Rows):
    """The world comes to rest after a fault."""

    times: list[tuple[str, float]]

    def settle(
        self, *, seconds: float = PATIENCE_S, hurry: bool = True, lost: tuple[str, ...] = (), supervised: bool = False
    ) -> float:
        """Waits until all that fell due is done and nothing is under way.

        Args:
            seconds: at most.
            hurry: lets the waits before retries pass at once.
            lost: logins that must end in `needs_reauth`.
            supervised: workers and beat are started again when they end.

        Returns:
            How long it took.
        """
        begun = time.monotonic()
        hurried = [0.0]
        given_up: list[float] = []

        def is_settled() -> bool:
            if supervised:
                self._restart_the_dead()
            with suppress(OperationalError):
                if hurry and time.monotonic() - hurried[0] > 0.5:
                    self._hurry()
                    hurried[0] = time.monotonic()
                self.unsettled = self._unsettled(lost)
                if not self.unsettled:
                    return True
                if all(line.endswith(" is needs_reauth") for line in self.unsettled):
                    given_up.append(time.monotonic())
                else:
                    given_up.clear()
                assert not given_up or given_up[-1] - given_up[0] < _HOPE_S
            return False

        self.unsettled: list[str] = []
        try:
            wait_for(is_settled, seconds=seconds, every=0.1)
        except AssertionError:
            waited = time.monotonic() - begun
            raise AssertionError(f"not settled after {waited:.0f} s: {self.unsettled}") from None
        return time.monotonic() - begun

    def recovers(self, what: str, *, lost: tuple[str, ...] = (), hurry: bool = False) -> float:
        """Starts the processes that are down and waits until all that is due is done.

        `hurry` lets waits before retries pass at once.

        Returns:
            Seconds from now until then, which is also reported; promise 1 allows the visibility timeout, a tick and a
            minute.
        """
        begun = time.monotonic()
        self.servers.start()
        self.workers_of_the_session(spare=False)
        self.settle(hurry=hurry, lost=lost, supervised=True)
        seconds = time.monotonic() - begun
        self.times.append((what, seconds))
        return seconds

    def wait_until_settled(self, logins: Sequence[str], *, seconds: float = PATIENCE_S) -> None:
        """Waits, without any hurry, until all that fell due for these logins is done."""
        left: list[str] = []

        def is_settled() -> bool:
            left[:] = [line for line in self.unsettled_now() if line.partition(":")[0] in logins]
            return not left

        try:
            wait_for(is_settled, seconds=seconds, every=0.1)
        except AssertionError:
            raise AssertionError(f"not settled after {seconds:g} s: {left}") from None

    def hurry_until(self, condition: Callable[[], bool], *, what: str, seconds: float = PATIENCE_S) -> None:
        """Waits for a condition, and lets the waits before retries pass at once."""

        def is_met() -> bool:
            self._hurry()
            return condition()

        wait_for(is_met, seconds=seconds, every=0.3, what=what)

    def settle_refreshes(self, *, seconds: float = PATIENCE_S) -> None:
        """Waits until every token is fresh."""
        sql = """
            SELECT p.alias FROM providers p JOIN provider_tokens t ON t.provider_id = p.id
            WHERE p.access_expires_at < now() + interval '1 minute' OR t.lease_until > clock_timestamp()
        """

        def is_done() -> bool:
            self._hurry()
            return not self.query(sql)

        wait_for(is_done, seconds=seconds, every=0.2, what="fresh tokens")

    def let_pass(self, seconds: float) -> None:
        """Nothing happens for a while; for faults whose length is the point."""
        time.sleep(seconds)

    def is_idle(self) -> bool:
        """Whether no message waits or is worked on, and no run is under way."""
        return self._nothing_is_queued() and not self.query(
            "SELECT 1 FROM dashtam_v1.sync_runs WHERE status = 'running'"
        )

    def _nothing_is_queued(self) -> bool:
        return not self.servers.queued()

    def _hurry(self) -> None:
        with self.servers.engine.begin() as connection:
            connection.execute(
                text(
                    """
                    UPDATE providers p SET refresh_not_before = NULL,
                        refresh_due_at = CASE WHEN refresh_due_at > :soon AND (p.refresh_failures > 0 OR EXISTS (
                            SELECT FROM token_refreshes r JOIN provider_tokens t USING (provider_id)
                            WHERE r.provider_id = p.id AND r.generation = t.generation AND r.status <> 'sent'
                        )) THEN now() ELSE refresh_due_at END,
                        sync_due_at = CASE
                            WHEN sync_due_at > :soon AND NOT EXISTS (
                                SELECT FROM sync_runs r
                                WHERE r.provider_id = p.id AND r.started_at >= :since AND r.status = 'completed'
                            ) THEN now() ELSE sync_due_at END
                    WHERE status = 'active' AND (refresh_due_at > :soon OR sync_due_at > :soon)
                    """
                ),
                {
                    "soon": self.now() + timedelta(seconds=_BACKOFF_FROM_S),
                    "since": self._since,
                },
            )
