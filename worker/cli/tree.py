"""The tree of commands. A command's module is imported only when that command is used."""

from __future__ import annotations

from importlib import import_module
from keyword import iskeyword
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand

from worker.cli.exits import CommandGroup


class Entry(NamedTuple):
    """One line of `dashtam --help`.

    Attributes:
        function: the command's function in `worker.cli.<name>`, with `_` for `-`; None if that module has a group of
            commands, named `app`.
        summary: the first paragraph of the command's own help; a test compares the two.
    """

    name: str
    function: str | None
    summary: str


ENTRIES = (
    Entry("run", "run", "Run everything on this machine: servers, sandbox, workers, beat, Flower and HTTP API."),
    Entry(
        "status",
        "status",
        "Show how many logins there are, what is due, what is late, and whether all processes work.",
    ),
    Entry("providers", None, "List linked logins; set how often they are synced; pause, resume or unlink them."),
    Entry("link", "link", "Link a login, or renew the consent of one that was linked before under the same alias."),
    Entry("refresh", "refresh", "Refresh a provider's token now, through the same task that the schedule sends."),
    Entry("sync", "sync", "Sync accounts now, through the same task that the schedule sends."),
    Entry(
        "accounts",
        None,
        "Show the accounts that were synced; merge two that are the same, split one that is two, and undo it.",
    ),
    Entry("liabilities", "liabilities", "Show the terms of cards and loans: what is owed, and what is due when."),
    Entry(
        "transactions",
        "transactions",
        "Show the transactions that were synced, newest first; + is money into the account.",
    ),
    Entry("import", "import_", "Store what is in a file that a bank has handed out."),
    Entry("export", "export", "Write all synced data of one user to files, as it is at this moment."),
    Entry("runs", None, "Show what syncs have done."),
    Entry("quarantine", None, "List records that could not be trusted, and try them again."),
    Entry("failures", None, "List failed tasks, and send them again."),
    Entry(
        "explain",
        "explain_",
        "Say why a refresh or a sync of a provider did or did not happen, what is next, and who must act.",
    ),
    Entry("integrations", None, "List integrations, pause or resume one, write a new one and check it."),
    Entry("keys", None, "Make, rotate and retire encryption keys."),
    Entry("api-keys", None, "Make, list and revoke keys of the HTTP API."),
    Entry(
        "simplefin", None, "Let an app read a user's accounts by the SimpleFIN protocol; list and revoke what it holds."
    ),
    Entry("hooks", None, "Say who is told of what happens: add, list, test, replay, rotate, resume and remove hooks."),
    Entry("audit", None, "Read the audit log, and verify that it was not altered."),
    Entry(
        "doctor",
        "doctor",
        "Check configuration, connections, schema, clocks, queues and workers; a fix for each failure.",
    ),
    Entry("migrate", "migrate", "Bring the database's schema to a version, the newest by default."),
    Entry("database", None, "Prepare the database."),
    Entry("sandbox", None, "Make something go wrong at the sandbox of `dashtam run`, and see what the worker does."),
    Entry("devstack", None, "Start and stop a private Postgres and Redis."),
)

_BY_NAME = {entry.name: entry for entry in ENTRIES}


class CommandTree(CommandGroup):
    """The root of the tree: lists the commands in `ENTRIES`, and imports only the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for entry in ENTRIES:
            self.commands[entry.name] = TyperCommand(entry.name, help=entry.summary)
        self._imported: set[str] = set()

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Replaces the placeholder of a command by the real command."""
        if args and args[0] in _BY_NAME:
            self.load(args[0])
        return super().resolve_command(ctx, args)

    def load(self, name: str) -> Any:
        """The command or group with this name; it is imported at the first use."""
        if name not in self._imported:
            self.commands[name] = _imported(_BY_NAME[name])
            self._imported.add(name)
        return self.commands[name]


def _imported(entry: Entry) -> Any:
    name = entry.name.replace("-", "_")
    module = import_module(f"worker.cli.{name}_" if iskeyword(name) else f"worker.cli.{name}")
    if entry.function is None:
        made: Any = typer.main.get_group(module.app)
    else:
        alone = typer.Typer(add_completion=False)
        alone.command(entry.name)(getattr(module, entry.function))
        made = typer.main.get_command(alone)
    made.name = entry.name
    _hide_types_of_flags(made)
    return made


def _hide_types_of_flags(command: Any) -> None:
    """Makes the help show `--json` instead of `--json <bool>`."""
    for parameter in command.get_params(typer.Context(command)):
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    for child in getattr(command, "commands", {}).values():
        _hide_types_of_flags(child)
