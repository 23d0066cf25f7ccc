from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import structlog
from click.testing import Result
from typer.testing import CliRunner

from worker.cli import app

Dashtam = Callable[..., Result]


@pytest.fixture
def dashtam() -> Iterator[Dashtam]:
    """Runs a command in this process: `dashtam("providers", "list")`; what it configures is undone."""
    before = structlog.get_config()

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin, prog_name="dashtam")

    yield run
    structlog.configure(**before)
