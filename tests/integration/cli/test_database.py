from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy import NullPool, create_engine, text

from tests.integration.cli.conftest import json_of
from tests.support.command_line import Dashtam
from tests.support.databases import Databases


@pytest.fixture
def prefix(databases: Databases, dashtam: Dashtam, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Names of roles in a database of their own; both go at the end."""
    name, url = f"cli_{uuid4().hex[:8]}", databases.clone("cli_roles")
    monkeypatch.setenv("DATABASE_URL", url)
    yield name
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for role in connection.scalars(
            text("SELECT rolname FROM pg_roles WHERE starts_with(rolname, :name)"), {"name": name}
        ).all():
            connection.execute(text(f"GRANT {role} TO CURRENT_USER"))
            connection.execute(text(f"DROP OWNED BY {role} CASCADE"))
            connection.execute(text(f"DROP ROLE {role}"))
    engine.dispose()


def test_roles_are_made_with_passwords_from_standard_input(dashtam: Dashtam, prefix: str) -> None:
    result = dashtam("database", "roles", "--prefix", prefix, "--passwords", "--json", stdin='{"app": "made-up-word"}')

    made = json_of(result)
    assert made == {"migrate": f"{prefix}_migrate", "app": f"{prefix}_app", "readonly": f"{prefix}_readonly"}
    assert "made-up-word" not in result.output


@pytest.mark.deep
def test_passwords_that_are_no_json_change_nothing(dashtam: Dashtam, prefix: str) -> None:
    result = dashtam("database", "roles", "--prefix", prefix, "--passwords", stdin="not json")

    assert result.exit_code == 2
    assert "nothing was changed" in result.stderr
