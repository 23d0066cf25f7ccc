"""`dashtam keys`: makes, rotates and retires encryption keys, also while workers run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from worker.cli.ask import ask
from worker.cli.exits import Failed, UsageProblem
from worker.cli.output import AsJson, plural, print_json, say, show, table

if TYPE_CHECKING:
    from worker.services.keys import KeyUse

app = typer.Typer(help="Make, rotate and retire encryption keys.", no_args_is_help=True)

_KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")


@app.command()
def generate(
    key_id: Annotated[
        str | None,
        typer.Option("--id", help="Name of the key; kept beside every ciphertext. Without: k1, k2, … as is free."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a new key for ENCRYPTION_KEYS. It is stored nowhere else.

    [bold]Example[/]

    dashtam keys generate --id k2 > k2.key
    """
    if key_id is None:
        from worker.services.keys import free_id

        key_id = free_id()
    if not _KEY_ID.fullmatch(key_id):
        raise UsageProblem("--id may hold letters, digits and _.- alone, at most 32")
    from cryptography.fernet import Fernet

    pair = f"{key_id}:{Fernet.generate_key().decode()}"
    if as_json:
        print_json({"encryption_keys": pair})
    else:
        typer.echo(pair)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show which keys are configured, which one encrypts new data, and which data still needs each key.

    [bold]Example[/]

    dashtam keys status
    """
    from worker.services import keys

    uses = ask(keys.status)
    show(uses, as_json=as_json, render=_status)


def _status(uses: list[KeyUse]) -> RenderableType:
    columns = ("key", "configured", "writes", "#tokens", "#journal", "may be retired")
    return table(
        columns,
        [
            (
                use.key_id,
                "yes" if use.configured else "[red]missing[/]",
                "yes" if use.writing else "no",
                use.tokens,
                use.journal,
                "no" if use.in_use else "yes",
            )
            for use in uses
        ],
    )


@app.command()
def rotate(
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Tokens per transaction.")] = 500,
    as_json: AsJson = False,
) -> None:
    """Encrypt every token again with the first key of ENCRYPTION_KEYS; refreshes continue meanwhile.

    The command can be interrupted and started again at any time. Before it, put the new key after the old one and
    restart all processes; then put it first and restart all processes again.

    [bold]Example[/]

    dashtam keys rotate
    """
    from worker.services import keys

    done = ask(keys.reencrypt, batch_size=batch)
    if as_json:
        print_json(done)
    else:
        say(f"{plural(done.done, 'token')} written anew with key {done.key_id}; {done.left} left")
    if done.unreadable:
        raise Failed(
            f"{plural(len(done.unreadable), 'token')} could not be read and {'was' if done.left == 1 else 'were'} left "
            "as they are: put the missing key back into ENCRYPTION_KEYS (`dashtam keys status` names it)"
        )


@app.command()
def retire(key_id: Annotated[str, typer.Argument(help="Id of the key.")], as_json: AsJson = False) -> None:
    """Check whether a key can be removed from ENCRYPTION_KEYS; exits 3 while any data still needs it.

    This command cannot change your configuration. Afterwards, remove the key from it yourself and restart the workers.

    [bold]Example[/]

    dashtam keys retire k1
    """
    from worker.services import keys

    ask(keys.require_retirable, key_id)
    if as_json:
        print_json({"key_id": key_id, "retirable": True})
    else:
        say(f"nothing needs key {key_id} any more: take it out of ENCRYPTION_KEYS and restart the workers")
