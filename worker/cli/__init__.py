"""`dashtam`: every command, one file per group.

Exit codes are in `worker.cli.exits`.
"""

from __future__ import annotations

import logging
import os
import sys

import structlog
import typer

from worker.cli import (
    audit,
    database,
    devstack,
    doctor,
    explain,
    failures,
    integrations,
    keys,
    link,
    migrate,
    providers,
    quarantine,
    refresh,
    run,
    runs,
    status,
    sync,
)
from worker.cli.exits import CommandGroup
from worker.cli.home import adopt_environment
from worker.runtime import is_wedged

app = typer.Typer(
    cls=CommandGroup,
    name="dashtam",
    help="Dashtam's background worker: scheduled token refresh and account sync.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    # Plain tracebacks for what is our own fault: pretty ones show local variables.
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or unknown id, 3 refused, 4 out of reach, 5 configuration.",
)

app.command("run")(run.run)
app.command("status")(status.status)
app.add_typer(providers.app, name="providers")
app.command("link")(link.link)
app.command("refresh")(refresh.refresh)
app.command("sync")(sync.sync)
app.add_typer(runs.app, name="runs")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(failures.app, name="failures")
app.command("explain")(explain.explain_)
app.add_typer(integrations.app, name="integrations")
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.command("doctor")(doctor.doctor)
app.command("migrate")(migrate.migrate)
app.add_typer(database.app, name="database")
app.add_typer(devstack.app, name="devstack")


_BRINGS_ITS_OWN = {"run", "devstack"}


@app.callback()
def prepare(ctx: typer.Context) -> None:
    """Before every command: quiet logs on standard error, and the home's environment when there is no other."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    if ctx.invoked_subcommand not in _BRINGS_ITS_OWN:
        adopt_environment()


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except SystemExit as end:
        if is_wedged():  # the interpreter would wait for a thread that never comes back
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)
        raise
