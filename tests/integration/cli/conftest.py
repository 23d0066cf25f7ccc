from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from click.testing import Result
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from tests.support.command_line import Dashtam, command_line
from worker.runtime import Runtime


@pytest.fixture
def dashtam(runtime: Runtime, celery_application: Any) -> Iterator[Dashtam]:
    """Runs a command in this process, on the test's servers."""
    with command_line() as run:
        yield run


@pytest.fixture
def rows(engine: Engine) -> Iterator[Session]:
    """A session that commits what a test sets up at its `commit()`, and reads afresh after it."""
    with Session(engine) as session:
        yield session


def json_of(result: Result) -> Any:
    """What a command with --json printed."""
    assert result.exit_code == 0, result.output
    return msgspec.json.decode(result.stdout)
