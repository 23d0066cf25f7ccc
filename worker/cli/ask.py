"""Calls services on this process's runtime, which is imported and made at the first call; completes words for TAB."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer

if TYPE_CHECKING:
    from worker.runtime import Runtime

T = TypeVar("T")
P = ParamSpec("P")

_NAMES_FILE = "names.json"


def ask(service: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs `service(runtime, …)` to its end.

    Raises:
        ConfigurationError: the settings are incomplete or unsafe.
    """
    runtime = _runtime()
    return runtime.run(service(runtime, *args, **kwargs))


def _runtime() -> Runtime:
    from worker.runtime import get_runtime

    return get_runtime()


def operator() -> str:
    """The name of the person who runs the command, for the audit log."""
    try:
        return f"operator:{getpass.getuser()}"
    except (KeyError, OSError):  # a user id without a passwd entry, as in containers
        return "operator:unknown"


def remember_names() -> None:
    """Saves the present aliases for completion, because completion with TAB must not wait for Postgres.

    They are saved in the home, if there is one, in a file that only its owner can read.
    """
    from worker.cli.home import write_private
    from worker.devstack import default_home
    from worker.services.fleet import looking

    home = default_home()
    if home.is_dir():
        names = ask(looking.names)
        with suppress(OSError):
            write_private(home / _NAMES_FILE, json.dumps(names))


def _remembered(what: str) -> list[str]:
    from worker.devstack import default_home

    try:
        names = json.loads((default_home() / _NAMES_FILE).read_text())[what]
        return [str(name) for name in names]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def aliases(incomplete: str) -> list[str]:
    """The saved aliases that begin with this text, for completion."""
    return [alias for alias in _remembered("aliases") if alias.startswith(incomplete)]


def _keys(incomplete: str) -> Iterable[str]:
    return [key for key in _remembered("integrations") or _our_keys() if key.startswith(incomplete)]


def _our_keys() -> list[str]:
    """The built-in integrations' keys, used as long as no command has saved names."""
    from importlib.resources import files

    folders = (entry for entry in files("worker").joinpath("integrations").iterdir() if entry.is_dir())
    return sorted(entry.name for entry in folders if entry.name not in ("kit", "__pycache__"))


ProviderArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROVIDER",
        help="Id, unique beginning of one, or unique alias.",
        show_default=False,
        autocompletion=aliases,
    ),
]
ProviderOption = Annotated[
    str | None, typer.Option(metavar="PROVIDER", help="Only those of this provider.", autocompletion=aliases)
]
IntegrationArgument = Annotated[
    str, typer.Argument(metavar="INTEGRATION", help="schwab, plaid, …", autocompletion=_keys)
]
IntegrationOption = Annotated[str | None, typer.Option(help="Only those of schwab, plaid, …", autocompletion=_keys)]


def one_of(words: Callable[[], type[StrEnum]]) -> Any:
    """An option that takes one of these words. They are imported only when the option is used or completed."""

    def parse(given: str) -> str:
        known = [word.value for word in words()]
        if given not in known:
            raise typer.BadParameter(f"{given!r} is none of {', '.join(known)}")
        return given

    def complete(incomplete: str) -> list[str]:
        return [word.value for word in words() if word.value.startswith(incomplete)]

    return typer.Option("--status", metavar="STATUS", help="Only these.", parser=parse, autocompletion=complete)
