"""Running `dashtam` in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol
from unittest.mock import patch

import structlog
import typer.testing
from click.testing import Result

from worker.cli import app
from worker.cli.tree import ENTRIES
from worker.runtime import Runtime, use_runtime
from worker.settings import get_settings


class Dashtam(Protocol):
    """Runs one command: `dashtam("providers", "list")`."""

    def __call__(self, *arguments: str, stdin: str | None = None) -> Result: ...


# typer would build the whole tree of commands for each invocation.
_built = cache(typer.main.get_command)


@cache
def command_tree() -> Any:
    """Every command, imported."""
    tree: Any = typer.main.get_command(app)
    for entry in ENTRIES:
        tree.load(entry.name)
    return tree


@contextmanager
def fresh_runtime() -> Iterator[Runtime]:
    """The process's runtime, made of the settings as they are now."""
    runtime = Runtime(get_settings())
    try:
        with use_runtime(runtime):
            yield runtime
    finally:
        runtime.close()


@contextmanager
def command_line() -> Iterator[Dashtam]:
    """What commands configure is undone at the end."""
    before = structlog.get_config()

    def run(*arguments: str, stdin: str | None = None) -> Result:
        with patch("typer.testing._get_command", _built):
            return typer.testing.CliRunner().invoke(app, list(arguments), input=stdin, prog_name="dashtam")

    yield run
    structlog.configure(**before)
