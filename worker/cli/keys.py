"""`dashtam keys`: encryption keys, and their rotation while work goes on."""

from __future__ import annotations

from typing import Annotated

import typer
from cryptography.fernet import Fernet

from worker.cli.output import AsJson, print_json, say

app = typer.Typer(help="Make, rotate and retire encryption keys.", no_args_is_help=True)


@app.command()
def generate(
    key_id: Annotated[str, typer.Option("--id", help="Name of the key; kept beside every ciphertext.")] = "k1",
    as_json: AsJson = False,
) -> None:
    """Print a new key for ENCRYPTION_KEYS. It is written nowhere else.

    [bold]Example[/]

    dashtam keys generate --id k2 > k2.key
    """
    pair = f"{key_id}:{Fernet.generate_key().decode()}"
    if as_json:
        print_json({"encryption_keys": pair})
    else:
        say(pair)
