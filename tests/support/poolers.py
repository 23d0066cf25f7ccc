"""PgBouncer in transaction mode in front of a test's Postgres; the program is on PATH, or in Debian's package."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import make_url

from tests.support.brokers import Child, program
from tests.support.waiting import wait_for
from worker.devstack.account import server_account
from worker.devstack.processes import free_port


@contextmanager
def pgbouncer(database_url: str, *, ignores: str = "extra_float_digits") -> Iterator[str]:
    """The address of the same database behind a PgBouncer.

    Args:
        database_url: of the Postgres behind it.
        ignores: the startup options that it takes and forgets; it refuses others.
    """
    behind, port, account = make_url(database_url), free_port(), server_account()
    home = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    (home / "users.txt").write_text(f'"{behind.username}" "{behind.password}"\n')
    lines = ["[databases]", f"* = host={behind.host} port={behind.port}", "[pgbouncer]", "listen_addr = 127.0.0.1"]
    lines += [
        f"listen_port = {port}",
        "unix_socket_dir =",
        "auth_type = scram-sha-256",
        f"auth_file = {home}/users.txt",
    ]
    lines += ["pool_mode = transaction", "default_pool_size = 5", f"ignore_startup_parameters = {ignores}"]
    (home / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
    for path in (home, *home.iterdir()):
        account.give(path)
    words = ["--user", account.name] if account.switch else []
    child = Child([program("pgbouncer", "pgbouncer"), *words, str(home / "pgbouncer.ini")], log=home / "out.log")

    def listens() -> bool:
        assert child.running, f"PgBouncer has ended:\n{child.log()[-2000:]}"
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    child.start()
    try:
        wait_for(listens, what="PgBouncer")
        yield behind.set(port=port).render_as_string(hide_password=False)
    finally:
        child.kill()
        shutil.rmtree(home, ignore_errors=True)
