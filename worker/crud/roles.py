"""Database roles: `migrate` owns the schema, `app` reads and writes rows, `readonly` reads them.

Run it after a migration, as a role that may create roles. Running it again corrects what differs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from worker.errors import ConfigurationError, Refused
from worker.models import (
    ApiKey,
    LinkSession,
    LinkState,
    ProviderToken,
    Revocation,
    SimplefinAccess,
    Subscription,
    every_table,
)

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
_WITH_SECRETS = {
    table.__tablename__
    for table in (ProviderToken, Revocation, LinkState, LinkSession, ApiKey, SimplefinAccess, Subscription)
}
_SECRET_COLUMNS = {
    *("access_token", "refresh_token", "code_verifier"),
    *("key_hash", "token_hash", "claim_hash", "secret_hash"),
    *("secret", "old_secret", "url"),  # the address of a hook may have a secret of its receiver's in it
}
_MIGRATIONS = "alembic_version"
_AUDIT = "provider_audit_logs"
_VIEWS = "dashtam_v1"
_OF_WORK = "work_waiting"
_ROLES = ("migrate", "app", "readonly")


@dataclass(frozen=True, slots=True)
class Roles:
    """The names of the three roles."""

    migrate: str
    app: str
    readonly: str


def create_roles(session: Session, *, passwords: Mapping[str, str] | None = None, prefix: str = "dashtam") -> Roles:
    """Creates or corrects the roles `<prefix>_migrate`, `<prefix>_app` and `<prefix>_readonly`.

    A role can log in when it has been given a password; `passwords` has them by `migrate`, `app` and `readonly`. They
    are sent to Postgres only as SCRAM verifiers. A role without an entry there keeps its password.

    Raises:
        ConfigurationError: the prefix is not a plain lower-case name, or a password is for an unknown role.
        Refused: the schema has not been migrated.
    """
    if not _NAME.fullmatch(prefix):
        raise ConfigurationError("the roles' prefix must be a plain lower-case name")
    if unknown := set(passwords or {}) - set(_ROLES):
        raise ConfigurationError(f"no such role: {', '.join(sorted(unknown))}; there are {', '.join(_ROLES)}")
    tables = _tables(session)
    if _MIGRATIONS not in tables:
        raise Refused("the database has no schema yet; migrate it first: alembic upgrade head")
    # The lock lets one operator wait for another: both would change the same rows of Postgres's catalogue.
    session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('dashtam roles', 0))"))
    roles = Roles(*(f"{prefix}_{role}" for role in _ROLES))
    for kind, role in zip(_ROLES, (roles.migrate, roles.app, roles.readonly), strict=True):
        _create(session, role, (passwords or {}).get(kind))
    _own(session, roles.migrate, tables)
    _grant(session, roles, tables)
    return roles


def _create(session: Session, role: str, password: str | None) -> None:
    known = session.execute(text("SELECT FROM pg_roles WHERE rolname = :role"), {"role": role}).first()
    if known is None:
        session.execute(text(f"CREATE ROLE {role} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE"))
    if password is not None:
        # A password that is not hashed could appear in the server's log.
        verifier = session.connection().connection.driver_connection.pgconn.encrypt_password(  # type: ignore[union-attr]
            password.encode(), role.encode(), b"scram-sha-256"
        )
        session.connection().exec_driver_sql(f"ALTER ROLE {role} LOGIN PASSWORD '{verifier.decode()}'")


def _own(session: Session, migrate: str, tables: list[str]) -> None:
    superuser = session.execute(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")).scalar_one()
    if not superuser:
        session.execute(text(f"GRANT {migrate} TO CURRENT_USER"))
    session.execute(text(f"GRANT USAGE, CREATE ON SCHEMA public TO {migrate}"))
    for table in tables:
        session.execute(text(f'ALTER TABLE public."{table}" OWNER TO {migrate}'))
    functions = session.execute(
        text(
            """
            SELECT p.oid::regprocedure::text FROM pg_proc AS p
            WHERE p.pronamespace = 'public'::regnamespace
                AND (p.proname LIKE 'provider\\_audit\\_%' OR p.proname LIKE 'change\\_log\\_%'
                    OR p.proname IN ('unsettled_runs_here', 'keep_due_time', 'forget_due_times'))
            """
        )
    )
    if _has(session, _OF_WORK):
        session.execute(text(f"ALTER VIEW public.{_OF_WORK} OWNER TO {migrate}"))
    for function in functions.scalars().all():
        session.execute(text(f"ALTER FUNCTION {function} OWNER TO {migrate}"))
    if _has_views(session):
        session.execute(text(f"ALTER SCHEMA {_VIEWS} OWNER TO {migrate}"))
        views = session.execute(text("SELECT viewname FROM pg_views WHERE schemaname = :schema"), {"schema": _VIEWS})
        for view in views.scalars().all():
            session.execute(text(f'ALTER VIEW {_VIEWS}."{view}" OWNER TO {migrate}'))


def _has(session: Session, view: str) -> bool:
    return bool(session.scalar(text("SELECT to_regclass(:view) IS NOT NULL"), {"view": f"public.{view}"}))


def _has_views(session: Session) -> bool:
    """Whether the migration that makes the schema of views has run."""
    return bool(session.scalar(text("SELECT to_regnamespace(:schema) IS NOT NULL"), {"schema": _VIEWS}))


def _grant(session: Session, roles: Roles, tables: list[str]) -> None:
    database = session.execute(text("SELECT quote_ident(current_database())")).scalar_one()
    both = f"{roles.app}, {roles.readonly}"
    for statement in (
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        f"GRANT CONNECT ON DATABASE {database} TO {roles.migrate}, {both}",
        f"GRANT CREATE ON DATABASE {database} TO {roles.migrate}",  # migrations make the schemas of views
        # Temporary tables are not needed, and one with the name of a table of ours would be found first.
        f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC, {both}",
        f"GRANT USAGE ON SCHEMA public TO {both}",
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {both}",
        # `app` can use tables of later migrations at once; `readonly` sees them when this has run again.
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {roles.migrate} IN SCHEMA public "
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {roles.app}",
    ):
        session.execute(text(statement))
    for table in tables:
        rights = {_MIGRATIONS: "SELECT", _AUDIT: "SELECT, INSERT"}.get(table, "SELECT, INSERT, UPDATE, DELETE")
        session.execute(text(f'GRANT {rights} ON public."{table}" TO {roles.app}'))
        session.execute(text(f'GRANT {_readable(table)} ON public."{table}" TO {roles.readonly}'))
    if _has(session, _OF_WORK):
        session.execute(text(f"GRANT SELECT ON public.{_OF_WORK} TO {both}"))
    if _has_views(session):
        session.execute(text(f"GRANT USAGE ON SCHEMA {_VIEWS} TO {both}"))
        session.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA {_VIEWS} TO {both}"))


def _readable(table: str) -> str:
    """The rights of `readonly` on a table: it may read everything except ciphertexts and hashes of keys."""
    if table not in _WITH_SECRETS:
        return "SELECT"
    columns = [column.name for column in every_table().tables[table].columns if column.name not in _SECRET_COLUMNS]
    return f"SELECT ({', '.join(columns)})"


def _tables(session: Session) -> list[str]:
    """Those of our tables that exist. Other tables in the same schema are left alone."""
    ours = {*every_table().tables, _MIGRATIONS}
    found = session.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars()
    return sorted(ours.intersection(found))
