"""Apply only: pages that were fetched and mapped beforehand, against plain COPY of the same rows.

COPY goes into a twin of the table with the same indexes and constraints, a few pages of the one and a few of the other
in turn, so that whatever else the machine is doing is shared by both.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Engine, delete, select, text
from sqlalchemy.orm import Session

from tests.benchmarks.sync_setup import PAGE, Bench, link, median, read_feeds, settle, wal_position
from worker.crud.sync import nouns, pages
from worker.crud.sync.apply import copy_rows, driver, new_ids
from worker.crud.sync.nouns import raw_hasher
from worker.crud.sync.work import Prepared, Rules, RunKey, Tally, prepare
from worker.integrations.kit.base import Page, RawRecord
from worker.integrations.kit.masking import masked
from worker.models import SyncCursor, SyncRun, Transaction, new_id
from worker.models.records import TransactionRecord
from worker.models.vocabulary import RunStatus
from worker.runtime import Runtime, tune_interpreter
from worker.services.sync.prefetch import ROWS_AHEAD, read_ahead, weight


@dataclass(slots=True)
class Fetched:
    """Everything that an apply needs and a fetch would give."""

    provider_id: UUID
    accounts: Page
    rows: list[list[RawRecord]]
    records: dict[str, TransactionRecord]

    @property
    def count(self) -> int:
        return sum(map(len, self.rows))


def fetch(runtime: Runtime, bench: Bench, login: str) -> Fetched:
    """All pages of a login, read and mapped."""
    provider_id = link(runtime, bench.admin, "plaid", login)

    async def read() -> list[Page]:
        return [page async for page in read_feeds(runtime, provider_id)]

    found = runtime.run(read())
    rows = [list(page.transactions) for page in found if page.feed == "transactions" and page.transactions]
    records = {
        raw.key: page.map_transaction(raw) for page in found for raw in page.transactions if page.map_transaction
    }
    return Fetched(provider_id, found[0], rows, records)


_BLOCK = 40
"""Pages of one pass in turn with the other: enough that reading ahead begins anew as seldom as it must (16 pages)."""
_TWIN = replace(nouns.TRANSACTIONS, name="twin")


class Timed(NamedTuple):
    """Seconds of a pass, of COPY beside it, and what it did."""

    applying: float
    copying: float
    tally: Tally


class ApplyBench:
    """Passes over the same pages."""

    def __init__(self, bench: Bench, runtime: Runtime, fetched: Fetched) -> None:
        self.engine: Engine = bench.engine()
        self.runtime = runtime
        self.fetched = fetched
        self.rules = Rules(content_hashes=raw_hasher("plaid", 1), mask=masked, mass_deletion_share=0.5)
        run = self._begin()
        with Session(self.engine) as session, session.begin():
            pages.apply_pages(
                session,
                run=run,
                pages=[(fetched.accounts, prepare(fetched.accounts, self.rules))],
                rules=self.rules,
                progress=pages.Progress(),
                now=datetime.now(UTC),
            )
            rows = driver(session).execute("SELECT provider_account_id, id FROM accounts")
            self.accounts = {key: id_.bytes for key, id_ in rows}

    def _begin(self) -> RunKey:
        key = RunKey(new_id(), new_id(), self.fetched.provider_id, "plaid")
        now = datetime.now(UTC)
        with Session(self.engine) as session, session.begin():
            session.execute(text("UPDATE sync_runs SET status = 'completed'"))
            session.execute(delete(SyncCursor))
            session.add(
                SyncRun(
                    id=key.id,
                    owner=key.owner,
                    provider_id=key.provider_id,
                    trigger="manual",
                    status=RunStatus.RUNNING,
                    started_at=now,
                    heartbeat_at=now,
                )
            )
        return key

    def make_twin(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("CREATE TABLE twin (LIKE transactions INCLUDING ALL)"))
            for column, table in (("account_id", "accounts"), ("security_id", "securities")):
                connection.execute(text(f"ALTER TABLE twin ADD FOREIGN KEY ({column}) REFERENCES {table}"))

    def empty(self, *tables: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("TRUNCATE " + ", ".join(tables)))
        settle(self.engine)

    def copy(self, block: Sequence[Sequence[RawRecord]]) -> float:
        """Seconds of plain COPY, a commit per page, rows made beforehand, adapted as fast as we know how."""
        made = [self._rows(page) for page in block]
        with self.engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            started = time.perf_counter()
            for rows in made:
                copy_rows(raw, _TWIN, rows)
                raw.commit()
            return time.perf_counter() - started

    def _rows(self, page: Sequence[RawRecord]) -> list[tuple[Any, ...]]:
        ids = new_ids(len(page))
        return [
            nouns.transaction(
                self.fetched.records[raw.key],
                row_id=id_,
                account_id=self.accounts[raw.account_key],
                key=raw.key,
                security_id=None,
                content_hash=self.rules.content_hashes([raw.raw])[0],
                loop_id=None,
                run_id=self.fetched.provider_id.bytes,
            )
            for raw, id_ in zip(page, ids, strict=True)
        ]

    def apply(
        self, rows: list[list[RawRecord]] | None = None, *, is_first: bool = False, beside_copy: bool = False
    ) -> Timed:
        """Pages through the apply engine; as in a run, those that are hashed while others are stored go together."""
        records, rules = self.fetched.records, replace(self.rules, expect_new=is_first)
        taken = rows or self.fetched.rows

        def read(raw: RawRecord) -> TransactionRecord:
            return records[raw.key]

        made = [
            Page(
                feed="transactions",
                cursor=f"{place}",
                more=place + 1 < len(taken),
                transactions=page,
                map_transaction=read,
            )
            for place, page in enumerate(taken)
        ]
        run, now = self._begin(), datetime.now(UTC)

        async def store(progress: pages.Progress, together: Sequence[tuple[Page, Prepared]]) -> pages.Progress:
            done = await self.runtime.db(
                pages.apply_pages, run=run, pages=together, rules=rules, progress=progress, now=now
            )
            return pages.Progress(
                pages=progress.pages + len(together), tally=Tally(progress.tally + done.tally), accounts=done.accounts
            )

        async def prepared(block: Sequence[Page]) -> AsyncGenerator[tuple[Page, Prepared], None]:
            for page in block:
                yield page, prepare(page, rules)
                await asyncio.sleep(0)  # as where a page is fetched

        async def store_block(progress: pages.Progress, block: Sequence[Page]) -> pages.Progress:
            async with aclosing(read_ahead(prepared(block), most=ROWS_AHEAD, size=weight)) as stream:
                async for together in stream:
                    progress = await store(progress, together)
            return progress

        progress, applying, copying = pages.Progress(), 0.0, 0.0
        for start in range(0, len(made), _BLOCK):
            started = time.perf_counter()
            progress = self.runtime.run(store_block(progress, made[start : start + _BLOCK]))
            applying += time.perf_counter() - started
            if beside_copy:
                copying += self.copy(taken[start : start + _BLOCK])
        return Timed(applying, copying, progress.tally)

    def orm(self, limit: int = 8) -> float:
        """Rows per second of select-then-write through the ORM, row by row, as most would begin."""
        self.empty("transactions", "transaction_keys")
        taken = self.fetched.rows[:limit]
        started = time.perf_counter()
        for page in taken:
            with Session(self.engine) as session, session.begin():
                for raw in page:
                    self._save(session, raw)
        return sum(map(len, taken)) / (time.perf_counter() - started)

    def _save(self, session: Session, raw: RawRecord) -> None:
        account_id = UUID(bytes=self.accounts[raw.account_key])
        row = session.scalars(
            select(Transaction).where(
                Transaction.account_id == account_id, Transaction.provider_transaction_id == raw.key
            )
        ).first()
        record = self.fetched.records[raw.key]
        if row is None:
            row = Transaction(id=new_id(), account_id=account_id, provider_transaction_id=raw.key)
            session.add(row)
        for name in ("type", "subtype", "status", "amount", "currency", "posted_date", "occurred_at", "description"):
            setattr(row, name, getattr(record, name))
        row.content_hash = self.rules.content_hashes([raw.raw])[0]
        session.flush()


def one_percent(fetched: Fetched, *, salt: int) -> list[list[RawRecord]]:
    """The same pages with every hundredth row changed."""
    place, changed = 0, []
    for page in fetched.rows:
        rows = []
        for raw in page:
            place += 1
            rows.append(raw._replace(raw=raw.raw[:-1] + b', "x": %d}' % salt) if place % 100 == 0 else raw)
        changed.append(rows)
    return changed


def measure(bench: Bench, runtime: Runtime, fetched: Fetched, *, rounds: int) -> dict[str, float]:
    """All passes; the ratios of each are medians over the rounds."""
    passes = ApplyBench(bench, runtime, fetched)
    passes.make_twin()
    gc.collect()
    tune_interpreter()  # as in a worker; and what was fetched is a heap that no worker has
    loads: list[Timed] = []
    resyncs: list[Timed] = []
    wal: list[float] = []
    dead: list[float] = []
    for number in range(rounds):
        passes.empty("transactions", "transaction_keys", "twin")
        loads.append(passes.apply(is_first=True, beside_copy=True))
        assert loads[-1].tally["transactions", "added"] == fetched.count, loads[-1]
        settle(passes.engine)
        before = wal_position(passes.engine)
        assert passes.apply().tally["transactions", "unchanged"] == fetched.count
        wal.append((wal_position(passes.engine) - before) / fetched.count)
        passes.empty("twin")
        written = rewritten(passes.engine)
        resyncs.append(passes.apply(one_percent(fetched, salt=number), beside_copy=True))
        changed = resyncs[-1].tally["transactions", "changed"]
        assert changed == fetched.count // 100, resyncs[-1]
        dead.append((rewritten(passes.engine) - written) / changed)
    orm = passes.orm()
    passes.engine.dispose()
    load = median([fetched.count / timed.applying for timed in loads])
    return {
        "copy_rows_per_s": median([fetched.count / timed.copying for timed in (*loads, *resyncs)]),
        "apply_load_rows_per_s": load,
        "apply_resync_rows_per_s": median([fetched.count / timed.applying for timed in resyncs]),
        "orm_rows_per_s": orm,
        "apply_load_vs_copy": median([timed.copying / timed.applying for timed in loads]),
        "apply_resync_vs_copy": median([timed.copying / timed.applying for timed in resyncs]),
        "wal_bytes_per_unchanged_row": median(wal),
        "dead_tuples_per_changed_row": median(dead),
        "load_vs_orm": load / orm,
        "page": PAGE,
    }


def rewritten(engine: Engine) -> int:
    """Row versions of transactions that updates and deletes have left dead so far."""
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
        connection.execute(text("SELECT pg_sleep(1.1)"))
        return int(
            connection.execute(
                text("SELECT n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relid = 'transactions'::regclass")
            ).scalar_one()
        )
