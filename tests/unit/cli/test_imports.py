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
# What only workers and single commands need; SQLAlchemy, psycopg and pydantic are what reading a database takes.
_WORKERS_OWN = {
    "aiohttp",
    "alembic",
    "email_validator",
    "flower",
    "httpx",
    "limits",
    "prometheus_client",
    "structlog",  # a command logs only when something goes wrong
}
# Parts of our own that only workers need.
_WRITERS = {"worker.crud.sync.apply", "worker.services.refresh.journal"}
# Each table takes 5 ms. Commands about the whole fleet read few of them.
_ROWS = {
    *("worker.crud.fleet.history", "worker.crud.fleet.stored", "worker.crud.notices"),
    *(
        f"worker.models.{file}"
        for file in ("access", "account", "feed", "hooks", "identity", "outbox", "token", "transaction")
    ),
}
_BROKER = {"celery", "cryptography", "kombu", "opentelemetry", "redis"}
_PROGRAM = """
import sys
from worker.cli import main
for line in sys.argv[1].split(";") if ";" in sys.argv[1] else [None]:
    sys.argv = ["dashtam", *(sys.argv[1:] if line is None else line.split())]
    try:
        main()
    except SystemExit as end:
        if line is not None:
            print("exit:", end.code)
print("imported:", *sys.modules)
"""


def _run(*arguments: str, **variables: str) -> tuple[str, set[str]]:
    """Output of a command in an interpreter of its own, and the packages and modules that it imported.

    One argument with semicolons is several commands, one after the other.
    """
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *(arguments or ("",))],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    output, _, modules = done.stdout.partition("imported:")
    names = modules.split()
    return output, {*names, *(name.partition(".")[0] for name in names)}


@pytest.mark.deep
@pytest.mark.parametrize(("argument", "word"), [("--help", "quarantine"), ("--version", "dashtam")])
def test_help_and_version_import_nothing_slow(argument: str, word: str) -> None:
    output, packages = _run(argument)

    assert word in output
    assert not packages & _SLOW


@pytest.mark.deep
@pytest.mark.parametrize(
    ("words", "completed"),
    [("dashtam pro", "providers"), ("dashtam sync --fo", "--force"), ("dashtam integrations pause sch", "schwab")],
)
def test_completion_imports_nothing_slow(words: str, completed: str) -> None:
    output, packages = _run(_DASHTAM_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1))

    assert output.split() == [completed]
    # typer itself reads values with pydantic.
    assert not packages & (_SLOW - {"pydantic"})


@pytest.mark.deep
@pytest.mark.parametrize(
    ("commands", "unwanted"),
    [
        (
            "providers;providers show x;accounts;transactions;runs;quarantine list;failures list",
            _WORKERS_OWN | _BROKER | _WRITERS,
        ),
        ("providers;providers list --status paused", _WORKERS_OWN | _BROKER | _WRITERS | _ROWS),
        ("status;status --json", _WORKERS_OWN | {"cryptography.fernet"} | _ROWS),
        ("status;explain x", _WORKERS_OWN | {"cryptography.fernet"}),
        ("sync x;refresh x;sync --all", _WORKERS_OWN),
    ],
)
def test_commands_import_nothing_that_only_workers_need(commands: str, unwanted: set[str]) -> None:
    nowhere = "postgresql+psycopg://nobody:none@127.0.0.1:1/none"

    output, packages = _run(commands, DATABASE_URL=nowhere, REDIS_URL="redis://127.0.0.1:1/0")

    assert output.count("exit: 4") == len(commands.split(";"))
    assert {"sqlalchemy", "psycopg"} <= packages
    assert not packages & unwanted


@pytest.mark.deep
def test_integrations_that_are_found_import_no_parser_of_files() -> None:
    find = "import sys; from worker.integrations.registry import REGISTRY; print(*REGISTRY); print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", find], capture_output=True, text=True, check=True)

    keys, modules = done.stdout.splitlines()
    assert "statement_files" in keys.split()
    assert not {"ofxtools", "mt940", "defusedxml"} & set(modules.split())


@pytest.mark.deep
def test_integrations_that_are_built_import_neither_aiohttp_nor_what_counts_calls() -> None:
    build = """
import sys
from worker.integrations.kit.http import Api
from worker.services.availability import quotas
Api("https://api.example.org", name="example", total_seconds=5, max_bytes=1000)
print(*sys.modules)
"""

    done = subprocess.run([sys.executable, "-c", build], capture_output=True, text=True, check=True)

    assert not {"aiohttp", "jwt", "limits"} & set(done.stdout.split())
