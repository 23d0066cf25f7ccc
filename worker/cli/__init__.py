"""`dashtam`, the command line. Each command has its own module; `tree` lists them, and `exits` has the exit codes."""

from __future__ import annotations

import gc
import os
import sys
from typing import Annotated

import typer

from worker.cli.tree import CommandTree

app = typer.Typer(
    cls=CommandTree,
    name="dashtam",
    help="Dashtam's background worker: scheduled token refresh and account sync.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    # Unexpected errors get plain tracebacks, because typer's pretty ones show local variables.
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or unknown id, 3 refused, 4 out of reach, 5 configuration.",
)

_BRINGS_ITS_OWN = {"run", "devstack"}


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"dashtam {version('dashtam-worker')}")
        raise typer.Exit


@app.callback()
def prepare(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Runs before every command: limits logs to warnings and errors, and reads the home's environment if needed."""
    import logging

    from worker.cli.home import adopt_environment
    from worker.process.logger import before_first_line

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    before_first_line(_log_only_errors)
    if ctx.invoked_subcommand not in _BRINGS_ITS_OWN:
        adopt_environment()


def _log_only_errors() -> None:
    import logging

    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


_OBJECTS_BETWEEN_COLLECTIONS = 50_000


def main() -> None:
    """The entry point of the console script: runs one command and closes everything that it has opened."""
    # Most of a short command's time goes into imports, and a tenth of that into collecting garbage that is not there.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    # For each settings class, pydantic would search every installed package for plug-ins of its own. We use none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        app()
    except SystemExit as end:
        if "worker.runtime" in sys.modules:
            _close(end.code if isinstance(end.code, int) else 1)
        raise


def _close(exit_code: int) -> None:
    from worker.runtime import close_runtime, is_wedged

    if is_wedged():  # the interpreter would wait for a thread that never returns
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    close_runtime()
