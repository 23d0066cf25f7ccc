"""A fleet of providers with half-hour tokens on a fast clock, through the real claims and due times.

`python -m tests.benchmarks.bench_fleet [--n 100000] [--hours 3] [--start even|herd]`; the last line is JSON. Ticks,
claims (their SQL on a real Postgres), spreading and due times are the product's own; only calls are left out: each is
taken to be sent in the second that its message is due, and answered at once. A tick claims as many as it does by
default. The clock starts with the fleet: `even` is linked within its first quarter of an hour, `herd` in its first
second.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from schedules import tokens as schedule
from tests.support.databases import migrate
from worker.crud.providers import claim_refresh_due
from worker.devstack import Devstack
from worker.integrations.kit.base import RefreshPolicy
from worker.models import new_id
from worker.services.refresh.claims import spread
from worker.services.refresh.due import refresh_due_at
from worker.settings import Settings

LIFETIME = timedelta(minutes=30)
POLICY = RefreshPolicy(default_lifetime=LIFETIME)
START = datetime(2025, 3, 14, 15, 0, tzinfo=UTC)
TICK_S = schedule.ENTRIES["refresh-due"][1]
BATCH_SIZE, CLAIM_SECONDS, CLAIM_LIMIT = (
    Settings.model_fields[name].default for name in ("batch_size", "claim_seconds", "refresh_claim_limit")
)


class Fleet:
    """Generations and expiries in memory; what is due, in Postgres."""

    def __init__(self, engine: Engine, count: int, *, herd: bool) -> None:
        self._engine = engine
        chance = random.Random(1)  # the same fleet each time
        self.ids = [new_id() for _ in range(count)]
        self.generation = dict.fromkeys(self.ids, 1)
        self.issued = {id_: START + timedelta(seconds=0 if herd else chance.uniform(0, 900)) for id_ in self.ids}
        self.expires = {id_: self.issued[id_] + LIFETIME for id_ in self.ids}
        self.due = {id_: self._due(id_, self.issued[id_]) for id_ in self.ids}
        self.refreshed = self.in_time = 0
        self.worst_late_s = 0.0
        self.per_second: Counter[int] = Counter()
        self._insert()

    def tick(self, now: datetime) -> None:
        """Claims as the tick does; each claimed provider is refreshed in its message's second."""
        with Session(self._engine) as session, session.begin():
            claimed = claim_refresh_due(
                session,
                provider_key="fleet",
                now=now + timedelta(seconds=TICK_S),
                limit=CLAIM_LIMIT,
                claim=timedelta(seconds=CLAIM_SECONDS),
            )
        renewed: list[UUID] = []
        for batch in spread(claimed, tick_s=TICK_S, batch_size=BATCH_SIZE):
            sent_at = now + timedelta(seconds=batch.after_s)
            for id_ in batch.ids:
                self._refresh(id_, sent_at)
            renewed += batch.ids
        self._store(renewed)

    def _refresh(self, id_: UUID, at: datetime) -> None:
        self.refreshed += 1
        self.in_time += at < self.expires[id_]
        self.worst_late_s = max(self.worst_late_s, (at - self.due[id_]).total_seconds())
        self.per_second[int((at - START).total_seconds())] += 1
        self.generation[id_] += 1
        self.issued[id_], self.expires[id_] = at, at + LIFETIME
        self.due[id_] = self._due(id_, at)

    def _due(self, id_: UUID, issued_at: datetime) -> datetime:
        due_at = refresh_due_at(
            POLICY, provider_id=id_, generation=self.generation[id_], issued_at=issued_at, lifetime=LIFETIME
        )
        assert due_at is not None
        return due_at

    def _insert(self) -> None:
        with self._engine.begin() as connection:
            user = connection.execute(
                text("INSERT INTO users (id) VALUES (gen_random_uuid()) RETURNING id")
            ).scalar_one()
            raw = connection.connection.dbapi_connection
            assert raw is not None
            with (
                raw.cursor() as cursor,
                cursor.copy(
                    "COPY providers (id, user_id, provider_key, alias, status, refresh_due_at) FROM STDIN"
                ) as copy,
            ):
                for id_ in self.ids:
                    copy.write_row((id_, user, "fleet", str(id_), "active", self.due[id_]))
        self._vacuum()

    def _store(self, ids: list[UUID]) -> None:
        rows = json.dumps([{"id": str(id_), "due": self.due[id_].isoformat()} for id_ in ids])
        with self._engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE providers p SET refresh_due_at = r.due"
                    " FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id uuid, due timestamptz) WHERE p.id = r.id"
                ),
                {"rows": rows},
            )

    def _vacuum(self) -> None:
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE providers"))

    def report(self, seconds: int) -> dict[str, object]:
        """The figures, over the simulated time; a token that has run out unrefreshed counts as late."""
        end = START + timedelta(seconds=seconds)
        left_behind = sum(expires < end for expires in self.expires.values())
        mean = self.refreshed / seconds
        return {
            "refreshed": self.refreshed,
            "before_expiry_share": round(self.in_time / (self.refreshed + left_behind), 6),
            "worst_late_s": round(self.worst_late_s, 2),
            "peak_to_mean": round(max(self.per_second.values()) / mean, 2),
            "mean_per_s": round(mean, 1),
            "refreshes_per_provider_and_hour": round(self.refreshed / len(self.ids) / seconds * 3600, 2),
        }


def run(count: int, hours: float, *, herd: bool) -> dict[str, object]:
    """Simulates on a private Postgres."""
    home = Path(tempfile.mkdtemp(prefix="dashtam-bench-"))
    try:
        with Devstack(home / "servers", durable=False, environ={"REDIS_URL": "redis://127.0.0.1:1/0"}).session(
            erase=True
        ) as urls:
            migrate(urls.database_url)
            engine = create_engine(urls.database_url.replace("postgresql://", "postgresql+psycopg://", 1))
            fleet = Fleet(engine, count, herd=herd)
            seconds, began = int(hours * 3600), time.monotonic()
            for second in range(0, seconds, int(TICK_S)):
                fleet.tick(START + timedelta(seconds=second))
                if second % 1800 == 0:
                    sys.stderr.write(
                        f"{second // 60} min: {fleet.refreshed} refreshes, {time.monotonic() - began:.0f} s\n"
                    )
            engine.dispose()
            return fleet.report(seconds)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def main() -> None:
    """Simulates and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--hours", type=float, default=3)
    parser.add_argument("--start", choices=("even", "herd"), default="even")
    options = parser.parse_args()
    result = run(options.n, options.hours, herd=options.start == "herd")
    sys.stdout.write(json.dumps({"n": options.n, "start": options.start, **result}) + "\n")


if __name__ == "__main__":
    main()
