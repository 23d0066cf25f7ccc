"""A Postgres that says nothing: every wait for it ends, is told in one line, and leaves nothing that stands still."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Session

from tests.integration.availability.conftest import SOON
from tests.support.proxy import Proxy
from tests.support.waiting import wait_for
from worker.crud import database, export
from worker.crud.database import make_engine, transaction
from worker.crud.simplefin import rows
from worker.crud.sync.apply import driver
from worker.errors import Unavailable
from worker.runtime import Runtime

pytestmark = pytest.mark.deep


def ask(session: Session) -> int:
    return int(session.execute(text("SELECT 1")).scalar_one())


def ask_the_driver(session: Session) -> int:
    row = driver(session).execute("SELECT 1").fetchone()
    assert row is not None
    return int(row[0])


def str_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def once(engine: Engine, step: Callable[[Session], int] = ask) -> int:
    with transaction(engine) as session:
        return step(session)


@pytest.mark.parametrize("step", [ask, ask_the_driver])
def test_silence_in_the_middle_of_a_transaction_ends_it(
    impatient: Engine, proxy: Proxy, step: Callable[[Session], int]
) -> None:
    def ask_again_in_vain() -> None:
        with transaction(impatient) as session:
            step(session)
            with proxy.vanished():
                step(session)

    with pytest.raises(Unavailable, match="did not answer"):
        ask_again_in_vain()

    assert once(impatient, step) == 1


def test_connection_of_before_is_asked_for_a_sign_of_life_and_replaced(
    impatient: Engine, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert once(impatient) == 1
    with proxy.vanished():
        pass
    monkeypatch.setattr(database, "_TRUSTED_SECONDS", 0.0)

    assert once(impatient) == 1


def test_connection_that_was_just_in_use_is_replaced_if_the_server_has_ended_it(impatient: Engine) -> None:
    def backend(session: Session) -> int:
        return int(session.execute(text("SELECT pg_backend_pid()")).scalar_one())

    first, other = once(impatient, backend), make_engine(str_of(impatient), connections=1)
    with transaction(other) as session:
        session.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": first})
    other.dispose()

    assert once(impatient, backend) != first


def test_new_connection_that_the_server_ends_at_once_is_told_as_such(
    impatient: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, other = database._Connection.connect, make_engine(str_of(impatient), connections=1)

    def connect_in_vain(*positional: Any, **named: Any) -> Any:
        connection = connect(*positional, **named)
        with transaction(other) as session:
            session.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": connection.info.backend_pid})
        return connection

    once(other)
    monkeypatch.setattr(database._Connection, "connect", connect_in_vain)

    with pytest.raises(Unavailable):
        once(impatient)
    other.dispose()


def test_connection_that_was_just_in_use_is_not_asked(impatient: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(database, "_check", lambda *_: asked.append("sign of life"))

    for _ in range(3):
        assert once(impatient) == 1
    assert asked == []
    monkeypatch.setattr(database, "_TRUSTED_SECONDS", 0.0)
    once(impatient)

    assert asked == ["sign of life"]


def test_no_new_connection_is_waited_for_in_vain(impatient: Engine, proxy: Proxy) -> None:
    with proxy.vanished(), pytest.raises(Unavailable, match="did not answer: no connection"):
        once(impatient)

    assert once(impatient) == 1


def test_answer_to_a_commit_that_never_comes_is_told_and_not_waited_for(impatient: Engine, proxy: Proxy) -> None:
    def commit_in_vain() -> None:
        with transaction(impatient) as session:
            session.execute(text("CREATE TEMPORARY TABLE asked (id int)"))
            with proxy.stalled():
                session.commit()

    with pytest.raises(Unavailable, match="did not answer"):
        commit_in_vain()


def test_statement_that_takes_too_long_is_ended_by_postgres_itself(impatient: Engine) -> None:
    with pytest.raises(Unavailable, match="DATABASE_STATEMENT_SECONDS"), transaction(impatient) as session:
        session.execute(text("SELECT pg_sleep(20)"))


def test_lock_is_not_waited_for_too_long(impatient: Engine) -> None:
    with transaction(impatient) as holder:
        holder.execute(text("SELECT pg_advisory_xact_lock(4711)"))
        with pytest.raises(Unavailable, match="DATABASE_LOCK_SECONDS"), transaction(impatient) as other:
            other.execute(text("SELECT pg_advisory_xact_lock(4711)"))


def test_parameters_are_in_no_error(impatient: Engine) -> None:
    with pytest.raises(StatementError) as caught, transaction(impatient) as session:
        session.execute(text("SELECT 1 / :zero, :personal"), {"zero": 0, "personal": "4111-1111"})

    assert "4111" not in str(caught.value)


SHOWN = text(
    "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),"
    " current_setting('idle_in_transaction_session_timeout'), current_setting('timezone')"
)
SET = ("400ms", "200ms", "7s", "UTC")


@pytest.mark.parametrize("pooler", [False, True])
def test_postgres_knows_the_limits_of_each_transaction(database_url: str, pooler: bool) -> None:
    limits = SOON.model_copy(update={"database_pooler": pooler})
    engine = make_engine(database_url, connections=1, limits=limits, idle_seconds=7)

    for _ in range(2):
        with transaction(engine) as session:
            assert tuple(session.execute(SHOWN).one()) == SET

    engine.dispose()


@pytest.mark.parametrize("pooler", [False, True])
@pytest.mark.parametrize(("begin", "read_only"), [(export.snapshot, "on"), (rows.at_one_moment, "off")])
def test_transaction_that_reads_one_moment_leaves_the_next_one_as_usual(
    database_url: str, pooler: bool, begin: Callable[[Session], None], read_only: str
) -> None:
    engine = make_engine(database_url, connections=1, limits=SOON.model_copy(update={"database_pooler": pooler}))
    how = text("SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')")

    with transaction(engine) as session:
        begin(session)
        assert tuple(session.execute(how).one()) == ("repeatable read", read_only)
    with transaction(engine) as session:
        assert tuple(session.execute(how).one()) == ("read committed", "off")

    engine.dispose()


def test_behind_a_pooler_a_connection_keeps_nothing_between_transactions(database_url: str) -> None:
    limits = SOON.model_copy(update={"database_pooler": True})
    engine = make_engine(database_url, connections=1, limits=limits)
    assert once(engine) == 1

    raw = engine.raw_connection()
    try:
        with raw.cursor() as cursor:
            cursor.execute("SELECT current_setting('statement_timeout'), (SELECT count(*) FROM pg_prepared_statements)")
            assert cursor.fetchone() == ("0", 0)
        assert raw.driver_connection is not None
        assert raw.driver_connection.prepare_threshold is None
        assert "options" not in raw.driver_connection.info.get_parameters()
    finally:
        raw.close()
        engine.dispose()


def test_signal_in_the_middle_of_an_answer_leaves_no_connection_that_nobody_can_use(impatient: Engine) -> None:
    def raise_it(*_: object) -> None:
        raise ZeroDivisionError

    before = signal.signal(signal.SIGUSR1, raise_it)
    patient = make_engine(str(impatient.url.render_as_string(hide_password=False)), connections=1)
    alarm = threading.Timer(0.2, lambda: signal.raise_signal(signal.SIGUSR1))
    try:
        alarm.start()
        with pytest.raises(ZeroDivisionError), transaction(patient) as session:
            session.execute(text("SELECT pg_sleep(20)"))
        assert once(patient) == 1
    finally:
        alarm.cancel()
        signal.signal(signal.SIGUSR1, before)
        patient.dispose()


# The steps of a process, on its threads


def test_many_steps_end_soon_when_postgres_says_nothing_and_their_threads_are_free_again(
    own_runtime: Runtime, proxy: Proxy
) -> None:
    async def ask_often() -> list[int | BaseException]:
        return await asyncio.gather(*(own_runtime.db(ask) for _ in range(30)), return_exceptions=True)

    own_runtime.run(own_runtime.db(ask))
    with proxy.vanished():
        answers = own_runtime.run(ask_often())

    assert {type(answer) for answer in answers} == {Unavailable}
    assert own_runtime.run(own_runtime.db(ask)) == 1
    assert not own_runtime.is_wedged


def test_thread_that_stands_still_elsewhere_is_told_and_the_process_known_to_be_wedged(
    own_runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.process.loop.GRACE_S", 0.1)
    goes_on = threading.Event()

    def stand_still(session: Session) -> None:
        goes_on.wait(60)

    with pytest.raises(Unavailable, match="did not come back"):
        own_runtime.run(own_runtime.db_within(0.1, stand_still))
    assert own_runtime.is_wedged

    goes_on.set()
    wait_for(lambda: not own_runtime.is_wedged, what="the thread's return")


def test_step_that_finds_no_thread_is_told_so(own_runtime: Runtime) -> None:
    goes_on = threading.Event()

    def stand_still(session: Session) -> None:
        goes_on.wait(60)

    async def ask_beside() -> None:
        busy = [asyncio.ensure_future(own_runtime.db_within(60, stand_still)) for _ in range(2)]
        await asyncio.sleep(0)
        late = asyncio.ensure_future(own_runtime.db_within(0, ask))
        while time.monotonic() and not late.done() and len(busy) == 2:
            goes_on.set()
            await asyncio.sleep(0.01)
        await asyncio.gather(*busy)
        await late

    with pytest.raises(Unavailable, match="threads of this process"):
        own_runtime.run(ask_beside())
