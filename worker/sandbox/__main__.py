"""`python -m worker.sandbox`: serve the stand-in provider APIs on loopback."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Iterable

import uvicorn

from worker.sandbox.app import LOGINS_AT_START, SandboxApp, create_app
from worker.sandbox.loopback import is_loopback
from worker.sandbox.stand_ins import stand_ins

ADMIN_TOKEN_VARIABLE = "DASHTAM_SANDBOX_ADMIN_TOKEN"  # noqa: S105 - a variable's name


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on")
    parser.add_argument("--port", type=int, default=8765, help="0 picks a free one")
    parser.add_argument("--seed", type=int, default=1, help="decides every name, amount and token")
    parser.add_argument(
        "--logins",
        metavar="[PROVIDER=]NUMBER",
        action="append",
        default=[],
        help=f"logins at start, of each provider or of one; may be repeated (default: {LOGINS_AT_START} of each)",
    )
    parser.add_argument("--access-seconds", type=int, default=1800, help="life of access tokens that expire")
    parser.add_argument("--live", action="store_true", help="let the books move by themselves")
    parser.add_argument("--live-seconds", type=float, default=5.0, help="seconds between two moves with --live")
    parser.add_argument("--admin-token", help=f"better given as {ADMIN_TOKEN_VARIABLE}; made up and printed if neither")
    parser.add_argument("--tls-certificate", help="serve https with this certificate (PEM), however bad it is")
    parser.add_argument("--tls-key", help="its private key (PEM)")
    given = parser.parse_args(argv)
    if not is_loopback(given.host):
        parser.error(f"--host {given.host}: the sandbox listens on loopback only, for example 127.0.0.1")
    usable, problems = stand_ins()
    for problem in problems:
        sys.stderr.write(f"left out: {problem}\n")
    try:
        given.population = _population(given.logins, usable)
    except ValueError as error:
        parser.error(str(error))
    return given


def _population(logins: list[str], providers: Iterable[str]) -> dict[str, int]:
    """The number of logins of each provider. A number given for one provider comes before the number given for all.

    Raises:
        ValueError: a number cannot be read, or a provider has no stand-in.
    """
    of_all, of_one = LOGINS_AT_START, {}
    for text in logins:
        key, _, number = text.rpartition("=")
        if not number.isdecimal():
            raise ValueError(f"--logins {text}: say a number, or a provider and a number, for example 3")
        if key:
            of_one[key] = int(number)
        else:
            of_all = int(number)
    known = list(providers)
    unknown = sorted(set(of_one) - set(known))
    if unknown:
        raise ValueError(f"--logins: no stand-in of {', '.join(unknown)}; there are {', '.join(known)}")
    return dict.fromkeys(known, of_all) | of_one


class _AnnouncingServer(uvicorn.Server):
    """Prints its address as soon as it listens; the program that started it waits for that line."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            scheme = "https" if self.config.is_ssl else "http"
            _say(f"sandbox listening on {scheme}://{self.config.host}:{port}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@contextlib.asynccontextmanager
async def _moving(app: SandboxApp, every: float | None) -> AsyncIterator[None]:
    if every is None:
        yield
        return

    async def move() -> None:
        while True:
            await asyncio.sleep(every)
            app.sandbox.advance(1)

    mover = asyncio.create_task(move())
    mover.add_done_callback(_mourn)
    try:
        yield
    finally:
        mover.cancel()


def _mourn(mover: asyncio.Task[None]) -> None:
    if not mover.cancelled() and mover.exception() is not None:
        _say(f"the books no longer move: {mover.exception()!r}")


async def _serve(app: SandboxApp, given: argparse.Namespace) -> None:
    server = _AnnouncingServer(
        uvicorn.Config(
            app,
            host=given.host,
            port=given.port,
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
            backlog=4096,
            ssl_certfile=given.tls_certificate,
            ssl_keyfile=given.tls_key,
        )
    )
    async with _moving(app, given.live_seconds if given.live else None):
        await server.serve()


def main(argv: list[str] | None = None) -> int:
    """Serves until a signal comes. Returns the exit code."""
    given = _arguments(argv)
    token = given.admin_token or os.environ.get(ADMIN_TOKEN_VARIABLE, "")
    if not token:
        token = secrets.token_urlsafe(16)
        _say(f"admin token {token}")
    app = create_app(given.seed, token, given.population, {"access_seconds": given.access_seconds})
    asyncio.run(_serve(app, given))
    return 0


if __name__ == "__main__":
    sys.exit(main())
