"""Exit codes, and how an error becomes one: a line on standard error, never a traceback."""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from worker.cli.output import SafeConsole
from worker.devstack import DevstackError
from worker.errors import (
    AppMisconfigured,
    ConfigurationError,
    DashtamError,
    Forbidden,
    InstitutionDown,
    NotFound,
    RateLimited,
    ReauthRequired,
    Refused,
    Transient,
    Unavailable,
    Unsupported,
)


class ExitCode(IntEnum):
    """What the shell is told. Documented in docs/cli.md."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNAVAILABLE = 4
    CONFIGURATION = ConfigurationError.exit_code
    INTERRUPTED = 130


class UsageProblem(DashtamError):  # noqa: N818 - reads better where it is raised
    """An argument that names nothing, or more than one thing."""


class Failed(DashtamError):  # noqa: N818
    """What was asked for was tried and did not succeed."""


class Interrupted(DashtamError):  # noqa: N818
    """A signal ended the command before its work was done."""


_CODES: tuple[tuple[tuple[type[DashtamError], ...], ExitCode], ...] = (
    ((UsageProblem, NotFound), ExitCode.USAGE),
    ((Refused, ReauthRequired, Unsupported, AppMisconfigured, Forbidden), ExitCode.REFUSED),
    ((Unavailable, RateLimited, InstitutionDown, Transient), ExitCode.UNAVAILABLE),
    ((Interrupted,), ExitCode.INTERRUPTED),
    ((ConfigurationError, DevstackError), ExitCode.CONFIGURATION),
)


def exit_code(error: DashtamError) -> ExitCode:
    """The exit code that an error stands for."""
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), ExitCode.FAILED)


def complain(message: str) -> None:
    """Writes one line to standard error."""
    console = SafeConsole(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[red]error:[/] {escape(message)}")


class CommandGroup(TyperGroup):
    """The top of the command tree: turns our errors into exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command that was asked for."""
        try:
            return super().invoke(ctx)
        except DashtamError as error:
            complain(str(error))
            raise typer.Exit(exit_code(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read our output has gone, as in `dashtam runs | head`.
            sys.stderr.close()
            raise typer.Exit(ExitCode.OK) from None
