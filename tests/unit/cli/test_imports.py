"""Which modules a person who presses TAB, or asks for help, has to wait for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Each costs a tenth of a second or more on an idle core.
_SLOW = {
    "aiohttp",
    "alembic",
    "celery",
    "cryptography",
    "httpx",
    "kombu",
    "psycopg",
    "pydantic",
    "redis",
    "sqlalchemy",
    "structlog",
}
_PROGRAM = """
import sys
from worker.cli import main
sys.argv[0] = "dashtam"
try:
    main()
except SystemExit:
    pass
print("imported:", *sys.modules)
"""


def _run(*arguments: str, **variables: str) -> tuple[str, set[str]]:
    """Output of a command in an interpreter of its own, and the packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    output, _, modules = done.stdout.partition("imported:")
    return output, {module.partition(".")[0] for module in modules.split()}


@pytest.mark.parametrize(("argument", "word"), [("--help", "quarantine"), ("--version", "dashtam")])
def test_help_and_version_import_nothing_slow(argument: str, word: str) -> None:
    output, packages = _run(argument)

    assert word in output
    assert not packages & _SLOW


@pytest.mark.parametrize(
    ("words", "completed"),
    [("dashtam pro", "providers"), ("dashtam sync --fo", "--force"), ("dashtam integrations pause sch", "schwab")],
)
def test_completion_imports_nothing_slow(words: str, completed: str) -> None:
    output, packages = _run(_DASHTAM_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1))

    assert output.split() == [completed]
    # typer itself reads values with pydantic.
    assert not packages & (_SLOW - {"pydantic"})
