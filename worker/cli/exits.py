"""Exit codes, and how errors are reported: one line on standard error instead of a traceback."""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperGroup

from worker.errors import (
    AppMisconfigured,
    BadArgument,
    BadEntry,
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
    """The exit codes of commands, documented in docs/cli.md."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNAVAILABLE = 4
    CONFIGURATION = ConfigurationError.exit_code
    INTERRUPTED = 130


class UsageProblem(DashtamError):  # noqa: N818 - reads better where it is raised
    """An argument matches nothing, or more than one thing."""


class Failed(DashtamError):  # noqa: N818
    """The requested work was tried and did not succeed."""


class Interrupted(DashtamError):  # noqa: N818
    """A signal ended the command before its work was done."""


_CODES: tuple[tuple[tuple[type[DashtamError], ...], ExitCode], ...] = (
    ((UsageProblem, BadArgument, BadEntry, NotFound), ExitCode.USAGE),
    ((Refused, ReauthRequired, Unsupported, AppMisconfigured, Forbidden), ExitCode.REFUSED),
    ((Unavailable, RateLimited, InstitutionDown, Transient), ExitCode.UNAVAILABLE),
    ((Interrupted,), ExitCode.INTERRUPTED),
    ((ConfigurationError,), ExitCode.CONFIGURATION),
)


def exit_code(error: DashtamError) -> ExitCode:
    """The exit code for an error."""
    from worker.devstack import DevstackError

    if isinstance(error, DevstackError):
        return ExitCode.CONFIGURATION
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), ExitCode.FAILED)


def complain(message: str) -> None:
    """Writes one line to standard error."""
    from rich.markup import escape

    from worker.cli.output import SafeConsole

    console = SafeConsole(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[red]error:[/] {escape(message)}")


class CommandGroup(TyperGroup):
    """The root of the command tree: turns our errors into exit codes, and reports wrong usage in one line."""

    def get_params(self, ctx: Any) -> Any:
        """See typer. Flags are shown without the word `<bool>`."""
        parameters = super().get_params(ctx)
        for parameter in parameters:
            if getattr(parameter, "is_flag", False):
                parameter.metavar = ""
        return parameters

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Reads the options before the name of the command."""
        try:
            return super().make_context(*args, **kwargs)
        except typer.TyperException as error:
            raise _ended(error) from None

    def invoke(self, ctx: Any) -> Any:
        """Runs the requested command."""
        try:
            return super().invoke(ctx)
        except typer.TyperException as error:
            raise _ended(error) from None
        except DashtamError as error:
            complain(_with_mend(error))
            raise typer.Exit(exit_code(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            # The program that reads our output has ended, as in `dashtam runs | head`.
            sys.stderr.close()
            raise typer.Exit(ExitCode.OK) from None


def _with_mend(error: DashtamError) -> str:
    """The text for an error, with the command that ends it."""
    if isinstance(error, ConfigurationError) and "DATABASE_URL: is required" in str(error):
        return f"{error}; fill in .env as .env.example says, or have private servers started: dashtam devstack up"
    if isinstance(error, Refused) and error.for_operators:
        return f"{error}; {error.for_operators}"
    server = error.server if isinstance(error, Unavailable) else ""
    if not server:
        return str(error)
    from worker.services.mending import start_server
    from worker.settings import get_settings

    try:
        settings = get_settings()
    except ConfigurationError:  # the command may not need the complete configuration
        return str(error)
    return f"{error}; {start_server(server, settings, silent=isinstance(error, Unavailable) and error.silent)}"


def _ended(error: typer.TyperException) -> Exception:
    """The error to raise after wrong usage was reported in one line; typer itself prints whole pages of help."""
    message = error.format_message()
    if "\n" in message:
        return error
    context = getattr(error, "ctx", None)
    sentence = message if message.endswith((".", "?")) else f"{message}."
    complain(f"{sentence} See: {context.command_path} --help" if context is not None else sentence)
    return typer.Exit(error.exit_code)
