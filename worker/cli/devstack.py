"""`dashtam devstack`: starts and stops a private Postgres and Redis for development."""

from __future__ import annotations

import os
from pathlib import Path

import typer
from rich.console import RenderableType
from rich.markup import escape

from worker.cli.home import ENV_FILE, write_environment
from worker.cli.output import AsJson, SafeConsole, print_json, say, show, status, table
from worker.cli.run.environment import keys_file
from worker.devstack import Devstack, ServerStatus, default_home, is_demo_running

app = typer.Typer(help="Start and stop a private Postgres and Redis.", no_args_is_help=True)

_notes = SafeConsole(stderr=True, highlight=False, soft_wrap=True)


def _stack() -> Devstack:
    return Devstack(default_home(), durable=True, say=lambda sentence: _notes.print(sentence, markup=False))


@app.command()
def up(as_json: AsJson = False) -> None:
    """Start a private Postgres and Redis, unless DATABASE_URL and REDIS_URL name others.

    The data is kept in .dashtam (or DASHTAM_HOME). Later commands find the servers by themselves. For other programs,
    the addresses are in .dashtam/run.env, which only you can read. While `dashtam run` is up in the same home, only
    those of its servers that are down are started, and its environment is not changed.

    [bold]Example[/]

    dashtam devstack up && dashtam migrate
    """
    stack = _stack()
    if is_demo_running(stack.home):
        stack.up()
        _show_up(stack, stack.home / ENV_FILE, as_json=as_json)
        return
    urls = stack.up()
    variables = {"DASHTAM_HOME": str(stack.home), "DATABASE_URL": urls.database_url, "REDIS_URL": urls.redis_url}
    if not os.environ.get("ENCRYPTION_KEYS") and not os.environ.get("ENCRYPTION_KEYS_FILE"):
        variables["ENCRYPTION_KEYS_FILE"] = str(keys_file(stack.home))
    _show_up(stack, write_environment(stack.home, variables), as_json=as_json)


def _show_up(stack: Devstack, path: Path, *, as_json: bool) -> None:
    if as_json:
        print_json({"servers": stack.status(), "environment": path})
    else:
        show(stack.status(), as_json=False, render=_render)
        say(f"their addresses are in {escape(str(path))}")


@app.command()
def down(as_json: AsJson = False) -> None:
    """Stop both servers; their data is kept.

    [bold]Example[/]

    dashtam devstack down
    """
    stack = _stack()
    stack.down()
    show(stack.status(), as_json=as_json, render=_render)


@app.command("status")
def status_(as_json: AsJson = False) -> None:
    """Show whether the servers are up, and their addresses.

    [bold]Example[/]

    dashtam devstack status --json
    """
    show(_stack().status(), as_json=as_json, render=_render)


def _render(servers: list[ServerStatus]) -> RenderableType:
    columns = ("server", "state", "#port", "#process", "version", "data")
    return table(columns, [(s.name, status(s.state), s.port, s.pid, s.version, s.data) for s in servers])
