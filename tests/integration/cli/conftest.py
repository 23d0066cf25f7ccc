from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import structlog
from click.testing import Result
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from worker.cli import app
from worker.runtime import Runtime

Dashtam = Callable[..., Result]


@pytest.fixture
def dashtam(runtime: Runtime, celery_application: Any) -> Iterator[Dashtam]:
    """Runs a command in this process, on the test's servers; what it configures is undone."""
    before = structlog.get_config()

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin, prog_name="dashtam")

    yield run
    structlog.configure(**before)


@pytest.fixture
def rows(engine: Engine) -> Iterator[Session]:
    """A session that commits what a test sets up at its `commit()`, and reads afresh after it."""
    with Session(engine) as session:
        yield session


def json_of(result: Result) -> Any:
    """What a command with --json printed."""
    assert result.exit_code == 0, result.output
    return msgspec.json.decode(result.stdout)
