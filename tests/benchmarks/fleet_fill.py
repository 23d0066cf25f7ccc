"""Fills Postgres with a fleet of logins, and says how large its tables are."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Engine, text

from worker.integrations.kit.base import RefreshPolicy
from worker.integrations.kit.integration import Integration
from worker.models import new_id
from worker.services.refresh.due import refresh_due_at

START = datetime(2025, 3, 14, 0, 0, tzinfo=UTC)
"""When the simulated day begins."""
CIPHERTEXT = "gAAAA" + "x" * 199
"""As long as an encrypted token of 70 characters."""
_LOGINS_OF_A_USER = 2


@dataclass(frozen=True)
class Kind:
    """The logins of one integration.

    Attributes:
        share: their share of the fleet.
        lifetime: of their access tokens; None if these are never refreshed.
    """

    key: str
    share: float
    lifetime: timedelta | None

    @property
    def policy(self) -> RefreshPolicy | None:
        """When their tokens are refreshed."""
        return None if self.lifetime is None else RefreshPolicy(default_lifetime=self.lifetime)

    def integration(self) -> Integration:
        """What claims need of an integration."""
        return cast("Integration", SimpleNamespace(refresh_policy=self.policy, quotas=()))


KINDS = (
    Kind("lasting", 0.69, None),
    Kind("daily", 0.30, timedelta(days=1)),
    Kind("halfhour", 0.01, timedelta(minutes=30)),
)


@dataclass
class Fleet:
    """What the simulation knows of its logins without asking Postgres: lists with one entry for each login.

    Attributes:
        place: position of each login in the lists.
        refresh_due, sync_due, expires: seconds after `START`; infinite if there is none.
    """

    ids: list[UUID] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    place: dict[UUID, int] = field(default_factory=dict)
    refresh_due: list[float] = field(default_factory=list)
    sync_due: list[float] = field(default_factory=list)
    expires: list[float] = field(default_factory=list)


def at(seconds: float) -> datetime:
    """The time so many seconds after the beginning."""
    return START + timedelta(seconds=seconds)


def make(count: int, *, sync_interval: float) -> Fleet:
    """Logins whose syncs and refreshes are spread evenly, as in a fleet that has run for a while."""
    chance = random.Random(1)  # the same fleet each time
    fleet = Fleet()
    for kind in KINDS:
        for _ in range(round(count * kind.share)):
            id_ = new_id()
            refresh_due = expires = float("inf")
            if kind.lifetime is not None:
                issued_at = START - kind.lifetime * 0.4 * chance.random()
                due_at = refresh_due_at(
                    kind.policy, provider_id=id_, generation=1, issued_at=issued_at, lifetime=kind.lifetime
                )
                assert due_at is not None
                refresh_due = max(0.0, (due_at - START).total_seconds())
                expires = (issued_at + kind.lifetime - START).total_seconds()
            fleet.place[id_] = len(fleet.ids)
            fleet.ids.append(id_)
            fleet.kinds.append(kind)
            fleet.refresh_due.append(refresh_due)
            fleet.sync_due.append(chance.random() * sync_interval)
            fleet.expires.append(expires)
    return fleet


_COPY = (
    "COPY providers (id, user_id, provider_key, alias, external_id, status, connected_at, access_expires_at,"
    " refresh_due_at, sync_due_at) FROM STDIN"
)
_TOKENS = """
    INSERT INTO provider_tokens (provider_id, access_token, refresh_token, key_id, generation, lifetime_s, issued_at)
    SELECT id, CAST(:ciphertext AS text), CASE WHEN refresh_due_at IS NULL THEN NULL ELSE :ciphertext END, 'k1', 1,
        extract(epoch FROM access_expires_at - connected_at), connected_at FROM providers
"""
_CURSORS = """
    INSERT INTO sync_cursors (provider_id, feed, cursor, updated_at)
    SELECT id, 'transactions', md5(id::text) || md5(alias), connected_at FROM providers
"""
_RUNS = """
    INSERT INTO sync_runs (id, provider_id, status, trigger, owner, started_at, heartbeat_at, finished_at, pages,
        unchanged, counts, cursor_before, answers)
    SELECT gen_random_uuid(), id, 'completed', 'schedule', gen_random_uuid(), sync_due_at - interval '4 hours',
        sync_due_at - interval '4 hours', sync_due_at - interval '4 hours', 2, 12,
        '{"accounts": {"unchanged": 4}, "balances": {"unchanged": 4}, "holdings": {"unchanged": 4}}',
        jsonb_build_object('transactions', md5(id::text) || md5(alias)), decode(md5(alias) || md5(id::text), 'hex')
    FROM providers
"""


def fill(engine: Engine, fleet: Fleet) -> None:
    """Stores the fleet: COPY for the logins, and from them one token, one cursor and one run each, in Postgres."""
    users = [new_id() for _ in range(len(fleet.ids) // _LOGINS_OF_A_USER + 1)]
    with engine.begin() as connection:
        _copy(connection, "COPY users (id) FROM STDIN", ((id_,) for id_ in users))
        _copy(connection, _COPY, _rows(fleet, users))
    for statement in (_TOKENS, _CURSORS, _RUNS):
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text(statement), {"ciphertext": CIPHERTEXT} if ":ciphertext" in statement else {})
    vacuum(engine)


def _rows(fleet: Fleet, users: Sequence[UUID]) -> Iterable[tuple[Any, ...]]:
    for place, (id_, kind) in enumerate(zip(fleet.ids, fleet.kinds, strict=True)):
        expires = None if kind.lifetime is None else at(fleet.expires[place])
        yield (
            id_,
            users[place // _LOGINS_OF_A_USER],
            kind.key,
            f"login {place}",
            f"item-{place:032}",
            "active",
            START if expires is None or kind.lifetime is None else expires - kind.lifetime,
            expires,
            None if expires is None else at(fleet.refresh_due[place]),
            at(fleet.sync_due[place]),
        )


def _copy(connection: Any, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
    with connection.connection.dbapi_connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def vacuum(engine: Engine, *tables: str) -> None:
    """VACUUM and ANALYZE."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM (ANALYZE) " + ", ".join(tables)))


_SIZES = """
    SELECT relname, pg_table_size(relid), pg_indexes_size(relid), n_dead_tup, n_tup_upd, n_tup_hot_upd
    FROM pg_stat_user_tables WHERE relname = ANY (:tables) ORDER BY relname
"""
TABLES = (
    "due_times",
    "provider_audit_logs",
    "provider_tokens",
    "providers",
    "sync_cursors",
    "sync_runs",
    "token_refreshes",
)


def sizes(engine: Engine) -> dict[str, dict[str, float]]:
    """Rows of each table, and bytes of one row: in the table, and in its indexes. Room of dead rows counts, too."""
    with engine.connect() as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
        found = connection.execute(text(_SIZES), {"tables": list(TABLES)}).all()
        counted = "SELECT count(*) FROM {}"
        rows = {name: connection.execute(text(counted.format(name))).scalar_one() for name in TABLES}
    return {
        name: {
            "rows": rows[name],
            "bytes": round(table / max(rows[name], 1)),
            "index_bytes": round(indexes / max(rows[name], 1)),
            "dead_share": round(dead / max(rows[name], 1), 3),
            "hot_share": round(hot / updated, 2) if updated else 0.0,
        }
        for name, table, indexes, dead, updated, hot in found
    }


_GROWING = ("provider_audit_logs", "sync_runs", "token_refreshes")


def bytes_of_new(before: dict[str, dict[str, float]], after: dict[str, dict[str, float]]) -> dict[str, int]:
    """Bytes of a row that was added between two `sizes`, with its entries in indexes, of the tables that grow."""
    found = {}
    for name in _GROWING:
        (then, bytes_then), (now, bytes_now) = (
            (of["rows"], of["rows"] * (of["bytes"] + of["index_bytes"])) for of in (before[name], after[name])
        )
        if now > then:
            found[name] = round((bytes_now - bytes_then) / (now - then))
    return found
