"""`python -m worker.devstack up|down|status|erase [--json]`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from worker.devstack import Devstack, DevstackError, default_home


def main(argv: list[str] | None = None) -> int:
    """Runs one command. Returns 0 if it succeeded; otherwise 1, with a message on standard error."""
    parser = argparse.ArgumentParser(prog="python -m worker.devstack", description="Private Postgres and Redis.")
    parser.add_argument("command", choices=("up", "down", "status", "erase"))
    parser.add_argument("--home", type=Path, default=None, help="default: DASHTAM_HOME, or .dashtam in the project")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--not-durable", action="store_true", help="faster; for data that may be lost")
    options = parser.parse_args(argv)
    stack = Devstack(options.home or default_home(), durable=not options.not_durable, say=_say)
    try:
        return _COMMANDS[options.command](stack, options.json)
    except DevstackError as error:
        _say(f"error: {error}")
        return 1


def _up(stack: Devstack, as_json: bool) -> int:
    urls = asdict(stack.up())
    _print(json.dumps(urls) if as_json else "\n".join(f"{name.upper()}={url}" for name, url in urls.items()))
    return 0


def _down(stack: Devstack, as_json: bool) -> int:
    stack.down()
    return 0 if not as_json else _status(stack, as_json)


def _erase(stack: Devstack, as_json: bool) -> int:
    stack.erase()
    return 0 if not as_json else _status(stack, as_json)


def _status(stack: Devstack, as_json: bool) -> int:
    servers = stack.status()
    if as_json:
        _print(json.dumps([asdict(server) for server in servers]))
        return 0
    for server in servers:
        where = f"127.0.0.1:{server.port}, process {server.pid}, version {server.version}, {server.data}"
        _print(f"{server.name:<9}{server.state}" + (f"  {where}" if server.state == "up" else ""))
    return 0


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _say(text: str) -> None:
    sys.stderr.write(f"devstack: {text}\n")


_COMMANDS = {"up": _up, "down": _down, "status": _status, "erase": _erase}

if __name__ == "__main__":
    sys.exit(main())
