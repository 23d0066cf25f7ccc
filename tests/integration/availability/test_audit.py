"""The audit log's chains, on a database of its own whose guards are taken down to do harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from sqlalchemy import Engine, NullPool, create_engine, text
from sqlalchemy.orm import Session

from tests.support.databases import Databases
from worker.crud import audit
from worker.crud.audit import Verification
from worker.models import new_id
from worker.runtime import Runtime
from worker.services import audit as service

pytestmark = pytest.mark.deep


@pytest.fixture(scope="module")
def _own_engine(databases: Databases) -> Iterator[Engine]:
    engine = create_engine(databases.clone("audit"), poolclass=NullPool)
    yield engine
    engine.dispose()


@pytest.fixture
def session(_own_engine: Engine) -> Iterator[Session]:
    """A session that is rolled back, on a database where the triggers may be switched off."""
    with _own_engine.connect() as connection, connection.begin() as outer:
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            yield session
        outer.rollback()


@pytest.fixture
def chain(session: Session) -> UUID:
    """A login with five entries."""
    id_ = new_id()
    for number in range(5):
        audit.record(session, provider_id=id_, action=f"action-{number}", detail={"n": number, "deep": ["ü", None]})
    return id_


def harm(session: Session, statement: str) -> None:
    session.execute(text("ALTER TABLE provider_audit_logs DISABLE TRIGGER USER"))
    session.execute(text(statement))
    session.execute(text("ALTER TABLE provider_audit_logs ENABLE TRIGGER USER"))


def found(verification: Verification) -> list[tuple[int, str]]:
    return [(problem.seq, problem.problem) for problem in verification.problems]


def test_untouched_chains_are_whole(session: Session, chain: UUID) -> None:
    audit.record(session, provider_id=new_id(), action="linked", actor="user")

    verification = audit.verify_chains(session)

    assert (verification.entries, verification.chains, verification.problems) == (6, 2, [])
    assert verification.heads[chain].startswith("5:")
    assert audit.verify_chains(session, provider_id=chain).entries == 5


@pytest.mark.parametrize(
    "change",
    [
        "actor = 'user'",
        "detail = '{}'",
        "reason = 'x'",
        "action = 'y'",
        "created_at = created_at + interval '1 microsecond'",
        "task_id = ''",
        "hash = NULL",
    ],
)
def test_altered_entry_is_found(session: Session, chain: UUID, change: str) -> None:
    harm(session, f"UPDATE provider_audit_logs SET {change} WHERE seq = 3")  # noqa: S608 - from the list above

    assert (3, "altered") in found(audit.verify_chains(session))


def test_altered_entry_with_its_hash_made_to_fit_is_found_at_the_next_one(session: Session, chain: UUID) -> None:
    harm(session, "UPDATE provider_audit_logs SET actor = 'user' WHERE seq = 3")
    harm(session, "UPDATE provider_audit_logs AS l SET hash = provider_audit_hash(l) WHERE seq = 3")

    assert found(audit.verify_chains(session)) == [(4, "relinked")]


def test_entry_missing_from_the_middle_is_found(session: Session, chain: UUID) -> None:
    harm(session, "DELETE FROM provider_audit_logs WHERE seq IN (2, 3)")

    assert found(audit.verify_chains(session, provider_id=chain)) == [(4, "missing")]


def test_entry_missing_from_the_beginning_is_found(session: Session, chain: UUID) -> None:
    harm(session, "DELETE FROM provider_audit_logs WHERE seq = 1")

    assert found(audit.verify_chains(session)) == [(2, "missing")]


def test_entries_cut_off_the_end_are_found_with_an_earlier_head(session: Session, chain: UUID) -> None:
    heads = audit.verify_chains(session).heads
    harm(session, "DELETE FROM provider_audit_logs WHERE seq = 5")

    assert found(audit.verify_chains(session)) == []
    assert found(audit.verify_chains(session, expected=heads)) == [(5, "missing")]


def test_chain_rewritten_as_a_whole_is_found_with_an_earlier_head(session: Session, chain: UUID) -> None:
    heads = audit.verify_chains(session).heads
    harm(session, "DELETE FROM provider_audit_logs")
    for _ in range(5):
        audit.record(session, provider_id=chain, action="nothing to see")

    assert found(audit.verify_chains(session)) == []
    assert found(audit.verify_chains(session, expected=heads)) == [(5, "altered")]


@pytest.mark.parametrize(
    "statement",
    ["UPDATE provider_audit_logs SET actor = 'x'", "DELETE FROM provider_audit_logs", "TRUNCATE provider_audit_logs"],
)
def test_trigger_refuses_even_the_owner(session: Session, chain: UUID, statement: str) -> None:
    with pytest.raises(Exception, match="insert-only"), session.begin_nested():
        session.execute(text(statement))

    assert audit.verify_chains(session).entries == 5


def test_temporary_table_of_the_same_name_does_not_stand_in_for_the_log(session: Session, chain: UUID) -> None:
    session.execute(text("CREATE TEMP TABLE provider_audit_logs (provider_id uuid, seq int, hash bytea)"))
    session.execute(text("INSERT INTO pg_temp.provider_audit_logs VALUES (:id, 1, 'forged')"), {"id": chain})

    session.execute(
        text(
            "INSERT INTO public.provider_audit_logs (id, provider_id, action, actor) "
            "VALUES (gen_random_uuid(), :id, 'linked', 'user')"
        ),
        {"id": chain},
    )

    session.execute(text("DROP TABLE pg_temp.provider_audit_logs"))
    verification = audit.verify_chains(session, provider_id=chain)
    assert (verification.entries, verification.problems) == (6, [])


def test_entries_are_listed_newest_first(session: Session, chain: UUID) -> None:
    audit.record(session, provider_id=new_id(), action="linked")

    assert [entry.seq for entry in audit.list_entries(session, provider_id=chain, limit=2)] == [5, 4]
    assert [entry.action for entry in audit.list_entries(session, limit=1)] == ["linked"]
    assert [entry.seq for entry in audit.list_entries(session, action="action-2")] == [3]


def test_concurrent_workers_make_one_chain(quiet: Runtime, run_at_once: Callable[..., None]) -> None:
    id_ = new_id()

    def write() -> None:
        for _ in range(10):
            with quiet.transaction() as session:
                audit.record(session, provider_id=id_, action="refreshed")

    run_at_once(write, write, write, write)

    verification = quiet.run(service.verify(quiet))
    assert (verification.entries, verification.problems) == (40, [])
    with quiet.transaction() as session:
        assert [entry.seq for entry in audit.list_entries(session, provider_id=id_, limit=1)] == [40]
