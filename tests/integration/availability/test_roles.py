"""Database roles, by really connecting as each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import Engine, NullPool, create_engine, delete, event, make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from tests.factories import make_account, make_linked_provider
from tests.support.databases import Databases, downgrade, migrate
from tests.support.environment import new_keys
from worker.crud import audit, health, heartbeats, notices, providers, quotas, upkeep
from worker.crud.feed import log, positions
from worker.crud.roles import Roles, create_roles
from worker.errors import ConfigurationError, Refused
from worker.models import Provider
from worker.models.feed_cursor import Cursor
from worker.services.encryption import EncryptionService

pytestmark = pytest.mark.deep

PASSWORD = "a'b$c-made-up"


@pytest.fixture(scope="module")
def prefix() -> str:
    """Roles belong to the whole server: each run has names of its own."""
    return f"test_{uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def roles_url(databases: Databases) -> str:
    """A database of its own: ownership changes there."""
    return databases.clone("roles")


@pytest.fixture(scope="module")
def owner(roles_url: str, prefix: str) -> Iterator[Engine]:
    """Engine of the role that the server was made with; what the roles own goes at the end."""
    engine = create_engine(roles_url, poolclass=NullPool)
    yield engine
    with engine.begin() as connection:
        for role in ("migrate", "app", "readonly"):
            connection.execute(text(f"GRANT {prefix}_{role} TO CURRENT_USER"))
            connection.execute(text(f"DROP OWNED BY {prefix}_{role} CASCADE"))
            connection.execute(text(f"DROP ROLE {prefix}_{role}"))
    engine.dispose()


@pytest.fixture(scope="module")
def roles(owner: Engine, prefix: str) -> Roles:
    """The roles, made twice: the second time must change nothing."""
    passwords = dict.fromkeys(("migrate", "app", "readonly"), PASSWORD)
    with Session(owner) as session, session.begin():
        create_roles(session, passwords=passwords, prefix=prefix)
    with Session(owner) as session, session.begin():
        return create_roles(session, prefix=prefix)


@pytest.fixture
def keys() -> str:
    """A key made for the test."""
    return new_keys("k")


Connect = Callable[[str], Engine]


@pytest.fixture(scope="module")
def connect(roles_url: str, roles: Roles) -> Connect:
    """An engine that logs in as one of the roles."""

    def engine(role: str) -> Engine:
        url = make_url(roles_url).set(username=role, password=PASSWORD)
        return create_engine(url, poolclass=NullPool)

    return engine


def refuses(engine: Engine, statement: str) -> bool:
    """Whether a lack of rights, and nothing else, keeps the role from it."""
    with engine.connect() as connection:
        try:
            connection.execute(text(statement))
        except ProgrammingError as error:
            if isinstance(error.orig, InsufficientPrivilege):
                return True
            raise
        connection.commit()
    return False


def test_app_does_the_work_of_the_worker(connect: Connect, roles: Roles, keys: str) -> None:
    now = datetime.now(UTC)
    with Session(connect(roles.app)) as session, session.begin():
        provider = make_linked_provider(session, EncryptionService(keys), issued_at=now)
        claim = timedelta(minutes=2)
        assert providers.claim_refresh_due(session, provider_key="schwab", now=now, limit=10, claim=claim)
        audit.record(session, provider_id=provider.id, action="linked")
        notices.enqueue(session, provider_id=provider.id, stage="needs_reauth", subject_key="1")
        heartbeats.beat(session, name="reap", at=now)
        assert quotas.take(session, provider_key="schwab", bucket="app", day=now.date(), amount=1, limit=1)
        for table in upkeep.RETAINED:
            upkeep.remove_old(session, table=table, before=now, limit=1)
        assert health.replication(session) == health.Replication(standbys=0, synchronous=False)
        assert session.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        assert audit.verify_chains(session, provider_id=provider.id).problems == []


@pytest.mark.deep
def test_app_writes_and_reads_the_change_feed(connect: Connect, roles: Roles) -> None:
    with Session(connect(roles.app)) as session, session.begin():
        give = positions.cursors_before(session, since=datetime.now(UTC), user_id=uuid4())
        before = Cursor.parse(give(None))
    with Session(connect(roles.app)) as session, session.begin():
        account = make_account(session)
        session.execute(delete(Provider).where(Provider.id == account.provider_id))
    with Session(connect(roles.app)) as session, session.begin():
        now = positions.here(session, read=before.read)
        positions.check(before, now, user_id=None)
        (told,) = log.read(session, before, ended=now.ended, limit=10).items

    assert (told.noun, told.count) == ("accounts", 1)
    assert b'"change":"removed"' in told.json


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE provider_audit_logs SET actor = 'x'",
        "DELETE FROM provider_audit_logs",
        "TRUNCATE provider_audit_logs",
        "ALTER TABLE provider_audit_logs DISABLE TRIGGER ALL",
        "DROP TRIGGER refuse_rows ON provider_audit_logs",
        "CREATE OR REPLACE FUNCTION provider_audit_refuse() RETURNS trigger LANGUAGE sql AS 'SELECT 1'",
        "SET session_replication_role = replica",
        "ALTER TABLE providers ADD COLUMN x int",
        "CREATE TABLE mine (id int)",
        "CREATE TEMP TABLE provider_audit_logs (provider_id uuid, seq int, hash bytea)",
        "DROP TABLE users",
        "TRUNCATE users CASCADE",
        "UPDATE alembic_version SET version_num = 'x'",
        "CREATE ROLE another",
    ],
)
def test_app_can_neither_alter_the_audit_log_nor_the_schema(connect: Connect, roles: Roles, statement: str) -> None:
    assert refuses(connect(roles.app), statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE provider_audit_logs SET actor = 'x'",
        "DELETE FROM provider_audit_logs",
        "TRUNCATE provider_audit_logs",
    ],
)
def test_owner_of_the_schema_is_refused_by_trigger(connect: Connect, roles: Roles, statement: str) -> None:
    engine = connect(roles.migrate)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO provider_audit_logs (id, provider_id, action, actor) "
                "VALUES (gen_random_uuid(), gen_random_uuid(), 'linked', 'user')"
            )
        )

    with pytest.raises(ProgrammingError, match="insert-only"), engine.begin() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        ("SELECT provider_id, generation, key_id, lease_until FROM provider_tokens", False),
        ("SELECT status FROM providers", False),
        ("SELECT amount FROM transactions", False),
        ("SELECT action FROM provider_audit_logs", False),
        ("SELECT amount FROM dashtam_v1.transactions", False),
        ("SELECT current FROM dashtam_v1.accounts", False),
        ("SELECT queue FROM work_waiting", False),
        ("CREATE VIEW dashtam_v1.mine AS SELECT 1 AS one", True),
        ("SELECT access_token FROM provider_tokens", True),
        ("SELECT refresh_token FROM provider_tokens", True),
        ("SELECT * FROM provider_tokens", True),
        ("SELECT t::text FROM provider_tokens AS t", True),
        ("COPY provider_tokens TO STDOUT", True),
        ("UPDATE providers SET status = 'active'", True),
        ("INSERT INTO users (id) VALUES (gen_random_uuid())", True),
        ("CREATE TABLE mine (id int)", True),
        ("CREATE TEMP TABLE mine (id int)", True),
    ],
)
def test_readonly_sees_all_but_the_tokens(connect: Connect, roles: Roles, statement: str, refused: bool) -> None:
    assert refuses(connect(roles.readonly), statement) is refused


def test_migrate_may_change_the_schema_and_app_works_with_what_is_new(connect: Connect, roles: Roles) -> None:
    migrate_engine, app = connect(roles.migrate), connect(roles.app)
    with migrate_engine.begin() as connection:
        connection.execute(text("ALTER TABLE providers ADD COLUMN added int"))
        connection.execute(text("CREATE TABLE later (id int)"))

    assert not refuses(app, "INSERT INTO later VALUES (1)")
    assert not refuses(app, "SELECT added FROM providers")
    assert refuses(connect(roles.readonly), "SELECT id FROM later")
    with migrate_engine.begin() as connection:
        connection.execute(text("DROP TABLE later"))
        connection.execute(text("ALTER TABLE providers DROP COLUMN added"))


def test_migrations_run_as_the_migrate_role(roles_url: str, roles: Roles) -> None:
    url = make_url(roles_url).set(username=roles.migrate, password=PASSWORD)

    migrate(url.render_as_string(hide_password=False))


def test_migration_that_may_not_create_the_schema_of_views_says_what_to_do(
    databases: Databases, roles: Roles, owner: Engine
) -> None:
    url = databases.clone("no_schema")
    downgrade(url, "0022")
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"GRANT USAGE, CREATE ON SCHEMA public TO {roles.migrate}"))
        connection.execute(text(f"GRANT SELECT, UPDATE ON alembic_version TO {roles.migrate}"))
    engine.dispose()
    as_migrate = make_url(url).set(username=roles.migrate, password=PASSWORD).render_as_string(hide_password=False)

    with pytest.raises(Refused, match="dashtam database roles"):
        migrate(as_migrate)

    with Session(create_engine(url, poolclass=NullPool)) as session, session.begin():
        session.execute(text(f"DROP OWNED BY {roles.migrate}"))


def test_passwords_leave_as_scram_verifiers_alone(owner: Engine, roles: Roles, prefix: str) -> None:
    statements: list[str] = []
    event.listen(owner, "before_cursor_execute", lambda *sent: statements.append(f"{sent[2]} {sent[3]}"))

    with Session(owner) as session, session.begin():
        create_roles(session, passwords={"app": PASSWORD}, prefix=prefix)

    (sent,) = [statement for statement in statements if "PASSWORD" in statement]
    assert "SCRAM-SHA-256$" in sent
    assert not [statement for statement in statements if "made-up" in statement]


def test_schema_must_be_migrated_first(databases: Databases) -> None:
    url = make_url(databases.clone("unmigrated"))
    engine = create_engine(url, poolclass=NullPool)
    with Session(engine) as session, session.begin() as outer:
        session.execute(text("DROP TABLE alembic_version"))
        with pytest.raises(Refused, match="alembic upgrade head"):
            create_roles(session, prefix="never")
        outer.rollback()


@pytest.mark.parametrize("prefix", ["x; DROP TABLE users", "", "A", '"', "x" * 60])
def test_prefix_that_is_no_plain_name_is_refused(db_session: Session, prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix"):
        create_roles(db_session, prefix=prefix)


def test_password_for_an_unknown_role_is_refused(db_session: Session) -> None:
    with pytest.raises(ConfigurationError, match="admin"):
        create_roles(db_session, passwords={"admin": "x"})
